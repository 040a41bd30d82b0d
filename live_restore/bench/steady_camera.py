"""A camera that never waits: frames at a steady rate into a hook, and what became of them.

Receives its options as JSON on the command line; hands on one line of JSON: when each frame was handed over, and the hook's
ledger. No camera and no acquisition engine is in the figures. It does not know what restores the frames, nor who watches.
"""

import json
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field

_ATTACH_S = 20.0
# So many different frames take turns, so that no cache helps.
_DIFFERENT = 8


def send_frames(options: dict[str, Any]) -> dict[str, Any]:
    """Hand frames to a hook at a rate.

    Parameters
    ----------
    options : dict
        ``address``, ``side`` (pixels), ``frames``, ``rate_hz``, ``results`` (``none``, ``float32`` or ``uint16``).
    """
    frames = _frames(int(options["side"]))
    captured_ns: list[int] = []
    hook_us: list[float] = []
    with RestoreHook(options["address"], results=options["results"]) as hook:
        if not hook.wait_attached(_ATTACH_S):
            raise SystemExit(f"nobody listens at {options['address']}")
        hook.watch([{"axes": {"time": number}} for number in range(options["frames"])])
        print("began", flush=True)
        began = time.perf_counter()
        for number in range(options["frames"]):
            _await(began + number / options["rate_hz"])
            captured_ns.append(time.perf_counter_ns())
            hook(frames[number % len(frames)], {"Axes": {"time": number}, "Exposure": 10.0})
            hook_us.append((time.perf_counter_ns() - captured_ns[-1]) / 1e3)
        seconds = time.perf_counter() - began
        hook.end_run()
        counts = hook.ledger.counts()
    return {"captured_ns": captured_ns, "seconds": seconds, "hook": counts, "hook_us": hook_us, "returned": hook.restored.count}


def _frames(side: int) -> list[NDArray[np.uint16]]:
    """Render a field of cells, and expose it several times."""
    field = np.resize(example_field(1, (min(side, 512), min(side, 512))), (side, side))
    camera = build_camera(1, (side, side))
    return [camera.expose(field, np.random.default_rng(number)) for number in range(_DIFFERENT)]


def _await(moment: float) -> None:
    if (left := moment - time.perf_counter()) > 0:
        time.sleep(left)


if __name__ == "__main__":
    print("result " + json.dumps(send_frames(json.loads(sys.argv[1]))), flush=True)
