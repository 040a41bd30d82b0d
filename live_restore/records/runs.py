"""The run folder: what is kept of one acquisition besides its raw images.

Receives words (mappings that have JSON); hands them back, also after a crash. The acquisition and the restore process
write into it at the same time, each into files of its own: the hook ``hook.json``, ``backlog.jsonl`` and
``events_hook.jsonl``, the restore process all others. It does not know what the words mean, nor how restored pixels are
stored, and it loads nothing but the standard library, for the hook imports it.
"""

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, Self

from live_restore import __version__
from live_restore.errors import ImageError
from live_restore.frames import VolumeKey
from live_restore.records.json_lines import JsonLines, plain, put, read_lines
from live_restore.records.names import stem

Role = Literal["hook", "restore"]

Described = Literal["run.json", "hook.json", "restore.json"]

RUN: Final = "run.json"
HOOK: Final = "hook.json"
RESTORE: Final = "restore.json"
BACKLOG = "backlog.jsonl"
JOURNAL = "volumes.jsonl"
_EVENTS = {"restore": "events.jsonl", "hook": "events_hook.jsonl"}
# So many folders of one name are tried before giving up.
_MOST_FOLDERS = 1000
# On Windows a file cannot be read while it is being replaced: try again for about a second.
_REPLACE_TRIES, _REPLACE_PAUSE_S = 100, 0.01


def run_folder(raw: Path) -> Path:
    """Name the run folder of a raw dataset, beside it: ``mitosis_1`` and ``mitosis_1.ome.zarr`` give ``mitosis_1_restored``."""
    whole = raw.absolute() if raw.name not in {"", ".."} else raw.resolve()
    return whole.with_name(f"{stem(whole)}_restored")


class RunFolder:
    """One run's folder, opened by `begin` or `open`; usable from several threads.

    Attributes
    ----------
    path : Path
    run : str
        Which acquisition.
    """

    def __init__(self, path: Path, run: str, role: Role = "restore") -> None:
        self.path, self.run = path, run
        self._replacing = Lock()
        self._events = JsonLines(path / _EVENTS[role])
        self._backlog = JsonLines(path / BACKLOG)

    @classmethod
    def begin(cls, path: Path, run: str, raw: Path | None = None, *, role: Role = "restore", **described: Any) -> Self:
        """Make the folder of a run, or take up the one that the run has; hook and restore process may do so at once.

        A folder that belongs to another run, or is no run folder at all, is never entered: then the run's folder has a
        number behind its name, ``mitosis_1_restored_2``.

        Parameters
        ----------
        path : Path
            From `run_folder`.
        run : str
            Which acquisition; a dataset that was recorded anew under an old name is another one.
        raw : Path or None
            The raw dataset; it is kept relative to the folder if it lies beside it.
        role : {"hook", "restore"}
            Who writes. Only the restore process may give `described`.
        described : mapping
            Added to ``run.json``: ``models`` (list of mappings), ``plan``, ``noise``, ...

        Raises
        ------
        ImageError
            If every name is taken.
        OSError
            If the disk refuses.
        """
        for place in _names(path):
            if _enter(place, run, raw):
                folder = cls(place, run, role)
                if described:
                    folder.describe(RUN, {**folder.described(RUN), **described})
                return folder
        raise ImageError(f"{path} and {_MOST_FOLDERS - 1} folders named after it belong to other runs; move some away")

    @classmethod
    def open(cls, path: Path, role: Role = "restore") -> Self:
        """Take up a run folder that exists.

        Raises
        ------
        ImageError
            If it is none.
        """
        said = _read(path / RUN)
        if not isinstance(said.get("run"), str):
            raise ImageError(f"{path} is no run folder: it has no {RUN} that names a run; give the folder named *_restored")
        return cls(path, said["run"], role)

    @property
    def raw(self) -> Path | None:
        """Where the raw dataset was when the run began; None if nobody said."""
        said = self.described(RUN).get("raw")
        return Path(os.path.normpath(self.path.absolute() / said)) if isinstance(said, str) else None

    def describe(self, name: Described, said: Mapping[str, Any]) -> None:
        """Replace one of the described files in one step: a reader finds the old or the new, never a half.

        The tables of an earlier restore process (or hook) of the same run are kept under ``earlier``, for `account`.

        Raises
        ------
        ValueError
            If it is no file of this folder's.
        OSError
            If the disk refuses; the old file stays.
        """
        if name not in {RUN, HOOK, RESTORE}:
            raise ValueError(f"a run folder describes {RUN}, {HOOK} and {RESTORE}, not {name!r}")
        with self._replacing:
            kept = dict(said) if name == RUN else {**said, **self._earlier(name, said)}
            replace(self.path / name, kept)

    def described(self, name: Described) -> dict[str, Any]:
        """Read one of the described files; empty if there is none."""
        return _read(self.path / name)

    def note(self, event: str, **said: Any) -> None:
        """Add an event, with the time on the wall."""
        self._events.append({"unix_s": round(time.time(), 6), "event": event, **said})

    def events(self) -> list[dict[str, Any]]:
        """Read what was noted by hook and restore process, in order of time."""
        noted = [line for name in _EVENTS.values() for line in read_lines(self.path / name)]
        return sorted(noted, key=lambda line: _number(line.get("unix_s")))

    def skip(self, key: VolumeKey, planes: int, why: str) -> None:
        """Add a volume to the backlog: `planes` frames of it were not sent, or not wholly."""
        self._backlog.append({**volume_words(key), "planes": planes, "why": why})

    def backlog(self) -> list[tuple[VolumeKey, int, str]]:
        """Read the backlog: volume, frames, reason."""
        found = [(volume_of(line), line.get("planes"), line.get("why")) for line in read_lines(self.path / BACKLOG)]
        return [(key, planes if isinstance(planes, int) else 0, str(why)) for key, planes, why in found if key]

    def close(self) -> None:
        """Give the files back; a second time is fine."""
        self._events.close()
        self._backlog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _earlier(self, name: Described, said: Mapping[str, Any]) -> dict[str, Any]:
        """Say which process writes, and what those before it had counted."""
        before = self.described(name)
        earlier = list(before.get("earlier") or [])
        if "ledger" in before and ("ledger" not in said or before.get("process") not in {None, _process()}):
            earlier.append(before["ledger"])
        return {"process": _process(), **({"earlier": earlier} if earlier else {})}


def replace(path: Path, said: Mapping[str, Any]) -> None:
    """Write a JSON file in one step, safely on disk.

    Raises
    ------
    OSError
        If the disk refuses; the old file stays.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        _write(new, said)
        put(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def software(*packages: str) -> dict[str, str]:
    """Name versions: of live_restore, Python and the machine, and of the installed ones among `packages`."""
    from importlib.metadata import PackageNotFoundError, version  # slow to load, and the hook does not need it

    found = {"live_restore": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def volume_words(key: VolumeKey) -> dict[str, Any]:
    """Name a volume in JSON."""
    high = {"light": key.light} if key.light == "high" else {}
    return {"time": key.time, "position": key.position, "channel": key.channel, **high}


def volume_of(said: Mapping[str, Any]) -> VolumeKey | None:
    """Read which volume a line names; None if it names none."""
    time_point, position, channel = said.get("time"), said.get("position"), said.get("channel")
    if not isinstance(time_point, int) or not isinstance(position, str) or not isinstance(channel, str):
        return None
    return VolumeKey(time_point, position, channel, "high" if said.get("light") == "high" else "low")


def read_journal(folder: Path) -> dict[VolumeKey, dict[str, Any]]:
    """Read which volumes of a run are safely on disk, while it is written or after.

    Returns
    -------
    dict of VolumeKey to mapping
        ``planes``, ``low`` and ``high`` of what is stored, and ``said``: what whoever restored it says of it.
    """
    found = [(volume_of(line), line) for line in read_lines(folder / JOURNAL)]
    return {key: line for key, line in found if key is not None and isinstance(line.get("said"), dict)}


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in count(2):
        if number > _MOST_FOLDERS:
            return
        yield path.with_name(f"{path.name}_{number}")


def _enter(path: Path, run: str, raw: Path | None) -> bool:
    """Make a folder this run's, or say that it is another's."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return False
    if not (path / RUN).exists():
        if any(not child.name.startswith(f".{RUN}") for child in path.iterdir()):
            return (path / RUN).exists() and _read(path / RUN).get("run") == run  # another process was first, just now
        now = time.time()
        started = {"started_unix_s": round(now, 3), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now))}
        where = None if raw is None else _from(path, raw)
        _create(path / RUN, {"run": run, "raw": where, **started, "software": software()})
    return _read(path / RUN).get("run") == run


def _from(folder: Path, raw: Path) -> str:
    """Path of the raw dataset: relative if it lies beside the folder, so that both can be moved together."""
    whole = raw.absolute()
    return f"../{whole.name}" if whole.parent == folder.absolute().parent else whole.as_posix()


def _create(path: Path, said: Mapping[str, Any]) -> None:
    """Write a JSON file in one step, unless another process was first."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    _write(new, said)
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _write(path: Path, said: Mapping[str, Any]) -> None:
    text = json.dumps(plain(said), indent=1, allow_nan=False)
    with path.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Any]:
    for trial in range(_REPLACE_TRIES):
        try:
            said = json.loads(path.read_text("utf-8"))
        except PermissionError:  # on Windows, while it is being replaced
            if trial == _REPLACE_TRIES - 1:
                raise
            time.sleep(_REPLACE_PAUSE_S)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        else:
            return said if isinstance(said, dict) else {}
    return {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


@cache
def _process() -> str:
    """Tell this process from every other, also from a later one of the same number."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
