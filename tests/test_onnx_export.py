"""The ONNX graphs: same answer in another runtime at sizes that export never saw, and a shape that can be walked and shared."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from live_restore.engines.openvino.engine import the_core
from live_restore.models.nets import build_net
from live_restore.models.nets.layers import Net
from live_restore.models.onnx_export import OPSET, run_net, to_onnx

# (kind, options, two image sizes), by name; narrow networks of every topology
GRAPHS = {
    "care2d": ("care", {"n_dim": 2, "first_filters": 8}, [(16, 24), (36, 20)]),
    "care2d-depth3": ("care", {"n_dim": 2, "depth": 3, "kernel": 3, "first_filters": 4}, [(24, 16), (8, 40)]),
    "care2d-probabilistic-relu": (
        "care",
        {"n_dim": 2, "channels_in": 2, "channels_out": 2, "first_filters": 8, "probabilistic": True, "last_activation": "relu"},
        [(16, 24), (36, 20)],
    ),
    "care3d": ("care", {"n_dim": 3, "first_filters": 8}, [(8, 12, 16), (4, 20, 8)]),
    "care2d-folded": ("care", {"n_dim": 2, "first_filters": 8, "entry": 2, "skip_kernel": 7}, [(16, 24), (40, 8)]),
    "care3d-folded": (
        "care",
        {"n_dim": 3, "depth": 1, "first_filters": 4, "entry": 2, "skip_kernel": 3},
        [(8, 12, 16), (4, 20, 8)],
    ),
    "projection": ("projection_care", {"n_dim": 3, "first_filters": 8}, [(5, 32, 16), (9, 16, 48)]),
    "projection-pool3": (
        "projection_care",
        {"n_dim": 3, "depth": 1, "first_filters": 4, "proj_n_depth": 2, "proj_pool": [2, 3, 2], "probabilistic": True},
        [(8, 18, 12), (4, 36, 20)],
    ),
    "rcan2d": ("rcan", {"n_dim": 2, "groups": 2, "blocks": 2, "channels": 16}, [(13, 17), (32, 9)]),
    "rcan2d-half-scaling": ("rcan", {"n_dim": 2, "groups": 1, "channels": 8, "residual_scaling": 0.5}, [(13, 17), (32, 9)]),
    "rcan3d": ("rcan", {"n_dim": 3, "groups": 2, "blocks": 2, "channels": 16}, [(5, 9, 8), (7, 6, 11)]),
    "rcan2d-up2": ("rcan", {"n_dim": 2, "groups": 2, "blocks": 1, "channels": 16, "upscale": 2}, [(13, 17), (32, 9)]),
    "rcan2d-up3": ("rcan", {"n_dim": 2, "groups": 1, "blocks": 1, "channels": 8, "upscale": 3}, [(13, 17), (8, 9)]),
    "rcan3d-up2": ("rcan", {"n_dim": 3, "groups": 2, "blocks": 1, "channels": 8, "upscale": 2}, [(5, 9, 8), (7, 6, 11)]),
    "rcan3d-up4": ("rcan", {"n_dim": 3, "groups": 1, "blocks": 1, "channels": 8, "upscale": 4}, [(2, 5, 4), (3, 4, 6)]),
}


@pytest.fixture(scope="module", params=GRAPHS.values(), ids=GRAPHS.keys())
def exported(request):
    kind, options, sizes = request.param
    net = net_with_biases(kind, options)
    return net, to_onnx(net), sizes


def net_with_biases(kind: str, options: dict) -> Net:
    """Fresh biases are zero and would hide a mistake in their place."""
    net, dice = build_net(kind, options, seed=2), torch.Generator().manual_seed(3)
    for _, layer in net.convolutions():
        torch.nn.init.uniform_(layer.bias, -0.2, 0.2, generator=dice)
    return net


def weights_in(graph: bytes) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(graph).graph.initializer}


def constants_in(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in nodes_of(model, "Constant")}


def nodes_of(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op_type]


def axes_of(value) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_openvino_gives_the_networks_answer(exported):
    net, graph, sizes = exported
    core = the_core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch_size, size in enumerate(sizes, start=1):
        shape = (batch_size, net.options["channels_in"], *size)
        batch = np.random.default_rng(4).uniform(-0.2, 1.3, shape).astype(np.float32)
        expected = run_net(net, batch)
        got = compiled(batch)[0]
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-5 * np.ptp(expected)


def test_one_input_and_one_output_with_open_sizes(exported):
    net, graph, sizes = exported
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import] == [OPSET]
    (entry,), (result,) = model.graph.input, model.graph.output
    assert (entry.name, result.name) == ("input", "output")
    assert axes_of(entry) == ["batch", net.options["channels_in"], *["z", "y", "x"][-len(sizes[0]) :]]


OUTPUT_AXES = {
    "care3d-probabilistic": ("care", {"n_dim": 3, "depth": 1, "probabilistic": True}, ["batch", 2, "z", "y", "x"]),
    "projection": ("projection_care", {"n_dim": 3}, ["batch", 1, "y", "x"]),
    "rcan2d-up2": ("rcan", {"n_dim": 2, "groups": 1, "upscale": 2}, ["batch", 1, "y_out", "x_out"]),
}


@pytest.mark.parametrize(("kind", "options", "axes"), OUTPUT_AXES.values(), ids=OUTPUT_AXES.keys())
def test_an_output_axis_is_named_like_the_inputs_only_if_it_is_as_long(kind, options, axes):
    model = onnx.load_from_string(to_onnx(build_net(kind, options)))
    assert axes_of(model.graph.output[0]) == axes


def test_every_parameter_is_an_initializer_of_its_own_name(exported):
    net, graph, _ = exported
    stored = weights_in(graph)
    for name, parameter in net.named_parameters():
        assert np.array_equal(stored.pop(name), parameter.detach().numpy())
    assert not stored


def test_equal_weights_of_different_layers_stay_apart():
    net = build_net("care", {"n_dim": 2, "first_filters": 4})  # every bias is zero
    graph = to_onnx(net)
    assert weights_in(graph).keys() == dict(net.named_parameters()).keys()
    assert not nodes_of(onnx.load_from_string(graph), "Identity")


def test_only_operations_whose_reach_can_be_computed(exported):
    _, graph, _ = exported
    known = {"Add", "Concat", "Constant", "Conv", "ConvTranspose", "MaxPool", "Mul", "ReduceMean", "ReduceSum", "Relu"}
    known |= {"Resize", "Sigmoid", "Softmax", "Softplus", "Sub"}
    assert {node.op_type for node in onnx.load_from_string(graph).graph.node} <= known


@pytest.mark.parametrize("n_dim", [2, 3])
def test_every_attention_is_one_reduce_mean_over_space(n_dim):
    model = onnx.load_from_string(to_onnx(build_net("rcan", {"n_dim": n_dim, "groups": 3, "blocks": 2, "channels": 8})))
    constants = constants_in(model)
    pools = nodes_of(model, "ReduceMean")
    assert len(pools) == 6
    for pool in pools:
        assert {a.name: a.i for a in pool.attribute} == {"keepdims": 1}
        assert constants[pool.input[1]].tolist() == list(range(2, 2 + n_dim))


def test_upsampling_is_nearest_with_constant_scales():
    model = onnx.load_from_string(to_onnx(build_net("care", {"n_dim": 3, "first_filters": 4})))
    constants = constants_in(model)
    resizes = nodes_of(model, "Resize")
    assert len(resizes) == 2
    for node in resizes:
        settings = {a.name: a.s for a in node.attribute}
        assert (settings["mode"], settings["nearest_mode"]) == (b"nearest", b"floor")
        assert settings["coordinate_transformation_mode"] == b"asymmetric"
        assert constants[node.input[2]].tolist() == [1, 1, 2, 2, 2]


def test_every_upscaling_step_is_one_transposed_convolution():
    model = onnx.load_from_string(to_onnx(build_net("rcan", {"n_dim": 3, "groups": 1, "channels": 8, "upscale": 4})))
    assert len(nodes_of(model, "ConvTranspose")) == 2


def test_the_file_tells_nothing_of_the_machine(exported, tmp_path):
    _, graph, _ = exported
    model = onnx.load_from_string(graph)
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        assert not part.doc_string
        assert not part.metadata_props
    for trace in (b".py", b"site-packages", str(tmp_path.parents[2]).encode(), str(__file__).encode()):
        assert trace not in graph


def test_equal_weights_give_equal_bytes():
    graphs = {to_onnx(build_net("care", {"n_dim": 2, "first_filters": 4}, seed=seed)) for seed in (1, 1, 2)}
    assert len(graphs) == 2


def test_export_says_nothing_and_leaves_the_network_in_training():
    net = build_net("rcan", {"n_dim": 2, "groups": 1, "channels": 8})
    assert net.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_onnx(net)
    assert net.training


def test_run_net_needs_no_gradient_and_takes_what_it_gets():
    net = net_with_biases("care", {"n_dim": 2, "first_filters": 4})
    batch = np.random.default_rng(0).random((2, 1, 8, 12))
    batch.flags.writeable = False
    restored = run_net(net, batch[:, :, ::-1])
    assert restored.dtype == np.float32
    assert restored.shape == (2, 1, 8, 12)
    assert net.training
    assert np.array_equal(restored, run_net(net, np.ascontiguousarray(batch[:, :, ::-1], np.float32)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 10, 12), r"size \(10, 12\) is not a multiple of \(4, 4\), as this network needs; pad or crop"),
        ((1, 1, 4, 8, 12), r"the batch has 3 spatial axes, the network 2; give \(N, C, \[Z,\] Y, X\)"),
    ],
    ids=["not-divisible", "volume-for-a-2d-network"],
)
def test_run_net_refuses_sizes_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        run_net(build_net("care", {"n_dim": 2, "first_filters": 4}), np.zeros(shape, np.float32))
