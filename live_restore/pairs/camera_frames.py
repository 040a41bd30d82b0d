"""The camera from dark and flat frames, the classical way: offset, read noise and gain, of the whole and of every pixel.

Receives stacks of frames without light, and of frames of even light that does not change; hands on a `CameraEstimate` with
maps. It does not know files.

The mean of the dark frames is the offset, their variance the read noise; the slope of the flat frames' variance over their
mean is the gain. What many frames do not tell of a single pixel is taken from all the others (shrinkage).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import polygamma

from live_restore.errors import PairError
from live_restore.pairs.camera_estimate import ROUNDING, CameraEstimate, FloatArray, Measured, read_noise_of, rms

DoubleArray = NDArray[np.float64]
Frames = NDArray[np.integer[Any]]

# A pixel with so many times the usual standard deviation in the dark is hot: left out of the figures, kept in the maps.
_HOT_SD = 40.0
# Flat frames this bright, in the dark's standard deviations, tell the gain.
_LEAST_BRIGHT_SD = 2.0
# Beyond this, variance does not rise in proportion to the mean.
_BENT = 0.05
_LEAST_FRAMES = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Pixels:
    """Mean and variance of every pixel over the frames of a stack, (Y, X) each."""

    mean: DoubleArray
    variance: DoubleArray
    frames: int
    saturated: NDArray[np.bool_]


def estimate_from_frames(dark: Frames, flats: Sequence[Frames] = ()) -> CameraEstimate:
    """Estimate the camera.

    Parameters
    ----------
    dark : ndarray, (N, Y, X), uint8 or uint16
        Frames without light, with the exposure that is used; two at least, better a hundred.
    flats : sequence of ndarray, (N, Y, X)
        Stacks of even light, each of another brightness; two frames of each at least. Without any, the gain is not known.

    Raises
    ------
    PairError
        If they are no counts, too few, or do not fit each other.
    """
    darks = _over_frames("dark", dark, None, None)
    offset, variance = darks.mean, np.maximum(darks.variance - ROUNDING, 0.0)
    usable = darks.variance < _HOT_SD**2 * np.median(darks.variance) + 1
    floor = _mean(darks.variance[usable])
    middle = _mean(offset[usable])
    lit = [_over_frames(f"flat {number}", flat, offset, darks.frames) for number, flat in enumerate(flats, 1)]
    pixels = int(np.count_nonzero(usable)) * (darks.frames + sum(flat.frames for flat in lit))
    method = f"{darks.frames} dark frames" + "".join(f", {flat.frames} flat" for flat in lit)
    variances = _shrunk_variance(variance, darks.frames)
    offset_map = _shrunk(offset, (variances + ROUNDING) / darks.frames)
    if not lit:
        maps = {"offset_adu": offset_map, "read_noise_adu": np.sqrt(variances)}
        return _without_gain(middle, floor, pixels, method, maps)
    gain, gains = _gain(lit, darks, usable)
    read_noise = read_noise_of(gain, floor, 0.0)
    noise_map = np.sqrt(variances) / gains
    maps = {"offset_adu": offset_map, "gain_adu_per_e": gains, "read_noise_e": noise_map}
    estimate = CameraEstimate(middle, gain, read_noise, pixels, method, floor_adu2=floor, maps=_as_maps(maps))
    return replace(estimate, why="; ".join([*estimate.doubts(), *_bent(lit, darks, usable, gain)]))


def with_dark(dark: CameraEstimate, pairs: CameraEstimate) -> CameraEstimate:
    """Put together what dark frames and pairs tell: offset and read noise from the dark, gain from the pairs."""
    if dark.floor_adu2 is None or "read_noise_adu" not in dark.maps:
        raise ValueError(f"the first estimate is of {dark.method}; it must be of dark frames alone")
    gain = pairs.gain_adu_per_e
    read_noise = read_noise_of(gain, dark.floor_adu2, 0.0)
    maps = dict(dark.maps)
    if gain.value > 0:
        offset, deviations = maps["offset_adu"], maps["read_noise_adu"]
        maps = {
            "offset_adu": offset,
            "gain_adu_per_e": np.full_like(offset, gain.value),
            "read_noise_e": deviations / gain.value,
        }
    both = replace(pairs, offset_adu=dark.offset_adu, read_noise_e=read_noise, maps=_as_maps(maps), why="")
    both = replace(both, method=f"{dark.method}; {pairs.method}", floor_adu2=dark.floor_adu2)
    return replace(both, why="; ".join(both.doubts()))


def _over_frames(name: str, frames: Frames, offset: DoubleArray | None, darks: int | None) -> _Pixels:
    if frames.ndim != 3 or frames.dtype.kind != "u":
        raise PairError(f"the {name} frames are {frames.dtype} of shape {frames.shape}; give counts, (frames, Y, X)")
    if len(frames) < _LEAST_FRAMES:
        raise PairError(f"{len(frames)} {name} frame tells no noise; give two at least, better a hundred")
    if offset is not None and frames.shape[1:] != offset.shape:
        raise PairError(f"the {name} frames have {frames.shape[1:]} pixels, the dark ones {offset.shape}; take both alike")
    levels = np.array([frame.mean(dtype=np.float64) for frame in frames])
    base = 0.0 if offset is None else float(offset.mean())
    # a lamp that flickers, or an offset that drifts, is no noise of pixels
    scales = np.ones(len(frames)) if offset is None else (levels - base) / max(levels.mean() - base, 1e-9)
    steps = levels - levels.mean() if offset is None else np.zeros(len(frames))
    total, squares = np.zeros(frames.shape[1:]), np.zeros(frames.shape[1:])
    first = frames[0].astype(np.float64)
    for frame, scale, step in zip(frames, np.where(scales > 0, scales, 1.0), steps, strict=True):
        away = (frame - base) / scale + base - step - first
        total += away
        squares += away * away
    variance = (squares - total * total / len(frames)) / (len(frames) - 1)
    top = np.iinfo(frames.dtype).max if frames.max() == np.iinfo(frames.dtype).max else frames.max()
    at_the_top = (frames >= top).sum(axis=0)
    many = at_the_top.sum() >= max(20, frames.size // 1000)
    saturated = (at_the_top > 0) if many and offset is not None else np.zeros(frames.shape[1:], bool)
    return _Pixels(total / len(frames) + first, np.maximum(variance, 0.0), len(frames), saturated)


def _mean(values: DoubleArray) -> Measured:
    return Measured(float(values.mean()), float(values.std() / np.sqrt(values.size)))


def _gain(lit: Sequence[_Pixels], darks: _Pixels, usable: NDArray[np.bool_]) -> tuple[Measured, DoubleArray]:
    """Slope of variance over mean, through the dark: of all pixels, and of each; (Y, X)."""
    weighted, weights = np.zeros_like(darks.mean), np.zeros_like(darks.mean)
    for flat in lit:
        level = np.where(usable & ~flat.saturated, flat.mean - darks.mean, 0.0)
        if not level.any():
            continue
        typical = float(np.mean(flat.variance[level > 0])) if np.any(level > 0) else 1.0
        weight = (flat.frames - 1) / (2 * max(typical, ROUNDING) ** 2)
        weighted += weight * level * (flat.variance - darks.variance)
        weights += weight * np.square(level)
    lightest = max(float(np.median(flat.mean - darks.mean)) for flat in lit)
    if lightest < _LEAST_BRIGHT_SD * np.sqrt(np.median(darks.variance) + ROUNDING) or not weights.any():
        raise PairError(
            f"the brightest flat frames are {lightest:.3g} counts above the dark ones and not saturated, or saturated; "
            "take flat frames at a quarter and at half of the camera's range"
        )
    value = float(weighted.sum() / weights.sum())
    scores = weighted - value * weights
    gain = Measured(value, float(np.sqrt(np.sum(np.square(scores))) / weights.sum()))
    told = weights > 0
    each = np.where(told, weighted / np.where(told, weights, 1.0), value)
    errors = np.where(told, 1 / np.where(told, weights, 1.0), 0.0)
    return gain, np.maximum(_shrunk(each, errors), 0.1 * value)


def _bent(lit: Sequence[_Pixels], darks: _Pixels, usable: NDArray[np.bool_], gain: Measured) -> list[str]:
    """Say where the variance does not rise in proportion to the mean."""
    for number, flat in enumerate(lit, 1):
        good = usable & ~flat.saturated
        if not good.any():
            return [f"flat {number} is saturated and was left out"]
        level = float(np.mean((flat.mean - darks.mean)[good]))
        slope = float(np.mean((flat.variance - darks.variance)[good])) / level if level > 0 else 0.0
        if len(lit) > 1 and abs(slope - gain.value) > _BENT * gain.value + 5 * gain.error:
            return [f"flat {number} alone gives a gain of {slope:.3g}: the camera is not linear there, or the light changed"]
    return []


def _shrunk(values: DoubleArray, error_variance: DoubleArray) -> DoubleArray:
    """Draw what is not known of single pixels towards what is usual."""
    middle = float(np.median(values))
    spread = float((1.4826 * np.median(np.abs(values - middle))) ** 2)
    real = max(0.0, spread - float(np.median(error_variance)))
    share = real / np.maximum(real + error_variance, 1e-12)
    # what is far off beyond its error is so: a noisy pixel
    away = np.square(values - middle)
    share = np.maximum(share, 1 - 16 * error_variance / np.maximum(away, 1e-12))
    return np.asarray(middle + share * (values - middle))


def _shrunk_variance(variance: DoubleArray, frames: int) -> DoubleArray:
    """Do the same with variances, by their logarithms, whose error is the same for every pixel."""
    logarithm = np.log(np.maximum(variance, 0.02))
    error = float(polygamma(1, (frames - 1) / 2))
    rough = np.exp(_shrunk(logarithm, np.full(variance.shape, error)))
    # the mean of the variances is what is known best
    return np.asarray(rough * (variance.mean() / rough.mean()))


def _without_gain(offset: Measured, floor: Measured, pixels: int, method: str, maps: dict[str, Any]) -> CameraEstimate:
    unknown = Measured(float("nan"), float("inf"))
    counts = rms(Measured(floor.value - ROUNDING, floor.error))
    why = (
        f"the read noise is {counts.value:.3g} counts; how many electrons that is, and the gain, dark frames do not tell: give "
        "flat frames, or pairs"
    )
    return CameraEstimate(offset, unknown, unknown, pixels, method, why, floor_adu2=floor, maps=_as_maps(maps))


def _as_maps(maps: dict[str, Any]) -> dict[str, FloatArray]:
    return {name: np.asarray(values, np.float32) for name, values in maps.items()}
