"""What the wire costs: frames from one process to another and their receipts back, plain and encrypted side by side.

    python scripts/bench_wire.py --rounds 5 --seconds 2

Rounds of plain and CURVE alternate, so that whatever else the machine does meets both. Prints a markdown table.
"""

import argparse
import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import zmq

from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.wire.messages import Beat, FrameSent, Hello, Receipt, Welcome
from live_restore.wire.security import ClientKeys, ServerKeys, make_keys
from live_restore.wire.sockets import Caller, Listener

SIDES = (512, 2048)
# As many frames are let be on their way as a restore process with a few waiting volumes lets: enough to hide the round trip.
UNDER_WAY = 4
SILENCE_S = 10


def serve(folder: str) -> None:
    """Receipt every frame, until nobody has said anything for a while."""
    with Listener("tcp://127.0.0.1:0", ServerKeys.read(Path(folder)) if folder else None) as listener:
        print(listener.address, flush=True)
        while heard := listener.receive(SILENCE_S * 1000):
            for client, message in heard:
                if isinstance(message, FrameSent):
                    listener.send(client, Receipt("bench", (message.frame.info.sequence,), 1))
                elif isinstance(message, Hello):
                    listener.send(client, Welcome("bench"))
                elif isinstance(message, Beat):
                    return


class Peer:
    """A listener in a process of its own, and the caller that talks to it."""

    def __init__(self, keys: str) -> None:
        command = [sys.executable, __file__, "--serve", keys]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        address = self.process.stdout.readline().strip()  # type: ignore[union-attr]
        self.caller = Caller(address, ClientKeys.read(Path(keys)) if keys else None)
        self.caller.ask(Hello("hook"), SILENCE_S)
        self.sequence = itertools.count()

    def close(self) -> None:
        """End the process by a beat."""
        self.caller.send(Beat())
        self.caller.close()
        self.process.wait(2 * SILENCE_S)

    def say(self, pixels: np.ndarray) -> None:
        """Send one frame, waiting for room."""
        message = FrameSent(
            Frame(pixels, FrameInfo("bench", next(self.sequence), VolumeKey(), captured_ns=time.perf_counter_ns()))
        )
        while not self.caller.send(message):
            self.caller.receive(1000)

    def receipts(self) -> int:
        """Wait for receipts; gives how many frames they are for."""
        return sum(len(message.sequences) for message in self.caller.receive(SILENCE_S * 1000) if isinstance(message, Receipt))

    def round_trips_ms(self, pixels: np.ndarray, seconds: float) -> list[float]:
        """Send one frame at a time; from the call of send to the receipt."""
        taken, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.perf_counter()
            self.say(pixels)
            while not self.receipts():
                pass
            taken.append((time.perf_counter() - begun) * 1000)
        return taken

    def frames_per_s(self, pixels: np.ndarray, seconds: float) -> float:
        """Send as fast as it goes, with a few frames under way."""
        done = under_way = 0
        begun = time.perf_counter()
        while (now := time.perf_counter()) - begun < seconds:
            while under_way < UNDER_WAY:
                self.say(pixels)
                under_way += 1
            arrived = self.receipts()
            done, under_way = done + arrived, under_way - arrived
        while under_way:
            under_way -= self.receipts()
        return done / (now - begun)


def measure(rounds: int, seconds: float) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        make_keys(Path(folder))
        peers = {"plain": Peer(""), "CURVE": Peer(folder)}
        trips, rates = defaultdict(list), defaultdict(list)
        rng = np.random.default_rng(1)
        for side in SIDES:
            pixels = rng.poisson(100, (side, side)).astype(np.uint16)
            for peer in peers.values():
                peer.round_trips_ms(pixels, 0.2)
            for _ in range(rounds):
                for name, peer in peers.items():
                    trips[side, name] += peer.round_trips_ms(pixels, seconds / 2)
                    rates[side, name].append(peer.frames_per_s(pixels, seconds / 2))
        for peer in peers.values():
            peer.close()
    print(f"{conditions()}; {rounds} alternating rounds of {seconds:g} s\n")
    print("| frame | wire | frames/s | MB/s | round trip p50 | p95 | p99 |\n|---|---|---|---|---|---|---|")
    for side, name in itertools.product(SIDES, peers):
        rate, trip_ms = np.median(rates[side, name]), np.percentile(trips[side, name], (50, 95, 99))
        speeds = f"{rate:.0f} | {rate * side * side * 2 / 1e6:.0f}"
        print(f"| {side}² uint16 | {name} | {speeds} | {' | '.join(f'{taken:.2f} ms' for taken in trip_ms)} |")


def conditions() -> str:
    """Say what was measured on."""
    return (
        f"{os.cpu_count()} CPU cores (load {psutil.getloadavg()[0]:.1f}), {platform.system()}, "
        f"Python {platform.python_version()}, "
        f"pyzmq {zmq.pyzmq_version()}, libzmq {zmq.zmq_version()}, tcp loopback, two processes, {UNDER_WAY} frames under way"
    )


def main() -> None:
    """Read the options and measure."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2.0, help="per round and wire")
    options.add_argument("--serve", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
    else:
        measure(asked.rounds, asked.seconds)


if __name__ == "__main__":
    main()
