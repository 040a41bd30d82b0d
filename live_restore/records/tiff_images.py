"""TIFF images: plain, ImageJ, OME-TIFF and Micro-Manager files, read plane by plane.

Receives a path; hands on one image per position. It refuses what would otherwise be read as zeros: missing pages,
truncated files, files of a set that are not there. It does not know what the metadata look like (`tiff_metadata`).
"""

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.records.images import Image, ImageInfo, check_info, check_place
from live_restore.records.incomplete import Present, acquired_times, broken_off, missing_planes, missing_volumes
from live_restore.records.names import channel_names, position_names
from live_restore.records.tiff_axes import plane_numbers, read_axes
from live_restore.records.tiff_metadata import TiffMetadata, ome_file_names, ome_metadata_file, read_metadata
from live_restore.records.tiff_planes import Planes, open_planes
from live_restore.records.tifffile_log import silenced

# Dialects that say how many planes there are. If tifffile cannot follow one, it reads on as if there were none.
_TELLING = ("shaped", "mmstack", "ome", "imagej")
_GRAY = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.PALETTE)
# What a broken file makes tifffile and the decoders raise.
_READ_ERRORS = (
    tifffile.TiffFileError,
    OSError,
    ValueError,
    RuntimeError,
    IndexError,
    KeyError,
    ArithmeticError,
    MemoryError,
    TypeError,
    AssertionError,
    struct.error,
    zlib.error,
)


class TiffImage:
    """One position of a TIFF file; see `live_restore.records.images.Image`.

    Parameters
    ----------
    info : ImageInfo
    planes : Planes
        Of the whole file.
    numbers : ndarray, (T, C, Z), int
        The place of each plane of this position among them.
    present : ndarray, (T, C, Z), bool
    file : OpenFile
        Shared by the positions of a file; closed with the last of them.
    """

    def __init__(self, info: ImageInfo, planes: Planes, numbers: NDArray[np.intp], present: Present, file: "OpenFile") -> None:
        self.info = info
        self.missing = missing_volumes(present)
        self._planes, self._numbers, self._present = planes, numbers, present
        self._file: OpenFile | None = file

    def volume(self, time: int, channel: int) -> NDArray[Any]:
        """Read one volume, (Z, Y, X)."""
        check_place(self.info, time, channel)
        if self._file is None:
            raise ValueError(f"'{self.info.name}' is closed")
        if (time, channel) in self.missing:
            lacking = missing_planes(self._present[time, channel])
            raise ImageError(f"'{self.info.name}' lacks {lacking} of time {time}, channel {channel}; leave them out")
        with _reading(self._file.path):
            volume = np.empty(self.info.shape[2:], self.info.dtype)  # (Z, Y, X)
            for plane, number in zip(volume, self._numbers[time, channel], strict=True):
                self._planes.read_into(int(number), plane)
        return volume

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.release()
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class OpenFile:
    """An open TIFF file, closed when the last of its positions is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tif = tifffile.TiffFile(path)
        self.users = 0

    def release(self) -> None:
        """Tell that one position needs it no longer."""
        self.users -= 1
        if self.users <= 0:
            self.tif.close()


@dataclass(frozen=True, slots=True)
class _Position:
    label: str
    series: tifffile.TiffPageSeries
    planes: Planes
    numbers: NDArray[np.intp]  # (T, C, Z)
    present: Present  # (T, C, Z)
    metadata: TiffMetadata
    notes: tuple[str, ...]


def open_tiff(path: Path, axes: str | None = None) -> list[Image]:
    """Open a TIFF file, one image per position.

    Parameters
    ----------
    path : Path
    axes : str or None
        What the axes are, instead of what the file says, e.g. ``"TYX"``.

    Raises
    ------
    ImageError
    """
    with _reading(path):
        file = OpenFile(path)
    try:
        with _reading(path):
            return _images(file, axes)
    except BaseException:
        file.tif.close()
        raise


def tiff_set(path: Path) -> tuple[str | None, set[str]]:
    """Say which file describes this one, if another does, and which files it describes itself.

    Only names that promise a set are opened, for the sake of folders with thousands of plain files.
    """
    if path.is_dir() or not (".ome." in path.name.lower() or "_MMStack" in path.name):
        return None, set()
    try:
        with silenced(), tifffile.TiffFile(path) as tif:
            description = tif.pages.first.description
    except _READ_ERRORS:
        return None, set()  # opening it will say what is wrong
    return ome_metadata_file(description), ome_file_names(description) - {path.name}


def _images(file: OpenFile, axes: str | None) -> list[Image]:
    _check_followed(file.path, file.tif)
    planned = [p for number, series in enumerate(file.tif.series) for p in _positions(file, number, series, axes)]
    # Micro-Manager plans all positions at the start; a recording that was stopped has not come to all of them
    begun = [position for position in planned if position.present.any() or position.series.kind != "mmstack"]
    if not begun:
        raise ImageError(f"{file.path} holds no pixels; the recording was cut off or not copied whole")
    notes = (f"{file.path.name}: only {len(begun)} of {len(planned)} positions were recorded",) * (len(begun) < len(planned))
    names = position_names(file.path, [position.label for position in begun])
    images: list[Image] = [_image(file, name, position, notes) for name, position in zip(names, begun, strict=True)]
    file.users = len(images)
    return images


def _positions(file: OpenFile, number: int, series: tifffile.TiffPageSeries, axes: str | None) -> list[_Position]:
    if number and series.keyframe.is_reduced:  # a thumbnail
        return []
    if 0 in series.shape:
        raise ImageError(f"{file.path} is empty: its shape is {series.shape}")
    letters, notes = read_axes(file.path, series, axes)
    if axes is None and series.dtype != bool:  # bits are refused as such
        _check_gray(file.path, series)
    planes = open_planes(file.path, file.tif, series)
    shape = series.get_shape(squeeze=True)[:-2]
    if planes.count < math.prod(shape):  # a damaged description may promise billions
        raise ImageError(
            f"{file.path} is incomplete: it holds {planes.count} of {math.prod(shape)} planes; copy or export it again"
        )
    numbers = plane_numbers(letters, shape)  # (R, T, C, Z)
    present = np.reshape([planes.holds(int(n)) for n in numbers.flat], numbers.shape).astype(bool)
    metadata = read_metadata(file.tif, series, number)
    # a stack that lacks files of its set has fewer positions than the plan, and does not say which
    labels = metadata.positions if len(metadata.positions) == len(numbers) else [series.name] * len(numbers)
    return [
        _Position(label or f"pos{number + place}", series, planes, numbers[place], present[place], metadata, notes)
        for place, label in enumerate(labels)
    ]


def _image(file: OpenFile, name: str, position: _Position, notes: tuple[str, ...]) -> TiffImage:
    times, cut = _whole_times(file, position)
    _, channels, planes = position.numbers.shape
    height, width = position.series.get_shape(squeeze=True)[-2:]
    info = ImageInfo(
        name,
        times,
        channel_names(position.metadata.channels, channels),
        planes,
        height,
        width,
        position.series.dtype.newbyteorder("="),
        position.metadata.pixel_size_um,
        position.metadata.frame_interval_s,
        position.notes + notes + cut,
    )
    check_info(file.path, info)
    return TiffImage(info, position.planes, position.numbers[:times], position.present[:times], file)


def _whole_times(file: OpenFile, position: _Position) -> tuple[int, tuple[str, ...]]:
    """How many time points to read, and a note if a Micro-Manager recording was stopped before its end."""
    present = position.present
    if position.series.kind != "mmstack":
        if not present.all():
            raise ImageError(f"{file.path} {_what_is_missing(file, present)}; copy or export it again")
        return len(present), ()
    times = acquired_times(present)
    return times, broken_off(file.path, times, max(len(present), position.metadata.planned_times))


def _what_is_missing(file: OpenFile, present: Present) -> str:
    held = f"is incomplete: it holds {np.count_nonzero(present)} of {present.size} planes"
    absent = [n for n in ome_file_names(file.tif.ome_metadata or "") if not file.path.with_name(n).exists()]
    return f"{held}; files of the same set are not there: {', '.join(sorted(absent))}" if absent else held


def _check_gray(path: Path, series: tifffile.TiffPageSeries) -> None:
    photometric = series.keyframe.photometric
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise ImageError(f"{path} stores bright as small numbers (MinIsWhite); invert it and save it as MinIsBlack")
    if photometric not in _GRAY:
        name = tifffile.PHOTOMETRIC(photometric).name
        raise ImageError(f"{path} is a colour image ({name}); save each channel as grayscale")


def _check_followed(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file of which tifffile would show only what it could still make sense of."""
    kinds = {series.kind for series in tif.series}
    telling = [kind for kind in _TELLING if getattr(tif, f"is_{kind}", False)]
    if telling and not kinds & set(telling):
        described_by = ome_metadata_file(tif.ome_metadata or "")
        if described_by:
            raise ImageError(f"{path} is part of a set that '{described_by}' describes; open that file instead")
        raise ImageError(
            f"{path} does not hold what its {telling[0]} description says: it is truncated or damaged; copy it again"
        )
    if kinds & {"uniform", "generic"} and _next_page(tif):
        raise ImageError(f"{path} is truncated after {len(tif.pages)} pages; copy or export it again")


def _next_page(tif: tifffile.TiffFile) -> int:
    """Offset of the page that the last page announces; 0 after a whole chain."""
    layout, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(tags * layout.tagsize, 1)
    (offset,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    return int(offset)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a broken file raises into words."""
    try:
        with silenced():
            yield
    except _READ_ERRORS as error:
        raise ImageError(f"{path} cannot be read as TIFF, it is damaged or something else: {error}") from error
