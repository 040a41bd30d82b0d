"""Volumes with their planes along Y in place of Z: the same numbers, sooner, since fewer bytes lie between neighbours.

Receives an OpenVINO graph of fixed sizes and rewrites it. A kernel of three planes meets three of (Y, X), which for 32
channels of 128 x 128 pixels are 1.5 MB and leave the cache of a core before they are met again; three of (Z, X) are not a
sixth of that where a stack has few planes. So Z and Y change places: the image is transposed at the door, one channel, and
so is every kernel. It does not know which network this is, and leaves alone what it does not understand.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_N_AXES = 5
_SWAPPED = (0, 1, 3, 2, 4)
# Measured with 8 and 16 times as many rows as planes; the closer they are, the less there is to save.
_TIMES_LONGER = 4
_SIDES = ("strides", "dilations", "pads_begin", "pads_end", "kernel", "output_padding")
# What treats all axes of an image alike, and what makes one number per channel.
_ALIKE = {
    "Add", "Constant", "Convert", "Convolution", "ConvolutionBackpropData", "Divide", "FakeQuantize", "MaxPool",
    "Multiply", "Parameter", "Relu", "Result", "ShapeOf", "Sigmoid", "SoftPlus", "Subtract",
}  # fmt: skip
_OF_ONE_PIXEL = {"Broadcast", "Gather", "Reshape", "Unsqueeze"}


def planes_along_y(ov: Any, model: Any) -> bool:
    """Rewrite a graph for stacks of few planes and many rows, if every operation of it is understood.

    Parameters
    ----------
    ov : module
        openvino.
    model : openvino.Model
        With fixed sizes; changed in place.

    Returns
    -------
    bool
        Whether it was rewritten.
    """
    nodes = model.get_ordered_ops()
    if not _is_flat(model.inputs[0]) or not all(_treats_alike(node) for node in nodes):
        return False
    for node in nodes:
        if _n_axes(node) == _N_AXES and node.get_type_name() in ("Constant", "Parameter"):
            _swap(ov, node)
    model.validate_nodes_and_infer_types()
    for result in model.get_results():
        if _n_axes(result) == _N_AXES:
            port = result.input(0)
            port.replace_source_output(ov.opset13.transpose(port.get_source_output(), np.array(_SWAPPED)).output(0))
    model.validate_nodes_and_infer_types()
    return True


def _is_flat(image: Any) -> bool:
    shape = image.get_partial_shape()
    return bool(len(shape) == _N_AXES and shape.is_static and shape.to_shape()[3] >= _TIMES_LONGER * shape.to_shape()[2])


def _treats_alike(node: Any) -> bool:
    kind = node.get_type_name()
    if all(len(port.get_partial_shape()) != _N_AXES for port in (*node.inputs(), *node.outputs())):
        return True  # no image
    if kind in _OF_ONE_PIXEL:
        return all(max(list(port.get_shape())[2:], default=1) == 1 for port in node.outputs())
    if kind == "Concat":
        return bool(node.get_attributes()["axis"] == 1)
    if kind in ("ReduceMean", "ReduceSum"):
        return _is_over_both(node.input_value(1).get_node())
    return kind in _ALIKE and _has_equal_sides(node.get_attributes())


def _is_over_both(axes: Any) -> bool:
    return bool(axes.get_type_name() == "Constant" and {2, 3} <= {int(axis) % _N_AXES for axis in axes.data.ravel()})


def _has_equal_sides(said: Mapping[str, Any]) -> bool:
    return all(len(sides) == 1 or sides[0] == sides[1] for name in _SIDES if (sides := said.get(name)))


def _n_axes(node: Any) -> int:
    source = node.input_value(0) if node.get_type_name() == "Result" else node.output(0)
    return len(source.get_partial_shape())


def _swap(ov: Any, node: Any) -> None:
    """Transpose a kernel once and for all, or an image whenever it comes."""
    takers = list(node.output(0).get_target_inputs())
    if node.get_type_name() == "Constant":
        swapped = ov.opset13.constant(np.ascontiguousarray(node.data.transpose(_SWAPPED)))
        swapped.set_friendly_name(node.get_friendly_name())
    else:
        swapped = ov.opset13.transpose(node, np.array(_SWAPPED))
    for taker in takers:
        taker.replace_source_output(swapped.output(0))
