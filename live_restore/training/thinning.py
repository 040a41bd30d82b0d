"""Less light after the fact: an image as the camera would have taken it with a part of its photons.

Receives camera counts and the camera's noise; hands on camera counts. It does not know files or patches.

Photons that arrive at random and are each kept with a probability arrive at random still: a thinned image is a valid image at
lower light. Its shot noise is exact. Counts are electrons and read noise together, of which only the electrons may be
thinned; the approximation is that counts, rounded to whole electrons, stand for them, and that read noise is then filled up
with normal noise to what it was. Mean and variance are right at any brightness; only of pixels with fewer electrons than
read noise is the shape of the distribution not exact. Pixels whose read noise is far from the stated one (hot pixels) become
less hot.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.restore.noise import CameraNoise
from live_restore.training.targets import Pixels

FloatArray = NDArray[np.float32]
Number = float | FloatArray


def thin(counts: Pixels, kept: float, camera: CameraNoise, rng: np.random.Generator) -> FloatArray:
    """Keep a part of the photons of an image.

    Parameters
    ----------
    counts : ndarray, (..., Y, X) or any shape if the camera has no maps
        Camera counts.
    kept : float
        Above 0 and up to 1; with 1 nothing is changed.
    camera : CameraNoise
        Of these pixels.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, float32
        Whole counts where the image had whole counts, cut off at the ends of its dtype as the camera does.

    Raises
    ------
    ValueError
        If `kept` is not above 0 and up to 1.
    """
    if not 0 < kept <= 1:
        raise ValueError(f"kept {kept:g} must be above 0 and at most 1; light can be taken away, not added")
    levels = counts.astype(np.float32)
    if kept == 1:
        return levels
    offset, gain, read_noise = (_float32(x) for x in (camera.offset_adu, camera.gain_adu_per_e, camera.read_noise_e))
    electrons = (levels - offset) / gain
    whole = np.maximum(np.rint(electrons), 0)
    # read noise below zero and the rounding go along without lots being drawn, so that the mean stays exact
    rest = electrons - whole
    thinned = rng.binomial(whole.astype(np.int64), kept) + kept * rest
    # what lots drawn for read noise have added is not to be added again
    missing = (1 - kept**2) * read_noise**2 + kept * (1 - kept) * rest
    thinned += np.sqrt(np.maximum(missing, 0)) * rng.standard_normal(levels.shape, np.float32)
    return as_counts(offset + gain * thinned, counts.dtype)


def as_counts(levels: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> FloatArray:
    """Round to whole counts and cut off at the ends of a dtype, if it is one of whole numbers; float32."""
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        levels = np.clip(np.rint(levels), limits.min, limits.max)
    return levels.astype(np.float32)


def camera_window(camera: CameraNoise, shape: tuple[int, ...], window: tuple[slice, ...] | None) -> CameraNoise:
    """Give the camera of a part of an image, ([Z,] Y, X); of another size than its maps, or of no place, its medians."""
    if camera.shape is None:
        return camera
    fits = window is not None and camera.shape == shape[-2:]

    def part(value: Number) -> Number:
        if not isinstance(value, np.ndarray):
            return value
        return value[window[-2:]] if fits and window is not None else float(np.median(value))

    return CameraNoise(part(camera.offset_adu), part(camera.gain_adu_per_e), part(camera.read_noise_e))


def _float32(value: Number) -> FloatArray:
    return np.asarray(value, np.float32)
