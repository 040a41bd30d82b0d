"""The images that are restored while time is measured: rendered cells at low light, through a simulated camera.

Receives a shape; hands on counts. It does not know who restores them.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.restore.noise import CameraNoise

_PEAK_PHOTONS = 20.0
# One field of cells is rendered up to this size, and repeated in larger images.
_FIELD_PX = 256
_FIELD_PLANES = 16


def low_light(shape: tuple[int, int, int], seed: int = 1) -> tuple[NDArray[np.uint16], CameraNoise]:
    """Render a low-light volume.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X).
    seed : int
        Of specimen and camera.

    Returns
    -------
    counts : ndarray, (Z, Y, X), uint16
    noise : CameraNoise
        Of the camera that took it.
    """
    small = (min(shape[0], _FIELD_PLANES), *(max(32, min(size, _FIELD_PX)) for size in shape[1:]))
    photons = _photons(seed, small)
    repeats = [-(-size // tile) for size, tile in zip(shape, small, strict=True)]
    planes, height, width = shape
    photons = np.tile(photons, repeats)[:planes, :height, :width]
    camera = build_camera(seed, (height, width))
    noise = CameraNoise(camera.offset_adu, camera.gain_adu_per_e, camera.read_noise_e)
    return camera.expose(photons, np.random.default_rng(seed)), noise


@lru_cache(maxsize=4)
def _photons(seed: int, shape: tuple[int, int, int]) -> Any:
    return example_field(seed, shape, peak_photons=_PEAK_PHOTONS)
