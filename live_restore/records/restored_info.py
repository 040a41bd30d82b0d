"""The nouns of a restored file: what will be written, and the store that takes its planes.

They know neither a format nor a journal.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.records.images import PARTIAL
from live_restore.records.restored_journal import Entry

Pixels = NDArray[np.integer[Any] | np.floating[Any]]

# Under this name a file keeps what made it.
NAMESPACE = "live_restore"
_ZARR_SUFFIX = ".zarr"
_SUFFIXES = (".tif", ".tiff", _ZARR_SUFFIX)
_DTYPES = (np.dtype(np.float32), np.dtype(np.uint16))


@dataclass(frozen=True, slots=True, eq=False)
class RestoredInfo:
    """What will be written.

    Attributes
    ----------
    path : Path
        ``.tif`` or ``.tiff``, also with ``.ome`` before it, gives OME-TIFF; ``.zarr`` gives OME-Zarr 0.5.
    times, planes, height, width : int
        Sizes of T, Z, Y and X.
    channels : tuple of str
        Names along C, printable and all different.
    dtype : dtype
        float32, or uint16 for rounded and clipped counts.
    pixel_size_um : tuple of float or None
        (z, y, x); None where unknown.
    frame_interval_s : float or None
        Seconds from one time point to the next.
    provenance : mapping
        What made the pixels, JSON; kept inside the file. The same job must give the same provenance, for it also tells
        whether a partial file belongs to this job: no clock times.
    """

    path: Path
    times: int
    channels: tuple[str, ...]
    planes: int
    height: int
    width: int
    dtype: np.dtype[Any]
    pixel_size_um: tuple[float | None, float | None, float | None]
    frame_interval_s: float | None
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.path.name.lower().endswith(_SUFFIXES):
            raise ImageError(f"cannot write '{self.path.name}': the name must end in .ome.tif, .tif or .ome.zarr")
        if np.dtype(self.dtype) not in _DTYPES:
            raise ValueError(f"restored pixels are float32 or uint16, not {self.dtype}")
        if min(self.shape) < 1:
            raise ValueError(f"shape (T, C, Z, Y, X) {self.shape} has an empty axis")
        if len(set(self.channels)) < len(self.channels) or not all(name and name.isprintable() for name in self.channels):
            raise ValueError(f"channel names {self.channels} must be printable and all different")

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(T, C, Z, Y, X)."""
        return self.times, len(self.channels), self.planes, self.height, self.width

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def is_zarr(self) -> bool:
        """Whether it becomes an OME-Zarr group, which is a folder."""
        return self.path.name.lower().endswith(_ZARR_SUFFIX)

    @property
    def partial(self) -> Path:
        """Where it is while it is being written."""
        kind = ".ome.zarr" if self.is_zarr else ".ome.tif"
        return self.path.with_name(f"{self.path.name}{PARTIAL}{kind}")

    @property
    def journal(self) -> Path:
        """Where it is noted meanwhile what is safely on disk."""
        return self.path.with_name(f"{self.path.name}{PARTIAL}.jsonl")


class Store(Protocol):
    """An image on disk whose planes are filled by place; one per format."""

    def put(self, time: int, channel: int, planes: Iterator[Pixels]) -> None:
        """Write the planes of one volume, (Y, X) each, z after z, and see them safely to disk."""

    def complete(self, entries: Mapping[tuple[int, int], Entry]) -> None:
        """Add what is only known when all is written; then the image is only renamed."""

    def close(self) -> None:
        """Give files back; a second time is fine."""
