"""Planes along Y: the same numbers from a graph whose Z and Y changed places, and nothing changed that is not understood."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from live_restore.engines.engine import open_engine
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.openvino.axes import planes_along_y
from live_restore.engines.openvino.engine import ov, the_core
from live_restore.engines.openvino.upsampling import fold_upsampling
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx

FLAT = (1, 1, 8, 32, 40)
NETS = {
    "CARE": ("care", {"n_dim": 3, "first_filters": 4, "depth": 1}),
    "probabilistic CARE": ("care", {"n_dim": 3, "first_filters": 4, "depth": 2, "probabilistic": True}),
    "RCAN": ("rcan", {"n_dim": 3, "channels": 8, "groups": 2, "blocks": 1, "reduction": 4}),
}


def model_of(onnx, *shapes):
    model = the_core().read_model(onnx)
    fold_upsampling(ov, model)
    model.reshape({port: ov.PartialShape(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
    return model


def run(model, *inputs):
    request = the_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    request.infer(dict(enumerate(inputs)))
    return [tensor.data.copy() for tensor in request.output_tensors]


def both(onnx, *inputs):
    """Give what the graph gives, and what it gives with its axes swapped."""
    shapes = [array.shape for array in inputs]
    plain, swapped = model_of(onnx, *shapes), model_of(onnx, *shapes)
    assert planes_along_y(ov, swapped)
    return run(plain, *inputs), run(swapped, *inputs)


def image(shape=FLAT, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", NETS)
def test_the_numbers_are_the_same(name):
    kind, options = NETS[name]
    onnx = to_onnx(build_net(kind, options, seed=1))
    plain, swapped = both(onnx, image())
    assert [each.shape for each in swapped] == [each.shape for each in plain]
    np.testing.assert_allclose(swapped[-1], plain[-1], atol=1e-5 * float(np.ptp(plain[-1])))


def test_counts_and_both_passes_over_tiles_are_the_same():
    onnx = to_onnx(build_net(*NETS["RCAN"], seed=2))
    counts = np.rint(image() * 100 + 500).astype(np.uint16)
    span = np.array([[200.0], [900.0]], np.float32)
    plain, swapped = both(from_counts(onnx), counts, span, span)
    np.testing.assert_allclose(swapped[0], plain[0], atol=0.05)
    weights = np.abs(image(seed=5)) / 1e4
    plain, swapped = both(measuring(onnx), image(), weights)
    means = plain[0]
    for one, other in zip(plain, swapped, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * max(1.0, float(np.ptp(one))))
    plain, swapped = both(applying(onnx), image(), weights, means)
    np.testing.assert_allclose(swapped[-1], plain[-1], atol=1e-5 * float(np.ptp(plain[-1])))


@pytest.mark.parametrize("shape", [(1, 1, 16, 32, 40), (1, 1, 40, 8, 40)])
def test_stacks_that_are_not_flat_stay_as_they_are(shape):
    model = model_of(to_onnx(build_net(*NETS["CARE"], seed=1)), shape)
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert not planes_along_y(ov, model)
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


def test_planes_alone_stay_as_they_are():
    model = model_of(to_onnx(build_net("care", {"n_dim": 2, "first_filters": 4, "depth": 1}, seed=1)), (1, 1, 32, 256))
    assert not planes_along_y(ov, model)


def graph(kernel, **said):
    """A network of one convolution."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, kernel.shape, kernel.astype(np.float32).tobytes(), raw=True)
    open_shape = ["n", 1, "z", "y", "x"]
    made = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["made"], **said)],
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, open_shape)],
        [helper.make_tensor_value_info("made", TensorProto.FLOAT, open_shape)],
        [weights],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_a_kernel_of_unequal_sides_is_turned_or_left_alone():
    kernel = np.random.default_rng(3).normal(size=(1, 1, 1, 3, 5))
    alike = graph(kernel, pads=[1, 1, 2, 1, 1, 2])
    plain, swapped = both(alike, image())
    np.testing.assert_allclose(swapped[0], plain[0], atol=1e-5)
    unlike = model_of(graph(kernel, pads=[0, 1, 2, 0, 1, 2]), FLAT)
    assert not planes_along_y(ov, unlike)
    assert not planes_along_y(ov, model_of(graph(kernel, pads=[1, 1, 2, 1, 1, 2], strides=[1, 2, 1]), FLAT))


def test_what_is_not_understood_is_left_alone():
    made = helper.make_graph(
        [helper.make_node("Transpose", ["image"], ["made"], perm=[0, 1, 4, 3, 2])],
        "other",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, FLAT)],
        [helper.make_tensor_value_info("made", TensorProto.FLOAT, ["n", 1, "x", "y", "z"])],
    )
    onnx = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    assert not planes_along_y(ov, model_of(onnx, FLAT))


@pytest.mark.parametrize("name", NETS)
def test_the_engine_gives_the_same_for_flat_and_deep_stacks(name):
    kind, options = NETS[name]
    onnx = to_onnx(build_net(kind, options, seed=1))
    pixels = image()
    with open_engine("openvino", onnx, "f32") as engine:
        swapped = engine.infer(pixels)[-1]
    np.testing.assert_allclose(swapped, run(model_of(onnx, FLAT), pixels)[-1], atol=1e-5 * float(np.ptp(swapped)))
