"""A folder of TIFF files as one image: a movie, a stack or channels saved file by file.

Receives a folder and the axis that its files step along; hands on one image. It reads a file only for the volumes
that need it, and does not know how a TIFF file is laid out.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.records.images import Image, ImageInfo, check_place, is_listed
from live_restore.records.names import TIFF_SUFFIXES, channel_names, natural_key, stem
from live_restore.records.tiff_images import open_tiff

_AXES = "TCZ"


class SequenceImage:
    """One image of many files; see `live_restore.records.images.Image`.

    Parameters
    ----------
    info : ImageInfo
    files : list of Path
        One per step along the axis.
    axis : {"T", "C", "Z"}
    axes : str or None
        Meaning of the axes within each file.
    """

    def __init__(self, info: ImageInfo, files: list[Path], axis: str, axes: str | None) -> None:
        self.info = info
        self.missing: frozenset[tuple[int, int]] = frozenset()
        self._files, self._axis, self._axes = files, axis, axes

    def volume(self, time: int, channel: int) -> NDArray[Any]:
        """Read one volume, (Z, Y, X)."""
        check_place(self.info, time, channel)
        if self._axis == "Z":
            return np.concatenate([self._part(file, time, channel) for file in self._files])  # (Z, Y, X)
        if self._axis == "T":
            return self._part(self._files[time], 0, channel)
        return self._part(self._files[channel], time, 0)

    def _part(self, file: Path, time: int, channel: int) -> NDArray[Any]:
        with _only_image(file, self._axes) as image:
            return image.volume(time, channel)

    def close(self) -> None:
        """Nothing is kept open between two volumes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_sequence(folder: Path, axis: str, axes: str | None = None) -> Image:
    """Open the TIFF files of a folder, in natural order, as one image.

    Parameters
    ----------
    folder : Path
    axis : {"T", "C", "Z"}
        What the files step along; each must have length 1 there.
    axes : str or None
        Meaning of the axes within each file.

    Raises
    ------
    ImageError
    """
    if axis not in tuple(_AXES):
        raise ImageError(f"files cannot be a sequence along '{axis}'; it is one of {', '.join(_AXES)}")
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; a sequence is a folder of TIFF files")
    files = sorted((f for f in folder.iterdir() if is_listed(f) and f.name.lower().endswith(TIFF_SUFFIXES)), key=natural_key)
    if not files:
        raise ImageError(f"folder {folder} holds no TIFF file; looked for {', '.join(TIFF_SUFFIXES)}")
    with _only_image(files[0], axes) as first:
        alike = first.info
    for file in files[1:]:
        with _only_image(file, axes) as image:
            _check_alike(file, image.info, files[0], alike)
    return SequenceImage(replace(_of_all(alike, axis, files), name=folder.name), files, axis, axes)


def _only_image(file: Path, axes: str | None) -> Image:
    images = open_tiff(file, axes)
    if len(images) == 1:
        return images[0]
    for image in images:
        image.close()
    raise ImageError(f"{file} holds {len(images)} positions; the files of a sequence hold one each")


def _of_all(first: ImageInfo, axis: str, files: list[Path]) -> ImageInfo:
    length = {"T": first.times, "C": len(first.channels), "Z": first.planes}[axis]
    if length != 1:
        raise ImageError(f"{files[0]} has {length} steps along {axis} already; a sequence along {axis} needs files with one")
    if axis == "T":
        return replace(first, times=len(files))
    if axis == "Z":
        return replace(first, planes=len(files))
    return replace(first, channels=channel_names([stem(file) for file in files], len(files)))


def _check_alike(file: Path, found: ImageInfo, first: Path, expected: ImageInfo) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ImageError(
            f"{file} has the shape (T, C, Z, Y, X) {found.shape} and {found.dtype} pixels, unlike {first.name} with "
            f"{expected.shape} and {expected.dtype}; the files of a sequence are all alike"
        )
