"""The live path, measured: is raw safe, what does the hook cost, how long until a volume is back in the script.

Receives how much is wanted; hands on tables with their conditions. Every acquisition and every restore process is a
process of its own; what is compared runs in turn. It does not know how the parts work.
"""

import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from live_restore.bench.children import Measurement, measure
from live_restore.bench.conditions import conditions, load
from live_restore.bench.frame_rate import RATE_HZ, SIDE, frame_rate, untrained_student
from live_restore.bench.throughput import compare
from live_restore.bench.trust_cost import trust_cost
from live_restore.launch import Child, start_restore_process, stop_restore_process

Say = Callable[[str], None]

# The bundled 2D network: CARE of 3 x 3 kernels and 16 filters.
_CARE = "care2d_demo"
_IDENTITY = ("--engine", "identity")
# No acquisition may take longer; what does is a hang, and fails the measurement.
_HANG_S = 240.0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading, and what they mean."""

    title: str
    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self) -> str:
        """Write it as a markdown table."""
        lines = [f"### {self.title}", self.about, "", f"| {' | '.join(self.head)} |", f"|{'---|' * len(self.head)}"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)])


@dataclass(slots=True)
class Measured:
    """Everything that was measured."""

    conditions: dict[str, str]
    tables: list[Table] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def as_markdown(self) -> str:
        """Write it for the documentation."""
        told = "\n".join(f"- {name}: {what}" for name, what in self.conditions.items())
        return "\n\n".join([told, *(table.as_markdown() for table in self.tables)])

    def as_json(self) -> dict[str, Any]:
        """Give the figures behind the tables."""
        return {"conditions": self.conditions, "measured": self.raw}


def measure_live(*, quick: bool, only: Sequence[str], say: Say, student: Path | None = None) -> Measured:
    """Measure the live path.

    Parameters
    ----------
    quick : bool
        A tenth of the frames.
    only : sequence of str
        Names of `PARTS`; empty: all.
    say : callable
        Told what is being measured.
    student : Path or None
        The package that ``fps`` restores with; None: a small CARE network with random weights.

    Raises
    ------
    ValueError
        If there is no such part.
    LiveRestoreError
        If a measurement hangs or fails.
    """
    unknown = [name for name in only if name not in PARTS]
    if unknown:
        raise ValueError(f"there is no measurement {unknown[0]!r}; choose from {', '.join(PARTS)}")
    measured = Measured(conditions())
    for name in only or PARTS:
        with tempfile.TemporaryDirectory(prefix="live_restore_bench_", ignore_cleanup_errors=True) as folder:
            part = partial(_fps, student=student) if name == "fps" else PARTS[name]
            table, figures = part(Path(folder), quick, say)
        measured.tables.append(table)
        measured.raw[name] = figures
    measured.conditions["load after"] = load()
    return measured


# --- raw is sacred ----------------------------------------------------------------------------------------------------


def _raw(folder: Path, quick: bool, say: Say) -> tuple[Table, Any]:
    frames = 400 if quick else 1000
    figures = {}
    for case, (start, trouble) in _CASES.items():
        say(f"raw: {frames} frames, restore process {case}")
        figures[case] = _with_server(folder / case, start, trouble, frames)
    rows = []
    for case, said in figures.items():
        ends = ", ".join(f"{count} {name}" for name, count in said["hook"].items() if count and name != "taken")
        again = f"{said['reattached_s']:.2f} s" if "reattached_s" in said else ""
        rows.append((case, f"{said['saved']} of {said['frames']}", ends, "yes" if said["balanced"] else "NO", again))
    about = f"{frames} frames of 512x512, 10 ms exposure, pycro-manager's Python backend, Micro-Manager's demo camera."
    head = ("restore process", "raw frames saved", "hook's ledger", "balanced", "attached again after")
    return Table("Raw frames, whatever becomes of the restore process", about, head, tuple(rows)), figures


def _with_server(
    folder: Path, start: Callable[[str], Child | Measurement | None], trouble: Callable[[Any, str], Any], frames: int
) -> dict[str, Any]:
    folder.mkdir()
    address = f"tcp://127.0.0.1:{_free_port()}"
    server = start(address)
    options = {"address": address, "folder": str(folder), "frames": frames, "side": 512, "exposure_ms": 10.0}
    options |= {"interval_s": 0.01, "attached": server is not None}
    taking = Measurement("raw_run", options)
    again: dict[str, Any] = {}
    try:
        taking.await_begin(60.0)
        server, again = trouble(server, address)
        return {**taking.result(_HANG_S), **again}
    finally:
        taking.process.kill()
        if server is not None:
            server.process.kill()


def _none(address: str) -> None:
    return None


def _identity(address: str) -> Child:
    return start_restore_process([_CARE], *_IDENTITY, address=address)


def _slow(address: str) -> Child:
    return start_restore_process([_CARE], address=address)


def _garbage(address: str) -> Measurement:
    server = Measurement("garbage", {"address": address})
    server.await_begin(30.0)
    return server


def _leave(server: Any, address: str) -> tuple[Any, dict[str, Any]]:
    return server, {}


def _kill(server: Child, address: str) -> tuple[Child, dict[str, Any]]:
    """Kill it in the middle, and start another one at the same address; how soon the hook is its client."""
    time.sleep(1.5)
    server.kill()
    time.sleep(1.0)
    second = _identity(address)
    return second, {"reattached_s": _until_attached(second.where)}


def _until_attached(address: str) -> float:
    from live_restore.wire.messages import Answer, Command
    from live_restore.wire.sockets import Caller

    began = time.monotonic()
    with Caller(address) as caller:
        while time.monotonic() - began < 10.0:
            answer = caller.ask(Command("status"), 5.0)
            if isinstance(answer, Answer) and any(run.get("ledger", {}).get("taken") for run in answer.said.get("runs", ())):
                return time.monotonic() - began
            time.sleep(0.02)
    return float("inf")


_CASES: dict[str, tuple[Callable[[str], Any], Callable[[Any, str], Any]]] = {
    "alive (identity)": (_identity, _leave),
    "absent": (_none, _leave),
    "killed in the middle, and started again": (_identity, _kill),
    "slow (a CARE network)": (_slow, _leave),
    "sending garbage": (_garbage, _leave),
}


# --- what the hook costs ----------------------------------------------------------------------------------------------


def _hook(folder: Path, quick: bool, say: Say) -> tuple[Table, Any]:
    frames, turns = (40, 1) if quick else (200, 5)
    figures: dict[str, list[dict[str, Any]]] = {"without": [], "with, nobody listening": [], "with, restored (identity)": []}
    with _serving(folder, [_CARE], *_IDENTITY) as server:
        addresses = ("", f"tcp://127.0.0.1:{_free_port()}", server.where)
        for turn in range(turns):
            for (name, found), address in zip(figures.items(), addresses, strict=True):
                say(f"hook: {frames} frames of 2048x2048, {name}, turn {turn + 1} of {turns}")
                place = folder / f"{name}-{turn}"
                place.mkdir()
                options = {"address": address, "folder": str(place), "frames": frames, "side": 2048, "exposure_ms": 33.0}
                found.append(measure("raw_run", {**options, "attached": address == server.where}, _HANG_S))
                for file in place.rglob("*.tif"):
                    file.unlink()
    alone = median(said["frames"] / said["seconds"] for said in figures["without"])
    rows = []
    for name, found in figures.items():
        rate = median(said["frames"] / said["seconds"] for said in found)
        cost = [said["hook_us"] for said in found if "hook_us" in said]
        spent = (
            (f"{median(c['median'] for c in cost):.0f} µs", f"{median(c['p99'] for c in cost):.0f} µs") if cost else ("", "")
        )
        rows.append((name, f"{rate:.1f}", f"{100 * rate / alone:.1f} %", *spent))
    about = f"{frames} frames of 2048x2048, 33 ms exposure, saved as NDTiff; medians of {turns} turns, taken in turn."
    head = ("hook", "frames/s", "of without", "in the hook, median", "p99")
    return Table("What the hook costs", about, head, tuple(rows)), figures


# --- how long it takes ------------------------------------------------------------------------------------------------


def _latency(folder: Path, quick: bool, say: Say) -> tuple[Table, Any]:
    frames = 50 if quick else 500
    figures = {}
    for check in ("none", "newest"):
        with _serving(folder, [_CARE], *_IDENTITY, "--trust", check) as server:
            for side, rate_hz in ((512, 30.0), (2048, 3.0)):
                say(f"latency: frames of {side}x{side} at {rate_hz:g} Hz, identity engine, trust check: {check}")
                number = frames if side == 512 else frames // 5
                options = {"address": server.where, "side": side, "frames": number, "rate_hz": rate_hz}
                figures[f"{side}x{side} at {rate_hz:g} Hz, trust check: {check}"] = measure("latency", options, _HANG_S)
    return Table("From the hook and back, identity engine", _ABOUT_LATENCY, _LATENCY_HEAD, _latency_rows(figures)), figures


def _deepcad(folder: Path, quick: bool, say: Say) -> tuple[Table, Any]:
    frames = 60 if quick else 900
    figures = {}
    for precision in ("f32", "bf16"):
        # nothing more than the next volume may wait: whoever watches wants the newest, and backfill restores the others
        with _serving(folder, [_CARE], "--precision", precision, "--max-waiting", "0", "--trust", "newest") as server:
            say(f"490x490 at 30 Hz through a CARE network, {precision}: {frames} frames")
            options = {"address": server.where, "side": 490, "frames": frames, "rate_hz": 30.0}
            figures[f"490x490 at 30 Hz, CARE 3x3, 16 filters, {precision}"] = measure("latency", options, _HANG_S)
    about = f"The job for which DeepCAD-RT states about 4 s, on a GPU. {_ABOUT_LATENCY}"
    return Table("490x490 at 30 Hz", about, _LATENCY_HEAD, _latency_rows(figures)), figures


_ABOUT_LATENCY = (
    "From the hook's receipt of the frame to the restored volume, float32, in the script's hands; two processes, tcp. The "
    "restoration is percentiles, scaling, network and unscaling."
)
_LATENCY_HEAD = ("frames", "restored", "latency, median", "p99", "beyond the restoration, median", "p99")


def _latency_rows(figures: dict[str, dict[str, Any]]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for name, said in figures.items():
        spreads = [said["latency_ms"][part] for part in ("median", "p99")] + [
            said["beyond_engine_ms"][part] for part in ("median", "p99")
        ]
        rows.append((name, f"{said['restored']} of {said['hook']['taken']}", *(f"{spread:.1f} ms" for spread in spreads)))
    return tuple(rows)


# --- frames per second ------------------------------------------------------------------------------------------------


def _fps(folder: Path, quick: bool, say: Say, student: Path | None = None) -> tuple[Table, Any]:
    package = student or untrained_student(folder)
    seconds, figures = 5.0 if quick else 30.0, {}
    cases: dict[str, tuple[Path | None, str]] = {
        "network": (package, "none"),
        "network, and back into the script": (package, "float32"),
        "identity in place of the network": (None, "none"),
    }
    for case, (model, results) in cases.items():
        say(f"fps: {SIDE}x{SIDE} at {RATE_HZ:g} Hz for {seconds:g} s, {case}")
        figures[case] = frame_rate(folder / case.replace(" ", "_"), model, seconds, results, say)
    rows = tuple((case, *_frame_rate_row(said)) for case, said in figures.items())
    about = (
        f"Frames of {SIDE}x{SIDE} at {RATE_HZ:g} Hz into the hook, restored by {figures['network']['engine']}, recorded, "
        "checked in the default mode, shown on a page; what is not restored was left out by the hook, and counted. Latency: "
        "from the hook's receipt until restored, and until on the page. Processor time per restored frame."
    )
    head = ("", "restored/s", "on the page/s", "left out", "unchecked", "latency", "until on the page", "processor", "balanced")
    return Table("Frames per second, hook to preview", about, head, rows), figures


def _frame_rate_row(said: dict[str, Any]) -> tuple[str, ...]:
    spent = ", ".join(f"{name} {each:.1f}" for name, each in said["processor_ms"].items())
    latency, page = (_spread(said[name]) for name in ("latency_ms", "preview_ms"))
    return (
        f"{said['restored_per_s']:.1f}",
        f"{said['previewed_per_s']:.1f}",
        f"{said['hook']['skipped']} of {said['hook']['taken']}",
        f"{said['unchecked']}",
        latency,
        page,
        f"{sum(said['processor_ms'].values()):.1f} ms ({spent}), {100 * said['share']:.0f} % of all cores",
        "yes" if said["balanced"] else "NO",
    )


def _spread(said: dict[str, float]) -> str:
    return f"{said['median']:.0f} ms, p99 {said['p99']:.0f} ms" if said else ""


# --- the wire and the check -------------------------------------------------------------------------------------------


def _wire(folder: Path, quick: bool, say: Say) -> tuple[Table, Any]:
    say("wire: plain and encrypted, in turn")
    figures = compare(folder, turns=1 if quick else 5)
    rows = tuple(
        (row["case"], f"{row['frames_per_s']:.0f}", f"{row['mb_per_s']:.0f}", f"{row['round_trip_ms']:.2f} ms")
        for row in figures
    )
    about = "Frames from one process to another over tcp on this machine, and a message there and back; medians, in turn."
    return Table("The wire, plain and encrypted", about, ("case", "frames/s", "MB/s", "round trip"), rows), figures


def _trust(folder: Path, quick: bool, say: Say) -> tuple[Table, Any]:
    say("trust: the check beside the network, in turn")
    figures = trust_cost(turns=2 if quick else 9)
    rows = tuple(
        (
            row["case"],
            f"{row['network_ms']:.1f} ms",
            f"{row['check_ms']:.1f} ms",
            f"{100 * row['check_ms'] / row['network_ms']:.1f} %",
        )
        for row in figures
    )
    about = "Photon consistency of one volume, all scales and the map, beside the network that restored it; medians, in turn."
    return Table("What the trust check costs", about, ("volume and network", "network", "check", "share"), rows), figures


@contextmanager
def _serving(folder: Path, models: Sequence[str], *options: str) -> Iterator[Child]:
    server = start_restore_process(models, "--records", str(folder / "records"), *options)
    try:
        yield server
    finally:
        stop_restore_process(server)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


PARTS: dict[str, Callable[[Path, bool, Say], tuple[Table, Any]]] = {
    "raw": _raw,
    "hook": _hook,
    "latency": _latency,
    "deepcad": _deepcad,
    "fps": _fps,
    "wire": _wire,
    "trust": _trust,
}
