"""A restored image as OME-Zarr 0.5: a group laid out by ome-writers, filled chunk by chunk.

Receives planes and their places; hands on a group that napari and Fiji read. It does not know which planes are
missing.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from live_restore.errors import ImageError
from live_restore.records.restored_info import NAMESPACE, Pixels, RestoredInfo
from live_restore.records.restored_journal import Entry, volumes_said
from live_restore.records.zarr_images import read_attributes

if TYPE_CHECKING:
    import zarr

# One chunk holds one plane, or a part of a large one: 16 MB of float32.
_CHUNK_SIDE = 2048
_LEVEL = "0"
# Lossless; measured on restored 2048² planes: a quarter (float32) to a third (uint16) smaller, at no cost in time.
_COMPRESSION: Final = "blosc-lz4"


class ZarrStore:
    """The partial group of a restored OME-Zarr; see `live_restore.records.restored_info.Store`.

    Parameters
    ----------
    info : RestoredInfo
    new : bool
        Lay the group out, or else open what an interrupted run left.
    """

    def __init__(self, info: RestoredInfo, *, new: bool) -> None:
        if new:
            lay_out(info)
        self._info = info
        self._array = _open_level(info.partial)

    def put(self, time: int, channel: int, planes: Iterator[Pixels]) -> None:
        """Write the planes of one volume."""
        for z, plane in enumerate(planes):
            self._array[time, channel, z] = plane
        # chunk files of version 3 lie under c/T/C/Z/Y/X; chunks of nothing but zeros have none
        for chunk in (self._info.partial / _LEVEL / "c" / str(time) / str(channel)).rglob("*"):
            if chunk.is_file():
                _sync(chunk)

    def complete(self, entries: Mapping[tuple[int, int], Entry]) -> None:
        """Say which channels there are, between which values to show them, and what was said of each volume."""
        import zarr

        group = zarr.open_group(self._info.partial, mode="r+")
        said: dict[str, Any] = group.attrs.asdict()["ome"]  # type: ignore[assignment]
        group.attrs["ome"] = {**said, "omero": {"channels": _omero(self._info, entries)}}
        volumes = volumes_said(entries)
        if volumes:
            group.attrs[NAMESPACE] = {**self._info.provenance, "volumes": volumes}
        _sync(self._info.partial / "zarr.json")

    def close(self) -> None:
        """Nothing is kept open between two volumes."""


def read_said(path: Path) -> dict[str, Any]:
    """Read the provenance of a restored OME-Zarr; empty if there is none."""
    try:
        said = read_attributes(path).get(NAMESPACE)
    except ImageError:
        return {}
    return said if isinstance(said, dict) else {}


def lay_out(info: RestoredInfo) -> None:
    """Make the group, without a chunk, under its partial name, safely on disk."""
    from ome_writers import AcquisitionSettings, Dimension, OmeZarrFormat, create_stream

    z, y, x = info.pixel_size_um
    dimensions = [
        # a size that nobody knows has no unit either: the format has no other way to say so
        Dimension(name="t", type="time", count=info.times, **_spacing(info.frame_interval_s, "second")),
        Dimension(name="c", type="channel", count=len(info.channels)),
        Dimension(name="z", type="space", count=info.planes, **_spacing(z, "micrometer")),
        Dimension(
            name="y", type="space", count=info.height, chunk_size=min(info.height, _CHUNK_SIDE), **_spacing(y, "micrometer")
        ),
        Dimension(
            name="x", type="space", count=info.width, chunk_size=min(info.width, _CHUNK_SIDE), **_spacing(x, "micrometer")
        ),
    ]
    settings = AcquisitionSettings(
        root_path=str(info.partial),
        dimensions=tuple(dimensions),
        dtype=np.dtype(info.dtype).name,
        compression=_COMPRESSION,
        format=OmeZarrFormat(backend="zarr-python", suffix=".ome.zarr"),
    )
    with create_stream(settings) as stream:
        stream.set_global_metadata(NAMESPACE, info.provenance)
    for said in (info.partial, info.partial / _LEVEL):
        _sync(said / "zarr.json")


def _open_level(partial: Path) -> "zarr.Array[Any]":
    import zarr

    try:
        return zarr.open_array(partial / _LEVEL, mode="r+")
    except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
        raise ImageError(f"{partial} is damaged: {error}; delete it and run the same command again") from error


def _spacing(size: float | None, unit: str) -> dict[str, Any]:
    return {} if size is None else {"scale": size, "unit": unit}


def _omero(info: RestoredInfo, entries: Mapping[tuple[int, int], Entry]) -> list[dict[str, Any]]:
    """Name, colour and contrast of each channel, as viewers want them.

    Written by us: ome-writers takes the contrast from the limits of the dtype, which shows counts as black, and fails
    for float32.
    """
    channels = []
    for channel, name in enumerate(info.channels):
        written = [entry for (_, c), entry in entries.items() if c == channel]
        low, high = min(entry.low for entry in written), max(entry.high for entry in written)
        window = {"min": low, "max": high, "start": low, "end": high}
        channels.append({"label": name, "color": "FFFFFF", "active": True, "window": window})
    return channels


def _sync(file: Path) -> None:
    with file.open("r+b") as stream:
        os.fsync(stream.fileno())
