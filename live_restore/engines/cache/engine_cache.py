"""The cache of engines: what this machine built, sealed with its secret, and nothing else.

Receives the bytes of an engine with the key of everything it depends on; hands them on again to whoever asks with the same
key, or says in a sentence why not. It does not know what an engine does; its bytes may be none, where only a certificate is
kept.

A built engine holds code for the device, so one from elsewhere is never loaded. An entry is one file, put in place whole::

    <root>/<flavour>/<digest of the key>/engine     line 1: JSON with key, hash, certificate and seal; then the bytes
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from live_restore.engines.cache.machine_secret import machine_secret
from live_restore.engines.cache.user_folders import CACHE_VARIABLE, cache_folder
from live_restore.engines.certificates.certificate import Certificate
from live_restore.errors import EngineError

FILE = "engine"
_FORMAT = 1
_LONGEST_HEADER = 1 << 20
# On Windows a file cannot be replaced while somebody reads it, which takes milliseconds.
_TRIES, _PAUSE_S = 40, 0.025

# What of a key says where it was built, in words; the rest says what was built.
_BUILT_FOR = {
    "device": "device",
    "capability": "compute capability",
    "driver": "driver",
    "flavour_version": "version",
}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that a built engine depends on.

    Attributes
    ----------
    onnx_sha256 : str
        Of the graph that it was built from.
    flavour, flavour_version : str
        What built it: ``"tensorrt_rtx"``, ``"1.7.1.116"``.
    device, capability, driver : str
        ``"NVIDIA GeForce RTX 4070"``, ``"8.9"``, ``"13.0"``; for a generation of cards ``"rtx40"``, ``"8.9"``, ``"any"``.
    precision : str
    profile : str
        The shapes it takes, in words.
    recipe_sha256 : str
        Of the rest of what it was built by; empty where there is no recipe.
    """

    onnx_sha256: str
    flavour: str
    flavour_version: str
    device: str
    capability: str
    driver: str
    precision: str
    profile: str
    recipe_sha256: str

    @property
    def digest(self) -> str:
        """Hash of all fields."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()

    @property
    def folder(self) -> Path:
        """Where it lies, relative to the cache."""
        return Path(self.flavour) / self.digest[:32]

    def same_engine(self, other: "EngineKey") -> bool:
        """Whether the other is the same engine, perhaps for another device, driver or version."""
        return replace(self, **{name: getattr(other, name) for name in _BUILT_FOR}) == other


@dataclass(frozen=True, slots=True, eq=False)
class CacheEntry:
    """What is known of one stored engine without reading its bytes.

    Attributes
    ----------
    key : EngineKey
    path : Path
        Its file.
    engine_bytes : int
    engine_sha256 : str
    name : str
        What it is, for people.
    built : str
        When, UTC, ISO 8601.
    certificate : Certificate or None
    sealed_here : bool
        Whether the seal is this machine's own; nothing else is loaded.
    """

    key: EngineKey
    path: Path
    engine_bytes: int
    engine_sha256: str
    name: str
    built: str
    certificate: Certificate | None
    sealed_here: bool


class EngineCache:
    """Engines and certificates on the disk.

    Parameters
    ----------
    root : Path, optional
        Default: the user's cache folder, or what ``LIVE_RESTORE_CACHE`` names.
    secret : bytes, optional
        Default: this machine's; it is made when the first engine is stored.

    Several processes may use it at once: an entry is replaced as a whole, and the last one stays.
    """

    def __init__(self, root: Path | None = None, secret: bytes | None = None) -> None:
        self.root = cache_folder() / "engines" if root is None else Path(root)
        self._secret = secret

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key is stored, whether or not it is."""
        return self.root / key.folder / FILE

    def holds(self, key: EngineKey) -> bool:
        """Whether there is an entry for exactly this key; whether it may be loaded, `load` says."""
        return self.path(key).is_file()

    def load(self, key: EngineKey) -> bytes:
        """Read an engine that this machine built.

        Raises
        ------
        EngineError
            If there is none, or it was built on another machine, for another device, driver or version, or changed since;
            the message is a sentence for the screen.
        """
        path = self.path(key)
        try:
            with path.open("rb") as opened:
                entry = self._entry(opened, path)
                engine = opened.read()
        except FileNotFoundError:
            raise EngineError(self._why_not(key)) from None
        except OSError as refused:
            raise EngineError(f"the engine in {path} cannot be read ({refused.strerror}); it is built again") from refused
        self._check(entry, key, engine)
        return engine

    def store(self, key: EngineKey, engine: bytes, certificate: Certificate | None = None, name: str = "") -> Path:
        """Keep an engine, in place of what was there; all or nothing.

        Parameters
        ----------
        key : EngineKey
        engine : bytes
            None at all where only the certificate is to be kept.
        certificate : Certificate, optional
        name : str
            What it is, for people.

        Returns
        -------
        Path
            Its file.

        Raises
        ------
        EngineError
            If it cannot be written; what was there before is still there.
        """
        header = {
            "format": _FORMAT,
            "name": name,
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
            "key": asdict(key),
            "engine_bytes": len(engine),
            "engine_sha256": hashlib.sha256(engine).hexdigest(),
            "certificate": None if certificate is None else certificate.as_json(),
        }
        header["seal"] = self._seal(header)
        path = self.path(key)
        partial = path.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(_canonical(header) + b"\n" + engine)
            _put_in_place(partial, path)
        except OSError as refused:
            _remove(partial)
            again = "built" if engine else "measured"
            raise EngineError(
                f"{_what(engine)} cannot be kept in {self.root} ({refused.strerror}), so it is {again} again next time; make "
                f"room there, or name another folder in {CACHE_VARIABLE}"
            ) from refused
        return path

    def certify(self, key: EngineKey, certificate: Certificate) -> None:
        """Put a certificate to an engine that is stored already.

        Raises
        ------
        EngineError
            As `load` and `store`.
        """
        engine = self.load(key)
        entry = self._read(self.path(key))
        self.store(key, engine, certificate, entry.name if entry else "")

    def certificate(self, key: EngineKey) -> Certificate | None:
        """Give the certificate of an engine; None if there is none, or none of this machine's.

        Its engine is not read, so whoever loads that finds out by itself whether it is unchanged.
        """
        entry = self._read(self.path(key))
        return entry.certificate if entry and entry.sealed_here and entry.key == key else None

    def entries(self) -> Iterator[CacheEntry]:
        """Give what is stored, in the order of the folders; files that are no entries are left out."""
        for path in sorted(self.root.glob(f"*/*/{FILE}")):
            if entry := self._read(path):
                yield entry

    def _read(self, path: Path) -> CacheEntry | None:
        try:
            with path.open("rb") as opened:
                return self._entry(opened, path)
        except (OSError, EngineError) as refused:
            _logger.debug("%s: %s", path, refused)
            return None

    def _entry(self, opened: BinaryIO, path: Path) -> CacheEntry:
        header = _header(opened.readline(_LONGEST_HEADER), path)
        seal = header.pop("seal", "")
        words = header.get("certificate")
        try:
            return CacheEntry(
                key=EngineKey(**{field.name: str(header["key"][field.name]) for field in fields(EngineKey)}),
                path=path,
                engine_bytes=int(header["engine_bytes"]),
                engine_sha256=str(header["engine_sha256"]),
                name=str(header["name"]),
                built=str(header["built"]),
                certificate=None if words is None else Certificate.from_json(words),
                sealed_here=hmac.compare_digest(str(seal).encode(), self._seal(header).encode()),
            )
        except (KeyError, TypeError, ValueError) as wrong:
            raise EngineError(f"{path} is no entry of the engine cache ({wrong!r}); it is built again") from wrong

    def _seal(self, header: dict[str, Any]) -> str:
        if self._secret is None:
            self._secret = machine_secret()
        return hmac.new(self._secret, _canonical(header), hashlib.sha256).hexdigest()

    def _check(self, entry: CacheEntry, key: EngineKey, engine: bytes) -> None:
        if not entry.sealed_here:
            raise EngineError(
                f"the engine in {entry.path.parent} was built on another machine, or changed since (it says "
                f"{_built_for(entry.key)}); only what this machine built is loaded: it is built again"
            )
        if entry.key != key:
            raise EngineError(_for_another(entry, key))
        if len(engine) != entry.engine_bytes or hashlib.sha256(engine).hexdigest() != entry.engine_sha256:
            raise EngineError(
                f"the engine in {entry.path} is not what was stored there ({len(engine)} bytes, {entry.engine_bytes} were "
                "written, or their hash differs); it is built again"
            )

    def _why_not(self, key: EngineKey) -> str:
        for entry in self.entries():
            if entry.sealed_here and entry.key.same_engine(key):
                return _for_another(entry, key)
        return f"there is no engine yet of this network for {_built_for(key)}, {key.precision}, {key.profile}; it is built"


def _header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as damaged:
        raise EngineError(f"{path} is no entry of the engine cache, or a damaged one; it is built again") from damaged
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise EngineError(f"{path} was written by another version of live_restore; it is built again")
    return header


def _what(engine: bytes) -> str:
    return f"the engine ({len(engine) / 1e6:.3g} MB)" if engine else "the certificate"


def _built_for(key: EngineKey) -> str:
    return f"{key.device} ({key.capability}), driver {key.driver}, {key.flavour} {key.flavour_version}"


def _for_another(entry: CacheEntry, key: EngineKey) -> str:
    differing = [words for name, words in _BUILT_FOR.items() if getattr(entry.key, name) != getattr(key, name)]
    return (
        f"the engine was built for {_built_for(entry.key)}; wanted is {_built_for(key)} (another "
        f"{', '.join(differing) or 'network, precision, shape or recipe'}): it is built again"
    )


def _canonical(words: dict[str, Any]) -> bytes:
    return json.dumps(words, sort_keys=True, separators=(",", ":")).encode()


def _put_in_place(partial: Path, path: Path) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            partial.replace(path)
            return
        except PermissionError:
            if attempt == _TRIES or os.name != "nt":
                raise
            time.sleep(_PAUSE_S)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as refused:  # nothing was written, so there is nothing to remove
        _logger.debug("%s: %s", path, refused)
