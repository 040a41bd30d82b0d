"""The hardware configuration: what a person wrote about a microscope in TOML, checked once and frozen.

Receives a TOML file; hands on frozen sections, `HardwareConfig.micromanager`, `.camera`, `.optics` and so on, whose values
the parts are given. It does not know what the parts do with them, nor does it touch any hardware. `read_toml` reads
acquisition plans in the same way: a word that does not exist is refused with the nearest one that does.
"""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails

from live_restore.errors import ConfigError


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    """Paths are relative to the file that names them."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / path.expanduser()


def _package_beside_the_file(model: str, info: ValidationInfo) -> str:
    """Give a package that lies beside the file as its path; anything else is the name of a bundled one, or "none"."""
    path = _beside_the_file(Path(model), info)
    return str(path) if path.exists() or len(Path(model).parts) > 1 else model


FilePath = Annotated[Path, AfterValidator(_beside_the_file)]
ModelName = Annotated[str, AfterValidator(_package_beside_the_file)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A table of a TOML file: frozen, and no other words than these."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    # The folder with examples of such files; empty where there is none.
    examples: ClassVar[str] = ""


_Read = TypeVar("_Read", bound=Section)


class MicroManager(Section):
    """How Micro-Manager is reached.

    Attributes
    ----------
    demo : bool
        The demo devices and the simulated camera, no hardware.
    backend : {"pymmcore-plus", "python", "java"}
        Who drives an acquisition: pymmcore-plus's engine, pycro-manager with the devices in this process, or
        pycro-manager with the devices in a running Micro-Manager application.
    app_path : Path or None
        Folder of the Micro-Manager installation, whose device adapters are used.
    config_file : Path or None
        Micro-Manager's own configuration of the devices (``.cfg``).
    port : int
        Where the running application answers; the Java backend only.
    circular_buffer_mb : int or None
        None: as large as the acquisition needs.
    """

    demo: bool = False
    backend: Literal["pymmcore-plus", "python", "java"] = "pymmcore-plus"
    app_path: FilePath | None = None
    config_file: FilePath | None = None
    port: int = Field(default=4827, ge=1, le=65535)
    circular_buffer_mb: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _devices_come_from_somewhere(self) -> "MicroManager":
        if self.demo and self.backend == "java":
            raise ValueError('the demo devices run in this process; use backend "pymmcore-plus" or "python"')
        if not self.demo and self.backend != "java" and self.config_file is None:
            raise ValueError("config_file is missing: name Micro-Manager's .cfg file, or write demo = true")
        return self


class CameraFacts(Section):
    """The camera, as its data sheet or a calibration says.

    Attributes
    ----------
    device : str or None
        Its label in Micro-Manager; None: the camera that Micro-Manager has chosen.
    offset_adu, gain_adu_per_e, read_noise_e, full_well_e : float
        Counts without light, counts per electron, electrons rms, electrons at saturation.
    bit_depth : int
    quantum_efficiency : float or None
        Electrons per photon at the wavelengths used; None: not known, and taken as 0.7 where photons are spoken of.
    maps : Path or None
        ``.npz`` with ``offset_adu``, ``gain_adu_per_e`` and ``read_noise_e`` pixel by pixel, (Y, X) each.
    """

    device: str | None = None
    offset_adu: NotNegative
    gain_adu_per_e: Positive
    read_noise_e: NotNegative
    full_well_e: Positive = 30_000.0
    bit_depth: int = Field(default=16, ge=8, le=16)
    quantum_efficiency: float | None = Field(default=None, gt=0, le=1)
    maps: FilePath | None = None


class OpticsFacts(Section):
    """The objective.

    Attributes
    ----------
    pixel_size_um : float
        Of a camera pixel, in the specimen.
    na : float
        Numerical aperture.
    refractive_index : float
        Of the immersion medium.
    """

    pixel_size_um: Positive
    na: Positive = 1.2
    refractive_index: float = Field(default=1.33, ge=1, le=2)

    @model_validator(mode="after")
    def _aperture_is_possible(self) -> "OpticsFacts":
        if self.na >= self.refractive_index:
            raise ValueError(f"na {self.na} must be below refractive_index {self.refractive_index}; oil has 1.515, water 1.33")
        return self


class Light(Section):
    """What makes the light low or high: a property of a device, or two presets of a configuration group.

    Attributes
    ----------
    device, property : str or None
        Label and name of the property that sets the power.
    group : str or None
        Configuration group, in place of device and property.
    low, high : float or str
        Values of the property, or names of the presets.
    """

    device: str | None = None
    property: str | None = None
    group: str | None = None
    low: float | str
    high: float | str

    @model_validator(mode="after")
    def _one_way_of_setting_it(self) -> "Light":
        by_property = self.device is not None and self.property is not None
        if by_property == (self.group is not None) or (self.device is None) != (self.property is None):
            raise ValueError("say either device and property, or group")
        return self


class Channel(Section):
    """One channel, and how it is restored.

    Attributes
    ----------
    group : str
        Micro-Manager's configuration group.
    preset : str or None
        Preset of that group; None: the channel's own name.
    exposure_ms : float
    reference_exposure_ms : float or None
        What one would use without restoration; the dose saved is counted against it.
    power : float or str or None
        Value of the light's property, or its preset; None: the light's ``low``.
    model : str
        Name of a bundled package, path of another one, or ``none``.
    engine, precision : str
    normalisation : {"frozen", "rolling", "volume"} or None
        None: what the package says.
    tolerate : bool
        Take that precision whatever its certificate says.
    """

    group: str = "Channel"
    preset: str | None = None
    exposure_ms: Positive
    reference_exposure_ms: Positive | None = None
    power: float | str | None = None
    model: ModelName = "none"
    engine: str = "auto"
    precision: str = "auto"
    normalisation: Literal["frozen", "rolling", "volume"] | None = None
    tolerate: bool = False


class Serve(Section):
    """The restore process.

    Attributes
    ----------
    address : str
    max_waiting : int
        Volumes that may wait; further ones are left for backfill.
    deadline_s : float
        Time after which a volume that has not grown is given up.
    keys : Path or None
        Folder of keys; needed for any address that is not this machine's own.
    records : Path or None
        Where restored volumes go; None: beside the raw data.
    """

    address: str = Field(default="tcp://127.0.0.1:5757", pattern=r"^tcp://.+:\d+$")
    max_waiting: int = Field(default=2, ge=0)
    deadline_s: Positive = 60.0
    keys: FilePath | None = None
    records: FilePath | None = None


class Learn(Section):
    """What is learnt on this microscope.

    Attributes
    ----------
    models : Path
        Folder of the models that were promoted, and of the journals that say so.
    pairs : Path
        Folder of the calibrations that are kept, each a folder of pairs; every new model is judged on all of them.
    """

    # defaults lie beside the file too
    models: FilePath = Field(default=Path("models"), validate_default=True)
    pairs: FilePath = Field(default=Path("pairs"), validate_default=True)


class Simulation(Section):
    """The demo microscope's specimen and camera.

    Attributes
    ----------
    seed : int
        Another seed, other cells, another camera and other noise.
    speed : float
        Seconds of the specimen per second; 0 stops life.
    tick_s : float
        The specimen moves in steps of this many of its seconds.
    sensor : tuple of int, (Y, X)
    coverage : float
        Part of the dish that cells cover.
    bleaching_per_s : float
        Fraction of the dye that one second of full power destroys.
    drift_um_per_min : tuple of float
        Of the specimen against the stage in x, y and z.
    full_well_e : float
    quantum_efficiency : float
    """

    seed: int = Field(default=1, ge=0)
    speed: NotNegative = 1.0
    tick_s: Positive = 1.0
    sensor: tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]] = (512, 512)
    coverage: float = Field(default=0.8, gt=0, le=1)
    bleaching_per_s: float = Field(default=0.0, ge=0, lt=1)
    drift_um_per_min: tuple[float, float, float] = (0.0, 0.0, 0.0)
    full_well_e: Positive = 30_000.0
    quantum_efficiency: float = Field(default=0.72, gt=0, le=1)


class HardwareConfig(Section):
    """A microscope, see ``hardware_configs/``."""

    examples: ClassVar[str] = "hardware_configs"

    micromanager: MicroManager
    camera: CameraFacts | None = None
    optics: OpticsFacts
    light: Light | None = None
    channels: dict[str, Channel] = Field(min_length=1)
    serve: Serve = Serve()
    learn: Learn = Field(default={}, validate_default=True)
    simulation: Simulation = Simulation()

    @model_validator(mode="after")
    def _simulation_is_for_the_demo(self) -> "HardwareConfig":
        if "simulation" in self.model_fields_set and not self.micromanager.demo:
            raise ValueError("[simulation] is for the demo microscope; write demo = true in [micromanager], or remove it")
        return self

    @classmethod
    def from_file(cls, path: Path) -> "HardwareConfig":
        """Read a configuration.

        Raises
        ------
        ConfigError
            If the file cannot be read, is no TOML, or says what cannot be.
        """
        return read_toml(path, cls)


def read_toml(path: Path, kind: type[_Read]) -> _Read:
    """Read a TOML file as a section.

    Parameters
    ----------
    path : Path
        Paths in the file are relative to its folder.
    kind : type of Section
        What the file must be.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no TOML, or says what cannot be; all that is wrong is named at once.
    """
    path = Path(path)
    where = f"; examples are in {kind.examples}/" if kind.examples else ""
    try:
        words = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}{where}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return check(words, kind, str(path), path.parent)


def check(words: dict[str, Any], kind: type[_Read], source: str, folder: Path | None = None) -> _Read:
    """Check what was read; `source` names it in errors.

    Raises
    ------
    ConfigError
        If it says what cannot be.
    """
    try:
        return kind.model_validate(words, context={"folder": folder or Path()})
    except ValidationError as error:
        said = [_in_words(problem, kind) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{source}: {'; '.join(dict.fromkeys(said))}") from error


def _in_words(problem: ErrorDetails, kind: type[Section]) -> str:
    place = _place(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _unknown_word(problem["loc"], kind)
    if problem["type"] == "missing":
        return f"{place} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{place}: {message}" if place else message
    shown = repr(problem["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return f"{place} = {shown}: {message[0].lower()}{message[1:]}"


def _unknown_word(location: tuple[int | str, ...], kind: type[Section]) -> str:
    word = str(location[-1])
    names = _names_at(kind, location[:-1])
    near = get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    cure = f"did you mean {near[0]}?" if near else f"valid names: {', '.join(names)}"
    where = f" in [{_place(location[:-1])}]" if len(location) > 1 else ""
    return f"{word!r}{where} is not known; {cure}"


def _place(location: tuple[int | str, ...]) -> str:
    """Write a place as TOML does, counting from 1."""
    words = ""
    for part in location:
        if isinstance(part, int):
            words += f" {part + 1}"
        elif not part.startswith(("function-", "float", "str", "int")):
            words += f".{part}" if words else part
    return words


def _names_at(kind: type[Section], location: tuple[int | str, ...]) -> list[str]:
    """Names that are valid at a place of a section."""
    section: Any = kind
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(part)].annotation if part in section.model_fields else None
        else:
            section = _inside(section)
        section = _without_none(section)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _inside(kind: Any) -> Any:
    """Give what a dict, list or tuple holds."""
    held = get_args(kind)
    return held[1] if get_origin(kind) is dict else held[0] if held else None


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        return next((option for option in get_args(kind) if option is not type(None)), None)
    return kind
