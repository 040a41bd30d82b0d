"""The quality check of one pair: what is measured on it, and whether it is good enough to learn from.

Receives a low and a high-light image of one field, and what is known of camera and light; hands on `PairFacts`. It does not
know where the images come from, nor whether they are kept. What the figures are compared with, and in which words, stands in
`live_restore.pairs.reasons`.
"""

import math
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from live_restore.config import Positive, Section, check
from live_restore.errors import ConfigError
from live_restore.pairs.pixels import filled_share, live_snr, saturated_share
from live_restore.pairs.shift import Shift, busiest, measure_motion, measure_shift
from live_restore.pairs.spectra import Spectra, compare_spectra
from live_restore.records.json_lines import plain
from live_restore.restore.noise import CameraNoise

Pixels = NDArray[Any]

# A larger part of the field says nothing more of sharpness and light.
_MOST_PX = 1024


class QualityLimits(Section):
    """Beyond what a pair is rejected; ``[limits]`` of a calibration plan.

    Attributes
    ----------
    saturated : float
        Share of the pixels of either image.
    shift_px, shift_planes : float
        Of high against low; smaller ones are taken off in training.
    motion_px : float
        Of parts of the field against each other.
    blur_px : float
        Sigma by which either image is blurrier than the other.
    ratio_factor : float
        By how much the light of the images may disagree with the dose ratio, either way.
    noise_ratio : float
        How much noisier low must be than high, at least.
    bleaching : float
        Share of the light lost from low to low again.
    filled : float
        Share of the pixels of high that show more than background, at least.
    least_side_px : int
    """

    saturated: float = Field(default=5e-3, ge=0, le=1)
    shift_px: Positive = 5.0
    shift_planes: Positive = 1.5
    motion_px: Positive = 2.0
    blur_px: Positive = 2.0
    ratio_factor: float = Field(default=1.5, gt=1)
    noise_ratio: float = Field(default=1.1, ge=1)
    bleaching: Positive = 0.25
    filled: float = Field(default=1e-3, ge=0, lt=1)
    least_side_px: int = Field(default=32, ge=16)


def read_limits(path: Path) -> QualityLimits:
    """Read the ``[limits]`` table of a TOML file, such as a calibration plan; other tables are left alone.

    Raises
    ------
    ConfigError
        If the file cannot be read, has no such table, or says what cannot be.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("limits")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    if not isinstance(said, dict):
        raise ConfigError(f"{path} has no [limits]; its words are {', '.join(QualityLimits.model_fields)}")
    return check(said, QualityLimits, f"{path} [limits]", path.parent)


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What was measured on a pair; None and empty where it could not be.

    Attributes
    ----------
    reason : str
        Why it is not accepted, in a sentence with value, limit and cure; empty if it is.
    shift_px : tuple of float, ([z,] y, x)
        What lies at r in low lies at r + shift in high; z in planes.
    shift_error_px : tuple of float or None
        Standard errors; None for one that is unknown.
    motion_px : float or None
        Of parts of the field against each other.
    drift_px : tuple of float, ([z,] y, x)
        From low to low again.
    bleaching : float or None
        Share of the light lost from low to low again.
    saturated_low, saturated_high : float
        Shares of the pixels.
    mean_ratio : float or None
        How many times more light the high image shows than the low one, structure against structure, so that neither the
        camera's offset nor a constant background matters.
    dose_ratio : float or None
        What it should be.
    noise_ratio : float or None
        How many times noisier low is, relative to what both show.
    likeness : float or None
        Correlation of what both show, noise taken off; 1 for the same field.
    snr : float or None
        Of low, as the trust check defines it live: brightest structure less background, over its noise.
    blur_px : float or None
        Sigma by which low is blurrier than high; negative where high is.
    filled : float or None
        Share of the pixels of high that show more than background.
    """

    reason: str = ""
    shift_px: tuple[float, ...] = ()
    shift_error_px: tuple[float | None, ...] = ()
    motion_px: float | None = None
    drift_px: tuple[float, ...] = ()
    bleaching: float | None = None
    saturated_low: float = 0.0
    saturated_high: float = 0.0
    mean_ratio: float | None = None
    dose_ratio: float | None = None
    noise_ratio: float | None = None
    likeness: float | None = None
    snr: float | None = None
    blur_px: float | None = None
    filled: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether to learn from it."""
        return not self.reason

    def as_json(self) -> dict[str, Any]:
        """Say everything in what JSON can hold."""
        said: dict[str, Any] = plain(asdict(self))
        return said


def measure_pair(
    low: Pixels,
    high: Pixels,
    *,
    low_again: Pixels | None = None,
    dose_ratio: float | None = None,
    noise: CameraNoise | None = None,
    pixel_size_um: tuple[float | None, float | None, float | None] | None = None,
    limits: QualityLimits | None = None,
) -> PairFacts:
    """Measure a pair and judge it.

    Parameters
    ----------
    low, high : ndarray, ([Z,] Y, X), uint8, uint16 or float32
    low_again : ndarray of the same shape, optional
        A second low one, taken after the high one.
    dose_ratio : float, optional
        How many times more light the high image had; without it, the light is not judged.
    noise : CameraNoise, optional
        Of the camera; estimated from the pair without it.
    pixel_size_um : tuple of float or None, (z, y, x), optional
        For the words only.
    limits : QualityLimits, optional

    Returns
    -------
    PairFacts
        Of images that are no pair at all (other shapes, NaN), only the reason.
    """
    from live_restore.pairs.reasons import why_no_pair, why_rejected

    chosen = limits or QualityLimits()
    reason = why_no_pair(low, high, low_again, chosen)
    if reason:
        return PairFacts(reason=reason, dose_ratio=dose_ratio)
    top_adu = None if noise is None else noise.saturation_adu
    found = PairFacts(
        saturated_low=saturated_share(low, top_adu),
        saturated_high=saturated_share(high, top_adu),
        dose_ratio=dose_ratio,
        filled=filled_share(high),
    )
    shift = measure_shift(low, high)
    part = busiest(high, _MOST_PX)
    spectra = compare_spectra(low[part], high[part], shift)
    found = _with_shift(found, low, high, shift)
    found = _with_spectra(found, spectra)
    if spectra.slope > 0:
        found = replace(found, snr=live_snr(low, high, shift, spectra.slope, noise))
    if low_again is not None:
        found = _with_sandwich(found, low_again, high, shift, spectra)
    return replace(found, reason=why_rejected(found, spectra, chosen, pixel_size_um))


def _with_shift(found: PairFacts, low: Pixels, high: Pixels, shift: Shift) -> PairFacts:
    errors = tuple(round(error, 3) if math.isfinite(error) else None for error in shift.error_px)
    motion = measure_motion(low, high, shift)
    return replace(
        found, shift_px=_rounded(shift.px), shift_error_px=errors, motion_px=None if motion is None else round(motion, 2)
    )


def _with_spectra(found: PairFacts, spectra: Spectra) -> PairFacts:
    measured = spectra.slope > 3 * spectra.slope_error
    return replace(
        found,
        mean_ratio=_figure(1 / spectra.slope) if measured else None,
        noise_ratio=_figure(spectra.noise_ratio) if measured else None,
        likeness=_figure(spectra.likeness) if spectra.low_shows > 0 and measured else None,
        blur_px=_figure(spectra.blur_px) if measured and spectra.blur_px is not None else None,
    )


def _with_sandwich(found: PairFacts, low_again: Pixels, high: Pixels, shift: Shift, spectra: Spectra) -> PairFacts:
    """Compare the low image with its repetition, each through the high one, which is nearly free of noise."""
    again = measure_shift(low_again, high)
    part = busiest(high, _MOST_PX)
    after = compare_spectra(low_again[part], high[part], again)
    drift = tuple(one - other for one, other in zip(shift.px, again.px, strict=True)) if shift and again else ()
    told = spectra.slope > 3 * spectra.slope_error
    lost = 1 - after.slope / spectra.slope if told else math.nan
    return replace(found, drift_px=_rounded(drift), bleaching=_figure(lost))


def _rounded(px: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in px)


def _figure(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
