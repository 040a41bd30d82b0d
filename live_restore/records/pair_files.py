"""The two files of a pair as they are written: names, OME-TIFF, and never a half.

Receives a pair as it came from the camera; hands on its two files, put in place together. It does not know the log.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from live_restore import __version__
from live_restore.errors import PairError
from live_restore.records.json_lines import put
from live_restore.records.pairs import file_sha256
from live_restore.records.tifffile_log import silenced

PixelSize = tuple[float | None, float | None, float | None]

_UM_PER_CM = 1e4
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True, eq=False)
class TakenPair:
    """A pair as it came from the camera.

    Attributes
    ----------
    name : str
        Becomes the name of both files; see `pair_name`.
    channel, position : str
    repeat : int
        From 0.
    low, high : ndarray, ([Z,] Y, X), uint8 or uint16
        Camera counts.
    low_again : ndarray of the same shape, or None
        A second low one, taken after the high one.
    said : mapping
        Further words for its line that have JSON: axes, read-backs, times, stage.
    pixel_size_um : tuple of float or None, (z, y, x)
    dose_ratio : float or None
        How many times more light the high image had.
    """

    name: str
    channel: str
    position: str
    repeat: int
    low: NDArray[Any]
    high: NDArray[Any]
    low_again: NDArray[Any] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    pixel_size_um: PixelSize = (None, None, None)
    dose_ratio: float | None = None


def pair_name(position: str, channel: str, repeat: int = 0) -> str:
    """Make a name that is fit for a file and from which the position can be read.

    >>> pair_name("Pos 3/a", "GFP", 1)
    'Pos-3-a_GFP-r1'
    """
    words = (re.sub(r"[^\w.]+", "-", word).strip("-.").replace("_", "-") for word in (position, f"{channel}-r{repeat}"))
    return "_".join(word for word in words if word)


def check_name(name: str) -> None:
    """Refuse what is no name for a file on every machine.

    Raises
    ------
    PairError
    """
    wrong = sorted({c for c in name if c in '<>:"/\\|?*' or not c.isprintable()})
    if wrong or not name.strip(" .") or name != name.strip(" .") or len(name) > _LONGEST_NAME:
        said = (
            f"has {' '.join(wrong)}"
            if wrong
            else f"is empty, over {_LONGEST_NAME} letters long, or begins or ends with a dot or space"
        )
        raise PairError(f"the name {name!r} {said}; use letters, digits, - and _, as `pair_name` does")


def write_both(taken: TakenPair, files: Mapping[str, Path]) -> tuple[str, str]:
    """Write both files, high before low in place: software that goes by the low ones then never misses a high one."""
    for side, pixels in (("high", taken.high), ("low", taken.low)):
        files[side].parent.mkdir(parents=True, exist_ok=True)
        _write_tiff(temporary(files[side]), pixels.astype(np.uint16), taken)
    hashes = file_sha256(temporary(files["low"])), file_sha256(temporary(files["high"]))
    for side in ("high", "low"):
        put(temporary(files[side]), files[side])
    return hashes


def _write_tiff(path: Path, pixels: NDArray[np.uint16], taken: TakenPair) -> None:
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", taken.pixel_size_um, strict=True) if size}
    _, y, x = taken.pixel_size_um
    metadata = {
        "axes": "ZYX"[-pixels.ndim :],
        "Name": taken.name,
        "Creator": f"live_restore {__version__}",
        "Channel": {"Name": [taken.channel or "channel 0"]},
        **sizes,
        **{f"{key}Unit": "µm" for key in sizes},
    }
    with silenced(), path.open("wb") as file:
        tifffile.imwrite(
            file,
            pixels,
            ome=True,
            photometric="minisblack",
            metadata=metadata,
            resolution=(_UM_PER_CM / x, _UM_PER_CM / y) if x and y else None,
            resolutionunit="CENTIMETER" if x and y else "NONE",
        )
        file.flush()
        os.fsync(file.fileno())


def temporary(path: Path) -> Path:
    """Name a half-written file so that no pattern for TIFFs finds it."""
    return path.with_name(f".{path.stem}.new")


def replace_json(path: Path, said: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step, safely on disk."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(said, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    put(new, path)
