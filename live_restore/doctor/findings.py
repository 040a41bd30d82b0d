"""What the doctor says: findings, each with a cure, and the situation that is examined.

It knows nothing of what is examined.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from live_restore.config import HardwareConfig

Level = Literal["ok", "warning", "problem"]

# The camera that speeds and sizes are compared with where no configuration names another: an sCMOS at a gentle pace.
CAMERA_SIDE_PX, CAMERA_FPS, BYTES_PER_PIXEL = 2048, 10, 2
CAMERA_MB = CAMERA_SIDE_PX**2 * BYTES_PER_PIXEL / 1e6  # per frame
CAMERA_MB_PER_S = CAMERA_MB * CAMERA_FPS


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    name : str
        What was looked at, one or two words.
    level : {"ok", "warning", "problem"}
        ``problem``: live restoration will not work; ``warning``: it may not, or not always.
    found : str
        What was found, with its numbers.
    cure : str
        What to do about it; empty if nothing.
    """

    name: str
    level: Level
    found: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is examined.

    Attributes
    ----------
    folder : Path
        Where images shall be saved.
    address : str
        Of the restore process.
    config : HardwareConfig or None
        Of the microscope.
    keys : Path or None
        Folder of keys.
    devices : bool
        Whether real devices may be started. They may move.
    """

    folder: Path
    address: str
    config: HardwareConfig | None = None
    keys: Path | None = None
    devices: bool = False


Check = Callable[[Situation], list[Finding]]


def ok(name: str, found: str, cure: str = "") -> Finding:
    """Nothing to worry about."""
    return Finding(name, "ok", found, cure)


def warning(name: str, found: str, cure: str) -> Finding:
    """Something that may go wrong."""
    return Finding(name, "warning", found, cure)


def problem(name: str, found: str, cure: str) -> Finding:
    """Something that will go wrong."""
    return Finding(name, "problem", found, cure)
