"""A restored image as OME-TIFF: laid out in full at once, then filled plane by plane.

Receives planes and their places; hands on a file that ImageJ, Bio-Formats and tifffile read. Pixels are uncompressed,
so every plane has its place before any is known, and a file larger than 4 GB becomes BigTIFF. It does not know which
planes are missing.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import tifffile

from live_restore import __version__
from live_restore.errors import ImageError
from live_restore.records.names import stem
from live_restore.records.restored_info import NAMESPACE, Pixels, RestoredInfo
from live_restore.records.restored_journal import Entry, volumes_said
from live_restore.records.tifffile_log import silenced

# Classic TIFF counts bytes in 32 bits; some room is left for the entry of every page.
_CLASSIC_BYTES = 4_000_000_000
_PAGE_BYTES = 400
_UM_PER_CM = 1e4
# Where the map of what a file says of itself ends; ours is the only one in it.
_SAID_END = "</Value></MapAnnotation>"


class TiffStore:
    """The partial file of a restored OME-TIFF; see `live_restore.records.restored_info.Store`.

    Parameters
    ----------
    info : RestoredInfo
    new : bool
        Lay the file out, or else open what an interrupted run left.
    """

    def __init__(self, info: RestoredInfo, *, new: bool) -> None:
        if new:
            _lay_out(info)
        if not new:
            _check_whole(info)
        self._partial = info.partial
        self._begin = _first_pixel(info.partial)
        self._shape = info.shape
        self._dtype = np.dtype(info.dtype).newbyteorder("<")
        self._file = info.partial.open("r+b")

    def put(self, time: int, channel: int, planes: Iterator[Pixels]) -> None:
        """Write the planes of one volume."""
        _, channels, zs, height, width = self._shape
        plane_bytes = height * width * self._dtype.itemsize
        self._file.seek(self._begin + (time * channels + channel) * zs * plane_bytes)
        for plane in planes:
            self._file.write(np.ascontiguousarray(plane, self._dtype).data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def complete(self, entries: Mapping[tuple[int, int], Entry]) -> None:
        """Add what was said of each volume; the rest was said when the file was laid out."""
        volumes = volumes_said(entries)
        if not volumes:
            return
        with silenced(), tifffile.TiffFile(self._partial) as tif:
            xml = str(tif.ome_metadata)
        if '<M K="volumes">' in xml:  # an earlier attempt to finish came this far
            return
        said = escape(json.dumps(volumes), {'"': "&quot;"})
        xml = xml.replace(_SAID_END, f'<M K="volumes">{said}</M>{_SAID_END}', 1)
        tifffile.tiffcomment(self._partial, xml.encode())
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _check_whole(info: RestoredInfo) -> None:
    """Refuse to go on with a file that is shorter than its pixels."""
    if info.partial.stat().st_size < info.nbytes:
        raise ImageError(
            f"{info.partial} is damaged: it has {info.partial.stat().st_size} bytes, its pixels alone {info.nbytes}; "
            "delete it and run the same command again"
        )


def _first_pixel(partial: Path) -> int:
    try:
        with silenced(), tifffile.TiffFile(partial) as tif:
            return int(tif.pages.first.dataoffsets[0])
    except (ValueError, IndexError, tifffile.TiffFileError) as error:
        raise ImageError(f"{partial} is damaged: {error}; delete it and run the same command again") from error


def read_said(path: Path) -> dict[str, Any]:
    """Read the provenance of a restored OME-TIFF; empty if there is none."""
    try:
        with silenced(), tifffile.TiffFile(path) as tif:
            root = ElementTree.fromstring(tif.ome_metadata or "<OME/>")
        ours = [a for a in root.iter() if a.tag.endswith("MapAnnotation") and a.get("Namespace") == NAMESPACE]
        return {m.get("K", ""): json.loads(m.text or "") for a in ours for m in a.iter() if m.tag.endswith("}M")}
    except (OSError, ValueError, tifffile.TiffFileError, ElementTree.ParseError):
        return {}


def _lay_out(info: RestoredInfo) -> None:
    planes = info.times * len(info.channels) * info.planes
    big = info.nbytes + planes * _PAGE_BYTES > _CLASSIC_BYTES
    with tifffile.TiffWriter(info.partial, bigtiff=big, byteorder="<", ome=True) as tif:
        tif.write(
            None,
            shape=info.shape,
            dtype=info.dtype,
            photometric="minisblack",
            metadata=_ome(info),
            resolution=_resolution(info),
            resolutionunit="CENTIMETER" if None not in info.pixel_size_um[1:] else "NONE",
        )


def _ome(info: RestoredInfo) -> dict[str, Any]:
    """OME-XML in the words of tifffile."""
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", info.pixel_size_um, strict=True) if size is not None}
    units = {f"{key}Unit": "µm" for key in sizes}
    interval = {"TimeIncrement": info.frame_interval_s, "TimeIncrementUnit": "s"} if info.frame_interval_s else {}
    said = {key: json.dumps(value) for key, value in info.provenance.items()}
    return {
        "axes": "TCZYX",
        "Name": "".join(c if c.isprintable() else "_" for c in stem(info.path)),
        "Creator": f"live_restore {__version__}",
        "Channel": {"Name": list(info.channels)},
        **sizes,
        **units,
        **interval,
        "MapAnnotation": {"Namespace": NAMESPACE, "Value": said},
    }


def _resolution(info: RestoredInfo) -> tuple[float, float]:
    """Pixels per centimetre along X and Y, for readers that know no OME-XML."""
    _, y, x = info.pixel_size_um
    return (_UM_PER_CM / x, _UM_PER_CM / y) if x and y else (1.0, 1.0)
