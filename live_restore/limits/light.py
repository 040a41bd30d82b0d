"""Less light and more blur: what a camera would have seen of a field that is known.

Receives photon maps, light levels, widths of blur and the camera's noise; hands on raw frames and the counts they have on
average. Pure: the same seed gives the same frames. It does not know files, networks, nor what is measured.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from live_restore.acquire.simulate.camera import build_camera
from live_restore.errors import ImageError
from live_restore.intensity import Pixels
from live_restore.restore.noise import CameraNoise

FloatArray = NDArray[np.float32]
Counts = NDArray[np.uint16]

# Photons per pixel that are spoken of are those that one pixel in a thousand exceeds, as in training and in the trust check.
PEAK_PERCENTILE = 99.9
# The darkest pixels stand for no light, where nobody said the offset.
_DARK_PERCENTILE = 0.1
# A tenth of the pixels of an image show no specimen, as the trust check has it.
BACKGROUND_PERCENTILE = 10.0
# Specimen is what exceeds this share of the way from the background to the peak.
_FOREGROUND_SHARE = 0.25
# Electrons per photon of scientific CMOS cameras, where nobody said.
_USUAL_EFFICIENCY = 0.7
_FULL_SCALE_ADU = 65535.0
# So many per cent of the pixels of a noisy image differ from their neighbours by less than so many sd; the median would be 0
# where counts are few.
_MOST_SMOOTH, _SD_THERE = 80.0, 1.2816


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field as it is known from high light.

    Attributes
    ----------
    name : str
    photons : ndarray, (Z, Y, X), float32
        Expected photons per pixel, scaled to a peak of 1; not negative.
    pixel_size_um : float or None
        In Y and X.
    """

    name: str
    photons: FloatArray
    pixel_size_um: float | None = None

    @property
    def foreground(self) -> float:
        """Mean photons of the pixels that show specimen, for a peak of 1."""
        background = float(np.percentile(self.photons, BACKGROUND_PERCENTILE))
        specimen = self.photons[self.photons > background + _FOREGROUND_SHARE * (1 - background)]
        return float(specimen.mean()) if specimen.size else background


def field_of(name: str, counts: Pixels, offset_adu: float | None = None, pixel_size_um: float | None = None) -> Field:
    """Take a high-light image for the truth.

    Parameters
    ----------
    name : str
    counts : ndarray, (Z, Y, X)
        Any real dtype.
    offset_adu : float or None
        Counts without light; None: what one pixel in a thousand stays below.
    pixel_size_um : float or None

    Raises
    ------
    ImageError
        If it shows nothing.
    """
    dark = float(np.percentile(counts, _DARK_PERCENTILE)) if offset_adu is None else offset_adu
    light = np.maximum(counts.astype(np.float32) - np.float32(dark), 0)
    peak = float(np.percentile(light, PEAK_PERCENTILE))
    if not np.isfinite(peak) or not peak > float(np.percentile(light, BACKGROUND_PERCENTILE)):
        raise ImageError(f"'{name}' shows no structure above {dark:g} counts; give high-light images of a specimen")
    return Field(name, light / np.float32(peak), pixel_size_um)


def own_noise(field: Field) -> float:
    """Estimate the noise that a high-light image has itself, as a share of its peak: scatter from pixel to pixel.

    From second differences along Y and X, robustly; of smooth images nothing is left.
    """
    across = field.photons[..., :-2] - 2 * field.photons[..., 1:-1] + field.photons[..., 2:]
    both = across[:, :-2] - 2 * across[:, 1:-1] + across[:, 2:]
    return float(np.percentile(np.abs(both), _MOST_SMOOTH) / _SD_THERE / 6)


def noise_at(field: Field, photons: float, noise: CameraNoise) -> float:
    """Noise of the median pixel of an exposure, as a share of its peak."""
    electrons = efficiency(noise) * photons
    variance = electrons * float(np.median(field.photons)) + float(np.median(noise.dark_variance_e2))
    return float(np.sqrt(variance) / electrons)


def crop(counts: Pixels, size: int, planes: int) -> Pixels:
    """Cut the busiest window of at most `size` pixels and `planes` planes out of a stack, (Z, Y, X)."""
    depth, height, width = (min(most, side) for most, side in zip((planes, size, size), counts.shape, strict=True))
    flat = counts.max(axis=0).astype(np.float32)
    # the square root keeps one bright blob from outweighing a whole neighbourhood
    detail = np.sqrt(np.abs(gaussian_filter(flat, 1.0) - gaussian_filter(flat, 4.0)))
    top, left = _fullest(uniform_filter(detail, (height, width), mode="constant"), (height, width))
    window = counts[:, top : top + height, left : left + width]
    spread = uniform_filter(window.reshape(len(window), -1).std(axis=1, dtype=np.float64), depth, mode="constant")
    first = int(np.argmax(spread[depth // 2 : len(window) - (depth - 1) // 2]))
    return window[first : first + depth]


def _fullest(sums: FloatArray, shape: tuple[int, int]) -> tuple[int, int]:
    (rows, columns), (height, width) = sums.shape, shape
    inside = sums[height // 2 : rows - (height - 1) // 2, width // 2 : columns - (width - 1) // 2]
    y, x = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(y), int(x)


def blurred(photons: FloatArray, sigma_px: float) -> FloatArray:
    """Blur every plane by a Gaussian of this sigma; the light stays the same; (Z, Y, X)."""
    if sigma_px == 0:
        return photons
    widened: FloatArray = gaussian_filter(photons, (0, sigma_px, sigma_px), mode="reflect")
    return widened


def expose(photons: FloatArray, noise: CameraNoise, rng: np.random.Generator) -> Counts:
    """Take one frame per plane: shot noise, the camera's own, rounding, saturation.

    Parameters
    ----------
    photons : ndarray, (Z, Y, X), float32
        Expected photons per pixel.
    noise : CameraNoise
        Its maps, if it has any, of (Y, X).
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, (Z, Y, X), uint16
    """
    electrons = rng.poisson(efficiency(noise) * photons.astype(np.float64)).astype(np.float64)
    electrons += noise.read_noise_e * rng.standard_normal(photons.shape)
    most = _FULL_SCALE_ADU if noise.saturation_adu is None else noise.saturation_adu
    counts = np.clip(np.rint(noise.offset_adu + noise.gain_adu_per_e * electrons), 0, np.floor(most))
    return np.asarray(counts, np.uint16)


def mean_counts(photons: FloatArray, noise: CameraNoise) -> FloatArray:
    """Give the counts that frames have on average, with the sensor's fixed pattern; (Z, Y, X)."""
    return np.asarray(noise.offset_adu + noise.gain_adu_per_e * (efficiency(noise) * photons), np.float32)


def true_counts(photons: FloatArray, noise: CameraNoise) -> FloatArray:
    """Give the counts that a sensor without a fixed pattern would have on average: the truth to be restored; (Z, Y, X)."""
    offset, gain = float(np.median(noise.offset_adu)), float(np.median(noise.gain_adu_per_e))
    return np.asarray(offset + gain * efficiency(noise) * photons, np.float32)


def efficiency(noise: CameraNoise) -> float:
    """Electrons per photon, as stated or as usual."""
    return _USUAL_EFFICIENCY if noise.quantum_efficiency is None else noise.quantum_efficiency


def usual_camera(shape: tuple[int, int], seed: int = 0) -> CameraNoise:
    """Simulate a scientific CMOS camera, calibrated pixel by pixel, of this (Y, X) shape."""
    camera = build_camera(seed, shape)
    maps = camera.offset_adu, camera.gain_adu_per_e, camera.read_noise_e
    return CameraNoise(*maps, quantum_efficiency=camera.quantum_efficiency, saturation_adu=_FULL_SCALE_ADU)


def for_shape(noise: CameraNoise, shape: tuple[int, int]) -> CameraNoise:
    """Cut maps to the middle of the sensor; those that are too small become their medians."""
    if noise.shape is None or noise.shape == shape:
        return noise
    room = [sensor - side for sensor, side in zip(noise.shape, shape, strict=True)]
    window = tuple(slice(free // 2, free // 2 + side) for free, side in zip(room, shape, strict=True))

    def cut(values: Any) -> Any:
        if values is None or not np.ndim(values):
            return values
        return values[window] if min(room) >= 0 else float(np.median(values))

    hot = noise.hot[window] if noise.hot is not None and min(room) >= 0 else None
    maps = {name: cut(getattr(noise, name)) for name in ("offset_adu", "gain_adu_per_e", "read_noise_e")}
    return replace(noise, **maps, hot=hot)


def describe_camera(noise: CameraNoise) -> str:
    """Say the camera in words."""
    offset, gain, read = (float(np.median(value)) for value in (noise.offset_adu, noise.gain_adu_per_e, noise.read_noise_e))
    each = ", pixel by pixel (medians)" if noise.shape else ""
    stated = "" if noise.quantum_efficiency is not None else " (not stated: supposed)"
    return (
        f"offset {offset:.4g} counts, gain {gain:.3g} counts per electron, read noise {read:.2g} electrons{each}, "
        f"{efficiency(noise):.2g} electrons per photon{stated}"
    )
