"""The microscope as the configuration describes it: opened, and asked whether it has what a plan wants.

Receives a hardware configuration and names of groups, presets and powers; hands on a core and device settings, or an error
with the nearest right name. It does not know what is acquired.
"""

import atexit
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from live_restore.acquire.planned import Setting
from live_restore.config import HardwareConfig, Light
from live_restore.errors import AcquisitionError, ConfigError


def open_core(config: HardwareConfig) -> Any:
    """Open the microscope: the demo, the devices of a ``.cfg`` file, or the running Micro-Manager application.

    Raises
    ------
    AcquisitionError
        If it cannot be opened.
    """
    if config.micromanager.demo:
        from live_restore.acquire.simulate.microscope import demo_core

        return _quiet_at_exit(demo_core(config))
    try:
        return _running_application(config) if config.micromanager.backend == "java" else _devices(config)
    except Exception as error:  # whatever a driver may raise
        raise AcquisitionError(f"the microscope cannot be opened: {error}; live-restore doctor looks for the reason") from error


def _devices(config: HardwareConfig) -> Any:
    from pymmcore_plus import CMMCorePlus

    said = config.micromanager
    core = CMMCorePlus(None if said.app_path is None else str(said.app_path))
    core.loadSystemConfiguration(str(said.config_file))
    if config.camera is not None and config.camera.device is not None:
        core.setCameraDevice(config.camera.device)
    return _quiet_at_exit(core)


def _quiet_at_exit(core: Any) -> Any:
    """Let a core say nothing more at the end of the interpreter: what its own thread tells pymmcore-plus then aborts Python."""
    import pymmcore

    atexit.register(pymmcore.CMMCore.registerCallback, core, None)
    return core


def _running_application(config: HardwareConfig) -> Any:
    from pycromanager import Core

    return Core(port=config.micromanager.port, convert_camel_case=False)


def check_camera(core: Any) -> tuple[int, int]:
    """Make sure that the camera gives 16 bit; rows and columns of its frames.

    Raises
    ------
    AcquisitionError
        If it does not.
    """
    if int(core.getBytesPerPixel()) != 2:
        raise AcquisitionError(f"the camera gives {core.getBytesPerPixel()} byte(s) per pixel; set it to 16 bit")
    return int(core.getImageHeight()), int(core.getImageWidth())


def check_presets(presets: Iterable[tuple[str, str]], core: Any) -> None:
    """Make sure that the microscope has these presets, (group, preset).

    Raises
    ------
    ConfigError
        If it lacks one.
    """
    for group, preset in sorted(set(presets)):
        groups = _words(core.getAvailableConfigGroups())
        if group not in groups:
            raise ConfigError(f"the microscope has no configuration group {group!r}; {_cure(group, groups)}")
        valid = _words(core.getAvailableConfigs(group))
        if preset not in valid:
            raise ConfigError(f"group {group!r} has no preset {preset!r}; {_cure(preset, valid)}")


def light_settings(light: Light | None, power: float | str | None, core: Any) -> list[Setting]:
    """Say which device properties make the light this bright: (device, property, value).

    Raises
    ------
    ConfigError
        If the light's group has no such preset.
    """
    if light is None or power is None:
        return []
    if light.device is not None and light.property is not None:
        return [(light.device, light.property, power)]
    check_presets([(str(light.group), str(power))], core)
    return [(device, name, value) for device, name, value in core.getConfigData(light.group, power)]


def check_settings(settings: Iterable[Setting], core: Any) -> None:
    """Make sure that the devices have these properties and can take these values.

    Raises
    ------
    ConfigError
        If a device or property does not exist, or the value is none that it takes.
    """
    for device, name, value in settings:
        devices = _words(core.getLoadedDevices())
        if device not in devices:
            raise ConfigError(f"the microscope has no device {device!r}; {_cure(device, devices)}")
        names = _words(core.getDevicePropertyNames(device))
        if name not in names:
            raise ConfigError(f"device {device!r} has no property {name!r}; {_cure(name, names)}")
        try:
            number = float(value)
        except ValueError:
            number = None
        if core.hasPropertyLimits(device, name):
            low, high = float(core.getPropertyLowerLimit(device, name)), float(core.getPropertyUpperLimit(device, name))
            if number is None or not low <= number <= high:
                raise ConfigError(
                    f"{device}-{name} = {value} is asked for and it takes {low:g} to {high:g}; choose one of these"
                )


def _words(found: Any) -> list[str]:
    """Read a list of names, Java's too."""
    return list(found) if isinstance(found, (list, tuple)) else [found.get(k) for k in range(found.size())]


def _cure(word: str, valid: Sequence[str]) -> str:
    near = get_close_matches(word, valid, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"it has {', '.join(valid) or 'none'}"
