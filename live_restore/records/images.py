"""Images on disk: what they are, how one is opened, and which files a list of paths stands for.

Receives paths; hands on `Image` objects, one per position, that read one volume at a time and only when asked. It does
not know what the pixels are for, nor the inside of any format: each format has its own file beside this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.records.names import TIFF_SUFFIXES, natural_key

_FULL_RESOLUTION = "Full resolution"
# What an image may hold: whole numbers and real ones.
_REAL_KINDS = "uif"
# A restored file that is being written carries this in its name, and is nobody's input.
PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image is, without its pixels.

    Attributes
    ----------
    name : str
        File stem, with the position appended where a file has several; fit for a file name.
    times, planes, height, width : int
        Sizes of T, Z, Y and X; 1 where the image has no such axis.
    channels : tuple of str
        Names along C, never empty and all different.
    dtype : dtype
        Of the pixels on disk, in this machine's byte order.
    pixel_size_um : tuple of float or None
        (z, y, x) in micrometres; None where the file does not say.
    frame_interval_s : float or None
        Seconds from one time point to the next.
    notes : tuple of str
        What had to be supposed or left out, in words for the user.
    """

    name: str
    times: int
    channels: tuple[str, ...]
    planes: int
    height: int
    width: int
    dtype: np.dtype[Any]
    pixel_size_um: tuple[float | None, float | None, float | None] = (None, None, None)
    frame_interval_s: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(T, C, Z, Y, X)."""
        return self.times, len(self.channels), self.planes, self.height, self.width


class Image(Protocol):
    """One position of one file or dataset. Opened once, read volume by volume from one thread, closed once or more.

    Attributes
    ----------
    info : ImageInfo
    missing : frozenset of (int, int)
        The volumes (time, channel) of which the file does not hold every plane: a channel that was not taken at every
        time point, or without its z-stack. `volume` refuses them.
    """

    info: ImageInfo
    missing: frozenset[tuple[int, int]]

    def volume(self, time: int, channel: int) -> NDArray[Any]:
        """Read one volume, and no other.

        Returns
        -------
        ndarray, (Z, Y, X), info.dtype

        Raises
        ------
        ImageError
            If the file does not hold it, or it cannot be decoded.
        """

    def close(self) -> None:
        """Give the file back; a second time is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def open_images(path: Path, axes: str | None = None, sequence: str | None = None) -> list[Image]:
    """Open a file or dataset, one image per position.

    Parameters
    ----------
    path : Path
        A TIFF file, an NDTiff folder, an OME-Zarr folder; with `sequence`, a folder of TIFF files.
    axes : str or None
        What the axes of a TIFF file are, e.g. ``"TYX"``, where it does not say or says wrong: letters of TCZYX.
    sequence : {"T", "C", "Z"} or None
        The files of the folder, in natural order, are the steps along this axis of one image.

    Returns
    -------
    list of Image
        At least one.

    Raises
    ------
    ImageError
        If it is no image, is damaged or truncated, or holds what cannot be restored (colour, complex numbers).
    """
    if not path.exists():
        raise ImageError(f"{path} does not exist; check the spelling")
    if sequence is not None:
        from live_restore.records.sequence_images import open_sequence

        return [open_sequence(path, sequence, axes)]
    whole = _dataset_of(path)
    return _opener(whole)(whole, axes)


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """List the images that files and folders stand for.

    A folder stands for the images directly in it, in natural order (img2 before img10); a folder that is an NDTiff
    dataset or an OME-Zarr group is one image. Several TIFF files of one OME-TIFF set count once, by their first.
    Hidden files and half-written restorations are left out.

    Raises
    ------
    ImageError
        If a path does not exist, is no image, or is a folder without any.
    """
    found = [image for path in paths for image in _inputs_of(path)]
    return _without_set_members(list(dict.fromkeys(found)))


def check_info(path: Path, info: ImageInfo) -> None:
    """Refuse what has no pixels, or pixels that are no intensities.

    Raises
    ------
    ImageError
    """
    if min(info.shape) < 1:
        raise ImageError(f"{path} is empty: its shape (T, C, Z, Y, X) is {info.shape}")
    if info.dtype.kind not in _REAL_KINDS:
        raise ImageError(f"{path} has {info.dtype} pixels; intensities are whole or real numbers (uint16, float32, ...)")


def check_place(info: ImageInfo, time: int, channel: int) -> None:
    """Refuse a volume outside the image.

    Raises
    ------
    ValueError
    """
    if not (0 <= time < info.times and 0 <= channel < len(info.channels)):
        raise ValueError(
            f"volume (time {time}, channel {channel}) is outside '{info.name}', "
            f"which has {info.times} times and {len(info.channels)} channels"
        )


def is_ndtiff(folder: Path) -> bool:
    """Whether a folder is an NDTiff dataset, of any version."""
    return (folder / "NDTiff.index").is_file() or (folder / _FULL_RESOLUTION).is_dir()


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group, of version 2 or 3."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup"))


class _Opener(Protocol):
    def __call__(self, path: Path, axes: str | None) -> list[Image]: ...


def _opener(path: Path) -> _Opener:
    if path.is_dir():
        return _folder_opener(path)
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); copy or record it again")
    if not path.name.lower().endswith(TIFF_SUFFIXES):
        raise ImageError(_unreadable(path))
    from live_restore.records.tiff_images import open_tiff

    return open_tiff


def _folder_opener(folder: Path) -> _Opener:
    if is_ndtiff(folder):
        from live_restore.records.ndtiff_images import open_ndtiff

        return open_ndtiff
    if is_zarr(folder) or folder.suffix.lower() == ".zarr":  # a damaged one is best told what it lacks
        from live_restore.records.zarr_images import open_zarr

        return open_zarr
    raise ImageError(f"{folder} is a folder, but neither an NDTiff dataset nor an OME-Zarr group; give the images in it")


def _dataset_of(path: Path) -> Path:
    """Find the folder of the NDTiff dataset that a file is part of; any other path is its own."""
    if path.is_dir() or "NDTiffStack" not in path.name or not is_ndtiff(path.parent):
        return path
    return path.parent.parent if path.parent.name == _FULL_RESOLUTION else path.parent


def _unreadable(path: Path) -> str:
    what = f"'{path.suffix}' files are" if path.suffix else "a file without suffix is"
    return f"{path}: {what} not read; convert it to TIFF (.tif, .ome.tif), or give an NDTiff or OME-Zarr folder"


def _inputs_of(path: Path) -> list[Path]:
    if not path.exists():
        raise ImageError(f"{path} does not exist; check the spelling")
    if path.is_file() and not path.name.lower().endswith(TIFF_SUFFIXES):
        raise ImageError(_unreadable(path))
    if path.is_file() or _is_input(path):
        return [_dataset_of(path)]
    images = sorted((child for child in path.iterdir() if _is_input(child)), key=natural_key)
    if not images:
        raise ImageError(f"folder {path} holds no image; looked for {', '.join(TIFF_SUFFIXES)}, NDTiff and OME-Zarr folders")
    return images


def is_listed(path: Path) -> bool:
    """Whether a file of a folder counts at all: it is neither hidden nor a half-written restoration."""
    return not path.name.startswith(".") and f"{PARTIAL}." not in path.name


def _is_input(path: Path) -> bool:
    if not is_listed(path):
        return False
    if path.is_dir():
        return is_ndtiff(path) or is_zarr(path) or path.suffix.lower() == ".zarr"
    return path.name.lower().endswith(TIFF_SUFFIXES)


def _without_set_members(images: list[Path]) -> list[Path]:
    """Leave out TIFF files whose pixels are reached through another file of their OME-TIFF set."""
    from live_restore.records.tiff_images import tiff_set

    covered: set[Path] = set()
    kept = []
    for image in images:
        described_by, members = tiff_set(image)
        if image in covered or (described_by and image.with_name(described_by) in images):
            continue
        kept.append(image)
        covered |= {image.with_name(name) for name in members}
    return kept
