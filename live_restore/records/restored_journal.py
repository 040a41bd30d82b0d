"""The journal of a file that is being written: which volumes are safely on disk, and of which job.

Receives the description of a job and places; hands them back after a crash. One JSON object per line, the job first;
every line is on disk before the next volume begins. It does not know what a volume is.
"""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Self

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of a volume.

    Attributes
    ----------
    clipped : int
        Pixels that did not fit the dtype of the file.
    low, high : float
        Smallest and largest value written.
    said : mapping
        What whoever restored it says of this volume, JSON; it goes into the finished file.
    """

    clipped: int
    low: float
    high: float
    said: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """A journal, opened for adding by `begin` or `reopen`.

    Attributes
    ----------
    job : mapping
        Which job, JSON.
    entries : dict of (int, int) to Entry
        By (time, channel).
    """

    def __init__(self, path: Path, job: Mapping[str, Any], entries: dict[Place, Entry], whole_bytes: int) -> None:
        self.job, self.entries = job, entries
        self._path, self._whole_bytes = path, whole_bytes
        self._file: FileIO | None = None

    @classmethod
    def begin(cls, path: Path, job: Mapping[str, Any]) -> Self:
        """Begin a journal, replacing any other."""
        journal = cls(path, job, {}, 0)
        journal._file = path.open("wb", buffering=0)
        journal._append({"job": job})
        return journal

    @classmethod
    def take_up(cls, path: Path) -> Self | None:
        """Read the journal of an interrupted run; None if there is none, or not even its first line is whole."""
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return None
        whole = []
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:  # the run was killed while it wrote this line
                break
            if not line.endswith(b"\n"):
                break
            whole.append(said)
        try:
            entries = {(line.pop("time"), line.pop("channel")): Entry(**line) for line in whole[1:]}
            return cls(path, dict(whole[0]["job"]), entries, sum(len(line) for line in lines[: len(whole)]))
        except (IndexError, KeyError, TypeError, AttributeError):  # not one of ours: as good as none
            return None

    def reopen(self) -> None:
        """Cut off a torn last line and go on after it."""
        self._file = self._path.open("r+b", buffering=0)
        self._file.truncate(self._whole_bytes)

    def add(self, place: Place, entry: Entry) -> None:
        """Note that a volume (time, channel) is on disk."""
        self._append({"time": place[0], "channel": place[1], **asdict(entry)})
        self.entries[place] = entry

    def close(self) -> None:
        """Give the file back; a second time is fine."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def discard(self) -> None:
        """Remove the journal: the job is done."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _append(self, said: Mapping[str, Any]) -> None:
        if self._file is None:
            raise ValueError(f"the journal {self._path} is closed")
        line = json.dumps(said).encode() + b"\n"
        self._file.seek(self._whole_bytes)  # over what a full disk may have left of an earlier line
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file.fileno())
        self._whole_bytes += len(line)


def volumes_said(entries: Mapping[Place, Entry]) -> list[dict[str, Any]]:
    """Collect what was said of each volume, in order of time and channel; for the finished file."""
    return [
        {"time": time, "channel": channel, **entry.said}
        for (time, channel), entry in sorted(entries.items(), key=lambda item: item[0])
        if entry.said
    ]
