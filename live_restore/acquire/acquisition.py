"""What is to be acquired: a time-lapse, stacks, channels, positions, as somebody wrote it in a TOML or useq file.

Receives the file and the hardware configuration; hands on `AcquisitionPlan`, which gives every frame in order. It does not
know devices, nor who carries it out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import useq
import yaml
from pydantic import Field, ValidationError, model_validator

from live_restore.acquire.planned import PlannedFrame, PlanSummary, add_up
from live_restore.config import Channel, FilePath, HardwareConfig, Positive, Section, read_toml
from live_restore.errors import ConfigError

Place = tuple[float, float, float]


# ------------------------------------------------------------------ the TOML file


class Head(Section):
    """Name and order.

    Attributes
    ----------
    name : str
        Of the dataset.
    directory : Path or None
        Where its folder is made; None: beside the plan.
    order : str
        What changes slowest first: a whole stack per channel, or all channels at each height.
    reference_every : int
        Every so many time points each volume is taken at high light too; 0: never.
    """

    name: str = Field(default="acquisition", pattern=r"^[\w\-. ]+$")
    directory: FilePath | None = None
    order: Literal["channel by channel", "plane by plane"] = "channel by channel"
    reference_every: int = Field(default=0, ge=0)


class Times(Section):
    """Time points."""

    points: int = Field(ge=1)
    interval_s: float = Field(default=0.0, ge=0)


class Stack(Section):
    """Heights about where the focus is: `planes` of them around it, or from `start_um` to `stop_um`, both included."""

    step_um: Positive
    planes: int | None = Field(default=None, ge=1)
    start_um: float | None = None
    stop_um: float | None = None

    @model_validator(mode="after")
    def _one_way_of_saying_it(self) -> "Stack":
        ends = (self.start_um, self.stop_um)
        if (self.planes is None) == (None in ends) or (self.planes is not None and ends != (None, None)):
            raise ValueError("say either planes, or start_um and stop_um")
        if self.planes is None and ends[1] < ends[0]:  # type: ignore[operator]
            raise ValueError(f"stop_um {ends[1]} lies below start_um {ends[0]}; exchange them")
        return self

    def heights_um(self) -> list[float]:
        """Heights relative to the focus."""
        if self.planes is not None:
            return [round((k - (self.planes - 1) / 2) * self.step_um, 6) for k in range(self.planes)]
        assert self.start_um is not None
        assert self.stop_um is not None
        steps = int((self.stop_um - self.start_um) / self.step_um + 1e-6)
        return [round(self.start_um + k * self.step_um, 6) for k in range(steps + 1)]


class ChannelAsked(Section):
    """A channel; what is not said here is as the hardware configuration has it."""

    name: str
    exposure_ms: Positive | None = None
    power: float | str | None = None


class PositionAsked(Section):
    """A place of the stage; what is not said stays where it is."""

    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None
    label: str | None = Field(default=None, pattern=r"^[\w\-. ]+$")


class Grid(Section):
    """Neighbouring fields about every position."""

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    overlap_percent: float = Field(default=10.0, ge=0, lt=100)


class PlanFile(Section):
    """An acquisition plan as a person writes it, see ``acquisitions/``."""

    examples: ClassVar[str] = "acquisitions"

    acquisition: Head = Head()
    time: Times | None = None
    z: Stack | None = None
    channels: Annotated[tuple[ChannelAsked, ...], Field(min_length=1)]
    positions: tuple[PositionAsked, ...] = ()
    grid: Grid | None = None


# ------------------------------------------------------------------ the plan


@dataclass(frozen=True, slots=True)
class AcquisitionPlan:
    """What is to be acquired.

    Attributes
    ----------
    name : str
    directory : Path
    sequence : useq.MDASequence
        Without light, and with positions relative to where the stage is.
    channels : mapping of str to Channel
        Exposure, power and preset of each channel that is used.
    reference_every : int
    high : float, str or None
        Power of reference volumes; None: they differ by their exposure.
    low : float, str or None
        Power of everything else, where a channel does not say.
    """

    name: str
    directory: Path
    sequence: useq.MDASequence
    channels: Mapping[str, Channel]
    reference_every: int = 0
    high: float | str | None = None
    low: float | str | None = None

    def frames(self, home_um: Place = (0.0, 0.0, 0.0), field_um: tuple[float, float] | None = None) -> Iterator[PlannedFrame]:
        """Give every frame in order; each volume of a reference time point once more, at high light.

        Parameters
        ----------
        home_um : tuple of float
            Where the stage is: x, y, z.
        field_um : tuple of float, optional
            Width and height of the camera's field; a grid needs it.

        Raises
        ------
        ConfigError
            If it asks for what cannot be carried out.
        """
        begun_s = start_s = 0.0
        for _, volume in groupby(self._placed(home_um, field_um), key=_volume):
            planes = []
            for event in volume:
                if event.reset_event_timer:
                    begun_s = start_s
                start_s = begun_s + (event.min_start_time or 0.0)
                planes.append(self._frame(event, start_s))
            yield from planes
            if self.reference_every and int(planes[0].axes.get("time", 0)) % self.reference_every == 0:
                yield from (self._reference(frame) for frame in planes)

    def summary(self, frame_bytes: int) -> PlanSummary:
        """Add up what it will take, with frames of this size."""
        return add_up(self.frames(field_um=(1.0, 1.0)), frame_bytes, self.channels, self.low)

    def _placed(self, home_um: Place, field_um: tuple[float, float] | None) -> useq.MDASequence:
        """Put the sequence where the stage is."""
        sequence, (x, y, z) = self.sequence, home_um
        asked = sequence.stage_positions or (useq.Position(),)
        # without a stack or a grid nothing moves that need not
        stacked, tiled = sequence.z_plan is not None and sequence.z_plan.is_relative, sequence.grid_plan is not None
        if tiled and field_um is None:
            raise ConfigError("a grid needs the size of the camera's field; set pixel_size_um in [optics]")
        changes: dict[str, Any] = {
            "stage_positions": [
                position.replace(
                    x=x if position.x is None and tiled else position.x,
                    y=y if position.y is None and tiled else position.y,
                    z=z if position.z is None and stacked else position.z,
                )
                for position in asked
            ]
        }
        if tiled and field_um is not None:
            changes["grid_plan"] = sequence.grid_plan.replace(fov_width=field_um[0], fov_height=field_um[1])  # type: ignore[union-attr]
        return sequence.replace(**changes)

    def _frame(self, event: useq.MDAEvent, start_s: float) -> PlannedFrame:
        if not isinstance(event.action, useq.AcquireImage) or event.slm_image is not None:
            what = "a light pattern" if event.slm_image is not None else type(event.action).__name__
            raise ConfigError(f"the plan asks for {what}, which is not carried out here; leave it out")
        name = _name(event)
        channel = self.channels.get(name)
        exposure_ms = event.exposure or (channel.exposure_ms if channel else None)
        if exposure_ms is None:
            raise ConfigError(f"channel {name!r} has no exposure; give one in the plan or in [channels.{name}]")
        power = None if channel is None else channel.power
        return PlannedFrame(
            axes=self._axes(event, name),
            group=event.channel.group if event.channel else "",
            preset=(channel.preset if channel else None) or name,
            exposure_ms=float(exposure_ms),
            power=self.low if power is None else power,
            x_um=event.x_pos,
            y_um=event.y_pos,
            z_um=None if event.z_pos is None else round(event.z_pos, 6),
            start_s=start_s,
        )

    def _axes(self, event: useq.MDAEvent, name: str) -> dict[str, int | str]:
        """Whole numbers and names only."""
        axes: dict[str, int | str] = {}
        if "t" in event.index:
            axes["time"] = int(event.index["t"])
        several = len(self.sequence.stage_positions) > 1 or event.pos_name is not None
        if several or "g" in event.index:
            label = event.pos_name or str(event.index.get("p", 0))
            axes["position"] = f"{label}_g{event.index['g']}" if "g" in event.index else label
        if event.channel is not None:
            axes["channel"] = name
        if "z" in event.index:
            axes["z"] = int(event.index["z"])
        if self.reference_every:
            axes["light"] = "low"
        return axes

    def _reference(self, frame: PlannedFrame) -> PlannedFrame:
        axes = {**frame.axes, "light": "high"}
        if self.high is not None:
            return replace(frame, axes=axes, power=self.high)
        channel = self.channels.get(str(frame.axes.get("channel")))
        longer_ms = channel.reference_exposure_ms if channel else None
        return replace(frame, axes=axes, exposure_ms=longer_ms or frame.exposure_ms)


# ------------------------------------------------------------------ reading


def read_acquisition(path: Path, config: HardwareConfig) -> AcquisitionPlan:
    """Read an acquisition plan: our TOML, or any useq file (YAML or JSON).

    Raises
    ------
    ConfigError
        If the file cannot be read, or asks for what the configuration does not have.
    """
    path = Path(path)
    if path.suffix.lower() == ".toml":
        return _from_toml(read_toml(path, PlanFile), config, path)
    if path.suffix.lower() in {".yaml", ".yml", ".json"}:
        return _from_useq(path, config)
    raise ConfigError(f"{path} is no acquisition plan; write a .toml file, or give a useq file (.yaml, .yml, .json)")


def _from_toml(plan: PlanFile, config: HardwareConfig, path: Path) -> AcquisitionPlan:
    head, source = plan.acquisition, str(path)
    channels = {asked.name: _channel(asked, config, source) for asked in plan.channels}
    if len(channels) < len(plan.channels):
        raise ConfigError(f"{source}: a channel is named twice; give each channel once")
    labels = [position.label or str(number) for number, position in enumerate(plan.positions)]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"{source}: two positions have the same label; give each its own")
    grid = plan.grid
    said: dict[str, Any] = {
        "axis_order": "tpgcz" if head.order == "channel by channel" else "tpgzc",
        "channels": [{"group": c.group, "config": name, "exposure": c.exposure_ms} for name, c in channels.items()],
        "time_plan": {"interval": plan.time.interval_s, "loops": plan.time.points} if plan.time else None,
        "z_plan": {"relative": plan.z.heights_um()} if plan.z else None,
        "stage_positions": [
            {"x": p.x_um, "y": p.y_um, "z": p.z_um, "name": label} for p, label in zip(plan.positions, labels, strict=True)
        ],
        "grid_plan": {"rows": grid.rows, "columns": grid.columns, "overlap": grid.overlap_percent} if grid else None,
    }
    sequence = useq.MDASequence(**said)
    low, high = (config.light.low, config.light.high) if config.light else (None, None)
    if head.reference_every and high is None:
        without = [name for name, channel in channels.items() if channel.reference_exposure_ms is None]
        if without:
            cure = f"add [light] to the hardware configuration, or reference_exposure_ms to [channels.{without[0]}]"
            raise ConfigError(f"{source}: nobody says what high light is for reference_every; {cure}")
    return AcquisitionPlan(head.name, head.directory or path.parent, sequence, channels, head.reference_every, high, low)


def _channel(asked: ChannelAsked, config: HardwareConfig, source: str) -> Channel:
    known = config.channels.get(asked.name)
    if known is None:
        near = get_close_matches(asked.name, config.channels, n=1, cutoff=0.4)
        cure = f"did you mean {near[0]}?" if near else f"it has {', '.join(config.channels)}"
        raise ConfigError(f"{source}: channel {asked.name!r} is not in the hardware configuration; {cure}")
    said = {"exposure_ms": asked.exposure_ms, "power": asked.power}
    return known.model_copy(update={name: value for name, value in said.items() if value is not None})


def _from_useq(path: Path, config: HardwareConfig) -> AcquisitionPlan:
    try:
        sequence = useq.MDASequence.from_file(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValidationError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no useq sequence: {' '.join(str(error).split())}") from error
    names = {channel.preset or name: name for name, channel in config.channels.items()}
    # channels go by our names from here on, which differ from the presets if the configuration says so
    sequence = sequence.replace(channels=[c.replace(config=names.get(c.config, c.config)) for c in sequence.channels])
    channels = {c.config: config.channels[c.config] for c in sequence.channels if c.config in config.channels}
    low = config.light.low if config.light else None
    return AcquisitionPlan(path.name.split(".")[0], path.parent, sequence, channels, low=low)


def _volume(event: useq.MDAEvent) -> tuple[Any, ...]:
    return event.index.get("t"), event.index.get("p"), event.index.get("g"), _name(event)


def _name(event: useq.MDAEvent) -> str:
    return event.channel.config if event.channel else "Default"
