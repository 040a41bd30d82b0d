"""The geometry read off a graph against the receptive field that the network really has."""

import warnings
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_graphs import graph, net_graph, node, single

from live_restore.engines.engine import open_engine
from live_restore.errors import ModelError
from live_restore.models.facts import Geometry
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx

_IMPULSE = 1e12


def positive(net):
    """Give a network weights with which no contribution cancels another, and attention that is the same everywhere."""
    dice = torch.Generator().manual_seed(0)
    for name, module in net.convolutions():
        fill = torch.rand(module.weight.shape, generator=dice) + 0.5
        module.weight.data = 0 * fill if "excite" in name else fill / fill[0].numel()
        module.bias.data.zero_()
    return net


def measured_radius(run, divisor, factor, axis, n_dim, reach, rest=None):
    """Put an impulse at every phase of one axis, and see how far it gets; the other axes are as short as possible."""
    length = (2 * (reach + 2) // divisor + 3) * divisor
    sizes = [rest or divisor] * n_dim
    sizes[axis] = length
    places = length // 2 + np.arange(divisor)
    batch = np.zeros((1 + divisor, 1, *sizes))
    for i, place in enumerate(places, start=1):
        np.moveaxis(batch[i], axis + 1, 1)[:, place] = _IMPULSE
    output = run(batch)
    moved = (output[1:] != output[:1]).any(axis=1)  # (divisor, [Z,] Y, X)
    seen = np.moveaxis(moved, axis + 1, 1).any(axis=tuple(range(2, n_dim + 1)))  # (divisor, size of the axis)
    return max(np.abs(np.flatnonzero(row) // factor - place).max() for row, place in zip(seen, places, strict=True))


def in_double(net):
    doubled = net.double()

    def run(batch):
        with torch.no_grad():
            return doubled(torch.from_numpy(batch)).numpy()

    return run


CARE_2D = [(depth, kernel) for depth in (1, 2, 3, 4) for kernel in (3, 5, 7)]
FOLDED = [(1, 3, 2, 0), (2, 3, 2, 7), (1, 5, 3, 3), (1, 3, 1, 7)]
CARE_3D = [(1, 3), (1, 5), (2, 3)]


@pytest.mark.parametrize(("depth", "kernel"), CARE_2D, ids=str)
@pytest.mark.parametrize("axis", [0, 1], ids=["y", "x"])
def test_halo_is_the_receptive_field_of_care_2d(depth, kernel, axis):
    net = positive(build_net("care", {"n_dim": 2, "depth": depth, "kernel": kernel, "first_filters": 1}))
    geometry = measure_geometry(to_onnx(net))
    radius = measured_radius(in_double(net), 2**depth, 1, axis, 2, geometry.halo[axis])
    assert geometry.halo[axis] - 1 <= radius <= geometry.halo[axis]
    assert geometry.divisible_by == (2**depth, 2**depth)


@pytest.mark.parametrize(("depth", "kernel", "entry", "skip"), FOLDED, ids=str)
@pytest.mark.parametrize("axis", [0, 1], ids=["y", "x"])
def test_halo_is_the_receptive_field_of_folded_care(depth, kernel, entry, skip, axis):
    options = {"n_dim": 2, "depth": depth, "kernel": kernel, "first_filters": 1, "entry": entry, "skip_kernel": skip}
    net = positive(build_net("care", options))
    geometry = measure_geometry(to_onnx(net))
    radius = measured_radius(in_double(net), entry * 2**depth, 1, axis, 2, geometry.halo[axis])
    assert geometry.halo[axis] - 1 <= radius <= geometry.halo[axis]
    assert geometry.divisible_by == (entry * 2**depth,) * 2
    assert geometry.output_factor == (1, 1)


@pytest.mark.parametrize(("depth", "kernel"), CARE_3D, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2], ids=["z", "y", "x"])
def test_halo_is_the_receptive_field_of_care_3d(depth, kernel, axis):
    net = positive(build_net("care", {"n_dim": 3, "depth": depth, "kernel": kernel, "first_filters": 1}))
    geometry = measure_geometry(to_onnx(net))
    radius = measured_radius(in_double(net), 2**depth, 1, axis, 3, geometry.halo[axis])
    assert geometry.halo[axis] - 1 <= radius <= geometry.halo[axis]
    assert geometry.divisible_by == (2**depth,) * 3


# CSBDeep's own table of overlaps, where it measured one impulse in one place: never further than ours, which is for all.
@pytest.mark.parametrize(("depth", "kernel", "csbdeep"), [(2, 5, 43), (2, 3, 22), (3, 3, 46), (4, 3, 94)], ids=str)
def test_halo_agrees_with_csbdeep(depth, kernel, csbdeep):
    halo = measure_geometry(net_graph("care", n_dim=2, depth=depth, kernel=kernel, first_filters=2)).halo
    assert all(csbdeep <= h < csbdeep + 2**depth for h in halo)


@pytest.mark.parametrize(
    ("groups", "blocks", "upscale"), [(1, 1, 1), (1, 2, 1), (2, 1, 1), (2, 2, 1), (1, 1, 2), (1, 1, 3)], ids=str
)
@pytest.mark.parametrize("n_dim", [2, 3], ids=["2d", "3d"])
def test_halo_is_the_receptive_field_of_rcan(groups, blocks, upscale, n_dim):
    options = {"n_dim": n_dim, "channels": 4, "reduction": 2, "groups": groups, "blocks": blocks, "upscale": upscale}
    net = positive(build_net("rcan", options))
    geometry = measure_geometry(to_onnx(net))
    for axis in range(n_dim):
        radius = measured_radius(in_double(net), 4, upscale, axis, n_dim, geometry.halo[axis])
        assert geometry.halo[axis] - 1 <= radius <= geometry.halo[axis]
    assert geometry.global_pooling
    assert geometry.output_factor == (upscale,) * n_dim
    if upscale == 1:  # head, body and tail, and per group one convolution beside two per block; a lone group has none
        assert geometry.halo == (3 + groups * (2 * blocks + (groups > 1)),) * n_dim


def test_projection_must_not_be_split_along_z():
    net = positive(build_net("projection_care", {"n_dim": 3, "first_filters": 2, "proj_n_depth": 2, "proj_n_filt": 2}))
    geometry = measure_geometry(to_onnx(net))
    assert geometry.output_factor == (0, 1, 1)
    assert geometry.halo[0] == 0
    assert geometry.divisible_by == (1, 4, 4)
    assert not geometry.global_pooling


NETS = [
    ("care", {"n_dim": 2}, 462_464, 516),
    ("care", {"n_dim": 2, "kernel": 3}, 166_528, 516),
    ("care", {"n_dim": 2, "kernel": 3, "entry": 2, "skip_kernel": 7}, 46_314, 132),
    ("care", {"n_dim": 3}, 347_392, 516),
    ("rcan", {"n_dim": 2}, 664_704, 640),
    ("rcan", {"n_dim": 3}, 1_994_112, 640),
    ("projection_care", {"n_dim": 3}, 27_418, 68),
]


@pytest.mark.parametrize(("kind", "options", "flop", "octets"), NETS, ids=str)
def test_arithmetic_and_memory(kind, options, flop, octets):
    geometry = measure_geometry(net_graph(kind, **options))
    assert (geometry.flop_per_pixel, geometry.bytes_per_pixel) == (flop, octets)


@pytest.mark.realdata
def test_a_foreign_network_of_fixed_size(shared_data):
    geometry = measure_geometry((shared_data / "models" / "bioimageio_unet2d" / "weights.onnx").read_bytes())
    assert geometry.divisible_by == (8, 8)
    assert geometry.output_factor == (1, 1)
    assert 50 <= geometry.halo[0] <= 60
    assert not geometry.global_pooling


# ---- any chain of layers


@dataclass
class Chain:
    """A network under construction: nodes from x, the name of the last tensor, and the sizes it divides by."""

    nodes: list = field(default_factory=list)
    weights: dict = field(default_factory=dict)
    last: str = "x"
    divisor: int = 1

    def add(self, op, *arrays, **attributes):
        names = [f"w{len(self.weights) + i}" for i in range(len(arrays))]
        self.weights |= dict(zip(names, arrays, strict=True))
        output = f"t{len(self.nodes)}"
        self.nodes.append(node(op, [self.last, *names], [output], **attributes))
        self.last = output

    def finished(self):
        return graph([*self.nodes, node("Identity", [self.last])], self.weights)


def kernel_of(size):
    return np.full((1, 1, size, size), 1 / size, np.float32)


@st.composite
def conv(draw, chain):
    size, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    before = draw(st.integers(0, (size - 1) * dilation))
    after = (size - 1) * dilation - before
    chain.add("Conv", kernel_of(size), pads=[before, before, after, after], dilations=[dilation] * 2)


@st.composite
def same_conv(draw, chain):
    chain.add("Conv", kernel_of(draw(st.integers(1, 4))), auto_pad=draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"])))


@st.composite
def down_and_up(draw, chain):
    factor = draw(st.integers(2, 3))
    down = draw(st.sampled_from(["pool", "mean", "stride", "to_depth"]))
    up = draw(st.sampled_from(["nearest", "linear", "transposed", "to_space"]))
    chain.divisor *= factor
    if down == "stride":
        size = draw(st.integers(factor, 4))
        chain.add("Conv", kernel_of(size), strides=[factor] * 2, auto_pad="SAME_UPPER")
    elif down == "to_depth":
        chain.add("SpaceToDepth", blocksize=factor)
        chain.add("Conv", np.full((1, factor**2, 1, 1), 0.5, np.float32))
    else:
        chain.add({"pool": "MaxPool", "mean": "AveragePool"}[down], kernel_shape=[factor] * 2, strides=[factor] * 2)
    draw(conv(chain))
    if up == "transposed":
        size = draw(st.integers(factor, 5))
        pad = draw(st.integers(0, size - factor))
        chain.add("ConvTranspose", kernel_of(size), strides=[factor] * 2, pads=[pad, pad] + [size - factor - pad] * 2)
    elif up == "to_space":
        chain.add("Conv", np.full((factor**2, 1, 1, 1), 0.5, np.float32))
        chain.add("DepthToSpace", blocksize=factor, mode=draw(st.sampled_from(["DCR", "CRD"])))
    else:
        where = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        where = (
            where
            if up == "linear"
            else {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        )
        chain.add("Resize", np.float32([]), np.float32([1, 1, factor, factor]), **where)


@st.composite
def pad_and_cut(draw, chain):
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    chain.add("Pad", np.int64([0, 0, before, before, 0, 0, after, after]))
    start = draw(st.integers(0, before + after))
    stop = start - before - after or np.iinfo(np.int64).max
    chain.add("Slice", np.int64([start, start]), np.int64([stop, stop]), np.int64([2, 3]))


@st.composite
def chains(draw):
    chain = Chain()
    for _ in range(draw(st.integers(1, 4))):
        draw(draw(st.sampled_from([conv, same_conv, down_and_up, pad_and_cut]))(chain))
    return chain


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains(), st.integers(0, 1))
def test_no_chain_of_layers_sees_further_than_its_halo(chain, axis):
    onnx_bytes = chain.finished()
    geometry = measure_geometry(onnx_bytes)
    # the other axis must be long enough for the padding and cutting of every layer
    with open_engine("torch", onnx_bytes) as engine:
        radius = measured_radius(
            lambda batch: engine.infer(batch.astype(np.float32))[0],
            chain.divisor, 1, axis, 2, geometry.halo[axis] + 12, rest=chain.divisor * 12,
        )  # fmt: skip
    assert radius <= geometry.halo[axis]
    assert geometry.divisible_by[axis] % 1 == 0 and chain.divisor % geometry.divisible_by[axis] == 0


# ---- what exporters write


class Shuffled(torch.nn.Module):
    """Space to depth, a convolution, and back: written with reshapes, which exporters do for volumes."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
        x = self.conv(x)
        x = x.reshape(n, c, 2, 2, h // 2, w // 2).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(n, c, h, w)


class Normed(torch.nn.Module):
    """Group normalisation, instance normalisation, and an upsampling to the size of the skip."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.GroupNorm(2, 4)
        self.last = torch.nn.Conv2d(8, 1, 1)

    def forward(self, x):
        x = self.norm(self.conv(x))
        low = torch.nn.functional.max_pool2d(x, 2)
        back = torch.nn.functional.interpolate(low, size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([x, back], 1))


class Squeezed(torch.nn.Module):
    """Attention with flattened means, as most write it."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 1)
        self.last = torch.nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        means = torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)[:, :, None, None]
        return self.last(x * torch.sigmoid(self.gate(means)).expand_as(x))


def exported(net):
    import io

    file = io.BytesIO()
    axes = {"input": {0: "n", 2: "y", 3: "x"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = {"input_names": ["input"], "output_names": ["output"], "dynamic_axes": axes, "opset_version": 18}
        torch.onnx.export(net.eval(), (torch.zeros(1, 1, 16, 16),), file, dynamo=False, **args)
    return file.getvalue()


EXPORTED = [
    (Shuffled, (3, 3), (2, 2), False),
    (Normed, (3, 3), (2, 2), True),
    (Squeezed, (2, 2), (1, 1), True),
]


@pytest.mark.parametrize(("net", "halo", "divisible_by", "pools"), EXPORTED, ids=lambda v: getattr(v, "__name__", None))
def test_reshapes_and_shape_arithmetic_are_followed(net, halo, divisible_by, pools):
    geometry = measure_geometry(exported(net()))
    assert geometry == Geometry(
        halo=halo,
        divisible_by=divisible_by,
        output_factor=(1, 1),
        global_pooling=pools,
        bytes_per_pixel=geometry.bytes_per_pixel,
        flop_per_pixel=geometry.flop_per_pixel,
    )


@pytest.mark.parametrize("net", [Shuffled, Normed, Squeezed], ids=lambda v: v.__name__)
def test_engines_run_what_exporters_write(net):
    torch.manual_seed(0)
    made = net().eval()
    x = np.random.default_rng(0).random((2, 1, 20, 24), np.float32)
    expected = made(torch.from_numpy(x)).detach().numpy()
    onnx_bytes = exported(made)
    for kind in ("openvino", "torch"):
        with open_engine(kind, onnx_bytes) as engine:
            np.testing.assert_allclose(engine.infer(x)[0], expected, atol=1e-5)


# ---- what is refused


def conv_graph(**changes):
    return graph([node("Conv", ["x", "w"], pads=[1, 1, 1, 1])], {"w": kernel_of(3)}, **changes)


def with_external_weights():
    model = onnx.load_model_from_string(conv_graph())
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/passwd")
    return model.SerializeToString()


def with_control_flow():
    then = helper.make_graph([node("Identity")], "then", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a"])])
    return graph([node("If", ["c"], then_branch=then, else_branch=then)], {"c": np.array(True)})


def with_function():
    model = onnx.load_model_from_string(conv_graph())
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "Magic", ["x"], ["y"], [node("Identity")], opsets))
    return model.SerializeToString()


def with_wrong_weights():
    model = onnx.load_model_from_string(conv_graph())
    model.graph.initializer[0].dims[0] = 1 << 20
    return model.SerializeToString()


def with_sparse_weights():
    model = onnx.load_model_from_string(conv_graph())
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    return model.SerializeToString()


def two_inputs():
    model = onnx.load_model_from_string(graph([node("Add", ["x", "x2"])]))
    model.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, ["n", 1, "y", "x"]))
    return model.SerializeToString()


def truncated():
    whole = conv_graph()
    return whole[: len(whole) - 7]


def absurd_constant():
    return graph([node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"])], {"s": np.int64([1 << 40])})


HALF = {"kernel_shape": [2, 2], "strides": [2, 2]}
FIXED = {"shape": np.int64([1, 1, 64, 64])}

REFUSED = [
    ("empty", lambda: b"", "holds no operation at all"),
    ("noise", lambda: bytes(range(256)) * 9, "are no ONNX graph, or a damaged one"),
    ("truncated", truncated, "are no ONNX graph, or a damaged one"),
    ("unknown op", lambda: single("NonZero"), r"uses NonZero \(to 'y'\), whose reach is not known"),
    ("foreign domain", lambda: graph([node("Magic", domain="com.example")]), "'Magic' of the domain 'com.example'"),
    ("control flow", with_control_flow, r"has control flow \(If\)"),
    ("function", with_function, r"defines functions \(Magic\)"),
    ("external weights", with_external_weights, "'w' are in another file"),
    ("sparse weights", with_sparse_weights, "has sparse weights"),
    ("wrong weights", with_wrong_weights, "are not what they claim to be|contradicts itself"),
    ("undefined name", lambda: graph([node("Relu", ["nowhere"])]), "contradicts itself"),
    ("old opset", lambda: single("Relu", opset=7), "has opset 7; 9 or later is needed"),
    ("two inputs", two_inputs, "has 2 inputs and 1 outputs"),
    ("two outputs", lambda: graph([node("Relu"), node("Neg", outputs=["z"])], outputs=("y", "z")), "1 inputs and 2 outputs"),
    ("a vector", lambda: single("Relu", n_dim=0), "has 2 axes; an image network takes 4"),
    ("open channels", lambda: graph([node("Relu")], shape=["n", "c", "y", "x"]), "number of channels open"),
    ("no padding", lambda: single("Conv", kernel_of(3)), r"turns \d+ pixels into \d+; it must keep or multiply sizes"),
    ("smaller", lambda: single("MaxPool", **HALF), r"turns \d+ pixels into \d+"),
    ("a number", lambda: single("GlobalAveragePool"), "which is no image"),
    ("turned", lambda: single("Transpose", perm=[0, 1, 3, 2]), "which is no image"),
    ("fixed size", lambda: graph([node("Reshape", ["x", "shape"])], FIXED), "fixes sizes that depend on the image"),
    ("constant image", lambda: graph([node("Constant", [], value_float=1.0)]), "does not depend on its input"),
    ("joined images", lambda: graph([node("Concat", ["x", "x"], axis=3)]), "joins images side by side"),
    ("cut image", lambda: single("Gather", np.int64([0]), axis=2), "picks single pixels"),
    ("mirrored", lambda: single("Slice", *np.int64([[-1], [-99999], [3], [-1]])), "turns the image round"),
    ("align corners", lambda: single("Resize", None, np.float32([1, 1, 2, 2]), coordinate_transformation_mode="align_corners"),
     "resizes with 'align_corners'"),
    ("absurd step", lambda: single("MaxPool", kernel_shape=[9000, 1], strides=[9000, 1]), "one pixel 9000 input pixels wide"),
    ("absurd enlargement", lambda: single("ConvTranspose", kernel_of(1), strides=[9000, 1]), "enlarges by 9000"),
    ("absurd constant", absurd_constant, "a constant of"),
    ("mixed scales", lambda: graph([node("MaxPool", outputs=["a"], **HALF), node("Add", ["x", "a"])]), "joins axes of"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_with_reason(made, words):
    with pytest.raises(ModelError, match=words):
        measure_geometry(made())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_bytes_give_a_model_error_or_a_geometry(data):
    whole = bytearray(net_graph("care", n_dim=2, depth=1, kernel=3, first_filters=1))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.integers(len(whole) // 2, len(whole)))
    try:
        assert isinstance(measure_geometry(bytes(whole[:keep])), Geometry)
    except ModelError as refused:
        assert str(refused)


def test_deep_networks_are_measured_too():
    weights = reduce(lambda found, i: found | {f"w{i}": kernel_of(3)}, range(200), {})
    nodes = [node("Conv", [f"t{i}" if i else "x", f"w{i}"], [f"t{i + 1}"], pads=[1] * 4) for i in range(200)]
    assert measure_geometry(graph([*nodes, node("Relu", ["t200"])], weights)).halo == (200, 200)
