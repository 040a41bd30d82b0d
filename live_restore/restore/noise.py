"""The camera's own noise: what a pixel's counts are worth in electrons, and how far they scatter.

Receives a calibration from the hardware configuration, or raw and restored images of the same field to estimate one
from; hands on a `CameraNoise`. It does not know what is done with it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from live_restore.restore.photon_fit import BLOCK, block_means, fit_line

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
Counts = NDArray[np.integer[Any]]

# An estimate looks at no more pixels than this; a per cent on the gain needs no more.
_MOST_PIXELS = 250_000
_LEVEL_PX = 5
_ASTRAY_SD = 4.0
_BINS = 24
_LEAST_PER_BIN = 200
# Deviations beyond this many sd are left out: hot pixels and cosmic rays, not noise.
_CLIP_SD = 4.0
# A gain with a larger relative error than this is worth a word, and is estimated anew as soon as possible.
_LARGEST_ERROR = 0.15
_LEAST_GAIN = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class CameraNoise:
    """What turns counts into electrons and says how far they scatter, for the whole sensor or pixel by pixel.

    Attributes
    ----------
    offset_adu : float or ndarray, (Y, X), float32
        Counts of a pixel without light.
    gain_adu_per_e : float or ndarray, (Y, X), float32
        Counts per electron, above 0.
    read_noise_e : float or ndarray, (Y, X), float32
        Electrons rms, not negative.
    hot : ndarray, (Y, X), bool, or None
        Pixels to leave out.
    source : {"configuration", "estimated"}
        Where it comes from.
    quantum_efficiency : float or None
        Electrons per photon; None where nobody said.
    saturation_adu : float or None
        Counts from which a pixel is saturated; None: the largest number of its bit depth.
    why : str
        What could not be estimated and what was assumed instead; empty where nothing was.
    """

    offset_adu: float | FloatArray
    gain_adu_per_e: float | FloatArray
    read_noise_e: float | FloatArray
    hot: NDArray[np.bool_] | None = None
    source: Literal["configuration", "estimated"] = "configuration"
    quantum_efficiency: float | None = None
    saturation_adu: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if not np.all(np.asarray(self.gain_adu_per_e) > 0):
            raise ValueError(f"gain_adu_per_e goes down to {np.min(self.gain_adu_per_e):g}; it must be above 0 in every pixel")
        if not np.all(np.asarray(self.read_noise_e) >= 0):
            raise ValueError(f"read_noise_e goes down to {np.min(self.read_noise_e):g}; it must be 0 or more, and no NaN")
        shapes = {np.shape(value) for value in self._maps() if np.ndim(value)}
        if len(shapes) > 1:
            raise ValueError(f"the maps have different shapes: {sorted(shapes)}; every map covers the same (Y, X) pixels")

    def _maps(self) -> tuple[Any, ...]:
        hot = () if self.hot is None else (self.hot,)
        return self.offset_adu, self.gain_adu_per_e, self.read_noise_e, *hot

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(Y, X) of the maps; None where one number stands for all pixels."""
        return next((np.shape(value) for value in self._maps() if np.ndim(value)), None)

    @property
    def dark_variance_e2(self) -> float | FloatArray:
        """Variance without light, electrons squared: read noise, and the rounding to whole counts."""
        floor: Any = np.square(self.read_noise_e) + 1 / (12 * np.square(self.gain_adu_per_e))
        return floor.astype(np.float32) if np.ndim(floor) else float(floor)


def estimate_noise(raw: Counts, restored: NDArray[np.floating], offset_adu: float | FloatArray | None = None) -> CameraNoise:
    """Estimate gain and read noise from the scatter of raw counts about the restored ones, without any calibration.

    The photon transfer of one exposure: the restored counts say how bright a pixel is, the raw ones how far it scatters, and
    ``variance = gain * (level - offset) + (gain * read noise)^2``. Only second differences of the residual along Y
    and X are used, which a wrong but smooth restoration leaves alone, and their scatter is measured robustly.

    Gain and scatter need no offset. Splitting the scatter without light into offset and read noise does: without one given,
    the darkest restored counts are taken for it, which is too high by the background.

    Parameters
    ----------
    raw : ndarray, (Z, Y, X), uint8 or uint16
        Camera counts.
    restored : ndarray, (Z, Y, X), float32
        Camera counts.
    offset_adu : float or ndarray, (Y, X), optional
        Where known.

    Returns
    -------
    CameraNoise
        Of source ``estimated``; with `why` set where the image held too little to estimate from.

    Raises
    ------
    ValueError
        If the offset map has another shape than the image.
    """
    stack, levels = _thinned(raw, restored, offset_adu)
    levels = _in_raw_counts(stack, levels)
    dark = float(np.percentile(levels, 0.1)) if levels.size else 0.0
    offset = dark if offset_adu is None else float(np.median(offset_adu))
    kept = offset if offset_adu is None else offset_adu
    level, scatter, astray = _differences(stack, levels)
    line = _transfer_line(level, scatter)
    if line is not None:
        # where the restored level itself is wrong, it says nothing of the noise there
        expected = np.maximum(line[0] * level + line[1], 1e-9)
        right = np.abs(astray) < _ASTRAY_SD * np.sqrt(expected) / _LEVEL_PX
        line = _transfer_line(level[right], scatter[right])
    if line is None:
        return _without_range(kept, offset, level, scatter)
    gain, floor, error = line
    read_variance = (floor + gain * offset) / gain**2 - 1 / (12 * gain**2)
    uncertain = f"the image tells the gain to no better than {100 * error:.0f} %" if error > _LARGEST_ERROR else ""
    return CameraNoise(kept, gain, float(np.sqrt(max(read_variance, 0.01))), source="estimated", why=uncertain)


def follow_noise(before: CameraNoise, estimated: CameraNoise) -> CameraNoise:
    """Move an estimate half-way towards a newer one; one that could not be made neither starts nor moves it."""
    if before.why or estimated.why:
        return estimated if before.why else before
    gain = (before.gain_adu_per_e + estimated.gain_adu_per_e) / 2
    variance = (np.square(before.read_noise_e) + np.square(estimated.read_noise_e)) / 2
    # of two guesses at the offset, the darker image's is the better one
    offset = np.minimum(before.offset_adu, estimated.offset_adu)
    return CameraNoise(float(offset), float(gain), float(np.sqrt(variance)), source="estimated")


def _thinned(
    raw: Counts, restored: NDArray[np.floating], offset_adu: float | FloatArray | None
) -> tuple[DoubleArray, DoubleArray]:
    """Take evenly spaced planes, and rows of them, until there are few enough pixels; neighbours in X and Y stay neighbours.

    Of an offset map, the pattern is taken off raw.
    """
    planes = max(1, raw.shape[0] // max(1, _MOST_PIXELS // max(1, raw[0].size)))
    raw, restored = raw[::planes], restored[::planes]
    rows = raw.shape[1]
    while raw.shape[0] * rows * raw.shape[2] > 2 * _MOST_PIXELS and rows > _LEVEL_PX:
        rows //= 2
    start = (raw.shape[1] - rows) // 2
    window = slice(start, start + rows)
    stack = raw[:, window].astype(np.float64)
    if offset_adu is not None and np.ndim(offset_adu):
        if np.shape(offset_adu) != raw.shape[1:]:
            raise ValueError(f"offset_adu has shape {np.shape(offset_adu)}, the image {raw.shape[1:]}; give one of each pixel")
        pattern = np.asarray(offset_adu, np.float64)[window] - float(np.median(offset_adu))
        stack -= pattern
    return stack, restored[:, window].astype(np.float64)


def _in_raw_counts(stack: DoubleArray, levels: DoubleArray) -> DoubleArray:
    """Undo the network's own gain and offset."""
    if min(levels.shape[1:]) < BLOCK:
        return levels + np.median(stack - levels)
    measured, restored = (
        np.concatenate([block_means(plane.astype(np.float32)).reshape(-1) for plane in planes]) for planes in (stack, levels)
    )
    # in counts of an unknown gain: every block weighs the same
    middle = np.float32(np.median(restored))
    spread = float(np.square(1.5 * np.median(np.abs(measured - np.median(measured)))))
    line = fit_line(measured - middle, restored - middle, BLOCK**2 * max(1.0, spread))
    return line.slope * (levels - middle) + line.offset + middle


def _differences(stack: DoubleArray, levels: DoubleArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Look at the residual in three ways, (N,) each.

    Returns
    -------
    level : ndarray
        Mean of the restored counts about a pixel, which the noise that they still have does not dilute.
    scatter : ndarray
        Second differences along Y and X, of unit gain for white noise.
    astray : ndarray
        Mean residual about a pixel.
    """
    residual = stack - levels
    if min(residual.shape[1:]) < 3:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    across = residual[..., :-2] - 2 * residual[..., 1:-1] + residual[..., 2:]  # (Z, Y, X - 2)
    both = across[:, :-2] - 2 * across[:, 1:-1] + across[:, 2:]  # (Z, Y - 2, X - 2)
    window = (0, _LEVEL_PX, _LEVEL_PX)
    level, astray = (uniform_filter(each, window, mode="nearest")[:, 1:-1, 1:-1] for each in (levels, residual))
    return level.reshape(-1), (both / 6.0).reshape(-1), astray.reshape(-1)


def _transfer_line(level: DoubleArray, scatter: DoubleArray) -> tuple[float, float, float] | None:
    """Give gain, floor and the gain's relative error; None where there is too little to fit."""
    curve = _transfer_curve(level, scatter)
    return None if curve is None else _fit_line(*curve)


def _transfer_curve(level: DoubleArray, scatter: DoubleArray) -> tuple[DoubleArray, DoubleArray, DoubleArray] | None:
    """Level, variance and number of pixels of bins that hold equal steps of brightness; None of too few."""
    if level.size < 2 * _LEAST_PER_BIN:
        return None
    low, high = np.percentile(level, (0.1, 99.9))
    if not high > low:
        return None
    # steps of equal width in the square root: shot noise is then resolved alike in the dark and in the light
    place = np.clip(np.sqrt(np.clip((level - low) / (high - low), 0, 1)) * _BINS, 0, _BINS - 1).astype(np.intp)
    order = np.argsort(place, kind="stable")
    edges = np.searchsorted(place[order], np.arange(_BINS + 1))
    groups = [order[a:b] for a, b in pairwise(edges) if b - a >= _LEAST_PER_BIN]
    if len(groups) < 3:
        return None
    rows = [(level[group].mean(), robust_variance(scatter[group]), group.size) for group in groups]
    means, variances, numbers = np.array(rows, np.float64).T
    return means, variances, numbers


def robust_variance(values: NDArray[np.floating]) -> float:
    """Give the variance of mostly normal values about zero, without those beyond four sd; 0 of none."""
    if values.size == 0:
        return 0.0
    sd = 1.4826 * float(np.median(np.abs(values)))
    for _ in range(4):
        # of a normal distribution cut at 4 sd a thousandth of the variance is missing
        kept = values[np.abs(values) <= _CLIP_SD * sd]
        sd = float(np.sqrt(np.mean(kept * kept))) if kept.size else 0.0
    return sd * sd


def _fit_line(means: DoubleArray, variances: DoubleArray, numbers: DoubleArray) -> tuple[float, float, float] | None:
    """Fit variance = gain * level + floor, weighted by the fit itself.

    Returns
    -------
    gain, floor, relative error of the gain : float
        Or None, where the variance does not rise with the level.
    """
    predicted = np.maximum(variances, 1e-9)
    for _ in range(5):
        # the relative error of a variance is sqrt(2 / n), and about 1.7 times that as neighbouring differences share pixels
        weights = numbers / (6.0 * predicted**2)
        total = weights.sum()
        centre = (weights * means).sum() / total
        spread = (weights * (means - centre) ** 2).sum()
        if not spread > 0:
            return None
        gain = float((weights * (means - centre) * variances).sum() / spread)
        floor = float((weights * variances).sum() / total - gain * centre)
        predicted = np.maximum(gain * means + floor, 0.2 * variances + 1e-9)
    if gain < _LEAST_GAIN:
        return None
    # bins that scatter about the line more than their numbers explain make the gain as much more uncertain
    chi2 = float((weights * (variances - gain * means - floor) ** 2).sum()) / max(1, means.size - 2)
    return gain, floor, float(np.sqrt(max(1.0, chi2) / spread)) / gain


def _without_range(kept: float | FloatArray, offset: float, level: DoubleArray, scatter: DoubleArray) -> CameraNoise:
    """Split the scatter at the one level that there is so that its sum is right: one count for one electron, if that fits."""
    variance = max(robust_variance(scatter), 1 / 12)
    above = max(0.0, float(np.mean(level)) - offset) if level.size else 0.0
    gain = min(1.0, variance / above) if above > 0 else 1.0
    read_variance = max(variance - gain * above - 1 / 12, 0.01) / gain**2
    why = "the image is too flat or too small to tell shot noise from read noise, so its counts cannot be told in electrons"
    return CameraNoise(kept, gain, float(np.sqrt(read_variance)), source="estimated", why=why)
