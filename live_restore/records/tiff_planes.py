"""The planes of a TIFF file: where each lies, whether the file holds it, how it is read.

Receives a series of pages; hands on planes by number. It does not know which plane is which.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from live_restore.errors import ImageError


class Planes(Protocol):
    """Planes by number, in the order in which the file's axes count them.

    Attributes
    ----------
    count : int
        No more planes than this can be there, whatever the description promises.
    """

    count: int

    def holds(self, number: int) -> bool:
        """Whether all bytes of a plane lie within the file."""

    def read_into(self, number: int, plane: NDArray[Any]) -> None:
        """Read a plane into an array, (Y, X)."""


def open_planes(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Planes:
    """Find the planes of a series.

    Raises
    ------
    ImageError
        If pages are not planes.
    """
    shape = series.get_shape(squeeze=True)[-2:]
    if series.dataoffset is not None and not series.is_multifile:
        return _PlanesInARow(tif, series.dataoffset, series.dtype.newbyteorder(tif.byteorder), shape)
    if series.keyframe.shape != shape:
        raise ImageError(
            f"{path} stores pages of shape {series.keyframe.shape} instead of planes {shape}; save it again, one page per plane"
        )
    return _PlanesInPages(series)


class _PlanesInARow:
    """Uncompressed planes without gaps; ImageJ and tifffile write only one page entry for a long stack of them."""

    def __init__(self, tif: tifffile.TiffFile, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._file, self._offset, self._dtype = tif.filehandle, offset, dtype
        self._bytes = dtype.itemsize * shape[0] * shape[1]
        self.count = int(max(0, tif.filehandle.size - offset) // self._bytes)

    def holds(self, number: int) -> bool:
        return number < self.count

    def read_into(self, number: int, plane: NDArray[Any]) -> None:
        self._file.read_array(self._dtype, plane.size, self._offset + number * self._bytes, out=plane)


class _PlanesInPages:
    """One page per plane, perhaps compressed, perhaps in several files."""

    def __init__(self, series: tifffile.TiffPageSeries) -> None:
        self._series = series
        self.count = len(series)

    def holds(self, number: int) -> bool:
        try:
            page = self._series[number]
        except IndexError:
            return False
        return page is not None and _has_data(page)

    def read_into(self, number: int, plane: NDArray[Any]) -> None:
        page = self._series[number]
        assert page is not None  # those are what `holds` refuses
        file = page.parent.filehandle
        lent = file.closed  # other files of a set are opened for one plane only: a set may have thousands
        if lent:
            file.open()
        try:
            plane[:] = page.asarray()
        finally:
            if lent:
                file.close()


def _has_data(page: "tifffile.TiffPage | tifffile.TiffFrame") -> bool:
    size = page.parent.filehandle.size
    # a segment of no bytes would be read as zeros
    return bool(page.databytecounts) and all(
        count > 0 and offset + count <= size for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    )
