"""The network's own gain and offset: one straight line from restored to measured electrons, found without truth.

Receives sums over blocks of pixels of both images; hands on a slope and an offset. A restored image is only defined up to
those, and they say nothing about structure. It does not know windows or thresholds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Pixels along each side of a block: its mean is nearly normal even where a pixel holds less than an electron.
BLOCK = 4
# Blocks that deviate by more standard deviations than this count less and less (Huber).
_HUBER_SD = 2.0
_TURNS = 3
# Many more blocks than this say nothing more about a line.
MOST_BLOCKS = 7_000
_TO_BEGIN_WITH = 500
# How far a slope may be from 1 before anything is measured: matters only for images without contrast.
_PRIOR_SLOPE_SD = 0.5


class Line(NamedTuple):
    """Electrons measured on average for a restored value, ``slope * restored + offset``; the offset in electrons."""

    slope: float
    offset: float


def block_means(image: FloatArray) -> FloatArray:
    """Mean over blocks of 4 x 4 pixels, (Y, X) to (Y // 4, X // 4); incomplete ones at the far edges are left out."""
    height, width = (side // BLOCK * BLOCK for side in image.shape)
    rows = image[:height:4, :width] + image[1:height:4, :width]  # (Y / 4, X)
    rows += image[2:height:4, :width]
    rows += image[3:height:4, :width]
    means = rows[:, ::4] + rows[:, 1::4]  # (Y / 4, X / 4)
    means += rows[:, 2::4]
    means += rows[:, 3::4]
    means /= BLOCK * BLOCK
    return means


def fit_line(measured: FloatArray, restored: FloatArray, variance_e2: float, pixels: int = BLOCK * BLOCK) -> Line:
    """Fit measured electrons by restored ones, robustly, each block weighted by the inverse of its noise.

    Measured on restored, not the other way round: a network that gives the mean of what a noisy pixel may have been
    lies on a line of slope 1 this way.

    Parameters
    ----------
    measured, restored : ndarray, (N,), float32
        Means of blocks, electrons.
    variance_e2 : float
        Variance of a pixel without light.
    pixels : int
        In a block.
    """
    if measured.size == 0:
        return Line(1.0, 0.0)
    x, y = restored.astype(np.float64), measured.astype(np.float64)
    line = Line(1.0, float(np.median((y - x)[:: 1 + x.size // _TO_BEGIN_WITH])))
    for _ in range(_TURNS):
        expected = line.slope * x + line.offset
        variance = (np.maximum(expected, 0) + max(variance_e2, 1e-3)) / pixels
        deviation = np.abs(y - expected) / np.sqrt(variance)
        weights = np.minimum(1, _HUBER_SD / np.maximum(deviation, 1e-9)) / variance
        line = _weighted_line(x, y, weights)
    return line


def _weighted_line(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> Line:
    # plain sums: for so few numbers the threads of a BLAS cost more than they bring
    total = weights.sum()
    x_mean, y_mean = (weights * x).sum() / total, (weights * y).sum() / total
    away = x - x_mean
    weighted = weights * away
    prior = 1 / _PRIOR_SLOPE_SD**2
    slope = ((weighted * (y - y_mean)).sum() + prior) / ((weighted * away).sum() + prior)
    slope = max(0.0, float(slope))
    return Line(slope, float(y_mean - slope * x_mean))
