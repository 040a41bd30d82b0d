"""An acquisition from beginning to end: opens the microscope, looks whether all fits, drives it through either engine.

Receives a plan, a hardware configuration and a hook; hands on a raw dataset on disk and an account of it. It does not know
what the hook does with the frames, nor the engines from within.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from live_restore.acquire.acquisition import AcquisitionPlan
from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.mda_run import run_mda
from live_restore.acquire.planned import PlannedFrame, Setting
from live_restore.acquire.pycromanager_frames import promise_of
from live_restore.acquire.raw_dataset import FILE_BYTES
from live_restore.acquire.rig import check_camera, check_presets, check_settings, light_settings, open_core
from live_restore.config import HardwareConfig
from live_restore.errors import AcquisitionError, ConfigError

_logger = logging.getLogger(__name__)

EngineName = Literal["pymmcore-plus", "pycromanager"]
Progress = Callable[[int, int], None]
# Frames that may wait for the engine: two seconds of the fastest exposure, and never fewer than this.
_BUFFERED_S, _BUFFERED_FRAMES = 2.0, 64
# The port of the discard service: for a hook that is to reach nobody.
_NOBODY = "tcp://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an acquisition.

    Attributes
    ----------
    frames, planned : int
        Taken and saved; asked for.
    raw : Path
        The dataset.
    seconds : float
    stopped : bool
        Whether somebody stopped it.
    """

    frames: int
    planned: int
    raw: Path
    seconds: float
    stopped: bool


def run(
    plan: AcquisitionPlan,
    config: HardwareConfig,
    hook: RestoreHook | None = None,
    *,
    engine: EngineName | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
    core: Any = None,
) -> Outcome:
    """Carry out an acquisition. Ctrl-C stops it after the frame that is being taken; what was taken stays.

    Parameters
    ----------
    plan : AcquisitionPlan
    config : HardwareConfig
    hook : RestoreHook, optional
        Who is shown every frame; None: nobody.
    engine : {"pymmcore-plus", "pycromanager"}, optional
        None: as the configuration says.
    directory : Path, optional
        Where the dataset's folder is made; None: as the plan says.
    progress : callable, optional
        Told how many frames are taken, of how many, from time to time.
    core : CMMCorePlus, optional
        A microscope that is open already; None: the one of the configuration is opened.

    Raises
    ------
    ConfigError
        If plan, configuration and microscope do not fit together.
    AcquisitionError
        If the disk is too full, or frames are missing at the end.
    """
    engine = engine or ("pymmcore-plus" if config.micromanager.backend == "pymmcore-plus" else "pycromanager")
    if engine == "pymmcore-plus" and config.micromanager.backend == "java":
        raise ConfigError('backend "java" is driven by pycro-manager; use the engine pycromanager, or another backend')
    directory = Path(plan.directory if directory is None else directory).expanduser().absolute()
    core = open_core(config) if core is None else core
    prepared = _prepare(plan, config, core, directory)
    began_s = time.monotonic()
    drive = _by_pymmcore_plus if engine == "pymmcore-plus" else _by_pycromanager
    try:
        frames, raw, stopped = drive(prepared, core, hook, progress or _tell_nobody)
    finally:
        with suppress(Exception):  # a stage that failed will not move now either
            core.setPosition(prepared.home_z_um)
    planned = len(prepared.frames)
    if not stopped and frames != planned:
        raise AcquisitionError(f"{frames} of {planned} frames were saved in {raw}; the others never came")
    return Outcome(frames, planned, raw, time.monotonic() - began_s, stopped)


def check_space(directory: Path, needed_bytes: int) -> None:
    """Make sure that a dataset fits on the disk, with a tenth to spare.

    Raises
    ------
    AcquisitionError
        If it does not, or if the folder cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise AcquisitionError(f"nothing can be saved in {directory}: {error.strerror}; choose another directory") from error
    if free < 1.1 * needed_bytes:
        sizes = f"the acquisition needs {1.1 * needed_bytes / 1e9:.1f} GB and {directory} has {free / 1e9:.1f} GB free"
        raise AcquisitionError(f"{sizes}; make room, or choose another directory")
    if free < FILE_BYTES:
        _logger.warning(
            "%s has less than 4 GiB free: a file system without sparse files cannot lay out an NDTiff file", directory
        )


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An acquisition that fits the microscope and the disk."""

    name: str
    directory: Path
    config: HardwareConfig
    frames: Sequence[PlannedFrame]
    home_z_um: float
    interval_s: float

    def summary(self, core: Any) -> dict[str, Any]:
        """Say of the dataset what Micro-Manager would."""
        heights = sorted({frame.z_um for frame in self.frames if frame.z_um is not None})
        # a dataset with reference volumes has them at some time points only, so it promises none
        whole = {} if any("light" in frame.axes for frame in self.frames) else {"time": len(self._times())}
        return {
            "PixelSize_um": self.config.optics.pixel_size_um,
            "z-step_um": round(heights[1] - heights[0], 6) if len(heights) > 1 else 0.0,
            "Interval_ms": 1e3 * self.interval_s,
            "IntendedDimensions": whole,
            "Camera": str(core.getCameraDevice()),
            "StartTime": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }

    def _times(self) -> set[int | str]:
        return {frame.axes.get("time", 0) for frame in self.frames}


def _prepare(plan: AcquisitionPlan, config: HardwareConfig, core: Any, directory: Path) -> _Prepared:
    """Find out everything that could go wrong before anything moves."""
    height, width = check_camera(core)
    home = (float(core.getXPosition()), float(core.getYPosition()), float(core.getPosition()))
    pixel_um = config.optics.pixel_size_um
    frames = list(plan.frames(home, (width * pixel_um, height * pixel_um)))
    check_presets({(frame.group, frame.preset) for frame in frames if frame.group}, core)
    for power in {frame.power for frame in frames}:
        check_settings(light_settings(config.light, power, core), core)
    check_space(directory, len(frames) * width * height * 2)
    core.setCircularBufferMemoryFootprint(_buffer_mb(config, frames, width * height * 2))
    interval = getattr(plan.sequence.time_plan, "interval", None)
    return _Prepared(plan.name, directory, config, frames, home[2], interval.total_seconds() if interval else 0.0)


def _buffer_mb(config: HardwareConfig, frames: Sequence[PlannedFrame], frame_bytes: int) -> int:
    """Size the circular buffer for the fastest exposure, within a quarter of the free memory."""
    shortest_s = min((frame.exposure_ms for frame in frames), default=1.0) / 1e3
    wanted = max(_BUFFERED_FRAMES, min(len(frames), int(_BUFFERED_S / shortest_s))) * frame_bytes
    room = psutil.virtual_memory().available // 4
    return config.micromanager.circular_buffer_mb or max(16, min(wanted, room) // 2**20 + 1)


def _by_pymmcore_plus(prepared: _Prepared, core: Any, hook: RestoreHook | None, progress: Progress) -> tuple[int, Path, bool]:
    def settings(frame: PlannedFrame) -> list[Setting]:
        return light_settings(prepared.config.light, frame.power, core)

    place = (prepared.directory, prepared.name, prepared.summary(core))
    return run_mda(core, prepared.frames, settings, place, hook, progress)


def _by_pycromanager(prepared: _Prepared, core: Any, hook: RestoreHook | None, progress: Progress) -> tuple[int, Path, bool]:
    said = prepared.config.micromanager
    if said.backend != "java":
        from live_restore.acquire.simulate.microscope import pycromanager_core

        pycromanager_core(core)
    events = [frame.as_event(light_settings(prepared.config.light, frame.power, core)) for frame in prepared.frames]
    total, saved = len(events), 0

    def count(_axes: Any, _dataset: Any) -> None:
        nonlocal saved
        saved += 1
        progress(saved, total)

    port = {"port": said.port} if said.backend == "java" else {}
    raw, stopped = prepared.directory, False
    with ExitStack() as opened:
        shown = opened.enter_context(RestoreHook(_NOBODY)) if hook is None else hook
        shown.plan.promise_all(promise_of(event) for event in events)
        try:
            with shown.acquisition(prepared.directory, prepared.name, image_saved_fn=count, **port) as acquisition:
                raw = Path(acquisition.get_dataset().path)
                # as a generator each event is carried out by itself and its properties are set; a list would merge them
                acquisition.acquire(event for event in events)
        except KeyboardInterrupt:
            stopped = True
    progress(saved, total)
    return saved, raw, stopped


def _tell_nobody(_done: int, _total: int) -> None:
    """Report to nobody."""
