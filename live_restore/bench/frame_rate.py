"""Frames per second from hook to preview: a camera that never waits, a small network, the real preview with a page asking.

Receives a folder, a package or none, and how long; hands on figures. Camera, restore process, preview and page are four
processes, and what each of them costs per restored frame is counted. Every frame must end in a column of the ledgers: none is
dropped unsaid. It does not know how the parts work.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from live_restore.bench.children import Measurement
from live_restore.errors import LiveRestoreError
from live_restore.launch import Child, start_restore_process, start_viewer, stop_restore_process
from live_restore.ledger import balanced
from live_restore.models.registry import bundled_folder
from live_restore.wire.messages import Answer, Command
from live_restore.wire.sockets import Caller

SIDE, RATE_HZ = 512, 60.0
# A network of a twenty-eighth of the operations of CSBDeep's default: 3x3 kernels, 2x2 pixels folded into channels.
STUDENT = {"n_dim": 2, "depth": 3, "kernel": 3, "first_filters": 16, "entry": 2, "skip_kernel": 7}
# Steady state is measured: caches, and the first estimates of the camera's noise, are for before.
_SETTLE_S = 3.0
_HANG_S = 120.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Moment:
    """What was counted at one moment: seconds of processor time by process, and the run's status."""

    at_ns: int
    processor_s: Mapping[str, float]
    run: Mapping[str, Any]


def untrained_student(folder: Path) -> Path:
    """Write a package of the small network with random weights, on which its speed does not depend.

    Raises
    ------
    ModelError
        If torch is not installed.
    """
    from live_restore.bench.networks import random_package

    return random_package("student", "care", dict(STUDENT), folder / "student.bioimageio").path


def frame_rate(folder: Path, student: Path | None, seconds: float, results: str, say: Say) -> dict[str, Any]:
    """Send frames at 60 Hz, and count what comes out at the other end.

    Parameters
    ----------
    folder : Path
        Where restored volumes are recorded.
    student : Path or None
        A package; None: the identity in place of a network, to see what everything else costs.
    seconds : float
        How long, after the first three seconds.
    results : {"none", "uint16", "float32"}
        Whether restored volumes also go back into the script.
    say : callable

    Returns
    -------
    dict
        ``restored_per_s``, ``previewed_per_s`` (different restored frames that reached the page), ``latency_ms`` and
        ``preview_ms`` (``median`` and ``p99``, from the hook's receipt until restored, and until on the page),
        ``processor_ms`` (per restored frame, by process), ``share`` (of all cores), ``hook`` and ``restore`` (ledgers),
        ``unchecked``, ``balanced``, ``engine``.

    Raises
    ------
    LiveRestoreError
        If a part fails or hangs.
    """
    frames = int((seconds + _SETTLE_S + 1.0) * RATE_HZ)
    with _serving(folder, student) as server, start_viewer(server.where, 0) as viewer, Caller(server.where) as caller:
        reader = Measurement("page_reader", {"page": viewer.where, "seconds": seconds + _SETTLE_S})
        reader.await_begin(_HANG_S)
        sent = {"address": server.where, "side": SIDE, "frames": frames, "rate_hz": RATE_HZ, "results": results}
        camera = Measurement("steady_camera", sent)
        camera.await_begin(_HANG_S)
        processes: dict[str, Child | Measurement] = {"camera": camera, "restore": server, "preview": viewer, "page": reader}
        watched = {name: psutil.Process(child.process.pid) for name, child in processes.items()}
        time.sleep(_SETTLE_S)
        began = _now(caller, watched)
        time.sleep(seconds)
        ended = _now(caller, watched)
        taken = camera.result(_HANG_S)
        views = reader.result(_HANG_S)["views"]
        over = _settled(caller, say)
    figures = _figures(began, ended, taken["captured_ns"], views)
    ledgers = {"hook": taken["hook"], "restore": over["ledger"]}
    return {**figures, **ledgers, "unchecked": over["volumes"].get("unchecked", 0), "balanced": _add_up(**ledgers)}


@contextmanager
def _serving(folder: Path, student: Path | None) -> Iterator[Child]:
    package = str(student or bundled_folder() / "care2d_demo")
    how = ("--precision", "bf16") if student else ("--engine", "identity")
    expected = f"1x{SIDE}x{SIDE}"
    server = start_restore_process([package], "--records", str(folder / "records"), "--expect", expected, *how)
    try:
        yield server
    finally:
        stop_restore_process(server)


def _now(caller: Caller, watched: Mapping[str, psutil.Process]) -> _Moment:
    spent = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}
    return _Moment(time.perf_counter_ns(), spent, _run(caller))


def _run(caller: Caller) -> dict[str, Any]:
    """Ask for the run that goes on, with what restores it."""
    answer = caller.ask(Command("status"), 10.0)
    if not isinstance(answer, Answer) or not answer.said.get("runs"):
        raise LiveRestoreError("the restore process knows of no run; the camera's frames did not reach it")
    return {**answer.said["runs"][-1], "engine": answer.said["models"][0]["engine"]}


def _settled(caller: Caller, say: Say) -> dict[str, Any]:
    """Wait until all that was accepted is restored; the run as it is then."""
    until = time.monotonic() + _HANG_S
    while (run := _run(caller))["ledger"]["waiting"] and time.monotonic() < until:
        say(f"{run['ledger']['waiting']} frames wait")
        time.sleep(0.2)
    return run


def _figures(began: _Moment, ended: _Moment, captured_ns: list[int], views: list[list[Any]]) -> dict[str, Any]:
    seconds = (ended.at_ns - began.at_ns) / 1e9
    restored = ended.run["ledger"]["restored"] - began.run["ledger"]["restored"]
    seen = [(time_point, at_ns) for time_point, at_ns, whole in views if whole and began.at_ns <= at_ns <= ended.at_ns]
    ages_ms = [(at_ns - captured_ns[time_point]) / 1e6 for time_point, at_ns in seen]
    spent = {name: ended.processor_s[name] - before for name, before in began.processor_s.items()}
    total = ended.run["latency_ms"].get("total", {})
    return {
        "engine": ended.run["engine"],
        "seconds": seconds,
        "restored_per_s": restored / seconds,
        "previewed_per_s": len({time_point for time_point, _ in seen}) / seconds,
        "latency_ms": {"median": total.get("p50"), "p99": total.get("p99")},
        "preview_ms": {"median": median(ages_ms), "p99": float(np.percentile(ages_ms, 99))} if ages_ms else {},
        "processor_ms": {name: 1e3 * each / max(1, restored) for name, each in spent.items()},
        "share": sum(spent.values()) / seconds / (psutil.cpu_count() or 1),
    }


def _add_up(hook: Mapping[str, int], restore: Mapping[str, int]) -> bool:
    """Whether every frame that was handed over ended in a column, and every receipted one in a column of the other side."""
    over = hook["waiting"] == restore["waiting"] == 0
    return over and balanced(hook) and balanced(restore) and hook["receipted"] == restore["taken"]
