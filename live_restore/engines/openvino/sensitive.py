"""Which convolutions lose most by whole numbers: each is tried alone, and the worst stay in floating-point numbers.

Receives a graph, its int8 layers and images; hands on the layers that these images can bear. In a U-Net these are usually
all: its skip carries the image. In an RCAN the convolution that closes a group carries everything, and the few of them make
most of the error. It does not know how layers are found, nor how fast they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from live_restore.engines.certificates.certificate import Probe
from live_restore.engines.certificates.comparison import compare
from live_restore.engines.openvino.engine import ov, the_core
from live_restore.engines.openvino.int8 import put_in
from live_restore.engines.openvino.int8_layers import Int8Layers

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """What all int8 layers together may cost on the images that they are found on.

    The defaults are about six tenths of what a certificate allows on other images.

    Attributes
    ----------
    loss_db : float
        Of PSNR, where the truth is known.
    error : float
        Rms, of the range of the float32 result, where the truth is known.
    error_without_truth : float
        The same where nobody knows it: what costs as much at 30 dB.
    """

    loss_db: float = 0.012
    error: float = 6e-3
    error_without_truth: float = 1.7e-3

    def allows(self, error: float, loss_db: float | None) -> bool:
        """Say whether it is enough."""
        return error <= self.error_without_truth if loss_db is None else loss_db <= self.loss_db and error <= self.error


def only_error(error: float) -> Budget:
    """Give a budget of an rms error alone."""
    return Budget(float("inf"), error, error)


def affordable(
    model: Any, layers: Int8Layers, probes: Sequence[Probe], budget: Budget, tell: Tell = lambda words: None
) -> Int8Layers:
    """Leave out of the layers what costs too much.

    First what attention scales is left as it is, which spares least time. Then every convolution is tried alone, and they are
    left out, worst first, until what remains is measured to be affordable.

    Parameters
    ----------
    model : openvino.Model
        With folded upsampling; not changed.
    layers : Int8Layers
        For all its convolutions.
    probes : sequence of Probe
    budget : Budget
    tell : callable (words)
        Told what is being tried.

    Returns
    -------
    Int8Layers
        Without any convolution where even a single one costs too much.
    """
    expected = _results(model, probes)

    def cost(tried: Int8Layers) -> tuple[float, float | None]:
        return _cost(_with(model, tried), expected, probes)

    tell("all of it together")
    for tried in (layers, replace(layers, scaled={})):
        if budget.allows(*cost(tried)):
            return tried
    alone: dict[str, float] = {}
    for name, layer in layers.weights.items():
        tell(f"convolution {len(alone) + 1} of {len(layers.weights)} alone")
        alone[name] = cost(replace(tried, weights={name: layer}))[0]
    kept = dict(sorted(layers.weights.items(), key=lambda each: alone[each[0]]))
    while kept:
        kept.popitem()  # the worst
        tell(f"the best {len(kept)} of {len(layers.weights)} convolutions together")
        in_order = {name: layer for name, layer in layers.weights.items() if name in kept}
        if kept and budget.allows(*cost(replace(tried, weights=in_order))):
            return replace(tried, weights=in_order)
    return replace(tried, weights={})


def _with(model: Any, layers: Int8Layers) -> Any:
    copy = model.clone()
    put_in(ov, copy, layers)
    return copy


def _cost(model: Any, expected: Sequence[Any], probes: Sequence[Probe]) -> tuple[float, float | None]:
    """Measure the mean error and the mean loss of PSNR; None where nobody knows the truth."""
    found = zip(_results(model, probes), expected, probes, strict=True)
    rows = [row for image, wanted, probe in found for row in compare(image, wanted, probe.truth)]
    losses = [row.loss_db for row in rows if row.loss_db is not None]
    return float(np.mean([row.error for row in rows] or [0.0])), float(np.mean(losses)) if losses else None


def _results(model: Any, probes: Sequence[Probe]) -> list[Any]:
    """Run the images in float32 but for what is int8; all have one shape, or the graph is compiled for each."""
    request = the_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    results = []
    for probe in probes:
        request.infer(dict(enumerate(np.ascontiguousarray(array) for array in probe.inputs)))
        image = request.get_output_tensor(len(request.output_tensors) - 1).data
        results.append(image[:, : probe.channels].copy())  # widths of a probabilistic network are no image
    return results
