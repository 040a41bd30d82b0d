"""Means over a whole image, gathered tile by tile, against the network on the whole image."""

import time
from itertools import product

import numpy as np
import pytest
import torch
from small_graphs import graph, image, net_graph, node, single

from live_restore.engines.engine import open_engine
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.errors import ModelError
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx

SMALL = {"channels": 8, "reduction": 4, "groups": 2, "blocks": 2}
ENGINES = ("openvino", "torch")


def even(shape):
    """Make the weights of a tile that is the whole image."""
    return np.full((shape[0], 1, *shape[2:]), 1 / np.prod(shape[2:]), np.float32)


def relative(found, expected):
    return float(np.abs(found - expected).max() / (expected.max() - expected.min()))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(("n_dim", "shape"), [(2, (2, 1, 40, 56)), (3, (1, 1, 6, 24, 20))], ids=["2d", "3d"])
def test_whole_image_as_one_tile(kind, n_dim, shape):
    onnx, batch = net_graph("rcan", n_dim=n_dim, **SMALL), image(*shape)
    with (
        open_engine(kind, onnx) as plain,
        open_engine(kind, measuring(onnx)) as first,
        open_engine(kind, applying(onnx)) as later,
    ):
        (expected,) = plain.infer(batch)
        means, output = first.infer(batch, even(shape))
        means_again, again = later.infer(batch, even(shape), means)
    assert means.shape == (shape[0], 4 * 8)
    assert relative(output, expected) < 1e-5
    assert relative(again, expected) < 1e-5
    np.testing.assert_allclose(means_again, means, atol=1e-5)


def test_given_means_are_what_counts():
    onnx, batch = net_graph("rcan", n_dim=2, **SMALL), image(1, 1, 32, 32)
    with open_engine("openvino", applying(onnx)) as engine:
        means = image(1, 32)
        dark = engine.infer(batch, even(batch.shape), means)[1]
        bright = engine.infer(batch, even(batch.shape), means + 1)[1]
        assert relative(bright, dark) > 1e-4


def tiles(shape, core, halo):
    """Cut: (slices of the tile, slices of its core in the image, slices of its core in the tile)."""
    for corner in product(*(range(0, size, core) for size in shape)):
        ends = [min(start + core, size) for start, size in zip(corner, shape, strict=True)]
        outer = [(max(0, a - halo), min(size, b + halo)) for a, b, size in zip(corner, ends, shape, strict=True)]
        inner = [slice(a - lo, b - lo) for a, b, (lo, _) in zip(corner, ends, outer, strict=True)]
        yield [slice(*o) for o in outer], [slice(a, b) for a, b in zip(corner, ends, strict=True)], inner


def restore_in_tiles(onnx, batch, core, halo, passes):
    """Restore in passes over tiles; the output of every pass."""
    outputs, means = [], None
    with open_engine("openvino", measuring(onnx)) as first, open_engine("openvino", applying(onnx)) as later:
        for _ in range(passes):
            output, summed = np.empty_like(batch), np.zeros(1, np.float32)
            for outer, core_of_image, core_of_tile in tiles(batch.shape[2:], core, halo):
                tile = batch[(..., *outer)]
                weights = np.zeros((1, 1, *tile.shape[2:]), np.float32)
                weights[(..., *core_of_tile)] = 1 / np.prod(batch.shape[2:])
                part, restored = first.infer(tile, weights) if means is None else later.infer(tile, weights, means)
                output[(..., *core_of_image)] = restored[(..., *core_of_tile)]
                summed = summed + part
            outputs.append(output)
            means = summed
    return outputs


def noisy_blobs(shape, seed):
    """Render blobs of all sizes on a dark ground, and shoot few photons at them: (low, clean)."""
    dice = np.random.default_rng(seed)
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    clean = np.zeros(shape, np.float32)
    for _ in range(int(np.prod(shape)) // 300):
        centre, width = [dice.uniform(0, size) for size in shape], dice.uniform(1.5, 5)
        clean += dice.uniform(0.2, 1) * np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) / (2 * width**2))
    low = (dice.poisson(clean * 20 + 2) / 20 - 0.1).astype(np.float32)
    return low[None, None], clean[None, None].astype(np.float32)


def trained(net, seconds):
    """Train on rendered blobs for a few seconds, so that attention has something to say."""
    pairs = [noisy_blobs((48, 48), seed) for seed in range(24)]
    low, clean = (torch.from_numpy(np.concatenate(images)) for images in zip(*pairs, strict=True))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        picked = torch.randint(len(low), (6,))
        optimizer.zero_grad()
        torch.nn.functional.l1_loss(net(low[picked]), clean[picked]).backward()
        optimizer.step()
    return net


def lit_on_one_side(shape):
    """An image whose tiles have very different means, which is where tiles alone fail."""
    low, _ = noisy_blobs(shape, seed=100)
    low[..., : shape[-1] // 2] *= 0.2
    return low


@pytest.mark.parametrize("seconds", [0, 4], ids=["random", "trained"])
def test_two_passes_are_enough(seconds, record_property):
    torch.manual_seed(0)
    onnx = to_onnx(trained(build_net("rcan", {"n_dim": 2, **SMALL}, seed=0), seconds))
    batch = lit_on_one_side((96, 144))
    halo = measure_geometry(onnx).halo[0]
    with open_engine("openvino", onnx) as engine:
        (whole,) = engine.infer(batch)
    errors = [relative(output, whole) for output in restore_in_tiles(onnx, batch, 48, halo, passes=3)]
    record_property("errors after 1, 2, 3 passes", errors)
    assert errors[1] < 1e-3
    assert errors[2] < 1e-4
    assert errors[1] < errors[0] / 5


def test_volumes_in_tiles():
    onnx = net_graph("rcan", n_dim=3, **(SMALL | {"blocks": 1}))
    batch = lit_on_one_side((12, 40, 44))
    with open_engine("openvino", onnx) as engine:
        (whole,) = engine.infer(batch)
    errors = [relative(output, whole) for output in restore_in_tiles(onnx, batch, 16, measure_geometry(onnx).halo[0], passes=3)]
    assert errors[2] < 1e-5 < errors[0]


# ---- other ways of writing a mean

CHANNELS = {"w": image(3, 1, 3, 3)}


def pooled_graph(*pool, opset=18, **weights):
    """Convolve to 3 channels, pool them to `m`, and multiply."""
    nodes = [node("Conv", ["x", "w"], ["f"], pads=[1, 1, 1, 1]), *pool, node("Mul", ["f", "m"])]
    return graph(nodes, CHANNELS | weights, opset=opset)


WAYS = [
    ("global pooling", pooled_graph(node("GlobalAveragePool", ["f"], ["m"]))),
    ("axes stored", pooled_graph(node("ReduceMean", ["f", "axes"], ["m"]), axes=np.int64([2, 3]))),
    ("axes from the end", pooled_graph(node("ReduceMean", ["f", "axes"], ["m"]), axes=np.int64([-1, -2]))),
    ("axes as attribute", pooled_graph(node("ReduceMean", ["f"], ["m"], axes=[2, 3]), opset=13)),
    ("axes in a constant", pooled_graph(
        node("Constant", [], ["axes"], value_ints=[2, 3]), node("ReduceMean", ["f", "axes"], ["m"]))),
    ("flat", pooled_graph(
        node("ReduceMean", ["f", "axes"], ["flat"], keepdims=0), node("Unsqueeze", ["flat", "axes"], ["m"]),
        axes=np.int64([2, 3]))),
]  # fmt: skip


@pytest.mark.parametrize("onnx", [row[1] for row in WAYS], ids=[row[0] for row in WAYS])
def test_every_way_of_writing_a_mean(onnx):
    batch = image(1, 1, 20, 24)
    with open_engine("openvino", onnx) as plain, open_engine("openvino", applying(onnx)) as engine:
        (expected,) = plain.infer(batch)
        means = np.zeros((1, 3), np.float32)
        for _ in range(2):
            means, output = engine.infer(batch, even(batch.shape), means)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def two_inputs():
    return measuring(net_graph("rcan", n_dim=2, **SMALL))


REFUSED = [
    ("no mean", net_graph("care", n_dim=2, first_filters=2), "takes no mean over the whole image"),
    ("part of the axes", single("ReduceMean", np.int64([3])), "takes no mean over the whole image"),
    ("twice", two_inputs(), "the graph has 2 inputs and 2 outputs"),
    ("other statistics", single("InstanceNormalization", *np.ones((2, 1), np.float32)), "InstanceNormalization over the whole"),
    ("old", single("GlobalAveragePool", opset=11), "has opset 11; 13 or later is needed here"),
    ("open channels", graph([node("GlobalAveragePool")], shape=["n", "c", "y", "x"]), "channels of 'x' cannot be told"),
    ("damaged", b"noise", "no ONNX graph, or a damaged one"),
]


@pytest.mark.parametrize("make", [measuring, applying], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("onnx", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_with_reason(make, onnx, words):
    with pytest.raises(ModelError, match=words):
        make(onnx)
