"""What the break points are called: `limits` of a package's facts, and sentences.

Receives `Limits`; hands on numbers that a package can hold, and words. It does not know curves.
"""

import math

from live_restore.limits.break_points import COARSER, BreakPoint, Limits

_LIGHT = (
    ("helps_from", "low"),
    ("helps_to", "high"),
    ("invents_below", "invents"),
    ("resolves_from", "resolves"),
    ("smooths_above", "smooths"),
)
_WITH_SPREAD = ("low", "invents", "resolves")


def facts_of(limits: Limits, pixel_size_um: float | None = None) -> dict[str, float]:
    """Say them as a package does; see `live_restore.limits` for what the entries are."""
    facts = {"best_gain_db": limits.best_gain_db} | ({} if limits.helps else {"never_helps": 1.0})
    facts |= {"always_invents": 1.0} if limits.invents_below.at == math.inf else {}
    for name, called in _LIGHT:
        point = getattr(limits, name)
        if point.found:
            facts |= {f"photons_{called}": point.at, f"snr_{called}": limits.snr[name]}
            facts |= _spread_of(f"photons_{called}", point) if called in _WITH_SPREAD else {}
    if math.isfinite(limits.resolution_px):
        facts |= _in_um("resolution", limits.resolution_px, pixel_size_um)
    if limits.blur_photons is not None:
        facts["blur_photons"] = limits.blur_photons
        if math.isfinite(limits.bears_blur.at):
            facts |= _in_um("blur", limits.bears_blur.at, pixel_size_um, "_high")
            facts |= _spread_of("blur_px_high", limits.bears_blur)
    facts |= {f"tested_{name}": value for name, value in limits.tested.items()}
    return {name: float(f"{value:.3g}") for name, value in facts.items()}


def _spread_of(name: str, point: BreakPoint) -> dict[str, float]:
    ends = {f"{name}_from": point.low, f"{name}_to": point.high}
    return {end: value for end, value in ends.items() if math.isfinite(value) and point.low < point.high}


def _in_um(name: str, pixels: float, pixel_size_um: float | None, suffix: str = "") -> dict[str, float]:
    um = {} if pixel_size_um is None else {f"{name}_um{suffix}": pixels * pixel_size_um}
    return {f"{name}_px{suffix}": pixels, **um}


def summary(limits: Limits, pixel_size_um: float | None = None) -> str:
    """Say in one line what the model can do."""
    said = [_helps(limits), _invents(limits), _resolves(limits, pixel_size_um), _smooths(limits), _blur(limits, pixel_size_um)]
    return "; ".join(clause for clause in said if clause)


def _helps(limits: Limits) -> str:
    least, most = (limits.tested[f"photons_{end}"] for end in ("from", "to"))
    if not limits.helps:
        return (
            f"never helps: between {least:.3g} and {most:.3g} photons it gains {limits.best_gain_db:+.2f} dB at most over a "
            "Gaussian filter"
        )
    low, high = limits.helps_from, limits.helps_to
    down = _photons(limits, "helps_from") if low.found else f"the least light tested, {least:.3g} photons"
    return f"helps down to {down}" + (f" and up to {number(high.at)}" if high.found else "")


def _photons(limits: Limits, name: str) -> str:
    point: BreakPoint = getattr(limits, name)
    return f"{number(point.at)} photons (SNR {limits.snr[name]:.1f})"


def _invents(limits: Limits) -> str:
    if limits.invents_below.at == math.inf:
        return "invents structure at any light that was tested"
    return f"invents below {number(limits.invents_below.at)} photons" if limits.invents_below.found else ""


def _resolves(limits: Limits, pixel_size_um: float | None) -> str:
    if math.isinf(limits.resolution_px):
        return "resolves nothing"
    unit, size = ("px", 1.0) if pixel_size_um is None else ("µm", pixel_size_um)
    finest, point = size * limits.resolution_px, limits.resolves_from
    coarser = f", and {COARSER * finest:.2g} {unit} down to {number(point.at)} photons" if point.found else ""
    return f"resolves {finest:.2g} {unit}{coarser}"


def _smooths(limits: Limits) -> str:
    if limits.smooths_above.at == 0:
        return "contradicts the photons at any light that was tested"
    return f"contradicts the photons above {number(limits.smooths_above.at)}" if limits.smooths_above.found else ""


def _blur(limits: Limits, pixel_size_um: float | None) -> str:
    if limits.blur_photons is None or not limits.helps:
        return ""
    point = limits.bears_blur
    if point.at == 0:
        return "bears no further blur"
    if not point.found:
        return f"bears all blur tested, up to {limits.tested['blur_px_to']:g} px"
    um = "" if pixel_size_um is None else f" ({point.at * pixel_size_um:.2g} µm)"
    return f"bears blur up to {point.at:.2g} px{um}"


def why_of_blur(limits: Limits) -> str:
    """Say what breaks first when blur grows."""
    words = {"helps": "it no longer helps", "invents": "it invents", "resolves": "it no longer resolves"}
    first = [name for name, point in limits.bears.items() if point.at == limits.bears_blur.at]
    return words[first[0]] if first and limits.bears_blur.found else ""


def number(value: float) -> str:
    """Two digits, or all before the point.

    >>> [number(value) for value in (0.123, 3.36, 99.7, 267.4)]
    ['0.12', '3.4', '100', '267']
    """
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}"
