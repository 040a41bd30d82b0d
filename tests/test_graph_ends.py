"""Foreign graphs get our names, open sizes and pointwise steps, and compute what they computed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit
from tiny_packages import smoothing_graph, smoothing_tensors

from live_restore.engines.engine import open_engine
from live_restore.errors import ModelError
from live_restore.models.foreign.graph_ends import Pointwise, embed_weights, put_ends
from live_restore.models.geometry.graph import measure_geometry


def graph(nodes, names=("image", "result"), shape=(1, 1, 8, 8), kind=TensorProto.FLOAT, opset=18, **options):
    tensors = [helper.make_tensor_value_info(name, kind, shape) for name in names]
    made = helper.make_graph(nodes, "g", options.get("inputs", tensors[:1]), options.get("outputs", tensors[1:]))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def relu(source="image", target="result"):
    return helper.make_node("Relu", [source], [target])


def run(content, batch):
    with open_engine("openvino", content, "f32") as engine:
        return engine.infer(batch)[0]


def ends(content):
    model = onnx.load_model_from_string(content).graph
    return [
        (tensor.name, [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim])
        for tensor in (*model.input, *model.output)
    ]


def test_names_are_ours_and_sizes_are_open():
    ended = put_ends(graph([relu()]).SerializeToString())
    assert ends(ended.onnx) == [("input", ["batch", 1, "y", "x"]), ("output", ["batch_out", 1, "y_out", "x_out"])]
    assert (ended.n_dim, ended.channels_in, ended.channels_out, ended.parameters) == (2, 1, 1, 0)
    batch = np.random.default_rng(0).normal(size=(3, 1, 16, 12)).astype(np.float32)
    np.testing.assert_array_equal(run(ended.onnx, batch), np.maximum(batch, 0))


def test_volumes_have_three_axes():
    ended = put_ends(smoothing_graph(3))
    assert ended.n_dim == 3
    assert ended.parameters == 27
    assert measure_geometry(ended.onnx).halo == (1, 1, 1)


def test_inner_tensors_step_aside():
    nodes = [relu("image", "input"), relu("input", "output"), relu("output", "network_input"), relu("network_input", "result")]
    ended = put_ends(graph(nodes).SerializeToString(), before=[Pointwise("linear", gain=(2.0,))])
    batch = np.ones((1, 1, 4, 4), np.float32)
    np.testing.assert_array_equal(run(ended.onnx, batch), 2 * batch)


def test_a_graph_with_our_names_the_wrong_way_round():
    ended = put_ends(graph([relu("output", "input")], names=("output", "input")).SerializeToString())
    assert [name for name, _ in ends(ended.onnx)] == ["input", "output"]
    assert run(ended.onnx, -np.ones((1, 1, 4, 4), np.float32)).max() == 0


STEPS = {
    "linear": (Pointwise("linear", gain=(2.0,), offset=(-1.0,)), lambda x: 2 * x - 1),
    "linear per channel": (
        Pointwise("linear", gain=(2.0, 3.0), offset=(0.0, 1.0)),
        lambda x: x * np.array([2, 3]).reshape(1, 2, 1, 1) + np.array([0, 1]).reshape(1, 2, 1, 1),
    ),
    "clip": (Pointwise("clip", low=0.2, high=0.5), lambda x: np.clip(x, 0.2, 0.5)),
    "clip below": (Pointwise("clip", low=0.2), lambda x: np.maximum(x, 0.2)),
    "clip above": (Pointwise("clip", high=0.5), lambda x: np.minimum(x, 0.5)),
    "sigmoid": (Pointwise("sigmoid"), expit),
    "softmax": (Pointwise("softmax"), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
}


@pytest.mark.parametrize("where", ["before", "after", "both"])
@pytest.mark.parametrize(("step", "same"), STEPS.values(), ids=STEPS)
def test_steps_are_done_by_the_graph(step, same, where):
    test_input, test_output = smoothing_tensors(channels=2)
    before, after = [step] * (where != "after"), [step] * (where != "before")
    found = run(put_ends(smoothing_graph(channels=2), before, after).onnx, test_input)
    scaled = same(test_input) if before else test_input
    smoothed = run(smoothing_graph(channels=2), scaled.astype(np.float32)) if before else test_output
    np.testing.assert_allclose(found, same(smoothed) if after else smoothed, atol=1e-5)


def test_steps_follow_each_other():
    steps = [Pointwise("linear", offset=(1.0,)), Pointwise("clip", high=1.5), Pointwise("linear", gain=(10.0,))]
    ended = put_ends(graph([relu()]).SerializeToString(), after=steps)
    batch = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(run(ended.onnx, batch), 10 * np.minimum(batch + 1, 1.5), rtol=1e-6)


def test_weights_that_are_listed_as_inputs_are_none():
    model = onnx.load_model_from_string(smoothing_graph())
    weights = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(weights.name, TensorProto.FLOAT, weights.dims))
    model.ir_version = 3
    test_input, test_output = smoothing_tensors()
    np.testing.assert_allclose(run(put_ends(model.SerializeToString()).onnx, test_input), test_output, atol=1e-5)


TWO = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, 8, 8)) for name in ("image", "more")]
REFUSED = {
    "no graph": (b"\xff\xff", (), "are no ONNX graph"),
    "two inputs": (
        graph([helper.make_node("Add", ["image", "more"], ["result"])], inputs=TWO).SerializeToString(),
        (),
        r"has 2 inputs \(image, more\); live_restore runs networks of one image in and one out",
    ),
    "two outputs": (
        graph([relu(), relu(target="more")], outputs=TWO[1:] * 2).SerializeToString(),
        (),
        "has 2 outputs|contradicts",
    ),
    "half precision": (
        graph([relu()], kind=TensorProto.FLOAT16).SerializeToString(),
        (),
        "'image' .* is FLOAT16; export it in float32",
    ),
    "flat": (graph([relu()], shape=(8, 8)).SerializeToString(), (), "has 2 axes; it must have batch, channel"),
    "old softmax": (
        graph([relu()], opset=12).SerializeToString(),
        [Pointwise("softmax")],
        "opset 12; its softmax needs 13 or later: export it again",
    ),
    "cut off": (graph([relu()]).SerializeToString()[:-3], (), "no ONNX graph|damaged|contradicts"),
}


@pytest.mark.parametrize(("content", "after", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_run_is_refused(content, after, reason):
    with pytest.raises(ModelError, match=reason):
        put_ends(content, after=after)


def external_graph(location="weights.data", offset="4", length="36"):
    model = onnx.load_model_from_string(smoothing_graph())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def test_external_weights_are_embedded_whatever_file_they_name():
    data = b"head" + numpy_helper.to_array(onnx.load_model_from_string(smoothing_graph()).graph.initializer[0]).tobytes()
    embedded = embed_weights(external_graph(location="/etc/passwd"), data)
    test_input, test_output = smoothing_tensors()
    np.testing.assert_allclose(run(embedded, test_input), test_output, atol=1e-5)


def test_external_weights_that_are_too_short_are_refused():
    with pytest.raises(ModelError, match=r"not what they claim|contradicts"):
        put_ends(embed_weights(external_graph(), b"short"))


EXTERNAL = {
    "no graph": (b"\xff\xff", "these 2 bytes are no ONNX graph"),
    "no numbers": (external_graph(offset="far"), "where its weights lie is given as 'far'"),
    "negative": (external_graph(offset="-4"), "where its weights lie is given as '-4'"),
}


@pytest.mark.parametrize(("content", "reason"), EXTERNAL.values(), ids=EXTERNAL)
def test_wrong_places_of_external_weights_are_refused(content, reason):
    with pytest.raises(ModelError, match=reason):
        embed_weights(content, bytes(40))
