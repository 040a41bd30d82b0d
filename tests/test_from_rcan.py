"""3D-RCAN weights: the network is read off its kernels and computes what it should; everything else is refused."""

import numpy as np
import pytest
import reference_forward as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import random_layer, rcan_layers, write_model, write_weights

from live_restore.engines.engine import open_engine
from live_restore.errors import ModelError
from live_restore.models.foreign import from_rcan
from live_restore.models.foreign.conv_weights import ConvWeights
from live_restore.models.onnx_export import to_onnx

# (what the file is written with, image size ([Z,] Y, X))
NETWORKS = {
    "2d": ({}, (12, 16)),
    "3d": ({"n_dim": 3}, (4, 8, 6)),
    "2d one group": ({"groups": 1, "blocks": 3}, (12, 10)),
    "3d one group of one block": ({"n_dim": 3, "groups": 1, "blocks": 1}, (3, 6, 6)),
    "2d five by three": ({"groups": 5, "blocks": 3, "channels": 16, "reduction": 8}, (16, 16)),
    "2d two channels to one": ({"channels_in": 2}, (12, 12)),
    "2d squeezed to one": ({"reduction": 8}, (10, 10)),
    "2d not squeezed": ({"reduction": 1}, (10, 10)),
    "2d twice as large": ({"steps": (2,)}, (8, 10)),
    "2d four times": ({"steps": (2, 2), "blocks": 1}, (6, 8)),
    "2d three times, one group": ({"steps": (3,), "groups": 1}, (6, 8)),
    "3d twice as large": ({"n_dim": 3, "steps": (2,), "blocks": 1}, (3, 6, 4)),
}


def options_of(n_dim=2, channels_in=1, channels_out=1, channels=8, blocks=2, groups=2, reduction=4, steps=()):
    return {
        "n_dim": n_dim,
        "channels_in": channels_in,
        "channels_out": channels_out,
        "channels": channels,
        "blocks": blocks,
        "groups": groups,
        "reduction": reduction,
        "upscale": int(np.prod(steps)),
    }


@pytest.mark.parametrize("case", NETWORKS)
def test_files_compute_what_they_should(tmp_path, case):
    written, sizes = NETWORKS[case]
    layers = rcan_layers(**written)
    keras = 3 if "3d" in case else 2
    imported = from_rcan.read(write_model(tmp_path / "weights_012_0.0312.hdf5", layers, keras=keras))
    options = options_of(**written)
    assert imported.architecture.options == options | {"residual_scaling": 1.0}
    image = np.random.default_rng(5).uniform(0, 1, (*sizes, options["channels_in"])).astype(np.float32)
    with open_engine("openvino", to_onnx(imported.net), "f32") as engine:
        found = np.moveaxis(engine.infer(np.ascontiguousarray(np.moveaxis(image, -1, 0)[None]))[0][0], 0, -1)
    arrays = [arrays for _, *arrays in layers]
    wanted = reference.rcan(image.astype(np.float64), arrays, options["blocks"], options["groups"], 1.0, options["upscale"])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@given(
    st.fixed_dictionaries(
        {
            "n_dim": st.sampled_from([2, 3]),
            "channels_in": st.integers(1, 3),
            "channels_out": st.integers(1, 3),
            "channels": st.sampled_from([4, 8]),
            "blocks": st.integers(1, 4),
            "groups": st.integers(1, 4),
            "reduction": st.sampled_from([1, 2, 4]),
            "steps": st.sampled_from([(), (2,), (3,), (2, 2)]),
        }
    )
)
@settings(max_examples=60, deadline=None)
def test_any_structure_is_read_off_its_kernels(written):
    convolutions = [ConvWeights(*layer) for layer in rcan_layers(**written)]
    assert from_rcan.structure(convolutions) == options_of(**written)


def test_what_is_told_beside_the_weights(tmp_path):
    folder = tmp_path / "denoise ER"
    folder.mkdir()
    layers = rcan_layers(n_dim=3)
    names = ["input_1", "lambda_standardize_1", *(name for name, *_ in layers), "lambda_destandardize_1"]
    write_model(folder / "weights_087_0.03305121.hdf5", layers, names, block=(16, 128, 256))
    imported = from_rcan.read(folder)
    assert (imported.name, imported.source_format, imported.written_by) == ("denoise ER", "3d-rcan-hdf5", "keras 2.2.4")
    assert imported.source_name == "weights_087_0.03305121.hdf5"
    assert any(
        "residual scaling of 1.0" in note and "lambda_standardize_1, lambda_destandardize_1" in note for note in imported.notes
    )
    assert any("trained on blocks of 16 x 128 x 256 pixels" in note for note in imported.notes)


def test_normalisation_is_that_of_3d_rcan(tmp_path):
    normalisation = from_rcan.read(write_model(tmp_path / "a.hdf5", rcan_layers())).normalisation
    assert (normalisation.low_percentile, normalisation.high_percentile) == (2, 99.9)
    assert (normalisation.per_channel, normalisation.mode, normalisation.output) == (False, "volume", "inverse")
    assert from_rcan.read(write_model(tmp_path / "b.hdf5", rcan_layers(channels_in=2))).normalisation.output == "none"


def test_weights_alone_are_read_too_and_keep_their_name(tmp_path):
    imported = from_rcan.read(write_weights(tmp_path / "my_rcan.hdf5", rcan_layers()))
    assert imported.name == "my_rcan"
    assert not any("blocks of" in note for note in imported.notes)


CHECKPOINTS = {
    "smallest loss": (["weights_001_0.5.hdf5", "weights_002_0.03.hdf5", "weights_003_0.1.hdf5"], "weights_002_0.03.hdf5"),
    "by number, not by letter": (["weights_001_0.9.hdf5", "weights_002_10.5.hdf5"], "weights_001_0.9.hdf5"),
    "equal losses: the latest": (["weights_009_0.1.hdf5", "weights_010_0.1.hdf5"], "weights_010_0.1.hdf5"),
    "others do not count": (["best.hdf5", "weights_001_0.7.hdf5", "weights_x_0.1.hdf5"], "weights_001_0.7.hdf5"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_the_checkpoint_of_a_folder(tmp_path, case):
    names, chosen = CHECKPOINTS[case]
    for name in names:
        write_model(tmp_path / name, rcan_layers())
    assert from_rcan.read(tmp_path).source_name == chosen
    assert from_rcan.read(tmp_path, tmp_path / names[0]).source_name == names[0]
    assert from_rcan.read(tmp_path, (tmp_path / names[1]).relative_to(tmp_path)).source_name == names[1]


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(
        ModelError, match=r"holds no checkpoint of 3D-RCAN \(weights_<epoch>_<loss>\.hdf5\); name the weight file"
    ):
        from_rcan.read(tmp_path)


def _changed(place, shape):
    return lambda layers: [
        random_layer(name, shape if i == place else kernel.shape, np.random.default_rng(0))
        for i, (name, kernel, _) in enumerate(layers)
    ]


# What the layers of the default file are made into: head, 2 x (2 x (3, 3, 1, 1), 3), body, tail.
WRONG_LAYERS = {
    "none": (lambda layers: [], r"the 0 convolutions do not form groups .*found \[\]"),
    "no attention": (lambda layers: layers[:3], r"the 3 convolutions do not form groups of equally many blocks"),
    "a block short": (lambda layers: layers[:1] + layers[5:], r"do not form groups of equally many blocks \(found \[1, 2\]\)"),
    "half a block": (lambda layers: layers[:12] + layers[13:], r"do not form groups of equally many blocks"),
    "no tail": (lambda layers: layers[:-2], "after the 2 groups there are too few convolutions; the file is incomplete"),
    "kernel of 5": (_changed(0, (5, 5, 1, 8)), r"'conv2d_218' has a kernel of \(5, 5\) pixels, RCAN's have 3 or 1"),
    "other width": (
        _changed(5, (3, 3, 8, 12)),
        r"'conv2d_223' has a kernel of shape \(3, 3, 8, 12\), as 'first' of an RCAN of 2 groups",
    ),
    "absurd width": (_changed(0, (3, 3, 1, 100_000)), r"as 'first' of an RCAN of 2 groups of 2 blocks with 100000 channels"),
    "no upscaling": (
        lambda layers: [*layers[:-1], random_layer("conv2d_900", (3, 3, 8, 12), np.random.default_rng(0)), layers[-1]],
        "'conv2d_900' between body and tail turns 8 channels into 12, which no upscaling by a whole factor does",
    ),
    "group convolution in a single group": (
        lambda layers: [*layers[:10], *layers[-2:]],
        "between body and tail turns 8 channels into 8, which no upscaling",
    ),
}


@pytest.mark.parametrize("case", WRONG_LAYERS)
def test_convolutions_that_no_rcan_has(tmp_path, case):
    change, message = WRONG_LAYERS[case]
    layers = change(rcan_layers())
    path = write_weights(tmp_path / "w.hdf5", layers, names=[name for name, *_ in layers] or ["input"])
    with pytest.raises(ModelError, match=message):
        from_rcan.read(path)


def test_an_attention_that_does_not_divide_the_channels(tmp_path):
    shapes = {(1, 1, 8, 2): (1, 1, 8, 3), (1, 1, 2, 8): (1, 1, 3, 8)}
    dice = np.random.default_rng(0)
    layers = [random_layer(name, shapes.get(kernel.shape, kernel.shape), dice) for name, kernel, _ in rcan_layers()]
    with pytest.raises(ModelError, match=r"has a kernel of shape \(1, 1, 8, 3\), as 'squeeze' of an RCAN"):
        from_rcan.read(write_weights(tmp_path / "w.hdf5", layers))
