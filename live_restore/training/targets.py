"""What a network is to give for a low-light image: the high-light one, in the low one's own camera counts.

Receives the two images of a pair, and how far they lie apart; hands on both in network units. Shared by training, evaluation
and the limits. It does not know files, patches or networks.

The low image is scaled by its own percentiles (or by a frozen range), exactly as it will be in use. The high image is first
fitted to the counts of the low one, and then scaled *by the same two numbers*. So a restored image, scaled back, is in the low
image's camera counts, and stays proportional to the light.

Where low and high lie apart, only the high image is moved. Interpolation averages neighbouring pixels: in the low image that
would change the very noise that the network is to learn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import PairError
from live_restore.intensity import IntensityRange, guard, measure_percentiles
from live_restore.pairs.moved import cut_moved, overlap_window

FloatArray = NDArray[np.float32]
Pixels = NDArray[np.integer[Any] | np.floating[Any]]

# A slope that is not this many of its own errors above 0 says that low and high do not show the same.
_LEAST_SLOPE_SD = 4.0
# Frozen ranges of images that are no whole numbers are measured on at most this many pixels.
_MOST_POOLED = 4_000_000


@dataclass(frozen=True, slots=True)
class CountsFit:
    """The straight line from the counts of the high image to those that the low one has on average.

    Attributes
    ----------
    slope, offset : float
        ``low = slope * high + offset``, but for the noise.
    """

    slope: float
    offset: float

    def apply(self, high: Pixels) -> FloatArray:
        """Give the counts that the low image has on average; any shape, float32."""
        return high.astype(np.float32) * np.float32(self.slope) + np.float32(self.offset)

    def dimmed(self, kept: float, offset_adu: float) -> "CountsFit":
        """Give the line to a low image that keeps this part of its photons, over a camera offset in counts."""
        return CountsFit(kept * self.slope, offset_adu + kept * (self.offset - offset_adu))


@dataclass(frozen=True, slots=True, eq=False)
class NetworkPair:
    """A pair in network units, ([Z,] Y, X) each, float32, and the range that leads back to the low image's counts."""

    low: FloatArray
    target: FloatArray
    range: IntensityRange


def network_pair(
    low: Pixels,
    high: Pixels,
    shift_px: Sequence[float] = (),
    range_: IntensityRange | None = None,
    percentiles: tuple[float, float] = (2.0, 99.8),
) -> NetworkPair:
    """Bring a whole pair to network units.

    Parameters
    ----------
    low, high : ndarray, ([Z,] Y, X)
        Camera counts, of one shape.
    shift_px : sequence of float, ([z,] y, x)
        What lies at r in low lies at r + shift in high. Both images lose the border that only one of them shows.
    range_ : IntensityRange, optional
        A frozen one; None: measured on the whole low image.
    percentiles : tuple of float
        To measure it with.

    Raises
    ------
    PairError
        If the images do not show the same.
    """
    kept = overlap_window(low.shape, shift_px)
    measured = range_ or measure_percentiles(low[None], *percentiles)
    moved = cut_moved(high, kept, shift_px)
    fit = fit_counts(low[kept], moved)
    scaled = measured.scale(low[kept][None])[0]
    return NetworkPair(scaled, measured.scale(fit.apply(moved)[None])[0], measured)


def fit_counts(low: Pixels, high: Pixels) -> CountsFit:
    """Fit high to the counts of low by least squares.

    The fit is of low on high, not the other way round: noise in what is fitted *to* leaves a least-squares line where it is,
    while noise in what it is fitted *on* flattens it, by the part of that image's variance that is noise. High light has next
    to none.

    Parameters
    ----------
    low, high : ndarray, of one shape
        Camera counts.

    Raises
    ------
    PairError
        If low does not rise with high, beyond what chance would give.
    """
    mean_low, mean_high = float(low.mean(dtype=np.float64)), float(high.mean(dtype=np.float64))
    squares_high = squares_low = products = 0.0
    for plane_low, plane_high in zip(_planes(low), _planes(high), strict=True):
        off_low = plane_low.astype(np.float64) - mean_low
        off_high = plane_high.astype(np.float64) - mean_high
        squares_low += float(np.vdot(off_low, off_low))
        squares_high += float(np.vdot(off_high, off_high))
        products += float(np.vdot(off_low, off_high))
    slope = products / squares_high if squares_high > 0 else 0.0
    unexplained = max(0.0, squares_low - slope * products)
    error = sqrt(unexplained / max(1, low.size - 2) / squares_high) if squares_high > 0 else 0.0
    if not slope > _LEAST_SLOPE_SD * error:
        raise PairError(
            f"the low image does not follow the high one: it changes by {slope:.3g} ± {error:.2g} counts per count; "
            "do both files show the same field? If not, take the pair out"
        )
    return CountsFit(slope, mean_low - slope * mean_high)


def fit_doses(dose_ratio: float, low_offset_adu: float, high_offset_adu: float | None = None) -> CountsFit:
    """Give the line that the doses say: low has `dose_ratio` of the light of high, over the camera's offset.

    For evaluations that must not look at the pixels; bleaching and lasers that are not linear make it less true than
    `fit_counts`.

    Raises
    ------
    ValueError
        If the low dose is not the smaller one.
    """
    if not 0 < dose_ratio <= 1:
        raise ValueError(f"dose_ratio {dose_ratio:g} must be above 0 and at most 1: the low dose over the high one")
    offset = low_offset_adu if high_offset_adu is None else high_offset_adu
    return CountsFit(dose_ratio, low_offset_adu - dose_ratio * offset)


def pool_range(images: Iterable[Pixels], low_percentile: float, high_percentile: float, pixels: int) -> IntensityRange:
    """Measure one range over many low images, one at a time in memory: what `frozen` freezes.

    Parameters
    ----------
    images : iterable of ndarray, ([Z,] Y, X)
    low_percentile, high_percentile : float
    pixels : int
        How many there are in all images together, or about.

    Returns
    -------
    IntensityRange
        Of 8 and 16-bit images the percentiles of all pixels, in whole counts; of others those of evenly spaced ones.
    """
    counted = np.zeros(1 << 16, np.int64)
    sampled = [np.zeros(0, np.float32)]
    for image in images:
        if image.dtype in (np.uint8, np.uint16):
            for plane in _planes(image):
                counted += np.bincount(plane.reshape(-1), minlength=counted.size)
        else:
            sampled.append(image.reshape(-1)[:: max(1, pixels // _MOST_POOLED)].astype(np.float32))
    values = np.concatenate([np.arange(counted.size, dtype=np.float32), *sampled])
    numbers = np.concatenate([counted, np.ones(values.size - counted.size, np.int64)])
    order = np.argsort(values, kind="stable")
    values, upto = values[order], np.cumsum(numbers[order])
    places = [(int(upto[-1]) - 1) * percent / 100 for percent in (low_percentile, high_percentile)]
    low, high = (float(values[np.searchsorted(upto, floor(place) + 1)]) for place in places)
    low, high, guarded = guard(low, high, values[np.flatnonzero(numbers[order])])
    return IntensityRange(np.array([low]), np.array([high]), guarded)


def _planes(pixels: Pixels) -> Pixels:
    """View ([Z,] Y, X) as (planes, Y, X)."""
    return pixels.reshape(-1, *pixels.shape[-2:])
