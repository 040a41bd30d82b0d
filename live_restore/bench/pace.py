"""The pace of a network: what one volume of a given shape takes on this machine, from frames to a checked result.

Receives a model package and a shape; hands on a `Pace`. The real restorer restores volumes of the real shape; their assembly
from frames and the trust check are measured with it. It does not know how often volumes come.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from statistics import median

import numpy as np
from numpy.typing import NDArray

from live_restore.bench.scenes import low_light
from live_restore.bench.timing import no_garbage_collection
from live_restore.bench.work import size_text
from live_restore.errors import EngineUnavailable
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.models.package import ModelPackage
from live_restore.restore.noise import CameraNoise
from live_restore.restore.trust import TrustCheck
from live_restore.restore.volumes import Assembly
from live_restore.restorer import Restorer

Progress = Callable[[str, int, int, str], None]
Shape = tuple[int, int, int]

# The live path checks as many volumes as go in this share of the time, where volumes wait.
CHECKING_SHARE = 0.1
_SMALLEST_PX = 256


@dataclass(frozen=True, slots=True)
class Pace:
    """What one volume takes on this machine, seconds.

    Attributes
    ----------
    shape : tuple of int
        (Z, Y, X) of the volumes.
    engine : str
        What ran, as it names itself.
    kind, device, precision : str
    assemble_s, restore_s, check_s : float
        Medians; `check_s` is 0 where there is nothing that could be checked.
    measured_shape : tuple of int
        The volumes that were really restored: smaller ones where a whole one takes too long. The time is then scaled by pixels.
    volumes : int
        How many were restored.
    """

    shape: Shape
    engine: str
    kind: str
    device: str
    precision: str
    assemble_s: float
    restore_s: float
    check_s: float
    measured_shape: Shape
    volumes: int

    @property
    def volume_s(self) -> float:
        """What one volume takes the restore process, with as much checking as it allows itself when volumes wait."""
        return self.assemble_s + self.restore_s + min(self.check_s, CHECKING_SHARE * self.restore_s)

    @property
    def all_checked_s(self) -> float:
        """What one volume takes if every one is checked, by the same cores."""
        return self.assemble_s + self.restore_s + self.check_s


def measure_pace(
    package: ModelPackage,
    shape: Shape,
    *,
    engine: str = "auto",
    precision: str = "auto",
    budget_s: float = 30.0,
    most: int = 9,
    progress: Progress = lambda name, done, total, unit: None,
) -> Pace:
    """Restore volumes of this shape and measure.

    Parameters
    ----------
    package : ModelPackage
    shape : tuple of int
        (Z, Y, X).
    engine, precision : str
    budget_s : float
        About how long to measure; larger volumes are cut to what fits.
    most : int
        No more volumes than this.
    progress : callable (name, done, total, unit)

    Raises
    ------
    ImageError, EngineError, EngineUnavailable
        As `Restorer`.
    """
    title = f"{package.name}, {size_text(shape)}"
    with Restorer(package, engine=engine, precision=precision) as restorer:
        progress(title, 0, most, "volumes")
        first = _Case(restorer, _cut(shape, _SMALLEST_PX))
        once_s = first.restore_s() * prod(shape) / prod(first.shape)
        side = math.sqrt(min(1.0, budget_s / 4 / max(once_s, 1e-9))) * min(shape[1:])
        case = first if shape == first.shape else _Case(restorer, _cut(shape, max(_SMALLEST_PX, int(side) // 64 * 64)))
        until = time.monotonic() + budget_s
        spent: list[tuple[float, float, float]] = []
        with no_garbage_collection():
            while len(spent) < most and (len(spent) < 2 or time.monotonic() < until):
                spent.append((case.assemble_s(), case.restore_s(), case.check_s()))
                progress(title, len(spent), most, "volumes")
        progress(title, most, most, "volumes")
        spec = restorer.engine
    larger = prod(shape) / prod(case.shape)
    assemble_s, restore_s, check_s = (larger * median(each) for each in zip(*spent, strict=True))
    named = (str(spec), spec.kind, spec.device, spec.precision)
    return Pace(shape, *named, assemble_s, restore_s, check_s, case.shape, len(spent))


def _cut(shape: Shape, side: int) -> Shape:
    return shape[0], min(shape[1], side), min(shape[2], side)


class _Case:
    """One volume, ready to be assembled, restored and checked again and again."""

    def __init__(self, restorer: Restorer, shape: Shape) -> None:
        self.shape = shape
        self._restorer = restorer
        self._raw, noise = low_light(shape)
        self._pixels = np.stack([self._raw] * restorer.facts.channels_in)
        self._restored = restorer.restore(self._pixels).pixels[0]
        self._check = _checker(noise, self._raw, self._restored)

    def assemble_s(self) -> float:
        assembly = Assembly()
        frames = [Frame(plane, FrameInfo("bench", z, VolumeKey(), z, len(self._raw))) for z, plane in enumerate(self._raw)]
        began = time.perf_counter()
        for frame in frames:
            assembly.add(frame, 0)
        return time.perf_counter() - began

    def restore_s(self) -> float:
        began = time.perf_counter()
        self._restorer.restore(self._pixels)
        return time.perf_counter() - began

    def check_s(self) -> float:
        if self._check is None:
            return 0.0
        began = time.perf_counter()
        self._check()
        return time.perf_counter() - began


def _checker(noise: CameraNoise, raw: NDArray[np.uint16], restored: NDArray[np.float32]) -> Callable[[], object] | None:
    if raw.shape != restored.shape:
        return None  # another size than came in: there is no raw pixel to compare with
    check = TrustCheck(noise)
    return lambda: check.check(raw, restored)


def pace_in_bf16(package: ModelPackage, pace: Pace, budget_s: float, progress: Progress) -> Pace | None:
    """Measure the same in bf16; None where it was bf16 or something shorter, or this machine has none."""
    if pace.precision != "f32":
        return None
    try:
        return measure_pace(
            package, pace.shape, engine=pace.kind, precision="bf16", budget_s=budget_s, most=5, progress=progress
        )
    except EngineUnavailable:
        return None
