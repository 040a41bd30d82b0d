"""Convolutions with next to no channels, done on several columns at once: the same numbers in a fraction of the time.

Receives an OpenVINO graph of fixed sizes and rewrites it. Runtimes compute sixteen channels at a time, so that a filter on a
single channel (the learned skip of a light network: 7 x 7) costs as much as sixteen: 7 to 12 % of all the time of such a
network, its arithmetic being 0.5 %. Sixteen neighbouring columns are taken for channels instead, which moves nothing in
memory, and the kernel is laid out for them: 16 to 16 channels, 7 x 3. And where channels are dealt out to pixels by a
transposed convolution of zeros and ones, they are moved, not multiplied. It does not know which network this is.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.openvino.convolutions import rewrite_convolutions

# Columns taken together: as many as channels are computed at a time. Where they do not divide the width, fewer gain too.
_COLUMNS = (16, 8, 4)


def fold_columns(ov: Any, model: Any) -> int:
    """Rewrite every plain convolution from one channel to one whose image has a width that can be divided.

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
    return rewrite_convolutions(model, _is_narrow, lambda conv: _fold(ov, conv))


def deal_out_pixels(ov: Any, model: Any) -> int:
    """Rewrite every transposed convolution that only deals channels out to pixels.

    Parameters
    ----------
    ov : module
        openvino.
    model : openvino.Model
        Changed in place.

    Returns
    -------
    int
        How many were rewritten.
    """
    dealt = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ConvolutionBackpropData" and _deals_out(node):
            block = node.get_attributes()["strides"][0]
            moved = ov.opset13.depth_to_space(node.input_value(0), "depth_first", block)
            node.output(0).replace(moved.output(0))
            dealt += 1
    model.validate_nodes_and_infer_types()
    return dealt


def _is_narrow(conv: Any) -> bool:
    fan_out, fan_in, *sizes = conv.input_value(1).get_node().get_output_shape(0)
    return bool(fan_out == fan_in == 1 and sizes[-1] > 1)


def _fold(ov: Any, conv: Any) -> bool:
    """Put one convolution over (N, 1, [Z,] Y, X) in terms of (N, columns, [Z,] Y, X / columns)."""
    image, weights = conv.input_value(0), conv.input_value(1).get_node().data
    if image.get_partial_shape().is_dynamic:
        return False
    batch, _, *sizes, width = image.get_shape()
    columns = next((n for n in _COLUMNS if width % n == 0), 0)
    if not columns:
        return False
    kernel, reach = _by_columns(weights, columns)
    n_dim, op = weights.ndim - 2, ov.opset13
    pads, ones = [*(size // 2 for size in weights.shape[2:-1]), reach], [1] * n_dim
    # columns last, which is how they lie in memory, and channels last is how runtimes like to have them
    beside = op.reshape(image, np.array([batch, *sizes, width // columns, columns]), False)
    channels = op.transpose(beside, np.array([0, n_dim + 1, *range(1, n_dim + 1)]))
    made = op.convolution(channels, kernel, ones, pads, pads, ones)
    beside = op.transpose(made, np.array([0, *range(2, n_dim + 2), 1]))
    conv.output(0).replace(op.reshape(beside, np.array([batch, 1, *sizes, width]), False).output(0))
    return True


def _by_columns(weights: NDArray[np.float32], columns: int) -> tuple[NDArray[np.float32], int]:
    """Lay a kernel (1, 1, ..., k) out as (columns, columns, ..., 2 reach + 1); and the reach."""
    *sizes, k = weights.shape[2:]
    radius = k // 2
    reach = -(-radius // columns)
    kernel = np.zeros((columns, columns, *sizes, 2 * reach + 1), np.float32)
    for column in range(columns):
        for tap in range(k):
            block, place = divmod(column + tap - radius, columns)
            kernel[column, place, ..., reach + block] = weights[0, 0, ..., tap]
    return kernel, reach


def _deals_out(conv: Any) -> bool:
    """Whether channel (c, i, j) of the image becomes pixel (i, j) of channel c, times one, and nothing else happens."""
    said, weights = conv.get_attributes(), conv.input_value(1).get_node()
    if weights.get_type_name() != "Constant" or conv.get_input_size() != 2:
        return False
    fan_in, fan_out, *sizes = weights.get_output_shape(0)
    block = sizes[0]
    padded = any((*said["pads_begin"], *said["pads_end"], *said["output_padding"]))
    alike = sizes == [block] * len(sizes) == list(said["strides"]) and set(said["dilations"]) == {1}
    if padded or not alike or block < 2 or fan_in != fan_out * block ** len(sizes):
        return False
    dealt = np.eye(fan_in, dtype=np.float32).reshape(fan_in, fan_out, *sizes)
    return bool(np.array_equal(weights.data, dealt))
