"""A calibration from beginning to end: takes pairs with either engine, has each checked, and writes it before the next.

Receives a plan, a hardware configuration and what is known of the camera's noise; hands on a folder of pairs and an account of
it. It does not know how a pair is judged, how it is written, nor what learns from it.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from live_restore.acquire.asked_and_read import FrameReader
from live_restore.acquire.calibration import CalibrationPlan, PlannedPair
from live_restore.acquire.calibration_card import camera_words, card_of
from live_restore.acquire.course import Course
from live_restore.acquire.dose import Dose
from live_restore.acquire.pair_engines import by_pycromanager, by_pymmcore_plus
from live_restore.acquire.pair_queue import PairQueue
from live_restore.acquire.planned import PlannedFrame, Setting
from live_restore.acquire.put_back import PutBack
from live_restore.acquire.rig import check_camera, check_presets, check_settings, light_settings, open_core
from live_restore.acquire.run import EngineName, check_space
from live_restore.config import HardwareConfig
from live_restore.errors import AcquisitionError, ConfigError, PairError
from live_restore.pairs.quality import measure_pair
from live_restore.records.pair_log import PairLog, TakenPair
from live_restore.records.pairs import Pair, PairSet, read_pairs
from live_restore.restore.noise import CameraNoise

# pymmcore-plus shows an image before it asks for the next frame; pycro-manager's own guard takes a minute.
_PATIENCE_S: Mapping[EngineName, float] = {"pymmcore-plus": 0.0, "pycromanager": 90.0}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a calibration is.

    Attributes
    ----------
    done, total : int
        Pairs that are checked and written; planned.
    accepted, rejected : int
    name, reason : str
        Of the newest pair; why the newest rejected one was.
    waiting : bool
        Whether the microscope waits for the disk.
    measuring : bool
        Whether all is taken, and the camera's noise is measured on the pairs.
    stopping : bool
        Whether somebody stopped it, and the pairs that are complete are checked and written.
    """

    done: int
    total: int
    accepted: int = 0
    rejected: int = 0
    name: str = ""
    reason: str = ""
    waiting: bool = False
    measuring: bool = False
    stopping: bool = False


Told = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration came to.

    Attributes
    ----------
    pairs : PairSet
    planned : int
    seconds : float
    stopped : bool
        Whether somebody stopped it.
    warnings : tuple of str
    """

    pairs: PairSet
    planned: int
    seconds: float
    stopped: bool
    warnings: tuple[str, ...]


def calibrate(
    plan: CalibrationPlan,
    config: HardwareConfig,
    *,
    noise: CameraNoise | None = None,
    engine: EngineName | None = None,
    directory: Path | None = None,
    progress: Told | None = None,
    core: Any = None,
) -> Calibrated:
    """Carry out a calibration. Ctrl-C stops it; the pairs that are complete stay.

    Parameters
    ----------
    plan : CalibrationPlan
    config : HardwareConfig
    noise : CameraNoise, optional
        Of the camera, for the check of the pairs; None: not known.
    engine : {"pymmcore-plus", "pycromanager"}, optional
        None: as the configuration says.
    directory : Path, optional
        Where the folder of pairs is made; None: as the plan says.
    progress : callable, optional
        Told after every pair, and when the microscope waits; from another thread.
    core : CMMCorePlus, optional
        A microscope that is open already; None: the one of the configuration is opened.

    Raises
    ------
    ConfigError
        If plan, configuration and microscope do not fit together.
    AcquisitionError
        If a frame is not what was asked for, the disk is too slow, or a device failed; the pairs before are safe.
    PairError
        If no pairs can be written.
    """
    engine = _engine(engine, config)
    directory = Path(plan.directory if directory is None else directory).expanduser().absolute()
    core = open_core(config) if core is None else core
    prepared = _prepare(plan, config, core, directory)
    put_back, began_s = PutBack(core, prepared.low_settings()), time.monotonic()
    with PairLog(directory, plan.head.name, card_of(plan, config, core, engine)) as log:
        desk = _Desk(prepared, log, noise, progress)
        queue = PairQueue(desk.write, prepared.limit_bytes, plan.head.wait_s, desk.waits)
        course = Course(
            prepared.pairs,
            prepared.settings,
            FrameReader(core, plan.head.tolerance_percent),
            queue,
            prepared.frame_bytes,
            (plan.step_um, config.optics.pixel_size_um, config.optics.pixel_size_um),
            _PATIENCE_S[engine],
        )
        try:
            by_plus = engine == "pymmcore-plus"
            stopped = by_pymmcore_plus(core, course) if by_plus else by_pycromanager(core, course, config.micromanager)
        except AcquisitionError as error:
            course.fail(error)
            stopped = False
        except KeyboardInterrupt:
            stopped = True
        finally:
            put_back.now()
            course.stop()
        stopped, written = _written(queue, desk, stopped)
        failure = course.failure or queue.failure
        if not written and failure is None:
            cure = "let it finish after Ctrl-C" if stopped else "choose a faster disk, or a larger wait_s"
            failure = AcquisitionError(f"{queue.left} complete pairs were not yet checked and written, and are lost; {cure}")
        warnings = (*queue.warnings, *put_back.problems)
        return _conclude(desk, log, failure, began_s, stopped, warnings)


# ------------------------------------------------------------------ before


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A calibration that fits the microscope and the disk."""

    plan: CalibrationPlan
    config: HardwareConfig
    core: Any
    pairs: Sequence[PlannedPair]
    frame_bytes: int
    limit_bytes: int

    def settings(self, pair: PlannedPair, frame: PlannedFrame) -> list[Setting]:
        """Say which properties make the light of a frame."""
        return light_settings(pair.channel.light, frame.power, self.core)

    def low_settings(self) -> list[Setting]:
        """Say which properties make the light low in every channel, the first channel last."""
        channels = reversed(self.plan.channels)
        return [setting for c in channels for setting in light_settings(c.light, c.low.power, self.core)]


def _engine(engine: EngineName | None, config: HardwareConfig) -> EngineName:
    if engine == "pymmcore-plus" and config.micromanager.backend == "java":
        raise ConfigError('backend "java" is driven by pycro-manager; use the engine pycromanager, or another backend')
    return engine or ("pymmcore-plus" if config.micromanager.backend == "pymmcore-plus" else "pycromanager")


def estimate(plan: CalibrationPlan, config: HardwareConfig, core: Any) -> Dose:
    """Say what a calibration will take, after making sure that the microscope has what it asks for.

    Raises
    ------
    ConfigError
        If plan, configuration and microscope do not fit together.
    AcquisitionError
        If the camera is not set to 16 bit.
    """
    return plan.dose(_fitting(plan, config, core)[1])


def _fitting(plan: CalibrationPlan, config: HardwareConfig, core: Any) -> tuple[list[PlannedPair], int]:
    """Give the pairs where the stage is, and the bytes of a frame; whatever the microscope lacks is found here."""
    height, width = check_camera(core)
    home = (float(core.getXPosition()), float(core.getYPosition()), float(core.getPosition()))
    pixel_um = config.optics.pixel_size_um
    pairs = list(plan.pairs(home, (width * pixel_um, height * pixel_um)))
    check_presets({(channel.group, channel.preset) for channel in plan.channels if channel.group}, core)
    for channel in plan.channels:
        for level in (channel.low, channel.high):
            check_settings(light_settings(channel.light, level.power, core), core)
    return pairs, 2 * width * height


def _prepare(plan: CalibrationPlan, config: HardwareConfig, core: Any, directory: Path) -> _Prepared:
    """Find out everything that could go wrong before anything moves."""
    pairs, frame_bytes = _fitting(plan, config, core)
    check_space(directory, sum(len(pair.frames) for pair in pairs) * frame_bytes)
    limit = min(plan.head.memory_mb * 2**20, psutil.virtual_memory().available // 4)
    return _Prepared(plan, config, core, pairs, frame_bytes, limit)


# ------------------------------------------------------------------ during


class _Desk:
    """Where pairs are checked and written, and the count is kept."""

    def __init__(self, prepared: _Prepared, log: PairLog, noise: CameraNoise | None, progress: Told | None) -> None:
        self._limits, self._log, self._noise = prepared.plan.limits, log, noise
        self._tell, self.planned = progress, len(prepared.pairs)
        self._now = Progress(0, self.planned)
        self._lock = threading.Lock()

    def write(self, taken: TakenPair) -> None:
        """Check a pair, write it, and say so."""
        facts = measure_pair(
            taken.low,
            taken.high,
            low_again=taken.low_again,
            dose_ratio=taken.dose_ratio,
            noise=self._noise,
            pixel_size_um=taken.pixel_size_um,
            limits=self._limits,
        )
        pair = self._log.write(taken, facts)
        with self._lock:
            now, good = self._now, pair.accepted
            reason = now.reason if good else f"{pair.name}: {pair.reason}"
            self._now = replace(
                now,
                done=now.done + 1,
                accepted=now.accepted + good,
                rejected=now.rejected + (not good),
                name=pair.name,
                reason=reason,
            )
            self._say()

    def waits(self, waiting: bool) -> None:
        """Say that the microscope waits, or no longer does."""
        with self._lock:
            self._now = replace(self._now, waiting=waiting)
            self._say()

    def measures(self) -> None:
        """Say that the camera is measured."""
        self._now = replace(self._now, measuring=True)
        self._say()

    def stops(self) -> None:
        """Say that no more are taken, and what was taken is written."""
        with self._lock:
            self._now = replace(self._now, stopping=True)
            self._say()

    def _say(self) -> None:
        if self._tell is not None:
            self._tell(self._now)


# ------------------------------------------------------------------ after


def _written(queue: PairQueue[TakenPair], desk: _Desk, stopped: bool) -> tuple[bool, bool]:
    """Wait until complete pairs are on the disk: whether somebody stopped it, and whether all are. A second Ctrl-C gives up."""
    while True:
        try:
            if stopped:
                desk.stops()
            return stopped, queue.close()
        except KeyboardInterrupt:
            if stopped:
                return True, not queue.left
            stopped = True


def _conclude(
    desk: _Desk, log: PairLog, failure: Exception | None, began_s: float, stopped: bool, warnings: tuple[str, ...]
) -> Calibrated:
    """Finish the card, and say how it ended."""
    planned = desk.planned
    how = "stopped" if stopped else "failed" if failure else "complete"
    log.finish(ended=how, planned=planned, warnings=warnings)
    if failure is not None:
        kept = f"{len(log.pairs)} of {planned} pairs, which are in {log.folder}" if log.pairs else f"0 of {planned} pairs"
        raise AcquisitionError(f"the calibration ended after {kept}: {failure}") from failure
    card: Mapping[str, Any] = {}
    if not stopped:  # once more, for it takes a while and can fail
        desk.measures()
        try:
            measured, doubts = _camera_measured(log.pairs)
        except KeyboardInterrupt:
            measured, doubts = None, ("the camera was not measured: you stopped it; live-restore noise does it later",)
        warnings = (*warnings, *doubts)
        card = log.finish(camera_measured=measured, warnings=warnings)
    pairs = read_pairs(log.folder) if log.pairs else PairSet(log.folder, (), card)
    return Calibrated(pairs, planned, time.monotonic() - began_s, stopped, warnings)


def _camera_measured(pairs: Sequence[Pair]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Estimate the camera's figures from the pairs; None and the reason where they do not tell."""
    from live_restore.pairs.photon_transfer import estimate_from_pairs

    if not any(pair.accepted for pair in pairs):
        return None, ()
    try:
        found = estimate_from_pairs([pair for pair in pairs if pair.accepted])
    except PairError as error:
        return None, (f"the camera was not measured: {error}",)
    return camera_words(found), tuple(found.doubts())


def rejections(pairs: Sequence[Pair]) -> list[tuple[int, str]]:
    """Count what was wrong, the most frequent first: how often, and the reason of the first; figures make no difference."""
    kinds: dict[str, list[str]] = {}
    for pair in pairs:
        if not pair.accepted:
            kinds.setdefault(re.sub(r"[\d.]+", "#", pair.reason), []).append(pair.reason)
    return sorted(((len(reasons), reasons[0]) for reasons in kinds.values()), key=lambda row: -row[0])
