"""A restore process of a few lines, for tests of the other end of the wire: it takes frames, receipts them, and sends
volumes back as they are. It runs in a thread of the test, or as a process of its own: ``python restore_peer.py PORT``.
"""

import sys
import threading
import time
import uuid
from dataclasses import dataclass, field

import numpy as np

from live_restore.wire.messages import (
    Abandon,
    Answer,
    Beat,
    Begin,
    Command,
    End,
    FrameSent,
    Hello,
    Receipt,
    RestoredSent,
    Welcome,
)
from live_restore.wire.sockets import Listener


@dataclass
class Peer:
    """`credit` volumes are taken; `mute` says nothing at all; `receipts` False keeps frames without a receipt."""

    address: str = "tcp://127.0.0.1:0"
    credit: int = 1000
    mute: bool = False
    receipts: bool = True
    refuse: str = ""
    answers: bool = True
    keep: bool = True
    begins: list = field(default_factory=list)
    frames: list = field(default_factory=list)
    abandoned: list = field(default_factory=list)
    ends: list = field(default_factory=list)
    beats: list = field(default_factory=list)

    def __post_init__(self):
        self.session = uuid.uuid4().hex
        self.listener = Listener(self.address)
        self.address = self.listener.address
        self.clients = set()
        self._results = {}
        self._stacks = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        beat_s = 0.0
        while not self._stop.is_set():
            for client, message in self.listener.receive(20):
                self._hear(client, message)
            if time.monotonic() - beat_s > 0.5 and not self.mute:
                beat_s = time.monotonic()
                for client in list(self.clients):
                    if not self.listener.send(client, Beat(credit=self.credit)):
                        self.clients.discard(client)
        self.listener.close()

    def _hear(self, client, message):
        match message:
            case Hello():
                if not self.mute:
                    self.clients.add(client)
                    self.listener.send(client, Welcome(self.session, "peer", self.credit))
            case Begin():
                self.begins.append(message)
                self._results[message.run] = message.results
            case FrameSent(frame):
                if self.keep:
                    self.frames.append(frame)
                if self.receipts and not self.mute:
                    self.listener.send(client, Receipt(frame.info.run, (frame.info.sequence,), self.credit, self.refuse))
                    self._restore(client, frame)
            case Abandon():
                self.abandoned.append(message)
            case End():
                self.ends.append(message)
            case Beat():
                self.beats.append(message)
            case Command("status"):
                if self.answers and not self.mute:
                    runs = [{"run": run, "ledger": {"waiting": 0}} for run in self._results]
                    self.listener.send(client, Answer({"runs": runs}))

    def _restore(self, client, frame):
        stack = self._stacks.setdefault((frame.info.run, frame.info.key), [])
        stack.append(frame)
        results = self._results.get(frame.info.run, "none")
        if len(stack) == frame.info.planes and results != "none":
            pixels = np.stack([f.pixels for f in sorted(stack, key=lambda f: f.info.z)]).astype(results)
            last = max(f.info.captured_ns for f in stack)
            self.listener.send(client, RestoredSent(frame.info.run, frame.info.key, pixels, last, {"trusted": True}))
        if len(stack) == frame.info.planes:
            del self._stacks[frame.info.run, frame.info.key]

    def close(self):
        self._stop.set()
        self._thread.join(5)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def until(condition, timeout_s=10.0, what=""):
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.005)


if __name__ == "__main__":
    with Peer(f"tcp://127.0.0.1:{sys.argv[1]}", keep=False) as peer:
        print("ready", peer.address, flush=True)
        while True:
            time.sleep(1)
