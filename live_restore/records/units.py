"""Units of length and time as files spell them, in micrometres and seconds.

Receives a number and a unit; hands on micrometres or seconds, or None where the unit is no physical one ("pixel").
"""

import math

_MICROMETRES = {
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("pm", "picometer"), 1e-6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch"), 25_400.0),
}
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ns", "nanosecond"), 1e-9),
    **dict.fromkeys(("us", "µs", "μs", "microsecond"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millisecond"), 1e-3),
    **dict.fromkeys(("min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3_600.0),
    **dict.fromkeys(("d", "day"), 86_400.0),
}


def to_um(value: object, unit: object) -> float | None:
    """Length in micrometres; None if it is no positive number or the unit is no length."""
    return _convert(value, unit, _MICROMETRES)


def to_s(value: object, unit: object) -> float | None:
    """Duration in seconds; None if it is no positive number or the unit is no time."""
    return _convert(value, unit, _SECONDS)


def _convert(value: object, unit: object, table: dict[str, float]) -> float | None:
    factor = table.get(str(unit).strip().lower())
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number * factor if factor is not None and math.isfinite(number) and number > 0 else None
