"""Whether a frame is what was asked for: exposure, light and stage, as the devices say, for every single frame.

Receives a core, a planned frame and the properties that make its light; hands on what was read, or an error that names both
values. Engines report what they asked for, so nothing here is taken from them. It does not know what becomes of a frame.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from live_restore.acquire.planned import PlannedFrame, Setting
from live_restore.acquire.readback import Readback
from live_restore.errors import AcquisitionError

# Cameras round an exposure to their line time.
_SAME_EXPOSURE_MS = 0.05
# A stage that stands farther than this from where it was sent has not arrived, or was not told.
_SAME_PLACE_UM = 2.0


@dataclass(frozen=True, slots=True)
class FrameRead:
    """What the devices said of one frame.

    Attributes
    ----------
    exposure_ms : float or None
        None: the camera does not say.
    light : mapping of str to str
        Of each property that makes the light, ``device-property``, its value.
    stage_um : tuple of float or None
        x, y and z.
    read_unix_ns : int
    """

    exposure_ms: float | None
    light: Mapping[str, str]
    stage_um: tuple[float | None, float | None, float | None]
    read_unix_ns: int


class FrameReader:
    """Reads back and compares.

    Parameters
    ----------
    core : Any
        Of pymmcore-plus, or the one of a running Micro-Manager application, with Micro-Manager's own names.
    tolerance_percent : float
        How far exposure and light may stand from what was asked.
    """

    def __init__(self, core: Any, tolerance_percent: float) -> None:
        self._core, self._tolerance = core, tolerance_percent / 100
        self._readback = Readback(core)

    def read(self, frame: PlannedFrame, settings: Sequence[Setting]) -> FrameRead:
        """Read all that makes a frame, and make sure that it is what was asked for.

        Raises
        ------
        AcquisitionError
            If it is not, or if a property cannot be read.
        """
        self._readback.forget()  # stages are read for every frame, not only after they moved
        (found,) = self._readback.read([frame.as_event()])
        light = {f"{device}-{name}": self._property(device, name) for device, name, _ in settings}
        read = FrameRead(found.exposure_ms, light, found.stage_um or (None, None, None), time.time_ns())
        self._check(frame, settings, read)
        return read

    def _property(self, device: str, name: str) -> str:
        try:
            return str(self._core.getProperty(device, name))
        except Exception as error:  # whatever a driver, or the bridge to Java, may raise
            raise AcquisitionError(f"{device}-{name} makes the light, and cannot be read back: {error}") from error

    def _check(self, frame: PlannedFrame, settings: Sequence[Setting], read: FrameRead) -> None:
        allowed_ms = max(_SAME_EXPOSURE_MS, self._tolerance * frame.exposure_ms)
        if read.exposure_ms is not None and abs(read.exposure_ms - frame.exposure_ms) > allowed_ms:
            asked, stands = f"an exposure of {frame.exposure_ms:g} ms", f"the camera stands at {read.exposure_ms:g} ms"
            raise AcquisitionError(f"{asked} was asked for {_words(frame)} and {stands}; {_CURE}")
        for device, name, value in settings:
            stands = read.light[f"{device}-{name}"]
            if not self._same(value, stands):
                raise AcquisitionError(
                    f"{device}-{name} = {value} was asked for {_words(frame)} and it stands at {stands}; {_CURE}"
                )
        for axis, sent, stood in zip("xyz", (frame.x_um, frame.y_um, frame.z_um), read.stage_um, strict=True):
            if sent is not None and stood is not None and abs(sent - stood) > _SAME_PLACE_UM:
                raise AcquisitionError(
                    f"the stage was sent to {axis} = {sent:g} µm for {_words(frame)} and stands at {stood:g} µm; "
                    "look whether it is free to move and within its limits"
                )

    def _same(self, asked: Any, stands: str) -> bool:
        """Compare as numbers where both are, else as words."""
        try:
            one, other = float(asked), float(stands)
        except ValueError:
            return str(asked) == stands
        return bool(np.isclose(one, other, rtol=self._tolerance, atol=1e-9))


_CURE = "it was not applied: set it by hand in Micro-Manager, or choose a value that the device can take"


def _words(frame: PlannedFrame) -> str:
    axes = frame.axes
    plane = f", plane {int(axes['z']) + 1}" if "z" in axes else ""
    return f"position {axes['position']}, channel {axes['channel']}, {axes['light']} light{plane}"
