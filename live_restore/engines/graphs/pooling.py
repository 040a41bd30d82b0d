"""The pooling of a whole image over tiles: two variants of a network with channel attention, made from its ONNX graph.

Receives the graph of a network that takes means over the whole image (RCAN's channel attention); hands on graphs that give
these means tile by tile, or are given them. It does not know tiles: whoever cuts the image makes the weights and adds up.

How a tiled image gets (nearly) what the whole image would::

    weights = 1 / pixels of the whole image on the tile's own core, 0 on its halo
    first pass    means, output = measuring(tile, weights)            add `means` over all tiles; `output` is a first guess
    second pass   means, output = applying(tile, weights, means)      `means` may be added up again for another pass

After the first pass the first mean of the network is exact (given a halo of the receptive field), after p passes the first
p means are. Every mean depends but weakly on those before it, so that two passes are enough for a trained network.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from live_restore.engines.graphs.onnx_file import OnnxFile, attribute, read_onnx
from live_restore.errors import ModelError

# Names of what is added to the graph.
WEIGHTS = "pooling_weights"
MEANS = "pooling_means"
MEASURED = "pooling_measured"
_AXES = "pooling_axes"
_SIZES = "pooling_sizes"

# ReduceSum and Unsqueeze take their axes as an input from here on.
_OLDEST_OPSET = 13

_WHOLE_IMAGE_STATISTICS = ("InstanceNormalization", "GroupNormalization", "GlobalMaxPool", "GlobalLpPool")


def measuring(onnx_bytes: bytes) -> bytes:
    """Let a graph also give the weighted sums of every feature that it takes the mean of.

    Parameters
    ----------
    onnx_bytes : bytes
        One input (N, C, [Z,] Y, X), one output.

    Returns
    -------
    bytes
        A graph with the inputs (N, C, [Z,] Y, X) and weights (N, 1, [Z,] Y, X), and the outputs sums (N, K), K being the
        channels of all features together, and that of before (from the tile's own means).

    Raises
    ------
    ModelError
        If the graph takes no mean over the image, or other statistics that cannot be added up over tiles.
    """
    file, pooled = _open(onnx_bytes)
    graph = file.graph
    _replace_nodes(graph, [*graph.node, *_measurement(pooled)])
    return _finished(file.model, pooled, [_weights_input(graph)])


def applying(onnx_bytes: bytes) -> bytes:
    """Let a graph use given means in place of its own, and measure them anew.

    Parameters
    ----------
    onnx_bytes : bytes
        The plain graph, as for `measuring`.

    Returns
    -------
    bytes
        A graph with the inputs (N, C, [Z,] Y, X), weights (N, 1, [Z,] Y, X) and means (N, K), and the outputs sums (N, K)
        and that of before (from the given means).

    Raises
    ------
    ModelError
        As `measuring`.
    """
    file, pooled = _open(onnx_bytes)
    graph = file.graph
    own_means = {p.node.output[0] for p in pooled}
    kept = [node for node in graph.node if node.output[0] not in own_means]
    _replace_nodes(graph, [*_given_means(pooled), *kept, *_measurement(pooled)])
    graph.initializer.append(numpy_helper.from_array(np.array([p.channels for p in pooled], np.int64), _SIZES))
    means = helper.make_tensor_value_info(MEANS, TensorProto.FLOAT, ["batch", sum(p.channels for p in pooled)])
    return _finished(file.model, pooled, [_weights_input(graph), means])


@dataclass(frozen=True, slots=True)
class _Pooled:
    """One mean over the whole image: the node that takes it, and the channels of what it is taken of."""

    node: NodeProto
    channels: int

    @property
    def keeps_axes(self) -> bool:
        """Whether the mean is (N, C, [1,] 1, 1), not (N, C)."""
        return self.node.op_type == "GlobalAveragePool" or bool(attribute(self.node, "keepdims", 1))


def _open(onnx_bytes: bytes) -> tuple[OnnxFile, list[_Pooled]]:
    file = read_onnx(onnx_bytes)
    if len(file.inputs) != 1 or len(file.output_names) != 1:
        raise ModelError(
            f"the graph has {len(file.inputs)} inputs and {len(file.output_names)} outputs; take the plain network, with "
            "one of each"
        )
    if file.opset < _OLDEST_OPSET:
        raise ModelError(
            f"the graph has opset {file.opset}; {_OLDEST_OPSET} or later is needed here, so export it with opset 18"
        )
    for node in file.graph.node:
        if node.op_type in _WHOLE_IMAGE_STATISTICS:
            raise ModelError(
                f"the network uses {node.op_type} over the whole image, which cannot be added up over tiles; restore the image "
                "in one piece"
            )
    return file, _find(file)


def _find(file: OnnxFile) -> list[_Pooled]:
    ndim = len(file.inputs[0].type.tensor_type.shape.dim)
    channels = _channels(file.model)
    found = [node for node in file.graph.node if _takes_image_mean(node, file, ndim)]
    if not found:
        raise ModelError(
            "the network takes no mean over the whole image, so its tiles are exact as they are; use the plain graph"
        )
    if unknown := [node.input[0] for node in found if not channels.get(node.input[0])]:
        raise ModelError(f"the channels of {unknown[0]!r} cannot be told from the graph; export it with fixed channels")
    return [_Pooled(node, channels[node.input[0]]) for node in found]


def _takes_image_mean(node: NodeProto, file: OnnxFile, ndim: int) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    return {axis % ndim for axis in _reduced_axes(node, file)} == set(range(2, ndim))


def _reduced_axes(node: NodeProto, file: OnnxFile) -> Iterable[int]:
    if len(node.input) < 2:
        return [int(axis) for axis in attribute(node, "axes", ())]
    constants = {n.outputs[0]: next(iter(n.attributes.values()), ()) for n in file.nodes if n.op == "Constant"}
    axes = (file.weights | constants).get(node.input[1], ())
    return [int(axis) for axis in np.ravel(axes)]


def _channels(model: ModelProto) -> dict[str, int]:
    """Size of axis 1 of every tensor, as far as it is fixed."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError) as wrong:
        raise ModelError(f"the sizes in the ONNX graph contradict each other ({wrong}); export it again") from wrong
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.input)}
    return {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) > 1}


def _measurement(pooled: list[_Pooled]) -> list[NodeProto]:
    """Make the nodes that sum every pooled feature with the weights, and join the sums to (N, K)."""
    nodes, sums = [], []
    for i, p in enumerate(pooled):
        weighted, total = f"{MEASURED}/{i}/weighted", f"{MEASURED}/{i}"
        nodes.append(helper.make_node("Mul", [p.node.input[0], WEIGHTS], [weighted]))
        nodes.append(helper.make_node("ReduceSum", [weighted, _AXES], [total], keepdims=0))
        sums.append(total)
    return [*nodes, helper.make_node("Concat", sums, [MEASURED], axis=1)]


def _given_means(pooled: list[_Pooled]) -> list[NodeProto]:
    """Make the nodes that deal the given means out, under the names of those that the graph computed itself."""
    pieces = [f"{MEANS}/{i}" if p.keeps_axes else p.node.output[0] for i, p in enumerate(pooled)]
    split = helper.make_node("Split", [MEANS, _SIZES], pieces, axis=1)
    shaped = [
        helper.make_node("Unsqueeze", [piece, _AXES], [p.node.output[0]])
        for piece, p in zip(pieces, pooled, strict=True)
        if p.keeps_axes
    ]
    return [split, *shaped]


def _weights_input(graph: GraphProto) -> ValueInfoProto:
    """Describe the weights: as the image, with one channel."""
    image = next(value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer})
    weights = ValueInfoProto()
    weights.CopyFrom(image)
    weights.name = WEIGHTS
    weights.type.tensor_type.shape.dim[1].dim_value = 1
    return weights


def _replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _finished(model: ModelProto, pooled: list[_Pooled], inputs: list[ValueInfoProto]) -> bytes:
    graph = model.graph
    ndim = len(graph.input[0].type.tensor_type.shape.dim)
    graph.initializer.append(numpy_helper.from_array(np.arange(2, ndim, dtype=np.int64), _AXES))
    graph.input.extend(inputs)
    total = sum(p.channels for p in pooled)
    # The sums come first: runtimes compute outputs in their order, and would otherwise hold every pooled feature, 93 MB
    # each in a tile of 726,000 pixels, until the image is done (1869 MB instead of 659 in all were measured).
    outputs = [helper.make_tensor_value_info(MEASURED, TensorProto.FLOAT, ["batch", total]), *graph.output]
    del graph.output[:]
    graph.output.extend(outputs)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
