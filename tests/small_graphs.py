"""Small ONNX graphs for tests: built by hand, node by node, or exported from the real networks with few filters."""

from functools import cache

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx


def graph(nodes, weights=(), channels=1, n_dim=2, opset=18, shape=None, outputs=("y",)):
    """Wrap nodes from `x` to `y` into the bytes of a graph; `weights` is a dict of arrays."""
    shape = shape or ["n", channels, *"zyx"[3 - n_dim :]]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    ys = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{i}" for i in range(len(shape))]) for name in outputs]
    made = helper.make_graph(nodes, "test", [x], ys, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


def node(op, inputs=("x",), outputs=("y",), **attributes):
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def single(op, *arrays, channels=1, n_dim=2, opset=18, **attributes):
    """Make a graph of one node: x, then constants."""
    names = [f"w{i}" for i in range(len(arrays))]
    weights = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    inputs = ["x", *(name if name in weights else "" for name in names)]
    return graph([node(op, inputs, **attributes)], weights, channels, n_dim, opset)


@cache
def net_graph(kind, **options):
    """Export one of the real networks, always with the same weights."""
    return to_onnx(build_net(kind, options, seed=0))


def image(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)
