"""CAREamics' U-Net computes what CAREamics computes, and its files are read without running anything."""

import io
import os
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from careamics_checkpoints import draw, picture, state_dict

from live_restore.engines.engine import open_engine
from live_restore.errors import ModelError
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.nets.careamics_unet import CareamicsUnet, load_checkpoint, net_with_weights
from live_restore.models.onnx_export import run_net, to_onnx

PLAIN = {"n_dim": 2, "depth": 2, "first_filters": 4}
SOLID = {"n_dim": 3, "depth": 1, "first_filters": 4}
N2V2_3D = {"n_dim": 3, "depth": 2, "first_filters": 4, "n2v2": True}
INDEPENDENT = PLAIN | {"channels_in": 2, "channels_out": 2, "independent_channels": True}
RESIDUAL = PLAIN | {"depth": 3, "residual": True, "batch_norm": False}
TWO_TO_THREE = PLAIN | {"depth": 1, "channels_in": 2, "channels_out": 3}

# Written down from CAREamics itself, with these weights and images: the first, a third's, the middle and the last value of the
# output, their mean and standard deviation, the number of parameters (without unused batch normalisation).
FROM_CAREAMICS = {
    "0.3.5, 2D": (
        PLAIN,
        False,
        (1, 1, 16, 24),
        (-0.1374488, 0.06502879, -0.06958106, -0.3685285, -0.09060433, 0.2316597),
        5429,
    ),
    "0.3.5, 3D": (SOLID, False, (1, 1, 4, 8, 6), (-0.4144643, -1.166047, -0.2248384, -0.4982281, -0.6563298, 0.4792717), 3653),
    "0.3.5, N2V2 in 2D": (
        PLAIN | {"n2v2": True},
        False,
        (1, 1, 16, 24),
        (-0.02606768, -0.04280874, 0.01120025, 0.03853709, 0.0003980404, 0.03008703),
        5285,
    ),
    "0.3.5, N2V2 in 3D": (
        N2V2_3D,
        False,
        (1, 1, 4, 8, 8),
        (0.02835849, 0.011472, 0.02174367, 0.0403562, 0.02344045, 0.006253842),
        15437,
    ),
    "0.3.5, independent channels": (
        INDEPENDENT,
        False,
        (1, 2, 16, 24),
        (-0.1374487, -0.00414788, 0.03315663, 0.03315663, -0.02797785, 0.1758183),
        10858,
    ),
    "0.3.5, residual without norm": (
        RESIDUAL,
        False,
        (1, 1, 16, 24),
        (0.06502879, 1.063395, 0.8300979, -0.946165, 0.0729921, 0.7137842),
        None,
    ),
    "0.3.5, two to three channels": (
        TWO_TO_THREE,
        False,
        (2, 2, 8, 8),
        (-0.1242081, 0.1774755, 0.05584887, 0.01977704, 0.02705458, 0.10826),
        1323,
    ),
    "0.0.12, 2D": (
        PLAIN,
        True,
        (1, 1, 16, 24),
        (-0.03211432, -0.1494937, -0.06060585, 0.04271712, -0.1059487, 0.07425276),
        8213,
    ),
    "0.0.12, 3D": (SOLID, True, (1, 1, 4, 8, 6), (-0.2343229, -0.634832, -0.02971902, -0.5170212, -0.7476052, 0.4961383), 4961),
    "0.0.12, N2V2 in 2D": (
        PLAIN | {"n2v2": True},
        True,
        (1, 1, 16, 24),
        (-0.03418914, -0.1019562, -0.06701212, 0.03295777, -0.1087048, 0.07007811),
        8213,
    ),
    "0.0.12, N2V2 in 3D": (
        N2V2_3D,
        True,
        (1, 1, 4, 8, 8),
        (0.04110315, -0.6222188, 0.04467181, -0.06274895, -0.271315, 0.2214097),
        24125,
    ),
    "0.0.12, independent channels": (
        INDEPENDENT,
        True,
        (1, 2, 16, 24),
        (-0.03211432, -0.1357792, 0.03315663, 0.03315663, -0.02919362, 0.1025334),
        16426,
    ),
    "0.0.12, two to three channels": (
        TWO_TO_THREE,
        True,
        (2, 2, 8, 8),
        (-0.03228749, 0.08748284, -0.0002115492, 0.02091189, 0.0270881, 0.07611588),
        1767,
    ),
}


@pytest.mark.parametrize("case", FROM_CAREAMICS)
def test_it_computes_what_careamics_computes(case):
    options, early, shape, expected, parameters = FROM_CAREAMICS[case]
    net = net_with_weights(complete(options), state_dict(early=early, **options), "cells.ckpt")
    output = run_net(net, picture(shape))
    flat = output.ravel()
    found = (flat[0], flat[flat.size // 3], flat[flat.size // 2], flat[-1], flat.mean(), flat.std())
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert net.options["early"] == early
    if parameters:
        assert sum(tensor.numel() for tensor in net.parameters()) == parameters


def complete(options):
    """All options but the one that is read off the weights."""
    return {name: value for name, value in CareamicsUnet(**options).options.items() if name != "early"}


@pytest.mark.parametrize("case", ["0.3.5, 2D", "0.3.5, N2V2 in 3D", "0.3.5, independent channels", "0.0.12, N2V2 in 2D"])
def test_the_graph_computes_what_the_network_computes(case):
    options, early, shape, _, _ = FROM_CAREAMICS[case]
    net = net_with_weights(complete(options), state_dict(early=early, **options), "cells.ckpt")
    graph = to_onnx(net)
    with open_engine("openvino", graph, "f32") as engine:
        for batch in (picture(shape), picture((2, shape[1], *(2 * size for size in shape[2:])))):
            desired = run_net(net, batch)
            assert np.abs(engine.infer(batch)[0] - desired).max() < 2e-5 * np.ptp(desired)
    assert measure_geometry(graph).divisible_by == net.divisible_by


def test_independent_channels_do_not_see_each_other():
    net = net_with_weights(complete(INDEPENDENT), state_dict(**INDEPENDENT), "cells.ckpt")
    image = picture((1, 2, 16, 16))
    changed = image.copy()
    changed[:, 1] += 1
    before, after = run_net(net, image), run_net(net, changed)
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert np.abs(before[:, 1] - after[:, 1]).max() > 1e-3


def test_it_is_built_by_its_kind():
    net = build_net("careamics_unet", PLAIN, seed=1)
    assert net.options == CareamicsUnet(**PLAIN).options
    assert net.divisible_by == (4, 4)


IMPOSSIBLE = {
    "axes": ({"n_dim": 4}, "n_dim 4 is not possible here"),
    "depth": ({"n_dim": 2, "depth": 0}, "depth 0 is not possible"),
    "residual": (PLAIN | {"channels_out": 2, "residual": True}, "residual needs equally many channels in and out; got 1 and 2"),
    "independent": (
        PLAIN | {"channels_in": 2, "channels_out": 3, "independent_channels": True},
        "2 independent channels cannot give 3; use a multiple",
    ),
}


@pytest.mark.parametrize(("options", "reason"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        CareamicsUnet(**options)


def test_impossible_descriptions_are_refused():
    with pytest.raises(ModelError, match=r"cells\.ckpt describes an impossible network: residual needs"):
        net_with_weights(complete(PLAIN) | {"channels_out": 2, "residual": True}, {}, "cells.ckpt")


def drop_one(weights):
    del weights["final_conv.bias"]


def reshape_one(weights):
    weights["final_conv.bias"] = torch.zeros(7)


def number_for_one(weights):
    weights["final_conv.bias"] = 3.0


def stretch_one(weights):
    weights["final_conv.bias"] = torch.zeros(1, 1).expand(1, 1)
    weights["encoder.encoder_blocks.0.conv2.bias"] = torch.zeros(1).expand(4)


WRONG_WEIGHTS = {
    "missing": (drop_one, r"the weights of 'head\.bias' are missing, its description says \[1\]; weights and description"),
    "shape": (reshape_one, r"the weights of 'head\.bias' are \[7\], its description says \[1\]"),
    "number": (number_for_one, r"the weights of 'head\.bias' are missing"),
    "stretched": (stretch_one, r"the weights of 'down\.0\.conv2\.bias' are stretched from fewer numbers than they claim"),
}


@pytest.mark.parametrize(("damage", "reason"), WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_weights_of_another_network_are_refused(damage, reason):
    weights = state_dict(**PLAIN)
    damage(weights)
    with pytest.raises(ModelError, match=reason):
        net_with_weights(complete(PLAIN), weights, "cells.ckpt")


def test_a_description_of_a_gigantic_network_costs_nothing():
    with pytest.raises(ModelError, match="weights and description belong to different networks"):
        net_with_weights(complete(PLAIN) | {"depth": 10, "first_filters": 1024}, state_dict(**PLAIN), "cells.ckpt")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


def saved(content, **options):
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


OBJECTS = {
    "a bomb": (lambda: saved({"state_dict": Bomb()}), r"the Python object (posix|nt)\.mkdir, which could run code"),
    "a bomb in the old format": (
        lambda: saved(Bomb(), _use_new_zipfile_serialization=False),
        r"the Python object (posix|nt)\.mkdir, which could run code",
    ),
    "a path": (lambda: saved({"path": pathlib.PurePosixPath("a")}), "the Python object pathlib.*, which could run code"),
    "a whole network": (lambda: saved(torch.nn.Linear(1, 1)), r"the Python object torch\.nn\.modules\.linear\.Linear"),
}


@pytest.mark.parametrize(("write", "reason"), OBJECTS.values(), ids=OBJECTS)
def test_files_with_objects_are_refused_and_run_nothing(write, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=reason):
        load_checkpoint(write(), "cells.ckpt")
    assert list(tmp_path.iterdir()) == []


def damaged_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02no pickle")
        archive.writestr("archive/version", "3")
    return stream.getvalue()


DAMAGED = {
    "empty": b"",
    "text": b"no checkpoint",
    "cut off": saved({"state_dict": draw("x.weight", (100, 100))})[:5000],
    "a zip of something else": damaged_zip(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused(content):
    with pytest.raises(ModelError, match=r"cells\.ckpt (is no readable PyTorch file|holds )"):
        load_checkpoint(content, "cells.ckpt")
