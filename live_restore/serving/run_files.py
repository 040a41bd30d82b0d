"""The files of one run: its folder, its restored volumes, its events and its table.

Receives volumes and words, in the record thread; hands on what is on disk, and says in the run when the disk refuses. It does
not know threads, nor what waits.

Raw frames go first: where the disk has room for a restored volume only at the cost of raw frames that are still to come, the
volume is left for backfill.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.frames import Volume
from live_restore.records.runs import RUN, RunFolder, run_folder, volume_words
from live_restore.records.sidecar import Sidecar
from live_restore.records.sidecar_zarr import Spacing
from live_restore.restore.procedures import finer_spacing
from live_restore.serving.run import Run

_log = logging.getLogger(__name__)
FloatArray = NDArray[np.float32]
# The disk is nearly full when fewer volumes, or fewer bytes, than these fit.
_FEW_VOLUMES, _FEW_BYTES = 20, 2 << 30
# The raw frames to come take so much more than their pixels, with metadata and an index.
_RAW_MARGIN = 1.1
# Room for so many raw volumes, and for so many frames, is never taken: no plan may tell what comes, and acquisition engines
# write frames after the hook has seen them.
_LEAST_VOLUMES, _LEAST_FRAMES = 4, 10
# So many events wait for a folder that is not there yet.
_MOST_EARLY = 99
# Parts of a run's status that are kept in its folder.
_KEPT = ("ledger", "volumes", "replaced", "latency_ms", "exposure_ms", "warnings", "state")


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A restored volume that is to be recorded."""

    run: Run
    volume: Volume
    pixels: FloatArray
    said: Mapping[str, Any]
    interpolated: bool


class RunFiles:
    """The files of one run.

    The folder is made when there is something to keep and its place is known for sure: at once where the raw dataset is
    there, else with the first restored volume, for acquisition engines make their folder after the run began.
    """

    def __init__(
        self, run: Run, records: Path, described: Callable[[], Mapping[str, Any]], free: Callable[[Path], int]
    ) -> None:
        self._run, self._records, self._described, self._free = run, records, described, free
        self._folder: RunFolder | None = None
        self._refused = False
        self._early: list[tuple[str, Mapping[str, Any]]] = []
        self._sidecar: Sidecar | None = None
        self._saved: Mapping[str, Any] = {}

    def write(self, entries: Sequence[Entry]) -> int:
        """Write volumes; how many of them are on disk."""
        folder = self._begun(for_certain=True)
        if folder is None:
            return 0
        fitting: list[Entry] = []
        for entry in entries:
            taken = sum(other.pixels.nbytes for other in fitting)
            if self._has_room(folder, entry.volume, entry.pixels.nbytes, taken):
                fitting.append(entry)
        if not fitting:
            return 0
        try:
            first = fitting[0]
            spacing = _spacing(self._run.plan, first.volume, first.pixels, interpolated=first.interpolated)
            sidecar = self._opened(folder, spacing)
            volumes = [(e.volume.key, np.ascontiguousarray(e.pixels, np.float32), e.said) for e in fitting]
            refused = sidecar.write_all(volumes)
        except Exception as reason:  # a damaged group, a fault in a library: the next ones get their turn
            refused = [reason] * len(fitting)
        for entry, why in zip(fitting, refused, strict=True):
            if why is not None:
                self._refused_volume(entry.volume, why)
        return refused.count(None)

    def _refused_volume(self, volume: Volume, refused: Exception) -> None:
        """Say that a volume could not be written: a full disk, a volume of another size, a fault in a library."""
        _log.warning("%s was not recorded: %s", volume.key, refused)
        self.note("not_recorded", **volume_words(volume.key), why=_reason(refused))
        self._run.warn("disk", f"the last volume that was not recorded: {volume.key}, for {_reason(refused)}; see the events")

    def place(self, volume: Volume, nbytes: int) -> Path:
        """Give the folder's path, if its disk has room; raises OSError where not."""
        folder = self._begun(for_certain=True)
        if folder is None:
            raise OSError("nothing is recorded of this run")
        reserve = _reserve(self._run, folder.path, volume)
        try:
            free = self._free(folder.path)
        except OSError:  # whether it can be written will show
            return folder.path
        if free - nbytes < reserve:
            raise OSError(f"{free / 1e6:.1f} MB are free, and {reserve / 1e6:.1f} MB are kept for raw frames")
        return folder.path

    def note(self, event: str, **said: Any) -> None:
        """Add an event; it waits where the folder is not there yet."""
        folder = self._begun()
        if folder is None:
            self._early = [*self._early[-_MOST_EARLY:], (event, said)]
            return
        try:
            folder.note(event, **said)
        except (OSError, TypeError) as refused:
            _log.warning("event %s %s was not recorded: %s", event, said, refused)

    def describe(self) -> None:
        """Say anew which models restore the run; a folder that is not there yet will say it from the start."""
        if self._folder is None:
            return
        try:
            self._folder.describe(RUN, {**self._folder.described(RUN), **self._described()})
        except OSError as refused:
            self._run.warn(
                "disk", f"the run's models cannot be written: {_reason(refused)}; name them to backfill with --model"
            )

    def save(self) -> None:
        """Write the table, if it has changed."""
        folder, counts = self._begun(), self._run.ledger.counts()
        if folder is None or counts == self._saved:
            return
        status = self._run.status(time.perf_counter_ns())
        try:
            folder.describe("restore.json", {name: status[name] for name in _KEPT})
            self._saved = counts
        except OSError as refused:
            self._run.warn("disk", f"the run's table cannot be written: {_reason(refused)}")

    def finish(self) -> None:
        """Write the table, close everything; a run that never had a frame leaves nothing behind."""
        if self._folder is None and not self._run.ledger["taken"]:
            return
        self._begun(for_certain=True)
        self._saved = {}
        self.save()
        self.note("closed", ledger=self._run.ledger.counts())
        for part in (self._sidecar, self._folder):
            if part is not None:
                with suppress(OSError, ImageError):  # a full disk was told of when it refused a volume
                    part.close()

    def _begun(self, *, for_certain: bool = False) -> RunFolder | None:
        """Give the folder, made or taken up if need be; None if its place is not known yet, or it was refused."""
        if self._folder is not None or self._refused or not (for_certain or raw_of(self._run)):
            return self._folder
        try:
            self._folder = _begin(self._run, self._records, self._described())
        except (OSError, ImageError, ValueError) as refused:
            self._refused = True
            self._run.warn(
                "records", f"nothing is recorded: {_reason(refused)}. Restored volumes are shown, and backfill restores them"
            )
            _log.warning("nothing is recorded of %s: %s", self._run.name, refused)
            return None
        self._run.folder = self._folder.path
        early, self._early = self._early, []
        for event, said in early:
            self.note(event, **said)
        return self._folder

    def _opened(self, folder: RunFolder, spacing: Spacing) -> Sidecar:
        if self._sidecar is None:
            plan = self._run.plan
            self._sidecar = Sidecar(
                folder.path,
                pixel_size_um=spacing,
                frame_interval_s=plan.get("interval_s"),
                provenance={
                    "run": self._run.name,
                    "note": "restored pixels are a prediction; the raw images are the record",
                    "raw": None if self._run.raw is None else self._run.raw.name,
                },
                positions=plan.get("positions") or (),
                channels=plan.get("channels") or (),
            )
        return self._sidecar

    def _has_room(self, folder: RunFolder, volume: Volume, nbytes: int, taken: int) -> bool:
        """Look at the disk: whether a restored volume of so many bytes leaves the raw frames to come their room.

        So many bytes are `taken` by volumes that are about to be written.
        """
        try:
            free = self._run.bytes_free = self._free(folder.path) - taken
        except OSError:  # whether it can be written will show
            return True
        self._warn_of_space(free, nbytes)
        reserve = _reserve(self._run, folder.path, volume)
        if free - nbytes >= reserve:
            return True
        kept, takes = f"{reserve / 1e6:.1f} MB are kept for raw frames", f"the volume takes {nbytes / 1e6:.1f} MB"
        why = f"{free / 1e6:.1f} MB are free, and {kept}; {takes}"
        self.note("not_recorded", **volume_words(volume.key), why=why)
        warning = "restored volumes are not recorded: the disk is kept for the raw frames; make room, or run backfill later"
        if self._run.warn("reserve", warning):
            _log.warning("%s is the first volume that was not recorded: %s", volume.key, why)
        return False

    def _warn_of_space(self, free: int, nbytes: int) -> None:
        if free < max(_FEW_BYTES, _FEW_VOLUMES * nbytes):
            left = free // max(1, nbytes)
            self._run.warn("space", f"the disk is nearly full: {free / 1e9:.1f} GB are free, room for {left} more volumes")
        else:
            self._run.unwarn("space")


def _reserve(run: Run, folder: Path, volume: Volume) -> int:
    """How many bytes of the folder's disk belong to raw frames: those that the plan announces, but a few in any case."""
    frame = volume.pixels.nbytes // max(1, len(volume.pixels))
    least = max(_LEAST_VOLUMES * volume.pixels.nbytes, _LEAST_FRAMES * frame)
    raw = raw_of(run)
    if raw is None:
        return least
    with suppress(OSError):
        if raw.stat().st_dev != folder.stat().st_dev:
            return least
    return max(least, int(run.to_come * frame * _RAW_MARGIN))


def _begin(run: Run, records: Path, described: Mapping[str, Any]) -> RunFolder:
    """Make the folder of a run, or take up the one that it has."""
    raw = raw_of(run)
    path = run_folder(raw) if raw else records.absolute() / _safe(run.name)
    if path.is_symlink():
        raise ImageError(f"{path} is a link, and records are never written through one; remove it")
    return RunFolder.begin(path, run.name, raw, plan=dict(run.plan), **described)


def raw_of(run: Run) -> Path | None:
    """Where the raw dataset is; None if it is not, or not yet, on this machine."""
    return run.raw if run.raw is not None and run.raw.is_absolute() and run.raw.is_dir() else None


def _safe(name: str) -> str:
    """Refuse what is more, or less, than the name of a folder."""
    if name != Path(name).name or name in {"", ".", ".."} or not name.isprintable():
        raise ImageError(f"run {name!r} is no name for a folder")
    return name


def _spacing(plan: Mapping[str, Any], volume: Volume, pixels: FloatArray, *, interpolated: bool) -> Spacing:
    """Pixel size (z, y, x) of the restored volume, µm; finer than the raw one's where the network is."""
    in_plane, step = volume.infos[0].pixel_size_um or plan.get("pixel_size_um") or None, plan.get("z_step_um") or None
    spacing = (step and abs(step), in_plane and abs(in_plane), in_plane and abs(in_plane))
    return finer_spacing(spacing, volume.pixels.shape, pixels.shape, interpolated=interpolated)


def _reason(refused: Exception) -> str:
    return (getattr(refused, "strerror", None) or str(refused) or type(refused).__name__).rstrip(".")
