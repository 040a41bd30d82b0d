"""Low-light images with their truth, made up from seeds: what the bundled networks are trained and scored on.

Receives seeds; hands on rendered fields, exposures of them, and batches of patches, planes and stacks alike. It does not
know networks.

How intensities are treated, which matters more than the network: the raw image is scaled by its own percentiles 2 and 99.8,
and the clean one *by the same two numbers* (CSBDeep takes each image's own). A restored image, scaled back by what was
measured on the raw one, is then in camera counts: it has the raw image's mean brightness, without its noise. The percentiles
are those of the whole image or stack, as in use; a patch is cut out afterwards.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.simulate.camera import Camera, build_camera
from live_restore.acquire.simulate.specimen import KINDS, Kind, example_field
from live_restore.intensity import IntensityRange, measure_percentiles

FloatArray = NDArray[np.float32]
Batches = Iterator[tuple[FloatArray, FloatArray]]

# Where seeds of fields and cameras start: small ones are left to whoever plays with the simulator, so that a demonstration
# never shows what was trained on.
TRAINING_SEED = 500_000
HELD_OUT_SEED = 1_000_000
TRAINED_PEAK_PHOTONS = (4.0, 100.0)
PIXEL_SIZES_UM = (0.065, 0.16)
Z_STEPS_UM = (0.3, 0.6)
CAMERAS = 8


@dataclass(frozen=True, eq=False)
class Exposure:
    """One raw image and its truth, ([Z,] Y, X): in counts, and the counts it has on average on a perfect sensor."""

    raw: NDArray[np.uint16]
    clean: FloatArray


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How patches are cut.

    Attributes
    ----------
    patches : tuple of ([Z,] Y, X)
        Sizes, of which every batch draws one.
    exposures : int
        Fresh ones for every batch.
    patches_per_exposure : int
    """

    patches: tuple[tuple[int, ...], ...]
    exposures: int
    patches_per_exposure: int

    @property
    def batch(self) -> int:
        """Patches in a batch."""
        return self.exposures * self.patches_per_exposure


def render_fields(first_seed: int, number: int, shape: tuple[int, ...]) -> list[FloatArray]:
    """Render fields of all kinds in turn, at random pixel sizes, apertures and z steps; photons with a peak of 1."""
    return [render_field(first_seed + place, KINDS[place % len(KINDS)], shape) for place in range(number)]


def render_field(seed: int, kind: Kind, shape: tuple[int, ...]) -> FloatArray:
    """Render one field as the seed would have it; ([Z,] Y, X), photons with a peak of 1."""
    rng = np.random.default_rng([seed, 1])
    pixel_size_um = float(np.exp(rng.uniform(*np.log(PIXEL_SIZES_UM))))
    na = float(rng.choice([0.8, 1.0, 1.2]))
    z_step_um = float(rng.uniform(*Z_STEPS_UM))
    return example_field(seed, shape, kind, pixel_size_um, peak_photons=1.0, z_step_um=z_step_um, na=na)


def build_cameras(first_seed: int, shape: tuple[int, ...]) -> list[Camera]:
    """Build the cameras that fields of this shape, ([Z,] Y, X), are exposed with."""
    height, width = shape[-2:]
    return [build_camera(first_seed + place, (height, width)) for place in range(CAMERAS)]


def expose(field: FloatArray, peak_photons: float, camera: Camera, rng: np.random.Generator) -> Exposure:
    """Take an image of a field at a light level."""
    photons = peak_photons * field
    # the truth has no fixed pattern: the network is to remove that as well
    offset, gain = float(np.median(camera.offset_adu)), float(np.median(camera.gain_adu_per_e))
    return Exposure(camera.expose(photons, rng), offset + gain * camera.quantum_efficiency * photons)


def in_network_units(exposure: Exposure) -> tuple[FloatArray, FloatArray, IntensityRange]:
    """Scale both by the percentiles of the whole raw image; two (1, [Z,] Y, X) and the range."""
    measured = measure_percentiles(exposure.raw[None])
    return measured.scale(exposure.raw[None]), measured.scale(exposure.clean[None]), measured


def draw_batches(fields: Sequence[FloatArray], cameras: Sequence[Camera], how: Sampling, steps: int, seed: int) -> Batches:
    """Draw batches of raw and clean patches, (N, 1, [Z,] Y, X) each, from fresh exposures."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        wanted = how.patches[rng.integers(len(how.patches))] if len(how.patches) > 1 else how.patches[0]
        patch = tuple(min(sizes) for sizes in zip(wanted, fields[0].shape, strict=True))
        pairs = [
            _turn(_crop(both, patch, rng), rng)
            for both in (_draw_exposure(fields, cameras, rng) for _ in range(how.exposures))
            for _ in range(how.patches_per_exposure)
        ]
        raw, clean = np.stack(pairs, axis=1)  # (N, 1, [Z,] Y, X) each
        yield raw, clean


def _draw_exposure(fields: Sequence[FloatArray], cameras: Sequence[Camera], rng: np.random.Generator) -> FloatArray:
    """Expose any field at any light level; raw and clean in network units, (2, 1, [Z,] Y, X)."""
    peak_photons = float(np.exp(rng.uniform(*np.log(TRAINED_PEAK_PHOTONS))))
    # some specimens shine everywhere: up to half the peak as even background
    field = fields[rng.integers(len(fields))] + np.float32(max(0.0, rng.uniform(-0.5, 0.5)))
    raw, clean, _ = in_network_units(expose(field, peak_photons, cameras[rng.integers(len(cameras))], rng))
    return np.stack([raw, clean])


def _crop(both: FloatArray, patch: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    room = zip(both.shape[-len(patch) :], patch, strict=True)
    starts = [int(rng.integers(0, side - size + 1)) for side, size in room]
    return both[..., *(slice(start, start + size) for start, size in zip(starts, patch, strict=True))]


def _turn(both: FloatArray, rng: np.random.Generator) -> FloatArray:
    turned = np.rot90(both, rng.integers(4), axes=(-2, -1))
    return turned[..., ::-1] if rng.random() < 0.5 else turned


def fingerprint(fields: Sequence[FloatArray]) -> str:
    """Hash what was rendered, hexadecimal."""
    digest = hashlib.sha256()
    for field in fields:
        digest.update(np.ascontiguousarray(field))
    return digest.hexdigest()
