"""The [camera] section of a hardware configuration, written anew: comments and everything else stay as they are.

Receives a configuration's path and an estimate of the camera; hands on the new text, and writes it where asked. It does not
know how the camera was measured.
"""

import difflib
import os
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit
from tomlkit.exceptions import TOMLKitError

from live_restore.config import HardwareConfig
from live_restore.errors import ConfigError, PairError
from live_restore.pairs.camera_estimate import CameraEstimate

_NAMES = ("offset_adu", "gain_adu_per_e", "read_noise_e")
# As many digits as are known, and one more.
_LEAST_DIGITS, _MOST_DIGITS = 2, 6


def camera_text(path: Path, estimate: CameraEstimate, maps: Path | None = None) -> str:
    """Write the estimate into the text of a configuration.

    Parameters
    ----------
    path : Path
        A hardware configuration; it is read, not changed.
    estimate : CameraEstimate
    maps : Path or None
        The file of maps that the section shall name; relative to the configuration where it lies beside it. None: it names
        none, for maps of before would go ahead of the new figures.

    Raises
    ------
    ConfigError
        If the file is no configuration.
    PairError
        If not all three figures are known.
    """
    if not estimate.certain:
        raise PairError(f"the camera is not known well enough to be written down: {estimate.why or estimate.method}")
    HardwareConfig.from_file(path)  # refuses what is none, in its own words
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, TOMLKitError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if "camera" not in document:
        document.add(tomlkit.nl())
        document.add("camera", tomlkit.table())
    camera: Any = document["camera"]
    for name in _NAMES:
        camera[name] = _rounded(*getattr(estimate, name))
    if maps is not None:
        camera["maps"] = _from(path, maps)
    elif "maps" in camera:
        del camera["maps"]
    return tomlkit.dumps(document)


def difference(path: Path, text: str) -> str:
    """Say what would change in a file, as ``diff -u`` does; empty if nothing."""
    before = path.read_text(encoding="utf-8-sig").splitlines()
    return "\n".join(difflib.unified_diff(before, text.splitlines(), str(path), f"{path} (new)", lineterm="", n=1))


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}; nothing was changed") from error


def write_maps(path: Path, estimate: CameraEstimate) -> None:
    """Write the maps of every pixel, .npz, in one step.

    Raises
    ------
    PairError
        If there are none, or the disk refuses.
    """
    if not set(_NAMES) <= set(estimate.maps):
        raise PairError(f"{estimate.method} tells no maps of single pixels; give dark frames, and flat frames or pairs")
    new = path.with_name(f".{path.stem}.new.npz")
    try:
        offset_adu, gain_adu_per_e, read_noise_e = (estimate.maps[name] for name in _NAMES)
        np.savez_compressed(new, offset_adu=offset_adu, gain_adu_per_e=gain_adu_per_e, read_noise_e=read_noise_e)
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise PairError(f"{path} cannot be written: {error.strerror or error}") from error


def _rounded(value: float, error: float) -> float:
    """Round to what is known: two digits of the error.

    >>> _rounded(2.17993, 0.0123), _rounded(97.0312, 0.011), _rounded(1.5, 0.0)
    (2.18, 97.031, 1.5)
    """
    if not error > 0 or not value:
        return float(f"{value:.{_MOST_DIGITS}g}")
    digits = int(np.floor(np.log10(abs(value))) - np.floor(np.log10(error))) + 2
    return float(f"{value:.{min(_MOST_DIGITS, max(_LEAST_DIGITS, digits))}g}")


def _from(config: Path, maps: Path) -> str:
    """Name the maps as the configuration finds them."""
    folder, whole = config.absolute().parent, maps.absolute()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else whole.as_posix()
