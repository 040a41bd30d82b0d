"""NDTiff datasets, as Micro-Manager and pycro-manager write them, versions 2 and 3.

Receives a folder; hands on one image per position. A recording that was stopped or killed is read as far as it goes.
It does not know the keys of the metadata (`micromanager`). Frames are found through the dataset's index, which
tifffile reads without opening a file for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.records import micromanager
from live_restore.records.images import Image, ImageInfo, check_info, check_place
from live_restore.records.incomplete import acquired_times, broken_off, missing_planes, missing_volumes
from live_restore.records.names import channel_names, position_names
from live_restore.records.tifffile_log import silenced

_WITHIN = ("time", "channel", "z")
# Numbers of the pixel types in the index; 10 to 14 bits are stored in 16.
_DTYPES = {0: np.uint8, 1: np.uint16, 3: np.uint16, 4: np.uint16, 5: np.uint16, 6: np.uint16}
_RGB = 2

Value = int | str


@dataclass(frozen=True, slots=True)
class NDTiffFrame:
    """Where one frame lies."""

    axes: Mapping[str, Value]
    file: Path
    file_bytes: int
    offset: int
    height: int
    width: int
    pixel_type: int
    metadata_offset: int
    metadata_bytes: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels, as stored."""
        return np.dtype(_DTYPES[self.pixel_type]).newbyteorder("<")

    @property
    def is_on_disk(self) -> bool:
        """Whether the file reaches as far as the index says."""
        return self.offset + self.dtype.itemsize * self.height * self.width <= self.file_bytes

    @property
    def position(self) -> tuple[tuple[str, Value], ...]:
        """Everything that tells two images of a dataset apart: position, row, column, light, camera, ..."""
        return tuple(sorted((axis, value) for axis, value in self.axes.items() if axis not in _WITHIN))

    def metadata(self) -> dict[str, Any]:
        """Read what Micro-Manager wrote of this frame; empty if it is unreadable."""
        try:
            with self.file.open("rb") as file:
                file.seek(self.metadata_offset)
                said = json.loads(file.read(self.metadata_bytes))
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def read_into(self, plane: NDArray[Any]) -> None:
        """Read the pixels into a plane (Y, X)."""
        try:
            plane[:] = np.fromfile(self.file, self.dtype, plane.size, offset=self.offset).reshape(plane.shape)
        except (OSError, ValueError) as error:
            raise ImageError(f"frame {dict(self.axes)} cannot be read from {self.file}: {error}") from error


class NDTiffImage:
    """One position of an NDTiff dataset; see `live_restore.records.images.Image`.

    Parameters
    ----------
    info : ImageInfo
    frames : sequence of NDTiffFrame
        Of this position, in any order.
    numbers : ndarray, (T, C, Z), int
        The place of each plane among them, -1 where the dataset has none.
    """

    def __init__(self, info: ImageInfo, frames: Sequence[NDTiffFrame], numbers: NDArray[np.intp]) -> None:
        self.info = info
        self.missing = missing_volumes(numbers >= 0)
        self._frames, self._numbers = frames, numbers

    def volume(self, time: int, channel: int) -> NDArray[Any]:
        """Read one volume, (Z, Y, X)."""
        check_place(self.info, time, channel)
        if (time, channel) in self.missing:
            lacking = missing_planes(self._numbers[time, channel] >= 0)
            raise ImageError(f"'{self.info.name}' lacks {lacking} of time {time}, channel {channel}; leave them out")
        volume = np.empty(self.info.shape[2:], self.info.dtype)  # (Z, Y, X)
        for plane, number in zip(volume, self._numbers[time, channel], strict=True):
            self._frames[number].read_into(plane)
        return volume

    def close(self) -> None:
        """Nothing is kept open between two volumes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_ndtiff(path: Path, axes: str | None = None) -> list[Image]:
    """Open an NDTiff dataset, one image per position (and per row, column and any other axis but time, channel and z).

    Parameters
    ----------
    path : Path
        The folder of the dataset.
    axes : None
        A dataset says what its axes are.

    Raises
    ------
    ImageError
    """
    if axes is not None:
        raise ImageError(f"{path} is an NDTiff dataset, which says what its axes are; leave --axes out")
    frames = read_frames(path)
    by_position: dict[tuple[tuple[str, Value], ...], list[NDTiffFrame]] = {}
    for frame in frames:
        by_position.setdefault(frame.position, []).append(frame)
    positions = sorted(by_position, key=lambda position: [_sort_key(value) for _, value in position])
    names = position_names(path, [_label(position) for position in positions])
    summary = _summary(next(frame.file for frame in frames if frame.is_on_disk))
    return [_image(path, name, by_position[p], frames, summary) for name, p in zip(names, positions, strict=True)]


def read_frames(path: Path) -> list[NDTiffFrame]:
    """Find all frames that the index of a dataset names, in order of acquisition; some may not be on disk.

    Raises
    ------
    ImageError
    """
    full = path / "Full resolution"  # version 2, and version 3 with lower resolutions beside
    folder = full if full.is_dir() else path
    index = folder / "NDTiff.index"
    if not index.is_file():
        raise ImageError(
            f"{path} is an NDTiff dataset of version 1 (no NDTiff.index); export it as OME-TIFF from Micro-Manager"
        )
    with silenced():  # a killed recording ends in half an entry, or in zeros: no reason to complain
        entries = list(tifffile.read_ndtiff_index(index))
    sizes = {file.name: file.stat().st_size for file in folder.glob("*.tif")}
    frames = [
        NDTiffFrame(axes, folder / file, sizes.get(file, 0), offset, height, width, kind, metadata_offset, metadata_bytes)
        for axes, file, offset, width, height, kind, _, metadata_offset, metadata_bytes, _ in entries
    ]
    _check_pixels(path, frames)
    if not any(frame.is_on_disk for frame in frames):
        reason = f"none of its {len(frames)} frames is on disk" if frames else "its index names no frame"
        raise ImageError(
            f"{path} holds no frame to read: {reason}; the recording was cut off or not copied whole; where its TIFF files "
            f"are there, rebuild the index: live-restore recover {path}"
        )
    return frames


def _check_pixels(path: Path, frames: Sequence[NDTiffFrame]) -> None:
    kinds = {(frame.pixel_type, frame.height, frame.width) for frame in frames}
    if any(kind == _RGB for kind, _, _ in kinds):
        raise ImageError(f"{path} holds colour frames (8-bit RGB); record in grayscale")
    unknown = {kind for kind, _, _ in kinds} - set(_DTYPES)
    if unknown:
        raise ImageError(f"{path} holds frames of unknown pixel type {min(unknown)}; known are {sorted(_DTYPES)}")
    shapes = sorted({(frame.dtype.name, frame.height, frame.width) for frame in frames})
    if len(shapes) > 1:
        raise ImageError(f"{path} holds frames of different kinds, {shapes[0]} and {shapes[1]}; record them separately")


def _summary(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        try:
            return dict(tifffile.read_micromanager_metadata(stream, {"Summary"}).get("Summary") or {})
        except ValueError:
            return {}


def _image(
    path: Path, name: str, own: list[NDTiffFrame], everywhere: list[NDTiffFrame], summary: micromanager.Summary
) -> NDTiffImage:
    times, zs = _values(own, "time"), _values(own, "z")
    channels = _ordered_channels(everywhere, own, summary)
    places = [{value: i for i, value in enumerate(values)} for values in (times, channels, zs)]
    numbers = np.full((len(times), len(channels), len(zs)), -1)  # (T, C, Z)
    for number, frame in enumerate(own):
        if frame.is_on_disk:
            numbers[tuple(place[_at(frame, axis)] for place, axis in zip(places, _WITHIN, strict=True))] = number
    kept = acquired_times(numbers >= 0)
    if not kept:
        raise ImageError(f"{path} holds no frame of '{name}', though its index names {len(own)}; copy the dataset again")
    info = ImageInfo(
        name,
        kept,
        channel_names([_channel_name(value, own, summary) for value in channels], len(channels)),
        len(zs),
        own[0].height,
        own[0].width,
        own[0].dtype.newbyteorder("="),
        _pixel_size_um([own[n] for n in numbers.flat if n >= 0], summary),
        micromanager.frame_interval_s(summary),
        broken_off(path, kept, max(len(times), micromanager.planned_times(summary))) + _gaps(path, times, zs),
    )
    check_info(path, info)
    return NDTiffImage(info, own, numbers[:kept])


def _at(frame: NDTiffFrame, axis: str) -> Value:
    return frame.axes.get(axis, 0)


def _values(frames: Sequence[NDTiffFrame], axis: str) -> list[Value]:
    return sorted({_at(frame, axis) for frame in frames}, key=_sort_key)


def _sort_key(value: Value) -> tuple[bool, int, str]:
    return isinstance(value, str), 0 if isinstance(value, str) else value, str(value)


def _label(position: tuple[tuple[str, Value], ...]) -> str:
    words = {"position": "pos"}
    return "_".join(value if isinstance(value, str) else f"{words.get(axis, axis)}{value}" for axis, value in position)


def _ordered_channels(everywhere: list[NDTiffFrame], own: list[NDTiffFrame], summary: micromanager.Summary) -> list[Value]:
    """Channels of a position: numbers in their order, names in the order of the plan or else of acquisition."""
    planned = {name: place for place, name in enumerate(micromanager.named_channels(summary))}
    first_seen = {_at(frame, "channel"): place for place, frame in reversed(list(enumerate(everywhere)))}
    return sorted(
        {_at(frame, "channel") for frame in own},
        key=lambda value: (0, value, 0) if isinstance(value, int) else (1, planned.get(value, len(planned)), first_seen[value]),
    )


def _channel_name(value: Value, frames: Sequence[NDTiffFrame], summary: micromanager.Summary) -> str | None:
    if isinstance(value, str):
        return value
    planned = micromanager.named_channels(summary)
    if value < len(planned):
        return planned[value]
    first = next(frame for frame in frames if _at(frame, "channel") == value)
    return micromanager.frame_channel(first.metadata())


def _pixel_size_um(
    frames: Sequence[NDTiffFrame], summary: micromanager.Summary
) -> tuple[float | None, float | None, float | None]:
    """Pixel size (z, y, x) from the summary, or else from the first frames of a stack."""
    z, y, x = micromanager.pixel_size_um(summary)
    if x is None:
        y = x = micromanager.frame_pixel_size_um(frames[0].metadata())
    if z is None and len(frames) > 1 and _at(frames[0], "z") != _at(frames[1], "z"):
        first, second = (micromanager.frame_z_um(frame.metadata()) for frame in frames[:2])
        z = micromanager.z_step_um(first - second) if first is not None and second is not None else None
    return z, y, x


def _gaps(path: Path, times: Sequence[Value], zs: Sequence[Value]) -> tuple[str, ...]:
    """Note indices that were never recorded, so that their neighbours count as consecutive."""
    axes = {
        "time": [value for value in times if isinstance(value, int)],
        "z": [value for value in zs if isinstance(value, int)],
    }
    return tuple(
        f"{path.name}: some {axis} indices between {numbers[0]} and {numbers[-1]} were not recorded; the others follow suit"
        for axis, numbers in axes.items()
        if len(set(np.diff(numbers).tolist())) > 1
    )
