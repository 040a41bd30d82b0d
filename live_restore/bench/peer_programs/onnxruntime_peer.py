"""ONNX Runtime as it comes: a CPU session on the package's own graph, float32.

Receives the graph's file and the range of the image as options; hands on a turn. Scaling counts to network units and back is in
the turn; the percentiles are given, which favours it. It does not know live_restore.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def prepare(options: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Open the session.

    Parameters
    ----------
    options : dict
        ``onnx`` (a file), ``image`` (.npy, (C, Z, Y, X)), ``n_dim``, ``low``, ``span``, ``low_out``, ``span_out`` per channel.
    """
    import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

    session = onnxruntime.InferenceSession(options["onnx"], providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def network(batch: Any) -> Any:
        return session.run(None, {entry: batch})[0]

    turn = counts_in_counts_out(network, options)
    return turn, {"kind": "onnxruntime", "version": onnxruntime.__version__, "device": "CPU", "precision": "f32"}


def counts_in_counts_out(network: Callable[[Any], Any], options: dict[str, Any]) -> Callable[[], Any]:
    """Put scaling around a network (N, C, [Z,] Y, X); a 2D network takes a volume plane by plane."""
    image = np.load(options["image"])  # (C, Z, Y, X)
    low, span, low_out, span_out = (
        np.asarray(options[name], np.float32).reshape(-1, 1, 1, 1) for name in ("low", "span", "low_out", "span_out")
    )
    flat = options["n_dim"] == 2

    def turn() -> Any:
        scaled = np.subtract(image, low, dtype=np.float32)
        scaled /= span
        if flat:
            planes = [network(np.ascontiguousarray(scaled[None, :, z]))[0] for z in range(scaled.shape[1])]
            result = np.stack(planes, 1)
        else:
            result = network(scaled[None])[0]
        result = result[: len(low_out)]
        return result * span_out + low_out

    return turn
