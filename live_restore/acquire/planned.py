"""The frames that are to be taken, one by one, and what they will take together.

Receives what a plan expands to; hands on events for pymmcore-plus and for pycro-manager, and a summary in words. It does not
know files, devices, nor in which order or why frames are taken.

Axes are whole numbers and names, micrometres stand beside them, and every frame has an exposure, because pycro-manager
silently does otherwise with anything else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import useq

from live_restore.config import Channel

# Moving, switching and reading out, per frame: a guess for the estimate of the duration only.
_OVERHEAD_S = 0.01
Setting = tuple[str, str, Any]


@dataclass(frozen=True, slots=True)
class PlannedFrame:
    """One frame that is to be taken.

    Attributes
    ----------
    axes : mapping of str to int or str
        ``time``, ``position``, ``channel``, ``z``, and ``light`` where there is more than one.
    group, preset : str
        Micro-Manager's configuration of the channel.
    exposure_ms : float
    power : float, str or None
        Value of the light's property, or its preset; None: as it is.
    x_um, y_um, z_um : float or None
        Where the stage goes; None: where it is.
    start_s : float
        Not before this long after the beginning.
    """

    axes: Mapping[str, int | str]
    group: str
    preset: str
    exposure_ms: float
    power: float | str | None
    x_um: float | None
    y_um: float | None
    z_um: float | None
    start_s: float

    def as_event(self, settings: Iterable[Setting] = ()) -> dict[str, Any]:
        """Give the event of pycro-manager; `settings` are the device properties that make the light."""
        event: dict[str, Any] = {"axes": dict(self.axes), "exposure": self.exposure_ms}
        if self.group:
            event["config_group"] = [self.group, self.preset]
        if "time" in self.axes and self.start_s > 0:
            event["min_start_time"] = self.start_s
        places = {"x": self.x_um, "y": self.y_um, "z": self.z_um}
        event |= {name: value for name, value in places.items() if value is not None}
        properties = [[device, name, str(value)] for device, name, value in settings]
        return event | ({"properties": properties} if properties else {})

    def as_mda_event(self, settings: Iterable[Setting] = ()) -> useq.MDAEvent:
        """Give the event of pymmcore-plus; light and axes travel in its metadata."""
        numbers = {"t": self.axes.get("time"), "z": self.axes.get("z")}
        said: dict[str, Any] = {
            "index": {name: value for name, value in numbers.items() if value is not None},
            "channel": {"group": self.group, "config": self.preset} if self.group else None,
            "exposure": self.exposure_ms,
            "min_start_time": self.start_s if self.start_s > 0 else None,
            "pos_name": str(self.axes["position"]) if "position" in self.axes else None,
            "x_pos": self.x_um,
            "y_pos": self.y_um,
            "z_pos": self.z_um,
            "properties": list(settings) or None,
            "metadata": {"axes": dict(self.axes), "light": self.axes.get("light", "low")},
        }
        return useq.MDAEvent(**said)


def add_up(
    frames: Iterable[PlannedFrame], frame_bytes: int, channels: Mapping[str, Channel], low: float | str | None = None
) -> "PlanSummary":
    """Add up what frames will take.

    Parameters
    ----------
    frames : iterable of PlannedFrame
    frame_bytes : int
    channels : mapping of str to Channel
        They know what each frame would be exposed for without restoration.
    low : float or str, optional
        Power of low light: brighter frames count as so much longer.
    """
    busy_s = end_s = 0.0
    number = 0
    light_ms: dict[str, float] = {}
    counts: dict[str, int] = {}
    volumes: set[tuple[Any, ...]] = set()
    for frame in frames:
        name = str(frame.axes.get("channel", "Default"))
        volumes.add(tuple(sorted((axis, str(value)) for axis, value in frame.axes.items() if axis != "z")))
        light_ms[name] = light_ms.get(name, 0.0) + frame.exposure_ms * _times_as_bright(frame.power, low)
        # a reference is not what one would have taken
        counts[name] = counts.get(name, 0) + (frame.axes.get("light") != "high")
        number += 1
        busy_s += frame.exposure_ms / 1e3 + _OVERHEAD_S
        end_s = max(end_s, frame.start_s)
    reference_ms = {name: channel.reference_exposure_ms for name, channel in channels.items()}
    light = {
        name: (each_ms, None if reference_ms.get(name) is None else counts[name] * (reference_ms[name] or 0.0))
        for name, each_ms in light_ms.items()
    }
    return PlanSummary(number, len(volumes), max(end_s, busy_s), number * frame_bytes, light)


def _times_as_bright(power: float | str | None, low: float | str | None) -> float:
    both_known = isinstance(power, (int, float)) and isinstance(low, (int, float)) and low > 0
    return power / low if both_known else 1.0  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What an acquisition will take.

    Attributes
    ----------
    frames, volumes : int
    seconds : float
        At least.
    bytes : int
    exposures_ms : mapping of str to (float, float or None)
        Per channel all exposures together, as if all were at low light, and what they would be without restoration.
    """

    frames: int
    volumes: int
    seconds: float
    bytes: int
    exposures_ms: Mapping[str, tuple[float, float | None]]

    def in_words(self) -> str:
        """Say it in a sentence or two."""
        minutes, seconds = divmod(round(self.seconds), 60)
        lasting = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        said = f"{self.frames} frames in {self.volumes} volumes, at least {lasting}, {self.bytes / 1e9:.2f} GB."
        for name, (low_ms, reference_ms) in self.exposures_ms.items():
            said += f" {name}: {low_ms / 1e3:.1f} s of light"
            said += f", {100 * (1 - low_ms / reference_ms):.0f} % less than without restoration." if reference_ms else "."
        return said
