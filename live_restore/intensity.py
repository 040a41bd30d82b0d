"""Intensities: which camera counts the network sees as 0 and 1, measured, applied, undone.

Receives pixels; hands on an `IntensityRange` that travels with the image, so that two volumes in flight never share one.
Shared by live, offline and training. It does not know what a network is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Pixels = NDArray[np.integer | np.floating]

# Below this fraction of the values themselves, high - low is rounding and no contrast.
_COLLAPSED = 1e-6
_MOST_COUNTS = 65535
# Pixels that are sorted to guess a percentile; which guess it is changes nothing but the time.
_SAMPLE = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class IntensityRange:
    """The counts that become 0 and 1, and the exact way back.

    Attributes
    ----------
    low, high : ndarray, (C,), float64
        Camera counts; ``high > low`` in every channel.
    guarded : bool
        True if the image was flat or nearly empty and the measured range had collapsed, so that a wider one was
        taken (see `guard`). Worth a warning: such an image tells the network nothing.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    guarded: bool = False

    @property
    def low_and_span(self) -> FloatArray:
        """What scaling takes, `low` above ``high - low``; (2, C) float32."""
        return np.stack([self.low, self.high - self.low]).astype(np.float32)

    def scale(self, pixels: Pixels) -> FloatArray:
        """Camera counts to network units, ``(x - low) / (high - low)``.

        Parameters
        ----------
        pixels : ndarray, (C, ...)
            Any real dtype.

        Returns
        -------
        ndarray, (C, ...), float32
        """
        low, span = self._columns(pixels.ndim)
        scaled = np.subtract(pixels, low, dtype=np.float32)
        scaled /= span
        return scaled

    def unscale(self, pixels: FloatArray) -> FloatArray:
        """Network units to camera counts, the inverse of `scale`; (C, ...) float32 to (C, ...) float32."""
        low, span = self._columns(pixels.ndim)
        return pixels * span + low

    def unscale_width(self, widths: FloatArray) -> FloatArray:
        """Widths (a Laplace scale, an error bar) in network units to camera counts: only the span applies."""
        return widths * self._columns(widths.ndim)[1]

    def _columns(self, ndim: int) -> tuple[FloatArray, FloatArray]:
        low, span = self.low_and_span.reshape(2, -1, *[1] * (ndim - 1))
        return low, span


def whole_counts(counts: NDArray[Any]) -> NDArray[np.uint16]:
    """Round to what a camera could have counted, uint16, clipped to 0 .. 65535; whole counts stay as they are."""
    if counts.dtype == np.uint16:
        return counts
    rounded: FloatArray = np.rint(counts)
    np.clip(rounded, 0, _MOST_COUNTS, out=rounded)
    return rounded.astype(np.uint16)


def measure_percentiles(
    pixels: Pixels, low_percentile: float = 2.0, high_percentile: float = 99.8, per_channel: bool = True
) -> IntensityRange:
    """Measure the range of an image between two percentiles, guarded against flat images.

    The same numbers as ``numpy.percentile`` with linear interpolation (what CSBDeep and 3D-RCAN use); of 8- and 16-bit
    images every pixel is counted too, but many times faster.

    Parameters
    ----------
    pixels : ndarray, (C, ...)
        Any real dtype, without NaN.
    low_percentile, high_percentile : float
        In percent; CSBDeep predicts with 2 and 99.8, 3D-RCAN with 2 and 99.9.
    per_channel : bool
        False: one range for all channels together.

    Returns
    -------
    IntensityRange
        With one entry per channel (equal entries if not `per_channel`).
    """
    groups = list(pixels) if per_channel else [pixels]
    wanted = (low_percentile, high_percentile)
    return _per_group(groups, [_percentiles(group, wanted) for group in groups], len(pixels))


def measure_mean_std(pixels: Pixels, per_channel: bool = True) -> IntensityRange:
    """Measure the range that gives zero mean and unit variance: low is the mean, high the mean plus one sd.

    Parameters
    ----------
    pixels : ndarray, (C, ...)
        Any real dtype.
    per_channel : bool
        False: one range for all channels together.

    Returns
    -------
    IntensityRange
        With one entry per channel.
    """
    groups = list(pixels) if per_channel else [pixels]
    moments = [_mean_std(group) for group in groups]
    return _per_group(groups, [(mean, mean + std) for mean, std in moments], len(pixels))


def _mean_std(pixels: Pixels) -> tuple[float, float]:
    """Mean and standard deviation, plane by plane: no copy of a stack in float64."""
    mean = float(pixels.mean(dtype=np.float64))
    squares = sum(float(np.square(plane - mean).sum()) for plane in _planes(pixels))
    return mean, float(np.sqrt(squares / pixels.size))


def _per_group(groups: list[Pixels], measured: list[tuple[float, float]], channels: int) -> IntensityRange:
    guards = [guard(low, high, group) for (low, high), group in zip(measured, groups, strict=True)]
    low = np.broadcast_to([g[0] for g in guards], channels).astype(np.float64)
    high = np.broadcast_to([g[1] for g in guards], channels).astype(np.float64)
    return IntensityRange(low, high, guarded=any(g[2] for g in guards))


def guard(low: float, high: float, pixels: Pixels) -> tuple[float, float, bool]:
    """Widen a collapsed range, so that no division explodes.

    With fewer than 0.2 % of its pixels lit, an image has p2 == p99.8, and CSBDeep's formula gives 1e20. Then the
    brightest pixel becomes 1; if there is none either (a constant image), the range is one count wide.

    Returns
    -------
    low, high : float
    guarded : bool
        Whether anything was changed.
    """
    tiny = _COLLAPSED * max(abs(low), abs(high))
    if high - low > tiny:
        return low, high, False
    brightest = float(pixels.max())
    if brightest - low > tiny:
        return low, brightest, True
    return low, low + 1.0, True


def follow(previous: IntensityRange, measured: IntensityRange, weight: float) -> IntensityRange:
    """Move a rolling range: take `previous` towards `measured` by `weight` (0: stay, 1: jump).

    A guarded measurement (dark or flat image) moves nothing: one closed shutter must not re-scale the movie.
    """
    if measured.guarded:
        return IntensityRange(previous.low, previous.high, guarded=True)
    low = previous.low + weight * (measured.low - previous.low)
    high = previous.high + weight * (measured.high - previous.high)
    return IntensityRange(low, high)


def _percentiles(pixels: Pixels, wanted: tuple[float, float]) -> tuple[float, float]:
    if pixels.dtype in (np.uint8, np.uint16):
        low, high = _counted_percentiles(pixels, wanted)
    else:
        low, high = np.percentile(pixels, wanted)
    return float(low), float(high)


def _counted_percentiles(pixels: Pixels, wanted: tuple[float, float]) -> tuple[float, float]:
    """Order statistics by counting; exactly ``numpy.percentile(..., method="linear")``.

    How many pixels lie at or below a value is counted in 0.25 ms for 2048 x 2048, a histogram of them takes 17: so a sample
    says where to look, and a few counts find the value itself.
    """
    planes = list(_planes(pixels))
    every = pixels.size // _SAMPLE | 1  # odd, so that it does not fall on the same columns again and again
    sample = np.sort(np.concatenate([plane[::every] for plane in planes]))

    def upto(value: int) -> int:
        return sum(int(np.count_nonzero(plane <= value)) for plane in planes)

    low, high = (_order_statistic(upto, pixels.size, percent, sample) for percent in wanted)
    return low, high


def _planes(pixels: Pixels) -> Pixels:
    """View (..., Y, X) as (planes, Y * X)."""
    return pixels.reshape(-1, pixels.shape[-1] * (pixels.shape[-2] if pixels.ndim > 1 else 1))


def _order_statistic(upto: Callable[[int], int], size: int, percent: float, sample: NDArray[Any]) -> float:
    """Find the value at a place among all, by linear interpolation, from how many pixels are `upto` a value."""
    place = (size - 1) * percent / 100
    below = int(place)
    first, reached = _least(upto, below + 1, *_bracket(sample, place / size, upto, below + 1))
    if reached >= min(below + 2, size):
        return float(first)
    largest = int(np.iinfo(sample.dtype).max)
    second, _ = _least(upto, below + 2, (first, reached), (largest, size))
    return first + (second - first) * (place - below)


Reached = tuple[int, int]  # a value, and how many pixels are up to it


def _bracket(sample: NDArray[Any], share: float, upto: Callable[[int], int], wanted: int) -> tuple[Reached, Reached]:
    """Find a value that fewer than `wanted` pixels are up to, and one that as many or more are."""
    spread = 1 + int(4 * np.sqrt(len(sample) * share * (1 - share)))
    middle = int(share * len(sample))
    under, above = (int(sample[min(max(place, 0), len(sample) - 1)]) for place in (middle - spread, middle + spread))
    low, high = (under - 1, upto(under - 1) if under else 0), (above, upto(above))
    if low[1] >= wanted:
        low, high = (-1, 0), low
    elif high[1] < wanted:
        low, high = high, (largest := int(np.iinfo(sample.dtype).max), upto(largest))
    return low, high


def _least(upto: Callable[[int], int], wanted: int, under: Reached, above: Reached) -> Reached:
    """Find the least value that `wanted` pixels or more are up to, between one that fewer are up to and one that enough are."""
    halves = False
    while above[0] - under[0] > 1:
        share = 0.5 if halves else (wanted - 0.5 - under[1]) / (above[1] - under[1])
        value = under[0] + min(max(round(share * (above[0] - under[0])), 1), above[0] - under[0] - 1)
        found = value, upto(value)
        # where a guess in proportion leaves more than half, the next is the middle
        before = above[0] - under[0]
        under, above = (found, above) if found[1] < wanted else (under, found)
        halves = not halves and above[0] - under[0] > before / 2
    return above
