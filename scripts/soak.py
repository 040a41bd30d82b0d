"""Does memory stay flat? An hour's worth of frames through hook, restore process and preview, watched by a viewer that sleeps.

    python scripts/soak.py --minutes 10

Sends stacks twenty-five times as fast as a usual time-lapse, so that ten minutes hold four hours of it; one
viewer asks and never listens, another one opens the page and never paints. Prints the memory of every process, and fails if
one of them grows by more than a twentieth (and 10 MB) after the first fifth.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from websockets.sync.client import connect

from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.launch import start_restore_process, start_viewer, stop_restore_process
from live_restore.wire.messages import Ask, Hello
from live_restore.wire.sockets import Caller

SHAPE = (6, 256, 256)
# A usual time-lapse: a stack every ten seconds in each of two channels.
AN_HOUR = 720
CHANNELS = ("DAPI", "FITC")
# Five stacks a second: twenty-five times that, and now and then more than a busy machine restores.
PACE_S = 0.2
MB = 2**20
Memory = dict[str, list[float]]


def main() -> int:
    """Send, watch, judge."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=10.0)
    minutes = options.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        server = start_restore_process(["care2d_demo"], "--records", str(Path(folder) / "records"))
        viewer = start_viewer(server.where, 0)
        processes = {
            "hook": psutil.Process(),
            "restore process": psutil.Process(server.process.pid),
            "viewer": psutil.Process(viewer.process.pid),
        }
        page = viewer.where.replace("http", "ws").rstrip("/") + "/watch"
        with Caller(server.where) as sleeper, connect(page, origin=viewer.where.rstrip("/")):
            sleeper.ask(Hello("viewer"), 10)
            memory, volumes = send(server.where, sleeper, processes, minutes * 60)
        viewer.kill()
        stop_restore_process(server)
    print(f"{volumes} volumes restored in {minutes:g} min, {volumes / AN_HOUR:.1f} hours of a usual time-lapse")
    return report(memory)


def send(address: str, sleeper: Caller, processes: dict[str, psutil.Process], seconds: float) -> tuple[Memory, int]:
    """Send stacks, two channels in turn; the memory of all processes every hundredth of the time, MB."""
    planes = exposures()
    memory: Memory = {name: [] for name in processes}
    began = time.monotonic()
    with RestoreHook(address, planes=SHAPE[0], results="uint16") as hook:
        hook.restored.callback(lambda volume: None)
        hook.wait_attached(20)
        number = 0
        while (spent := time.monotonic() - began) < seconds:
            for z, plane in enumerate(planes[number % len(planes)]):
                axes = {"time": number // 2, "channel": CHANNELS[number % 2], "z": z}
                hook(plane, {"Axes": axes, "Exposure": 20.0})
            number += 1
            time.sleep(max(0.0, number * PACE_S - (time.monotonic() - began)))
            sleeper.send(Ask(after=0))
            if len(memory["hook"]) <= 100 * spent / seconds:
                for name, process in processes.items():
                    memory[name].append(process.memory_info().rss / MB)
        restored = hook.summary().returned
    return memory, restored


def exposures() -> list[np.ndarray]:
    """Render a stack, and expose it a few times."""
    field, camera = example_field(1, SHAPE, peak_photons=20), build_camera(1, SHAPE[1:])
    return [camera.expose(field, np.random.default_rng(turn)) for turn in range(4)]


def report(memory: Memory) -> int:
    """Print and judge: the exit status."""
    grown = 0
    print("| process | after a fifth | at the end | growth |\n|---|---|---|---|")
    for name, found in memory.items():
        fifth = max(1, len(found) // 5)
        early, late = np.median(found[fifth : 2 * fifth]), np.median(found[-fifth:])
        grown += late - early > max(10.0, early / 20)
        print(f"| {name} | {early:.0f} MB | {late:.0f} MB | {100 * (late / early - 1):+.1f} % |")
    return int(grown > 0)


if __name__ == "__main__":
    sys.exit(main())
