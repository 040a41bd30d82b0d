"""Pixels that stand out alone: found in the data, remembered from volume to volume.

Receives, plane by plane, residuals weighted by their inverse variance; hands on which pixels to leave out. No structure is as
narrow as one pixel: light that went through an objective spreads, and a quarter of it or more reaches the neighbours. Noisy
pixels of a camera without calibration stand out to either side. It does not know calibrations.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Places = NDArray[np.intp]

# A pixel this far out is looked at, and one this far out is left out at once, too bright or too dark.
_LOOK_SD = 4.0
_OUT_SD = 5.0
# Neighbours deviate by less than this share of it: 0.37 to 0.49 were light, for a point spread of sigma 0.8 to 1 pixel.
_NEIGHBOURS_SHARE = 0.25
# A pixel that stood out in this share of the planes seen lately is hot.
_HOT_SHARE = 0.15
_MEMORY_PLANES = 60.0
_LEAST_TIMES = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class HotPixels:
    """A slow memory of which pixels stand out alone; a value, never changed in place.

    Attributes
    ----------
    times : ndarray, (Y, X), float32
        In how many of the planes seen lately each pixel stood out.
    planes : float
        How many planes were seen lately, at most about 60.
    """

    times: FloatArray
    planes: float = 0.0

    @classmethod
    def none_yet(cls, shape: tuple[int, int]) -> Self:
        """Remember nothing, of a sensor of this shape."""
        return cls(np.zeros(shape, np.float32))

    def after(self, alone: list[Places]) -> "HotPixels":
        """Remember another volume: for each of its planes, the flat indices of the pixels that stood out alone."""
        kept = np.float32(max(0.0, 1 - len(alone) / _MEMORY_PLANES))
        times = self.times * kept
        for places in alone:
            times.reshape(-1)[places] += 1
        return HotPixels(times, float(self.planes * kept + len(alone)))

    @property
    def places(self) -> Places:
        """Flat indices of the hot pixels."""
        return np.flatnonzero(self.times > max(_LEAST_TIMES, _HOT_SHARE * self.planes))


def standing_out(weighted: FloatArray, weight: FloatArray, square: FloatArray) -> tuple[Places, Places]:
    """Find pixels that stand out alone.

    Parameters
    ----------
    weighted, weight : ndarray, (Y, X), float32
        Residual (raw - restored) times weight, and weight, 1 / variance; C-contiguous, with a margin of zeros.
    square : ndarray, (Y, X), float32
        Scratch.

    Returns
    -------
    alone : ndarray, (N,)
        Flat indices of pixels that are too bright or too dark, by 4 sd or more, alone.
    far : ndarray, (M,)
        Those of them that stand out by 5 sd or more: to be left out at once.
    """
    np.multiply(weighted, weighted, out=square)
    np.subtract(square, _LOOK_SD**2 * weight, out=square)
    flat, flat_weight, width = weighted.reshape(-1), weight.reshape(-1), weighted.shape[1]
    places = np.flatnonzero(square.reshape(-1) > 0)
    around = places[:, None] + np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])  # (N, 8)
    residual = flat[places] / flat_weight[places]
    neighbours = flat[around].sum(axis=1) / np.maximum(flat_weight[around].sum(axis=1), 1e-20)
    lonely = neighbours * np.sign(residual) < _NEIGHBOURS_SHARE * np.abs(residual)
    places, residual = places[lonely], residual[lonely]
    return places, places[residual * residual * flat_weight[places] > _OUT_SD**2]
