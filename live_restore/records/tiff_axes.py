"""What the axes of a TIFF file are: as it says, as the user says, or as one must suppose.

Receives a series of pages; hands on letters, and the place of every plane along position, time, channel and Z. It
reads no pixels.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError

if TYPE_CHECKING:
    import tifffile

_KNOWN = "TCZYX"
# Position (only Micro-Manager stacks have it within one series), time, channel, Z.
_ORDER = "RTCZ"


def read_axes(path: Path, series: "tifffile.TiffPageSeries", given: str | None) -> tuple[str, tuple[str, ...]]:
    """Letters of the axes of a series, e.g. ``"TZYX"``, one per axis longer than 1, and Y and X.

    A stack that does not say what it is a stack of is taken for a z-stack, with a note.

    Parameters
    ----------
    path : Path
        For messages.
    series : TiffPageSeries
    given : str or None
        What the user says.

    Returns
    -------
    letters : str
    notes : tuple of str
        What was supposed.

    Raises
    ------
    ImageError
        For colour, for letters that do not fit the shape, and for axes that nobody explains.
    """
    own, shape = series.get_axes(squeeze=True), series.get_shape(squeeze=True)
    # tifffile and others save a stack of 3 or 4 planes as colours unless told otherwise; the user may know better
    if own.endswith("S") or ("S" in own and given is None):
        stacked = "" if own.endswith("S") else f"; if it is a stack, say of what, e.g. --axes {_proposed(own)}"
        raise ImageError(f"{path} is a colour image of shape {shape} ({own}); save each channel as grayscale{stacked}")
    if given is not None:
        return _check_given(path, given.upper(), shape), ()
    if not own.endswith("YX"):
        raise ImageError(f"{path} stores its axes in the order {own}; save it again with Y and X last")
    known = _KNOWN + "R" * (series.kind == "mmstack")
    unknown = [letter for letter in own if letter not in known]
    if not unknown:
        return own, ()
    if len(own) > 3:
        raise ImageError(f"{path} has the shape {shape} and does not say what its axes are; say it, e.g. --axes TZYX")
    supposed = f"{path.name} does not say what its {shape[0]} planes are; they are taken for Z (if they are times: --axes TYX)"
    return "ZYX", (supposed,)


def plane_numbers(letters: str, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Give the planes of a file their numbers by position, time, channel and Z.

    Parameters
    ----------
    letters : str
        Of all axes; Y and X last.
    shape : tuple of int
        Without Y and X.

    Returns
    -------
    ndarray, (R, T, C, Z), int
    """
    numbers = np.arange(math.prod(shape))
    stored = letters[:-2] + "".join(letter for letter in _ORDER if letter not in letters)
    numbers = numbers.reshape(shape + (1,) * (len(stored) - len(shape)))
    return numbers.transpose([stored.index(letter) for letter in _ORDER])  # (R, T, C, Z)


def _check_given(path: Path, given: str, shape: tuple[int, ...]) -> str:
    if set(given) - set(_KNOWN) or len(set(given)) != len(given) or not given.endswith("YX"):
        raise ImageError(f"axes '{given}' are not understood: letters of {_KNOWN}, each once, Y and X last, e.g. TYX")
    if len(given) != len(shape):
        raise ImageError(
            f"axes '{given}' do not fit {path}, whose shape is {shape}: {len(shape)} axes, so {len(shape)} letters"
        )
    return given


def _proposed(own: str) -> str:
    """Axes to propose to the user: the file's, with letters of ours in place of those that nobody knows."""
    free = iter([letter for letter in "ZTC" if letter not in own])
    return "".join(letter if letter in "TCZYX" else next(free) for letter in own)
