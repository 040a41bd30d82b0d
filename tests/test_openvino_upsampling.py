"""Folding an upsampling into the convolution behind it changes the work, not the numbers."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from live_restore.engines.openvino.engine import OpenVinoEngine, ov, the_core
from live_restore.engines.openvino.upsampling import fold_upsampling
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import run_net, to_onnx

NETS = {
    "CARE 2D kernel 5": ("care", {"n_dim": 2, "first_filters": 4}, (36, 44), 2),
    "CARE 2D kernel 3 depth 3": ("care", {"n_dim": 2, "first_filters": 4, "kernel": 3, "depth": 3}, (40, 24), 3),
    "CARE 3D": ("care", {"n_dim": 3, "first_filters": 4}, (8, 12, 16), 2),
    "RCAN": ("rcan", {"n_dim": 2, "channels": 8, "groups": 1, "blocks": 1}, (20, 24), 0),
}


@pytest.mark.parametrize("case", NETS.values(), ids=NETS.keys())
def test_the_result_is_the_networks_own(case):
    kind, options, shape, convolutions = case
    net = build_net(kind, options, seed=5)
    onnx = to_onnx(net)
    assert fold_upsampling(ov, the_core().read_model(onnx)) == convolutions
    batch = np.random.default_rng(0).normal(size=(2, 1, *shape)).astype(np.float32)
    with OpenVinoEngine(onnx, "f32") as engine:
        (found,) = engine.infer(batch)
    expected = run_net(net, batch)
    assert np.abs(found - expected).max() <= 1e-6 * np.ptp(expected)


def upsampled(kernel=3, pads=1, stride=1, mode="nearest", scales=(2, 2), how="asymmetric"):
    """An ONNX graph of one upsampling and one convolution."""
    weights = np.random.default_rng(0).normal(size=(2, 1, kernel, kernel)).astype(np.float32)
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel().tolist()),
        helper.make_tensor("s", TensorProto.FLOAT, [4], [1, 1, *scales]),
    ]
    nodes = [
        helper.make_node(
            "Resize", ["input", "", "s"], ["up"], mode=mode, coordinate_transformation_mode=how, nearest_mode="floor"
        ),
        helper.make_node("Conv", ["up", "w"], ["output"], pads=[pads] * 4, strides=[stride] * 2),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("n", c, "y", "x")) for n, c in (("input", 1), ("output", 2))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("options", "folds"),
    [
        ({}, 1),
        ({"kernel": 5, "pads": 2}, 1),
        ({"kernel": 1, "pads": 0}, 1),
        ({"pads": 0}, 0),
        ({"stride": 2}, 0),
        ({"kernel": 4, "pads": 2}, 0),
        ({"scales": (3, 3)}, 0),
        ({"scales": (2, 1)}, 0),
        ({"mode": "linear"}, 0),
        ({"how": "half_pixel"}, 0),
    ],
    ids=str,
)
def test_only_what_is_the_same_is_folded(options, folds):
    onnx = upsampled(**options)
    plain, model = the_core().read_model(onnx), the_core().read_model(onnx)
    assert fold_upsampling(ov, model) == folds
    image = np.random.default_rng(1).normal(size=(1, 1, 12, 14)).astype(np.float32)
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    results = [the_core().compile_model(m, "CPU", precise)(image)[0] for m in (plain, model)]
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)
