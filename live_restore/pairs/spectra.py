"""A pair compared frequency by frequency: how much of the high image the low one holds, how sharp it is, and how noisy.

Receives two aligned images of one field; hands on `Spectra`. It does not know what is too much.

Camera noise is white and that of the two images is independent. So the cross spectrum holds only what both show, and its ratio
to the power of the high image, ring by ring, is the transfer from high to low: constant for the same field in the same focus,
whatever the offset of the camera, falling where low is the blurrier one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.pairs.correlation import transform
from live_restore.pairs.shift import Shift, overlap

Pixels = NDArray[Any]
DoubleArray = NDArray[np.float64]

# Cycles per pixel: where structure is looked for, and from where on there is next to nothing but noise.
_STRUCTURE, _NOISE = (0.01, 0.12), 0.42
# Rings whose power is less than so many times the noise tell nothing of sharpness.
_ABOVE_NOISE = 3.0
_LEAST_RINGS = 4
# A Hann window leaves so few independent values of those of a ring.
_INDEPENDENT = 0.4
_MOST_PLANES = 8


@dataclass(frozen=True, slots=True)
class Spectra:
    """What two images have in common.

    Attributes
    ----------
    slope, slope_error : float
        Counts of low per count of high, where both show structure.
    likeness : float
        Correlation of what both show below 0.12 cycles per pixel, noise taken off: 1 for the same field; NaN if either shows
        nothing there.
    low_shows, high_shows : float
        Power of structure there, in units of the noise.
    noise_ratio : float
        How many times noisier low is than high, relative to what both show.
    blur2_px2, blur2_error_px2 : float
        By how much low is blurrier than high: the difference of the squared sigmas. Negative where high is. NaN if nobody
        can tell.
    """

    slope: float
    slope_error: float
    likeness: float
    low_shows: float
    high_shows: float
    noise_ratio: float
    blur2_px2: float
    blur2_error_px2: float

    @property
    def blur_px(self) -> float | None:
        """Sigma by which low is blurrier than high, or minus that by which high is; None if nobody can tell."""
        return None if math.isnan(self.blur2_px2) else math.copysign(math.sqrt(abs(self.blur2_px2)), self.blur2_px2)


def compare_spectra(low: Pixels, high: Pixels, shift: Shift) -> Spectra:
    """Compare two images.

    Parameters
    ----------
    low, high : ndarray, (Y, X) or (Z, Y, X)
        The same shape; of many planes, eight are compared.
    shift : Shift
        Of high against low; it is taken off.
    """
    sums = _ring_sums(low, high, shift)
    frequency, (number, cross, low_power, high_power) = sums[0], sums[1:]  # (rings,) each, the others (4, rings)
    noisy = frequency > min(_NOISE, frequency[-2])
    low_noise, high_noise = (float(np.median(power[noisy] / number[noisy])) for power in (low_power, high_power))
    within = (frequency > _STRUCTURE[0]) & (frequency < _STRUCTURE[1])
    low_shown, high_shown = (
        float((power - noise * number)[within].sum()) for power, noise in ((low_power, low_noise), (high_power, high_noise))
    )
    shared, count = float(cross[within].sum()), float(number[within].sum())
    slope = shared / high_shown if high_shown > 0 else 0.0
    both = low_shown > 0 and high_shown > 0
    blur2, error = _blur(frequency, number, cross, (low_power, low_noise), (high_power, high_noise))
    return Spectra(
        slope=slope,
        slope_error=math.sqrt(low_noise / _INDEPENDENT / high_shown) if high_shown > 0 else math.inf,
        likeness=shared / math.sqrt(low_shown * high_shown) if both else math.nan,
        low_shows=low_shown / (low_noise * count) if low_noise > 0 else math.inf,
        high_shows=high_shown / (high_noise * count) if high_noise > 0 else math.inf,
        noise_ratio=math.sqrt(low_noise / high_noise) / slope if slope > 0 and high_noise > 0 else math.inf,
        blur2_px2=blur2,
        blur2_error_px2=error,
    )


def _ring_sums(low: Pixels, high: Pixels, shift: Shift) -> DoubleArray:
    """Sum over rings of frequencies: their centres, numbers of values, cross power, power of low and of high; (5, rings)."""
    shared = overlap(low, high, shift)
    stacks = [pixels[None] if pixels.ndim == 2 else pixels for pixels in shared]  # (Z, Y, X)
    height, width = stacks[0].shape[1:]
    ky, kx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    rest = np.array(shift.px[-2:] or (0.0, 0.0))
    rest -= np.rint(rest)
    phase = np.exp(2j * np.pi * (ky * rest[0] + kx * rest[1])).astype(np.complex64)
    rings = max(8, min(height, width) // 4)
    ring = np.minimum((np.hypot(ky, kx) * 2 * rings).astype(np.intp), rings).ravel()
    sums = np.zeros((4, rings + 1))
    chosen = np.unique(np.linspace(0, len(stacks[0]) - 1, _MOST_PLANES).astype(np.intp))
    for plane in chosen:
        first, second = (transform(stack[plane].astype(np.float32)) for stack in stacks)
        second = second * phase
        products = (np.ones(first.shape), (first.conj() * second).real, np.abs(first) ** 2, np.abs(second) ** 2)
        sums += [np.bincount(ring, product.ravel(), rings + 1) for product in products]
    frequency = (np.arange(rings) + 0.5) / (2 * rings)
    return np.vstack([frequency, sums[:, :rings]])


def _blur(
    frequency: DoubleArray,
    number: DoubleArray,
    cross: DoubleArray,
    low: tuple[DoubleArray, float],
    high: tuple[DoubleArray, float],
) -> tuple[float, float]:
    """Fit ln(transfer) = constant - 2 (pi sigma f)^2 to the rings that tell; sigma^2 and its error, NaN of too few."""
    shown = high[0] - high[1] * number
    transfer = np.divide(cross, shown, out=np.zeros_like(cross), where=shown > 0)
    # what a ring of low holds that does not come from high is noise, of the camera or of a difference
    noise = np.maximum(low[0] - transfer * cross, low[1] * number) / np.maximum(number * _INDEPENDENT, 1)
    error = np.sqrt(np.divide(noise, shown, out=np.full_like(cross, math.inf), where=shown > 0))
    tells = (shown > _ABOVE_NOISE * high[1] * number) & (transfer > 2 * error) & (frequency > _STRUCTURE[0])
    # from the first ring on that tells nothing, the rest are chance
    first = int(np.argmax(~tells & (frequency > _STRUCTURE[0]))) or len(tells)
    tells[first:] = False
    if np.count_nonzero(tells) < _LEAST_RINGS:
        return math.nan, math.inf
    weights = np.square(transfer[tells] / error[tells])
    x, y = 2 * np.square(np.pi * frequency[tells]), np.log(transfer[tells])
    total = weights.sum()
    away = x - (weights * x).sum() / total
    spread = float((weights * away * away).sum())
    if not spread > 0:
        return math.nan, math.inf
    return -float((weights * away * y).sum()) / spread, math.sqrt(1 / spread)
