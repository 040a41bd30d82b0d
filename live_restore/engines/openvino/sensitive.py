"""Which convolutions lose most by whole numbers: each is tried alone, and the worst stay in floating-point numbers.

Receives a graph, its int8 layers and images; hands on the names of the convolutions that are better left out. In a U-Net
usually none is: its skip carries the image. In an RCAN the convolution that closes a group carries everything, and the few
of them make most of the error. It does not know how layers are found, nor how fast they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from live_restore.engines.certificates.certificate import Probe
from live_restore.engines.certificates.comparison import compare
from live_restore.engines.openvino.engine import ov, the_core
from live_restore.engines.openvino.int8 import put_in
from live_restore.engines.openvino.int8_layers import Int8Layers

# What all int8 layers together may cost: PSNR, measured where the truth is known, and not more than an error that such images
# might hide. Where nobody knows the truth, the error that costs as much at 30 dB.
_LOSS_DB = 0.012
_WITHOUT_TRUTH, _MOST = 1.7e-3, 4.5e-3


def most_sensitive(model: Any, layers: Int8Layers, probes: Sequence[Probe], limit: float | None = None) -> list[str]:
    """Name the convolutions to leave out so that the rest stays below an error.

    Errors of single layers are hardly related, to each other and to what the network leaves of the noise, so their squares are
    added.

    Parameters
    ----------
    model : openvino.Model
        With folded upsampling; not changed.
    layers : Int8Layers
        For all its convolutions.
    probes : sequence of Probe
    limit : float, optional
        Rms, of the range of the float32 result. Default: what costs 0.012 dB on these images.

    Returns
    -------
    list of str
        Worst first; none if all of them together are below the limit.
    """
    expected = _results(model, probes)
    if _is_affordable(*_cost(_with(model, layers), expected, probes), limit):
        return []
    limit = _affordable(expected, probes) if limit is None else limit
    alone = {name: _cost(_with(model, _only(layers, name)), expected, probes)[0] for name in layers.weights}
    left: list[str] = []
    for name in sorted(alone, key=lambda each: -alone[each]):
        if sum(error**2 for other, error in alone.items() if other not in left) <= limit**2:
            break
        left.append(name)
    return left


def _is_affordable(error: float, loss_db: float | None, limit: float | None) -> bool:
    if limit is not None:
        return error <= limit
    return error <= _WITHOUT_TRUTH if loss_db is None else loss_db <= _LOSS_DB and error <= _MOST


def _affordable(expected: Sequence[Any], probes: Sequence[Probe]) -> float:
    """Give the error that makes the images worse by `_LOSS_DB` on average: an error e costs 4.34 (e / remaining error)^2 dB."""
    remaining = [
        left
        for image, probe in zip(expected, probes, strict=True)
        if probe.truth is not None and (left := _left(image, probe.truth))
    ]
    if not remaining:
        return _WITHOUT_TRUTH
    per_square_db = 10 / np.log(10) * np.mean([1 / left**2 for left in remaining])
    return min(_MOST, float(np.sqrt(_LOSS_DB / per_square_db)))


def _left(image: Any, truth: Any) -> float:
    """Rms difference to the truth after an affine fit, of its range; 0 where it has none."""
    found, wanted = (np.asarray(pixels, np.float64).ravel() for pixels in (image, truth))
    low, high = np.percentile(wanted, (0.1, 99.9))
    if not high > low or not found.std():
        return 0.0
    gain, offset = np.polyfit(found, wanted, 1)
    return float(np.sqrt(np.mean((gain * found + offset - wanted) ** 2)) / (high - low))


def _only(layers: Int8Layers, name: str) -> Int8Layers:
    return Int8Layers(layers.ranges, {name: layers.weights[name]})


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
