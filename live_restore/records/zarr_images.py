"""OME-Zarr images, versions 0.4 and 0.5: single images, several in one group (bioformats2raw), and plates.

Receives a folder; hands on one image per position, at full resolution. Pixels of absent chunks are the fill value, as
Zarr defines it. It does not know who wrote the group.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.records.images import Image, ImageInfo, check_info, check_place
from live_restore.records.names import channel_names, position_names
from live_restore.records.units import to_s, to_um

if TYPE_CHECKING:
    import zarr

Attributes = Mapping[str, Any]
_TYPES = {"time": "t", "channel": "c"}


class ZarrImage:
    """One image of an OME-Zarr group; see `live_restore.records.images.Image`.

    Parameters
    ----------
    info : ImageInfo
    array : zarr.Array
        At full resolution.
    axes : str
        One letter of tczyx per axis of the array.
    """

    def __init__(self, info: ImageInfo, array: "zarr.Array[Any]", axes: str) -> None:
        self.info = info
        self.missing: frozenset[tuple[int, int]] = frozenset()
        self._array, self._axes = array, axes

    def volume(self, time: int, channel: int) -> NDArray[Any]:
        """Read one volume, (Z, Y, X)."""
        check_place(self.info, time, channel)
        place = tuple({"t": time, "c": channel}.get(axis, slice(None)) for axis in self._axes)
        try:
            pixels = np.asarray(self._array[place])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ImageError(f"time {time}, channel {channel} of '{self.info.name}' cannot be read: {error}") from error
        return pixels.reshape(self.info.shape[2:]).astype(self.info.dtype, copy=False)  # (Z, Y, X)

    def close(self) -> None:
        """Nothing is kept open between two volumes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_zarr(path: Path, axes: str | None = None) -> list[Image]:
    """Open an OME-Zarr group, one image per position.

    Parameters
    ----------
    path : Path
    axes : None
        The group says what its axes are.

    Raises
    ------
    ImageError
    """
    if axes is not None:
        raise ImageError(f"{path} is an OME-Zarr group, which says what its axes are; leave --axes out")
    with _understanding(path):
        folders = _image_folders(path)
        names = position_names(path, [folder.relative_to(path).as_posix().replace("/", "_") for folder in folders])
        return [_image(folder, name) for folder, name in zip(folders, names, strict=True)]


def read_attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a Zarr group of either version; empty if it has none.

    Raises
    ------
    ImageError
        If they are not JSON.
    """
    try:
        if (folder / "zarr.json").is_file():
            return dict(json.loads((folder / "zarr.json").read_text("utf-8")).get("attributes", {}))
        if (folder / ".zattrs").is_file():
            return dict(json.loads((folder / ".zattrs").read_text("utf-8")))
    except (ValueError, AttributeError, OSError) as error:
        raise ImageError(f"the metadata of {folder} are damaged: {error}; copy or export it again") from error
    return {}


def _ome(folder: Path) -> Attributes:
    attributes = read_attributes(folder)
    found = attributes.get("ome", attributes)  # version 0.5 has everything under "ome"
    return found if isinstance(found, dict) else {}


def _image_folders(path: Path) -> list[Path]:
    """Folders of the images in a group, which may be an image itself, a plate or a collection."""
    said = _ome(path)
    if "multiscales" in said:
        return [path]
    if "plate" in said:
        wells = [path / well["path"] for well in said["plate"].get("wells", [])]
        folders = [well / field["path"] for well in wells for field in _ome(well).get("well", {}).get("images", [])]
    elif "bioformats2raw.layout" in said:
        series = _ome(path / "OME").get("series")
        folders = [path / name for name in series] if series else _numbered(path)
    else:
        folders = []
    if not folders:
        raise ImageError(f"{path} holds no OME-Zarr image: it says nothing of multiscales, a plate or a series")
    return folders


def _numbered(path: Path) -> list[Path]:
    return sorted((child for child in path.iterdir() if child.name.isdecimal()), key=lambda child: int(child.name))


def _image(folder: Path, name: str) -> ZarrImage:
    said = _ome(folder)
    multiscale = said["multiscales"][0]
    level, axes = multiscale["datasets"][0], [dict(axis) for axis in multiscale["axes"]]
    array, letters = _open_array(folder / level["path"]), _letters(folder, axes)
    if array.ndim != len(letters):
        raise ImageError(f"{folder} has {array.ndim} axes but names {len(letters)} ({letters}); its metadata are damaged")
    sizes = dict(zip(letters, array.shape, strict=True))
    scale = _scale(len(axes), level) * _scale(len(axes), multiscale)
    lengths = {letter: (scale[i], axes[i].get("unit")) for i, letter in enumerate(letters)}
    z, y, x = (to_um(*lengths.get(letter, (None, None))) for letter in "zyx")
    channels = [channel.get("label") for channel in said.get("omero", {}).get("channels", [])]
    info = ImageInfo(
        name,
        sizes.get("t", 1),
        channel_names(channels, sizes.get("c", 1)),
        sizes.get("z", 1),
        sizes["y"],
        sizes["x"],
        np.dtype(array.dtype).newbyteorder("="),
        (z, y, x),
        to_s(*lengths.get("t", (None, None))),
    )
    check_info(folder, info)
    return ZarrImage(info, array, letters)


@contextmanager
def _understanding(path: Path) -> Iterator[None]:
    """Turn metadata that are not as the format wants them into words."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ImageError(f"{path} is no OME-Zarr image of version 0.4 or 0.5: {error!r}; convert it to one of them") from error


def _open_array(path: Path) -> "zarr.Array[Any]":
    import zarr

    try:
        return zarr.open_array(path, mode="r")
    except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
        raise ImageError(f"{path} is no readable Zarr array: {error}") from error


def _letters(folder: Path, axes: list[dict[str, Any]]) -> str:
    letters = "".join(_TYPES.get(axis.get("type", ""), str(axis["name"]).lower()) for axis in axes)
    if not letters.endswith("yx") or set(letters) - set("tczyx") or len(set(letters)) != len(letters):
        raise ImageError(f"{folder} has the axes {[axis['name'] for axis in axes]}; those of an image are t, c, z, y, x")
    if "z" in letters and not letters.endswith("zyx"):
        raise ImageError(f"{folder} stores its axes in the order {letters}; z, y and x must come last")
    return letters


def _scale(count: int, level: Attributes) -> NDArray[np.float64]:
    transforms = level.get("coordinateTransformations", [])
    scales = [np.asarray(t["scale"], np.float64) for t in transforms if t.get("type") == "scale"]
    return scales[0] if scales and len(scales[0]) == count else np.ones(count)
