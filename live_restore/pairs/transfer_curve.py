"""The photon transfer curve: how the variance of camera counts rises with their mean, in cells of like brightness.

Receives images whose noise is known but for the camera's gain and read noise, as an excess of counts beyond the offset and a
deviation; hands on the straight line ``variance = gain * excess + floor``, a first one that is refined in
`live_restore.pairs.transfer_sums`. It does not know where the images came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

DoubleArray = NDArray[np.float64]

# What is smooth over so many pixels is no noise: the mean over this window is taken off.
WINDOW = 5
# Pixels that deviate by more are hot, or something passed: standard deviations in the dark, and of their own brightness. Of
# good cameras one pixel in seven has much read noise, which is part of it: to cut that off in the dark would bend the line.
HOT_DARK_SD, HOT_SD = 40.0, 6.0
# Places whose mean deviates by more of its own standard deviations are where the expectation is wrong.
ASTRAY_SD = 4.0
_LEVELS, _STEEPNESSES = 24, 4
_LEAST_PER_CELL = 60
_TURNS = 6
# Motion beyond this would have been seen otherwise.
_MOST_MOVED_PX2 = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Deviation:
    """Counts against what was expected of them, (Y, X) each.

    Attributes
    ----------
    values : ndarray, float64
        Measured minus expected, divided by the root of the number of exposures whose noise it has, counts.
    excess : ndarray, float64
        What the variance of `values` is the gain times, besides the floor; counts.
    steepness : ndarray, float64
        By how much the variance grows if the specimen moved by a pixel, counts squared.
    usable : ndarray, bool
    offset_share : float
        How often the offset is in `excess`, which is to be taken off.
    """

    values: DoubleArray
    excess: DoubleArray
    steepness: DoubleArray
    usable: NDArray[np.bool_]
    offset_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Pixels of like brightness, (N,) each.

    Attributes
    ----------
    excess, steepness : ndarray
        Means; the offset is still in the excess, `offset_share` times.
    variance, fourth : ndarray
        Second and fourth moment of the deviations.
    pixels, offset_share : ndarray
    """

    excess: DoubleArray
    steepness: DoubleArray
    variance: DoubleArray
    fourth: DoubleArray
    pixels: DoubleArray
    offset_share: DoubleArray

    @property
    def tails(self) -> float:
        """By how much the fourth moment exceeds a normal distribution's: pixels do not all have the same read noise."""
        beyond = self.fourth - 3 * np.square(self.variance)
        return max(0.0, float(np.average(beyond, weights=self.pixels)))


@dataclass(frozen=True, slots=True, eq=False)
class TransferLine:
    """``variance = gain * excess + floor + moved_px2 * steepness``, counts.

    Attributes
    ----------
    gain, floor : float
    covariance : ndarray, (2, 2)
        Of gain and floor.
    moved_px2 : float
        How far the specimen moved within a pair, mean square, pixels; 0 where nothing told.
    """

    gain: float
    floor: float
    covariance: DoubleArray
    moved_px2: float = 0.0

    def variance(self, excess: DoubleArray) -> DoubleArray:
        """Give what is expected without motion."""
        return np.maximum(self.gain * excess + self.floor, 0.3)


def without_smooth(values: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Take off what is smooth, keeping the variance of white noise; gives that as well."""
    smooth = uniform_filter(values, WINDOW)
    return (values - smooth) / np.sqrt(1 - 1 / WINDOW**2), smooth


def excess_without_smooth(excess: DoubleArray) -> DoubleArray:
    """Give the excess that belongs to the variance after `without_smooth`.

    The mean over the window takes 2 parts in 25 of a pixel's own noise, and gives 1 part of its neighbours'.
    """
    share = 1 / WINDOW**2
    return np.asarray(((1 - 2 * share) * excess + share * uniform_filter(excess, WINDOW)) / (1 - share))


def gather(deviation: Deviation) -> Cells | None:
    """Sort the pixels of an image into cells of like brightness and steepness; None of too few."""
    values, smooth = without_smooth(deviation.values)
    level = uniform_filter(deviation.excess, 3)  # less noisy, to tell bright from dark
    usable = deviation.usable & _unbiased(level, values, smooth)
    kept = np.flatnonzero(usable)
    if kept.size < 4 * _LEAST_PER_CELL:
        return None
    excess = excess_without_smooth(deviation.excess)
    level, steepness, excess, values = (part.reshape(-1)[kept] for part in (level, deviation.steepness, excess, values))
    return _cells(level, steepness, excess, values, deviation.offset_share)


def _unbiased(level: DoubleArray, values: DoubleArray, smooth: DoubleArray) -> NDArray[np.bool_]:
    """Where the expectation is right, as far as the noise lets one see."""
    limit, flat = np.empty(values.size), values.reshape(-1)
    for part in np.array_split(np.argsort(level, axis=None), _LEVELS):
        limit[part] = ASTRAY_SD * robust_sd(flat[part]) / WINDOW
    right: NDArray[np.bool_] = np.abs(smooth) < limit.reshape(values.shape)
    return right


def robust_sd(values: DoubleArray) -> float:
    """Estimate the standard deviation of mostly normal whole counts about zero."""
    return 1.4826 * float(np.median(np.abs(values))) + 0.3 if values.size else 1.0


def _cells(
    level: DoubleArray, steepness: DoubleArray, excess: DoubleArray, values: DoubleArray, offset_share: float
) -> Cells | None:
    low, high = np.percentile(level, (0.1, 99.9))
    # steps of equal width in the square root: shot noise is resolved alike in the dark and in the light
    place = np.clip(np.sqrt(np.clip((level - low) / max(high - low, 1e-9), 0, 1)) * _LEVELS, 0, _LEVELS - 1).astype(np.intp)
    dark = robust_sd(values[level <= np.percentile(level, 5)])
    rows = []
    order = np.lexsort((steepness, place))
    edges = np.searchsorted(place[order], np.arange(_LEVELS + 1))
    for begin, end in pairwise(edges):
        for group in np.array_split(order[begin:end], min(_STEEPNESSES, max(1, (end - begin) // _LEAST_PER_CELL))):
            kept = group[np.abs(values[group]) < HOT_DARK_SD * dark + HOT_SD * robust_sd(values[group])]
            if kept.size >= _LEAST_PER_CELL:
                squares = np.square(values[kept])
                means = (excess[kept].mean(), steepness[kept].mean(), squares.mean(), np.square(squares).mean())
                rows.append((*means, kept.size, offset_share))
    return Cells(*np.array(rows, np.float64).T) if rows else None


def joined(cells: Sequence[Cells]) -> Cells:
    """Put the cells of several images together."""
    names = ("excess", "steepness", "variance", "fourth", "pixels", "offset_share")
    return Cells(*(np.concatenate([getattr(each, name) for each in cells]) for name in names))


def first_line(cells: Cells, offset: float) -> TransferLine | None:
    """Fit the straight line to cells; None where the brightness does not vary.

    Weights come from the line itself: a cell's own scatter would give those the most weight that are too low by chance.
    """
    excess = cells.excess - offset * cells.offset_share
    if excess.size < 4 or not np.ptp(excess) > 0:
        return None
    plain = _solve(cells, np.stack([excess, np.ones_like(excess)], axis=1))
    moving = _solve(cells, np.stack([excess, np.ones_like(excess), cells.steepness], axis=1))
    if moving is not None:
        (gain, floor, moved), covariance = moving
        # motion is believed where the steep pixels scatter more than the flat ones
        if 2 * np.sqrt(covariance[2, 2]) < moved < _MOST_MOVED_PX2 and gain > 0:
            return TransferLine(float(gain), float(floor), covariance[:2, :2], float(moved))
    return None if plain is None else TransferLine(float(plain[0][0]), float(plain[0][1]), plain[1])


def _solve(cells: Cells, design: DoubleArray) -> tuple[DoubleArray, DoubleArray] | None:
    """Weighted least squares of the cells' variances on the columns of the design, (N, 2) or (N, 3)."""
    scales = np.abs(design).max(axis=0)
    if not np.all(scales > 0):
        return None
    scaled: DoubleArray = design / scales
    predicted = np.maximum(cells.variance, 0.1)
    solution: DoubleArray = np.zeros(scaled.shape[1])
    inverse: DoubleArray = np.zeros((scaled.shape[1], scaled.shape[1]))
    for _ in range(_TURNS):
        weights = cells.pixels / (2 * np.square(predicted) + cells.tails)
        normal: DoubleArray = scaled.T @ (weights[:, None] * scaled)
        if np.linalg.cond(normal) > 1e12:
            return None
        inverse = np.asarray(np.linalg.inv(normal), np.float64)
        solution = inverse @ (scaled.T @ (weights * cells.variance))
        predicted = np.maximum(scaled @ solution, 0.1 * cells.variance + 1e-3)
    chi2 = float(np.sum(weights * np.square(cells.variance - scaled @ solution))) / max(1, cells.pixels.size - scaled.shape[1])
    return solution / scales, inverse * max(1.0, chi2) / np.outer(scales, scales)
