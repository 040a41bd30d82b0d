"""From the hook and back: how long after a frame was taken its restored volume is in the script's hands.

Receives its options as JSON on the command line; hands on one line of JSON. The frames come at a fixed rate from this
very process, so that no camera and no acquisition engine is in the figures; the restore process is another one. It does
not know which network is running there.
"""

import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np

from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field

# How long to wait for the last volumes.
_TAIL_S = 10.0


def measure_latency(options: dict[str, Any]) -> dict[str, Any]:
    """Hand frames to a hook at a rate, and take back what was restored."""
    side = int(options["side"])
    frames = _frames(side)
    got: list[Any] = []
    with RestoreHook(options["address"], results="float32") as hook:
        hook.restored.callback(got.append)
        if not hook.wait_attached(20.0):
            raise SystemExit(f"nobody listens at {options['address']}")
        plan = [{"axes": {"time": number}} for number in range(options["frames"])]
        hook.watch(plan)
        print("began", flush=True)
        began = time.perf_counter()
        for number in range(options["frames"]):
            _await(began + number / options["rate_hz"])
            hook(frames[number % len(frames)], {"Axes": {"time": number}, "Exposure": 10.0})
        _settle(hook, got)
        counts = hook.ledger.counts()
    return {"side": side, "rate_hz": options["rate_hz"], "hook": counts, **_figures(got)}


def _frames(side: int) -> list[np.ndarray[Any, np.dtype[np.uint16]]]:
    """Render a few different frames, so that no cache helps."""
    field = np.resize(example_field(1, (min(side, 512), min(side, 512))), (side, side))
    camera = build_camera(1, (side, side))
    return [camera.expose(field, np.random.default_rng(number)) for number in range(4)]


def _await(moment: float) -> None:
    if (left := moment - time.perf_counter()) > 0:
        time.sleep(left)


def _settle(hook: RestoreHook, got: list[Any]) -> None:
    """Wait until everything that was sent has come back, or nothing more comes."""
    until = time.monotonic() + _TAIL_S
    while time.monotonic() < until and (hook.ledger["waiting"] or len(got) < hook.ledger["receipted"]):
        time.sleep(0.02)


def _figures(got: list[Any]) -> dict[str, Any]:
    steady = got[max(1, len(got) // 20) :]  # the first ones find cold caches
    total = [restored.latency_ms for restored in steady]
    beyond = [restored.latency_ms - restored.stages_ms.get("restore", 0.0) for restored in steady]
    stages: dict[str, list[float]] = {}
    for restored in steady:
        for stage, spent in restored.stages_ms.items():
            stages.setdefault(stage, []).append(spent)
    return {
        "restored": len(got),
        "latency_ms": _spread(total),
        "beyond_engine_ms": _spread(beyond),
        "stages_ms": {stage: _spread(spent) for stage, spent in stages.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"median": float("nan"), "p99": float("nan")}
    return {"median": median(values), "p99": float(np.percentile(values, 99))}


if __name__ == "__main__":
    print("result " + json.dumps(measure_latency(json.loads(sys.argv[1]))), flush=True)
