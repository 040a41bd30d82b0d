"""What a calibration takes: pairs of low and high-light volumes at many places, as somebody wrote it in a TOML file.

Receives the file and the hardware configuration; hands on `CalibrationPlan`, which gives every pair with its frames in order,
low light always before high. It does not know devices, nor who carries it out, nor what becomes of a pair.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from live_restore.acquire.acquisition import Place, PositionAsked
from live_restore.acquire.calibration_file import CalibrationFile, CalibrationHead, ChannelLights
from live_restore.acquire.dose import ChannelDose, Dose
from live_restore.acquire.places import Around, FieldGrid, NamedPlace, label_of, places
from live_restore.acquire.planned import PlannedFrame
from live_restore.config import Channel, HardwareConfig, Light, read_toml
from live_restore.errors import ConfigError
from live_restore.pairs.quality import QualityLimits
from live_restore.records.pair_log import pair_name

LightName = Literal["low", "high", "low again"]


# ------------------------------------------------------------------ the plan


@dataclass(frozen=True, slots=True)
class Level:
    """A light: exposure, and power as a property's value or a preset's name; None: as it is."""

    exposure_ms: float
    power: float | str | None


@dataclass(frozen=True, slots=True)
class CalibratedChannel:
    """A channel with its two lights.

    Attributes
    ----------
    name, group, preset : str
    low, high : Level
    light : Light or None
        What the powers set.
    dose_ratio : float or None
        High over low; None: nobody knows.
    """

    name: str
    group: str
    preset: str
    low: Level
    high: Level
    light: Light | None
    dose_ratio: float | None

    def level(self, light: str) -> Level:
        """Give one of the lights by its name."""
        return self.high if light == "high" else self.low


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """A pair that is to be taken.

    Attributes
    ----------
    name : str
        Fit for a file.
    channel : CalibratedChannel
    place : NamedPlace
    repeat : int
        Counted from 0.
    planes : int or None
        None: an image, no stack.
    frames : tuple of PlannedFrame
        In order; their axis ``light`` says which light.
    """

    name: str
    channel: CalibratedChannel
    place: NamedPlace
    repeat: int
    planes: int | None
    frames: tuple[PlannedFrame, ...]


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What a calibration takes.

    Attributes
    ----------
    head : CalibrationHead
    directory : Path
    asked : sequence of PositionAsked, FieldGrid or Around
    heights_um : tuple of float
        Of the planes about the focus; empty: an image, no stack.
    channels : tuple of CalibratedChannel
    limits : QualityLimits
        Beyond what a pair is rejected.
    """

    head: CalibrationHead
    directory: Path
    asked: tuple[PositionAsked, ...] | FieldGrid | Around
    heights_um: tuple[float, ...]
    channels: tuple[CalibratedChannel, ...]
    limits: QualityLimits

    @property
    def lights(self) -> tuple[LightName, ...]:
        """The lights of a pair, in order."""
        return ("low", "high", "low again") if self.head.sandwich else ("low", "high")

    @property
    def positions(self) -> int:
        """How many places."""
        if isinstance(self.asked, Around):
            return self.asked.count
        return self.asked.rows * self.asked.columns if isinstance(self.asked, FieldGrid) else len(self.asked)

    @property
    def planes(self) -> int:
        """How many planes a volume has."""
        return max(1, len(self.heights_um))

    @property
    def step_um(self) -> float | None:
        """Distance of two planes; None: there are none."""
        return round(self.heights_um[1] - self.heights_um[0], 6) if len(self.heights_um) > 1 else None

    def pairs(self, home_um: Place, field_um: tuple[float, float]) -> Iterator[PlannedPair]:
        """Give every pair in order: position by position, channel by channel, repeat by repeat.

        Parameters
        ----------
        home_um : tuple of float
            Where the stage is: x, y, z.
        field_um : tuple of float
            Width and height of the camera's field.

        Raises
        ------
        ConfigError
            If fields overlap.
        """
        for place in places(self.asked, home_um, field_um):
            for channel in self.channels:
                for repeat in range(self.head.repeats):
                    yield self._pair(place, channel, repeat)

    def dose(self, frame_bytes: int) -> Dose:
        """Add up time, light and bytes, with frames of this size."""
        each = self.planes * self.head.repeats
        lights = [
            ChannelDose(
                channel.name,
                each * channel.low.exposure_ms * (len(self.lights) - 1),
                each * channel.high.exposure_ms,
                _level_words(channel.low),
                _level_words(channel.high),
                channel.dose_ratio,
                self.head.repeats,
                self.head.sandwich,
            )
            for channel in self.channels
        ]
        pairs = self.positions * len(self.channels) * self.head.repeats
        return Dose(self.positions, pairs, self.planes, pairs * self.planes * len(self.lights), frame_bytes, tuple(lights))

    def _pair(self, place: NamedPlace, channel: CalibratedChannel, repeat: int) -> PlannedPair:
        heights: Sequence[tuple[int | None, float]] = [(None, 0.0), *enumerate(self.heights_um)][bool(self.heights_um) :]
        stacked = [(light, *height) for light in self.lights for height in heights]
        alternating = [(light, *height) for height in heights for light in self.lights]
        order = stacked if self.head.order == "stack by stack" else alternating
        frames = tuple(self._frame(place, channel, repeat, *one) for one in order)
        return PlannedPair(
            pair_name(place.label, channel.name, repeat), channel, place, repeat, len(self.heights_um) or None, frames
        )

    def _frame(
        self, place: NamedPlace, channel: CalibratedChannel, repeat: int, light: LightName, z: int | None, height_um: float
    ) -> PlannedFrame:
        axes: dict[str, int | str] = {"position": place.label, "channel": channel.name}
        axes |= {"repeat": repeat} if self.head.repeats > 1 else {}
        axes |= {} if z is None else {"z": z}
        level = channel.level(light)
        return PlannedFrame(
            axes={**axes, "light": light},
            group=channel.group,
            preset=channel.preset,
            exposure_ms=level.exposure_ms,
            power=level.power,
            x_um=place.x_um,
            y_um=place.y_um,
            z_um=round(place.z_um + height_um, 6),
            start_s=0.0,
        )


# ------------------------------------------------------------------ reading


def read_calibration(path: Path, config: HardwareConfig) -> CalibrationPlan:
    """Read a calibration plan.

    Raises
    ------
    ConfigError
        If the file cannot be read, or asks for what cannot be.
    """
    path = Path(path)
    said = read_toml(path, CalibrationFile)
    channels = tuple(_channel(asked, config, str(path)) for asked in said.channels)
    words = [pair_name("", channel.name).lower() for channel in channels]
    if len(set(words)) < len(words):
        raise ConfigError(
            f"{path}: two channels have the same name, or one that makes the same file name; give each channel once"
        )
    heights = tuple(said.z.heights_um()) if said.z else ()
    return CalibrationPlan(
        said.calibration, said.calibration.directory or config.learn.pairs, _asked(said, path), heights, channels, said.limits
    )


def _asked(said: CalibrationFile, path: Path) -> tuple[PositionAsked, ...] | FieldGrid | Around:
    ways: list[Any] = [way for way in (said.around, said.grid, said.positions) if way]
    if len(ways) != 1:
        found = "none of them" if not ways else "several of them"
        raise ConfigError(f"{path}: say where by one of [around], [grid] and [[positions]]; it has {found}")
    labels = [pair_name(label_of(position, k), "").lower() for k, position in enumerate(said.positions)]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"{path}: two positions have the same label, or one that makes the same file name; give each its own")
    found_way: tuple[PositionAsked, ...] | FieldGrid | Around = ways[0]
    return found_way


def _channel(asked: ChannelLights, config: HardwareConfig, source: str) -> CalibratedChannel:
    known = config.channels.get(asked.name)
    if known is None:
        near = get_close_matches(asked.name, config.channels, n=1, cutoff=0.4)
        cure = f"did you mean {near[0]}?" if near else f"it has {', '.join(config.channels)}"
        raise ConfigError(f"{source}: channel {asked.name!r} is not in the hardware configuration; {cure}")
    where = f"{source}: channel {asked.name}"
    configured = config.light if (asked.device, asked.property, asked.group) == (None, None, None) else None
    low, high = _levels(asked, known, configured)
    light = configured or _own_light(asked, low, high, where)
    if light is None and (low.power, high.power) != (None, None):
        raise ConfigError(
            f"{where} asks for a power and nobody says what sets it; add device and property, or group, or [light] to the "
            "hardware configuration"
        )
    ratio = asked.dose_ratio or _dose_ratio(low, high)
    if ratio is not None and ratio <= 1:
        raise ConfigError(
            f"{where}: high light ({_level_words(high)}) is {ratio:g} times low light ({_level_words(low)}), and must be more; "
            "raise the exposure or the power of high, or exchange the two"
        )
    return CalibratedChannel(asked.name, known.group, known.preset or asked.name, low, high, light, ratio)


def _levels(asked: ChannelLights, known: Channel, light: Light | None) -> tuple[Level, Level]:
    """Fill in what was not said; what high does not say is as for low, unless it says nothing at all."""
    power = known.power if known.power is not None or light is None else light.low
    low = Level(asked.low.exposure_ms or known.exposure_ms, power if asked.low.power is None else asked.low.power)
    said = asked.high
    if said.exposure_ms is not None or said.power is not None:
        return low, Level(said.exposure_ms or low.exposure_ms, low.power if said.power is None else said.power)
    if light is not None:
        return low, Level(low.exposure_ms, light.high)
    return low, Level(known.reference_exposure_ms or low.exposure_ms, low.power)


def _own_light(asked: ChannelLights, low: Level, high: Level, where: str) -> Light | None:
    if (asked.device, asked.property, asked.group) == (None, None, None):
        return None
    if low.power is None or high.power is None:
        raise ConfigError(f"{where} says what sets its power, and not how bright; add power to low and to high")
    try:
        return Light(device=asked.device, property=asked.property, group=asked.group, low=low.power, high=high.power)
    except ValidationError as error:
        raise ConfigError(f"{where}: say either device and property, or group") from error


def _dose_ratio(low: Level, high: Level) -> float | None:
    """How many times as much light, as far as it follows from what was asked."""
    longer = high.exposure_ms / low.exposure_ms
    if low.power == high.power:
        return longer
    if isinstance(low.power, str) or isinstance(high.power, str) or not low.power or high.power is None:
        return None
    return longer * high.power / low.power


def _level_words(level: Level) -> str:
    return f"{level.exposure_ms:g} ms" + (
        "" if level.power is None else f" at {level.power:g}" if isinstance(level.power, float) else f" at {level.power}"
    )
