"""The estimate of a camera: offset, gain and read noise, each with its error, and what could not be known.

Receives figures; hands on a `CameraEstimate`. It does not know how they were measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from live_restore.pairs.transfer_curve import Cells, TransferLine

FloatArray = NDArray[np.float32]

# Rounding to whole counts.
ROUNDING = 1 / 12
# A gain that is known no better is no gain to count electrons by.
_LARGEST_ERROR = 0.1


class Measured(NamedTuple):
    """A figure and its standard error; infinite where nothing tells it."""

    value: float
    error: float

    @property
    def relative(self) -> float:
        """The error as a fraction of the value."""
        return abs(self.error / self.value) if self.value else float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class CameraEstimate:
    """What a camera is, as far as its images tell.

    Attributes
    ----------
    offset_adu : Measured
        Counts of a pixel without light.
    gain_adu_per_e : Measured
        Counts per electron.
    read_noise_e : Measured
        Electrons rms, over all pixels but single hot ones.
    pixels : int
        How many deviations were looked at.
    method : str
    why : str
        What cannot be known, and what would help; empty where all is well.
    line : TransferLine or None
    curve : Cells or None
        What the line goes through.
    floor_adu2 : Measured or None
        Variance without light, rounding included, counts squared; None where no dark frames told it.
    maps : mapping of str to ndarray, (Y, X), float32
        ``offset_adu``, ``gain_adu_per_e`` and ``read_noise_e`` of every pixel; empty where they are not known.
    """

    offset_adu: Measured
    gain_adu_per_e: Measured
    read_noise_e: Measured
    pixels: int
    method: str
    why: str = ""
    line: TransferLine | None = None
    curve: Cells | None = None
    floor_adu2: Measured | None = None
    maps: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def certain(self) -> bool:
        """Whether all three are known well enough to be used."""
        three = (self.offset_adu, self.gain_adu_per_e, self.read_noise_e)
        return all(np.isfinite(one.value) and np.isfinite(one.error) for one in three) and (
            0 < self.gain_adu_per_e.value and self.gain_adu_per_e.relative <= _LARGEST_ERROR
        )

    def doubts(self) -> list[str]:
        """Say where gain and read noise are not known well."""
        gain, read_noise, said = self.gain_adu_per_e, self.read_noise_e, []
        if not gain.relative <= _LARGEST_ERROR or gain.value <= 0:
            brightest = "" if self.curve is None else f", whose brightest are {np.max(self.curve.excess):.3g} counts above dark"
            known = (
                f"the gain is known to no better than {100 * gain.relative:.0f} %"
                if gain.value > 0
                else "the gain is not known"
            )
            said.append(f"{known} from these images{brightest}; take brighter ones, or more")
        if np.isfinite(read_noise.error) and read_noise.value < 2 * read_noise.error:
            said.append(
                f"the read noise is below {read_noise.value + 2 * read_noise.error:.2g} electrons, and not known better"
            )
        return said


def read_noise_of(gain: Measured, floor: Measured, covariance: float) -> Measured:
    """Turn the variance without light, counts squared, into electrons rms.

    Parameters
    ----------
    gain, floor : Measured
    covariance : float
        Of the two.
    """
    if not gain.value > 0 or not np.isfinite(floor.error):
        return Measured(float("nan"), float("inf"))
    variance = (floor.value - ROUNDING) / gain.value**2
    by_gain = 2 * variance / gain.value
    error = (floor.error / gain.value**2) ** 2 + (by_gain * gain.error) ** 2 - 2 * by_gain * covariance / gain.value**2
    return rms(Measured(variance, float(np.sqrt(max(error, 0.0)))))


def rms(variance: Measured) -> Measured:
    """Give the root of a variance; where that is nothing but its error, the root's error is that of the largest it may be."""
    root = float(np.sqrt(max(variance.value, 0.0)))
    largest = float(np.sqrt(max(variance.value, 0.0) + variance.error))
    return Measured(root, variance.error / (2 * root) if root**2 > variance.error else largest - root)
