"""What padding, tiling, normalising, unscaling and checking cost beside the network itself.

    python scripts/measure_overhead.py [--network care care16 student] [--size 2048x2048] [--precision bf16] [--rounds 15]

Takes turns in one run: (a) the bare network, compiled by OpenVINO with the same rewriting, on a float32 tensor that lies
ready, its result left where OpenVINO put it; (b) `Restorer.restore`, from a uint16 frame to restored counts, with a frozen
range. Beside them (b) in parts and with whole counts, and (a) with the scaling around it in numpy, as it was done before it
moved into the graph. Medians, by the clock and of processor time (of all threads together, which other programs of the
machine disturb less); the extra is the median of the differences round by round. Measuring percentiles on every frame stands
by itself: a frozen range needs none.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from live_restore.bench.timing import no_garbage_collection
from live_restore.engines.certificates.certificate import ANYTHING
from live_restore.engines.network_engines import NetworkEngines
from live_restore.engines.openvino.engine import ov, rewrite_for_sizes, the_core
from live_restore.engines.openvino.narrow import deal_out_pixels
from live_restore.engines.openvino.upsampling import fold_upsampling
from live_restore.intensity import IntensityRange, measure_percentiles
from live_restore.models.facts import Architecture, FrozenRange, Normalisation
from live_restore.models.foreign.imported import Imported
from live_restore.models.foreign.importing import write_imported
from live_restore.models.nets import build_net
from live_restore.models.package import ModelPackage, open_package
from live_restore.restorer import Restorer

NETWORKS: dict[str, dict[str, Any]] = {
    "care": {},
    "care16": {"kernel": 3, "first_filters": 16},
    "student": {"kernel": 3, "first_filters": 21, "entry": 2, "skip_kernel": 7},
}
RANGE = IntensityRange(np.array([120.0]), np.array([900.0]))


def package(name: str, folder: Path) -> ModelPackage:
    """Write a package with random weights, which time does not depend on, and a frozen range."""
    net = build_net("care", {"n_dim": 2, **NETWORKS[name]}, seed=0)
    frozen = FrozenRange(low=tuple(RANGE.low), high=tuple(RANGE.high))
    imported = Imported(
        net=net,
        architecture=Architecture(kind="care", options=net.options, parameters=sum(p.numel() for p in net.parameters())),
        normalisation=Normalisation(mode="frozen", frozen=frozen),
        source_format="random",
        source_name="measure_overhead.py",
        source_sha256="0" * 64,
        name=name,
    )
    write_imported(imported, folder / name)
    return open_package(folder / name)


def bare(onnx: bytes, batch: np.ndarray, precision: str) -> Any:
    """Compile the plain network for one batch, as the engine does, and give a request that has it."""
    model = the_core().read_model(onnx)
    fold_upsampling(ov, model)
    deal_out_pixels(ov, model)
    model.reshape(ov.PartialShape(batch.shape))
    rewrite_for_sizes(model)
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = the_core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(batch, shared_memory=True))
    return request


def scaled_around(request: Any, batch: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Restore as it was done with the scaling in numpy."""
    batch[0, 0] = RANGE.scale(frame[0])[0]
    request.infer()
    restored = RANGE.unscale(request.output_tensors[0].data[0].copy())
    assert np.isfinite(restored.min()) and np.isfinite(restored.max())
    return restored


def in_turns(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Let all take turns, every second round backwards; ms by the clock and of processor time, (rounds, 2)."""
    ms: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    with no_garbage_collection():
        for number in range(rounds + 3):
            for name in list(work)[:: 1 if number % 2 else -1]:
                began = time.perf_counter(), time.process_time()
                work[name]()
                taken = time.perf_counter() - began[0], time.process_time() - began[1]
                if number >= 3:
                    ms[name].append((1e3 * taken[0], 1e3 * taken[1]))
    return {name: np.array(values) for name, values in ms.items()}


def measure(name: str, size: tuple[int, int], precision: str, rounds: int, folder: Path) -> None:
    """Print the table of one network."""
    opened = package(name, folder)
    frame = np.random.default_rng(0).poisson(300, (1, 1, *size)).astype(np.uint16)
    frame.flags.writeable = False  # as frames come from the wire
    batch = RANGE.scale(frame[0])[None]
    given = RANGE.low_and_span
    with ExitStack() as stack:
        take = partial(stack.enter_context)
        restorer = take(Restorer(opened, engine="openvino", precision=precision, tolerance=ANYTHING))
        whole = take(Restorer(opened, engine="openvino", precision=precision, tolerance=ANYTHING, rounded=True))
        assert restorer.restore(frame).tiles == 1, "the frame does not fit in memory at once; give a smaller --size"
        work: dict[str, Callable[[], object]] = {"(b) Restorer.restore, counts to counts": lambda: restorer.restore(frame)}
        work["    the same, whole counts (uint16)"] = lambda: whole.restore(frame)
        if not any(-s % step for s, step in zip(size, opened.facts.geometry.divisible_by, strict=True)):
            request = bare(opened.onnx(), batch, precision)
            engine = take(NetworkEngines(opened.onnx(), "openvino", precision)).whole("uint16")
            work = {
                "(a) bare network": request.infer,
                "    the network with the scaling in its graph": lambda: engine.infer(frame, given, given),
                **work,
                "    (a) with the scaling around it, in numpy": lambda: scaled_around(request, batch.copy(), frame),
            }
        work["    percentiles of the frame"] = lambda: measure_percentiles(frame)
        ms = in_turns(work, rounds)
    base = ms[next(iter(ms))]
    print(f"\n{name}, {size[0]} x {size[1]}, {precision}, median of {rounds}: ms (extra) by the clock | on all processors")
    for what, values in ms.items():
        beyond = values if what.endswith("frame") else values - base
        share = 100 * np.median(beyond / base, axis=0)
        cells = [f"{np.median(values[:, i]):8.2f} ({np.median(beyond[:, i]):6.2f}, {share[i]:5.1f} %)" for i in range(2)]
        print(f"{what:48} | {' | '.join(cells)}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--size", default="2048x2048", help="Y x X")
    parser.add_argument("--precision", default="bf16", choices=("f32", "bf16"))
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    height, width = map(int, chosen.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.network:
            measure(name, (height, width), chosen.precision, chosen.rounds, Path(folder))


if __name__ == "__main__":
    main()
