"""What an experiment asks for: when each volume that is to be restored will be complete.

Receives an acquisition plan, or its numbers; hands on a `Demand`. It does not know how fast anything is restored.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from live_restore.config import Channel, HardwareConfig, MicroManager, OpticsFacts, read_toml
from live_restore.errors import ConfigError

if TYPE_CHECKING:
    from live_restore.acquire.acquisition import AcquisitionPlan
    from live_restore.acquire.planned import PlannedFrame

# Moving, switching and reading out, per frame: a guess, as in the summary of a plan.
_OVERHEAD_S = 0.01
# Exposure of a channel of which nobody says it.
_EXPOSURE_MS = 10.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A volume that is to be restored: it is complete `at_s` after the beginning."""

    at_s: float
    channel: str
    planes: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What an experiment asks for.

    Attributes
    ----------
    arrivals : tuple of Arrival
        In the order of time; at least one.
    frame : tuple of int
        (Y, X).
    seconds : float
        How long it takes, the pause after the last volume included.
    """

    arrivals: tuple[Arrival, ...]
    frame: tuple[int, int]
    seconds: float

    @property
    def per_s(self) -> float:
        """Volumes per second, on average."""
        return len(self.arrivals) / self.seconds

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Shape (Z, Y, X) of the largest volume of each channel."""
        most: dict[str, int] = {}
        for arrival in self.arrivals:
            most[arrival.channel] = max(arrival.planes, most.get(arrival.channel, 0))
        return {channel: (planes, *self.frame) for channel, planes in most.items()}


def demand_of_numbers(
    frame: tuple[int, int], planes: int = 1, interval_s: float = 1.0, channels: int = 1, positions: int = 1, times: int = 100
) -> Demand:
    """Put a time-lapse together: volumes come evenly within each interval.

    Parameters
    ----------
    frame : tuple of int
        (Y, X).
    planes : int
    interval_s : float
        From one time point to the next.
    channels, positions, times : int

    Raises
    ------
    ValueError
        If a number is not possible.
    """
    if interval_s <= 0:
        raise ValueError(
            f"an interval of {interval_s:g} s is not possible; say how often a time point begins, e.g. --interval-s 1"
        )
    if min(planes, channels, positions, times, *frame) < 1:
        raise ValueError("frame, planes, channels, positions and times are whole numbers from 1 on")
    each_s = interval_s / (channels * positions)
    places = [(position, channel) for position in range(positions) for channel in range(channels)]
    arrivals = tuple(
        Arrival(time * interval_s + (number + 1) * each_s, f"channel {channel + 1}" if channels > 1 else "*", planes)
        for time in range(times)
        for number, (_, channel) in enumerate(places)
    )
    return Demand(arrivals, frame, times * interval_s)


def demand_of_plan(path: Path, frame: tuple[int, int], config: HardwareConfig | None = None) -> Demand:
    """Read an acquisition plan: our TOML, or a useq file.

    Parameters
    ----------
    path : Path
    frame : tuple of int
        (Y, X) of the camera, which no plan says.
    config : HardwareConfig, optional
        Without one, channels are as the plan names them; what it does not expose is taken as 10 ms.

    Raises
    ------
    ConfigError
        If the file cannot be read, or useq is not installed.
    """
    try:
        from live_restore.acquire.acquisition import read_acquisition
    except ModuleNotFoundError as missing:
        raise ConfigError(f"reading {path} needs {missing.name}: pip install live_restore[acquire]") from missing
    plan = read_acquisition(path, config or _made_up(path))
    return demand_of_frames(plan.frames(field_um=(1.0, 1.0)), frame, _interval_s(plan))


def demand_of_frames(frames: "Iterable[PlannedFrame]", frame: tuple[int, int], interval_s: float = 0.0) -> Demand:
    """Follow the frames of a plan in time, and note when each volume at low light is complete."""
    now_s = 0.0
    found: dict[tuple[tuple[str, str], ...], tuple[float, str, int]] = {}
    last_start_s = 0.0
    for each in frames:
        now_s = max(now_s, each.start_s) + each.exposure_ms / 1e3 + _OVERHEAD_S
        last_start_s = max(last_start_s, each.start_s)
        if each.axes.get("light") == "high":
            continue
        key = tuple(sorted((axis, str(place)) for axis, place in each.axes.items() if axis != "z"))
        found[key] = (now_s, str(each.axes.get("channel", "*")), found.get(key, (0.0, "", 0))[2] + 1)
    if not found:
        raise ConfigError("this plan takes no frame at low light, so there is nothing to restore")
    arrivals = tuple(sorted((Arrival(*each) for each in found.values()), key=lambda arrival: arrival.at_s))
    return Demand(arrivals, frame, max(now_s, last_start_s + interval_s))


def _interval_s(plan: "AcquisitionPlan") -> float:
    """From one time point to the next; 0 where it goes as fast as it can."""
    starts = sorted({each.start_s for each in plan.frames(field_um=(1.0, 1.0))})
    return (starts[-1] - starts[0]) / (len(starts) - 1) if len(starts) > 1 else 0.0


def _made_up(path: Path) -> HardwareConfig:
    """Make a configuration that has the channels of this plan, so that it can be read without a microscope."""
    names: Mapping[str, float | None] = _channels(path)
    channels = {
        name: Channel(exposure_ms=exposure_ms or _EXPOSURE_MS, reference_exposure_ms=100.0)
        for name, exposure_ms in names.items()
    }
    return HardwareConfig(micromanager=MicroManager(demo=True), optics=OpticsFacts(pixel_size_um=0.1), channels=channels)


def _channels(path: Path) -> dict[str, float | None]:
    from useq import MDASequence

    from live_restore.acquire.acquisition import PlanFile

    if path.suffix.lower() == ".toml":
        return {channel.name: channel.exposure_ms for channel in read_toml(path, PlanFile).channels}
    try:
        sequence = MDASequence.from_file(path)
    except (OSError, ValueError, TypeError):
        return {"Default": None}  # whoever reads the plan says what is wrong with it
    return {channel.config: channel.exposure for channel in sequence.channels} or {"Default": None}
