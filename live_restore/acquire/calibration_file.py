"""The file of a calibration plan: what a person may write in it, checked once and frozen.

Receives TOML; hands on frozen sections. It does not know the microscope, nor what they come to: that is in
`live_restore.acquire.calibration`.
"""

from typing import Annotated, Literal

from pydantic import Field

from live_restore.acquire.acquisition import PositionAsked, Stack
from live_restore.acquire.places import Around, FieldGrid
from live_restore.config import FilePath, Positive, Section
from live_restore.pairs.quality import QualityLimits


class CalibrationHead(Section):
    """Name, order, and how long the microscope may wait.

    Attributes
    ----------
    name : str
        Of the folder of pairs.
    directory : Path or None
        Where that folder is made; None: where the hardware configuration keeps pairs.
    order : str
        The whole stack at low light and then at high; or both at each height, where the specimen moves faster than a stack.
    repeats : int
        Pairs of every field and channel, one after the other.
    sandwich : bool
        Low light once more after high: that measures bleaching and drift.
    tolerance_percent : float
        How far a light may stand from what was asked.
    memory_mb : int
        Pairs that wait to be checked and written take this much memory at most; then the microscope waits.
    wait_s : float
        How long it waits before it gives up.
    """

    name: str = Field(default="calibration", pattern=r"^[\w\-. ]+$")
    directory: FilePath | None = None
    order: Literal["stack by stack", "plane by plane"] = "stack by stack"
    repeats: int = Field(default=1, ge=1, le=1000)
    sandwich: bool = False
    tolerance_percent: float = Field(default=2.0, gt=0, le=50)
    memory_mb: int = Field(default=1024, ge=1)
    wait_s: Positive = 120.0


class LightAsked(Section):
    """A light: what is not said is as the hardware configuration has it, or as it is for low light."""

    exposure_ms: Positive | None = None
    power: float | str | None = None


class ChannelLights(Section):
    """A channel of a calibration.

    Attributes
    ----------
    name : str
        As in the hardware configuration.
    low, high : LightAsked
    device, property, group : str or None
        What the power sets, where it is not what ``[light]`` of the hardware configuration says: each line its own laser.
    dose_ratio : float or None
        How many times the light of low high is, where it does not follow from exposures and powers.
    """

    name: str
    low: LightAsked = LightAsked()
    high: LightAsked = LightAsked()
    device: str | None = None
    property: str | None = None
    group: str | None = None
    dose_ratio: float | None = Field(default=None, gt=1)


class CalibrationFile(Section):
    """A calibration plan as a person writes it, see ``calibrations/``."""

    calibration: CalibrationHead = CalibrationHead()
    around: Around | None = None
    grid: FieldGrid | None = None
    positions: tuple[PositionAsked, ...] = ()
    z: Stack | None = None
    channels: Annotated[tuple[ChannelLights, ...], Field(min_length=1)]
    limits: QualityLimits = QualityLimits()
