"""What the devices really stand at: exposure and stage, read back before each exposure.

Receives the core and the events that are about to be exposed; hands on what was read, by axes, to whoever is given the
frame later. It does not judge whether it is what was asked for.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from live_restore.acquire.pycromanager_frames import AxesKey, Stage, axes_key, number

# Frames between hook and camera: a camera sequence is read back at its start, and may be thousands of frames long.
_MOST_WAITING = 100_000
_NO_CORE = object()


@dataclass(frozen=True, slots=True)
class Read:
    """What was read for one event: exposure, and stage (x, y, z) in micrometres; None where it could not be read."""

    exposure_ms: float | None
    asked_exposure_ms: float | None
    stage_um: Stage | None


class Readback:
    """Reads devices before an exposure, and keeps what it read until the frame comes.

    Parameters
    ----------
    core : Any
        A core of pycro-manager (either backend), pymmcore or pymmcore-plus; None: the one that pycro-manager runs on.

    Attributes
    ----------
    problems : list of str
        What could not be read, and why; each once.
    """

    def __init__(self, core: Any = None) -> None:
        self._core = core
        self._waiting: dict[AxesKey, Read] = {}
        self._absent: set[str] = set()
        self.problems: list[str] = []
        self._xy: tuple[object, Stage] | None = None
        self._z: tuple[object, float | None] | None = None

    def read(self, events: Sequence[Mapping[str, Any]]) -> list[Read]:
        """Read back for the events that are exposed next: one, or those that were merged into a camera sequence.

        Whatever a sequence changes from frame to frame cannot be read back at its start, and is None. A stage is read
        again only if the event asks it to move.
        """
        exposures = {event.get("exposure") for event in events}
        heights = {event.get("z") for event in events}
        exposure = number(self._get("get_exposure", "getExposure")) if len(exposures) == 1 else None
        z = self._read_z(next(iter(heights))) if len(heights) == 1 else None
        x, y, _ = self._read_xy((events[0].get("x"), events[0].get("y")))
        stage = None if x is None and y is None and z is None else (x, y, z)
        reads = [Read(exposure, number(event.get("exposure")), stage) for event in events]
        for event, read in zip(events, reads, strict=True):
            self._waiting[axes_key(event.get("axes", {}))] = read
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
        return reads

    def take(self, axes: AxesKey) -> Read | None:
        """Hand over what was read for a frame; None if nothing was."""
        return self._waiting.pop(axes, None)

    def forget(self) -> None:
        """Begin anew: another acquisition moves the stages otherwise, and has the same axes."""
        self._waiting.clear()
        self._xy = self._z = None

    def _read_z(self, asked: object) -> float | None:
        if self._z is None or self._z[0] != asked:
            self._z = (asked, number(self._get("get_position", "getPosition")))
        return self._z[1]

    def _read_xy(self, asked: object) -> Stage:
        if self._xy is None or self._xy[0] != asked:
            x = number(self._get("get_x_position", "getXPosition"))
            y = number(self._get("get_y_position", "getYPosition"))
            self._xy = (asked, (x, y, None))
        return self._xy[1]

    def _find(self) -> Any:
        """Look for the core, and once only: where Micro-Manager does not run, that takes a second."""
        try:
            return running_core()
        except Exception as error:  # pyjavaz raises no kind of its own
            self.problems.append(f"no core was found to read devices back from, give RestoreHook(core=...): {error}")
            return _NO_CORE

    def _get(self, *names: str) -> Any:
        """Ask the core; a device that is not there is not asked twice."""
        if names[0] in self._absent:
            return None
        if self._core is None:
            self._core = self._find()
        ask: Callable[[], Any] | None = next((getattr(self._core, n) for n in names if hasattr(self._core, n)), None)
        if ask is None:
            self._absent.add(names[0])
            return None
        try:
            return ask()
        except Exception as error:  # a core's errors have no common kind: RuntimeError, or what the Java bridge makes of them
            self._absent.add(names[0])
            self.problems.append(f"{names[0]}() of the core failed, and is not asked again: {error}")
            return None


def running_core() -> Any:
    """Find the core that pycro-manager runs on; None if pycro-manager is not in use.

    Raises
    ------
    Exception
        Whatever pycro-manager raises if Micro-Manager is not running.
    """
    pycorex = sys.modules.get("mmpycorex")
    return None if pycorex is None else pycorex.Core()


def on_python_backend() -> bool:
    """Whether pycro-manager's Python backend is in use, as far as anybody can know now."""
    pycorex = sys.modules.get("mmpycorex")
    return pycorex is None or bool(pycorex.is_pymmcore_active())
