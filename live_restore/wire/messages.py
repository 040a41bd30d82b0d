"""The messages on the wire: what each side may say, turned into bytes and back.

Receives nouns; hands on lists of buffers, a small JSON header followed by raw pixels, and the other way round. Pure: it
does not know sockets. Whatever arrives is checked before it is believed: version, kind, fields, and that shape times
dtype is the number of bytes. Nothing is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from live_restore.frames import Frame, VolumeKey

VERSION = 1


# --- said by the hook, the viewer or the command line -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of every client; answered by `Welcome`.

    Attributes
    ----------
    role : {"hook", "viewer", "command"}
    software : str
        Name and version, for the record.
    """

    role: Literal["hook", "viewer", "command"]
    software: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Begin:
    """A run begins, or goes on with a restore process that was started anew: saying it twice changes nothing.

    Attributes
    ----------
    run : str
    raw : str or None
        Folder of the raw dataset; None where nobody knows.
    plan : mapping
        What is known beforehand, any of: ``times`` (int), ``positions`` (list of str), ``channels`` (list of str),
        ``planes`` (int), ``frames`` (int), ``interval_s``, ``z_step_um``, ``pixel_size_um`` (float).
    results : {"none", "float32", "uint16"}
        Whether restored volumes are sent back.
    """

    run: str
    raw: str | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    results: Literal["none", "float32", "uint16"] = "none"


@dataclass(frozen=True, slots=True, eq=False)
class FrameSent:
    """A frame, pixels attached; answered by a `Receipt`."""

    frame: Frame


@dataclass(frozen=True, slots=True, eq=False)
class Abandon:
    """The rest of a volume will not come: it was given up half-way."""

    run: str
    key: VolumeKey


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """A run is over; what was sent before is still restored. `ledger` is the hook's table."""

    run: str
    ledger: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Beat:
    """A sign of life, both ways, twice a second at most. From the hook with its table, from the restore process with credit."""

    run: str = ""
    ledger: Mapping[str, int] = field(default_factory=dict)
    credit: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A viewer wants to see something newer than it has; answered by one `View`, as soon as there is one.

    Attributes
    ----------
    after : int
        Number of the view it has; 0 for anything. A view of another plane or channel than last time is always new.
    position, channel : str
        Empty: whichever is newest.
    z : int
        Index of a plane; -1 for the maximum projection.
    trust : bool
        Whether to send the trust map too.
    wait_ms : int
        How long to wait for something newer before an empty `View` is sent, which carries the status alone.
    """

    after: int = 0
    position: str = ""
    channel: str = ""
    z: int = -1
    trust: bool = False
    wait_ms: int = 500


@dataclass(frozen=True, slots=True)
class Command:
    """Something asked of the restore process itself; answered by an `Answer`.

    Attributes
    ----------
    name : {"status", "swap", "stop"}
    options : mapping
        For ``swap``: ``channel`` (str, "*" for all without their own), ``package`` (str, a path), ``engine``, ``precision``.
    """

    name: Literal["status", "swap", "stop"]
    options: Mapping[str, Any] = field(default_factory=dict)


# --- said by the restore process --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Welcome:
    """The restore process introduces itself.

    Attributes
    ----------
    session : str
        Another one after every start: so a client knows that what it sent before is gone.
    software : str
    credit : int
        How many more volumes it takes now.
    """

    session: str
    software: str = ""
    credit: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Receipt:
    """Frames arrived.

    Attributes
    ----------
    run : str
    sequences : tuple of int
        Which frames.
    credit : int
        How many more volumes, beyond those of which a frame has arrived, it takes now.
    refused : str
        Why these frames were not taken; empty if they were.
    """

    run: str
    sequences: tuple[int, ...]
    credit: int
    refused: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class RestoredSent:
    """A restored volume goes back to the acquisition, pixels attached."""

    run: str
    key: VolumeKey
    pixels: NDArray[np.float32 | np.uint16]
    captured_ns: int
    trust: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    stages_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a viewer shows next.

    Attributes
    ----------
    number : int
        Counts up with everything new; 0 where nothing was restored yet.
    run : str
    key : VolumeKey or None
    z, planes : int
        Which plane this is (-1: maximum projection) and how many the volume has.
    slab : int
        How many planes were there when it was restored; 0 where the volume is whole. A slab is provisional.
    raw : ndarray, (Y, X), uint8 or uint16, or None
    restored : ndarray, (Y, X), float32, or None
    trust : ndarray, (Y, X), int8, or None
        Ten times the z-score of largest size among the scales, clipped at ±12.7.
    said : mapping
        Trust figures, provenance, stages of this volume.
    status : mapping
        As the answer to the command ``status``.
    """

    number: int
    run: str = ""
    key: VolumeKey | None = None
    z: int = -1
    planes: int = 0
    slab: int = 0
    raw: NDArray[np.integer[Any]] | None = None
    restored: NDArray[np.float32] | None = None
    trust: NDArray[np.int8] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """To a `Command`: what was asked, or why not."""

    said: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""


Message = Hello | Begin | FrameSent | Abandon | End | Beat | Ask | Command | Welcome | Receipt | RestoredSent | View | Answer
