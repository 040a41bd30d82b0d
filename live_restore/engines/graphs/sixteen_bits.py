"""A network in 16 bits: the precision written into its ONNX graph, as TensorRT takes it.

Receives a float32 graph; hands on one with the same inputs and outputs, whose layers between the first convolution and the
last compute in float16 or bfloat16. It does not know engines.

What stays in float32: everything before the first convolution and after the last (camera counts are scaled and unscaled
there, and the residual image is added), means and sums over the image (a sum over millions of pixels does not fit into 16
bits), and statistics of normalisations.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from live_restore.engines.graphs.onnx_file import OnnxFile, read_onnx
from live_restore.errors import EngineError, ModelError

SixteenBits = Literal["f16", "bf16"]

_ELEMENTS: dict[str, int] = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_LARGEST_F16 = 65504.0

# Where the arithmetic is; everything between the first and the last of these is the network.
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# Over the whole image, or with statistics of their own.
_IN_FLOAT32 = (
    "GlobalAveragePool",
    "GlobalLpPool",
    "ReduceMean",
    "ReduceSum",
    "ReduceL2",
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "CumSum",
)
# Their results have the type that they name themselves.
_NAMED_TYPE = ("Cast", "CastLike", "Constant", "ConstantOfShape", "Range", "EyeLike", "RandomNormal", "QuantizeLinear")
# Their results are sizes, which are counted in float32 or whole numbers.
_TELLS_SIZES = ("Shape", "Size", "NonZero")
# Inputs that are float32 in every version of ONNX, by their places.
_ALWAYS_FLOAT32 = {"Resize": (1, 2), "Upsample": (1,)}


def in_sixteen_bits(onnx_bytes: bytes, precision: SixteenBits) -> bytes:
    """Write a precision of 16 bits into a graph.

    Parameters
    ----------
    onnx_bytes : bytes
        Float32 within: a plain network, or one made from it by `live_restore.engines.graphs.counts_graph` or
        `live_restore.engines.graphs.pooling`.
    precision : {"f16", "bf16"}

    Returns
    -------
    bytes
        The same inputs and outputs. The weights of the layers are stored in 16 bits, so that the file is half as large.

    Raises
    ------
    EngineError
        If a weight is too large for f16.
    ModelError
        If the bytes are no graph, or its sizes contradict each other.
    """
    file = read_onnx(onnx_bytes)
    _Narrow(file, precision).write()
    onnx.checker.check_model(file.model)
    return bytes(file.model.SerializeToString())


class _Narrow:
    """One graph on its way to 16 bits."""

    def __init__(self, file: OnnxFile, precision: SixteenBits) -> None:
        self.file, self.graph, self.precision = file, file.graph, precision
        self.floats = _float_tensors(file)
        self.constants = _constants(file)
        self.inner = _inner_nodes(file)
        # what the inner nodes compute, which is all there is in 16 bits
        self.narrow = {name for at in self.inner for name in self.graph.node[at].output if name in self.floats}
        self.nodes: list[NodeProto] = []
        self.cast: set[str] = set()

    def write(self) -> None:
        """Cast at every border between the inner nodes and the rest."""
        for at, node in enumerate(self.graph.node):
            for place, name in enumerate(node.input):
                if name in self.floats:
                    wide = at not in self.inner or place in _ALWAYS_FLOAT32.get(node.op_type, ())
                    node.input[place] = self._widened(name) if wide else self._narrowed(name)
            self.nodes.append(node)
            if at in self.inner:
                self._keep_results(node)
        _replace_nodes(self.graph, self.nodes)
        _drop_unused(self.graph, self.file.output_names)
        # what it says of the tensors within is no longer so
        del self.graph.value_info[:]

    def _narrowed(self, name: str) -> str:
        """Name the tensor in 16 bits; constants are converted, everything else is cast once."""
        if name in self.narrow:
            return name
        cast = f"{name}/{self.precision}"
        if cast not in self.cast:
            self.cast.add(cast)
            if name in self.constants:
                self.graph.initializer.append(_tensor(self.constants[name], cast, self.precision))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [cast], to=_ELEMENTS[self.precision]))
        return cast

    def _widened(self, name: str) -> str:
        """Name the tensor in float32."""
        if name not in self.narrow:
            return name
        cast = f"{name}/f32"
        if cast not in self.cast:
            self.cast.add(cast)
            self.nodes.append(helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT))
        return cast

    def _keep_results(self, node: NodeProto) -> None:
        """Let the graph's own results keep their name and be float32."""
        for place, name in enumerate(node.output):
            if name in self.narrow and name in self.file.output_names:
                node.output[place] = f"{name}/computed"
                self.nodes.append(helper.make_node("Cast", [node.output[place]], [name], to=TensorProto.FLOAT))
                self.narrow.remove(name)


def _inner_nodes(file: OnnxFile) -> set[int]:
    """Find the nodes between the first layers and the last, by their place in the graph."""
    nodes = file.graph.node
    after, before = set[str](), set[str]()  # tensors with a layer somewhere before them, and somewhere after them
    for node in nodes:
        if node.op_type in _LAYERS or (node.op_type not in _TELLS_SIZES and after.intersection(node.input)):
            after.update(node.output)
    for node in reversed(nodes):
        if node.op_type in _LAYERS or before.intersection(node.output):
            before.update(node.input)
    return {
        at
        for at, node in enumerate(nodes)
        if node.op_type in _LAYERS
        or (
            node.op_type not in _IN_FLOAT32 + _NAMED_TYPE
            and after.intersection(node.input)
            and before.intersection(node.output)
        )
    }


def _float_tensors(file: OnnxFile) -> set[str]:
    """Name every float32 tensor."""
    try:
        graph = onnx.shape_inference.infer_shapes(file.model, strict_mode=True).graph
    except (onnx.shape_inference.InferenceError, ValueError) as wrong:
        raise ModelError(f"the sizes in the ONNX graph contradict each other ({_briefly(wrong)}); export it again") from wrong
    values = (*graph.input, *graph.value_info, *graph.output)
    found = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _constants(file: OnnxFile) -> dict[str, NDArray[Any]]:
    """Give all float32 arrays that are stored in the graph, by name."""
    written = {n.outputs[0]: n.attributes["value"] for n in file.nodes if n.op == "Constant" and "value" in n.attributes}
    return {name: array for name, array in (file.weights | written).items() if array.dtype == np.float32}


def _tensor(array: NDArray[Any], name: str, precision: SixteenBits) -> TensorProto:
    """Round an array to 16 bits."""
    if precision == "bf16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        halfway = ((bits >> 16) & 1) + np.uint32(0x7FFF)  # to the nearest, halves to the even neighbour
        rounded = ((bits + halfway) >> 16).astype("<u2")
        return helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, rounded.tobytes(), raw=True)
    largest = float(np.abs(array).max(initial=0))
    if not largest <= _LARGEST_F16:
        raise EngineError(
            f"the weights {name.removesuffix('/f16')!r} go up to {largest:.3g}; f16 ends at {_LARGEST_F16:.0f}, so use bf16 or "
            "f32"
        )
    return numpy_helper.from_array(array.astype(np.float16), name)


def _briefly(reason: Exception) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__


def _replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _drop_unused(graph: GraphProto, results: list[str]) -> None:
    """Remove the float32 weights of which only the 16 bits are used now."""
    used = {name for node in graph.node for name in node.input} | set(results)
    kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in graph.initializer if tensor.name in used]
    dropped = {tensor.name for tensor in graph.initializer} - {tensor.name for tensor in kept}
    del graph.initializer[:]
    graph.initializer.extend(kept)
    listed = [value for value in graph.input if value.name in dropped]  # old files list their weights as inputs too
    for value in listed:
        graph.input.remove(value)
