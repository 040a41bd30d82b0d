"""Keys for the wire: CURVE, ZeroMQ's public-key encryption, and who is let in.

Receives a folder; hands on the keys that the server or a client needs, and answers the question whether a client may come
in. The certificates are those of pyzmq (``zmq.auth``), so that other programs can read them. It opens no socket.

A folder of keys::

    keys/
      server.key              public: goes with every client
      server.key_secret       secret: stays with the restore process
      client.key              public
      client.key_secret       secret: goes to the client, with server.key
      authorized/client.key   the clients that are let in; delete a file to lock its client out
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import zmq
import zmq.auth
from zmq.utils import z85

from live_restore.errors import WireError

SERVER = "server"
AUTHORIZED = "authorized"

_logger = logging.getLogger(__name__)

_PUBLIC = """#   Public CURVE certificate of a live_restore {name}: give it to the other side.

metadata
curve
    public-key = "{public}"
"""
_SECRET = """#   SECRET CURVE certificate of a live_restore {name}: give it to nobody else, and keep its permissions.

metadata
curve
    public-key = "{public}"
    secret-key = "{secret}"
"""


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What the restore process needs.

    Attributes
    ----------
    public, secret : bytes
        Its own, in Z85.
    authorized : frozenset of bytes
        Public keys of the clients that are let in, 32 bytes each.
    """

    public: bytes
    secret: bytes = field(repr=False)
    authorized: frozenset[bytes]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read them from a folder of keys.

        Raises
        ------
        WireError
            If something is missing or no key.
        """
        public, secret = _read_secret(folder / f"{SERVER}.key_secret")
        cards = sorted((folder / AUTHORIZED).glob("*.key"))
        if not cards:
            raise WireError(
                f"no client is let in: {folder / AUTHORIZED} holds no .key file; copy the clients' public keys there"
            )
        return cls(public, secret, frozenset(z85.decode(_read_public(card)) for card in cards))


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs.

    Attributes
    ----------
    public, secret : bytes
        Its own, in Z85.
    server : bytes
        The restore process' public key, in Z85: who answers with another one is an impostor.
    """

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> Self:
        """Read them from a folder of keys.

        Parameters
        ----------
        folder : Path
        name : str or None
            Which client; None: ``client``, or the only one whose secret is in the folder.

        Raises
        ------
        WireError
            If something is missing or no key.
        """
        public, secret = _read_secret(folder / f"{name or _only_client(folder)}.key_secret")
        return cls(public, secret, _read_public(folder / f"{SERVER}.key"))


def encryption_available() -> bool:
    """Whether this ZeroMQ was built with CURVE."""
    return bool(zmq.has("curve"))


def make_keys(folder: Path, clients: Sequence[str] = ("client",)) -> list[Path]:
    """Make keys for a server and its clients; a server that has keys already keeps them.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    clients : sequence of str
        Their names.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    WireError
        If a client of that name has keys already, nothing being written then, or a file cannot be written.
    ValueError
        If a name cannot be that of a file.
    """
    for name in clients:
        if not name.isidentifier() or name == SERVER:
            raise ValueError(f"{name!r} cannot be the name of a client; use letters, digits and _, and not {SERVER!r}")
    if not encryption_available():
        raise WireError("this pyzmq was built without CURVE; install it anew from PyPI: pip install --force-reinstall pyzmq")
    for name in clients:
        _refuse_to_replace(folder, name)
    try:
        (folder / AUTHORIZED).mkdir(mode=0o700, parents=True, exist_ok=True)
        written = [] if (folder / f"{SERVER}.key_secret").exists() else _write_pair(folder, SERVER)
        for name in clients:
            written += _write_pair(folder, name)
            card = folder / AUTHORIZED / f"{name}.key"
            card.write_bytes((folder / f"{name}.key").read_bytes())
            written.append(card)
    except OSError as refused:
        raise WireError(f"keys cannot be written to {folder}: {refused}; give a folder that you may write to") from refused
    return written


def _refuse_to_replace(folder: Path, name: str) -> None:
    for path in (folder / f"{name}.key", folder / f"{name}.key_secret", folder / AUTHORIZED / f"{name}.key"):
        if path.exists():
            raise WireError(
                f"{path} is there already, and keys are never replaced; name another client, or delete its three files"
            )


def _write_pair(folder: Path, name: str) -> list[Path]:
    public, secret = (key.decode("ascii") for key in zmq.curve_keypair())
    card, hidden = folder / f"{name}.key", folder / f"{name}.key_secret"
    # Nobody else may read the secret, from its first byte on; Windows has no such modes and ignores the number.
    with open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(_SECRET.format(name=name, public=public, secret=secret))
    card.write_text(_PUBLIC.format(name=name, public=public), encoding="utf-8")
    return [card, hidden]


def _only_client(folder: Path) -> str:
    names = sorted(path.stem for path in folder.glob("*.key_secret") if path.stem != SERVER)
    if "client" in names or not names:
        return "client"
    if len(names) > 1:
        raise WireError(
            f"{folder} holds the secrets of several clients, {', '.join(names)}; give a folder with server.key, "
            "NAME.key and NAME.key_secret of one of them, or in a script ClientKeys.read(folder, name)"
        )
    return names[0]


def _read_secret(path: Path) -> tuple[bytes, bytes]:
    public, secret = _read(path)
    if secret is None or not _is_key(secret):
        raise WireError(f"{path} holds no secret key; make keys anew with `live-restore keys FOLDER`")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        _logger.warning("others on this machine can read the secret key %s; cure: chmod 600 %s", path, path)
    return public, secret


def _read_public(path: Path) -> bytes:
    return _read(path)[0]


def _read(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except OSError as missing:
        raise WireError(f"the key file {path} cannot be read; make keys with `live-restore keys FOLDER`") from missing
    except ValueError:
        public, secret = b"", None
    if not _is_key(public):
        raise WireError(f"{path} holds no public key; make keys anew with `live-restore keys FOLDER`")
    return public, secret


def _is_key(text: bytes) -> bool:
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, ValueError):
        return False


# --- who is let in ----------------------------------------------------------------------------------------------------

DOMAIN = b"live_restore"


def admit(request: Sequence[bytes], authorized: frozenset[bytes]) -> tuple[list[bytes], bool]:
    """Answer ZeroMQ's question whether a client may come in (the ZAP protocol, https://rfc.zeromq.org/spec/27/).

    Parameters
    ----------
    request : sequence of bytes
        Version, request number, domain, address, routing id, mechanism, credentials.
    authorized : frozenset of bytes
        Public keys, 32 bytes each.

    Returns
    -------
    reply : list of bytes
    admitted : bool
    """
    number = request[1] if len(request) > 1 else b""
    version, mechanism, key = (request[0], request[5], request[6]) if len(request) == 7 else (b"", b"", b"")
    admitted = version == b"1.0" and mechanism == b"CURVE" and key in authorized
    status = [b"200", b"OK", z85.encode(key)] if admitted else [b"400", b"this key is not among the authorized ones", b""]
    return [b"1.0", number, *status, b""], admitted
