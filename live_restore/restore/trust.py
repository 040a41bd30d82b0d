"""Photon consistency: whether the restored image still agrees with the photons that were counted.

Receives a raw and a restored volume, both in camera counts, and what is known of the camera; hands on `Trust`: figures, and
a map of where the network removed or invented structure. No ground truth is used. It does not know which network it was,
nor where the volumes come from.

With r = raw - restored, both in electrons and after one straight-line fit of restored to raw, every pixel's variance
is known: shot noise of the restored value, and read noise. Summed over windows of several sizes (`restore.windows`) and
divided by its noise, r is a unit normal wherever the restoration is right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from live_restore.restore.consistency import Consistency, Sensor
from live_restore.restore.hot_pixels import HotPixels
from live_restore.restore.noise import CameraNoise, estimate_noise, follow_noise
from live_restore.restore.trust_words import beyond_limits, doubts, notes, reasons, regime
from live_restore.restore.volume_check import BEYOND_DOUBT, Findings, VolumeCheck

__all__ = ["FALSE_AREA", "SCALES_PX", "Trust", "TrustCheck", "beyond_limits", "regime", "threshold"]

FloatArray = NDArray[np.float32]
Counts = NDArray[np.integer[Any]]

SCALES_PX = (1, 2, 4, 8)
# The share of the area that noise alone may raise, over all scales together.
FALSE_AREA = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """How far a restored volume may be trusted.

    Attributes
    ----------
    figures : dict
        What JSON can hold; every entry is explained in docs/trust.md.
    map : ndarray, (Z, Y, X), int8
        Ten times the z of largest magnitude over all scales, clipped to ±127; positive where raw has more than restored
        (erased), negative where it has less (invented).
    hot : HotPixels
        What was learnt of the camera's pixels; the next check of the same camera takes it.
    """

    figures: dict[str, Any]
    map: NDArray[np.int8]
    hot: HotPixels


class TrustCheck:
    """Checks restored volumes against their raw ones; one per camera and channel, used from one thread.

    Parameters
    ----------
    noise : CameraNoise or None
        None: estimated from the volumes themselves, first at once and then ever more rarely.
    scales_px : tuple of int
        Sigma of the windows: 1, 2, 4, ... in this order, at least one.
    sharpened_px : float
        For networks that sharpen: the restored image is blurred by a Gaussian of this sigma before it is compared, the
        difference of the two point spread functions.
    """

    def __init__(self, noise: CameraNoise | None, scales_px: tuple[int, ...] = SCALES_PX, *, sharpened_px: float = 0.0) -> None:
        if not scales_px or tuple(scales_px) != tuple(2**level for level in range(len(scales_px))):
            raise ValueError(f"scales_px {scales_px} must be 1, 2, 4, ... pixels, each twice the one before")
        if not sharpened_px >= 0:
            raise ValueError(f"sharpened_px {sharpened_px} must be 0 or more pixels")
        self.noise = noise
        self.scales_px = tuple(scales_px)
        self.threshold = threshold(len(scales_px))
        self._estimating = noise is None
        self._sharpened_px = sharpened_px
        self._volumes = 0
        self._consistency: Consistency | None = None
        self._sensor: Sensor | None = None
        self._hot: HotPixels | None = None

    def check(self, raw: Counts, restored: NDArray[np.floating], hot: HotPixels | None = None) -> Trust:
        """Compare one volume.

        Parameters
        ----------
        raw : ndarray, (Z, Y, X), uint8 or uint16
            Camera counts.
        restored : ndarray, (Z, Y, X), float32
            Camera counts. Pixels that are no number are counted as a reason not to trust, and not judged.
        hot : HotPixels, optional
            What is remembered of the sensor's pixels; None: what the last check learnt.

        Raises
        ------
        ValueError
            If the shapes differ, or raw are no counts.
        """
        _check_volumes(raw, restored)
        shape = (raw.shape[1], raw.shape[2])
        numbers, broken = _numbers(restored, raw)
        if self._sharpened_px:
            numbers = gaussian_filter(numbers, (0, self._sharpened_px, self._sharpened_px))
        sensor = self._sensor_for(self._noise_of(raw, numbers), shape)
        if self._consistency is None or self._consistency.shape != shape:
            self._consistency = Consistency(shape, len(self.scales_px))
        known = hot if hot is not None else self._hot
        known = known if known is not None and known.times.shape == shape else HotPixels.none_yet(shape)
        left_out = np.union1d(known.places, sensor.hot)
        volume = VolumeCheck(self._consistency, sensor, raw, numbers, left_out, sensor.noise.saturation_adu)
        found = volume.find(self.scales_px, self.threshold)
        self._hot = known.after(found.alone)
        return Trust(self._figures(found, sensor, broken, left_out.size), found.map, self._hot)

    def _noise_of(self, raw: Counts, restored: FloatArray) -> CameraNoise:
        self._volumes += 1
        # at volumes 1, 2, 4, 8, ...; an estimate costs as much as eight checks, so one in doubt is renewed every eighth volume
        doubtful = self.noise is not None and self.noise.why != "" and self._volumes % 8 == 0
        due = doubtful or self._volumes & (self._volumes - 1) == 0
        if self.noise is None or (self._estimating and due):
            estimated = estimate_noise(raw, restored)
            self.noise = estimated if self.noise is None else follow_noise(self.noise, estimated)
        return self.noise

    def _sensor_for(self, noise: CameraNoise, shape: tuple[int, int]) -> Sensor:
        if self._sensor is None or self._sensor.noise is not noise or self._sensor.shape != shape:
            self._sensor = Sensor(noise, shape)
        return self._sensor

    def _figures(self, found: Findings, sensor: Sensor, broken: int, left_out: int) -> dict[str, Any]:
        size = np.abs(found.map)
        raised, strong = (np.count_nonzero(size >= round(10 * z)) / size.size for z in (self.threshold, BEYOND_DOUBT))
        peak, efficiency = max(0.0, found.peak_e), sensor.noise.quantum_efficiency
        deviation = float(np.sqrt(peak + sensor.typical_variance_e2))
        figures: dict[str, Any] = {
            "snr": _rounded((peak - max(0.0, found.background_e)) / deviation),
            "peak_e": _rounded(peak),
            "background_e": _rounded(found.background_e),
            "peak_photons": _rounded(peak / efficiency) if efficiency else None,
            "raised": _rounded(raised),
            "strong": _rounded(strong),
            "strong_places": len(found.strong),
            "strong_in_a_plane": found.strong_in_a_plane,
            "sd_z": self._per_scale(found.rms),
            "slope": _rounded(found.line.slope),
            "offset": _rounded(found.line.offset),
            "smallest_e": self._per_scale(found.smallest_e),
            "threshold": self.threshold,
            "noise": sensor.noise.source,
            "gain_adu_per_e": _rounded(1 / sensor.typical_per_count),
            "read_noise_e": _rounded(sensor.typical_read_noise_e),
            "gain_known": not sensor.noise.why,
            "saturated": _rounded(found.saturated / found.map.size),
            "hot": left_out,
            "broken": broken,
            "places": found.places,
        }
        why = reasons(figures, found.map.size)
        verdict = {"trusted": not why, "why": "; ".join(why), "doubts": [] if why else doubts(found.strong)}
        return figures | {"notes": notes(figures, sensor.why)} | verdict

    def _per_scale(self, values: list[float]) -> dict[str, float]:
        return {str(scale): _rounded(value) for scale, value in zip(self.scales_px, values, strict=True)}


def threshold(scales: int) -> float:
    """How many standard deviations a window must deviate by to be raised, given how many scales are searched.

    >>> threshold(4)
    4.2
    """
    return round(float(-ndtri(FALSE_AREA / scales / 2)), 1)


def _check_volumes(raw: Counts, restored: NDArray[np.floating]) -> None:
    if raw.ndim != 3 or raw.shape != restored.shape or not raw.size:
        raise ValueError(
            f"raw has shape {raw.shape}, restored {restored.shape}; both must be the same (Z, Y, X), with at least one pixel"
        )
    if raw.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"raw has dtype {raw.dtype}; photons are checked on camera counts as they came, uint8 or uint16")


def _numbers(restored: NDArray[np.floating], raw: Counts) -> tuple[FloatArray, int]:
    """Replace what is no number by the raw counts, and say how many pixels that were."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(restored.sum()):
            return restored, 0
    finite = np.isfinite(restored)
    return np.where(finite, restored, raw.astype(np.float32)), int(restored.size - np.count_nonzero(finite))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
