"""The real images of a package: parts of a few pairs, low and high light, that engines are certified with.

Receives parts of pairs, or the bytes of ``real_images.npz`` as they were found in a package of unknown origin; hands on
`RealImages`. It does not know where pairs lie, nor what is measured with them.

The file is a ``.npz`` of plain numbers::

    low_0, high_0, low_1, ...   uint16, ([Z,] Y, X): raw counts, and the same field at high light, up to gain and offset
    read_noise                  float64: of the camera, in counts; NaN where nobody knows
    origin                      uint8: which of `ORIGINS`
"""

import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ModelError
from live_restore.models.package_files import parse_npy

Counts = NDArray[np.uint16]

REAL_IMAGES = "real_images.npz"
# So many images at most, and of each at most this much, ([Z,] Y, X).
MOST_IMAGES = 8
LARGEST = {2: (256, 256), 3: (16, 128, 128)}
# What the images are, in words, for one and for several; the file holds the place in this list.
ORIGINS = {
    "held-out": ("held-out pair", "held-out pairs"),
    "given": ("pair given to certify with", "pairs given to certify with"),
    "made dim": ("held-out image made dim by computation", "held-out images made dim by computation"),
    "rendered": ("rendered image, no photograph", "rendered images, no photographs"),
}

_HEADER_BYTES = 4096
_FILE_LIMIT = 2 * MOST_IMAGES * (2 * math.prod(LARGEST[3]) + _HEADER_BYTES)
_BAD = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, KeyError)


@dataclass(frozen=True, slots=True, eq=False)
class RealImages:
    """A few fields at low and at high light.

    Attributes
    ----------
    low : sequence of ndarray, ([Z,] Y, X), uint16
        Raw counts.
    high : sequence of ndarray, ([Z,] Y, X), uint16
        The same fields, up to gain and offset.
    read_noise : float or None
        Of the camera, in counts; None where nobody knows.
    origin : str
        A key of `ORIGINS`.
    """

    low: Sequence[Counts]
    high: Sequence[Counts]
    read_noise: float | None = None
    origin: str = "held-out"

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(f"there is no origin {self.origin!r}; images are {', '.join(ORIGINS)}")
        if not 1 <= len(self.low) == len(self.high) <= MOST_IMAGES:
            raise ValueError(f"{len(self.low)} low and {len(self.high)} high images; give 1 to {MOST_IMAGES} of each")
        for low, high in zip(self.low, self.high, strict=True):
            _check(low, high)
        if self.read_noise is not None and not 0 < self.read_noise < math.inf:
            raise ValueError(f"a read noise of {self.read_noise} counts cannot be; leave it out where it is not known")

    @property
    def n_dim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return self.low[0].ndim

    @property
    def words(self) -> str:
        """What they are: ``"8 held-out pairs"``."""
        return f"{len(self.low)} {ORIGINS[self.origin][len(self.low) > 1]}"

    def first(self, number: int) -> "RealImages":
        """Take no more than so many, at least one."""
        number = max(1, number)
        return RealImages(self.low[:number], self.high[:number], self.read_noise, self.origin)


def _check(low: NDArray[Any], high: NDArray[Any]) -> None:
    if low.dtype != np.uint16 or high.dtype != np.uint16:
        raise ValueError(f"low is {low.dtype}, high {high.dtype}; both are uint16, raw counts")
    if low.shape != high.shape:
        raise ValueError(f"low has shape {low.shape}, high {high.shape}; both show the same field")
    if low.ndim not in LARGEST or not 1 <= low.size <= math.prod(LARGEST[low.ndim]):
        raise ValueError(f"an image has shape {low.shape}; give ([Z,] Y, X) with at most {LARGEST[2]} or {LARGEST[3]} pixels")


def pack(images: RealImages) -> bytes:
    """Make the content of ``real_images.npz``; the same images give the same bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, (low, high) in enumerate(zip(images.low, images.high, strict=True)):
        arrays |= {f"low_{number}": np.ascontiguousarray(low), f"high_{number}": np.ascontiguousarray(high)}
    arrays["read_noise"] = np.array(math.nan if images.read_noise is None else images.read_noise, np.float64)
    arrays["origin"] = np.array(list(ORIGINS).index(images.origin), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def unpack(content: bytes, label: str) -> RealImages:
    """Read the content of ``real_images.npz``, as hostile as it may be.

    Parameters
    ----------
    content : bytes
    label : str
        What to call it in errors.

    Raises
    ------
    ModelError
        If it is no such file, holds anything else, or more than there may be; nothing larger is ever unpacked.
    """
    try:
        if len(content) > _FILE_LIMIT:
            raise ValueError(f"{len(content)} bytes, more than the {_FILE_LIMIT} that so few images take")
        arrays = _arrays(content, label)
        number = sum(name.startswith("low_") for name in arrays)
        expected = {f"{side}_{place}" for side in ("low", "high") for place in range(number)} | {"read_noise", "origin"}
        if arrays.keys() != expected:
            raise ValueError(f"it holds {', '.join(sorted(arrays)[:4])}, ...")
        read_noise, origin = float(arrays["read_noise"]), int(arrays["origin"])
        if not 0 <= origin < len(ORIGINS):
            raise ValueError(f"origin is {origin}")
        low, high = ([_native(arrays[f"{side}_{place}"]) for place in range(number)] for side in ("low", "high"))
        return RealImages(low, high, None if math.isnan(read_noise) else read_noise, list(ORIGINS)[origin])
    except (ModelError, TypeError, *_BAD) as error:
        raise ModelError(
            f"{label} holds no images to certify with ({error}); remove it, or make it anew: "
            "live-restore certify PACKAGE --pairs FOLDER --overwrite"
        ) from error


def _arrays(content: bytes, label: str) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if len(members) > 2 * MOST_IMAGES + 2:
            raise ValueError(f"{len(members)} entries")
        return {member.filename.removesuffix(".npy"): _array(archive, member, label) for member in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, label: str) -> NDArray[Any]:
    limit = 2 * math.prod(LARGEST[3]) + _HEADER_BYTES
    with archive.open(member) as file:
        content = file.read(limit + 1)  # what the archive says of its sizes may be a lie
    if len(content) > limit:
        raise ValueError(f"'{member.filename[:40]}' has more than {limit} bytes")
    return parse_npy(content, f"{label}/{member.filename[:40]}")


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Bring uint16 of the other byte order into this machine's."""
    return np.ascontiguousarray(array, np.uint16) if array.dtype.newbyteorder("=") == np.uint16 else array
