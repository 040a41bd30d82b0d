"""The demo microscope: Micro-Manager's demo devices, with a camera that sees living cells.

Receives a hardware configuration; hands on a pymmcore-plus core that both engines can drive: pymmcore-plus's own
(`core.mda.run`) and, after `pycromanager_core`, pycro-manager's Python backend. It does not know what is acquired.

Stage, focus, filter wheels and shutter are the devices of Micro-Manager's demo configuration. Its camera is replaced by
`live_restore.acquire.simulate.sim_camera.SimCamera`, and a laser is added.
"""

import atexit
import types
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pymmcore
from pymmcore_plus.experimental.unicore import UniMMCore

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.dish import Dish
from live_restore.acquire.simulate.optics import Optics
from live_restore.acquire.simulate.scene import Scene
from live_restore.acquire.simulate.sim_camera import Laser, SimCamera, SpecimenClock
from live_restore.acquire.simulate.specimen import Kind
from live_restore.config import CameraFacts, Channel, HardwareConfig, Light, MicroManager, OpticsFacts
from live_restore.errors import AcquisitionError

CAMERA, LASER, LIGHT_GROUP = "SimCamera", "Laser", "Light"
# What each of the demo configuration's filter sets shows.
CHANNELS: Mapping[str, Kind] = {"DAPI": "nuclei", "FITC": "filaments", "Rhodamine": "mitochondria", "Cy5": "vesicles"}
LOW_POWER, HIGH_POWER = 2.0, 100.0
_GROUPS = ("Channel", "Channel-Multiband")
_OBJECTIVE = "Simulated 60X water"
# The interface that `pycromanager_core` joins is private: it is that of these versions.
_PRIVATE_INTERFACE = {"pycromanager": "1.0.2", "mmpycorex": "0.3.16"}


class DemoCore(UniMMCore):
    """The demo microscope's core; `sim_camera` knows the truth, and `clock` is the specimen's time."""

    sim_camera: SimCamera
    clock: SpecimenClock


def demo_config() -> HardwareConfig:
    """Give the configuration of a demo microscope of which nothing special is wanted."""
    return HardwareConfig(
        micromanager=MicroManager(demo=True),
        camera=CameraFacts(device=CAMERA, offset_adu=97.0, gain_adu_per_e=2.18, read_noise_e=1.3, quantum_efficiency=0.72),
        optics=OpticsFacts(pixel_size_um=0.1),
        light=Light(device=LASER, property="Power", low=LOW_POWER, high=HIGH_POWER),
        channels={name: Channel(exposure_ms=20.0, reference_exposure_ms=1000.0) for name in CHANNELS},
    )


def demo_core(config: HardwareConfig | None = None) -> DemoCore:
    """Build the demo microscope, ready to take pictures: first channel, low light, focus in the middle of the cells.

    Parameters
    ----------
    config : HardwareConfig, optional
        Its sections ``optics`` and ``simulation`` are used; None: `demo_config`.

    Raises
    ------
    AcquisitionError
        If Micro-Manager's demo devices are not installed.
    """
    config = demo_config() if config is None else config
    core = DemoCore()
    adapters = _demo_adapters()
    core.setDeviceAdapterSearchPaths([str(adapters)])
    core.loadSystemConfiguration(str(adapters / "MMConfig_demo.cfg"))
    _mount_objective(core, config.optics.pixel_size_um)
    laser = Laser(LOW_POWER)
    _load(core, LASER, laser)
    core.clock = SpecimenClock(config.simulation.speed)
    core.sim_camera = _build_camera(core, config, laser)
    _load(core, CAMERA, core.sim_camera)
    core.setCameraDevice(CAMERA)
    # its presets are about the camera that was replaced
    core.deleteConfigGroup("Camera")
    for preset, power in (("low", LOW_POWER), ("high", HIGH_POWER)):
        core.defineConfig(LIGHT_GROUP, preset, LASER, "Power", power)
    core.setConfig("Channel", next((name for name in config.channels if name in CHANNELS), "FITC"))
    core.setExposure(next(iter(config.channels.values())).exposure_ms)
    core.setCircularBufferMemoryFootprint(config.micromanager.circular_buffer_mb or 256)
    return core


def _demo_adapters() -> Path:
    try:
        from mm_test_adapters import device_adapter_path
    except ImportError as error:
        raise AcquisitionError(
            "the demo microscope needs Micro-Manager's demo devices: pip install live_restore[demo]"
        ) from error
    return Path(device_adapter_path())


def _load(core: UniMMCore, label: str, device: Any) -> None:
    core.loadPyDevice(label, device)
    core.initializeDevice(label)


def _mount_objective(core: UniMMCore, pixel_size_um: float) -> None:
    core.defineStateLabel("Objective", 5, _OBJECTIVE)
    core.definePixelSizeConfig("Simulated", "Objective", "Label", _OBJECTIVE)
    core.setPixelSizeUm("Simulated", pixel_size_um)
    core.setProperty("Objective", "Label", _OBJECTIVE)


def _build_camera(core: DemoCore, config: HardwareConfig, laser: Laser) -> SimCamera:
    simulation, optics = config.simulation, config.optics
    scene = Scene(
        Dish(simulation.seed, simulation.coverage),
        simulation.sensor,
        optics.pixel_size_um,
        Optics(na=optics.na, refractive_index=optics.refractive_index),
    )
    camera = build_camera(simulation.seed, simulation.sensor, simulation.quantum_efficiency)
    return SimCamera(
        core,
        scene,
        replace(camera, full_well_e=simulation.full_well_e),
        laser,
        core.clock,
        {kind: [_settings(core, group, name) for group in _GROUPS] for name, kind in CHANNELS.items()},
        tick_s=simulation.tick_s,
        bleaching_per_s=simulation.bleaching_per_s,
        drift_um_per_min=simulation.drift_um_per_min,
        seed=simulation.seed,
    )


def _settings(core: UniMMCore, group: str, preset: str) -> list[tuple[str, str, str]]:
    """Which filters a preset puts into the path."""
    return [(device, name, value) for device, name, value in core.getConfigData(group, preset) if device != "Core"]


# ------------------------------------------------------------------ pycro-manager


def pycromanager_core(core: UniMMCore, versions: Mapping[str, str] = _PRIVATE_INTERFACE) -> None:
    """Let pycro-manager's Python backend drive a core of pymmcore-plus, as every `Acquisition` of this process then does.

    Its engine keeps its first core for ever, so a process can have one such core.

    Raises
    ------
    AcquisitionError
        If pycro-manager is not installed in the version whose private interface this is, or has a core already.
    """
    for package, wanted in versions.items():
        _require(package, wanted)
    from mmpycorex import launcher
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    if launcher._PYMMCORES:  # noqa: SLF001
        raise AcquisitionError(
            "pycro-manager has a core in this process already and keeps it; use a process of its own for each"
        )
    for name in dir(type(core)):
        method = getattr(core, name) if not name.startswith("_") and callable(getattr(type(core), name)) else None
        if method is not None and not hasattr(core, launcher._camel_to_snake(name)):  # noqa: SLF001
            setattr(core, launcher._camel_to_snake(name), method)  # noqa: SLF001

    def pop_next_tagged_image(self: UniMMCore) -> Any:
        pixels, tags = self.popNextImageAndMD()
        return launcher.TaggedImage(dict(tags), pixels)

    foreign: Any = core
    foreign.get_tagged_image = types.MethodType(launcher.get_tagged_image, core)
    foreign.pop_next_tagged_image = types.MethodType(pop_next_tagged_image, core)
    foreign.TaggedImage = launcher.TaggedImage
    launcher._PYMMCORES.append(core)  # noqa: SLF001
    Engine(core)
    # mmpycorex unloads the devices at the end of the interpreter; of that the core's own thread would tell pymmcore-plus, in
    # a Python that is going, and abort the process
    atexit.register(pymmcore.CMMCore.registerCallback, core, None)


def _require(package: str, wanted: str) -> None:
    cure = f"pip install {package}=={wanted}"
    try:
        found = version(package)
    except PackageNotFoundError as error:
        raise AcquisitionError(f"{package} is not installed: {cure}") from error
    if found != wanted:
        raise AcquisitionError(f"{package} {found} is installed, but its private interface is known for {wanted} only: {cure}")
