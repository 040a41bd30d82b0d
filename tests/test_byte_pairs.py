"""Camera counts as pairs of bytes: the same numbers as uint16, exactly, computed by OpenVINO and by torch."""

import sys

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper
from small_graphs import graph, net_graph, node

from live_restore.engines.graphs.byte_pairs import as_byte_pairs, from_byte_pairs, has_byte_pairs
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.pooling import measuring
from live_restore.errors import ModelError

RANGE = np.array([[100.0], [900.0]], np.float32)


def run(onnx_bytes, *inputs):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(onnx_bytes), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(result) for result in compiled(list(inputs)).values()]


def counts(*shape):
    return np.random.default_rng(3).integers(0, 65536, shape, np.uint16)


def test_every_count_is_put_together_exactly():
    """All 65,536 of them, through a graph that scales by nothing."""
    every = np.arange(65536, dtype=np.uint16).reshape(1, 1, 256, 256)
    identity = from_counts(graph([node("Identity")]), rounded=True)
    unit = np.array([[0.0], [1.0]], np.float32)
    *_, found = run(from_byte_pairs(identity), as_byte_pairs(every), unit, unit)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, every)


@pytest.mark.parametrize("n_dim", [2, 3])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_network_gives_the_same_from_bytes(n_dim, rounded):
    plain = from_counts(net_graph("care", n_dim=n_dim, first_filters=4), rounded=rounded)
    image = counts(*((2, 1, 16, 20) if n_dim == 2 else (1, 1, 8, 16, 12)))
    (*_, expected), (*_, found) = (
        run(plain, image, RANGE, RANGE),
        run(from_byte_pairs(plain), as_byte_pairs(image), RANGE, RANGE),
    )
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == (np.int32 if rounded else np.float32)


def test_the_variants_for_tiles_take_bytes_too():
    plain = from_counts(measuring(net_graph("rcan", n_dim=2, groups=1, blocks=1, channels=8)))
    image, weights = counts(1, 1, 16, 20), np.full((1, 1, 16, 20), 1 / 320, np.float32)
    for found, expected in zip(
        run(from_byte_pairs(plain), as_byte_pairs(image), weights, RANGE, RANGE),
        run(plain, image, weights, RANGE, RANGE),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_what_the_graph_takes_is_in_its_description():
    before = from_counts(net_graph("care", n_dim=2, first_filters=4), rounded=True)
    assert has_byte_pairs(before)
    after = onnx.load_from_string(from_byte_pairs(before)).graph
    image, result = after.input[0].type.tensor_type, after.output[-1].type.tensor_type
    assert image.elem_type == TensorProto.UINT8 and image.shape.dim[4].dim_value == 2 and len(image.shape.dim) == 5
    assert result.elem_type == TensorProto.INT32 and not has_byte_pairs(from_byte_pairs(before))


def test_a_graph_without_uint16_computes_as_before():
    plain = net_graph("care", n_dim=2, first_filters=4)
    assert not has_byte_pairs(plain)
    image = np.random.default_rng(0).random((1, 1, 16, 16), np.float32)
    np.testing.assert_array_equal(run(from_byte_pairs(plain), image)[0], run(plain, image)[0])


def test_bytes_are_a_view_of_the_frame():
    frame = counts(1, 1, 4, 6)
    pairs = as_byte_pairs(frame)
    assert pairs.shape == (1, 1, 4, 6, 2) and np.shares_memory(pairs, frame) is (sys.byteorder == "little")
    np.testing.assert_array_equal(pairs[..., 0] + 256 * pairs[..., 1].astype(int), frame)
    swapped = frame.astype(">u2" if sys.byteorder == "little" else "<u2")
    np.testing.assert_array_equal(as_byte_pairs(swapped), pairs)
    np.testing.assert_array_equal(as_byte_pairs(frame[..., ::2]), pairs[..., ::2, :])


def uint16_graph(nodes, output=TensorProto.FLOAT):
    shape = ["n", 1, "y", "x"]
    values = helper.make_tensor_value_info("x", TensorProto.UINT16, shape), helper.make_tensor_value_info("y", output, shape)
    made = helper.make_graph(nodes, "test", [values[0]], [values[1]])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def test_an_image_that_is_not_cast_is_refused():
    with pytest.raises(
        ModelError, match="uint16 input 'x' goes to MaxPool; it can come as bytes only if it is cast to float32"
    ):
        from_byte_pairs(uint16_graph([node("MaxPool", kernel_shape=[2, 2])], TensorProto.UINT16))
    with pytest.raises(ModelError, match="uint16 input 'x' goes to Cast"):
        from_byte_pairs(uint16_graph([node("Cast", to=TensorProto.DOUBLE)], TensorProto.DOUBLE))


def test_a_result_that_is_not_cast_is_refused():
    nodes = [
        node("Cast", ("x",), ("a",), to=TensorProto.FLOAT),
        node("Cast", ("a",), ("b",), to=TensorProto.UINT16),
        node("Identity", ("b",), ("y",)),
    ]
    with pytest.raises(ModelError, match="uint16 output 'y' is made by Identity; it can be given as int32 only if a cast"):
        from_byte_pairs(uint16_graph(nodes, TensorProto.UINT16))
