"""Every operation of the torch engine against ONNX's own reference, and against OpenVINO."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from small_graphs import graph, image, node, single

from live_restore.engines.engine import open_engine
from live_restore.errors import EngineError

W3 = image(3, 2, 3, 3, seed=1) - 0.5
W35 = image(3, 2, 3, 5, seed=1) - 0.5
T34 = image(2, 3, 3, 4, seed=2) - 0.5
C2 = image(2, seed=3)
I = np.int64  # noqa: E741
F = np.float32
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}

# x is (2, 2, 12, 16); weights follow.
CASES = [
    ("conv", "Conv", [W3, image(3)], {"pads": [1, 1, 1, 1]}),
    ("conv uneven", "Conv", [W35], {"pads": [0, 1, 2, 3]}),
    ("conv strided", "Conv", [W3], {"strides": [2, 3], "pads": [1, 0, 1, 2]}),
    ("conv dilated", "Conv", [W3], {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ("conv grouped", "Conv", [image(4, 1, 3, 3)], {"group": 2}),
    ("conv same upper", "Conv", [W35], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("conv same lower", "Conv", [image(1, 2, 2, 4)], {"auto_pad": "SAME_LOWER"}),
    ("conv valid", "Conv", [W3], {"auto_pad": "VALID"}),
    ("transposed", "ConvTranspose", [T34, image(3)], {"strides": [2, 3], "pads": [1, 0, 0, 2], "output_padding": [1, 0]}),
    ("transposed dilated", "ConvTranspose", [T34], {"dilations": [2, 1]}),
    ("transposed grouped", "ConvTranspose", [image(2, 2, 2, 2)], {"group": 2, "strides": [2, 2]}),
    ("max pool", "MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("max pool padded", "MaxPool", [], {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1], "ceil_mode": 1}),
    ("max pool same", "MaxPool", [], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
    ("mean pool", "AveragePool", [], {"kernel_shape": [2, 4], "strides": [2, 4]}),
    ("mean pool padded", "AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("mean pool counting", "AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("nearest", "Resize", [None, F([1, 1, 2, 3])], NEAREST),
    ("nearest to sizes", "Resize", [None, None, I([2, 2, 24, 16])], NEAREST),
    ("linear", "Resize", [None, F([1, 1, 2, 2])], LINEAR),
    ("linear corners", "Resize", [None, F([1, 1, 2, 2])], LINEAR | {"coordinate_transformation_mode": "align_corners"}),
    ("depth to space", "DepthToSpace", [], {"blocksize": 1}),
    ("space to depth", "SpaceToDepth", [], {"blocksize": 2}),
    ("pad", "Pad", [I([0, 0, 1, 2, 0, 0, 3, 0]), F(7)], {}),
    ("reflect", "Pad", [I([0, 0, 1, 2, 0, 0, 3, 0])], {"mode": "reflect"}),
    ("edge", "Pad", [I([0, 0, 1, 2, 0, 0, 3, 0])], {"mode": "edge"}),
    ("slice", "Slice", [I([1, -9]), I([9999, -1]), I([2, -1]), I([1, 2])], {}),
    ("slice all", "Slice", [I([0, 1]), I([1, 2])], {}),
    ("reshape", "Reshape", [I([0, -1, 4])], {}),
    ("flatten", "Flatten", [], {"axis": 2}),
    ("transpose", "Transpose", [], {"perm": [0, 3, 1, 2]}),
    ("transpose back", "Transpose", [], {}),
    ("unsqueeze", "Unsqueeze", [I([0, -1])], {}),
    ("gather", "Gather", [I([1, 0, -1])], {"axis": 1}),
    ("gather one", "Gather", [I(1)], {"axis": 1}),
    ("mean", "ReduceMean", [I([2, 3])], {}),
    ("mean flat", "ReduceMean", [I([-1])], {"keepdims": 0}),
    ("mean of nothing", "ReduceMean", [], {"noop_with_empty_axes": 1}),
    ("sum of all", "ReduceSum", [], {}),
    ("max", "ReduceMax", [I([1])], {}),
    ("min", "ReduceMin", [I([1])], {}),
    ("global mean", "GlobalAveragePool", [], {}),
    ("global max", "GlobalMaxPool", [], {}),
    ("softmax", "Softmax", [], {"axis": 1}),
    ("batch norm", "BatchNormalization", [C2, C2, C2, C2 + 1], {"epsilon": 1e-3}),
    ("instance norm", "InstanceNormalization", [C2, C2], {}),
    ("leaky", "LeakyRelu", [], {"alpha": 0.2}),
    ("prelu", "PRelu", [image(2, 1, 1)], {}),
    ("elu", "Elu", [], {"alpha": 0.5}),
    ("clip", "Clip", [F(0.2), F(0.4)], {}),
    ("clip above", "Clip", [None, F(0.4)], {}),
    ("expand", "Expand", [I([2, 2, 1, 16])], {}),
    ("add", "Add", [F([[[1]], [[2]]])], {}),
    ("sub", "Sub", [F(2)], {}),
    ("mul", "Mul", [image(16)], {}),
    ("div", "Div", [F(3)], {}),
    ("pow", "Pow", [F(2)], {}),
    ("cast", "Cast", [], {"to": 1}),
] + [(op, op, [], {}) for op in ("Abs Ceil Exp Floor Identity Neg Relu Sigmoid Softplus Sqrt Tanh Dropout").split()]

# Shape arithmetic, several results, and operations only older files have.
GRAPHS = [
    ("sizes", graph([
        node("Shape", outputs=["s"]), node("Slice", ["s", "two", "four"], ["hw"]), node("Mul", ["hw", "two"], ["hw2"]),
        node("Div", ["hw2", "three"], ["hw3"]), node("Sub", ["hw3", "three"], ["hw4"]), node("ReduceSum", ["hw4"], ["n"]),
        node("Cast", ["n"], ["f"], to=1), node("Mul", ["x", "f"]),
    ], {"two": I([2]), "four": I([4]), "three": I([3])}, channels=2)),
    ("shape of a part", graph([
        node("Shape", outputs=["s"], start=2), node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"]),
    ], channels=2)),
    ("constants", graph([
        node("Constant", [], ["a"], value_float=2.5), node("Constant", [], ["b"], value_floats=[1.0, 2.0]),
        node("Unsqueeze", ["b", "axes"], ["c"]), node("Mul", ["x", "a"], ["d"]), node("Add", ["d", "c"], ["e"]),
        node("Unsqueeze", ["e", "last"], ["f"]), node("Squeeze", ["f", "last"]),
    ], {"axes": I([1, 2]), "last": I([4])}, channels=2)),
    ("split", graph([node("Split", ["x", "sizes"], ["a", "b"], axis=1), node("Concat", ["b", "a", "b"], axis=1)],
                    {"sizes": I([1, 1])}, channels=2)),
    ("halves", graph([node("Split", ["x"], ["a", "b"], axis=3, num_outputs=2), node("Add", ["a", "b"])], channels=2)),
    ("old upsample", single("Upsample", F([1, 1, 2, 2]), channels=2, opset=9)),
    ("old resize", single("Resize", F([1, 1, 2, 2]), channels=2, opset=10)),
    ("old slice", single("Slice", channels=2, opset=9, starts=[1, 2], ends=[5, 9], axes=[2, 3])),
    ("old pad", single("Pad", channels=2, opset=9, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5)),
    ("old clip", single("Clip", channels=2, opset=9, min=0.2, max=0.5)),
    ("old squeeze", graph([node("ReduceSum", outputs=["a"], axes=[2]), node("Squeeze", ["a"], axes=[2])], opset=9, channels=2)),
    ("whole mean", single("ReduceMean", channels=2, opset=13, axes=[2, 3])),
]  # fmt: skip


def _graphs():
    yield from ((name, single(op, *arrays, channels=2, **attributes)) for name, op, arrays, attributes in CASES)
    yield from GRAPHS


ALL = list(_graphs())

# The reference has no Upsample, and fails on some old versions.
_NO_REFERENCE = {"transposed grouped", "old upsample", "old resize", "old slice", "old pad", "old clip", "old squeeze"}


@pytest.mark.parametrize(("name", "onnx_bytes"), ALL, ids=[name for name, _ in ALL])
def test_as_the_reference_and_as_openvino(name, onnx_bytes):
    x = image(2, 2, 12, 16)
    with open_engine("torch", onnx_bytes) as engine, open_engine("openvino", onnx_bytes) as other:
        (found,), (expected,) = engine.infer(x), other.infer(x)
    np.testing.assert_allclose(found, expected, atol=2e-5, err_msg="openvino")
    if name not in _NO_REFERENCE:
        (reference,) = ReferenceEvaluator(onnx_bytes).run(None, {"x": x})
        np.testing.assert_allclose(found, reference, atol=2e-5, err_msg="reference")


def test_softmax_before_opset_13_is_over_all_axes_from_its_own():
    # the reference and OpenVINO take it for the new one, against the operator's definition
    with open_engine("torch", single("Softmax", channels=2, opset=11, axis=1)) as engine:
        (found,) = engine.infer(image(3, 2, 4, 4))
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), 1, atol=1e-5)


VOLUMES = [
    ("conv", single("Conv", image(2, 1, 3, 3, 3), pads=[1] * 6, n_dim=3)),
    ("transposed", single("ConvTranspose", image(1, 2, 2, 2, 2), strides=[2, 2, 2], n_dim=3)),
    ("max pool", single("MaxPool", kernel_shape=[1, 2, 2], strides=[1, 2, 2], n_dim=3)),
    ("mean pool", single("AveragePool", kernel_shape=[2, 2, 2], strides=[2, 2, 2], n_dim=3)),
    ("nearest", single("Resize", None, F([1, 1, 1, 2, 2]), n_dim=3, **NEAREST)),
    ("linear", single("Resize", None, F([1, 1, 2, 2, 2]), n_dim=3, **LINEAR)),
    ("mean", single("ReduceMean", I([2, 3, 4]), n_dim=3)),
]


@pytest.mark.parametrize("onnx_bytes", [row[1] for row in VOLUMES], ids=[row[0] for row in VOLUMES])
def test_volumes_as_openvino(onnx_bytes):
    x = image(2, 1, 4, 6, 8)
    with open_engine("torch", onnx_bytes) as engine, open_engine("openvino", onnx_bytes) as other:
        np.testing.assert_allclose(engine.infer(x)[0], other.infer(x)[0], atol=2e-5)


REFUSED = [
    ("unknown", single("NonZero"), r"does not know NonZero \(to 'y'\)"),
    ("foreign", graph([node("Magic", domain="com.example")]), "'Magic' of the domain 'com.example'"),
]


@pytest.mark.parametrize(("onnx_bytes", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_when_opened(onnx_bytes, words):
    with pytest.raises(EngineError, match=words):
        open_engine("torch", onnx_bytes)


UNABLE = [
    ("cubic", single("Resize", None, F([1, 1, 2, 2]), mode="cubic"), r"cannot run Resize .*resizing by 'cubic'"),
    ("odd nearest", single("Resize", None, F([1, 1, 1.5, 1]), **NEAREST), r"nearest resizing from \(12, 16\) to \[18, 16\]"),
    ("padded axes", single("Pad", I([1, 1]), None, I([2])), "padding with a list of axes"),
    ("cast to words", single("Cast", to=8), "cannot run Cast"),
]


@pytest.mark.parametrize(("onnx_bytes", "words"), [row[1:] for row in UNABLE], ids=[row[0] for row in UNABLE])
def test_refused_when_run(onnx_bytes, words):
    with open_engine("torch", onnx_bytes) as engine, pytest.raises(EngineError, match=words):
        engine.infer(image(1, 1, 12, 16))
