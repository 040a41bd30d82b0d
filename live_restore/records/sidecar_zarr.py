"""The restored volumes of one position as OME-Zarr 0.5, which grows while others read it.

Receives volumes and their places; hands on a group that zarr and napari can open at any moment. Time points and channels
are added as they come; Z, Y and X are fixed. It does not know the journal, nor which volumes are missing.

Metadata are replaced in one step, and chunks appear under their names when they are whole; everything is on disk when
`put` or `land` returns. The group is laid out by ome-writers; growing and filling out of order are ours, since ome-writers has
neither.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.records.restored_info import NAMESPACE, RestoredInfo
from live_restore.records.runs import replace
from live_restore.records.zarr_images import read_attributes

_LEVEL = "0"
# How the preliminary name of a chunk ends.
_NEW = ".new"
_FLOAT = np.dtype("<f4")
# What `put` writes; a group with other codecs was not laid out by us.
_CODECS = ("bytes", "blosc")
# Words on so many volumes go into the metadata, which every reader loads; the journal has all.
_MOST_SAID = 2000
# The contrast of a new channel, from every 8th pixel: percentiles of the first volume.
_CONTRAST, _EVERY = (0.5, 99.8), 8
# That of a channel which was planned and has not come yet.
_UNKNOWN: Mapping[str, float] = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}

Size = tuple[int, int, int]
Spacing = tuple[float | None, float | None, float | None]


class SidecarGroup:
    """One position's group; used from one thread.

    Attributes
    ----------
    path : Path
    position : str
    channels : list of str
        In the order of the axis C.
    times : int
        Length of the axis T.
    size : (int, int, int)
        (Z, Y, X).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group = _metadata(path)
        self._array = _metadata(path / _LEVEL)
        try:
            said = self._group["attributes"][NAMESPACE]
            self.position, self.channels = str(said["position"]), [str(name) for name in said["channels"]]
            self._windows: list[Any] = [c["window"] for c in self._group["attributes"]["ome"]["omero"]["channels"]]
            times, channels, *size = (int(length) for length in self._array["shape"])
            self.times, self.size = times, (size[0], size[1], size[2])
            self._chunk = tuple(int(n) for n in self._array["chunk_grid"]["configuration"]["chunk_shape"])[-2:]
            codecs = tuple(codec["name"] for codec in self._array["codecs"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ImageError(f"{path} is damaged: {error!r}; move it away, and backfill restores it anew") from error
        if codecs != _CODECS:
            raise ImageError(f"{path} is packed by {codecs}, not {_CODECS}; move it away, and backfill restores it anew")
        if channels != len(self.channels):  # killed between the two files
            self._resize(times)

    @classmethod
    def create(
        cls,
        path: Path,
        position: str,
        channels: Sequence[str],
        size: Size,
        spacing_um: Spacing,
        interval_s: float | None,
        provenance: Mapping[str, Any],
    ) -> Self:
        """Lay out a group for one time point, without a volume; under its name it is whole."""
        from live_restore.records.restored_zarr import lay_out

        said = {**provenance, "position": position, "channels": list(channels)}
        planes, height, width = size
        info = RestoredInfo(path, 1, tuple(channels), planes, height, width, np.dtype(np.float32), spacing_um, interval_s, said)
        shutil.rmtree(info.partial, ignore_errors=True)  # of a process that was killed here
        lay_out(info)
        group = _metadata(info.partial)
        group["attributes"]["ome"]["omero"] = {"channels": [_omero(name, _UNKNOWN) for name in channels]}
        group["attributes"][NAMESPACE] = said
        replace(info.partial / "zarr.json", group)
        info.partial.rename(path)
        _sync_folder(path.parent)
        return cls(path)

    def sweep(self, written: Container[tuple[int, str]]) -> None:
        """Remove the chunks that a process which was killed left under preliminary names; nobody else writes here.

        Parameters
        ----------
        written : container of (int, str)
            Time and channel of the volumes that are whole, where nothing is looked for.
        """
        for place in (self.path / _LEVEL / "c").glob("*/*"):
            time, number = place.parent.name, place.name
            if time.isdecimal() and number.isdecimal() and int(number) < len(self.channels):
                if (int(time), self.channels[int(number)]) in written:
                    continue
            for left in place.rglob(f".*{_NEW}"):
                with suppress(OSError):
                    left.unlink()

    def put(self, time: int, channel: str, volume: NDArray[np.float32]) -> None:
        """Write one volume, (Z, Y, X); on disk, and within the axes, when this returns."""
        (refused,) = land([self.stage(time, channel, volume)])
        if refused is not None:
            raise refused

    def stage(self, time: int, channel: str, volume: NDArray[np.float32]) -> "Staged":
        """Hand one volume, (Z, Y, X), to the system under preliminary names, and make room within the axes; `land` it next."""
        self._make_room(time, channel, volume)
        place = self.path / _LEVEL / "c" / str(time) / str(self.channels.index(channel))
        chunks = [(place / str(z) / str(y), str(x), chunk) for z, y, x, chunk in self._chunks(volume)]
        staged = Staged(tuple((folder / f".{name}{_NEW}", folder / name) for folder, name, _ in chunks), self.path)
        try:
            for (new, _), (_, _, chunk) in zip(staged.files, chunks, strict=True):
                _write(new, _packed(chunk))
        except BaseException:
            staged.discard()
            raise
        return staged

    def reach(self, time: int) -> None:
        """Let the axis T reach as far as this time point: once for many volumes, and not for each."""
        if time >= self.times:
            self._resize(time + 1)

    def read(self, time: int, channel: str) -> NDArray[np.float32]:
        """Read one volume, (Z, Y, X), as any reader of OME-Zarr does."""
        import zarr

        try:
            array = zarr.open_array(self.path / _LEVEL, mode="r")
            return np.asarray(array[time, self.channels.index(channel)], np.float32)
        except (OSError, ValueError, RuntimeError, KeyError, IndexError, zarr.errors.BaseZarrError) as error:
            raise ImageError(f"time {time}, channel {channel} cannot be read from {self.path}: {error}") from error

    def complete(self, extremes: Mapping[str, tuple[float, float]], volumes: Sequence[Mapping[str, Any]]) -> None:
        """Add what is known when writing stops: extremes of each channel, and the words on volumes if not too many."""
        for number, name in enumerate(self.channels):
            if name in extremes:
                low, high = extremes[name]
                self._windows[number] = {**self._windows[number], "min": low, "max": high}
        if len(volumes) <= _MOST_SAID:
            self._group["attributes"][NAMESPACE]["volumes"] = list(volumes)
        self._say_channels()

    def _make_room(self, time: int, channel: str, volume: NDArray[np.float32]) -> None:
        """Let the axes reach as far as this volume; where the disk refuses, they are as before."""
        before = self.times, list(self.channels), list(self._windows)
        try:
            if channel not in self.channels:
                self.channels.append(channel)
                self._windows.append(dict(_UNKNOWN))
            if (max(self.times, time + 1), len(self.channels)) != (self.times, len(before[1])):
                self._resize(max(self.times, time + 1))
            number = self.channels.index(channel)
            if self._windows[number] == _UNKNOWN:  # the first volume of a channel, planned or not
                self._windows[number] = _window(volume)
                self._say_channels()
        except BaseException:
            self.times, self.channels, self._windows = before
            raise

    def _resize(self, times: int) -> None:
        self._array["shape"] = [times, len(self.channels), *self.size]
        replace(self.path / _LEVEL / "zarr.json", self._array)
        self.times = times

    def _say_channels(self) -> None:
        attributes = self._group["attributes"]
        attributes[NAMESPACE]["channels"] = list(self.channels)
        windows = zip(self.channels, self._windows, strict=True)
        attributes["ome"]["omero"]["channels"] = [_omero(name, window) for name, window in windows]
        replace(self.path / "zarr.json", self._group)

    def _chunks(self, volume: NDArray[np.float32]) -> Iterator[tuple[int, int, int, NDArray[np.float32]]]:
        high, wide = self._chunk
        rows, columns = (math.ceil(length / step) for length, step in zip(self.size[1:], self._chunk, strict=True))
        for z, y, x in product(range(self.size[0]), range(rows), range(columns)):
            yield z, y, x, _whole(volume[z, y * high : (y + 1) * high, x * wide : (x + 1) * wide], (high, wide))


@dataclass(frozen=True, slots=True)
class Staged:
    """The chunks of one volume that the system has and the disk perhaps not.

    Attributes
    ----------
    files : tuple of (Path, Path)
        Preliminary and final name of each chunk.
    group : Path
    """

    files: tuple[tuple[Path, Path], ...]
    group: Path

    def discard(self) -> None:
        """Remove what stands under preliminary names."""
        for new, _ in self.files:
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def sync(self) -> None:
        """Wait until the disk has every chunk."""
        for new, _ in self.files:
            _sync(new)

    def rename(self) -> None:
        """Give every chunk its final name."""
        for new, file in self.files:
            new.replace(file)

    def folders(self) -> Iterator[Path]:
        """Every folder on the way to a chunk whose list of names may be new."""
        for _, file in self.files:
            folder = file.parent
            while folder != self.group:
                yield folder
                folder = folder.parent


def land(volumes: Sequence[Staged]) -> list[OSError | None]:
    """See volumes to disk, under their names: all were handed to the system before, so that the disk takes them together.

    Returns
    -------
    list
        Per volume why the disk refused it; None: it is on disk.
    """
    # in three strides, for whoever changes a name between two waits makes the disk write its journal for each
    refused = [_tried(volume, volume.sync) for volume in volumes]
    refused = [reason or _tried(volume, volume.rename) for volume, reason in zip(volumes, refused, strict=True)]
    for folder in sorted({folder for volume in volumes for folder in volume.folders()}, key=str, reverse=True):
        _sync_folder(folder)
    return refused


def _tried(volume: Staged, step: Callable[[], None]) -> OSError | None:
    try:
        step()
    except OSError as refused:
        volume.discard()
        return refused
    return None


def position_of(path: Path) -> str | None:
    """Which position a group holds; None if it is none of ours."""
    try:
        said = read_attributes(path).get(NAMESPACE)
    except ImageError:
        return None
    position = said.get("position") if isinstance(said, dict) else None
    return position if isinstance(position, str) else None


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "zarr.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ImageError(f"{folder} is damaged: {error}; move it away, and backfill restores it anew") from error


def _omero(name: str, window: Mapping[str, float]) -> dict[str, Any]:
    return {"label": name, "color": "FFFFFF", "active": True, "window": dict(window)}


def _window(volume: NDArray[np.float32]) -> dict[str, float]:
    """Contrast for a channel, from its first volume."""
    low, high = (float(value) for value in np.percentile(volume[:, ::_EVERY, ::_EVERY], _CONTRAST))
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 65535.0
    high = max(high, low + 1e-3)
    return {"min": low, "max": high, "start": low, "end": high}


def _whole(part: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Pad a part of a plane (Y, X) at the edges to a whole chunk, as the format wants it; contiguous."""
    if part.shape != shape:
        padded = np.zeros(shape, _FLOAT)
        padded[: part.shape[0], : part.shape[1]] = part
        return padded
    return np.ascontiguousarray(part, _FLOAT)


def _packed(chunk: NDArray[np.float32]) -> bytes:
    from numcodecs.blosc import Blosc  # type: ignore[import-untyped]

    return bytes(Blosc("lz4", 5, Blosc.SHUFFLE).encode(chunk))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)


def _sync(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """See the names in a folder to disk, where the system can; Windows keeps them in its own journal."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
