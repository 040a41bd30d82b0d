"""A dataset card in words: names without underscores, values with their units.

Receives the mapping that a card is; hands on terms and texts for a reader. It does not know what a card must hold.
"""

from collections.abc import Mapping

_UNITS = {"um": "µm", "px": "px", "ms": "ms", "s": "s", "e": "e⁻", "adu": "counts", "db": "dB", "percent": "%", "mb": "MB"}
_NOT_SHOWN = ("name", "format")
_CLOCK, _PER_ELECTRON = "_unix_s", "_adu_per_e"
_LONGEST = 600


def card_words(card: Mapping[str, object]) -> dict[str, str]:
    """Say a card in words.

    >>> card_words({"name": "beads", "exposure_ms": 20.0, "light": {"low": {"power": 2.0}}, "finished": True, "why": None})
    {'exposure': '20 ms', 'light': 'low (power 2)', 'finished': 'yes'}
    """
    words = {}
    for key, value in card.items():
        text = _text(value, _term(key)[1])
        if text and key not in _NOT_SHOWN and not key.endswith(_CLOCK):
            words[_term(key)[0]] = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return words


def _term(key: str) -> tuple[str, str]:
    """``exposure_ms`` to exposure and ms; a name without a unit has an empty one."""
    if key.endswith(_PER_ELECTRON):
        return key.removesuffix(_PER_ELECTRON).replace("_", " "), "counts/e⁻"
    name, _, last = key.rpartition("_")
    if name and last in _UNITS:
        return name.replace("_", " "), _UNITS[last]
    return key.replace("_", " "), ""


def _text(value: object, unit: str) -> str:
    """Say a value; nothing of what is empty."""
    if isinstance(value, Mapping):
        return ", ".join(entry for key, inner in value.items() if (entry := _entry(str(key), inner)))
    if isinstance(value, (list, tuple)):
        return _with_unit(", ".join(text for inner in value if (text := _text(inner, ""))), unit)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return _with_unit(f"{value:.5g}" if isinstance(value, float) else str(value), unit)


def _entry(key: str, value: object) -> str:
    name, unit = _term(key)
    text = _text(value, unit)
    return f"{name} ({text})" if text and isinstance(value, Mapping) else f"{name} {text}" if text else ""


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if text and unit else text
