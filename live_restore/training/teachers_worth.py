"""What a teacher is worth beside the truth: whether plain filters of the low image know something that it does not.

Receives low images, the teacher's images and high ones; hands on the weight of the teacher in what a student learns. It does
not know networks.

The high image is approximated by a sum of the teacher's image and Gaussian-filtered low images, by least squares. If that comes
no nearer than the teacher's image alone, the teacher has found what there is to be found, and is the better target: it has no
noise of its own. If it comes much nearer, the teacher errs in ways that a student would copy (one that was trained on other
structures, or at other light), and the truth alone should be learned.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from live_restore.intensity import Pixels

DoubleArray = NDArray[np.float64]

# Widths of the filters in Y and X, pixels.
_SIGMAS_PX = (1.0, 2.0, 4.0)
# What filters may add to the teacher, dB: up to the first it has its full weight, from the second on none.
_LITTLE_DB, _MUCH_DB = 0.1, 0.5
# A teacher that leaves less than this part of the truth's variance is perfect.
_NOTHING_LEFT = 1e-9
# Of each image the middle is looked at, at most this much of Y and X, and of Z.
_MIDDLE_PX, _MIDDLE_PLANES = 256, 8


def filters_gain_db(low: Pixels, taught: Pixels, high: Pixels) -> float:
    """Say how much nearer to the high image filters of the low one bring the teacher's.

    Parameters
    ----------
    low, taught, high : ndarray, ([Z,] Y, X)

    Returns
    -------
    float
        dB, at least 0.
    """
    middle = tuple(
        slice((side - most) // 2, (side + most) // 2) if (most := _most(axis, low.ndim)) < side else slice(None)
        for axis, side in enumerate(low.shape)
    )
    sigmas = [(0.0,) * (low.ndim - 2) + (sigma, sigma) for sigma in _SIGMAS_PX]
    low_, truth = np.asarray(low[middle], np.float64), np.asarray(high[middle], np.float64).ravel()
    columns = [np.ones(truth.size), np.asarray(taught[middle], np.float64).ravel()]
    columns += [gaussian_filter(low_, sigma).ravel() for sigma in sigmas]
    alone, together = _left(columns[:2], truth), _left(columns, truth)
    if alone <= _NOTHING_LEFT * float(np.var(truth)):
        return 0.0
    return max(0.0, 10 * float(np.log10(alone / max(together, np.finfo(np.float64).tiny))))


def _most(axis: int, ndim: int) -> int:
    return _MIDDLE_PX if axis >= ndim - 2 else _MIDDLE_PLANES


def _left(columns: list[DoubleArray], truth: DoubleArray) -> float:
    """Mean square of what a sum of the columns leaves of the truth."""
    table = np.stack(columns, 1)
    scale = np.maximum(np.abs(table).max(0), np.finfo(np.float64).tiny)  # counts beside ones: keep it well conditioned
    found, *_ = np.linalg.lstsq(table / scale, truth, rcond=None)
    return float(np.mean((table / scale @ found - truth) ** 2))


def weigh(gains_db: Iterable[float], full: float) -> float:
    """Give the teacher's weight, by what filters add to it on several images.

    >>> weigh([0.02, 0.04], 1.0), weigh([0.3], 1.0), weigh([3.9], 1.0)
    (1.0, 0.5, 0.0)
    """
    gain = float(np.mean(list(gains_db)))
    return round(full * min(1.0, max(0.0, (_MUCH_DB - gain) / (_MUCH_DB - _LITTLE_DB))), 3)
