"""Sums over windows of several sizes, with their exact noise: the filters of the trust check.

Receives residuals weighted by their inverse variance, and the weights; hands on, for windows of sigma 1, 2, 4, 8 pixels, by how
many standard deviations the window's content differs from zero. It does not know what the residual is of.

A window is a matched filter: with residual r, weight w = 1 / variance and kernel k,
``z = (k * (w r)) / sqrt(k² * w)`` is a unit normal wherever r is noise of that variance, whatever the weights are; at the
edges of the image and beside masked pixels (w = 0) too. Wider windows work on sums of 2 x 2, 4 x 4 and 8 x 8 pixels, whose
weights add up exactly. Everything works on zero-padded arrays laid flat, so that a shift along Y or X is an
offset in memory, and on bands of rows that stay in the processor's cache.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Zeros around every array: the kernel's reach.
PAD = 2
# The kernel along each axis, of sigma 1, and its largest product, which is a window's weight at its centre.
KERNEL = np.array([1, 4, 6, 4, 1], np.float32)
PEAK = 36.0
# z of a residual that is one constant c over the window: c * strength * this.
EVEN_SHARE = float(np.sum(KERNEL) ** 2 / np.sum(KERNEL * KERNEL) ** 2)  # of both axes
_SQUARES = KERNEL * KERNEL
# Numbers per band of rows: three buffers of 256 kB each stay in a core's cache.
_BAND = 65_536
_TINY = np.float32(1e-20)


def padded(shape: tuple[int, int]) -> FloatArray:
    """Make zeros for an image of this shape, with the margin that the filters need."""
    return np.zeros((shape[0] + 2 * PAD, shape[1] + 2 * PAD), np.float32)


def inside(array: FloatArray) -> FloatArray:
    """View the image within its margin."""
    return array[PAD:-PAD, PAD:-PAD]


def bands(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Cut the rows of an image into bands that fit the cache."""
    # whole blocks of four rows, so that other sums fit the bands too
    rows = max(4, _BAND // (shape[1] + 2 * PAD) // 4 * 4)
    return [(first, min(first + rows, shape[0])) for first in range(0, shape[0], rows)]


class Windows:
    """One size of window on images of one shape; holds its buffers, so use it from one thread.

    Parameters
    ----------
    shape : tuple of int, (Y, X)
        Of the (summed) image.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.residual, self.weight = padded(shape), padded(shape)  # (Y + 4, X + 4) each: w r and w
        self.z = np.zeros(shape, np.float32)
        self.strength = np.zeros(shape, np.float32)
        self._bands = bands(shape)
        largest = max((last - first for first, last in self._bands), default=0) + 2 * PAD
        self._sums, self._across, self._part, self._squares = (
            np.zeros(largest * (shape[1] + 2 * PAD), np.float32) for _ in range(4)
        )

    def measure(self) -> FloatArray:
        """Fill `z` (Y, X), in standard deviations, and `strength` (Y, X): sqrt(k² * w), for a kernel of peak `PEAK`."""
        width, stride = self.shape[1], self.shape[1] + 2 * PAD
        for first, last in self._bands:
            used = (last - first) * stride
            sums = self._smooth(self.residual[first : last + 2 * PAD].reshape(-1), stride)
            information = self._square_smooth(self.weight[first : last + 2 * PAD].reshape(-1), stride)
            np.sqrt(information, out=information)
            self.strength[first:last] = self._squares[:used].reshape(-1, stride)[:, :width]
            information += _TINY
            np.divide(sums, information, out=sums)
            self.z[first:last] = self._sums[:used].reshape(-1, stride)[:, :width]
        return self.z

    def _smooth(self, flat: FloatArray, stride: int) -> FloatArray:
        """Convolve with 1 4 6 4 1 along both axes, as four sums of neighbours each; the result begins at the first pixel."""
        source, buffers = flat, (self._across, self._sums)
        for turn, step in enumerate((1, 1, 1, 1, stride, stride, stride, stride)):
            length = source.size - step
            target = buffers[turn % 2][:length]
            np.add(source[:length], source[step:], out=target)
            source = target
        return source

    def _square_smooth(self, flat: FloatArray, stride: int) -> FloatArray:
        """Convolve with the squares 1 16 36 16 1 along both axes."""
        across = self._symmetric(flat, 1, self._across)
        return self._symmetric(across, stride, self._squares)

    def _symmetric(self, flat: FloatArray, step: int, out: FloatArray) -> FloatArray:
        length = flat.size - 4 * step
        total, part = out[:length], self._part[:length]
        np.add(flat[:length], flat[4 * step :], out=total)
        np.add(flat[step : step + length], flat[3 * step : 3 * step + length], out=part)
        np.multiply(part, _SQUARES[1], out=part)
        np.add(total, part, out=total)
        np.multiply(flat[2 * step : 2 * step + length], _SQUARES[2], out=part)
        return np.add(total, part, out=total)


def halve(image: FloatArray, out: FloatArray) -> None:
    """Add up squares of 2 x 2 pixels, (Y, X) into (ceil(Y / 2), ceil(X / 2)); what is beyond the edge counts as 0."""
    width = image.shape[1]
    for first, last in bands(out.shape):
        top = image[2 * first : 2 * last : 2]
        below = image[2 * first + 1 : 2 * last : 2]
        rows = top.copy()  # (rows, X)
        rows[: len(below)] += below
        out[first:last, : (width + 1) // 2] = rows[:, ::2]
        out[first:last, : width // 2] += rows[:, 1::2]
