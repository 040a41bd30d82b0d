"""Why a pair is not good enough to learn from, in a sentence with the value, the limit and the cure.

Receives images and what was measured on them; hands on a reason, empty where there is none. The most basic one comes first: who
mends that will hear of the next.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from live_restore.pairs.quality import PairFacts, QualityLimits
    from live_restore.pairs.spectra import Spectra

Pixels = NDArray[Any]
PixelSize = tuple[float | None, float | None, float | None]

# Low must show so much structure of its own before it is blamed for not showing that of high.
_SHOWS = 0.3
_UNLIKE = 0.5
_ERRORS = 3.0
_EIGHT_BITS = 255


def why_no_pair(low: Pixels, high: Pixels, low_again: Pixels | None, limits: "QualityLimits") -> str:
    """Say why two arrays are no pair of images at all."""
    images = {"low": low, "high": high} | ({} if low_again is None else {"second low": low_again})
    found = (*_unequal(images, low), *_unfit(low, high, limits))
    return found[0] if found else next((why for name, pixels in images.items() if (why := _no_image(name, pixels))), "")


def _unequal(images: Mapping[str, Pixels], low: Pixels) -> Iterator[str]:
    for name, pixels in images.items():
        if pixels.shape != low.shape:
            yield f"{name} has shape {pixels.shape} and low {low.shape}; crop or export both alike"
        if pixels.dtype != low.dtype:
            yield f"{name} is {pixels.dtype} and low {low.dtype}; give both as the camera's raw counts, of one bit depth"


def _unfit(low: Pixels, high: Pixels, limits: "QualityLimits") -> Iterator[str]:
    if low.ndim not in (2, 3):
        yield f"the images have {low.ndim} axes; give one volume of one channel, ([Z,] Y, X)"
    elif low.dtype == np.uint16 and low.max() == high.max() == _EIGHT_BITS:
        yield "both images end at 255 counts: 8-bit copies, each stretched on its own and stored as 16 bit; give the raw counts"
    elif min(low.shape[-2:]) < limits.least_side_px:
        yield f"the images have {_size(low)} pixels; at least {limits.least_side_px} in Y and X are needed to learn from"


def _no_image(name: str, pixels: Pixels) -> str:
    wrong = pixels.size - int(np.count_nonzero(np.isfinite(pixels))) if pixels.dtype.kind == "f" else 0
    if wrong:
        return f"{name} has {wrong} pixels that are NaN or infinite; export the raw counts, or crop them away"
    if pixels.min() == pixels.max():
        return f"{name} is constant at {pixels.min():g} counts; look whether the shutter opened and the file is whole"
    return ""


def why_rejected(facts: "PairFacts", spectra: "Spectra", limits: "QualityLimits", pixel_size_um: PixelSize | None) -> str:
    """Say why a pair is rejected, by the first limit that it exceeds."""
    found = (
        *_of_saturation(facts, limits),
        *_of_noise(facts, spectra, limits),
        *_of_emptiness(facts, limits),
        *_of_place(facts, limits, pixel_size_um),
        *_of_likeness(spectra),
        *_of_focus(facts, spectra, limits),
        *_of_motion(facts, limits, pixel_size_um),
        *_of_dose(facts, spectra, limits),
    )
    return found[0] if found else ""


def _of_saturation(facts: "PairFacts", limits: "QualityLimits") -> Iterator[str]:
    for name, share in (("high", facts.saturated_high), ("low", facts.saturated_low)):
        if share > limits.saturated:
            yield f"{_percent(share)} of {name} is saturated (limit {_percent(limits.saturated)}); take it with less light"


def _of_noise(facts: "PairFacts", spectra: "Spectra", limits: "QualityLimits") -> Iterator[str]:
    both_show = bool(facts.shift_px) or spectra.low_shows > _SHOWS
    if facts.noise_ratio is not None and facts.noise_ratio < limits.noise_ratio and both_show:
        how = "noisier than" if facts.noise_ratio < 1 / limits.noise_ratio else "as noisy as"
        yield (
            f"high is {how} low (noise ratio {facts.noise_ratio:.2g}, limit {limits.noise_ratio:g}); "
            "low and high may be swapped: exchange them, or take high with more light"
        )


def _of_emptiness(facts: "PairFacts", limits: "QualityLimits") -> Iterator[str]:
    if facts.filled is not None and facts.filled < limits.filled:
        yield (
            f"the field is empty: {_percent(facts.filled)} of high rises above the background "
            f"(limit {_percent(limits.filled)}); move to cells"
        )


def _of_likeness(spectra: "Spectra") -> Iterator[str]:
    unlike = math.isnan(spectra.likeness) or spectra.likeness < _UNLIKE
    if spectra.low_shows > _SHOWS and spectra.high_shows > _SHOWS and unlike:
        yield (
            f"low and high show different things (likeness {spectra.likeness:.2f}, limit {_UNLIKE:g}); "
            "look whether both are of the same field and channel, not more than half of it apart"
        )


def _of_place(facts: "PairFacts", limits: "QualityLimits", size_um: PixelSize | None) -> Iterator[str]:
    for what, px in (("high lies", facts.shift_px), ("the field drifted", facts.drift_px)):
        sideways = math.hypot(*px[-2:]) if px else 0.0
        if sideways > limits.shift_px:
            yield (
                f"{what} {sideways:.1f} pixels{_microns(sideways, size_um, 2)} "
                f"{'from low' if px is facts.shift_px else 'from low to low again'} (limit {limits.shift_px:g}); "
                "let the stage settle, or take the two images closer in time"
            )
        if len(px) == 3 and abs(px[0]) > limits.shift_planes:
            yield (
                f"{what} {abs(px[0]):.1f} planes{_microns(abs(px[0]), size_um, 0)} {'above' if px[0] > 0 else 'below'} low "
                f"(limit {limits.shift_planes:g}); let the focus drive settle, or take low and high plane by plane"
            )


def _of_motion(facts: "PairFacts", limits: "QualityLimits", size_um: PixelSize | None) -> Iterator[str]:
    if facts.motion_px is not None and facts.motion_px > limits.motion_px:
        yield (
            f"parts of the field moved by {facts.motion_px:.1f} pixels{_microns(facts.motion_px, size_um, 2)} between low and "
            f"high (limit {limits.motion_px:g}); take the two closer in time, or fixed cells"
        )


def _of_focus(facts: "PairFacts", spectra: "Spectra", limits: "QualityLimits") -> Iterator[str]:
    surely = math.sqrt(max(0.0, abs(spectra.blur2_px2) - _ERRORS * spectra.blur2_error_px2)) if facts.blur_px else 0.0
    if facts.blur_px is not None and surely > limits.blur_px:
        which = "low is" if facts.blur_px > 0 else "high is"
        yield (
            f"{which} blurrier than the other by {abs(facts.blur_px):.1f} pixels sigma (limit {limits.blur_px:g}), "
            "out of focus or moving; let the focus settle between the two"
        )


def _of_dose(facts: "PairFacts", spectra: "Spectra", limits: "QualityLimits") -> Iterator[str]:
    if facts.mean_ratio is not None and facts.dose_ratio:
        surely = 1 + _ERRORS * spectra.slope_error / spectra.slope
        away = max(facts.mean_ratio / facts.dose_ratio, facts.dose_ratio / facts.mean_ratio)
        if away > limits.ratio_factor * surely:
            swapped = "; low and high may be swapped" if facts.mean_ratio < 1 < facts.dose_ratio else ""
            yield (
                f"high is {facts.mean_ratio:.3g} times brighter than low, but had {facts.dose_ratio:.3g} times the light "
                f"(limit: a factor of {limits.ratio_factor:g}){swapped}; look at the read-backs of exposure and laser, "
                "and at bleaching"
            )
    if facts.bleaching is not None:
        surely_lost = facts.bleaching - _ERRORS * 1.5 * spectra.slope_error / spectra.slope
        if surely_lost > limits.bleaching:
            yield (
                f"{_percent(facts.bleaching)} of the light was bleached between the two low images "
                f"(limit {_percent(limits.bleaching)}); take high with less light, or fewer planes"
            )


def _size(pixels: Pixels) -> str:
    return " x ".join(str(side) for side in pixels.shape[-2:])


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _microns(px: float, size_um: PixelSize | None, axis: int) -> str:
    size = size_um[axis] if size_um else None
    return f" ({px * size:.2g} µm)" if size else ""
