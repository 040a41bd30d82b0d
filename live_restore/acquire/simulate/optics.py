"""The simulated microscope's optics: a Gaussian blur as wide as the objective's point spread function.

Receives the numbers printed on an objective; hands on the widths of its blur. It does not know the specimen.
"""

from dataclasses import dataclass
from math import asin, cos, pi, sqrt


@dataclass(frozen=True, slots=True)
class Optics:
    """A widefield objective and the light it collects.

    Attributes
    ----------
    na : float
        Numerical aperture.
    wavelength_um : float
        Of the emitted light, in vacuum.
    refractive_index : float
        Of the immersion medium, which the specimen is supposed to match.
    haze : float
        Light from all depths that a Gaussian has no room for, per µm of the blurred projection along z; a
        widefield microscope does not lose what is out of focus, it spreads it.
    haze_um : float
        Standard deviation of that spread, in Y and X.
    """

    na: float = 1.2
    wavelength_um: float = 0.52
    refractive_index: float = 1.33
    haze: float = 0.08
    haze_um: float = 1.6

    def __post_init__(self) -> None:
        """Refuse an aperture that no objective has."""
        if not 0 < self.na < self.refractive_index:
            raise ValueError(f"na {self.na} must be above 0 and below the refractive index {self.refractive_index}")

    @property
    def lateral_sigma_um(self) -> float:
        """Standard deviation of the blur in Y and X.

        The Gaussian closest to the scalar, non-paraxial widefield point spread function: Zhang, Zerubia and
        Olivo-Marin, Applied Optics 46, 1819 (2007), "Gaussian approximations of fluorescence microscope
        point-spread function models", doi 10.1364/AO.46.001819. At low aperture it becomes sqrt(2) / (k na).
        """
        c = self._cos_aperture
        return 1 / (self._wavenumber * sqrt((4 - 7 * c**1.5 + 3 * c**3.5) / (7 * (1 - c**1.5))))

    @property
    def axial_sigma_um(self) -> float:
        """Standard deviation of the blur in Z (the same source); at low aperture 2 sqrt(6) n / (k na²)."""
        c = self._cos_aperture
        spread = 4 * c**5 - 25 * c**3.5 + 42 * c**2.5 - 25 * c**1.5 + 4
        return float(5 * sqrt(7) * (1 - c**1.5) / (self._wavenumber * sqrt(6 * spread)))

    @property
    def _cos_aperture(self) -> float:
        return cos(asin(self.na / self.refractive_index))

    @property
    def _wavenumber(self) -> float:
        """Radians per µm in the medium."""
        return 2 * pi * self.refractive_index / self.wavelength_um
