"""The messages on the wire: what each side may say, turned into bytes and back.

Receives nouns; hands on lists of buffers, a small JSON header followed by raw pixels, and the other way round. Pure: it
does not know sockets. Whatever arrives is checked before it is believed: version, kind, fields, and that shape times
dtype is the number of bytes. Nothing is ever unpickled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import BadMessage
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.wire.fields import (
    KIB,
    LONGEST_HEADER,
    MIB,
    NAME_CHARACTERS,
    Fields,
    fit_for_a_file,
    fit_for_a_name,
    header_bytes,
    read_header,
    shown,
)
from live_restore.wire.pixels import (
    LARGEST_FRAME,
    LONGEST_SIDE,
    MOST_BUFFERS,
    RAW_IMAGE,
    RESTORED_IMAGE,
    RESTORED_VOLUME,
    TRUST_IMAGE,
    Allowed,
    Buffer,
    Buffers,
    describe,
)

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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Abandon:
    """The rest of a volume will not come: it was given up half-way."""

    run: str
    key: VolumeKey


@dataclass(frozen=True, slots=True)
class End:
    """A run is over; what was sent before is still restored. `ledger` is the hook's table."""

    run: str
    ledger: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, both ways, twice a second at most. From the hook with its table, from the restore process with credit."""

    run: str = ""
    ledger: Mapping[str, int] = field(default_factory=dict)
    credit: int = 0


@dataclass(frozen=True, slots=True)
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
    sparing : bool
        Leave the status out of views that follow one with the same status; of the first it is part in any case.
    """

    after: int = 0
    position: str = ""
    channel: str = ""
    z: int = -1
    trust: bool = False
    wait_ms: int = 500
    sparing: bool = False


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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
        As the answer to the command ``status``; empty where it was asked to be sparing and nothing is new.
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


@dataclass(frozen=True, slots=True)
class Answer:
    """To a `Command`: what was asked, or why not."""

    said: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""


Message = Hello | Begin | FrameSent | Abandon | End | Beat | Ask | Command | Welcome | Receipt | RestoredSent | View | Answer


# --- to bytes ---------------------------------------------------------------------------------------------------------


def encode(message: Message) -> list[Buffer]:
    """Turn a message into its header and its pixel buffers.

    Returns
    -------
    list of buffers
        JSON header first. The pixels are views: they must stay as they are until the message is sent.

    Raises
    ------
    ValueError
        If the pixels, or the labels of a frame, are not what the other side reads, or the header is longer.
    TypeError
        If a mapping holds what JSON has no word for, or `message` is no message.
    """
    kind = KINDS.get(type(message))
    if kind is None:
        raise TypeError(f"{type(message).__name__} is no message; the wire carries {', '.join(k.__name__ for k in KINDS)}")
    fields, arrays = kind.write(message)
    described = [describe(name, pixels, allowed) for name, pixels, allowed in arrays]
    header = header_bytes({"v": VERSION, "kind": kind.word, **fields, "buffers": [entry for entry, _ in described]})
    if len(header) > kind.longest:
        raise ValueError(f"the header of this {kind.word} has {len(header)} bytes; {kind.longest} are the limit: say less")
    return [header, *(buffer for _, buffer in described)]


Arrays = list[tuple[str, NDArray[Any], Allowed]]
Written = tuple[dict[str, Any], Arrays]


def _write_key(key: VolumeKey) -> dict[str, Any]:
    return {"time": key.time, "position": key.position, "channel": key.channel, "light": key.light}


def _write_plain(message: Any) -> Written:
    """Write a message without pixels: its fields as they are."""
    fields = {name: getattr(message, name) for name in message.__slots__}
    if "key" in fields:
        fields["key"] = _write_key(fields["key"])
    return fields, []


def _write_frame(message: FrameSent) -> Written:
    frame, info = message.frame, message.frame.info
    if frame.pixels.nbytes > LARGEST_FRAME:
        raise ValueError(f"a frame of {frame.pixels.nbytes} bytes is too large for the wire; {LARGEST_FRAME} are the limit")
    _refuse_unreadable(info)
    fields = {name: getattr(info, name) for name in FrameInfo.__slots__}
    fields["key"] = _write_key(info.key)
    return fields, [("pixels", frame.pixels, RAW_IMAGE)]


def _refuse_unreadable(info: FrameInfo) -> None:
    """Refuse what a microscope may well say and the other side would not read: so the sender knows, and can count it."""
    key = info.key
    if min(key.time, info.z, info.sequence) < 0 or max(info.z, info.planes) > LONGEST_SIDE:
        raise ValueError(f"a frame of time {key.time}, plane {info.z} of {info.planes} cannot be sent; both count from 0")
    if not (fit_for_a_file(info.run) and fit_for_a_name(key.position) and fit_for_a_name(key.channel)):
        raise ValueError(
            f"a frame of run {shown(info.run)}, {shown(str(key))} cannot be sent; a run's name must be fit for a file, labels "
            f"have at most {NAME_CHARACTERS} characters, and none that cannot be printed"
        )


def _write_restored(message: RestoredSent) -> Written:
    fields, _ = _write_plain(message)
    return fields, [("pixels", fields.pop("pixels"), RESTORED_VOLUME)]


def _write_view(message: View) -> Written:
    names = ("number", "run", "z", "planes", "slab", "said", "status")
    fields: dict[str, Any] = {name: getattr(message, name) for name in names}
    fields["key"] = None if message.key is None else _write_key(message.key)
    images = (
        ("raw", message.raw, RAW_IMAGE),
        ("restored", message.restored, RESTORED_IMAGE),
        ("trust", message.trust, TRUST_IMAGE),
    )
    return fields, [(name, image, allowed) for name, image, allowed in images if image is not None]


# --- and back ---------------------------------------------------------------------------------------------------------


def decode(parts: Sequence[Buffer], longest_header: int = LONGEST_HEADER) -> Message:
    """Read a message, believing nothing.

    Parameters
    ----------
    parts : sequence of buffers
        JSON header, then the pixel buffers that it describes.
    longest_header : int
        In bytes; the restore process takes less than its clients do.

    Returns
    -------
    Message
        Its pixels are read-only views of the buffers.

    Raises
    ------
    BadMessage
        If anything is not as docs/protocol.md has it, with the reason. No other exception comes out of here.
    """
    if not 1 <= len(parts) <= 1 + MOST_BUFFERS:
        raise BadMessage(f"a message of {len(parts)} parts; it must be a header and at most {MOST_BUFFERS} pixel buffers")
    length = memoryview(parts[0]).nbytes
    if length > longest_header:
        raise BadMessage(f"the header has {length} bytes; {longest_header} are the limit")
    fields = read_header(bytes(parts[0]))
    kind = _kind(fields)
    if length > kind.longest:
        raise BadMessage(f"the header of a {kind.word} has {length} bytes; {kind.longest} are the limit")
    return kind.read(fields, Buffers(fields.entries("buffers", MOST_BUFFERS), parts[1:]))


def _kind(fields: Fields) -> "Kind":
    version = fields.whole("v")
    if version != VERSION:
        raise BadMessage(
            f"the message speaks version {version} of the protocol, this live_restore speaks {VERSION}; "
            "install the same release on both sides"
        )
    word = fields.text("kind")
    if word not in _WORDS:
        raise BadMessage(f"there is no message of the kind {shown(word)}; the kinds are {', '.join(_WORDS)}")
    return _WORDS[word]


_LATEST_TIME = 2**31 - 1
_LONGEST_MS = 1e9  # eleven days
_FARTHEST_UM = 1e9  # a kilometre
_MOST_CREDIT = 2**31 - 1
_LIGHTS = ("low", "high")
_ROLES = ("hook", "viewer", "command")
_RESULTS = ("none", "float32", "uint16")
_COMMANDS = ("status", "swap", "stop")


def _read_key(fields: Fields) -> VolumeKey:
    return VolumeKey(
        time=fields.whole("time", 0, _LATEST_TIME),
        position=fields.name("position"),
        channel=fields.name("channel"),
        light=fields.choice("light", _LIGHTS, "low"),
    )


def _read_credit(fields: Fields) -> int:
    return fields.whole("credit", -_MOST_CREDIT, _MOST_CREDIT, 0)


def _read_hello(fields: Fields, _: Buffers) -> Hello:
    return Hello(fields.choice("role", _ROLES), fields.text("software", ""))


def _read_begin(fields: Fields, _: Buffers) -> Begin:
    raw = fields.text("raw") if fields.has("raw") else None
    return Begin(fields.run(), raw, _read_plan(fields), fields.choice("results", _RESULTS, "none"))


def _read_plan(fields: Fields) -> dict[str, Any]:
    """Check what a plan says of the things that have a name; None is as good as nothing."""
    said = {name: value for name, value in fields.mapping("plan").items() if value is not None}
    plan = Fields(said)
    for name in ("times", "frames"):
        plan.whole(name, 0, default=0)
    plan.whole("planes", 0, LONGEST_SIDE, 0)
    for name in ("interval_s", "z_step_um", "pixel_size_um"):
        plan.number(name, -_FARTHEST_UM, _FARTHEST_UM)
    for name in ("positions", "channels"):
        if not all(type(label) is str for label in plan.entries(name)):
            raise BadMessage(f"the plan's {name} are {shown(said[name])}; they must be texts")
    return said


def _read_frame(fields: Fields, buffers: Buffers) -> FrameSent:
    info = FrameInfo(
        run=fields.run(),
        sequence=fields.whole("sequence"),
        key=_read_key(fields.part("key")),
        z=fields.whole("z", 0, LONGEST_SIDE, 0),
        planes=fields.whole("planes", 0, LONGEST_SIDE, 0),
        captured_ns=fields.whole("captured_ns", default=0),
        unix_ns=fields.whole("unix_ns", default=0),
        exposure_ms=fields.number("exposure_ms", 0, _LONGEST_MS),
        asked_exposure_ms=fields.number("asked_exposure_ms", 0, _LONGEST_MS),
        pixel_size_um=fields.number("pixel_size_um", 0, _FARTHEST_UM),
        stage_um=fields.triple("stage_um", _FARTHEST_UM),
    )
    return FrameSent(Frame(buffers.take("pixels", RAW_IMAGE, LARGEST_FRAME), info))


def _read_abandon(fields: Fields, _: Buffers) -> Abandon:
    return Abandon(fields.run(), _read_key(fields.part("key")))


def _read_end(fields: Fields, _: Buffers) -> End:
    return End(fields.run(), fields.counts("ledger"))


def _read_beat(fields: Fields, _: Buffers) -> Beat:
    return Beat(fields.run(default=""), fields.counts("ledger"), _read_credit(fields))


def _read_ask(fields: Fields, _: Buffers) -> Ask:
    return Ask(
        after=fields.whole("after", default=0),
        position=fields.name("position", ""),
        channel=fields.name("channel", ""),
        z=fields.whole("z", -1, LONGEST_SIDE, -1),
        trust=fields.flag("trust", default=False),
        wait_ms=fields.whole("wait_ms", 0, 60_000, 500),
        sparing=fields.flag("sparing", default=False),
    )


def _read_command(fields: Fields, _: Buffers) -> Command:
    return Command(fields.choice("name", _COMMANDS), fields.mapping("options"))


def _read_welcome(fields: Fields, _: Buffers) -> Welcome:
    return Welcome(fields.text("session"), fields.text("software", ""), _read_credit(fields))


def _read_receipt(fields: Fields, _: Buffers) -> Receipt:
    return Receipt(fields.run(), fields.wholes("sequences"), _read_credit(fields), fields.text("refused", ""))


def _read_restored(fields: Fields, buffers: Buffers) -> RestoredSent:
    return RestoredSent(
        run=fields.run(),
        key=_read_key(fields.part("key")),
        pixels=buffers.take("pixels", RESTORED_VOLUME),
        captured_ns=fields.whole("captured_ns", default=0),
        trust=fields.mapping("trust"),
        provenance=fields.mapping("provenance"),
        stages_ms=fields.numbers("stages_ms"),
    )


def _read_view(fields: Fields, buffers: Buffers) -> View:
    return View(
        number=fields.whole("number"),
        run=fields.run(default=""),
        key=_read_key(fields.part("key")) if fields.has("key") else None,
        z=fields.whole("z", -1, LONGEST_SIDE, -1),
        planes=fields.whole("planes", 0, LONGEST_SIDE, 0),
        slab=fields.whole("slab", 0, LONGEST_SIDE, 0),
        raw=buffers.find("raw", RAW_IMAGE),
        restored=buffers.find("restored", RESTORED_IMAGE),
        trust=buffers.find("trust", TRUST_IMAGE),
        said=fields.mapping("said"),
        status=fields.mapping("status"),
    )


def _read_answer(fields: Fields, _: Buffers) -> Answer:
    return Answer(fields.mapping("said"), fields.text("refused", ""))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of message: its word on the wire, how it is written and read, and how long its header may be, in bytes."""

    word: str
    write: Callable[[Any], Written]
    read: Callable[[Fields, Buffers], Message]
    longest: int = 64 * KIB


KINDS: dict[type, Kind] = {
    Hello: Kind("hello", _write_plain, _read_hello),
    Begin: Kind("begin", _write_plain, _read_begin, 1 * MIB),  # names every position of a plate
    FrameSent: Kind("frame", _write_frame, _read_frame),
    Abandon: Kind("abandon", _write_plain, _read_abandon),
    End: Kind("end", _write_plain, _read_end),
    Beat: Kind("beat", _write_plain, _read_beat),
    Ask: Kind("ask", _write_plain, _read_ask),
    Command: Kind("command", _write_plain, _read_command),
    Welcome: Kind("welcome", _write_plain, _read_welcome),
    Receipt: Kind("receipt", _write_plain, _read_receipt, 1 * MIB),
    RestoredSent: Kind("restored", _write_restored, _read_restored, 1 * MIB),
    View: Kind("view", _write_view, _read_view, LONGEST_HEADER),  # carries the status with its time line
    Answer: Kind("answer", _write_plain, _read_answer, LONGEST_HEADER),
}
# What the restore process reads; no client says anything longer.
LONGEST_FROM_CLIENTS = 1 * MIB
_WORDS = {kind.word: kind for kind in KINDS.values()}
