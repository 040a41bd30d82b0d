"""Messages: what is said is what is heard, and whatever else arrives is refused with a reason."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live_restore.errors import BadMessage
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.wire.fields import DEEPEST, RUN_CHARACTERS, fit_for_a_file
from live_restore.wire.messages import (
    KINDS,
    LONGEST_FROM_CLIENTS,
    VERSION,
    Abandon,
    Answer,
    Ask,
    Beat,
    Begin,
    Command,
    End,
    FrameSent,
    Hello,
    Receipt,
    RestoredSent,
    View,
    Welcome,
    decode,
    encode,
)

PROTOCOL = Path(__file__).resolve().parents[1] / "docs" / "protocol.md"

# --- any message -------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
labels = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
runs = labels.filter(fit_for_a_file)
wholes = st.integers(0, 2**63 - 1)
planes = st.integers(0, 65535)
finite = st.floats(allow_nan=False, allow_infinity=False)
credits_ = st.integers(-1000, 2**31 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | finite | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
mappings = st.dictionaries(texts, json_values, max_size=4)
ledgers = st.dictionaries(texts, wholes, max_size=6)
keys = st.builds(VolumeKey, st.integers(0, 2**31 - 1), labels, labels, st.sampled_from(["low", "high"]))
lengths_um = st.floats(0, 1e9)
stages = st.tuples(*[st.none() | st.floats(-1e9, 1e9)] * 3)
sides = st.integers(1, 9)


@st.composite
def pixels(draw, axes, *dtypes):
    """Draw an array, whole or cut out of a larger one, in any order of its axes."""
    shape = draw(st.tuples(*[sides] * axes))
    array = np.frombuffer(draw(st.binary(min_size=64, max_size=64)) * 200, draw(st.sampled_from(dtypes)))
    array = np.nan_to_num(array[: np.prod(shape) * 2 : 2].reshape(shape), posinf=0, neginf=0)
    return draw(st.sampled_from([array, array.T, array[::-1], np.asfortranarray(array)]))


infos = st.builds(
    FrameInfo,
    runs,
    wholes,
    keys,
    planes,
    planes,
    wholes,
    wholes,
    st.none() | lengths_um,
    st.none() | lengths_um,
    st.none() | lengths_um,
    st.none() | stages,
)
plans = st.fixed_dictionaries(
    {},
    optional={
        "times": wholes,
        "planes": planes,
        "frames": wholes,
        "positions": st.lists(labels, max_size=4),
        "channels": st.lists(labels, max_size=4),
        "interval_s": lengths_um,
        "z_step_um": lengths_um,
        "pixel_size_um": lengths_um,
        "what a later release says": texts,
    },
)
trusts = mappings
MESSAGES = {
    Hello: st.builds(Hello, st.sampled_from(["hook", "viewer", "command"]), texts),
    Begin: st.builds(Begin, runs, st.none() | texts, plans, st.sampled_from(["none", "float32", "uint16"])),
    FrameSent: st.builds(FrameSent, st.builds(Frame, pixels(2, "|u1", "<u2"), infos)),
    Abandon: st.builds(Abandon, runs, keys),
    End: st.builds(End, runs, ledgers),
    Beat: st.builds(Beat, runs | st.just(""), ledgers, credits_),
    Ask: st.builds(Ask, wholes, labels, labels, st.integers(-1, 65535), st.booleans(), st.integers(0, 60_000)),
    Command: st.builds(Command, st.sampled_from(["status", "swap", "stop"]), mappings),
    Welcome: st.builds(Welcome, texts, texts, credits_),
    Receipt: st.builds(Receipt, runs, st.lists(wholes, max_size=30).map(tuple), credits_, texts),
    RestoredSent: st.builds(
        RestoredSent,
        runs,
        keys,
        pixels(3, "<f4", "<u2"),
        wholes,
        trusts,
        mappings,
        st.dictionaries(texts, finite, max_size=4),
    ),
    View: st.builds(
        View,
        wholes,
        runs | st.just(""),
        st.none() | keys,
        st.integers(-1, 65535),
        planes,
        planes,
        st.none() | pixels(2, "|u1", "<u2"),
        st.none() | pixels(2, "<f4"),
        st.none() | pixels(2, "|i1"),
        mappings,
        mappings,
    ),
    Answer: st.builds(Answer, mappings, texts),
}
any_message = st.one_of(*MESSAGES.values())


def same(one, other):
    """Whether two nouns say the same, arrays and all."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(same(getattr(one, n), getattr(other, n)) for n in one.__slots__)
    return one == other


def carried(parts):
    """As they come out of a socket: plain bytes."""
    return [bytes(part) for part in parts]


def test_every_kind_has_a_strategy():
    assert set(MESSAGES) == set(KINDS)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_what_is_said_is_what_is_heard(kind):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(MESSAGES[kind])
    def said_and_heard(message):
        assert same(decode(carried(encode(message))), message)
        assert same(decode(encode(message)), message)

    said_and_heard()


# --- anything else -----------------------------------------------------------------------------------------------------


def refused_or_read(parts):
    """Nothing but a message or a `BadMessage` may come of it."""
    try:
        message = decode(parts, LONGEST_FROM_CLIENTS)
    except BadMessage as bad:
        assert str(bad)
        return None
    assert type(message) in KINDS
    return message


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_arbitrary_bytes(parts):
    refused_or_read(parts)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(texts, json_values, max_size=6),
    st.sampled_from(list(KINDS.values())),
    st.lists(st.binary(max_size=32), max_size=3),
)
def test_arbitrary_fields(fields, kind, buffers):
    header = json.dumps({**fields, "v": VERSION, "kind": kind.word}).encode()
    refused_or_read([header, *buffers])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_message, st.data())
def test_a_message_with_one_field_replaced(message, data):
    header, *buffers = carried(encode(message))
    fields = json.loads(header)
    place = fields
    name = data.draw(st.sampled_from(sorted(fields)))
    if isinstance(fields[name], dict) and fields[name] and data.draw(st.booleans()):
        place, name = fields[name], data.draw(st.sampled_from(sorted(fields[name])))
    place[name] = data.draw(json_values | st.just(10**400) | st.just("\ud800") | st.just(float("nan")))
    refused_or_read([json.dumps(fields).encode(), *buffers])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_message, st.data())
def test_a_message_with_damaged_bytes(message, data):
    parts = [bytearray(part) for part in carried(encode(message))]
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from(parts))
        if part:
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        parts = parts[: data.draw(st.integers(0, len(parts)))]
    refused_or_read(parts)


FRAME = {
    "v": VERSION,
    "kind": "frame",
    "run": "run_1",
    "sequence": 3,
    "key": {"time": 0, "position": "0", "channel": "GFP", "light": "low"},
    "z": 1,
    "planes": 5,
    "buffers": [{"name": "pixels", "dtype": "<u2", "shape": [2, 3]}],
}


def a_frame(**said):
    return [json.dumps({**FRAME, **said}).encode(), bytes(12)]


def described(**said):
    return a_frame(buffers=[{**FRAME["buffers"][0], **said}])


REFUSED = {
    "nothing": ([], "a message of 0 parts; it must be a header and at most 3 pixel buffers"),
    "too many parts": ([b"{}"] * 5, "a message of 5 parts"),
    "no JSON": ([b"frame"], "the header is not JSON"),
    "no text": ([b"\xff\xfe"], "the header is not UTF-8"),
    "UTF-16": ([json.dumps(FRAME).encode("utf-16")], "the header is not"),
    "a list": ([b"[1]"], r"the header is not a JSON object but \[1\]"),
    "NaN": (a_frame(exposure_ms=float("nan")), "NaN is no finite number"),
    "infinity": ([a_frame(z=7)[0].replace(b"7", b"1e999"), bytes(12)], "1e999 is no finite number"),
    "a huge number": (a_frame(sequence=10**30), "a whole number of 31 digits; 64 bits are the limit"),
    "a number of 65 bits": (a_frame(sequence=2**63), "a whole number of 19 digits; 64 bits are the limit"),
    "a number of 5000 digits": ([b'{"v":' + b"9" * 5000 + b"}"], "a whole number of 5000 digits"),
    "bottomless": ([b"[" * 60_000], "the header is nested more than 24 deep"),
    "bottomless, with an escape": ([b'["\\n",' * 3000 + b"1" + b"]" * 3000], "nested more than 24 deep|is not a JSON object"),
    "deep within": (
        a_frame(kind="command", name="status", options={"x": json.loads("[" * 30 + "]" * 30)}, buffers=[])[:1],
        "options is nested",
    ),
    "half a character": ([json.dumps({**FRAME, "run": "a\ud800"}).encode(), bytes(12)], "half a character"),
    "no version": ([b"{}"], "the field 'v' is missing"),
    "another version": (a_frame(v=2), "speaks version 2 of the protocol, this live_restore speaks 1; install the same release"),
    "no kind": ([b'{"v":1}'], "the field 'kind' is missing"),
    "another kind": (a_frame(kind="pickle"), "no message of the kind 'pickle'; the kinds are hello, begin, frame"),
    "a long header": ([b" " * (LONGEST_FROM_CLIENTS + 1)], "the header has 1048577 bytes; 1048576 are the limit"),
    "a long header for a frame": (a_frame(x="y" * 70_000), "the header of a frame has .* bytes; 65536 are the limit"),
    "no run": (a_frame(run=None), "run is None; it must be a text"),
    "a path for a run": (a_frame(run="../../etc"), "run is '../../etc'; it must be fit for a file name"),
    "dots for a run": (a_frame(run=".."), "it must be fit for a file name"),
    "no name for a run": (a_frame(run=""), "it must be fit for a file name"),
    "a long run": (a_frame(run="r" * 129), "it must be fit for a file name: 1 to 128 characters"),
    "a position with a line break": (
        a_frame(key={**FRAME["key"], "position": "a\nb"}),
        "position is .*; it must not hold control characters",
    ),
    "a long position": (
        a_frame(key={**FRAME["key"], "position": "p" * 300}),
        "position is .*; it must be a text of at most 256 characters",
    ),
    "a key that is none": (a_frame(key="k"), "key is 'k'; it must be an object"),
    "another light": (a_frame(key={**FRAME["key"], "light": "dim"}), "light is 'dim'; it must be one of low, high"),
    "true for a number": (a_frame(sequence=True), "sequence is True; it must be a whole number from 0"),
    "a broken number": (a_frame(z=1.5), "z is 1.5; it must be a whole number from 0 to 65535"),
    "a negative number": (a_frame(sequence=-1), "sequence is -1; it must be a whole number from 0"),
    "an endless exposure": (
        a_frame(exposure_ms=1e12),
        r"exposure_ms is 1000000000000\.0; it must be a number from 0 to 1e\+09",
    ),
    "two coordinates": (a_frame(stage_um=[1, 2]), r"stage_um is \[1, 2\]; it must be three numbers"),
    "four coordinates": (a_frame(stage_um=[1, 2, 3, 4]), "stage_um is .*; it must be a list of at most 3 entries"),
    "a coordinate that is none": (a_frame(stage_um=["x", 1, 2]), "stage_um is 'x'; it must be a number"),
    "no buffers": (a_frame()[:1], r"describes 1 pixel buffer\(s\), and 0 came"),
    "a buffer too many": ([*a_frame(), b""], r"describes 1 pixel buffer\(s\), and 2 came"),
    "a buffer of another name": (described(name="x"), "the pixel buffer 'pixels' is missing"),
    "a buffer that is described as a number": (a_frame(buffers=[7]), "a pixel buffer is described as 7"),
    "two buffers of one name": (
        [a_frame(buffers=FRAME["buffers"] * 2)[0], bytes(12), bytes(12)],
        "two pixel buffers have one name",
    ),
    "big-endian": (described(dtype=">u2"), r"dtype is '>u2'; it must be one of \|u1, <u2"),
    "objects": (described(dtype="|O"), r"dtype is '\|O'; it must be one of"),
    "floats from a camera": (described(dtype="<f4"), "dtype is '<f4'; it must be one of"),
    "too few bytes": (described(shape=[3, 3]), r"pixels is said to be <u2 \(3, 3\), 18 bytes, and 12 came"),
    "too many bytes": (described(shape=[1, 1]), r"2 bytes, and 12 came"),
    "a claim of gigabytes": (described(shape=[65535, 65535]), "8589672450 bytes, and 12 came"),
    "an empty side": (described(shape=[0, 3]), r"pixels has shape \(0, 3\); it must have 2 sides of 1 to 65535"),
    "a long side": (described(shape=[1, 65536]), "it must have 2 sides of 1 to 65535"),
    "a negative side": (described(shape=[-2, -3]), "shape is .*; it must be a list of whole numbers from 0 on"),
    "three axes": (described(shape=[1, 2, 3]), "it must have 2 sides of 1 to 65535"),
    "an unknown role": ([b'{"v":1,"kind":"hello","role":"root"}'], "role is 'root'; it must be one of hook, viewer, command"),
    "an unknown command": ([b'{"v":1,"kind":"command","name":"exec"}'], "name is 'exec'; it must be one of status, swap, stop"),
    "a ledger of texts": (
        [b'{"v":1,"kind":"end","run":"r","ledger":{"taken":"x"}}'],
        "ledger is .*; it must hold whole numbers",
    ),
    "a ledger that is none": ([b'{"v":1,"kind":"end","run":"r","ledger":[1]}'], r"ledger is \[1\]; it must be an object"),
    "sequences that are none": (
        [b'{"v":1,"kind":"receipt","run":"r","sequences":[1,"2"],"credit":1}'],
        "sequences is .*; it must be a list of whole numbers",
    ),
    "a plan of one position": (
        [b'{"v":1,"kind":"begin","run":"r","plan":{"positions":"a"}}'],
        "positions is 'a'; it must be a list",
    ),
    "a plan of numbers": (
        [b'{"v":1,"kind":"begin","run":"r","plan":{"channels":[1]}}'],
        r"the plan's channels are \[1\]; they must be texts",
    ),
    "a plan that is none": (
        [b'{"v":1,"kind":"begin","run":"r","plan":{"times":"9"}}'],
        "times is '9'; it must be a whole number",
    ),
    "perhaps": ([b'{"v":1,"kind":"ask","trust":1}'], "trust is 1; it must be true or false"),
    "stages that are no numbers": (
        [
            b'{"v":1,"kind":"restored","run":"r","key":{"time":0,"position":"0","channel":"c"},"stages_ms":{"wire":"x"},'
            b'"buffers":[{"name":"pixels","dtype":"<u2","shape":[1,1,1]}]}',
            bytes(2),
        ],
        "stages_ms is .*; it must hold numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    parts, reason = REFUSED[name]
    with pytest.raises(BadMessage, match=reason):
        decode(parts, LONGEST_FROM_CLIENTS)


def test_the_frame_of_these_tests_is_read():
    frame = decode(a_frame()).frame
    assert frame.info == FrameInfo("run_1", 3, VolumeKey(0, "0", "GFP"), 1, 5)
    assert frame.pixels.shape == (2, 3)


def test_fields_of_a_later_release_are_ignored():
    assert decode(a_frame(colour="green", key={**FRAME["key"], "laser": 3})).frame.info.sequence == 3


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", ".", "", "a:b", "x\0y", " x", "x.", "r" * (RUN_CHARACTERS + 1)])
def test_names_that_no_file_may_have(name):
    assert not fit_for_a_file(name)


@pytest.mark.parametrize("name", ["r", "2024-05-01 cells (3)", "r" * RUN_CHARACTERS, "Zellen äöü", "v1.2_final"])
def test_names_that_a_file_may_have(name):
    assert fit_for_a_file(name)


def test_the_documented_message_is_read():
    page = PROTOCOL.read_text(encoding="utf-8")
    header, size = re.search(r"```\n(\{.*?\})\n<(\d+) bytes>", page, re.DOTALL).groups()
    frame = decode([header.encode(), bytes(int(size))]).frame
    assert frame.pixels.shape == (2048, 2048) and frame.info.key.channel == "GFP" and frame.info.stage_um == (12.5, -3.0, None)


def test_every_kind_and_every_field_is_documented():
    page = PROTOCOL.read_text(encoding="utf-8")
    for kind in KINDS.values():
        row = re.search(rf"^\| `{kind.word}` \|.*", page, re.MULTILINE)
        assert row, kind.word
    said = set(re.findall(r"`(\w+)`", page)) | set(re.findall(r'"(\w+)":', page))
    for noun in (*KINDS, FrameInfo, VolumeKey):
        assert set(noun.__slots__) - {"frame"} <= said, noun


# --- pixels ------------------------------------------------------------------------------------------------------------


def sent(array):
    return encode(FrameSent(Frame(array, FrameInfo("r", 0, VolumeKey()))))


def test_contiguous_pixels_are_never_copied():
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    parts = sent(array)
    assert np.shares_memory(np.frombuffer(parts[1], np.uint16), array)
    received = bytearray(parts[1])
    read = decode([parts[0], received]).frame.pixels
    assert np.shares_memory(read, np.frombuffer(received, np.uint16))
    assert not read.flags.writeable


def test_read_only_pixels_can_be_sent():
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    array.flags.writeable = False
    assert np.array_equal(decode(sent(array)).frame.pixels, array)


def test_big_endian_pixels_are_swapped_once():
    array = np.arange(12, dtype=">u2").reshape(3, 4)
    read = decode(sent(array)).frame.pixels
    assert read.dtype == "<u2" and np.array_equal(read, array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.int32),
        np.zeros((2, 2), bool),
        np.zeros((2, 2, 2), np.uint16),
        np.zeros((0, 2), np.uint16),
        np.zeros((2, 2), object),
    ],
    ids=lambda array: f"{array.dtype} {array.ndim}d",
)
def test_pixels_that_the_wire_does_not_carry(array):
    with pytest.raises(ValueError, match=r"pixels is .*; the wire carries .u1 or <u2 with 2 axes of 1 to 65535"):
        sent(array)


def test_a_frame_larger_than_any_camera():
    with pytest.raises(ValueError, match="is too large for the wire; 1073741824 are the limit"):
        sent(np.broadcast_to(np.uint16(0), (40_000, 40_000)))


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (FrameInfo("r", 0, VolumeKey(time=-1)), "a frame of time -1, plane 0 of 0 cannot be sent; both count from 0"),
        (FrameInfo("r", 0, VolumeKey(), z=-3, planes=5), "plane -3 of 5 cannot be sent"),
        (FrameInfo("r", 0, VolumeKey(), z=70_000), "plane 70000 of 0 cannot be sent"),
        (FrameInfo("a/b", 0, VolumeKey()), "a frame of run 'a/b', .*; a run's name must be fit for a file"),
        (FrameInfo("r", 0, VolumeKey(position="p" * 300)), "cannot be sent; .*, labels have at most 256 characters"),
        (FrameInfo("r", 0, VolumeKey(channel="G\nFP")), "cannot be sent; .*, and none that cannot be printed"),
    ],
)
def test_a_frame_that_would_be_refused_is_not_sent(info, reason):
    """So that its sender can count it: a bad message has no receipt."""
    with pytest.raises(ValueError, match=reason):
        encode(FrameSent(Frame(np.zeros((2, 2), np.uint16), info)))


def test_a_claimed_size_allocates_nothing():
    parts = [
        json.dumps({**FRAME, "buffers": [{"name": "pixels", "dtype": "<u2", "shape": [65535, 65535]}]}).encode(),
        bytes(12),
    ]
    tracemalloc.start()
    try:
        for _ in range(10):
            with pytest.raises(BadMessage, match="12 came"):
                decode(parts)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# --- what cannot be said -------------------------------------------------------------------------------------------------


def test_a_header_that_nobody_would_read():
    with pytest.raises(ValueError, match=r"the header of this command has .* bytes; 65536 are the limit: say less"):
        encode(Command("swap", {"package": "x" * 100_000}))


def test_what_is_no_message():
    with pytest.raises(TypeError, match="VolumeKey is no message; the wire carries Hello, Begin"):
        encode(VolumeKey())


def test_what_json_has_no_word_for():
    with pytest.raises(TypeError, match="a message cannot carry a complex; give numbers"):
        encode(Answer({"x": 1j}))


@pytest.mark.parametrize("round_about", [1, 1.5, float("nan")])
def test_a_mapping_that_holds_itself(round_about):
    said = {"x": round_about}
    said["y"] = said
    with pytest.raises(TypeError, match=f"a message cannot carry mappings more than {DEEPEST} deep"):
        encode(Answer(said))


def test_numbers_of_numpy_and_paths_become_plain_ones_and_what_is_not_finite_null():
    said = {
        "f4": np.float32(1.5),
        "i8": np.int64(7),
        "array": np.array([1.0, np.nan]),
        "nan": float("nan"),
        "f4 nan": np.float32("nan"),
        "tuple": (1, float("inf")),
        "path": Path("a"),
        "set": {2, 1},
    }
    heard = {
        "f4": 1.5,
        "i8": 7,
        "array": [1.0, None],
        "nan": None,
        "f4 nan": None,
        "tuple": [1, None],
        "path": "a",
        "set": [1, 2],
    }
    assert decode(encode(Answer(said))).said == heard


def test_stages_that_were_not_measured_are_left_out():
    message = RestoredSent("r", VolumeKey(), np.zeros((1, 1, 1), np.float32), 0, stages_ms={"wire": 1.0, "trust": float("nan")})
    assert decode(encode(message)).stages_ms == {"wire": 1.0}


@pytest.mark.skipif(os.name != "posix", reason="file names that are no text are POSIX'")
def test_a_path_that_is_no_text_is_still_said():
    assert decode(encode(Begin("r", os.fsdecode(b"/a\xff")))).raw == "/a?"


def test_the_wire_loads_nothing_heavy():
    heavy = ("scipy", "pydantic", "torch", "onnx", "asyncio", "psutil", "live_restore.engines", "live_restore.records")
    script = f"import sys, live_restore.wire.sockets; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
