"""What the trust figures mean, in plain sentences for the screen.

Receives figures; hands on reasons not to trust, places to look at, notes, and whether the light is what the model was
trained for. It does not know images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# From this share of the area raised, the restored image is not to be trusted: five times what honest networks show.
_TOO_MUCH_RAISED = 0.005
# Structures that are wrong beyond doubt concern the whole volume where they are this share of its area, so many in one plane,
# or as many as there are fields of 512 x 512 pixels: a single one in a single small image. Fewer are places to look at.
_TOO_MUCH_STRONG = 2e-4
_TOO_MANY_IN_A_PLANE = 3
_FIELD_PX = 512 * 512
_MOST_DOUBTS = 3
_TOO_MUCH_SATURATED = 0.05
_LEAST_SLOPE = 0.5
# Below this sd of z in the smallest windows, the restored image still carries the raw one's noise.
_NOISE_KEPT = 0.7
# Peaks within a quarter of the trained range are within the error of their estimate.
_MARGIN = 1.25
# An SNR is as uncertain as the limit that it is compared with; within this factor there is no reason to warn.
_SNR_MARGIN = 1.1
# Electrons per photon of scientific CMOS cameras, where nobody said; most have 0.7 to 0.95.
_USUAL_EFFICIENCY = 0.7


def reasons(figures: Mapping[str, Any], pixels: int) -> list[str]:
    """Why the restored volume, of so many pixels, is not to be trusted as a whole; empty where there is no reason."""
    said = [_raised(figures)] if figures["raised"] > _TOO_MUCH_RAISED else _certain(figures, pixels)
    if figures["broken"]:
        said.append(f"{figures['broken']} restored pixels are not numbers")
    if figures["slope"] < _LEAST_SLOPE:
        said.append(f"the restored image hardly follows the raw one (slope {figures['slope']:.2g} where 1 is expected)")
    if figures["saturated"] > _TOO_MUCH_SATURATED:
        said.append(f"{_percent(figures['saturated'])} of the pixels are saturated, and nothing can be said of them")
    return said


def _raised(figures: Mapping[str, Any]) -> str:
    worst = figures["places"][0]
    return f"the network removed or invented structure on {_percent(figures['raised'])} of the image, most at {_where(worst)}"


def _certain(figures: Mapping[str, Any], pixels: int) -> list[str]:
    number = figures["strong_places"]
    adds_up = figures["strong"] > _TOO_MUCH_STRONG or figures["strong_in_a_plane"] >= _TOO_MANY_IN_A_PLANE
    if not number or not (adds_up or number >= pixels / _FIELD_PX):
        return []
    worst = figures["places"][0]
    more = f"; so it did in {number} places" if number > 1 else ""
    return [f"the network {_did(worst)} a structure at {_where(worst)}, {_beyond(worst)}{more}"]


def doubts(strong: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where to look, in a volume that may be trusted otherwise: at the strongest of these places, at most three."""
    return [
        f"look at {_where(place)}: the network {_did(place)} a structure, {_beyond(place)}" for place in strong[:_MOST_DOUBTS]
    ]


def _did(place: Mapping[str, Any]) -> str:
    return "removed" if place["sign"] == "erased" else "invented"


def _beyond(place: Mapping[str, Any]) -> str:
    return f"{abs(place['score']):.0f} standard deviations beyond noise"


def _where(place: Mapping[str, Any]) -> str:
    plane = f", plane {place['z'] + 1}" if place["z"] else ""  # counted from 1, as the screen does
    return f"(y={place['y']}, x={place['x']}{plane})"


def notes(figures: Mapping[str, Any], noise_why: str) -> list[str]:
    """Say what else should be known of the check itself."""
    said = [noise_why] if noise_why else []
    sd = figures["sd_z"]["1"]
    if sd < _NOISE_KEPT:
        said.append(
            f"the restored image keeps the raw image's noise (sd of z {sd:.2g} where 1 is expected): the check sees little"
        )
    if 0 < figures["saturated"] <= _TOO_MUCH_SATURATED:
        said.append(f"{_percent(figures['saturated'])} of the pixels are saturated and were left out")
    return said


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def regime(figures: Mapping[str, Any], light_levels: Mapping[str, float]) -> str:
    """Say whether the light is outside what the model was trained for.

    Parameters
    ----------
    figures : mapping
        Of `live_restore.restore.trust.Trust`.
    light_levels : mapping
        Facts of the model: ``trained_peak_photons_from``, ``trained_peak_photons_to``, photons per pixel that one
        pixel in a thousand exceeds.

    Returns
    -------
    str
        A sentence, or nothing: the light is within the range, or the range is unknown.
    """
    photons = figures.get("peak_photons")
    about = "" if photons is not None else "about "
    if photons is None:
        if figures.get("peak_e") is None or figures.get("gain_known") is False:
            return ""
        photons = figures["peak_e"] / _USUAL_EFFICIENCY
    lowest, highest = light_levels.get("trained_peak_photons_from"), light_levels.get("trained_peak_photons_to")
    if lowest is not None and photons * _MARGIN < lowest:
        return (
            f"the brightest structures give {about}{photons:.2g} photons per pixel, and the model was trained for {lowest:g} "
            "or more: expect missing and invented detail; give more light or a longer exposure"
        )
    if highest is not None and photons > _MARGIN * highest:
        return (
            f"the brightest structures give {about}{photons:.3g} photons per pixel, and the model was trained for up to "
            f"{highest:g}: it may smooth away what the raw image shows; less light would do"
        )
    return ""


_AT_ANY_LIGHT = {
    "never_helps": "help at no light (live-restore limits); look at the raw image, or train it anew",
    "always_invents": "invent structure at any light (live-restore limits); look at the raw image beside it",
}


def beyond_limits(figures: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    """Say whether the light is outside of where the model was found to be of use.

    Parameters
    ----------
    figures : mapping
        Of `live_restore.restore.trust.Trust`.
    limits : mapping
        Facts of the model, as `live_restore.limits` explains them.

    Returns
    -------
    str
        A sentence, or nothing: the model is of use at this light, its limits were not measured, or the SNR is not known.
    """
    snr = figures.get("snr")
    if not limits or snr is None or figures.get("gain_known") is False:
        return ""
    for flag, sentence in _AT_ANY_LIGHT.items():
        if limits.get(flag):
            return f"this model was found to {sentence}"
    low, invents, high = (limits.get(f"snr_{name}") for name in ("low", "invents", "high"))
    if low is not None and snr * _SNR_MARGIN < low:
        more = ", and it invents structure below" + f" {invents:.2g}" if invents is not None and invents > snr else ""
        return f"SNR {snr:.2g} is below {low:.2g}, where this model stops helping{more} (live-restore limits); give more light"
    if invents is not None and snr * _SNR_MARGIN < invents:
        return f"SNR {snr:.2g} is below {invents:.2g}, where this model begins to invent (live-restore limits); give more light"
    if high is not None and snr > _SNR_MARGIN * high:
        return (
            f"SNR {snr:.2g} is above {high:.2g}, where this model stops helping (live-restore limits): the raw image, smoothed "
            "a little, shows as much; less light would do"
        )
    return ""
