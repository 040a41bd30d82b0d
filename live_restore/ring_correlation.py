"""Fourier ring correlation: down to which detail two images show the same.

Receives two images of one field; hands on a curve over spatial frequency and the resolution read off it. It does not know
which of them was restored.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_restore.intensity import Pixels

DoubleArray = NDArray[np.float64]

# Where two images stop showing the same structure: the fixed threshold customary for Fourier ring correlation.
FRC_THRESHOLD = 1 / 7
# Rings in the running median before the crossing is looked for: single rings scatter, and a mean would move a step.
_RINGS_SMOOTHED = 5


@dataclass(frozen=True, slots=True, eq=False)
class RingCurve:
    """Fourier ring correlation of two images.

    Attributes
    ----------
    frequency : ndarray, (rings,), float64
        Centre of each ring in cycles per pixel, up to 0.5.
    correlation : ndarray, (rings,), float64
        Smoothed; 1 where both show the same, 0 where they have nothing in common.
    """

    frequency: DoubleArray
    correlation: DoubleArray

    @property
    def resolution_px(self) -> float | None:
        """Period in pixels of the finest structure that both images show.

        Infinite if they have nothing in common; None if the curve never falls below the threshold, because the
        pixels are then too coarse to show the limit.
        """
        below = np.flatnonzero(self.correlation < FRC_THRESHOLD)
        if not below.size:
            return None
        if below[0] == 0:
            return math.inf
        return 1 / self._crossing(int(below[0]))

    def _crossing(self, first_below: int) -> float:
        """Frequency, in cycles per pixel, at which the line between two rings meets the threshold."""
        ends = slice(first_below - 1, first_below + 1)
        (f0, f1), (c0, c1) = self.frequency[ends], self.correlation[ends]
        return float(f0 + (f1 - f0) * (c0 - FRC_THRESHOLD) / (c0 - c1))


def ring_correlation(image: Pixels, reference: Pixels) -> RingCurve:
    """Fourier ring correlation of two images of one field; over the planes of a stack, pooled.

    The threshold of 1/7 supposes that the noise of the two images is independent, as it is between a short and a
    long exposure. (Correlating an image with a smoothed copy of itself tells nothing.)

    Parameters
    ----------
    image, reference : ndarray, (Y, X) or (Z, Y, X)
        The same shape.
    """
    from scipy.ndimage import median_filter

    height, width = image.shape[-2:]
    rings = _ring_numbers(height, width)
    count = min(height, width) // 2
    sums = np.zeros((3, count + 1))  # cross power, power of the image, power of the reference
    for plane, target in zip(image.reshape(-1, height, width), reference.reshape(-1, height, width), strict=True):
        sums += _ring_sums(plane, target, rings, count)
    cross, power, target_power = sums[:, 1:]  # (rings,) each, without the constant
    product = np.sqrt(power * target_power)
    correlation = np.divide(cross, product, out=np.zeros_like(cross), where=product > 0)
    frequency = np.arange(1, count + 1) / (2 * count)
    return RingCurve(frequency, median_filter(correlation, _RINGS_SMOOTHED, mode="nearest"))


def _ring_numbers(height: int, width: int) -> NDArray[np.intp]:
    """Which ring each Fourier coefficient belongs to, (Y, X); the corners beyond Nyquist share the last, unused number."""
    count = min(height, width) // 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))  # (Y, X), cycles per pixel
    rings: NDArray[np.intp] = np.minimum(np.rint(radius * 2 * count), count + 1).astype(np.intp)
    return rings


def _ring_sums(plane: Pixels, target: Pixels, rings: NDArray[np.intp], count: int) -> DoubleArray:
    first, second = _spectrum(plane), _spectrum(target)
    products = (first * second.conj(), first * first.conj(), second * second.conj())
    summed = [np.bincount(rings.ravel(), product.real.ravel(), count + 2)[: count + 1] for product in products]
    return np.stack(summed)  # (3, rings + 1)


def _spectrum(plane: Pixels) -> NDArray[np.complex128]:
    """Fourier transform of a plane, faded to its mean at the edges, whose jump would correlate as a cross."""
    height, width = plane.shape
    window = np.hanning(height)[:, None] * np.hanning(width)  # (Y, X)
    centred = plane - np.average(plane, weights=window)
    return np.asarray(np.fft.fft2(centred * window))
