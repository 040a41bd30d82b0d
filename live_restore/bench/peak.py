"""The limits of this machine, measured: how fast the engine itself multiplies at best, and how fast memory is copied.

As a program it receives an engine and a precision as JSON and prints what it reached; as a module it starts that program and
hands on the figure. It does not know which networks are measured against it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from live_restore.bench.children import measure
from live_restore.bench.timing import no_garbage_collection, timed
from live_restore.engines.engine import open_engine
from live_restore.errors import EngineError, LiveRestoreError

_CHANNELS, _LAYERS = 128, 8
_SIDES = (64, 128, 256, 512, 1024)
_MATRIX = 2048
# A turn that takes this long is not about overheads any more.
_LONG_ENOUGH_S = 0.02
_TURNS = 15
_HANG_S = 120.0
_COPIED_BYTES = 64 << 20


def peak_gflop_per_s(engine: str, precision: str) -> float:
    """Measure, in a process of its own, the best rate of an engine at a precision, GFLOP/s.

    Raises
    ------
    EngineError
        If the engine is not there or fails; LiveRestoreError if it hangs or dies.
    """
    said = measure("peak", {"engine": engine, "precision": precision}, _HANG_S)
    if why_not := said.get("why_not"):
        raise EngineError(str(why_not))
    return float(said["gflop_per_s"])


def best_rate(engine: str, precision: str) -> float:
    """Measure the best rate of an engine, GFLOP/s: the better of large convolutions and a large matrix product."""
    rates = [_rate(engine, precision, _convolutions(), [(1, 1, side, side) for side in _SIDES], _convolution_flop)]
    rates.append(_rate(engine, precision, _product(), [(1, _MATRIX, 32, _MATRIX // 32)], lambda shape: 2.0 * _MATRIX**3))
    return max(rates) / 1e9


def _rate(
    engine: str, precision: str, onnx: bytes, shapes: list[tuple[int, ...]], flop: Callable[[tuple[int, ...]], float]
) -> float:
    """Grow the image until a turn takes long enough; FLOP/s of the best turn."""
    best = 0.0
    with open_engine(engine, onnx, precision) as opened, no_garbage_collection():
        for shape in shapes:
            batch = np.random.default_rng(0).standard_normal(shape, np.float32)
            opened.warm_up(shape)
            turn = timed(lambda given=batch: opened.infer(given))  # type: ignore[misc]
            turn()
            least_s = min(turn() for _ in range(_TURNS))
            best = max(best, flop(shape) / least_s)
            if least_s > _LONG_ENOUGH_S:
                break
    return best


def _convolution_flop(shape: tuple[int, ...]) -> float:
    return 2.0 * 9 * (_LAYERS * _CHANNELS**2 + 2 * _CHANNELS) * shape[-1] * shape[-2]


def _convolutions() -> bytes:
    """Several 3 x 3 convolutions of many channels, one behind the other; an image goes in and comes out, as with a network."""
    rng = np.random.default_rng(0)
    widths = [1, *[_CHANNELS] * (_LAYERS + 1), 1]
    weights = [
        numpy_helper.from_array(
            (rng.standard_normal((fan_out, fan_in, 3, 3)) / 3 / fan_in**0.5).astype(np.float32), f"weights_{k}"
        )
        for k, (fan_in, fan_out) in enumerate(pairwise(widths))
    ]
    names = ["input", *(f"layer_{k}" for k in range(len(weights) - 1)), "output"]
    nodes = [
        helper.make_node("Conv", [names[k], f"weights_{k}"], [names[k + 1]], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        for k in range(len(weights))
    ]
    return _model(nodes, weights, ["batch", 1, "y", "x"])


def _product() -> bytes:
    """One product of two square matrices, written as a 1 x 1 convolution, which every engine knows."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((_MATRIX, _MATRIX, 1, 1)) / 45).astype(np.float32)
    node = helper.make_node("Conv", ["input", "weights"], ["output"], kernel_shape=[1, 1])
    return _model([node], [numpy_helper.from_array(values, "weights")], ["batch", _MATRIX, "y", "x"])


def _model(nodes: list[Any], weights: list[Any], shape: list[str | int | None]) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "peak", ends[:1], ends[1:], weights)
    written: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    return written


def copy_gb_per_s() -> float:
    """Measure how fast the main memory of this machine is copied by all cores at once, GB/s read and written together."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pairs = [(np.ones(_COPIED_BYTES, np.uint8), np.zeros(_COPIED_BYTES, np.uint8)) for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        spent = []
        for _ in range(_TURNS):
            began = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
            spent.append(time.perf_counter() - began)
    return 2 * workers * _COPIED_BYTES / min(spent) / 1e9


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    try:
        said: dict[str, object] = {"gflop_per_s": best_rate(asked["engine"], asked["precision"])}
    except LiveRestoreError as refused:
        said = {"why_not": str(refused)}
    print("result " + json.dumps(said), flush=True)
