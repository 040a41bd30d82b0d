"""Which convolutions lose most by whole numbers: each is tried alone, and the worst stay in floating-point numbers.

Receives a graph, its int8 layers and images; hands on the names of the convolutions that are better left out. In a U-Net
usually none is: its skip carries the image. In an RCAN the convolution that closes a group carries everything, and the few
of them make most of the error. It does not know how layers are found, nor how fast they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from live_restore.engines.certificate import Probe
from live_restore.engines.comparison import compare
from live_restore.engines.int8_layers import Int8Layers
from live_restore.engines.openvino_engine import ov, the_core
from live_restore.engines.openvino_int8 import put_in

# Rms, of the range of the float32 result, for all int8 layers together: at 30 dB it costs 0.017 dB.
ERROR_LIMIT = 2e-3


def most_sensitive(model: Any, layers: Int8Layers, probes: Sequence[Probe], limit: float = ERROR_LIMIT) -> list[str]:
    """Name the convolutions to leave out so that the rest stays below an error.

    Errors of single layers are hardly related, so their squares are added.

    Parameters
    ----------
    model : openvino.Model
        With folded upsampling; not changed.
    layers : Int8Layers
        For all its convolutions.
    probes : sequence of Probe
    limit : float

    Returns
    -------
    list of str
        Worst first; none if all of them together are below the limit.
    """
    expected = _results(model, probes)
    if _error(_with(model, layers), expected, probes) <= limit:
        return []
    alone = {name: _error(_with(model, _only(layers, name)), expected, probes) for name in layers.weights}
    left: list[str] = []
    for name in sorted(alone, key=lambda each: -alone[each]):
        if sum(error**2 for other, error in alone.items() if other not in left) <= limit**2:
            break
        left.append(name)
    return left


def _only(layers: Int8Layers, name: str) -> Int8Layers:
    return Int8Layers(layers.ranges, {name: layers.weights[name]})


def _with(model: Any, layers: Int8Layers) -> Any:
    copy = model.clone()
    put_in(ov, copy, layers)
    return copy


def _error(model: Any, expected: Sequence[Any], probes: Sequence[Probe]) -> float:
    found = _results(model, probes)
    rows = [row.error for one, other in zip(found, expected, strict=True) for row in compare(one, other)]
    return float(np.mean(rows)) if rows else 0.0


def _results(model: Any, probes: Sequence[Probe]) -> list[Any]:
    """Run the images in float32 but for what is int8; all have one shape, or the graph is compiled for each."""
    request = the_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    results = []
    for probe in probes:
        request.infer(dict(enumerate(np.ascontiguousarray(array) for array in probe.inputs)))
        results.append(request.get_output_tensor(len(request.output_tensors) - 1).data.copy())
    return results
