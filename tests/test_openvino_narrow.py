"""Filters on one channel, done on several columns at once: the same numbers, and only where they are the same."""

import numpy as np
import pytest
from small_graphs import graph, image, net_graph, node

from live_restore.engines.engine import open_engine
from live_restore.engines.openvino.engine import ov, the_core
from live_restore.engines.openvino.narrow import deal_out_pixels, fold_columns


def rewritten(onnx, *shape):
    """How many filters on columns, and how many dealings-out, there are for images of this shape."""
    model = the_core().read_model(onnx)
    dealt = deal_out_pixels(ov, model)
    model.reshape(ov.PartialShape(shape))
    return fold_columns(ov, model), dealt


def filtering(*kernel, fan_out=1, fan_in=1, **attributes):
    weights = np.random.default_rng(1).normal(size=(fan_out, fan_in, *kernel)).astype(np.float32)
    pads = attributes.pop("pads", [size // 2 for size in kernel] * 2)
    nodes = [node("Conv", ["x", "w"], pads=pads, **attributes)]
    return graph(nodes, {"w": weights}, channels=fan_in, n_dim=len(kernel))


@pytest.mark.parametrize("width", [4, 8, 20, 24, 48])
@pytest.mark.parametrize("kernel", [(7, 7), (3, 3), (1, 5), (5, 13), (1, 35), (3, 5, 5)], ids=str)
def test_the_numbers_are_the_same(kernel, width):
    onnx, batch = filtering(*kernel), image(2, 1, *(9,) * (len(kernel) - 1), width)
    assert rewritten(onnx, *batch.shape) == (1, 0)
    with open_engine("openvino", onnx) as engine, open_engine("torch", onnx) as reference:
        np.testing.assert_allclose(engine.infer(batch)[0], reference.infer(batch)[0], atol=1e-5)


NOT_REWRITTEN = [
    ("width", filtering(7, 7), (1, 1, 16, 18)),
    ("two channels", filtering(7, 7, fan_in=2), (1, 2, 16, 16)),
    ("fan out", filtering(7, 7, fan_out=2), (1, 1, 16, 16)),
    ("stride", filtering(7, 7, strides=[2, 2]), (1, 1, 16, 16)),
    ("dilation", filtering(3, 3, dilations=[2, 2]), (1, 1, 16, 16)),
    ("no padding", filtering(7, 7, pads=[0] * 4), (1, 1, 16, 16)),
    ("one column", filtering(7, 1), (1, 1, 16, 16)),
    ("even", filtering(4, 4), (1, 1, 16, 16)),
]


@pytest.mark.parametrize(("onnx", "shape"), [row[1:] for row in NOT_REWRITTEN], ids=[row[0] for row in NOT_REWRITTEN])
def test_other_filters_stay_as_they_are(onnx, shape):
    batch = image(*shape)
    assert rewritten(onnx, *shape) == (0, 0)
    with open_engine("openvino", onnx) as engine, open_engine("torch", onnx) as reference:
        np.testing.assert_allclose(engine.infer(batch)[0], reference.infer(batch)[0], atol=1e-5)


def dealing(weights, n_dim=2, **attributes):
    block = weights.shape[-1]
    nodes = [node("ConvTranspose", ["x", "w"], **{"strides": [block] * n_dim, **attributes})]
    return graph(nodes, {"w": weights}, channels=len(weights), n_dim=n_dim)


def dealt_weights(channels, block, n_dim=2):
    eye = np.eye(channels * block**n_dim, dtype=np.float32)
    return eye.reshape(channels * block**n_dim, channels, *[block] * n_dim)


@pytest.mark.parametrize(("channels", "block", "n_dim"), [(1, 2, 2), (3, 2, 2), (1, 4, 2), (2, 2, 3)])
def test_channels_are_dealt_out_to_pixels(channels, block, n_dim):
    onnx = dealing(dealt_weights(channels, block, n_dim), n_dim)
    batch = image(2, channels * block**n_dim, *(4, 5, 6)[-n_dim:])
    assert rewritten(onnx, *batch.shape) == (0, 1)
    with open_engine("openvino", onnx) as engine, open_engine("torch", onnx) as reference:
        np.testing.assert_array_equal(engine.infer(batch)[0], reference.infer(batch)[0])


@pytest.mark.parametrize(
    "onnx",
    [
        dealing(2 * dealt_weights(1, 2)),
        dealing(dealt_weights(1, 2)[::-1].copy()),
        dealing(dealt_weights(1, 2), strides=[1, 1]),
        dealing(dealt_weights(1, 2), pads=[1, 0, 0, 0]),
        dealing(dealt_weights(1, 2), output_padding=[1, 1]),
    ],
    ids=["doubled", "in another order", "stride", "cut", "enlarged"],
)
def test_other_transposed_convolutions_stay_as_they_are(onnx):
    batch = image(1, 4, 6, 8)
    assert rewritten(onnx, *batch.shape) == (0, 0)
    with open_engine("openvino", onnx) as engine, open_engine("torch", onnx) as reference:
        np.testing.assert_allclose(engine.infer(batch)[0], reference.infer(batch)[0], atol=1e-6)


@pytest.mark.parametrize(("n_dim", "shape"), [(2, (1, 1, 32, 48)), (3, (1, 1, 8, 16, 32))])
def test_a_light_network_has_both(n_dim, shape):
    onnx = net_graph("care", n_dim=n_dim, kernel=3, first_filters=4, entry=2, skip_kernel=3 if n_dim == 3 else 7)
    assert rewritten(onnx, *shape) == (1, 1)
    with open_engine("openvino", onnx) as engine, open_engine("torch", onnx) as reference:
        found, expected = engine.infer(image(*shape))[0], reference.infer(image(*shape))[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)
