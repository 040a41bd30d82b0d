"""pycro-manager's names for things: the only file that knows the keys of its metadata and events.

Receives the metadata of an image, or an event; hands on the fields of a `FrameInfo`, or a `Promise`. It does not know
pycro-manager itself, and loads nothing of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from live_restore.acquire.plan import Promise
from live_restore.frames import Light, VolumeKey

Axes = Mapping[str, Any]
Stage = tuple[float | None, float | None, float | None]
AxesKey = tuple[tuple[str, Any], ...]

# The axes that have a field of their own; every other is part of the position's label.
_NAMED = frozenset(("time", "position", "channel", "z", "light"))
_AXES, _EXPOSURE, _PIXEL_SIZE, _PIXEL_SIZE_JAVA = "Axes", "Exposure", "PixelSize_um", "PixelSizeUm"
_X, _Y, _Z = "XPosition_um_Intended", "YPosition_um_Intended", "ZPosition_um_Intended"


@dataclass(frozen=True, slots=True)
class Said:
    """What the metadata say of a frame: all that pycro-manager knows, under our names."""

    key: VolumeKey
    z: int | None
    axes: AxesKey
    asked_exposure_ms: float | None
    pixel_size_um: float | None
    stage_um: Stage | None


def read_metadata(metadata: Mapping[str, Any], axes: Axes | None = None) -> Said:
    """Read the metadata of an image.

    Parameters
    ----------
    metadata : mapping
        As pycro-manager gives it; numbers may be strings.
    axes : mapping or None
        Where the frame stands; None: as the metadata say.
    """
    place: Axes = metadata.get(_AXES, {}) if axes is None else axes
    key, z = place_of(place)
    size = metadata.get(_PIXEL_SIZE, metadata.get(_PIXEL_SIZE_JAVA))
    stage: Stage | None = (number(metadata.get(_X)), number(metadata.get(_Y)), number(metadata.get(_Z)))
    return Said(
        key,
        z,
        axes_key(place),
        number(metadata.get(_EXPOSURE)),
        number(size) or None,
        None if stage == (None, None, None) else stage,
    )


def place_of(axes: Axes) -> tuple[VolumeKey, int | None]:
    """Name the volume of a frame, and its plane; None for a frame without z."""
    time, z = axes.get("time", 0), axes.get("z")
    point, plane = _whole(time), _whole(z)
    unnamed = [] if _NAMED.issuperset(axes) else [(name, axes[name]) for name in sorted(axes) if name not in _NAMED]
    if plane is None and z is not None:  # a plane with a name
        unnamed.append(("z", z))
    if point is None:
        unnamed.append(("time", time))
    light: Light = "high" if str(axes.get("light", "low")).lower() == "high" else "low"
    label = str(axes.get("position", 0))
    if unnamed:
        label = "_".join([label, *(f"{name}{value}" for name, value in unnamed)])
    return VolumeKey(point or 0, label, str(axes.get("channel", "Default")), light), plane


def promise_of(event: Mapping[str, Any]) -> Promise:
    """Read an event."""
    key, z = place_of(event.get("axes", {}))
    return Promise(key, z, number(event.get("exposure")), number(event.get("min_start_time")), number(event.get("z")))


def axes_key(axes: Axes) -> AxesKey:
    """Make axes fit to look something up by, in whatever order they stand."""
    return tuple(sorted(axes.items()))


def number(value: object) -> float | None:
    """Read a number that may be a string; None if it is none."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None


def _whole(value: object) -> int | None:
    """Read an index; numpy's integers are among them."""
    if isinstance(value, int):
        return value
    if isinstance(value, str) or value is None:
        return None
    as_float = float(value)  # type: ignore[arg-type]
    return int(as_float) if as_float.is_integer() else None
