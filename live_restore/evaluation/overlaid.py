"""One pair laid over: the restored and the low image, and the high one moved onto them; what can be measured on the three.

Receives images of one field; hands on bias, coverage of predicted intervals, and the part where the error is largest. It does
not know models, files or baselines.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from live_restore.evaluation.scores import DECILES, LEVELS, Bias, Case
from live_restore.intensity import Pixels
from live_restore.score import fit_affine

FloatArray = NDArray[np.float32]

_CASE_PX = 256
# Errors are sought over neighbourhoods this wide: a single hot pixel is no case.
_ERROR_PX = 8.0
_BRIGHTEST_PERCENT = 99.0


@dataclass(frozen=True, slots=True, eq=False)
class Overlaid:
    """A pair, restored; all images of one shape, ([Z,] Y, X).

    Attributes
    ----------
    low, high : ndarray
        Camera counts of two exposures.
    restored : ndarray, float32
        Counts of the low exposure.
    widths : ndarray, float32, or None
        Predicted Laplace scale, in the same counts.
    """

    low: Pixels
    restored: FloatArray
    high: Pixels
    widths: FloatArray | None

    def target(self) -> FloatArray:
        """Fit the high image to the counts of the low one: what a perfect restoration would give."""
        slope, offset = fit_affine(_stack(self.high), _stack(self.low))
        return (slope * self.high + offset).astype(np.float32)

    def coverage(self, slope: float, offset: float) -> tuple[float, ...]:
        """Give the share of the pixels within the predicted interval of each of `LEVELS`; empty without widths.

        Parameters
        ----------
        slope, offset : float
            The affine fit of the restored image to the high one.
        """
        if self.widths is None:
            return ()
        error = np.abs(slope * self.restored + offset - self.high)
        scale = np.maximum(slope * self.widths, np.finfo(np.float32).tiny)
        # within -b log(1 - p) of the mean lies the share p of a Laplace distribution of scale b
        ratio = (error / scale).ravel()
        return tuple(float(np.mean(ratio <= -math.log1p(-level))) for level in LEVELS)

    def bias(self) -> Bias | None:
        """Measure how far restored intensities lie off the true ones; None where the low image tells nothing of them."""
        target = self.target()
        low, high = np.percentile(target, (0.1, 99.9))
        if not high > low:
            return None
        edges = np.percentile(target, [*np.linspace(0, 100, DECILES + 1)[1:-1], _BRIGHTEST_PERCENT])
        decile = np.searchsorted(edges[:-1], target.ravel(), side="right")
        error = (self.restored - target).ravel()
        pixels, sums = np.bincount(decile, minlength=DECILES), np.bincount(decile, error, DECILES)
        percent = 100 / float(high - low)
        # images of few grey levels leave some deciles empty
        deciles = tuple(float(s / n * percent) if n else 0.0 for s, n in zip(sums, pixels, strict=True))
        brightest = error[target.ravel() >= edges[-1]]
        slope, _ = fit_affine(_stack(target), _stack(self.restored))
        return Bias(deciles, float(brightest.mean()) * percent, slope)

    def case(self, kind: str, name: str, gain_db: float, pixel_size_um: float | None) -> Case:
        """Cut out the part of one plane where the error of the restored image is largest."""
        low, restored, high = (_stack(image) for image in (self.low, self.restored, self.target()))
        error = gaussian_filter(np.abs(restored - high), (0, _ERROR_PX, _ERROR_PX))
        z, y, x = (int(place) for place in np.unravel_index(int(np.argmax(error)), error.shape))
        rows, columns = (_around(place, length) for place, length in zip((y, x), low.shape[1:], strict=True))
        corner = (z, rows.start, columns.start)[3 - self.low.ndim :]
        shown = [image[z, rows, columns].astype(np.float32) for image in (low, restored, high)]
        return Case(kind, name, gain_db, shown[0], shown[1], shown[2], corner, pixel_size_um)


def _around(place: int, length: int) -> slice:
    size = min(_CASE_PX, length)
    first = min(max(0, place - size // 2), length - size)
    return slice(first, first + size)


def _stack(image: Pixels) -> Any:
    """View ([Z,] Y, X) as (Z, Y, X)."""
    return image.reshape(-1, *image.shape[-2:])
