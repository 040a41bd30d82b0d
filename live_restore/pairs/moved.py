"""Low and high lie apart: which pixels both show, and what high shows there, moved by the shift that was measured.

Receives a high-light image and a shift; hands on the part of it that lies over low. Only high is ever moved: interpolating low
would change the noise that is to be learned. It does not know how the shift was measured.
"""

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from scipy.ndimage import shift as spline_shift

from live_restore.errors import PairError
from live_restore.intensity import Pixels

Window = tuple[slice, ...]

# A cubic spline forgets what lies n pixels away as 0.27**n: 1e-7 after this many.
_SPLINE_REACH = 12
# Shifts below this, in pixels, change nothing worth an interpolation.
_NO_SHIFT = 0.02


def overlap_window(shape: tuple[int, ...], shift_px: Sequence[float] = ()) -> Window:
    """Say which pixels of low, ([Z,] Y, X), the high image shows as well.

    Raises
    ------
    PairError
        If none are left.
    """
    shifts = tuple(shift_px) or (0.0,) * len(shape)
    if len(shifts) != len(shape):
        raise PairError(
            f"the shift {[*shifts]} has {len(shifts)} numbers, the images {len(shape)} axes; give one for each axis"
        )
    shifts = tuple(_exact(shift) for shift in shifts)
    window = tuple(slice(max(0, ceil(-shift)), size - max(0, ceil(shift))) for size, shift in zip(shape, shifts, strict=True))
    if any(part.stop - part.start < 1 for part in window):
        raise PairError(f"low and high lie {[*shifts]} pixels apart, and are only {[*shape]} large: nothing is on both")
    return window


def cut_moved(high: Pixels, window: Window, shift_px: Sequence[float] = ()) -> Pixels:
    """Cut from high what low shows in a window, moved by a cubic spline; only what the spline needs is read.

    Parameters
    ----------
    high : ndarray, ([Z,] Y, X)
        The whole image, or a memory map of it.
    window : tuple of slice
        In pixels of low; within `overlap_window`.
    shift_px : sequence of float, ([z,] y, x)
        What lies at r in low lies at r + shift in high.

    Returns
    -------
    ndarray, of the window's size
        float32 if it was interpolated, the file's own dtype if the shift is in whole pixels.
    """
    shifts = [_exact(shift) for shift in shift_px] or [0.0] * high.ndim
    whole = [floor(shift + 0.5) for shift in shifts]
    rest = [shift - move for shift, move in zip(shifts, whole, strict=True)]
    reach = [_SPLINE_REACH if part else 0 for part in rest]
    starts = [part.start + move for part, move in zip(window, whole, strict=True)]
    stops = [part.stop + move for part, move in zip(window, whole, strict=True)]
    if not any(rest):
        return np.asarray(high[tuple(map(slice, starts, stops))])
    outer = [max(0, start - far) for start, far in zip(starts, reach, strict=True)]
    ends = [min(size, stop + far) for size, stop, far in zip(high.shape, stops, reach, strict=True)]
    piece = np.asarray(high[tuple(map(slice, outer, ends))], np.float32)
    moved = spline_shift(piece, [-part for part in rest], order=3, mode="mirror")
    inner = tuple(slice(a - o, b - o) for a, b, o in zip(starts, stops, outer, strict=True))
    return np.asarray(moved[inner], np.float32)


def _exact(shift: float) -> float:
    """Leave out shifts that are next to none: 4.999 pixels are 5."""
    near = floor(shift + 0.5)
    return float(near) if abs(shift - near) < _NO_SHIFT else float(shift)
