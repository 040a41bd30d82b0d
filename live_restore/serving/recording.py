"""The record thread: restored volumes, events and tables into the run folder, while the next volume is restored.

Receives runs, restored volumes and words; hands on nothing but what is on disk, and says in the run when the disk refuses. A
volume that could not be written was restored all the same: it counts as such, the events name it ``not_recorded``, and
backfill restores it again. It does not know how the pixels are laid out, nor sockets.

Where: in the run folder beside the raw dataset, where that exists on this machine; else in a folder of the run's own name in
`records`. Never elsewhere, whatever comes over the wire: a folder that belongs to something else is never entered, and
neither is a link.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.frames import Volume
from live_restore.records.runs import volume_words
from live_restore.serving.lane import Lane
from live_restore.serving.run import Run
from live_restore.serving.run_files import Entry, RunFiles

FloatArray = NDArray[np.float32]
# Where runs go whose raw dataset is not on this machine, if nobody says: in the folder in which the process was started.
RECORDS = Path("live_restore_runs")
# A disk that is asked to have something safely may take a second now and then; so many volumes wait for it unblamed, as far
# as memory goes.
_HICCUP = 64
# Volumes that come quickly are written together, so many and so many bytes at most, and those of a fifth of a second: a disk
# takes many at once as fast as one.
_MOST_AT_ONCE, _MOST_BYTES_AT_ONCE, _GATHER_S = 32, 64 << 20, 0.2
# How long somebody waits to be told of the disk.
_PATIENCE_S = 120.0


class Recording:
    """The record thread; other threads may call what is public, and none of it waits.

    Parameters
    ----------
    records : Path or None
        For runs whose raw dataset is not on this machine.
    described : callable
        Says what ``run.json`` shall tell of the models.
    free : callable
        Says how many bytes are free on the disk of a folder; raises OSError where that cannot be known.
    """

    def __init__(
        self,
        records: Path | None,
        described: Callable[[], Mapping[str, Any]],
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._records = records or RECORDS
        self._described, self._free = described, free
        self._lane = Lane("record")
        self._files: dict[str, RunFiles] = {}
        self._saving: set[str] = set()
        self._entries: list[Entry] = []  # what waits to be written, in order
        self._lock = Lock()
        self._wrote_s = -_GATHER_S
        self._hurried = Event()

    def start(self) -> None:
        """Begin."""
        self._lane.start()
        self._lane.add(_load_writer)

    def write(
        self, run: Run, volume: Volume, pixels: FloatArray, said: Mapping[str, Any], *, interpolated: bool = False
    ) -> None:
        """Record a restored volume; `interpolated`: it was made finer along Z before the network."""
        entry = Entry(run, volume, pixels, said, interpolated)

        def leave() -> None:
            if self._take([entry]):
                self._of(run).note("not_recorded", **volume_words(volume.key), why="the restore process was stopped")

        with self._lock:
            self._entries.append(entry)
        self._lane.put(lambda: self._write_with(entry), leave, volume.pixels.nbytes + pixels.nbytes)

    def _write_with(self, entry: Entry) -> None:
        """Write a volume, and with it those behind it that wait for the same folder: the disk is waited for once."""
        batch = self._take([entry])
        if not batch:  # it was written with one before it
            return
        self._wait_for_more()
        batch += self._take(self._fellows(entry))
        began_s = time.monotonic()
        written = self._of(entry.run).write(batch)
        self._wrote_s = time.monotonic()
        for _ in range(written):
            entry.run.timings.add({"write": (self._wrote_s - began_s) * 1e3})

    def _wait_for_more(self) -> None:
        """Where volumes come quickly, let some gather, for a fifth of a second at most."""
        left_s = self._wrote_s + _GATHER_S - time.monotonic()
        if left_s > 0 and self.nbytes < _MOST_BYTES_AT_ONCE:
            self._hurried.wait(left_s)

    def _fellows(self, entry: Entry) -> list[Entry]:
        """Name those that are to be written together with a volume."""
        fellows, nbytes = [], entry.pixels.nbytes
        with self._lock:
            for other in self._entries[: _MOST_AT_ONCE - 1]:
                nbytes += other.pixels.nbytes
                if other.run is entry.run and nbytes <= _MOST_BYTES_AT_ONCE:
                    fellows.append(other)
        return fellows

    def _take(self, entries: Sequence[Entry]) -> list[Entry]:
        """Take entries, once: those of them that still wait."""
        with self._lock:
            taken = [entry for entry in entries if entry in self._entries]
            self._entries = [entry for entry in self._entries if entry not in taken]
        return taken

    @property
    def waiting(self) -> int:
        """How many restored volumes wait for the disk beyond what its hiccups explain."""
        return max(0, self._lane.waiting - _HICCUP)

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self._lane.nbytes

    def note(self, run: Run, event: str, **said: Any) -> None:
        """Add an event."""
        at = round(time.time(), 3)
        self._lane.note(lambda: self._of(run).note(event, at_unix_s=at, **said))

    def describe(self, run: Run) -> None:
        """Say anew in ``run.json`` which models restore the run: backfill asks there."""
        self._lane.add(lambda: self._of(run).describe())

    def save(self, run: Run) -> None:
        """Write the run's table as it is now, unless that is about to be done."""
        if run.name not in self._saving:
            self._saving.add(run.name)
            self._lane.add(lambda: self._save(run))

    def finish(self, run: Run) -> None:
        """Write the run's table and close its files; another word about the run opens them again."""

        def close() -> None:
            folder = self._of(run)
            del self._files[run.name]
            folder.finish()

        self._lane.add(close)

    def place(self, run: Run, volume: Volume, nbytes: int) -> Path:
        """Give the run's folder, if so many bytes may be written there; this one waits for the disk.

        Raises
        ------
        OSError
            If there is no folder, or its disk has no room beside the raw frames to come.
        """
        found: Future[Path] = Future()

        def look() -> None:
            try:
                found.set_result(self._of(run).place(volume, nbytes))
            except Exception as refused:  # whatever it is, somebody waits to be told
                found.set_exception(refused)

        self._lane.add(look)
        return found.result(_PATIENCE_S)

    def hurry(self) -> None:
        """Do only what must be done from here on."""
        self._hurried.set()
        self._lane.hurry()

    def stop(self) -> None:
        """End when all is done."""
        self._hurried.set()
        self._lane.stop()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        return self._lane.join(timeout_s)

    def _of(self, run: Run) -> "RunFiles":
        return self._files.setdefault(run.name, RunFiles(run, self._records, self._described, self._free))

    def _save(self, run: Run) -> None:
        self._saving.discard(run.name)
        self._of(run).save()


def _load_writer() -> None:
    """Import what writes: it takes a second, for which the first volume need not wait."""
    import_module("ome_writers")
