"""Restored files: written volume by volume, in any order, and taken up again after an interruption.

Receives volumes in camera counts and what is to be said of them; hands on one OME-TIFF file or OME-Zarr group. It does
not know what restored them. How the two formats are laid out is in `restored_tiff` and `restored_zarr`.

While it is written the file has another name, ``NAME.partial.*``, beside its final place, and a journal names the
volumes that are safely on disk. So a file of the final name is always whole, and a run that was killed, or that ran
into a full disk, loses at most the volume in hand.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from live_restore.errors import ImageError
from live_restore.records.images import PARTIAL, is_zarr
from live_restore.records.restored_info import Pixels, RestoredInfo, Store
from live_restore.records.restored_journal import Journal
from live_restore.records.restored_pixels import Tally

__all__ = ["RestoredInfo", "RestoredWriter", "create_restored", "read_provenance"]


_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class RestoredWriter(Protocol):
    """Takes restored volumes. Opened once per file, used from one thread."""

    @property
    def pending(self) -> list[tuple[int, int]]:
        """The volumes (time, channel) still to be written: all, or those that an interrupted run left."""

    @property
    def clipped(self) -> int:
        """Pixels that did not fit uint16, in this run and the interrupted ones."""

    def write(self, time: int, channel: int, volume: Pixels, said: Mapping[str, Any] | None = None) -> None:
        """Write one volume, (Z, Y, X), and what is to be said of it, JSON; safely on disk when this returns."""

    def finish(self) -> Path:
        """Give the whole file its final name; called once, when nothing is pending."""

    def close(self) -> None:
        """Leave. An unfinished file stays as it is, to be taken up again; a second time is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def create_restored(
    info: RestoredInfo, *, overwrite: bool = False, resume: bool = True, source: Path | None = None
) -> RestoredWriter:
    """Begin a restored file, or take up one that was interrupted.

    Parameters
    ----------
    info : RestoredInfo
    overwrite : bool
        Replace a finished file of this name, when the new one is whole; discard a partial one of another job.
    resume : bool
        False: begin anew even if a partial file of this very job is there.
    source : Path or None
        The image that is being restored, which must not be written to.

    Raises
    ------
    ImageError
        If the name is taken, by a finished file or by a partial one of another job, or the folder cannot be written to.
    """
    if source is not None:
        _spare_source(info.path, source)
    _check_taken(info, overwrite)
    with _writing(info):
        info.path.parent.mkdir(parents=True, exist_ok=True)
        return _Writer(info, *_take_up_or_begin(info, overwrite, resume))


def read_provenance(path: Path) -> dict[str, Any]:
    """Read what a restored file says made it; empty if it is none of ours, or no image at all."""
    if path.is_dir():
        from live_restore.records.restored_zarr import read_said
    else:
        from live_restore.records.restored_tiff import read_said
    return read_said(path)


class _Writer:
    """See `RestoredWriter`."""

    def __init__(self, info: RestoredInfo, store: Store, journal: Journal) -> None:
        self._info, self._store, self._journal = info, store, journal
        self._open = True

    @property
    def pending(self) -> list[tuple[int, int]]:
        times, channels = self._info.shape[:2]
        return [(t, c) for t in range(times) for c in range(channels) if (t, c) not in self._journal.entries]

    @property
    def clipped(self) -> int:
        return sum(entry.clipped for entry in self._journal.entries.values())

    def write(self, time: int, channel: int, volume: Pixels, said: Mapping[str, Any] | None = None) -> None:
        self._check_open()
        self._check_volume(time, channel, volume)
        tally = Tally(self._info.dtype, f"time {time}, channel {channel}")
        with _writing(self._info):
            self._store.put(time, channel, map(tally.converted, volume))
            self._journal.add((time, channel), tally.entry(said or {}))

    def finish(self) -> Path:
        self._check_open()
        pending = self.pending
        if pending:
            raise ValueError(f"{len(pending)} volumes are not written yet, the first is (time, channel) {pending[0]}")
        with _writing(self._info):
            self._store.complete(self._journal.entries)
            self._store.close()
            _replace(self._info.partial, self._info.path)
            self._journal.discard()
        self._open = False
        return self._info.path

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        for part in (self._store, self._journal):
            with suppress(OSError):  # a full disk was told of when it refused a volume
                part.close()
        if not self._journal.entries:  # nothing worth keeping
            with suppress(OSError):
                _discard(self._info)

    def _check_volume(self, time: int, channel: int, volume: Pixels) -> None:
        times, channels, *size = self._info.shape
        if not (0 <= time < times and 0 <= channel < channels) or (time, channel) in self._journal.entries:
            raise ValueError(f"volume (time {time}, channel {channel}) is not pending: written already, or outside the image")
        if list(volume.shape) != size or volume.dtype.kind not in "uif":
            raise ValueError(f"the volume is {volume.dtype} of shape {volume.shape}; here it has real numbers of shape {size}")

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError(f"the writer of {self._info.path} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _take_up_or_begin(info: RestoredInfo, overwrite: bool, resume: bool) -> tuple[Store, Journal]:
    job = _job(info)
    journal = Journal.take_up(info.journal) if resume and info.partial.exists() else None
    if journal is not None and journal.job != job and journal.entries and not overwrite:
        raise ImageError(_other_job(info, journal, job))
    if journal is None or journal.job != job:
        return _begin(info, job)
    store = _store(info, new=False)
    journal.reopen()
    return store, journal


def _begin(info: RestoredInfo, job: Mapping[str, Any]) -> tuple[Store, Journal]:
    _discard(info)
    try:
        return _store(info, new=True), Journal.begin(info.journal, job)
    except OSError:
        with suppress(OSError):
            _discard(info)
        raise


def _store(info: RestoredInfo, *, new: bool) -> Store:
    if info.is_zarr:
        from live_restore.records.restored_zarr import ZarrStore

        return ZarrStore(info, new=new)
    from live_restore.records.restored_tiff import TiffStore

    return TiffStore(info, new=new)


def _job(info: RestoredInfo) -> dict[str, Any]:
    """Collect what tells this job from any other, as JSON gives it back."""
    job = {
        "file": info.path.name,
        "shape": info.shape,
        "dtype": np.dtype(info.dtype).name,
        "channels": info.channels,
        "pixel_size_um": info.pixel_size_um,
        "frame_interval_s": info.frame_interval_s,
        "provenance": dict(info.provenance),
    }
    try:
        return dict(json.loads(json.dumps(job, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the provenance is not JSON: {error}") from error


def _other_job(info: RestoredInfo, journal: Journal, job: Mapping[str, Any]) -> str:
    pairs = [(journal.job, job), (journal.job.get("provenance", {}), job["provenance"])]
    differing = {key for told, ours in pairs for key in {*told, *ours} if told.get(key) != ours.get(key)} - {"provenance"}
    return (
        f"{info.partial} holds {len(journal.entries)} volumes of another job (differing in {', '.join(sorted(differing))}); "
        f"finish that one with its own model and settings, or discard it with --overwrite"
    )


def _spare_source(path: Path, source: Path) -> None:
    """Refuse to write over the raw image, or into its folder."""
    ours, raw = path.resolve(), source.resolve()
    if ours == raw or (path.exists() and path.samefile(source)):
        raise ImageError(f"{path} is the image to be restored; the raw image is never written to, choose another --output")
    if raw in ours.parents and raw.is_dir():
        raise ImageError(f"{path} lies within the image to be restored, {source}; choose an --output outside it")
    if ours in raw.parents:
        raise ImageError(f"{path} is a folder that holds the image to be restored, {source}; choose another --output")


def _check_taken(info: RestoredInfo, overwrite: bool) -> None:
    if not info.path.exists():
        return
    if not overwrite:
        raise ImageError(f"{info.path} exists already; choose another --output, or replace it with --overwrite")
    if info.path.is_dir() and not (info.is_zarr and is_zarr(info.path)):
        raise ImageError(f"{info.path} is a folder, and not one of ours; choose another --output")
    if info.path.is_file() and info.is_zarr:
        raise ImageError(f"{info.path} is a file, but an OME-Zarr group is a folder; choose another --output")
    if not read_provenance(info.path):
        raise ImageError(
            f"{info.path} was not written by live_restore, and raw images are never replaced; delete it yourself or choose "
            "another --output"
        )


def _replace(new: Path, final: Path) -> None:
    """Put a whole file in its place, and what was there before away."""
    if not final.is_dir():
        new.replace(final)
        return
    old = final.with_name(f"{final.name}{PARTIAL}.old")  # folders cannot replace each other in one step
    shutil.rmtree(old, ignore_errors=True)
    final.rename(old)
    try:
        new.rename(final)
    except OSError:
        old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _discard(info: RestoredInfo) -> None:
    info.journal.unlink(missing_ok=True)
    if info.partial.is_dir():
        shutil.rmtree(info.partial)
    else:
        info.partial.unlink(missing_ok=True)


@contextmanager
def _writing(info: RestoredInfo) -> Iterator[None]:
    """Say in words what the disk refuses."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            cure = f"make room for the whole file of {info.nbytes // 10**6 + 1} MB"
        else:
            cure = "make sure that the folder can be written to and that no other program holds the file"
        raise ImageError(
            f"cannot write {info.path}: {reason}; {cure}, then run the same command again: finished volumes are kept"
        ) from error
