"""The photon transfer line, pixel by pixel: every pixel of the sensor has a read noise of its own.

Receives deviations, several of every pixel, and a first line; hands on a better one with honest errors. Where bright and dark
pixels are not the same ones, the quiet and the noisy among them would bend the line: the read noise of a pixel is taken for a
random effect (generalised least squares), and errors are those between pixels (cluster-robust). What is expected has noise of
its own, which would flatten the line: its neighbours, which have not the same noise, stand in for it where pixels are told
apart (instrumental variables). It does not know where the images came from.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from live_restore.pairs.transfer_curve import (
    ASTRAY_SD,
    HOT_DARK_SD,
    HOT_SD,
    WINDOW,
    Deviation,
    TransferLine,
    excess_without_smooth,
    without_smooth,
)

DoubleArray = NDArray[np.float64]

# Motion may add so much to what is expected, or the pixel is left out; and so much of what motion changes is uncertain.
_MOST_MOTION, _MOTION_DOUBT = 0.3, 0.5
_LEAST_PIXELS = 200


class TransferSums:
    """Sums over the deviations of every pixel of one sensor region.

    Parameters
    ----------
    line : TransferLine
        A first one: for weights, and for what is left out.
    offset_adu : float
    tails : float
        How much more the fourth moment is than without noisy pixels, counts to the fourth.
    """

    def __init__(self, line: TransferLine, offset_adu: float, tails: float) -> None:
        self._line, self._offset = line, offset_adu
        self._between = tails / 3  # the variance of read variances between pixels
        self._dark_sd = float(np.sqrt(max(line.floor, 0.3)))
        self._terms = 3 if line.moved_px2 else 2
        self._normal: dict[tuple[int, ...], DoubleArray] = {}
        self._right: dict[tuple[int, ...], DoubleArray] = {}
        self.pixels = 0

    def add(self, deviation: Deviation) -> None:
        """Take the deviations of an image."""
        values, smooth = without_smooth(deviation.values)
        excess = excess_without_smooth(deviation.excess) - self._offset * deviation.offset_share
        around = _around(excess)
        expected = self._line.variance(around)
        sd = np.sqrt(expected)
        # the steepness of the line's own making is left out with what it is too much for
        usable = (
            deviation.usable
            & (np.abs(smooth) < ASTRAY_SD * sd / WINDOW)
            & (np.abs(values) < HOT_DARK_SD * self._dark_sd + HOT_SD * sd)
        )
        usable &= self._line.moved_px2 * deviation.steepness < _MOST_MOTION * expected
        weights = np.where(usable, 0.5 / np.square(expected), 0.0)
        columns = (excess, np.ones_like(excess), deviation.steepness)[: self._terms]
        apart = (around, *columns[1:])
        normal, right = self._sums(values.shape)
        for row, one in enumerate(apart):
            weighted = weights * one
            right[row] += weighted * np.square(values)
            for column, other in enumerate(columns):
                normal[row, column] += weighted * other
        self.pixels += int(np.count_nonzero(usable))

    def solve(self) -> TransferLine | None:
        """Fit the line; None of too few pixels, or where the brightness does not vary."""
        if self.pixels < _LEAST_PIXELS:
            return None
        parts = [self._effective(shape) for shape in self._normal]
        normal = np.concatenate([each for each, _ in parts], axis=-1)  # (terms, terms, pixels)
        right = np.concatenate([each for _, each in parts], axis=-1)  # (terms, pixels)
        whole = normal.sum(axis=-1)
        scale = np.sqrt(np.abs(np.diag(whole)))
        if not np.all(scale > 0) or np.linalg.cond(whole / np.outer(scale, scale)) > 1e10:
            return None
        inverse = np.linalg.inv(whole / np.outer(scale, scale)) / np.outer(scale, scale)
        solution = inverse @ right.sum(axis=-1)
        scores = right - np.einsum("ijp,j->ip", normal, solution)
        covariance = inverse @ (scores @ scores.T) @ inverse.T
        return self._line_of(solution, covariance, whole, right.sum(axis=-1))

    def _line_of(self, solution: DoubleArray, covariance: DoubleArray, whole: DoubleArray, right: DoubleArray) -> TransferLine:
        if self._terms == 2:
            return TransferLine(float(solution[0]), float(solution[1]), covariance)
        still = np.linalg.solve(whole[:2, :2], right[:2])
        doubt = _MOTION_DOUBT * (still - solution[:2])
        return TransferLine(
            float(solution[0]), float(solution[1]), covariance[:2, :2] + np.outer(doubt, doubt), float(solution[2])
        )

    def _sums(self, shape: tuple[int, ...]) -> tuple[DoubleArray, DoubleArray]:
        if shape not in self._normal:
            self._normal[shape] = np.zeros((self._terms, self._terms, *shape))
            self._right[shape] = np.zeros((self._terms, *shape))
        return self._normal[shape], self._right[shape]

    def _effective(self, shape: tuple[int, ...]) -> tuple[DoubleArray, DoubleArray]:
        """Take off what a pixel's own read noise explains: each pixel's normal equations after that."""
        normal = self._normal[shape].reshape(self._terms, self._terms, -1)
        right = self._right[shape].reshape(self._terms, -1)
        by_row, by_column = normal[:, 1], normal[1]  # (terms, pixels): sums with the constant column
        share = self._between / (1 + self._between * by_column[1])
        return normal - share * by_row[:, None] * by_column[None], right - share * by_row * right[1]


def _around(image: DoubleArray) -> DoubleArray:
    """Mean of the eight neighbours."""
    return np.asarray((9 * uniform_filter(image, 3) - image) / 8)
