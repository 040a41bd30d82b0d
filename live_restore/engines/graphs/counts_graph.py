"""Camera counts in, camera counts out: the scaling to network units and back, put into the ONNX graph.

Receives the graph of a network that works between 0 and 1; hands on one that takes the camera's own counts and gives counts,
so that no scaled copy of an image is ever made. It does not know how the ranges are measured: they are two more inputs::

    counts_in, counts_out    float32 (2, channels): low and span (high - low) of what becomes 0 and 1, of every channel
    (counts - low) / span  ->  the network  ->  x span + low

These are the operations of `live_restore.intensity.IntensityRange` in the same order, so the numbers are the same.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from live_restore.engines.graphs.onnx_file import read_onnx
from live_restore.errors import ModelError

ImageType = Literal["uint16", "float32"]

# Names of what is added to the graph.
COUNTS = "counts"
RESTORED = "counts_restored"
MEAN = "counts_mean"
COUNTS_IN = "counts_in"
COUNTS_OUT = "counts_out"
_MOST_COUNTS = 65535
_ELEMENTS = {"uint16": TensorProto.UINT16, "float32": TensorProto.FLOAT}
# Round exists, and Clip takes its limits as inputs, from here on.
_ROUND_OPSET = 11


def from_counts(onnx_bytes: bytes, image: ImageType = "uint16", rounded: bool = False) -> bytes:
    """Let a graph take camera counts and give camera counts.

    Parameters
    ----------
    onnx_bytes : bytes
        A network (N, C, [Z,] Y, X) to (N, C', [Z,] Y, X), or one of its variants from `live_restore.engines.graphs.pooling`:
        the image is the first input and the last output.
    image : {"uint16", "float32"}
        What the counts come as.
    rounded : bool
        Give whole counts, uint16, clipped to 0 .. 65535 (halves to the even neighbour; upward before opset 11); otherwise
        float32. Since rounding makes numbers of what is none, the output before the last is then the mean of the counts
        before they were rounded, (N, C', [1,] 1, 1) float32: it is finite if and only if they all are.

    Returns
    -------
    bytes
        A graph with the inputs counts (N, C, [Z,] Y, X), those of before but the image, ``counts_in`` (2, C) and
        ``counts_out`` (2, C'), and the outputs of before, the last in counts. The widths of a probabilistic network have
        low 0; what is no intensity keeps its units with low 0 and span 1.

    Raises
    ------
    ModelError
        If the graph is none, takes counts already, or is not one of images.
    """
    file = read_onnx(onnx_bytes)
    graph, (network_image, *others), result = file.graph, file.inputs, file.output_names[-1]
    _check_names(file.model)
    n_axes, n_axes_out = _axes_of(network_image), _axes_of(graph.output[-1])
    nodes = [
        *_scaling(network_image.name, n_axes),
        *graph.node,
        *_unscaling(result, n_axes_out, rounded, file.opset),
    ]
    inputs = [
        _like(network_image, COUNTS, _ELEMENTS[image]),
        *others,
        _range(COUNTS_IN, network_image.type.tensor_type.shape.dim[1].dim_value),
        _range(COUNTS_OUT, 0),
        *(value for value in graph.input if value.name in file.weights),  # old files list their weights as inputs too
    ]
    last = _like(graph.output[-1], RESTORED, _ELEMENTS["uint16" if rounded else "float32"])
    mean = helper.make_tensor_value_info(MEAN, TensorProto.FLOAT, [None] * n_axes_out)
    outputs = [*graph.output[:-1], *([mean] if rounded else []), last]
    _replace(graph.node, nodes)
    _replace(graph.input, inputs)
    _replace(graph.output, outputs)
    onnx.checker.check_model(file.model)
    return bytes(file.model.SerializeToString())


def _scaling(image: str, n_axes: int) -> list[NodeProto]:
    """Make the nodes from counts to what the network takes."""
    ranges, low, span = _low_and_span(COUNTS_IN, n_axes)
    return [
        *ranges,
        helper.make_node("Cast", [COUNTS], [f"{COUNTS}/float32"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{COUNTS}/float32", low], [f"{COUNTS}/above_low"]),
        helper.make_node("Div", [f"{COUNTS}/above_low", span], [image]),
    ]


def _unscaling(result: str, n_axes: int, rounded: bool, opset: int) -> list[NodeProto]:
    """Make the nodes from what the network gives to counts."""
    ranges, low, span = _low_and_span(COUNTS_OUT, n_axes)
    last = f"{RESTORED}/float32" if rounded else RESTORED
    nodes = [
        *ranges,
        helper.make_node("Mul", [result, span], [f"{RESTORED}/above_low"]),
        helper.make_node("Add", [f"{RESTORED}/above_low", low], [last]),
    ]
    return [*nodes, *_rounding(last, opset)] if rounded else nodes


def _low_and_span(name: str, n_axes: int) -> tuple[list[NodeProto], str, str]:
    """Make the nodes that lay low and span of a range, (2, C), along the channels of an image: (1, C, [1,] 1, 1) each."""
    low, span = f"{name}/low", f"{name}/span"
    nodes = [
        _constant(f"{name}/shape", np.array([2, -1, *[1] * (n_axes - 2)])),
        helper.make_node("Reshape", [name, f"{name}/shape"], [f"{name}/rows"]),
    ]
    for row, part in enumerate((low, span)):
        nodes += [
            _constant(f"{part}/row", np.array([row])),
            helper.make_node("Gather", [f"{name}/rows", f"{part}/row"], [part], axis=0),
        ]
    return nodes, low, span


def _rounding(counts: str, opset: int) -> list[NodeProto]:
    whole, clipped = f"{RESTORED}/whole", f"{RESTORED}/clipped"
    mean = helper.make_node("GlobalAveragePool", [counts], [MEAN])
    cast = helper.make_node("Cast", [clipped], [RESTORED], to=TensorProto.UINT16)
    if opset >= _ROUND_OPSET:
        limits = [f"{RESTORED}/least", f"{RESTORED}/most"]
        return [
            *(_constant(name, np.array(limit, np.float32)) for name, limit in zip(limits, (0, _MOST_COUNTS), strict=True)),
            helper.make_node("Round", [counts], [whole]),
            helper.make_node("Clip", [whole, *limits], [clipped]),
            mean,
            cast,
        ]
    return [
        _constant(f"{RESTORED}/half", np.array(0.5, np.float32)),
        helper.make_node("Add", [counts, f"{RESTORED}/half"], [f"{whole}/above"]),
        helper.make_node("Floor", [f"{whole}/above"], [whole]),
        helper.make_node("Clip", [whole], [clipped], min=0.0, max=float(_MOST_COUNTS)),
        mean,
        cast,
    ]


def _constant(name: str, array: NDArray[np.int64] | NDArray[np.float32]) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def _check_names(model: ModelProto) -> None:
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if taken := sorted(names & {COUNTS, RESTORED, MEAN, COUNTS_IN, COUNTS_OUT}):
        raise ModelError(f"the graph has a {taken[0]!r} of its own, so it takes counts already; give the plain network")


def _axes_of(image: ValueInfoProto) -> int:
    axes = len(image.type.tensor_type.shape.dim)
    if axes not in (4, 5):
        raise ModelError(f"{image.name!r} of the graph has {axes} axes; an image has 4, (N, C, Y, X), or 5, (N, C, Z, Y, X)")
    return axes


def _like(value: ValueInfoProto, name: str, element: int) -> ValueInfoProto:
    """Describe a tensor of the same shape under another name and dtype."""
    other = ValueInfoProto()
    other.CopyFrom(value)
    other.name = name
    other.type.tensor_type.elem_type = element
    return other


def _range(name: str, channels: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, channels or f"{name}_channels"])


def _replace(field: "list[NodeProto] | list[ValueInfoProto]", messages: Iterable[NodeProto | ValueInfoProto]) -> None:
    """Fill a repeated field anew; copies first, since emptying it takes its messages away."""
    copies = [type(message).FromString(message.SerializeToString()) for message in messages]
    del field[:]
    field.extend(copies)
