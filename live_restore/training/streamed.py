"""Whole images on the disk, cut from as if they were in memory: `StreamedImages`.

Receives paths; hands on arrays to cut from. Uncompressed files are mapped, so that only the pixels of a patch are read and the
operating system remembers them; others are decoded, and the newest of them kept, up to a limit. It does not know what is cut.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from live_restore.records.pairs import read_volume
from live_restore.records.tifffile_log import silenced

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in its file an uncompressed image lies."""

    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]


class StreamedImages:
    """Images that are read when they are needed, from any thread.

    Parameters
    ----------
    memory_bytes : int
        For decoded images. One image is held even if it is larger than that.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._places: dict[Path, _Place | None] = {}
        self._sizes: dict[Path, int] = {}
        self._decoded: OrderedDict[Path, Pixels] = OrderedDict()
        self._lock = Lock()

    def read(self, path: Path) -> Pixels:
        """Read a whole image, ([Z,] Y, X), and remember how it can be cut from.

        Raises
        ------
        PairError
            If it cannot be read.
        """
        pixels = read_volume(path)
        self._sizes[path], self._places[path] = pixels.nbytes, _find_place(path, pixels)
        return pixels

    def open(self, path: Path) -> Pixels:
        """Give an image to cut from, ([Z,] Y, X): to be copied from, not to be kept nor written to.

        Raises
        ------
        PairError
            If it cannot be read any more.
        """
        if path not in self._places:
            self.read(path)
        place = self._places[path]
        if place is not None:
            # opened anew for every cut (60 µs): thousands of images would otherwise need thousands of open files
            return np.asarray(np.memmap(path, place.dtype, "r", place.offset, place.shape))
        return self._decode(path)

    @property
    def held_bytes(self) -> int:
        """Memory that decoded images take."""
        return sum(pixels.nbytes for pixels in self._decoded.values())

    def _decode(self, path: Path) -> Pixels:
        with self._lock:
            if path not in self._decoded:
                # room is made first: the limit holds also while the new one is decoded
                self._make_room(self._sizes[path])
                self._decoded[path] = read_volume(path)
            self._decoded.move_to_end(path)
            return self._decoded[path]

    def _make_room(self, wanted: int) -> None:
        while self._decoded and self.held_bytes + wanted > self._memory_bytes:
            self._decoded.popitem(last=False)


def _find_place(path: Path, pixels: Pixels) -> _Place | None:
    """Say where the pixels lie, if they lie there plainly; None of compressed, tiled and scattered ones."""
    try:
        with silenced(), tifffile.TiffFile(path) as file:
            series = file.series[0]
            offset, dtype = series.dataoffset, series.dtype
            plain = series.keyframe.is_memmappable
        if offset is None or not plain or dtype.newbyteorder("=") != pixels.dtype or not pixels.size:
            return None
        place = _Place(np.dtype(file.byteorder + dtype.char), int(offset), pixels.shape)
        mapped = np.memmap(path, place.dtype, "r", place.offset, place.shape)
    except (tifffile.TiffFileError, OSError, ValueError, AttributeError, IndexError):
        return None
    # the reader knows dialects of TIFF that a plain map does not
    return place if np.array_equal(mapped, pixels, equal_nan=pixels.dtype.kind == "f") else None
