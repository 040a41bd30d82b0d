"""The rendered low-light image with which an imported network is tried out.

Receives a shape; hands on camera counts as a dim fluorescence image would have them: blobs, filaments, few photons, read
noise. The same seed gives the same image. It does not know networks or normalisation.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_OFFSET_ADU = 100.0
_GAIN_ADU_PER_E = 2.2
_READ_NOISE_E = 1.6
_BACKGROUND_E = 2.0
_PEAK_E = 40.0

_BLOB_SIGMA_PIXELS = 4.0
_FILAMENT_SIGMA_PIXELS = 1.2
# Per pixel of the last plane; a filament is this many steps of at most a pixel.
_BLOBS = 1 / 1000
_FILAMENTS = 1 / 2000
_STEPS = 200


def render_counts(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint16]:
    """Render a low-light image.

    Parameters
    ----------
    shape : tuple of int
        (C, [Z,] Y, X); every channel has its own structures.
    seed : int

    Returns
    -------
    ndarray, `shape`, uint16, camera counts
        About 100 of offset, and up to 40 photo-electrons of 2.2 counts each.
    """
    dice = np.random.default_rng(seed)
    electrons = np.stack([_structures(shape[1:], dice) for _ in range(shape[0])]) * _PEAK_E + _BACKGROUND_E
    detected = dice.poisson(electrons) + dice.normal(0, _READ_NOISE_E, shape)
    return np.clip(np.rint(_OFFSET_ADU + _GAIN_ADU_PER_E * detected), 0, 65535).astype(np.uint16)


def _structures(shape: tuple[int, ...], dice: np.random.Generator) -> NDArray[np.float64]:
    """Draw blobs and filaments without noise, 0..1."""
    plane = shape[-1] * shape[-2]
    blobs, filaments = np.zeros(shape), np.zeros(shape)
    blobs[tuple(dice.integers(0, shape, (max(3, round(plane * _BLOBS)), len(shape))).T)] = 1
    for _ in range(max(2, round(plane * _FILAMENTS))):
        filaments[_filament(shape, dice)] = 1
    blurred = _unit(gaussian_filter(blobs, _BLOB_SIGMA_PIXELS)) + _unit(gaussian_filter(filaments, _FILAMENT_SIGMA_PIXELS))
    return _unit(blurred)


def _filament(shape: tuple[int, ...], dice: np.random.Generator) -> tuple[NDArray[np.intp], ...]:
    """Walk in a direction that turns slowly; indices of the pixels on the way, around the edges if need be."""
    start, heading = dice.uniform(0, shape), dice.normal(size=len(shape))
    headings = heading + np.cumsum(dice.normal(0, 0.1, (_STEPS, len(shape))), axis=0)  # (steps, axes)
    steps = headings / np.linalg.norm(headings, axis=1, keepdims=True)
    places = (start + np.cumsum(steps, axis=0)).astype(np.intp) % shape
    return tuple(places.T)


def _unit(image: NDArray[np.float64]) -> NDArray[np.float64]:
    peak: np.float64 = image.max()
    return image / peak
