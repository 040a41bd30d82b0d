"""The real crops: those parts of a few pairs that a package carries, so that engines can be certified wherever it goes.

Receives pairs and perhaps the camera's noise; hands on `RealImages`. It judges nothing.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.models.real_images import LARGEST, MOST_IMAGES, RealImages
from live_restore.pairs.moved import cut_moved, overlap_window
from live_restore.records.pairs import Pair
from live_restore.restore.noise import CameraNoise

# Stacks take longer, and a few tell as much.
_NUMBER = {2: MOST_IMAGES, 3: 4}
# Along each axis so many places are looked at for the part of most contrast.
_PLACES = 3
# Real numbers that span fewer counts than this are no counts, and would not survive rounding.
_LEAST_SPAN = 50.0
_LARGEST_COUNT = 65535


def real_crops(
    pairs: Sequence[Pair], n_dim: int, origin: str = "held-out", camera: CameraNoise | None = None
) -> RealImages | None:
    """Cut the part of most contrast out of a few pairs, spread evenly.

    Parameters
    ----------
    pairs : sequence of Pair
        Whoever calls has chosen held-out ones.
    n_dim : {2, 3}
        Spatial axes of the network; of a stack a 2D network gets the middle plane.
    origin : str
        What they are, see `live_restore.models.real_images.ORIGINS`.
    camera : CameraNoise or None

    Returns
    -------
    RealImages or None
        None if no pair is fit for it: no camera counts, flat, or single planes for a 3D network.

    Raises
    ------
    PairError
        If a pair cannot be read, or its images do not overlap.
    """
    number = min(_NUMBER[n_dim], len(pairs))
    chosen = [pairs[place * len(pairs) // number] for place in range(number)]
    crops = [crop for crop in (_crop(pair, n_dim) for pair in chosen) if crop is not None]
    if not crops:
        return None
    return RealImages([low for low, _ in crops], [high for _, high in crops], _read_noise(camera), origin)


def _crop(pair: Pair, n_dim: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]] | None:
    low, high = pair.read()
    if low.shape != high.shape or low.ndim < n_dim:
        return None
    kept = overlap_window(low.shape, pair.shift_px[-low.ndim :])
    low, high = low[kept], cut_moved(high, kept, pair.shift_px[-low.ndim :])
    if low.ndim > n_dim:
        low, high = low[len(low) // 2], high[len(high) // 2]
    window = _most_contrast(high, LARGEST[n_dim])
    return _both(low[window], high[window])


def _most_contrast(high: NDArray[Any], largest: Sequence[int]) -> tuple[slice, ...]:
    """Find the window of this size, or the whole image where it is smaller, in which the image differs most."""
    sizes = [min(side, most) for side, most in zip(high.shape, largest, strict=True)]
    starts = [
        sorted({place * (side - size) // (_PLACES - 1) for place in range(_PLACES)})
        for side, size in zip(high.shape, sizes, strict=True)
    ]
    windows = [
        tuple(slice(start, start + size) for start, size in zip(corner, sizes, strict=True)) for corner in product(*starts)
    ]
    return max(windows, key=lambda window: float(np.std(high[window], dtype=np.float64)))


def _both(low: NDArray[Any], high: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]] | None:
    if not np.isfinite(low).all() or not np.isfinite(high).all() or high.min() == high.max():
        return None
    if low.dtype.kind == "f" and float(low.max()) - float(low.min()) < _LEAST_SPAN:
        return None
    counts = np.clip(np.rint(low.astype(np.float64)), 0, _LARGEST_COUNT).astype(np.uint16)
    if high.dtype in (np.uint8, np.uint16):
        return counts, high.astype(np.uint16)
    # real numbers keep their digits: the truth is known only up to gain and offset anyway
    scaled = (high - np.float64(high.min())) / (np.float64(high.max()) - np.float64(high.min()))
    return counts, np.rint(scaled * _LARGEST_COUNT).astype(np.uint16)


def _read_noise(camera: CameraNoise | None) -> float | None:
    if camera is None:
        return None
    counts = float(np.median(np.asarray(camera.read_noise_e) * np.asarray(camera.gain_adu_per_e)))
    return counts if counts > 0 else None
