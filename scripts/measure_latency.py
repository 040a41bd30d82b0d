"""Measure the way of a frame through the restore process and back, with a bare client: no microscope, no hook.

    python scripts/measure_latency.py --side 512 --rate 30 --frames 600 --engine identity

Prints p50, p95 and p99 of the whole way (frame sent until its restored image is back), of the way beyond the restorer, and
of every stage as the restore process tells it. The restore process runs in a process of its own.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.models.registry import bundled_folder
from live_restore.server import ModelChoice, ServeOptions, serve
from live_restore.wire.messages import Begin, Command, End, FrameSent, Hello, Receipt, RestoredSent
from live_restore.wire.sockets import Caller


def run_server(pipe, arguments, records):
    """Serve in a process of its own, and tell the address."""
    model = ModelChoice("*", arguments.package, arguments.engine, arguments.precision)
    options = ServeOptions(
        address="tcp://127.0.0.1:0", models=(model,), records=records, trust=arguments.trust, max_waiting=arguments.waiting
    )
    serve(options, pipe.send)


def measure(address, arguments):
    """Send frames at the rate and keep the time until each is back, seconds, with the time its network took, seconds."""
    side = arguments.side
    image = np.random.default_rng(0).poisson(300, (side, side)).astype(np.uint16)
    sent, found, skipped, credit = {}, [], 0, 0
    with Caller(address) as caller:
        credit = caller.ask(Hello("hook"), 30).credit
        caller.send(Begin("latency", None, {"planes": 1}, arguments.results))
        began, number, unreceipted = time.perf_counter(), 0, 0
        while number < arguments.frames or sent:
            now = time.perf_counter()
            due = began + number / arguments.rate
            if number < arguments.frames and now >= due:
                if credit - unreceipted > 0:
                    info = FrameInfo("latency", number, VolumeKey(number), 0, 1, time.perf_counter_ns(), time.time_ns())
                    sent[number] = now
                    unreceipted += 1
                    assert caller.send(FrameSent(Frame(image, info)))
                else:
                    skipped += 1
                number += 1
                continue
            if number >= arguments.frames and now > due + 20:
                print(f"{len(sent)} never came back")
                break
            wait_ms = max(0, int((due - now) * 1e3)) if number < arguments.frames else 100
            for message in caller.receive(min(wait_ms, 100)):
                if isinstance(message, Receipt):
                    unreceipted -= len(message.sequences)
                    credit = message.credit
                    if message.refused:
                        sys.exit(message.refused)
                elif isinstance(message, RestoredSent):
                    began_at = sent.pop(message.key.time)
                    found.append((time.perf_counter() - began_at, message.stages_ms["restore"] / 1e3))
                elif hasattr(message, "credit"):
                    credit = message.credit
        caller.send(End("latency"))
        status = caller.ask(Command("status"), 10).said
        caller.ask(Command("stop"), 10)
    return found, skipped, status


def main():
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rate", type=float, default=30)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--engine", default="identity")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--package", type=Path, default=bundled_folder() / "care2d_demo")
    parser.add_argument("--results", default="uint16", choices=["uint16", "float32"])
    parser.add_argument("--trust", default="every", choices=["every", "newest", "before", "none"])
    parser.add_argument("--waiting", type=int, default=4)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = spawn.Process(target=run_server, args=(theirs, arguments, Path(folder)))
        process.start()
        found, skipped, status = measure(ours.recv(), arguments)
        process.join(60)
    whole, network = (np.array([row[n] for row in found]) * 1e3 for n in (0, 1))
    print(
        f"{arguments.side} x {arguments.side} at {arguments.rate} Hz, {arguments.engine}: {len(found)} back, {skipped} skipped"
    )
    for name, ms in (("there and back", whole), ("restorer", network), ("beyond the restorer", whole - network)):
        print(f"  {name:22}" + "".join(f"  p{p} {np.percentile(ms, p):7.1f}" for p in (50, 95, 99)) + " ms")
    for stage, ms in status["runs"][0]["latency_ms"].items():
        print(f"  {stage:22}" + "".join(f"  {p} {value:7.1f}" for p, value in ms.items()) + " ms")
    print("  ledger", status["runs"][0]["ledger"], status["runs"][0]["warnings"])


if __name__ == "__main__":
    main()
