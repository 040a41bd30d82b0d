"""The demo microscope's camera and laser, as Python devices of pymmcore-plus.

The camera is exposed by whoever drives the core; it reads where stage and focus stand, which filters are in the path, how
bright the laser is and whether the shutter is open, at the moment of the exposure and from the devices themselves, never from
what an acquisition engine says it asked for. It hands on counts, and knows what it expected of the last frame.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymmcore_plus.experimental.unicore import GenericDevice, SimpleCameraDevice, UniMMCore

from live_restore.acquire.simulate.camera import Camera
from live_restore.acquire.simulate.scene import Scene
from live_restore.acquire.simulate.specimen import Kind

FloatArray = NDArray[np.float32]

# Height of the stage's zero above the glass, µm: the middle of a cell lying flat.
FOCUS_UM = 2.0
# Photons per dye, per cent of power and millisecond: 2 per cent for 20 ms give some 17 at the brightest pixel in a thousand.
_PHOTONS: Mapping[Kind, float] = {"nuclei": 0.105, "mitochondria": 0.04, "filaments": 0.027, "vesicles": 0.027}
# Exposures that are remembered.
_REMEMBERED = 200_000
# What glass and medium shine with, per per cent and millisecond.
_BACKGROUND_PHOTONS = 0.0085


class SpecimenClock:
    """The specimen's time, in its own seconds: it runs with the clock on the wall from when it is first asked for, or stands.

    Parameters
    ----------
    speed : float
        The specimen's seconds per second.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._began_s: float | None = None
        self._stands_at_s: float | None = None

    def now_s(self) -> float:
        """Tell the time."""
        if self._stands_at_s is not None:
            return self._stands_at_s
        if self._began_s is None:
            self._began_s = time.monotonic()
        return (time.monotonic() - self._began_s) * self.speed

    def set(self, seconds: float) -> None:
        """Stand at a time, until set again, or let run."""
        if not 0 <= seconds < np.inf:
            raise ValueError(f"the specimen's time {seconds} must not be negative, nor infinite; it begins at 0")
        self._stands_at_s = seconds

    def run(self) -> None:
        """Run with the clock on the wall, from where it stands."""
        if self._stands_at_s is not None and self.speed > 0:
            self._began_s = time.monotonic() - self._stands_at_s / self.speed
            self._stands_at_s = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the camera found when it exposed.

    Attributes
    ----------
    kind : str or None
        The structure that the filters let through; None: filters that belong to no channel.
    stage_um : tuple of float
        x, y and z, as the devices say.
    exposure_ms : float
    power : float
        Of the laser, per cent; 0 with a closed shutter.
    time_s : float
        Of the specimen, in whole ticks.
    unbleached : float
        Part of the dye that still shines.
    """

    kind: Kind | None
    stage_um: tuple[float, float, float]
    exposure_ms: float
    power: float
    time_s: float
    unbleached: float = 1.0


class Laser(GenericDevice):
    """A laser whose power is a property, ``Power``, in per cent."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power
        self.register_property(
            "Power",
            default_value=power,
            property_type=float,
            limits=(0.0, 100.0),
            getter=lambda device: device.power,
            setter=_set_power,
        )


def _set_power(device: Laser, power: float) -> None:
    device.power = float(power)


class SimCamera(SimpleCameraDevice):
    """A camera that looks at a rendered specimen.

    Parameters
    ----------
    core : UniMMCore
        Whose stage, focus, filters and shutter it reads.
    scene : Scene
    camera : Camera
        Counts and noise.
    laser : Laser
    clock : SpecimenClock
    paths : mapping
        For each structure, the settings (device, property, value) of every set of filters that lets it through.
    tick_s, bleaching_per_s, drift_um_per_min, seed
        See `live_restore.config.Simulation`.

    Attributes
    ----------
    seen : deque of Seen
        What it found at every exposure, the last at the end.
    """

    def __init__(  # noqa: PLR0913
        self,
        core: UniMMCore,
        scene: Scene,
        camera: Camera,
        laser: Laser,
        clock: SpecimenClock,
        paths: Mapping[Kind, list[list[tuple[str, str, str]]]],
        *,
        tick_s: float = 1.0,
        bleaching_per_s: float = 0.0,
        drift_um_per_min: tuple[float, float, float] = (0.0, 0.0, 0.0),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.microscope, self.scene, self.sensor, self.laser, self.clock, self.paths = core, scene, camera, laser, clock, paths
        self.tick_s, self.drift_um_per_min = tick_s, drift_um_per_min
        self._lost_per_s = -float(np.log1p(-bleaching_per_s))
        self._dose_s: dict[tuple[Kind | None, int, int], float] = {}
        self._rng = np.random.default_rng((seed, 9))
        self._exposure_ms = 20.0
        self.seen: deque[Seen] = deque(maxlen=_REMEMBERED)

    # ------------------------------------------------------------------ the device

    def sensor_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.scene.shape

    def dtype(self) -> type[np.uint16]:
        """16 bit."""
        return np.uint16

    def get_exposure(self) -> float:
        """Milliseconds."""
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Milliseconds."""
        if not 0 < exposure <= 60_000:
            raise ValueError(f"exposure {exposure} ms must be above 0 and at most 60000 ms")
        self._exposure_ms = float(exposure)

    def snap(self, buffer: NDArray[np.uint16]) -> dict[str, Any]:
        """Expose: read what the microscope is set to, render, count, and wait until the exposure is over."""
        began = time.perf_counter()
        seen = self.look()
        buffer[:] = self.sensor.expose(self.expected(seen), self._rng)
        self._bleach(seen)
        self.seen.append(seen)
        time.sleep(max(0.0, seen.exposure_ms / 1e3 - (time.perf_counter() - began)))
        x, y, z = seen.stage_um
        return {"Specimen-Time_s": f"{seen.time_s:g}", "Specimen-Stage_um": f"{x:.3f} {y:.3f} {z:.3f}"}

    # ------------------------------------------------------------------ what it sees

    def look(self) -> Seen:
        """Read what the microscope is set to, now."""
        core, now_s = self.microscope, self.clock.now_s()
        x, y = core.getXYPosition()
        kind = next((kind for kind, paths in self.paths.items() if any(self._in_place(path) for path in paths)), None)
        lit = core.getAutoShutter() or core.getShutterOpen()
        stage_um = (float(x), float(y), float(core.getPosition()))
        seen = Seen(
            kind=kind,
            stage_um=stage_um,
            exposure_ms=self._exposure_ms,
            power=self.laser.power if lit else 0.0,
            time_s=float(np.floor(now_s / self.tick_s) * self.tick_s),
        )
        return replace(seen, unbleached=float(np.exp(-self._lost_per_s * self._dose_s.get(_field(seen), 0.0))))

    def _in_place(self, path: list[tuple[str, str, str]]) -> bool:
        return all(self.microscope.getProperty(device, name) == value for device, name, value in path)

    def expected(self, seen: Seen) -> FloatArray:
        """Photons that every pixel gets on average; (Y, X), float32."""
        light = seen.power * seen.exposure_ms
        if seen.kind is None:
            return np.full(self.scene.shape, _BACKGROUND_PHOTONS * light, np.float32)
        minutes = seen.time_s / 60
        x, y, z = (at + drift * minutes for at, drift in zip(seen.stage_um, self.drift_um_per_min, strict=True))
        dye = self.scene.dye(seen.kind, (x, y, z + FOCUS_UM), seen.time_s)
        photons: FloatArray = dye * np.float32(_PHOTONS[seen.kind] * light * seen.unbleached)
        photons += np.float32(_BACKGROUND_PHOTONS * light)
        return photons

    def truth(self, **changes: Any) -> FloatArray:
        """Give the expected photons of the last frame, or of one that differs from it.

        Parameters
        ----------
        **changes
            Fields of `Seen` that are to be otherwise: ``stage_um``, ``time_s``, ``kind``, ``exposure_ms``, ``power``.

        Returns
        -------
        ndarray, (Y, X), float32
            Of the region of interest, if one is set.

        Raises
        ------
        RuntimeError
            If no frame was taken yet.
        """
        if not self.seen:
            raise RuntimeError("there is no last frame: take one before asking for its truth")
        x, y, width, height = self.get_roi()
        return self.expected(replace(self.seen[-1], **changes))[y : y + height, x : x + width]

    def _bleach(self, seen: Seen) -> None:
        field = _field(seen)
        self._dose_s[field] = self._dose_s.get(field, 0.0) + seen.exposure_ms / 1e3 * seen.power / 100


def _field(seen: Seen) -> tuple[Kind | None, int, int]:
    """Dye bleaches field by field, to the nearest 5 µm; fields that overlap do not bleach each other."""
    return seen.kind, round(seen.stage_um[0] / 5), round(seen.stage_um[1] / 5)
