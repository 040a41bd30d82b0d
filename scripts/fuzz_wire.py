"""Fuzz the wire: whatever bytes arrive, a message or `BadMessage` comes out, in bounded memory.

Uses atheris (coverage-guided) where it is installed, and otherwise mutates real messages at random, without coverage.

    python scripts/fuzz_wire.py --seconds 60
    python scripts/fuzz_wire.py --seconds 60 --no-atheris --seed 7
"""

import argparse
import json
import random
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from live_restore.errors import BadMessage
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.wire.messages import (
    KINDS,
    LONGEST_FROM_CLIENTS,
    Abandon,
    Answer,
    Ask,
    Beat,
    Begin,
    Command,
    End,
    FrameSent,
    Hello,
    Message,
    Receipt,
    RestoredSent,
    View,
    Welcome,
    decode,
    encode,
)

# What decoding may allocate, per byte that really arrived, and besides: JSON's smallest list takes 3 bytes there and 56 here.
BYTES_PER_BYTE = 64
BYTES_BESIDES = 2**18

KEY = VolumeKey(3, "A1-site 2", "GFP")
SEEDS: tuple[Message, ...] = (
    Hello("hook", "live_restore 1"),
    Begin("run_1", "raw/run_1", {"times": 3, "channels": ["GFP"], "planes": 5, "z_step_um": 0.3}, "uint16"),
    FrameSent(
        Frame(np.ones((4, 5), np.uint16), FrameInfo("run_1", 7, KEY, 2, 5, 10**15, 10**18, 10.0, 10.0, 0.1, (1.0, 2.0, None)))
    ),
    Abandon("run_1", KEY),
    End("run_1", {"taken": 5}),
    Beat("run_1", {"taken": 5, "waiting": 1}, 4),
    Ask(3, "0", "GFP", 2, True, 500),
    Command("swap", {"channel": "*", "package": "model"}),
    Welcome("session", "live_restore 1", 4),
    Receipt("run_1", (1, 2, 3), 4, "no model"),
    RestoredSent("run_1", KEY, np.ones((2, 3, 4), np.float32), 10**15, {"snr": 3.1}, {"model": "x"}, {"wire": 0.5}),
    View(
        1, "run_1", KEY, 2, 5, 0, np.ones((3, 4), np.uint8), np.ones((3, 4), np.float32), np.ones((3, 4), np.int8), {"a": [1]}
    ),
    Answer({"pid": 1, "runs": []}),
)
WORDS = (
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b"[]",
    b"{}",
    b"[" * 2000,
    b'"\\ud800"',
    b"9" * 5000,
    b'"|O"',
    b'">f8"',
    b"65535",
    b"true",
)


def joined(parts: list[bytes]) -> bytes:
    """Put parts into one string, for fuzzers that know only one: the length of each before it."""
    return b"".join(len(part).to_bytes(3, "big") + part for part in parts)


def cut(text: bytes) -> list[bytes]:
    """Take them out again, whatever the lengths say."""
    parts = []
    while len(text) >= 3 and len(parts) < 8:
        length = int.from_bytes(text[:3], "big")
        parts.append(text[3 : 3 + length])
        text = text[3 + length :]
    return parts


def try_one(parts: list[bytes]) -> bool:
    """Decode; gives whether it was a message. Any exception but `BadMessage` goes through."""
    try:
        message = decode(parts, LONGEST_FROM_CLIENTS)
    except BadMessage:
        return False
    assert type(message) in KINDS
    encode(message)  # what was accepted can be said again
    return True


def mutated(rng: random.Random) -> list[bytes]:
    """Damage a real message: bytes, words, parts, whole fields."""
    parts = [bytearray(part) for part in encode(rng.choice(SEEDS))]
    if rng.random() < 0.4:
        parts[0] = bytearray(with_other_fields(rng, bytes(parts[0])))
    for _ in range(rng.randrange(4)):
        part = rng.choice(parts) if parts else bytearray()
        place = rng.randrange(len(part) + 1)
        match rng.randrange(5):
            case 0:
                part[place : place + 1] = rng.randbytes(1)
            case 1:
                part[place:place] = rng.choice(WORDS)
            case 2:
                del part[place : place + rng.randrange(1, 20)]
            case 3:
                part += rng.randbytes(rng.randrange(64))
            case _:
                parts = parts[: rng.randrange(len(parts) + 1)] + [bytearray(rng.randbytes(rng.randrange(8)))] * rng.randrange(3)
    return [bytes(part) for part in parts]


def with_other_fields(rng: random.Random, header: bytes) -> bytes:
    """Put some other value into one field, sometimes that of another message."""
    fields = json.loads(header)
    other = json.loads(bytes(encode(rng.choice(SEEDS))[0]))
    values = [None, True, -1, 2**63, 10**300, 1.5, "", "x" * 300, "..", [], {}, [[]], {"a": {}}, *other.values()]
    fields[rng.choice([*fields, *other])] = rng.choice(values)
    return json.dumps(fields).encode()


def mutate_for(seconds: float, seed: int) -> None:
    """Fuzz without coverage, and watch what is allocated every now and then."""
    rng, end, tried, read = random.Random(seed), time.monotonic() + seconds, 0, 0
    for message in SEEDS:
        assert try_one([bytes(part) for part in encode(message)])
    while time.monotonic() < end:
        parts = mutated(rng)
        measured = tried % 50 == 0
        if measured:
            tracemalloc.start()
        try:
            read += try_one(parts)
        except Exception:
            print(f"seed {seed}, message {tried}: {parts!r}", file=sys.stderr)
            raise
        if measured:
            peak, limit = tracemalloc.get_traced_memory()[1], BYTES_BESIDES + BYTES_PER_BYTE * sum(map(len, parts))
            tracemalloc.stop()
            assert peak < limit, f"{peak} bytes were allocated for {sum(map(len, parts))}: {parts!r}"
        tried += 1
    print(f"{tried} messages, seed {seed}: {read} read, {tried - read} refused, no other exception, memory bounded")


def guided_for(seconds: float) -> None:
    """Fuzz with coverage; ends the process."""
    import atheris

    atheris.instrument_all()

    def guided_one(text: bytes) -> None:
        try_one(cut(text))

    corpus = Path(tempfile.mkdtemp(prefix="fuzz_wire_"))
    for message in SEEDS:
        (corpus / message.__class__.__name__).write_bytes(joined([bytes(part) for part in encode(message)]))
    limits = [f"-max_total_time={max(1, int(seconds))}", "-max_len=4096", "-rss_limit_mb=1024", str(corpus)]
    atheris.Setup([sys.argv[0], *limits], guided_one)
    atheris.Fuzz()


def main() -> None:
    """Read the options and fuzz."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seconds", type=float, default=30)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--no-atheris", action="store_true", help="mutate at random even where atheris is installed")
    asked = options.parse_args()
    try:
        import atheris  # noqa: F401
    except ImportError:
        asked.no_atheris = True
    if asked.no_atheris:
        mutate_for(asked.seconds, asked.seed)
    else:
        guided_for(asked.seconds)


if __name__ == "__main__":
    main()
