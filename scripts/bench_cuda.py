"""On a CUDA machine: the default networks through every engine that runs there, beside torch's eager float32.

    python scripts/bench_cuda.py [--networks care2d care3d rcan3d] [--engines tensorrt torch] [--json FILE]

CARE 2D at 512² to 2304², CARE 3D and RCAN 3D (5 groups of 3 blocks) at 16 x 512² and 32 x 1024², random weights, camera counts
(uint16) in and float32 counts out, copies to the card and back included. Everyone takes turns within one run. Prints for each:

    alone      median ms of one frame or volume, from the call to its result
    in turn    ms per frame where the next one is handed in before the last one is back
    of peak    arithmetic of the network per second, of the bf16 matrix rate measured on this card just before
    x eager    how many times faster, in turn, than torch's eager float32 (TF32 off) on the same card
    error      rms difference from the CPU's float32 result, of its range; of the smallest size, where the CPU is done soon

Without a CUDA device nothing is measured, and it ends with 1.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch

from live_restore.bench.networks import DEFAULTS
from live_restore.bench.timing import Spread, Turns, alternate, timed
from live_restore.engines.engine import Engine, open_engine, what_is_offered
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.errors import EngineError
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx

SIZES = {
    "care2d": [(512, 512), (1024, 1024), (2048, 2048), (2304, 2304)],
    "care3d": [(16, 512, 512), (32, 1024, 1024)],
    "rcan3d": [(16, 512, 512), (32, 1024, 1024)],
}
ENGINES = ("tensorrt", "torch", "torch-compiled")
RANGES = np.array([[100.0], [400.0]], np.float32), np.array([[100.0], [400.0]], np.float32)  # low and span
IN_TURN = 6
# The CPU is done with this many pixels within seconds.
CHECKED_PIXELS = 512 * 512
NOTHING = "no CUDA device: nothing was measured. Run this on a machine with an NVIDIA card, and torch with CUDA"


@dataclass(frozen=True)
class Row:
    """One engine at one precision on one size; `why_not` says why there are no figures."""

    network: str
    size: tuple[int, ...]
    engine: str
    precision: str
    alone_ms: float | None = None
    p95_ms: float | None = None
    in_turn_ms: float | None = None
    of_peak: float | None = None
    times_eager: float | None = None
    error: float | None = None
    why_not: str = ""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["tensorrt", "torch"])
    parser.add_argument("--most", type=int, default=30, help="turns that count, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="for the turns of one size")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print(NOTHING, file=sys.stderr)
        return 1
    peak = matrix_rate()
    conditions = conditions_here(peak)
    print("\n".join(f"{name}: {value}" for name, value in conditions.items()), "", HEADER, sep="\n", flush=True)
    rows = []
    turns = Turns(warm_up=3, least=5, most=asked.most, budget_s=asked.seconds)
    for name in asked.networks:
        for size in SIZES[name]:
            for row in measured(name, size, asked.engines, turns, peak):
                rows.append(row)
                print(line(row), flush=True)
    if asked.json:
        found = {"conditions": conditions, "rows": [asdict(row) for row in rows]}
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


def conditions_here(peak: float) -> dict[str, str]:
    """Say on what this was measured."""
    return {
        "card": f"{torch.cuda.get_device_name()}, {torch.cuda.mem_get_info()[1] / 1e9:.0f} GB",
        "bf16 matrix rate": f"{peak / 1e12:.1f} TFLOP/s",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
        "machine": f"{platform.platform()}, Python {platform.python_version()}",
    }


def matrix_rate(side: int = 8192, repeats: int = 20) -> float:
    """Measure FLOP/s of a large bf16 matrix product on the card; the best of several."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        torch.cuda.synchronize()
        best = max(best, 5 * 2.0 * side**3 / (time.perf_counter() - began))
    return best


def measured(name: str, size: tuple[int, ...], engines: list[str], turns: Turns, peak: float) -> Iterator[Row]:
    """Measure one network on one size: engines and torch's eager float32, taking turns."""
    kind, options = DEFAULTS[name]
    net = build_net(kind, options, seed=0)
    plain = to_onnx(net)
    flop = measure_geometry(plain).flop_per_pixel * prod(size)
    batch = np.random.default_rng(0).poisson(200, (1, 1, *size)).astype(np.uint16), *RANGES
    opened, refused = open_all(from_counts(plain), engines)
    with ExitStack() as closing:
        for engine in opened.values():
            closing.enter_context(engine)
        takers: dict[tuple[str, ...], Callable[[], float]] = {("eager", "f32", "alone"): eager(net, batch[0])}
        for key, engine in opened.items():
            takers[*key, "alone"] = timed(partial(engine.infer, *batch))
            takers[*key, "in turn"] = in_turn(engine, batch)
        found = alternate(takers, turns)
        errors = {key: error_of(engine, plain, batch) for key, engine in opened.items() if prod(size) <= CHECKED_PIXELS}
    alone = found["eager", "f32", "alone"]
    eager_ms = alone.median_ms if isinstance(alone, Spread) else None
    yield row_of(name, size, ("eager", "f32"), alone, alone, flop, peak, eager_ms)
    for key in opened:
        row = row_of(name, size, key, found[*key, "alone"], found[*key, "in turn"], flop, peak, eager_ms)
        yield Row(**{**asdict(row), "error": errors.get(key)})
    for key, why_not in refused.items():
        yield Row(name, size, *key, why_not=why_not)


def open_all(onnx: bytes, kinds: list[str]) -> tuple[dict[tuple[str, str], Engine], dict[tuple[str, str], str]]:
    """Open every engine at every precision that it offers here; and the reasons of those that cannot be."""
    opened, refused = {}, {}
    for kind in kinds:
        try:
            precisions = what_is_offered(kind).precisions
        except EngineError as why_not:
            refused[kind, "-"] = str(why_not)
            continue
        for precision in precisions:
            try:
                opened[kind, precision] = open_engine(kind, onnx, precision)
            except EngineError as why_not:
                refused[kind, precision] = str(why_not)
    return opened, refused


def eager(net: torch.nn.Module, counts: np.ndarray) -> Callable[[], float]:
    """Make a turn of torch as most people run it: float32, uploaded as such, every operation on its own."""
    on_card = net.eval().cuda()

    def work() -> None:
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
                image = torch.from_numpy(counts.astype(np.float32)).cuda()
                (on_card((image - 100) / 400) * 400 + 100).cpu()
        except torch.OutOfMemoryError as short:
            raise EngineError("it does not fit into the card's memory") from short

    return timed(work)


def in_turn(engine: Engine, batch: tuple[np.ndarray, ...]) -> Callable[[], float]:
    """Make a turn of several batches, one handed in before the last is back; gives seconds per batch."""

    def work() -> None:
        for _ in engine.infer_many(batch for _ in range(IN_TURN)):
            pass

    several = timed(work)
    return lambda: several() / IN_TURN


def error_of(engine: Engine, plain: bytes, batch: tuple[np.ndarray, ...]) -> float | None:
    """Compare with float32 on the CPU; None for an engine that fails."""
    with open_engine("openvino", from_counts(plain)) as reference:
        wanted = reference.infer(*batch)[0]
    try:
        found = engine.infer(*batch)[0]
    except EngineError:
        return None
    return float(np.sqrt(np.mean((found - wanted) ** 2)) / np.ptp(wanted))


def row_of(
    network: str,
    size: tuple[int, ...],
    key: tuple[str, str],
    alone: Spread | str,
    turn: Spread | str,
    flop: float,
    peak: float,
    eager_ms: float | None,
) -> Row:
    """Put what was measured into a row."""
    if isinstance(alone, str) or isinstance(turn, str):
        return Row(network, size, *key, why_not=next(why for why in (alone, turn) if isinstance(why, str)))
    per_s = flop / (turn.median_ms / 1e3)
    times = eager_ms / turn.median_ms if eager_ms else None
    return Row(network, size, *key, alone.median_ms, alone.p95_ms, turn.median_ms, per_s / peak, times)


HEADER = """\
| network | size | engine | precision | alone, ms | p95, ms | in turn, ms | of peak | x eager | error |
|---|---|---|---|---|---|---|---|---|---|"""


def line(row: Row) -> str:
    """Write a row of the table."""
    size = "x".join(map(str, row.size))
    if row.why_not:
        return f"| {row.network} | {size} | {row.engine} | {row.precision} | not measured: {row.why_not} | | | | | |"
    ms = " | ".join("-" if value is None else f"{value:.2f}" for value in (row.alone_ms, row.p95_ms, row.in_turn_ms))
    of_peak = "-" if row.of_peak is None else f"{row.of_peak:.0%}"
    times = "-" if row.times_eager is None else f"{row.times_eager:.1f}"
    error = "-" if row.error is None else f"{row.error:.1e}"
    return f"| {row.network} | {size} | {row.engine} | {row.precision} | {ms} | {of_peak} | {times} | {error} |"


if __name__ == "__main__":
    sys.exit(main())
