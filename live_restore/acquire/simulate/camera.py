"""A simulated scientific CMOS camera: expected photons become the counts of one exposure.

Receives photon maps and a random generator; hands on 16-bit frames, and the exact mean and noise of every pixel, against
which noise estimates can be tested. It does not know what the photons show.

The maps are drawn from distributions fitted to published calibrations of such cameras (512 x 512 pixels of gain and
variance, 256 x 256 of offset), so that every seed is another camera of the same make.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

_FULL_SCALE_ADU = 65535

# Measured medians and spreads: gain 2.18 ADU per electron, 1.2 % (robust sd) from pixel to pixel.
_GAIN_ADU_PER_E = 2.18
_GAIN_SPREAD = 0.012
# Read noise, e- rms: percentiles 1, 50, 75, 95, 99, 99.9 are 0.83, 0.99, 1.18, 2.7, 5.4, 9.5: a narrow body above a
# floor and, for one pixel in seven, an exponential tail (the "hot" pixels of random telegraph noise).
_READ_NOISE_FLOOR_E = 0.80
_READ_NOISE_BODY_E = 0.18
_READ_NOISE_BODY_SPREAD = 0.45
_TAIL_FRACTION = 0.14
_TAIL_MEAN_E = 1.75
# Offset, ADU: median 96, most of it a pattern of a few ADU.
_OFFSET_ADU = 97.0
_OFFSET_SPREAD_ADU = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A camera, pixel by pixel.

    Attributes
    ----------
    quantum_efficiency : float
        Electrons per photon.
    offset_adu : ndarray, (Y, X), float32
        Counts of a pixel without light.
    gain_adu_per_e : ndarray, (Y, X), float32
        Counts per electron.
    read_noise_e : ndarray, (Y, X), float32
        Electrons rms.
    full_well_e : float
        Electrons at which a pixel saturates.
    """

    quantum_efficiency: float
    offset_adu: FloatArray
    gain_adu_per_e: FloatArray
    read_noise_e: FloatArray
    full_well_e: float = 30_000.0

    def expose(self, photons: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.uint16]:
        """Take one exposure, or one per leading index.

        Parameters
        ----------
        photons : ndarray, (..., Y, X)
            Expected photons per pixel during the exposure, not negative, the sensor's size in Y and X.
        rng : numpy.random.Generator
            Where shot and read noise come from.

        Returns
        -------
        ndarray, (..., Y, X), uint16
            Camera counts.
        """
        self._check(photons)
        electrons = np.minimum(rng.poisson(photons * self.quantum_efficiency), self.full_well_e)
        electrons = electrons + self.read_noise_e * rng.standard_normal(photons.shape)
        counts = np.rint(self.offset_adu + self.gain_adu_per_e * electrons)
        frame: NDArray[np.uint16] = np.clip(counts, 0, _FULL_SCALE_ADU).astype(np.uint16)
        return frame

    def mean_adu(self, photons: NDArray[np.floating]) -> DoubleArray:
        """Return the counts that an unsaturated exposure has on average; (..., Y, X) photons to (..., Y, X) counts."""
        self._check(photons)
        return np.asarray(self.offset_adu + self.gain_adu_per_e * (self.quantum_efficiency * photons.astype(np.float64)))

    def sd_adu(self, photons: NDArray[np.floating]) -> DoubleArray:
        """Return the noise of an unsaturated exposure: shot, read and rounding noise; counts, (..., Y, X)."""
        self._check(photons)
        variance_e = self.quantum_efficiency * photons.astype(np.float64) + self.read_noise_e.astype(np.float64) ** 2
        # rounding to whole counts is uniform over one count
        return np.asarray(np.sqrt(self.gain_adu_per_e.astype(np.float64) ** 2 * variance_e + 1 / 12))

    def _check(self, photons: NDArray[np.floating]) -> None:
        sensor = self.offset_adu.shape
        if photons.shape[-2:] != sensor:
            raise ValueError(f"photons have shape {photons.shape}, the sensor {sensor} pixels; their last two axes must agree")
        if not np.all(photons >= 0):
            raise ValueError(f"photons go down to {np.min(photons):g}; expected photons are never negative, nor NaN")


def build_camera(seed: int, shape: tuple[int, int], quantum_efficiency: float = 0.72) -> Camera:
    """Build a camera; the same seed and shape give the same one.

    Parameters
    ----------
    seed : int
    shape : tuple of int, (Y, X)
        Pixels of the sensor.
    quantum_efficiency : float
        Electrons per photon, in (0, 1].
    """
    if not 0 < quantum_efficiency <= 1:
        raise ValueError(f"quantum_efficiency {quantum_efficiency} must be above 0 and at most 1 electron per photon")
    rng = np.random.default_rng(seed)
    gain = _GAIN_ADU_PER_E * (1 + _GAIN_SPREAD * rng.standard_normal(shape))
    return Camera(
        quantum_efficiency=quantum_efficiency,
        offset_adu=_offset_map(rng, shape).astype(np.float32),
        gain_adu_per_e=gain.astype(np.float32),
        read_noise_e=_read_noise_map(rng, shape).astype(np.float32),
    )


def _read_noise_map(rng: np.random.Generator, shape: tuple[int, int]) -> DoubleArray:
    body = _READ_NOISE_FLOOR_E + _READ_NOISE_BODY_E * np.exp(_READ_NOISE_BODY_SPREAD * rng.standard_normal(shape))
    tail = np.where(rng.random(shape) < _TAIL_FRACTION, rng.exponential(_TAIL_MEAN_E, shape), 0)
    return np.asarray(body + tail)


def _offset_map(rng: np.random.Generator, shape: tuple[int, int]) -> DoubleArray:
    """Per-pixel scatter and, as every column has its own converter, half a count from column to column."""
    columns = 0.5 * rng.standard_normal(shape[1])  # (X,)
    return np.asarray(_OFFSET_ADU + columns + _OFFSET_SPREAD_ADU * rng.standard_normal(shape))
