"""The nouns that travel: frames, the volumes they make up, and what a restoration gives back.

They know nothing of files, wires, engines or models, nor of Micro-Manager's names for things.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from live_restore.intensity import IntensityRange

Light = Literal["low", "high"]


@dataclass(frozen=True, slots=True, order=True)
class VolumeKey:
    """Which volume of a run: everything that tells its frames from others, but z.

    Attributes
    ----------
    time : int
        Time point, from 0.
    position : str
        Label or number of the stage position; axes that live_restore has no name for are part of it.
    channel : str
    light : {"low", "high"}
        ``high``: a reference or calibration volume, which is never dropped.
    """

    time: int = 0
    position: str = "0"
    channel: str = "Default"
    light: Light = "low"

    def __str__(self) -> str:
        high = ", high light" if self.light == "high" else ""
        return f"time {self.time}, position {self.position}, {self.channel}{high}"


def volume_key(axes: Mapping[str, Any]) -> VolumeKey:
    """Tell from the axes of a frame which volume it belongs to; the same for a live frame and for one in a file.

    Without a time axis it is time 0, without a position "0", without a channel "Default", without a light "low". Every
    other axis becomes part of the position, as in ``3_cameraleft``, and so does a time or a plane that is no number.
    """
    others = [(axis, axes[axis]) for axis in sorted(axes) if axis not in {"time", "position", "channel", "z", "light"}]
    others += [(axis, axes[axis]) for axis in ("z", "time") if axis in axes and not _is_index(axes[axis])]
    label = "_".join([str(axes.get("position", 0)), *(f"{axis}{value}" for axis, value in others)])
    time = int(axes["time"]) if "time" in axes and _is_index(axes["time"]) else 0
    light: Light = "high" if str(axes.get("light", "low")).lower() == "high" else "low"
    return VolumeKey(time, label, str(axes.get("channel", "Default")), light)


def _is_index(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and float(value).is_integer()


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """What is known of a frame, besides its pixels.

    Attributes
    ----------
    run : str
        Which acquisition: unique and fit for a file name.
    sequence : int
        Number of the frame in its run, from 0, in the order in which the hook was given them.
    key : VolumeKey
    z : int
        Index of the plane in its volume.
    planes : int
        How many planes the volume will have; 0 where nobody knows yet.
    captured_ns : int
        When the hook was given the frame, by the clock of its machine that never goes back (`time.perf_counter_ns`, which every
        process there shares, and which on Windows is far finer than `time.monotonic_ns`).
    unix_ns : int
        The same moment by the clock on the wall, nanoseconds since 1970.
    exposure_ms : float or None
        As read back from the device; None where nobody read it.
    asked_exposure_ms : float or None
        As the acquisition engine says it asked for.
    pixel_size_um : float or None
        In the specimen.
    stage_um : tuple of float or None
        (x, y, z) as read back, or as commanded where nobody read it.
    """

    run: str
    sequence: int
    key: VolumeKey
    z: int = 0
    planes: int = 0
    captured_ns: int = 0
    unix_ns: int = 0
    exposure_ms: float | None = None
    asked_exposure_ms: float | None = None
    pixel_size_um: float | None = None
    stage_um: tuple[float | None, float | None, float | None] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image.

    Attributes
    ----------
    pixels : ndarray, (Y, X), uint8 or uint16
        Camera counts; nobody writes into them.
    info : FrameInfo
    """

    pixels: NDArray[np.integer[Any]]
    info: FrameInfo


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """The frames of one time point, position, channel and light, in the order of z.

    Attributes
    ----------
    run : str
    key : VolumeKey
    pixels : ndarray, (Z, Y, X), uint8 or uint16
        Camera counts.
    infos : tuple of FrameInfo
        One per plane, in the order of `pixels`.
    expected : int
        How many planes it should have; 0 where nobody knows.
    """

    run: str
    key: VolumeKey
    pixels: NDArray[np.integer[Any]]
    infos: tuple[FrameInfo, ...]
    expected: int

    @property
    def complete(self) -> bool:
        """Whether every expected plane is there."""
        return len(self.infos) >= max(1, self.expected)


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A restored volume: a prediction; the raw frames stay the record.

    Attributes
    ----------
    pixels : ndarray, (C, Z, Y, X) or (C, Y, X), float32 or uint16
        Camera counts, whole ones in uint16 where those were asked for, or the network's own units where its output is no
        intensity.
    widths : ndarray of the same shape, or None
        Laplace scale of every pixel in the same units, from probabilistic networks: half of the probability lies
        within 0.69 of it, 90 % within 2.3.
    intensity : IntensityRange
        The counts that the network saw as 0 and 1; ``guarded`` warns of a flat image.
    tiles : int
        How many windows the image was restored in; 1 is the whole image at once.
    """

    pixels: NDArray[Any]
    widths: NDArray[np.float32] | None
    intensity: IntensityRange
    tiles: int


@dataclass(frozen=True, slots=True, eq=False)
class LiveRestored:
    """A volume that came back from the restore process while the acquisition runs.

    Attributes
    ----------
    run : str
    key : VolumeKey
    pixels : ndarray, (Z, Y, X), float32 or uint16
        Restored camera counts.
    trust : mapping
        Figures of the photon-consistency check, see `live_restore.restore.trust`.
    provenance : mapping
        Model, engine, precision, intensity range.
    stages_ms : mapping of str to float
        How long each stage took.
    latency_ms : float
        From the hook's receipt of the volume's last frame to this moment.
    """

    run: str
    key: VolumeKey
    pixels: NDArray[np.float32 | np.uint16]
    trust: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    latency_ms: float = 0.0
