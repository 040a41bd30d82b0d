"""The cross-correlation of two images of one field, and what noise does to it.

Receives a noisy image and one nearly free of noise; hands on the place of the peak between the pixels, its standard error, and
how sure it is. It does not know stacks, nor what the shift is for.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex64]

# Structures between these sigmas are compared; finer ones are noise, wider ones background.
_FINE_PX, _WIDE_PX = 1.0, 10.0
# So far from the peak the rest of the correlation begins.
_APART_PX = 25
STEP_PX = 0.05


class Correlation:
    """The cross-correlation of two images, and what its noise does to it.

    Parameters
    ----------
    low, high : ndarray, (Y, X), float32
    """

    def __init__(self, low: FloatArray, high: FloatArray) -> None:
        from scipy import fft

        self.shape = low.shape[0], low.shape[1]
        self._low, self._high = transform(low), transform(high)
        # both images between the two sigmas: the filter counts twice
        self._template = self._high * band(*self.shape) ** 2
        self._cross = self._low.conj() * self._template
        self.surface = np.asarray(fft.irfft2(self._cross, self.shape), np.float32)

    def highest(self, reach_px: int | None) -> NDArray[np.intp]:
        """Find the highest whole pixel, up to `reach_px` from zero."""
        height, width = self.shape
        if reach_px is not None:
            near = np.arange(-reach_px, reach_px + 1)
            window = self.surface[np.ix_(near, near)]
            return np.array(np.unravel_index(int(np.argmax(window)), window.shape)) - reach_px
        peak = np.array(np.unravel_index(int(np.argmax(self.surface)), self.shape))
        return np.asarray(np.where(peak > np.array([height, width]) // 2, peak - [height, width], peak), np.intp)

    def refined(self, start: NDArray[np.intp]) -> DoubleArray:
        """Evaluate it between the pixels about its highest one, and take the top of a parabola there; (y, x)."""
        steps = np.arange(-1, 1 + STEP_PX / 2, STEP_PX)
        ky, kx = frequencies(*self.shape)
        weights = np.where((kx == 0) | (kx == 0.5), 1.0, 2.0)
        rows = np.exp(2j * np.pi * (start[0] + steps)[:, None] * ky.T)  # (steps, Y)
        columns = np.exp(2j * np.pi * (start[1] + steps)[:, None] * kx) * weights  # (steps, X // 2 + 1)
        fine = (rows.astype(np.complex64) @ self._cross @ columns.T.astype(np.complex64)).real  # (steps, steps)
        y, x = np.unravel_index(int(np.argmax(fine)), fine.shape)
        top = (_parabola(fine[:, x], int(y)), _parabola(fine[y], int(x)))
        return np.array([start[0] - 1 + top[0] * STEP_PX, start[1] - 1 + top[1] * STEP_PX])

    def errors(self, px: DoubleArray) -> tuple[float, float]:
        """Give the standard error of a shift along y and x."""
        from scipy import fft

        noise, slope = self.noise(px)
        errors = []
        for k in frequencies(*self.shape):
            turned = 2j * np.pi * k * self._turned(px)
            weight = fft.irfft2(turned.astype(np.complex64), self.shape)
            steep = slope * float(_total((turned.conj() * 2j * np.pi * k * self._turned_high(px)).real, self.shape[1]))
            spread = math.sqrt(float(np.sum(np.square(weight * noise), dtype=np.float64)))
            errors.append(spread * noise.size / steep if steep > 0 else math.inf)
        return errors[0], errors[1]

    def gain(self, px: DoubleArray, other_px: DoubleArray | None) -> float:
        """How much better one shift fits than another, or than no likeness at all, in standard deviations of the noise."""
        from scipy import fft

        template = self._turned(px) - (0 if other_px is None else self._turned(other_px))
        weight = fft.irfft2(template.astype(np.complex64), self.shape)
        value = float(_total((self._low.conj() * template).real, self.shape[1])) / weight.size
        spread = math.sqrt(float(np.sum(np.square(weight * self.noise(px)[0]), dtype=np.float64)))
        return value / spread if spread > 0 else 0.0

    def distinct(self, peak: NDArray[np.intp]) -> float:
        """Compare a peak with the highest value that is not beside it."""
        height, width = self.shape
        apart = min(_APART_PX, min(height, width) // 4)
        centred = np.roll(self.surface, (apart - int(peak[0]), apart - int(peak[1])), (0, 1))
        top = float(centred[apart, apart])
        elsewhere = max(float(centred[2 * apart + 1 :].max()), float(centred[: 2 * apart + 1, 2 * apart + 1 :].max()))
        return top / elsewhere if top > 0 and elsewhere > 0 else 1.0

    def noise(self, px: DoubleArray) -> tuple[FloatArray, float]:
        """Take the shifted high off low: what is left, (Y, X), and how much of high low held."""
        from scipy import fft

        high = self._turned_high(px)
        power = float(_total((high.conj() * self._turned(px)).real, self.shape[1]))
        slope = float(_total((self._low.conj() * self._turned(px)).real, self.shape[1])) / power if power > 0 else 0.0
        left = fft.irfft2((self._low - slope * high).astype(np.complex64), self.shape)
        return np.asarray(left, np.float32), max(0.0, slope)

    def _turned(self, px: DoubleArray) -> ComplexArray:
        return self._template * self._phase(px)

    def _turned_high(self, px: DoubleArray) -> ComplexArray:
        return self._high * self._phase(px)

    def _phase(self, px: DoubleArray) -> ComplexArray:
        ky, kx = frequencies(*self.shape)
        return np.asarray(np.exp(2j * np.pi * (ky * px[0] + kx * px[1])), np.complex64)


def transform(image: FloatArray) -> ComplexArray:
    """Transform an image, faded to its mean at the edges; (Y, X // 2 + 1)."""
    from scipy import fft

    fade = _filters(image.shape[0], image.shape[1])[0]
    return np.asarray(fft.rfft2((image - np.float32(image.mean())) * fade), np.complex64)


def band(height: int, width: int) -> FloatArray:
    """Give the filter that leaves the structures that are compared; (Y, X // 2 + 1)."""
    return _filters(height, width)[1]


@lru_cache(maxsize=4)
def _filters(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    fade = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    ky, kx = frequencies(height, width)
    fine, wide = (
        np.exp(-2 * (np.pi * sigma) ** 2 * (ky * ky + kx * kx)) for sigma in (_FINE_PX, min(_WIDE_PX, min(height, width) / 8))
    )
    return fade.astype(np.float32), (fine - wide).astype(np.float32)


def frequencies(height: int, width: int) -> tuple[DoubleArray, DoubleArray]:
    """Cycles per pixel along Y, (Y, 1), and X, (1, X // 2 + 1)."""
    return np.asarray(np.fft.fftfreq(height), np.float64)[:, None], np.asarray(np.fft.rfftfreq(width), np.float64)[None]


def _total(values: NDArray[Any], width: int) -> Any:
    """Sum over all frequencies of a transform that holds only half of them."""
    twice = values[:, 1 : values.shape[1] - (width % 2 == 0)]
    return values.sum(dtype=np.float64) + twice.sum(dtype=np.float64)


def _parabola(values: NDArray[Any], top: int) -> float:
    """Place of the top between three values, in steps."""
    if not 0 < top < len(values) - 1:
        return float(top)
    before, middle, after = (float(value) for value in values[top - 1 : top + 2])
    bend = before - 2 * middle + after
    return top + 0.5 * (before - after) / bend if bend < 0 else float(top)
