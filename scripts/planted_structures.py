"""Structures of known strength, planted into restorations or left out of them, to see whether the trust check finds them.

Receives rendered fields and cameras; hands on raw frames, restorations, and where what was planted. A structure's strength is
its matched-filter SNR in raw data that contain it: ``sqrt(sum(s² / variance))``, s its electrons per pixel, the variance
that of the field with it, pixel by pixel.

- *invented*: the structure is added to the restored image, and raw knows nothing of it;
- *erased*: its photons are added to the raw frame (Poisson counts add), and the restored image of before knows nothing of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from live_restore.acquire.simulate.camera import Camera, build_camera
from live_restore.acquire.simulate.specimen import Kind, example_field
from live_restore.restore.noise import CameraNoise
from live_restore.restore.trust import Trust

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

# Half the side of the square that a structure is drawn in, and how far apart the middles are at least.
REACH = 28
SPACING = 84
FILAMENT_WIDTH_PX = 1.2


@dataclass(frozen=True)
class Structure:
    """A Gaussian blob of this sigma, or a straight filament of this length; pixels."""

    kind: str
    size_px: float

    def __str__(self) -> str:
        return (
            f"blob, \N{GREEK SMALL LETTER SIGMA} {self.size_px:g} px"
            if self.kind == "blob"
            else f"filament, {self.size_px:g} px"
        )

    def draw(self, rng: np.random.Generator) -> DoubleArray:
        """Draw it about the middle of a square, at random within the middle pixel, and turned; its brightest is about 1."""
        y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1] - rng.uniform(-0.5, 0.5, (2, 1, 1))
        if self.kind == "blob":
            return np.asarray(np.exp(-(y * y + x * x) / (2 * self.size_px**2)))
        angle, width = rng.uniform(0, np.pi), FILAMENT_WIDTH_PX
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        ends = [erf((along + side * self.size_px / 2) / (width * 2**0.5)) for side in (1, -1)]
        return np.asarray(np.exp(-(across**2) / (2 * width**2)) * (ends[0] - ends[1]) / 2)

    @property
    def radius_px(self) -> int:
        """How far from its middle it may be found."""
        return int(np.ceil(1.5 * self.size_px if self.kind == "blob" else 0.4 * self.size_px)) + 1


@dataclass(frozen=True, eq=False)
class Exposed:
    """A field, its camera, and one frame of it: all (Y, X)."""

    kind: Kind
    peak_photons: float
    electrons: DoubleArray
    camera: Camera
    raw: NDArray[np.uint16]

    @classmethod
    def take(cls, kind: Kind, peak_photons: float, seed: int, shape: tuple[int, int] = (512, 512)) -> "Exposed":
        """Render a field and take a frame of it with a camera of its own."""
        photons, camera = example_field(seed, shape, kind, peak_photons=peak_photons), build_camera(seed, shape)
        raw = camera.expose(photons, np.random.default_rng([seed, round(peak_photons)]))
        return cls(kind, peak_photons, camera.quantum_efficiency * photons.astype(np.float64), camera, raw)

    @property
    def noise(self) -> CameraNoise:
        """Return what a full calibration of the camera gives."""
        camera = self.camera
        efficiency = camera.quantum_efficiency
        return CameraNoise(camera.offset_adu, camera.gain_adu_per_e, camera.read_noise_e, quantum_efficiency=efficiency)

    @property
    def gain(self) -> float:
        """Typical counts per electron, in which restored images are."""
        return float(np.median(self.camera.gain_adu_per_e))

    @property
    def perfect(self) -> FloatArray:
        """What a network without error would give: expected counts of a sensor without a fixed pattern."""
        return np.asarray(float(np.median(self.camera.offset_adu)) + self.gain * self.electrons, np.float32)


@dataclass(frozen=True)
class Planted:
    """One structure, where, how strong, and whether it was found."""

    structure: Structure
    snr: float
    way: str
    found: bool


Check = Callable[[NDArray[np.uint16], FloatArray], Trust]


def plant(
    exposed: Exposed,
    restored: FloatArray,
    structures: Sequence[Structure],
    snrs: Sequence[float],
    rng: np.random.Generator,
    check: Check,
) -> Iterator[Planted]:
    """Plant structures all over a frame, once into its restoration and once into raw only, and look for them.

    Places where the restoration as it is was raised already are left out: to find them there would be no merit.

    Parameters
    ----------
    exposed : Exposed
    restored : ndarray, (Y, X), float32
        Counts.
    structures, snrs : sequences
        To choose from, evenly.
    rng : numpy.random.Generator
    check : callable (raw (Y, X), restored (Y, X)) -> Trust
    """
    before = check(exposed.raw, restored)
    limit = round(10 * before.figures["threshold"])
    added, planted = np.zeros(exposed.raw.shape), []
    for y, x in _places(exposed.raw.shape, rng):
        structure, snr = structures[rng.integers(len(structures))], float(snrs[rng.integers(len(snrs))])
        square = slice(y - REACH, y + REACH + 1), slice(x - REACH, x + REACH + 1)
        added[square] += of_strength(structure.draw(rng), snr, exposed, square)
        planted.append((structure, snr, y, x))
    shot = exposed.camera.gain_adu_per_e * rng.poisson(added)
    raw = np.minimum(np.rint(exposed.raw + shot), 65535).astype(np.uint16)
    maps = {
        "erased": check(raw, restored).map[0] >= limit,
        "invented": check(exposed.raw, np.asarray(restored + exposed.gain * added, np.float32)).map[0] <= -limit,
    }
    for structure, snr, y, x in planted:
        reach = structure.radius_px
        window = slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
        if not np.any(np.abs(before.map[0][window]) >= limit):
            for way, raised in maps.items():
                yield Planted(structure, snr, way, bool(np.any(raised[window])))


def _places(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    loose = (SPACING - 2 * REACH) // 2
    for y in range(REACH + loose, shape[0] - REACH - loose, SPACING):
        for x in range(REACH + loose, shape[1] - REACH - loose, SPACING):
            dy, dx = rng.integers(-loose, loose + 1, 2)
            yield y + int(dy), x + int(dx)


def of_strength(shape: DoubleArray, snr: float, exposed: Exposed, square: tuple[slice, slice]) -> DoubleArray:
    """Scale a structure to electrons per pixel of this matched-filter SNR."""
    camera = exposed.camera
    read_noise, gain = (values[square].astype(np.float64) for values in (camera.read_noise_e, camera.gain_adu_per_e))
    variance = exposed.electrons[square] + read_noise**2 + 1 / (12 * gain**2)
    low, high = 0.0, 1e5
    for _ in range(40):
        middle = (low + high) / 2
        too_weak = np.sqrt(np.sum((middle * shape) ** 2 / (variance + middle * shape))) < snr
        low, high = (middle, high) if too_weak else (low, middle)
    return low * shape
