"""One acquisition in a process of its own: pycro-manager's Python backend, Micro-Manager's demo camera, our hook.

Receives its options as JSON on the command line; hands on one line of JSON with what was saved, what the ledger says and
how fast it went. It does not know what happens to the restore process meanwhile.

A process of its own, because pycro-manager has one engine per process, and so that a measurement that hangs can be ended.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cached_property
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

from live_restore.acquire.hook import RestoreHook
from live_restore.ledger import balanced


class TimedHook(RestoreHook):
    """The hook, with a clock around what pycro-manager calls.

    Attributes
    ----------
    spent_ns : list of int
        How long each call took.
    """

    def __call__(self, image: Any, metadata: Any) -> tuple[Any, Any]:
        """Do what the hook does."""
        began = time.perf_counter_ns()
        given = super().__call__(image, metadata)
        self.spent_ns.append(time.perf_counter_ns() - began)
        return given

    @cached_property
    def spent_ns(self) -> list[int]:
        """Nothing was spent yet."""
        return []


def start_demo_camera(side: int, exposure_ms: float) -> Any:
    """Start Micro-Manager's demo devices in this process, with a camera that sends one image again and again."""
    from mm_test_adapters import device_adapter_path
    from pycromanager import Core, start_headless

    folder = str(device_adapter_path())
    start_headless(folder, "MMConfig_demo.cfg", python_backend=True, buffer_size_mb=1024, debug=False)
    core = Core()
    core.set_property("Camera", "OnCameraCCDXSize", str(side))
    core.set_property("Camera", "OnCameraCCDYSize", str(side))
    core.set_property("Camera", "PixelType", "16bit")
    core.set_exposure(exposure_ms)
    core.snap_image()
    core.set_property("Camera", "FastImage", "1")
    return core


def events(frames: int, exposure_ms: float, interval_s: float) -> list[dict[str, Any]]:
    """Plan a time-lapse; an interval of 0 makes one hardware sequence of it."""
    return [
        {
            "axes": {"time": time_point},
            "exposure": exposure_ms,
            **({"min_start_time": time_point * interval_s} if interval_s else {}),
        }
        for time_point in range(frames)
    ]


def acquire(options: dict[str, Any]) -> dict[str, Any]:
    """Run one acquisition with the hook (or without: ``address`` empty), and say what came of it."""
    core = start_demo_camera(options["side"], options["exposure_ms"])
    planned = events(options["frames"], options["exposure_ms"], options.get("interval_s", 0.0))
    if not options["address"]:
        return _without(core, planned, options)
    with TimedHook(options["address"], core=core) as hook:
        attached = hook.wait_attached(options.get("wait_s", 10.0)) if options.get("attached", True) else False
        print("began", flush=True)
        with hook.acquisition(options["folder"], "bench") as acquisition:
            began = time.perf_counter()
            acquisition.acquire(hook.watch(planned))
        seconds = time.perf_counter() - began
        saved, raw = _saved(Path(options["folder"]))
    counts = hook.ledger.counts()
    return {
        "attached": attached,
        "frames": len(planned),
        "saved": saved,
        "seconds": seconds,
        "hook": counts,
        "balanced": balanced(counts) and counts["waiting"] == 0 and counts["taken"] == saved,
        "spent_us": [spent / 1000 for spent in hook.spent_ns],
        "warnings": list(hook.warnings),
        "raw": raw,
    }


def _without(core: Any, planned: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    from pycromanager import Acquisition

    print("began", flush=True)
    with Acquisition(directory=options["folder"], name="bench", show_display=False) as acquisition:
        began = time.perf_counter()
        acquisition.acquire(planned)
    seconds = time.perf_counter() - began
    saved, raw = _saved(Path(options["folder"]))
    return {"frames": len(planned), "saved": saved, "seconds": seconds, "raw": raw}


def _saved(folder: Path) -> tuple[int, str]:
    """Count the frames that can be read back."""
    from ndstorage import Dataset

    newest = max((place for place in folder.iterdir() if (place / "NDTiff.index").exists()), key=lambda p: p.stat().st_mtime)
    with redirect_stdout(StringIO()):  # it draws a progress bar
        dataset = Dataset(str(newest))
    try:
        return sum(1 for _ in _readable(dataset)), str(newest)
    finally:
        dataset.close()


def _readable(dataset: Any) -> Iterator[None]:
    for key in dataset.index:
        axes = dict(key)
        if dataset.read_image(**axes) is not None:
            yield


def main() -> None:
    """Run one acquisition and print what came of it."""
    said = acquire(json.loads(sys.argv[1]))
    if spent := said.pop("spent_us", None):
        ordered = sorted(spent)
        said["hook_us"] = {"median": median(ordered), "p99": ordered[int(0.99 * len(ordered))], "most": ordered[-1]}
    print("result " + json.dumps(said), flush=True)
    os._exit(0)  # pycro-manager may leave threads behind that would keep this process alive for ever


if __name__ == "__main__":
    main()
