"""Clients of the restore process for tests: a hook without a microscope, and waiting for something to come true."""

import time

import numpy as np

from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.models.registry import bundled_folder
from live_restore.server import ModelChoice, ServeOptions
from live_restore.wire.messages import Beat, Begin, Command, End, FrameSent, Hello, Receipt, RestoredSent, Welcome
from live_restore.wire.sockets import Caller

PACKAGE = bundled_folder() / "care2d_demo"


def options(tmp_path, channel="*", engine="identity", package=PACKAGE, **changes):
    models = (ModelChoice(channel, package, engine, "f32"),)
    # every volume is checked, however quickly a test sends them
    usual = {"address": "tcp://127.0.0.1:0", "models": models, "records": tmp_path / "records", "trust": "every"}
    return ServeOptions(**{**usual, **changes})


def until(true, seconds=20.0):
    """Wait for a condition; gives what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"it did not come true within {seconds} s")


def image(seed=0, shape=(32, 40), mean=200):
    return np.random.default_rng(seed).poisson(mean, shape).astype(np.uint16)


class BareHook:
    """Sends frames as the hook does, and keeps what comes back."""

    def __init__(self, address, run="run", raw=None, plan=None, results="none", keys=None):
        self.run, self.sequence = run, 0
        self.restored, self.receipts, self.beats, self.welcomes = [], [], [], []
        self.caller = Caller(address, keys)
        self.welcome = self.caller.ask(Hello("hook", "test"), 10)
        self.begin(raw, plan, results)

    def begin(self, raw=None, plan=None, results="none"):
        assert self.caller.send(Begin(self.run, None if raw is None else str(raw), plan or {}, results))

    def frame(self, pixels, z=0, time_point=0, planes=1, *, channel="GFP", position="0", light="low", **said):
        key = VolumeKey(time_point, position, channel, light)
        now = {"captured_ns": time.perf_counter_ns(), "unix_ns": time.time_ns()}
        info = FrameInfo(self.run, self.sequence, key, z, planes, **{**now, "exposure_ms": 10.0, "pixel_size_um": 0.1, **said})
        self.sequence += 1
        self.say(FrameSent(Frame(pixels, info)))
        return info

    def volume(self, pixels, time_point=0, **said):
        for z, plane in enumerate(pixels):
            self.frame(plane, z, time_point, len(pixels), **said)

    def say(self, message):
        until(lambda: self.caller.send(message) or self.hear())

    def end(self, **ledger):
        self.say(End(self.run, ledger))

    def hear(self, timeout_ms=10):
        kinds = {RestoredSent: self.restored, Receipt: self.receipts, Beat: self.beats, Welcome: self.welcomes}
        for message in self.caller.receive(timeout_ms):
            kinds[type(message)].append(message)

    def receipted(self, number):
        def enough():
            self.hear()
            return sum(len(receipt.sequences) for receipt in self.receipts) >= number

        until(enough)
        return self.receipts

    def back(self, number):
        until(lambda: self.hear() or len(self.restored) >= number)
        return self.restored

    def close(self):
        self.caller.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def order(address, name, timeout_s=30, **said):
    with Caller(address) as caller:
        return caller.ask(Command(name, said), timeout_s)


def status(address, run=None):
    said = order(address, "status").said
    return said if run is None else next(each for each in said["runs"] if each["run"] == run)


def settled(address, run="run", **columns):
    """Wait until the run's table says this; gives the run's status."""

    def there():
        now = status(address, run)
        return now if all(now["ledger"][name] == n for name, n in columns.items()) else None

    return until(there)
