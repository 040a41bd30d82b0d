"""The upsampling before a convolution, folded into it: the same numbers with up to two thirds of the work saved.

Receives an OpenVINO graph and rewrites it. Where a U-Net doubles its feature maps (every pixel repeated 2 x 2), puts them
beside a skip connection and convolves both, most products are computed several times over: a 5 x 5 kernel meets only
3 x 3 different pixels of a doubled map. Repeating and convolving is one transposed convolution of stride 2 whose kernel
is the convolution's, smeared over the repeated pixels (6 x 6 for 5 x 5, of which each output pixel meets 3 x 3). Zero
padding included, the result is the same but for the order of additions (1e-7 of the range). It does not know which
network this is.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.openvino.convolutions import rewrite_convolutions


def fold_upsampling(ov: Any, model: Any) -> int:
    """Rewrite every convolution that follows a doubling.

    Parameters
    ----------
    ov : module
        openvino.
    model : openvino.Model
        Changed in place.

    Returns
    -------
    int
        How many convolutions were rewritten.
    """
    return rewrite_convolutions(model, lambda _: True, lambda conv: _fold(ov, conv))


def _fold(ov: Any, conv: Any) -> bool:
    """Replace one convolution by the sum of a transposed one over doubled parts and a plain one over the others."""
    parts = _parts(conv.input_value(0))
    weights = conv.input_value(1).get_node().data  # (out, in, k, ...)
    channels = [_channels(part) for part in parts]
    doubled = [_before_doubling(part) for part in parts]
    if not any(doubled) or None in channels:
        return False
    bounds = np.cumsum([0, *channels])
    pads = conv.get_attributes()["pads_begin"]
    ones = [1] * len(pads)
    terms = []
    plain = [place for place, low in enumerate(doubled) if low is None]
    for place, low in enumerate(doubled):
        if low is not None:
            kernel = _smeared(weights[:, bounds[place] : bounds[place + 1]])
            terms.append(
                ov.opset13.convolution_backprop_data(
                    low, kernel, [2] * len(pads), pads_begin=pads, pads_end=pads, dilations=ones
                )
            )
    if plain:
        kept = np.concatenate([weights[:, bounds[p] : bounds[p + 1]] for p in plain], axis=1)
        image = parts[plain[0]] if len(plain) == 1 else ov.opset13.concat([parts[p] for p in plain], 1).output(0)
        terms.append(ov.opset13.convolution(image, np.ascontiguousarray(kept), ones, pads, pads, ones))
    total = terms[0]
    for place, term in enumerate(terms):  # the same names in every process
        term.set_friendly_name(f"{conv.get_friendly_name()}/term_{place}")
    for term in terms[1:]:
        total = ov.opset13.add(total, term)
    conv.output(0).replace(total.output(0))
    return True


def _parts(image: Any) -> list[Any]:
    """List what is put side by side on the channel axis, or the image alone."""
    node = image.get_node()
    is_side_by_side = node.get_type_name() == "Concat" and node.get_attributes()["axis"] == 1
    return list(node.input_values()) if is_side_by_side else [image]


def _channels(part: Any) -> int | None:
    channels = part.get_partial_shape()[1]
    return channels.get_length() if channels.is_static else None


def _before_doubling(part: Any) -> Any:
    """Give the image that this one doubles in every spatial axis by repeating pixels, or None."""
    node = part.get_node()
    if node.get_type_name() != "Interpolate":
        return None
    said, scales = node.get_attributes(), node.input_value(1).get_node()
    repeats = (
        said.get("mode") == "nearest"
        and said.get("shape_calculation_mode") == "scales"
        and said.get("coordinate_transformation_mode") == "asymmetric"
        and said.get("nearest_mode") == "floor"
    )
    if not repeats or scales.get_type_name() != "Constant":
        return None
    n_dim = len(part.get_partial_shape()) - 2
    if list(scales.data.ravel()) not in ([2] * n_dim, [1, 1] + [2] * n_dim):
        return None
    return node.input_value(0)


def _smeared(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Kernel (out, in, k, ...) of a convolution over doubled pixels, as a transposed one (in, out, k + 1, ...)."""
    n_dim = weights.ndim - 2
    mirrored = np.flip(weights, tuple(range(2, weights.ndim)))
    smeared = np.zeros((*weights.shape[:2], *(size + 1 for size in weights.shape[2:])), np.float32)
    for shift in product((0, 1), repeat=n_dim):
        place = tuple(slice(s, s + size) for s, size in zip(shift, weights.shape[2:], strict=True))
        smeared[(slice(None), slice(None), *place)] += mirrored
    return np.ascontiguousarray(smeared.swapaxes(0, 1))
