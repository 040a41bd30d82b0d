"""The convolution to a single channel, computed for a patch of pixels at once: the same numbers in a third of the time.

Receives an OpenVINO graph of fixed sizes and rewrites it. Runtimes compute sixteen channels at a time, so that the last
convolution of a network, to the one channel of the image, costs as much as sixteen (3 % of an RCAN in 3D). Here a kernel
larger by three pixels, with steps of four, gives a patch of 4 x 4 pixels as sixteen channels. It does not know which network
this is.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.openvino.convolutions import rewrite_convolutions

# Sixteen pixels: the more alike the sides, the fewer products with zero.
_PATCHES = {2: ((4, 4),), 3: ((2, 2, 4), (1, 4, 4))}
_FEWEST_CHANNELS = 8


def compute_patches(ov: Any, model: Any) -> int:
    """Rewrite every plain convolution from several channels to one whose image can be divided into patches.

    Parameters
    ----------
    ov : module
        openvino.
    model : openvino.Model
        With fixed sizes; changed in place.

    Returns
    -------
    int
        How many convolutions were rewritten.
    """
    return rewrite_convolutions(model, _gives_one_channel, lambda conv: _rewrite(ov, conv))


def _gives_one_channel(conv: Any) -> bool:
    fan_out, fan_in, *sizes = conv.input_value(1).get_node().get_output_shape(0)
    return bool(fan_out == 1 and fan_in >= _FEWEST_CHANNELS and min(sizes) > 1)


def _rewrite(ov: Any, conv: Any) -> bool:
    image, op = conv.input_value(0), ov.opset13
    if image.get_partial_shape().is_dynamic:
        return False
    batch, _, *sizes = image.get_shape()
    n_dim = len(sizes)
    fitting = (patch for patch in _PATCHES.get(n_dim, ()) if not any(np.mod(sizes, patch)))
    patch = next(fitting, None)
    if patch is None:
        return False
    kernel = _shifted(conv.input_value(1).get_node().data, patch)
    pads, ones = conv.get_attributes()["pads_begin"], [1] * n_dim
    made = op.convolution(image, kernel, list(patch), pads, pads, ones)  # (N, pixels of a patch, sizes / patch)
    apart = op.reshape(made, np.array([batch, *patch, *(size // side for size, side in zip(sizes, patch, strict=True))]), False)
    places = [0, *(place for axis in range(n_dim) for place in (1 + n_dim + axis, 1 + axis))]
    conv.output(0).replace(op.reshape(op.transpose(apart, np.array(places)), np.array([batch, 1, *sizes]), False).output(0))
    return True


def _shifted(weights: NDArray[np.float32], patch: tuple[int, ...]) -> NDArray[np.float32]:
    """Lay a kernel (1, C, k, ...) out once for every pixel of a patch: (pixels, C, k + side - 1, ...)."""
    sizes = weights.shape[2:]
    larger = [size + side - 1 for size, side in zip(sizes, patch, strict=True)]
    kernel = np.zeros((int(np.prod(patch)), weights.shape[1], *larger), np.float32)
    for place, shift in enumerate(product(*map(range, patch))):
        kernel[place][(slice(None), *(slice(low, low + size) for low, size in zip(shift, sizes, strict=True)))] = weights[0]
    return kernel
