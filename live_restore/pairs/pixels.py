"""Figures of the pixels of a pair: how many are saturated, how many show something, and the signal-to-noise ratio.

Receives images of camera counts; hands on numbers. It does not know what is too much.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from live_restore.pairs.shift import Shift, flatten, overlap
from live_restore.restore.consistency import Sensor
from live_restore.restore.noise import CameraNoise, estimate_noise, robust_variance

Pixels = NDArray[Any]
FloatArray = NDArray[np.float32]

# Largest counts of cameras of 8 to 16 bits, and how many equal pixels at the top of an image are a plateau anyway.
_FULL_SCALES = (255, 1023, 2047, 4095, 8191, 16383, 65535)
_PLATEAU_SHARE, _PLATEAU_COUNTS = 1e-3, 200
# A structure is what rises so many standard deviations of the noise above its surroundings, between these sigmas.
_RISES_SD, _FINE_PX, _WIDE_PX = 6.0, 1.5, 12.0
# What a Gaussian of the finer sigma leaves of white noise.
_LEFT_OF_NOISE = 1 / (2 * np.sqrt(np.pi) * _FINE_PX)
# Quantiles that stand for background and peak, as in the trust check.
_BACKGROUND, _PEAK = 0.1, 0.999
_SAMPLE = 400_000


def saturated_share(pixels: Pixels, saturation_adu: float | None = None) -> float:
    """Give the share of saturated pixels.

    Parameters
    ----------
    pixels : ndarray, any shape
    saturation_adu : float, optional
        From which counts on. Without it: the largest number of some bit depth, or any plateau at the top of the image.
    """
    largest = pixels.max()
    if saturation_adu is not None:
        return float(np.count_nonzero(pixels >= saturation_adu) / pixels.size)
    at_top = np.count_nonzero(pixels == largest)
    known = pixels.dtype.kind == "u" and int(largest) in _FULL_SCALES
    plateau = largest > _PLATEAU_COUNTS and at_top > _PLATEAU_SHARE * pixels.size
    return float(at_top / pixels.size) if known or plateau else 0.0


def filled_share(high: Pixels) -> float:
    """Give the share of pixels that rise above their surroundings by more than noise would; 0 of an empty field.

    Parameters
    ----------
    high : ndarray, ([Z,] Y, X)
        Of a stack, its mean along Z is looked at.
    """
    image = flatten(high)
    if min(image.shape) < 3:
        return 0.0
    across = image[:, :-2] - 2 * image[:, 1:-1] + image[:, 2:]  # (Y, X - 2)
    both = across[:-2] - 2 * across[1:-1] + across[2:]  # (Y - 2, X - 2)
    sd = np.sqrt(robust_variance(both.reshape(-1) / 6))
    rise = gaussian_filter(image, _FINE_PX) - gaussian_filter(image, _WIDE_PX)
    return float(np.count_nonzero(rise > _RISES_SD * _LEFT_OF_NOISE * sd) / rise.size) if sd > 0 else 1.0


def live_snr(low: Pixels, high: Pixels, shift: Shift, slope: float, noise: CameraNoise | None) -> float | None:
    """Signal-to-noise ratio of the low image as the trust check defines it, with the high image for the restored one.

    Parameters
    ----------
    low, high : ndarray, ([Z,] Y, X)
    shift : Shift
        Of high against low.
    slope : float
        Counts of low per count of high, above 0.
    noise : CameraNoise or None
        None: estimated from the scatter of low about high.

    Returns
    -------
    float or None
        None of images too small to tell.
    """
    mine, other = (pixels.reshape(-1, *pixels.shape[-2:]) for pixels in overlap(low, high, shift))  # (Z, Y, X)
    if min(mine.shape[-2:]) < 8:
        return None
    step = max(1, round((mine.size / _SAMPLE) ** (1 / 3))) if len(mine) > 1 else 1
    mine, other = _as_counts(mine[::step]), other[::step].astype(np.float32)
    scale = np.float32(1.0)
    if low.dtype.kind == "f":  # of any unit: bring them to about the size of counts
        scale = np.float32(1000 / max(float(mine.std()), 1e-20))
        mine = mine * scale
    middle = float(other.mean())
    fitted = (np.float32(slope) * scale * (other - np.float32(middle)) + np.float32(mine.mean())).astype(np.float32)
    known = noise or estimate_noise(mine, fitted)
    sensor = Sensor(known, (mine.shape[1], mine.shape[2]))
    electrons = (np.quantile(_sampled(fitted), (_BACKGROUND, _PEAK)) - sensor.typical_offset) * sensor.typical_per_count
    background, peak = (max(0.0, float(value)) for value in electrons)
    return float(f"{(peak - background) / np.sqrt(peak + sensor.typical_variance_e2):.4g}")


def _as_counts(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype.kind == "u" else pixels.astype(np.float32)


def _sampled(pixels: FloatArray) -> FloatArray:
    flat = pixels.reshape(-1)
    return flat[:: 1 + flat.size // _SAMPLE]
