"""What the wire costs: frames from one process to another and their receipts back, plain and encrypted in turn.

As a module receives a folder and hands on figures; as a program it is the other end, which receipts every frame. It knows
the wire and nothing of restoration.
"""

import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.bench.children import Measurement
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.wire.messages import Beat, FrameSent, Hello, Receipt, Welcome
from live_restore.wire.security import ClientKeys, ServerKeys, make_keys
from live_restore.wire.sockets import Caller, Listener

_SIDES = (512, 2048)
# As many frames are let be on their way as a restore process with a few waiting volumes lets: enough to hide the round trip.
_UNDER_WAY = 4
_SILENCE_S = 10
_TURN_S = 1.0


class _Peer:
    """The caller of a listener in another process."""

    def __init__(self, address: str, keys: ClientKeys | None) -> None:
        self.caller = Caller(address, keys)
        self.caller.ask(Hello("hook"), _SILENCE_S)
        self._numbers = itertools.count()

    def close(self) -> None:
        """Tell the other end that this is all."""
        self.caller.send(Beat())
        self.caller.receive(100)
        self.caller.close()

    def round_trips_ms(self, pixels: NDArray[np.uint16]) -> list[float]:
        """Send one frame at a time; from the call of send to the receipt."""
        taken, end = [], time.monotonic() + _TURN_S
        while time.monotonic() < end:
            begun = time.perf_counter()
            self._say(pixels)
            while not self._receipts():
                pass
            taken.append((time.perf_counter() - begun) * 1000)
        return taken

    def frames_per_s(self, pixels: NDArray[np.uint16]) -> float:
        """Send as fast as it goes, with a few frames under way."""
        done = under_way = 0
        begun = now = time.perf_counter()
        while now - begun < _TURN_S:
            while under_way < _UNDER_WAY:
                self._say(pixels)
                under_way += 1
            arrived = self._receipts()
            done, under_way, now = done + arrived, under_way - arrived, time.perf_counter()
        while under_way:
            under_way -= self._receipts()
        return done / (now - begun)

    def _say(self, pixels: NDArray[np.uint16]) -> None:
        info = FrameInfo("bench", next(self._numbers), VolumeKey(), captured_ns=time.perf_counter_ns())
        while not self.caller.send(FrameSent(Frame(pixels, info))):
            self.caller.receive(1000)

    def _receipts(self) -> int:
        heard = self.caller.receive(_SILENCE_S * 1000)
        return sum(len(message.sequences) for message in heard if isinstance(message, Receipt))


def compare(folder: Path, turns: int) -> list[dict[str, Any]]:
    """Measure both wires in turn.

    Parameters
    ----------
    folder : Path
        Where the keys are made.
    turns : int

    Returns
    -------
    list of dict
        ``case``, ``frames_per_s``, ``mb_per_s``, ``round_trip_ms``; medians.
    """
    make_keys(folder / "keys")
    rng = np.random.default_rng(1)
    trips: dict[tuple[int, str], list[float]] = defaultdict(list)
    rates: dict[tuple[int, str], list[float]] = defaultdict(list)
    with _peer("") as plain, _peer(str(folder / "keys")) as encrypted:
        for side, _ in itertools.product(_SIDES, range(turns)):
            pixels = rng.poisson(100, (side, side)).astype(np.uint16)
            for name, peer in (("plain", plain), ("encrypted (CURVE)", encrypted)):
                trips[side, name] += peer.round_trips_ms(pixels)
                rates[side, name].append(peer.frames_per_s(pixels))
    return [
        {
            "case": f"{side}x{side}, {name}",
            "frames_per_s": median(found),
            "mb_per_s": median(found) * side * side * 2 / 1e6,
            "round_trip_ms": median(trips[side, name]),
        }
        for (side, name), found in rates.items()
    ]


@contextmanager
def _peer(keys: str) -> Iterator[_Peer]:
    other = Measurement("throughput", {"keys": keys})
    address = other.await_begin(30.0).strip()
    peer = _Peer(address, ClientKeys.read(Path(keys)) if keys else None)
    try:
        yield peer
    finally:
        peer.close()
        other.process.kill()


def _receipt_all(keys: str) -> None:
    """Receipt every frame, until nobody has said anything for a while."""
    with Listener("tcp://127.0.0.1:0", ServerKeys.read(Path(keys)) if keys else None) as listener:
        print("began", listener.address, flush=True)
        while heard := listener.receive(_SILENCE_S * 6000):
            for client, message in heard:
                if isinstance(message, FrameSent):
                    listener.send(client, Receipt("bench", (message.frame.info.sequence,), 1))
                elif isinstance(message, Hello):
                    listener.send(client, Welcome("bench"))
                elif isinstance(message, Beat):
                    return


if __name__ == "__main__":
    _receipt_all(json.loads(sys.argv[1])["keys"])
