"""The microscope as it was: light low, shutter, exposure and stage, whatever happened in between.

Receives a core before anything moves; puts everything back when told, each device by itself, so that one that fails does not
leave the light on. It does not know what was acquired.
"""

from collections.abc import Callable, Sequence
from typing import Any

from live_restore.acquire.planned import Setting


class PutBack:
    """Remembers how the microscope stands.

    Parameters
    ----------
    core : Any
    low : sequence of Setting
        Device properties that make the light low.

    Attributes
    ----------
    problems : list of str
        What could not be put back, in words for whoever stands beside the microscope.
    """

    def __init__(self, core: Any, low: Sequence[Setting]) -> None:
        self.problems: list[str] = []
        self._core, self._low = core, low
        self._exposure_ms = float(core.getExposure())
        self._auto, self._open = bool(core.getAutoShutter()), bool(core.getShutterOpen())
        self._home_um = float(core.getXPosition()), float(core.getYPosition()), float(core.getPosition())

    def now(self) -> None:
        """Put everything back; never raises."""
        core, (x, y, z) = self._core, self._home_um
        for device, name, value in self._low:
            self._try(f"{device}-{name}", lambda d=device, n=name, v=value: core.setProperty(d, n, str(v)))
        self._try("the shutter", lambda: (core.setAutoShutter(self._auto), core.setShutterOpen(self._open)))
        self._try("the exposure", lambda: core.setExposure(self._exposure_ms))
        self._try("the stage", lambda: core.setXYPosition(x, y))
        self._try("the focus", lambda: core.setPosition(z))
        self._try("the stage", core.waitForSystem)

    def _try(self, what: str, act: Callable[..., Any]) -> None:
        try:
            try:
                act()
            except KeyboardInterrupt:  # an impatient Ctrl-C must not leave the light on
                act()
        except Exception as error:  # whatever a driver, or the bridge to Java, may raise
            self.problems.append(f"{what} could not be put back, look after it yourself: {error}")
