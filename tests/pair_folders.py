"""Pairs as cameras take them, rendered cells at low and at high light, and folders of them as files."""

from functools import cache
from pathlib import Path

import numpy as np
import tifffile

from live_restore.acquire.simulate.specimen import example_field

GAIN, OFFSET, READ_NOISE_E = 2.2, 100.0, 1.6
RATIO = 30.0


@cache
def cells(seed=3, shape=(160, 160), kind="filaments", z_step_um=0.3):
    """Expected photons, 1 at the peak; shape (Y, X) or (Z, Y, X)."""
    return example_field(seed, shape, kind, peak_photons=1.0, z_step_um=z_step_um)


def camera(photons, seed=0):
    """Counts of these expected photons, uint16."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(np.clip(photons, 0, None)) + rng.normal(0, READ_NOISE_E, np.shape(photons))
    return np.clip(np.rint(GAIN * electrons + OFFSET), 0, 65535).astype(np.uint16)


def moved(image, *px):
    """Shift an image by fractions of a pixel along its last axes, round the edges."""
    from scipy.ndimage import fourier_shift

    shift = (0.0,) * (image.ndim - len(px)) + px
    return np.fft.ifftn(fourier_shift(np.fft.fftn(image), shift)).real


def pair(peak=20.0, seed=0, field=None):
    """Take one field at low and at high light."""
    field = cells() if field is None else field
    return camera(peak * field, 2 * seed), camera(RATIO * peak * field, 2 * seed + 1)


def write(folder: Path, pairs, low="low", high="high"):
    """Write pairs by name as plain TIFFs; a side that is None is left out."""
    for side in (low, high):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for name, images in pairs.items():
        for side, image in zip((low, high), images, strict=True):
            if image is not None:
                tifffile.imwrite(folder / side / f"{name}.tif", image, photometric="minisblack")
    return folder
