"""A small restore process for the preview's tests: rendered cells on a real socket, moving through time.

It can be slow, silent, killed and started anew, far ahead of its viewers, untrusted, or without a restoration. By hand:
``python tests/preview_server.py --port 5757 --size 512 --network``.
"""

import argparse
import os
import time
import uuid
from dataclasses import dataclass, field, replace
from threading import Event, Thread

import numpy as np
from scipy.ndimage import gaussian_filter

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.frames import VolumeKey
from live_restore.ledger import HOOK_COLUMNS, RESTORE_COLUMNS
from live_restore.wire.messages import Answer, Ask, Command, Hello, View, Welcome
from live_restore.wire.sockets import Listener

CHANNELS = {"GFP": "mitochondria", "DAPI": "nuclei"}
PIXEL_SIZE_UM = 0.1
GAIN_ADU_PER_E, READ_NOISE_E, OFFSET_ADU = 2.18, 1.2, 97


@dataclass
class Stack:
    """One volume: raw (Z, Y, X) uint16, restored float32, trust int8."""

    raw: np.ndarray
    restored: np.ndarray
    trust: np.ndarray
    projected: tuple = ()

    def images(self, z):
        if z >= 0:
            return self.raw[z], self.restored[z], self.trust[z]
        if not self.projected:
            strongest = np.abs(self.trust.astype(np.int16)).argmax(axis=0)[None]  # (1, Y, X)
            trust = np.take_along_axis(self.trust, strongest, axis=0)[0]
            self.projected = self.raw.max(axis=0), self.restored.max(axis=0), trust
        return self.projected


def smoothed(raw):
    """What stands for a network in the tests."""
    return gaussian_filter(raw.astype(np.float32), (0.6, 1.2, 1.2))


def cells(size=128, planes=6, times=4, channels=CHANNELS, restore=smoothed, peak_photons=20.0, seed=1):
    """Render a movie of drifting cells: one list of stacks per channel. A spot is planted into and one erased from restored."""
    movie = {}
    camera = build_camera(seed, (size, size))
    for channel, kind in channels.items():
        photons = example_field(seed, (planes, size, size), kind, PIXEL_SIZE_UM, peak_photons)
        movie[channel] = [_stack(np.roll(photons, 2 * t, axis=2), camera, restore, t) for t in range(times)]
    return movie


def _stack(photons, camera, restore, seed):
    raw = camera.expose(photons, np.random.default_rng(seed))
    restored = np.ascontiguousarray(restore(raw), np.float32)
    size = raw.shape[-1]
    y, x = np.ogrid[:size, :size]
    spot = 60 * np.exp(-((y - size // 4) ** 2 + (x - size // 4) ** 2) / (2 * (size / 80) ** 2))
    middle = len(raw) // 2
    restored[middle] += spot
    restored[middle] -= np.roll(spot, size // 2, axis=(0, 1))
    return Stack(raw, restored, z_map(raw, restored))


def z_map(raw, restored):
    """Ten times the z-score of raw - restored in windows of 2 px."""
    residual = (raw - restored) / GAIN_ADU_PER_E
    variance = np.maximum(restored - OFFSET_ADU, 0) / GAIN_ADU_PER_E + READ_NOISE_E**2
    summed = gaussian_filter(residual, (0, 2, 2))
    noise = np.sqrt(gaussian_filter(variance, (0, 2, 2)) / (4 * np.pi * 2**2))
    return np.clip(np.rint(10 * summed / noise), -127, 127).astype(np.int8)


@dataclass
class Mood:
    """How it behaves; tests change it while it runs."""

    every_s: float = 0.15
    delay_s: float = 0.0
    paused: bool = False
    slab: int = 0
    trusted: bool = True
    why: str = "the network removed or invented structure on 3.1 % of the image, most at y=128, x=128"
    doubts: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    places: list = field(default_factory=list)
    restores: bool = True
    warnings: list = field(default_factory=list)
    references: list = field(default_factory=list)  # `unix_s` from the start of the process
    model_state: str = "ready"
    why_failed: str = ""
    limits: dict = field(default_factory=dict)
    certified: dict = field(default_factory=dict)
    unchecked: bool = False  # every other volume goes unchecked


class StandIn:
    """The restore process; `stop` is a kill: it says no goodbye."""

    def __init__(self, movie, address="tcp://127.0.0.1:0", mood=None):
        self.movie, self.address, self.mood = movie, address, mood or Mood()
        self.number, self.time = 0, 0
        self.shown = {}  # channel: (number, time)
        self.answered = 0
        self.asks = []
        self.frozen = False  # its newest view stays the first one, while the run's history goes on
        self._thread = None

    def start(self):
        """Open the socket and serve; a second start is another session that begins at 1."""
        self._listener = Listener(self.address)
        self.address = self._listener.address
        self.session = uuid.uuid4().hex
        self.number, self.shown, self._timeline, self._pending, self._last = 0, {}, [], [], {}
        self._stopped = Event()
        self._started_s = time.time()
        self._thread = Thread(target=self._main, daemon=True)
        self._thread.start()
        return self

    def stop(self):
        if self._thread:
            self._stopped.set()
            self._listener.wake()
            self._thread.join(10)
            self._thread = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.stop()

    def _main(self):
        due_s = 0.0
        try:
            while not self._stopped.is_set():
                if time.monotonic() >= due_s and not self.mood.paused:
                    due_s = time.monotonic() + self.mood.every_s
                    self._advance()
                for client, message in self._listener.receive(10):
                    self._hear(client, message)
                self._answer()
        finally:
            self._listener.close()

    def _advance(self):
        self.time += 1
        for channel in self.movie:
            self.number += 1
            if not (self.frozen and channel in self.shown):
                self.shown[channel] = (self.number, self.time)
            entry = {
                "time": self.time,
                "position": "0",
                "channel": channel,
                "unix_s": self._started_s + self.time * self.mood.every_s,
            }
            entry |= self.figures(channel, self.time)
            self._timeline = [*self._timeline, entry][-300:]

    def _hear(self, client, message):
        if isinstance(message, Hello):
            self._listener.send(client, Welcome(self.session, "stand-in", 4))
        elif isinstance(message, Command):
            self._listener.send(client, Answer(self.status()))
        elif isinstance(message, Ask):
            wish = (message.position, message.channel, message.z, message.trust)
            fresh = self._last.get(client) != wish
            self._last[client] = wish
            self.asks.append(message)
            now = time.monotonic()
            self._pending.append((client, message, fresh, now + self.mood.delay_s, now + message.wait_ms / 1000))

    def _answer(self):
        now, waiting = time.monotonic(), []
        for entry in self._pending:
            client, ask, fresh, not_before, until = entry
            view = self._view(ask, fresh) if now >= not_before else None
            if view is None and now >= max(until, not_before):
                view = View(0)
            if view is None:
                waiting.append(entry)
            else:
                self.answered += 1
                self._listener.send(client, replace(view, status=self.status()))
        self._pending = waiting

    def _view(self, ask, fresh):
        channels = [ask.channel] if ask.channel else sorted(self.shown, key=self.shown.get)
        if not channels or channels[-1] not in self.shown or ask.position not in ("", "0"):
            return None
        channel = channels[-1]
        number, at = self.shown[channel]
        if not fresh and number <= ask.after:
            return None
        stack = self.movie[channel][at % len(self.movie[channel])]
        raw, restored, trust = stack.images(min(ask.z, len(stack.raw) - 1))
        mood = self.mood
        return View(
            number,
            "cells_1",
            VolumeKey(at, "0", channel),
            ask.z,
            len(stack.raw),
            mood.slab,
            raw,
            restored if mood.restores else None,
            trust if ask.trust and mood.restores and not (mood.unchecked and at % 2) else None,
            said=self._said(channel, at),
        )

    def figures(self, channel, at):
        """SNR, share raised and latency of one volume: other ones for each."""
        return {
            "snr": round(3 + (at % 97) / 100 + (channel == "GFP"), 2),
            "raised": round(2e-4 + 1e-6 * (at % 89), 7),
            "latency_ms": 1000.0 + at % 211,
        }

    def _said(self, channel, at):
        own = self.figures(channel, at)
        trust = {
            "trusted": self.mood.trusted,
            "why": "" if self.mood.trusted else self.mood.why,
            "snr": own["snr"],
            "raised": own["raised"] if self.mood.trusted else 0.031,
            "sd_z": {"1": 1.02, "2": 1.03, "4": 1.05, "8": 1.1},
            "smallest_e": {"1": 9.1, "2": 4.6, "4": 2.4, "8": 1.3},
            "threshold": 4.2,
            "noise": "configuration",
            "doubts": self.mood.doubts,
            "notes": self.mood.notes,
            "places": self.mood.places,
        }
        if self.mood.unchecked and at % 2:
            return {**self._plain_said(own), "trust": {}, "checked": {"time": at - 1, "trust": trust}}
        return {"trust": trust, **self._plain_said(own)}

    def _plain_said(self, own):
        return {"provenance": {}, "stages_ms": {"restore": 21.0}, "latency_ms": own["latency_ms"]}

    def status(self):
        taken = 6 * self.number
        mood = self.mood
        model = {"sha256": "9f2c61d05be8a4", "engine": "openvino 2026.4.1, f32, on AMD EPYC", "precision": "f32"}
        models = [
            {"channel": c, "model": f"care3d_{kind}", **model, "normalisation": "frozen", "state": mood.model_state,
             "why": mood.why_failed, "limits": mood.limits, **mood.certified}
            for c, kind in CHANNELS.items()
        ]  # fmt: skip
        latency = {"wire": 0.4, "assemble": 0.2, "queue": 1.1, "restore": 21.4, "trust": 1.9, "write": 5.2, "total": 31.0}
        run = {
            "run": "cells_1",
            "raw": "/data/2025-11-21/cells_1",
            "folder": "/data/2025-11-21/cells_1_restored",
            "state": "running",
            "plan": {"channels": list(self.movie), "positions": ["0"], "planes": 6, "pixel_size_um": PIXEL_SIZE_UM},
            "hook": {"taken": taken, "waiting": 0, **dict.fromkeys(HOOK_COLUMNS, 0), "receipted": taken},
            "ledger": {"taken": taken, "waiting": 6, **dict.fromkeys(RESTORE_COLUMNS, 0), "restored": taken - 6},
            "volumes": {"restored": self.number, "skipped": 0, **({"unchecked": self.number // 2} if mood.unchecked else {})},
            "frames_per_s": 6 * len(self.movie) / mood.every_s,
            "volumes_per_s": len(self.movie) / mood.every_s,
            "bytes_free": 412e9,
            "latency_ms": {stage: {"p50": ms, "p95": 1.3 * ms, "p99": 1.9 * ms} for stage, ms in latency.items()},
            "timeline": self._timeline,
            "references": [{**entry, "unix_s": self._started_s + entry["unix_s"]} for entry in mood.references],
            "exposure_ms": {c: {"frames": taken, "low_ms": taken * 2.0, "reference_ms": taken * 100.0} for c in self.movie},
            "warnings": mood.warnings,
        }
        server = {"session": self.session, "software": "live_restore 0.2", "pid": os.getpid(), "address": self.address}
        server |= {"uptime_s": time.time() - self._started_s, "state": "serving"}
        return {"server": server, "models": models, "runs": [run] if self.number else [], "bad_messages": 0}


def network():
    """Restore with the bundled network, plane by plane."""
    from live_restore.models.package import open_package
    from live_restore.models.registry import bundled_folder
    from live_restore.restorer import Restorer

    restorer = Restorer(open_package(bundled_folder() / "care2d_demo"), precision="f32")
    return lambda raw: restorer.restore(raw[None]).pixels[0]


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=5757)
    options.add_argument("--size", type=int, default=512)
    options.add_argument("--planes", type=int, default=6)
    options.add_argument("--network", action="store_true")
    chosen = options.parse_args()
    restore = network() if chosen.network else smoothed
    movie = cells(chosen.size, chosen.planes, times=3, restore=restore)
    with StandIn(movie, f"tcp://127.0.0.1:{chosen.port}", Mood(every_s=0.5)) as server:
        print(f"listening at {server.address}", flush=True)
        Event().wait()
