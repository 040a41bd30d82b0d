"""The comparison of what an engine made with what float32 made of the same image, channel by channel.

Receives arrays, and perhaps a truth and the camera's read noise; hands on figures. It does not know engines.

PSNR is that of the scores: after the affine fit, with the range p99.9 - p0.1 of the truth, which cancels in a loss.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import EngineMismatch

DoubleArray = NDArray[np.float64]

TENTHS = 10
# Below this share of the truth's variance, what is left after the fit is rounding: a PSNR of 120 dB and more.
_PERFECT = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What one channel of one image told.

    Attributes
    ----------
    error : float
        Rms difference over the range (p99.9 - p0.1) of the float32 image.
    loss_db : float or None
        PSNR in float32 minus that of the engine; None without a truth, or with a flat one.
    worst, worst_in_noise : float
        Largest difference of a pixel, of the range and in read noises (NaN where these are not known).
    tenths : ndarray, (10,)
        Mean difference in each tenth of the pixels by intensity, dim first, of the range.
    """

    error: float
    loss_db: float | None
    worst: float
    worst_in_noise: float
    tenths: DoubleArray


def compare(
    found: NDArray[Any], expected: NDArray[Any], truth: NDArray[Any] | None = None, read_noise: float | None = None
) -> Iterator[Row]:
    """Compare channel by channel; those that are flat, or hold what is no number, in float32 tell nothing and are left out.

    Parameters
    ----------
    found, expected : ndarray, (N, C, [Z,] Y, X)
        Of the engine, and in float32.
    truth : ndarray or None, of the same shape
        Known up to gain and offset.
    read_noise : float or None
        In the images' units.

    Raises
    ------
    EngineMismatch
        If the shapes differ.
    """
    if found.shape != expected.shape:
        raise EngineMismatch(f"the engine gives {found.shape} where float32 gives {expected.shape}; it runs another graph")
    if truth is not None and truth.shape != expected.shape:
        raise EngineMismatch(f"the truth has shape {truth.shape}, the result {expected.shape}; give one of its size")
    for place in np.ndindex(expected.shape[:2]):
        exact = np.asarray(expected[place], np.float64)
        span = _span(exact)
        if not span > 0:  # nan too
            continue
        seen = np.asarray(found[place], np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = seen - exact
            worst = float(np.abs(difference).max())
            yield Row(
                error=float(np.sqrt(np.mean(np.square(difference)))) / span,
                loss_db=None if truth is None else _loss_db(seen, exact, np.asarray(truth[place], np.float64)),
                worst=worst / span,
                worst_in_noise=worst / read_noise if read_noise else math.nan,
                tenths=_tenths(difference, exact) / span,
            )


def _span(pixels: DoubleArray) -> float:
    if not np.isfinite(pixels).all():
        return math.nan
    low, high = np.percentile(pixels, (0.1, 99.9))
    return float(high - low)


def _loss_db(found: DoubleArray, exact: DoubleArray, truth: DoubleArray) -> float | None:
    if not _span(truth) > 0:
        return None
    return float(10 * np.log10(_unexplained(found, truth) / _unexplained(exact, truth)))


def _unexplained(pixels: DoubleArray, truth: DoubleArray) -> float:
    """Share of the truth's variance that is left after the affine fit of the image to it; a slope below 0 explains nothing."""
    image, aim = pixels - pixels.mean(), truth - truth.mean()
    covariance, variance, wanted = (float(np.mean(a * b)) for a, b in ((image, aim), (image, image), (aim, aim)))
    if math.isnan(variance):
        return math.nan
    explained = max(covariance, 0.0) ** 2 / (variance * wanted) if variance > 0 else 0.0
    return max(1 - explained, _PERFECT)


def _tenths(difference: DoubleArray, exact: DoubleArray) -> DoubleArray:
    """Mean difference in each tenth; of fewer than ten pixels some tenths are empty, and 0."""
    order = np.argsort(exact, axis=None, kind="stable")
    parts = np.array_split(difference.ravel()[order], TENTHS)
    return np.array([part.mean() if part.size else 0.0 for part in parts])
