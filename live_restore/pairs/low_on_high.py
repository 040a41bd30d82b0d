"""The straight line from high-light counts to low-light ones, of one field.

Receives both stacks; hands on the line and how well it is known. It does not know cameras.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import PairError
from live_restore.pairs.camera_estimate import Measured

DoubleArray = NDArray[np.float64]

# Means over blocks of this side are nearly free of noise; a last, incomplete block is left out.
_BLOCK = 8
_TURNS = 5
_HUBER_SD = 2.5
_LEAST_BLOCKS = 12


@dataclass(frozen=True, slots=True, eq=False)
class LowOnHigh:
    """``low = slope * high + offset``, counts.

    Attributes
    ----------
    slope, offset : float
    covariance : ndarray, (2, 2)
        Of the two.
    """

    slope: float
    offset: float
    covariance: DoubleArray

    def fixed_point(self) -> Measured:
        """Where low and high are the same: the counts without light."""
        away = 1 - self.slope
        value = self.offset / away
        by = np.array([value, 1.0]) / away
        return Measured(value, float(np.sqrt(by @ self.covariance @ by)))


def fit_low_on_high(low: DoubleArray, high: DoubleArray, name: str) -> LowOnHigh:
    """Fit low by high, each block weighted by the inverse of its noise.

    Parameters
    ----------
    low, high : ndarray, (Z, Y, X), float64
    name : str
        What errors call the field.

    Raises
    ------
    PairError
        If low does not rise with high, or rises more.
    """
    x, y = block_means(high), block_means(low)
    if x.size < _LEAST_BLOCKS or not np.ptp(x) > 0:
        raise PairError(f"'{name}' is too small or too flat to lay its low-light image on the other; give larger images")
    weights = np.ones_like(x)
    for _ in range(_TURNS):
        slope, offset, covariance = _weighted(x, y, weights)
        expected = slope * x + offset
        variance = _variance(expected, y - expected)
        deviation = np.abs(y - expected) / np.sqrt(variance)
        weights = np.minimum(1.0, _HUBER_SD / np.maximum(deviation, 1e-9)) / variance
    if slope <= 0:
        raise PairError(f"in '{name}' the low-light image does not follow the high-light one; they show different fields")
    if slope > 1:
        raise PairError(f"in '{name}' low light is {slope:.2g} times as bright as high light; they are swapped")
    return LowOnHigh(slope, offset, covariance)


def block_means(stack: DoubleArray) -> DoubleArray:
    """Mean over blocks of 8 x 8 pixels, (Z, Y, X) to (blocks,)."""
    planes, height, width = stack.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    whole = stack[:, : rows * _BLOCK, : columns * _BLOCK]
    return np.asarray(whole.reshape(planes, rows, _BLOCK, columns, _BLOCK).mean(axis=(2, 4)).reshape(-1))


def _variance(expected: DoubleArray, residual: DoubleArray) -> DoubleArray:
    """How far blocks scatter, by brightness: two straight pieces are enough for weights."""
    order = np.argsort(expected)
    parts = np.array_split(order, 8)
    middles = [float(np.median(expected[part])) for part in parts]
    spreads = [max(1e-6, float((1.4826 * np.median(np.abs(residual[part]))) ** 2)) for part in parts]
    return np.maximum(np.interp(expected, middles, np.maximum.accumulate(spreads)), 1e-6)


def _weighted(x: DoubleArray, y: DoubleArray, weights: DoubleArray) -> tuple[float, float, DoubleArray]:
    design = np.stack([x - x.mean(), np.ones_like(x)], axis=1)  # (N, 2)
    inverse = np.linalg.inv(design.T @ (weights[:, None] * design))
    slope, middle = inverse @ (design.T @ (weights * y))
    residual = y - design @ (slope, middle)
    inverse = inverse * float(np.sum(weights * np.square(residual))) / max(1, x.size - 2)
    back = np.array([[1.0, 0.0], [-x.mean(), 1.0]])  # from the line about the mean to the one about zero
    return float(slope), float(middle - slope * x.mean()), back @ inverse @ back.T
