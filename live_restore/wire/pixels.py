"""The pixel buffers of a message: described in its header, viewed and never copied.

Receives arrays and hands on their descriptions and buffers; the other way round, a buffer is believed only if shape times
dtype is its number of bytes. No allocation depends on a size that somebody claims. It does not know which message it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import BadMessage
from live_restore.wire.fields import Fields, shown

Buffer = bytes | bytearray | memoryview

LONGEST_SIDE = 65535
# The largest camera has 151 megapixels, 0.3 GiB; what claims more is refused before it is received.
LARGEST_FRAME = 2**30
MOST_BUFFERS = 3

_DTYPES = {name: np.dtype(name) for name in ("|u1", "<u2", "<f4", "|i1")}


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an array of one name may be: how many axes, which dtypes."""

    axes: int
    dtypes: tuple[str, ...]


RAW_IMAGE = Allowed(2, ("|u1", "<u2"))  # (Y, X)
RESTORED_VOLUME = Allowed(3, ("<f4", "<u2"))  # (Z, Y, X)
RESTORED_IMAGE = Allowed(2, ("<f4",))  # (Y, X)
TRUST_IMAGE = Allowed(2, ("|i1",))  # (Y, X)


def describe(name: str, pixels: NDArray[Any], allowed: Allowed) -> tuple[dict[str, Any], Buffer]:
    """Describe an array for the header and give its buffer; only a non-contiguous or byte-swapped array is copied.

    Raises
    ------
    ValueError
        If the wire does not carry such an array.
    """
    code = pixels.dtype.newbyteorder("<").str
    if code not in allowed.dtypes or pixels.ndim != allowed.axes or not all(1 <= side <= LONGEST_SIDE for side in pixels.shape):
        raise ValueError(
            f"{name} is {pixels.dtype} {pixels.shape}; the wire carries {' or '.join(allowed.dtypes)} with {allowed.axes} axes "
            f"of 1 to {LONGEST_SIDE}"
        )
    lain = np.ascontiguousarray(pixels, dtype=_DTYPES[code])
    return {"name": name, "dtype": code, "shape": list(pixels.shape)}, lain.data


class Buffers:
    """The arrays of one message, by name.

    Parameters
    ----------
    described : list
        As in the header.
    parts : sequence of buffers
        In the same order.

    Raises
    ------
    BadMessage
        If there are more or fewer parts than descriptions, or a name comes twice.
    """

    __slots__ = ("_parts",)

    def __init__(self, described: list[Any], parts: Sequence[Buffer]) -> None:
        if len(described) != len(parts):
            raise BadMessage(f"the header describes {len(described)} pixel buffer(s), and {len(parts)} came with it")
        self._parts: dict[str, tuple[Fields, Buffer]] = {}
        for entry, part in zip(described, parts, strict=True):
            if type(entry) is not dict:
                raise BadMessage(f"a pixel buffer is described as {shown(entry)}; it must be an object")
            fields = Fields(entry)
            self._parts[fields.text("name")] = fields, part
        if len(self._parts) != len(parts):
            raise BadMessage("two pixel buffers have one name")

    def take(self, name: str, allowed: Allowed, largest: int | None = None) -> NDArray[Any]:
        """View a buffer as the array that the header says it is.

        Returns
        -------
        ndarray
            Read-only; it keeps the buffer alive.

        Raises
        ------
        BadMessage
            If it is missing, of another dtype or size than it may be, or longer than `largest` bytes.
        """
        found = self.find(name, allowed, largest)
        if found is None:
            raise BadMessage(f"the pixel buffer {name!r} is missing")
        return found

    def find(self, name: str, allowed: Allowed, largest: int | None = None) -> NDArray[Any] | None:
        """As `take`, but None where the message has no such buffer."""
        if name not in self._parts:
            return None
        fields, part = self._parts[name]
        code = fields.choice("dtype", allowed.dtypes)
        shape = _checked_shape(name, fields, allowed.axes)
        view = memoryview(part)
        claimed, there = prod(shape) * _DTYPES[code].itemsize, view.nbytes
        if claimed != there or not view.c_contiguous:
            raise BadMessage(f"{name} is said to be {code} {shape}, {claimed} bytes, and {there} came")
        if largest is not None and claimed > largest:
            raise BadMessage(f"{name} has {claimed} bytes; {largest} are the limit")
        array = np.frombuffer(view, dtype=_DTYPES[code]).reshape(shape)
        array.flags.writeable = False
        return array


def _checked_shape(name: str, fields: Fields, axes: int) -> tuple[int, ...]:
    shape = fields.wholes("shape", 8)
    if len(shape) != axes or not all(1 <= side <= LONGEST_SIDE for side in shape):
        raise BadMessage(f"{name} has shape {shape}; it must have {axes} sides of 1 to {LONGEST_SIDE}")
    return shape
