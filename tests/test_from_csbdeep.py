"""CARE models of CSBDeep: every structural option, imported from every place they are kept in, computes what it should."""

import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import reference_forward as reference
import tensorflow_files as tf
from keras_files import care_layers, projection_layers, random_layer, write_care, write_projection, write_weights

from live_restore.engines.engine import open_engine
from live_restore.errors import ModelError
from live_restore.models.foreign import from_csbdeep
from live_restore.models.onnx_export import run_net, to_onnx

# (options of the network, image size ([Z,] Y, X))
NETWORKS = {
    "2d": ({}, (16, 24)),
    "2d kernel 5": ({"kernel": 5, "first": 3}, (16, 16)),
    "2d depth 1": ({"depth": 1}, (10, 12)),
    "2d depth 3": ({"depth": 3}, (16, 24)),
    "2d two channels": ({"channels_in": 2, "channels_out": 2}, (16, 16)),
    "2d two to one": ({"channels_in": 2, "residual": False}, (16, 16)),
    "2d relu": ({"last_activation": "relu"}, (16, 16)),
    "2d not residual": ({"residual": False}, (16, 16)),
    "2d probabilistic": ({"probabilistic": True}, (16, 16)),
    "2d probabilistic, counter at 9": ({"probabilistic": True, "head": 9, "channels_in": 2, "channels_out": 2}, (16, 16)),
    "3d": ({"n_dim": 3}, (4, 8, 12)),
    "3d everything": (
        {
            "n_dim": 3,
            "probabilistic": True,
            "depth": 1,
            "last_activation": "relu",
            "channels_in": 2,
            "channels_out": 2,
            "head": 1,
        },
        (4, 6, 8),
    ),
}


def random_image(sizes, channels):
    return np.random.default_rng(11).normal(0.4, 0.4, (*sizes, channels)).astype(np.float32)


def restored(imported, image, engine=True):
    """What the ONNX graph in an engine, or the network itself, makes of (..., C), channels last again."""
    batch = np.ascontiguousarray(np.moveaxis(image, -1, 0)[None])
    if not engine:
        return np.moveaxis(run_net(imported.net, batch)[0], 0, -1)
    with open_engine("openvino", to_onnx(imported.net), "f32") as opened:
        return np.moveaxis(opened.infer(batch)[0][0], 0, -1)


def expected(image, layers, depth=2, residual=True, last_activation="linear", probabilistic=False, **rest):
    weights = {name: arrays for name, *arrays in layers}
    heads = layers[-2:] if probabilistic else layers[-1:]
    weights |= {f"head_{kind}": arrays for kind, (_, *arrays) in zip(("mean", "scale"), heads, strict=False)}
    return reference.care(image.astype(np.float64), weights, depth, residual, last_activation, probabilistic)


@pytest.mark.parametrize("keras", [2, 3], ids=["keras 2", "keras 3"])
@pytest.mark.parametrize("case", NETWORKS)
def test_model_folders_compute_what_they_should(tmp_path, case, keras):
    options, sizes = NETWORKS[case]
    layers = write_care(tmp_path / "my care", keras=keras, **options)
    imported = from_csbdeep.read(tmp_path / "my care")
    image = random_image(sizes, options.get("channels_in", 1))
    found = restored(imported, image, engine=keras == 2)
    np.testing.assert_allclose(found, expected(image, layers, **options), atol=1e-5)
    assert (imported.name, imported.source_format, imported.architecture.kind) == ("my care", "csbdeep-h5", "care")
    assert imported.architecture.parameters == sum(array.size for _, *arrays in layers for array in arrays)
    assert imported.probabilistic == options.get("probabilistic", False)
    assert imported.channels_in == options.get("channels_in", 1)
    assert imported.channels_out == options.get("channels_out", 1)


@pytest.mark.parametrize("case", NETWORKS)
def test_exports_compute_what_they_should(tmp_path, case):
    options, sizes = NETWORKS[case]
    ending = {key: options[key] for key in ("residual", "last_activation", "probabilistic") if key in options}
    layers = care_layers(**{key: value for key, value in options.items() if key not in ("residual", "last_activation")})
    path = tf.write_export(tmp_path / "TF_SavedModel.zip", layers, tf.care_graph(**ending))
    imported = from_csbdeep.read(path)
    image = random_image(sizes, options.get("channels_in", 1))
    np.testing.assert_allclose(restored(imported, image, engine=False), expected(image, layers, **options), atol=1e-5)
    assert (imported.name, imported.source_format) == (tmp_path.name, "csbdeep-savedmodel")
    assert imported.written_by == "tensorflow 1.15.5"


PROJECTIONS = {
    "default": {},
    "two per level": {"per_depth": 2, "n_depth": 1, "last_activation": "relu"},
    "flat kernel, probabilistic": {"kernel": (1, 3, 3), "probabilistic": True, "head": 3},
    "two channels to one": {"channels_in": 2, "residual": False},
}


def expected_projection(volume, surface, flat, n_depth=2, per_depth=1, **options):
    flattened = reference.surface_projection(
        volume.astype(np.float64), [arrays for _, *arrays in surface], n_depth, per_depth, (1, 2, 2)
    )
    return expected(flattened, flat, **{key: value for key, value in options.items() if key != "kernel"})


@pytest.mark.parametrize("case", PROJECTIONS)
def test_projections_compute_what_they_should(tmp_path, case):
    options = PROJECTIONS[case]
    surface, flat = write_projection(tmp_path, **options)
    imported = from_csbdeep.read(tmp_path)
    volume = random_image((5, 16, 24), options.get("channels_in", 1))
    np.testing.assert_allclose(restored(imported, volume), expected_projection(volume, surface, flat, **options), atol=1e-5)
    assert imported.architecture.kind == "projection_care"


def test_exported_projection_is_read_off_its_graph(tmp_path):
    surface, flat = projection_layers(per_depth=2), care_layers()
    path = tf.write_export(
        tmp_path / "surface.zip", surface + flat, tf.care_graph(pools=[(1, 2, 2)] * 2), {"type": "ProjectionCARE"}
    )
    imported = from_csbdeep.read(path)
    volume = random_image((5, 16, 24), 1)
    np.testing.assert_allclose(restored(imported, volume), expected_projection(volume, surface, flat, per_depth=2), atol=1e-5)
    assert imported.name == "surface"


def test_normalisation_is_that_of_csbdeep(tmp_path):
    write_care(tmp_path / "same")
    write_care(tmp_path / "other", channels_in=2, residual=False)
    normalisation = from_csbdeep.read(tmp_path / "same").normalisation
    assert (normalisation.measure, normalisation.low_percentile, normalisation.high_percentile) == ("percentiles", 2, 99.8)
    assert (normalisation.per_channel, normalisation.mode, normalisation.output) == (True, "volume", "inverse")
    assert from_csbdeep.read(tmp_path / "other").normalisation.output == "none"


# --- which weights -------------------------------------------------------------------------------------------------


def write_named(folder, names):
    """Weight files with different weights, each a second younger than the one before; the kernel of each tells its number."""
    write_care(folder)
    (folder / "weights_best.h5").unlink()
    for i, name in enumerate(names):
        layers = care_layers(seed=i)
        write_weights(folder / name, layers, ["input", *(layer for layer, *_ in layers), "add"])
        os.utime(folder / name, (1e9 + i, 1e9 + i))


CHOICES = {
    "newest best": (["weights_best.h5", "old_best.h5", "weights_last.h5"], "old_best.h5"),
    "newest without best": (["weights_a.h5", "weights_b.hdf5", "weights_0.h5"], "weights_0.h5"),
    "hdf5 too": (["weights_last.h5", "best.hdf5"], "best.hdf5"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_weights_that_csbdeep_would_choose(tmp_path, case):
    names, chosen = CHOICES[case]
    write_named(tmp_path, names)
    imported = from_csbdeep.read(tmp_path)
    assert imported.source_name == chosen
    bias = dict(imported.net.convolutions())["middle_0"].bias.detach().numpy()
    np.testing.assert_array_equal(bias, {name: layer for name, _, layer in care_layers(seed=names.index(chosen))}["middle_0"])


def test_weights_may_be_named(tmp_path):
    write_named(tmp_path / "model", ["weights_best.h5", "weights_last.h5"])
    for weights in (Path("weights_last.h5"), tmp_path / "model" / "weights_last.h5"):
        assert from_csbdeep.read(tmp_path / "model", weights=weights).source_name == "weights_last.h5"


@pytest.mark.parametrize("source", ["config.json", "weights_best.h5", "."])
def test_a_file_of_the_folder_stands_for_it(tmp_path, source):
    write_care(tmp_path / "model", last_activation="relu")
    imported = from_csbdeep.read(tmp_path / "model" / source)
    assert imported.architecture.options["last_activation"] == "relu"
    assert imported.name == "model"


def test_without_config_the_weights_tell_all_but_the_last_activation(tmp_path):
    for folder, residual in (("a", True), ("b", False)):
        write_care(tmp_path / folder, residual=residual)
        (tmp_path / folder / "config.json").unlink()
        imported = from_csbdeep.read(tmp_path / folder / "weights_best.h5")
        assert imported.architecture.options["residual"] is residual
        assert any(
            "no config.json beside weights_best.h5: a linear last activation is assumed" in note for note in imported.notes
        )


def test_a_folder_with_only_an_export(tmp_path):
    write_care(tmp_path)
    (tmp_path / "weights_best.h5").unlink()
    tf.write_export(tmp_path / "TF_SavedModel.zip", care_layers(), tf.care_graph())
    assert from_csbdeep.read(tmp_path).source_format == "csbdeep-savedmodel"


def test_a_graph_that_is_not_understood_is_said(tmp_path):
    nodes = [tf.node("output", "Tanh", "x")]
    imported = from_csbdeep.read(tf.write_export(tmp_path / "a.zip", care_layers(), tf.saved_model(nodes)))
    assert imported.architecture.options["residual"] is True
    assert any("the end of the exported graph is not understood" in note for note in imported.notes)


@pytest.mark.parametrize(("kind", "procedure"), [("UpsamplingCARE", "upsampling"), ("IsotropicCARE", "isotropic")])
def test_an_export_tells_its_procedure(tmp_path, kind, procedure):
    imported = from_csbdeep.read(tf.write_export(tmp_path / "a.zip", care_layers(), tf.care_graph(), {"type": kind}))
    assert any(f"exported from {kind}: import it with procedure '{procedure}'" in note for note in imported.notes)


def test_unusual_axes_are_noted(tmp_path):
    write_care(tmp_path, n_dim=3, config={"axes": "TYXC"})
    assert any("trained on images with axes TYX" in note for note in from_csbdeep.read(tmp_path).notes)


# --- what is refused -----------------------------------------------------------------------------------------------


def changed_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


DISAGREEMENTS = {
    "n_dim": ({"n_dim": 3}, r"n_dim = 3, but weights_best\.h5 has 2: they do not belong together"),
    "depth": ({"unet_n_depth": 3}, r"unet_n_depth = 3, but weights_best\.h5 has 2"),
    "absurd depth": ({"unet_n_depth": 10**9}, r"unet_n_depth = 1000000000, but weights_best\.h5 has 2"),
    "kernel": ({"unet_kern_size": 5}, r"unet_kern_size = 5, but weights_best\.h5 has 3"),
    "filters": ({"unet_n_first": 1_000_000}, r"unet_n_first = 1000000, but weights_best\.h5 has 4"),
    "channels in": ({"n_channel_in": 2}, r"n_channel_in = 2, but weights_best\.h5 has 1"),
    "channels out": ({"n_channel_out": 2}, r"n_channel_out = 2, but weights_best\.h5 has 1"),
    "probabilistic": ({"probabilistic": True}, r"probabilistic = True, but weights_best\.h5 has False"),
    "residual": ({"unet_residual": False}, r"unet_residual = False, but the layers of weights_best\.h5 say True"),
    "projection": ({"proj_n_depth": 4}, "do not agree on whether this is a ProjectionCARE"),
    "last activation": ({"unet_last_activation": "tanh"}, "no care network is like this: last_activation 'tanh' is unknown"),
    "pool": ({"proj_pool": [1, 2]}, r"proj_pool = \[1, 2\]; it must be three whole numbers \(Z, Y, X\)"),
    "proj depth": ({"proj_n_depth": "four"}, "proj_n_depth = 'four'; it must be a small whole number"),
    "StarDist": ({"n_rays": 32}, "belongs to a StarDist model; only CARE models"),
    "Noise2Void": ({"n2v_perc_pix": 1.5}, "belongs to a Noise2Void model; only CARE models"),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_a_config_that_does_not_fit_its_weights(tmp_path, case):
    changes, message = DISAGREEMENTS[case]
    write_care(tmp_path)
    changed_config(tmp_path, **changes)
    with pytest.raises(ModelError, match=message):
        from_csbdeep.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[1, 2]", r"is no configuration of CSBDeep \(it has no unet_n_depth or unet_residual\)"),
        ('{"epochs": 300}', "is no configuration of CSBDeep"),
    ],
    ids=["html", "deep", "list", "other"],
)
def test_a_config_that_is_none(tmp_path, text, message):
    write_care(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        from_csbdeep.read(tmp_path)


def _without(name):
    return lambda layers: [layer for layer in layers if layer[0] != name]


def _reshaped(name, shape):
    return lambda layers: [
        random_layer(name, shape, np.random.default_rng(0)) if layer[0] == name else layer for layer in layers
    ]


def _more(name, shape=(1, 1, 4, 1)):
    return lambda layers: [*layers, random_layer(name, shape, np.random.default_rng(0))]


WRONG_LAYERS = {
    "none of CARE": (
        lambda layers: [layers[-1]],
        "there is no layer 'down_level_0_no_0' among 'conv2d'; these are not the weights of a CARE",
    ),
    "one missing": (_without("up_level_1_no_2"), "layer 'up_level_1_no_2' of CARE is missing; the file is incomplete"),
    "level missing": (_without("down_level_1_no_0"), "layer 'down_level_1_no_1', .* is none of CARE's"),
    "no head": (_without("conv2d"), r"there are 0 heads \(conv2d\.\.\., conv3d\.\.\.\); CARE has one, or two"),
    "three heads": (lambda layers: _more("conv2d_2")(_more("conv2d_1")(layers)), "there are 3 heads"),
    "strange layer": (_more("attention"), "layer 'attention' is none of CARE's; .* another network"),
    "other width": (
        _reshaped("middle_0", (3, 3, 8, 12)),
        r"'middle_0' has a kernel of shape \(3, 3, 8, 12\), as 'middle_0' of CARE with depth 2",
    ),
    "absurd width": (
        _reshaped("down_level_0_no_0", (3, 3, 1, 1_000_000)),
        r"as 'down_level_0_no_1' of CARE with depth 2 and 1000000 filters",
    ),
    "uneven kernel": (_reshaped("down_level_0_no_0", (3, 5, 1, 4)), r"a kernel of \(3, 5\) pixels; CARE's are equally long"),
    "even kernel": (lambda _: care_layers(kernel=4), "no care network is like this: kernel 4 is even"),
    "wide head": (_reshaped("conv2d", (3, 3, 4, 1)), r"'conv2d' has a kernel of shape \(3, 3, 4, 1\), as 'head'"),
}


@pytest.mark.parametrize("case", WRONG_LAYERS)
def test_weights_that_are_not_of_care(tmp_path, case):
    change, message = WRONG_LAYERS[case]
    path = write_weights(tmp_path / "weights_best.h5", change(care_layers()))
    with pytest.raises(ModelError, match=message):
        from_csbdeep.read(path)


def test_two_layers_of_one_name(tmp_path):
    write_projection(tmp_path)
    with h5py.File(tmp_path / "weights_best.h5", "a") as file:
        file.copy("model_13", "model_14")
        file.attrs["layer_names"] = [b"model_12", b"model_13", b"model_14"]
    with pytest.raises(ModelError, match="two layers of the file have the same name"):
        from_csbdeep.read(tmp_path)


PROJECTION_FAULTS = {
    "depth": ({"proj_n_depth": 3}, "the projection has 6 convolutions, which no number of them per level makes with depth 3"),
    "filters": ({"proj_n_filt": 8}, r"proj_n_filt = 8, but weights_best\.h5 has 4"),
    "kernel": ({"proj_kern": [1, 1, 1]}, r"proj_kern = \[1, 1, 1\], but weights_best\.h5 has \[3, 3, 3\]"),
    "axis": ({"proj_axis": "Y"}, "projects along Y of ZYX; only Z of ZYX can be imported"),
    "order of axes": ({"axes": "YXZC"}, "projects along Z of YXZ; only Z of ZYX can be imported"),
    "pool": ({"proj_pool": [0, 2, 2]}, "proj_pool = 0; it must be a small whole number"),
}


@pytest.mark.parametrize("case", PROJECTION_FAULTS)
def test_projections_that_are_refused(tmp_path, case):
    changes, message = PROJECTION_FAULTS[case]
    write_projection(tmp_path)
    changed_config(tmp_path, **changes)
    with pytest.raises(ModelError, match=message):
        from_csbdeep.read(tmp_path)


def test_a_projection_with_a_convolution_of_another_width(tmp_path):
    surface = _reshaped("conv3d_10", (3, 3, 3, 4, 5))(projection_layers())
    path = tf.write_export(tmp_path / "a.zip", surface + care_layers(), tf.care_graph(pools=[(1, 2, 2)] * 2))
    with pytest.raises(
        ModelError, match=r"'conv3d_10' has a kernel of shape .* as 'convolution 2 of the projection' of ProjectionCARE"
    ):
        from_csbdeep.read(path)


def test_a_folder_without_weights(tmp_path):
    write_care(tmp_path)
    (tmp_path / "weights_best.h5").unlink()
    with pytest.raises(ModelError, match=r"holds no weights \(\*\.h5, \*\.hdf5 or TF_SavedModel\.zip\)"):
        from_csbdeep.read(tmp_path)


def test_weights_that_do_not_exist(tmp_path):
    write_care(tmp_path)
    with pytest.raises(ModelError, match=r"cannot read weights_worst\.h5"):
        from_csbdeep.read(tmp_path, weights=Path("weights_worst.h5"))


def test_without_torch_the_cure_is_named(tmp_path, monkeypatch):
    write_care(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"needs torch; install it with: pip install 'live_restore\[train\]'"):
        from_csbdeep.read(tmp_path)


@pytest.mark.realdata
def test_a_real_model_gives_csbdeeps_own_output(shared_data):
    folder = shared_data / "models" / "care2d"
    pair = np.load(folder / "REFERENCE_csbdeep0.8.2_care2d.npz")
    imported = from_csbdeep.read(folder)
    np.testing.assert_allclose(
        restored(imported, pair["x"].reshape(256, 256, 1))[..., 0], pair["y"].reshape(256, 256), atol=1e-5
    )
    assert imported.architecture.parameters == 332_641


@pytest.mark.realdata
def test_a_real_export_has_the_same_structure_and_other_weights(shared_data):
    folder = shared_data / "models" / "care2d"
    weights, export = from_csbdeep.read(folder), from_csbdeep.read(folder / "TF_SavedModel.zip")
    assert export.architecture == weights.architecture
    assert export.written_by == "tensorflow 2.8.0"
    image = np.load(folder / "REFERENCE_csbdeep0.8.2_care2d.npz")["x"].reshape(256, 256, 1)
    assert np.abs(restored(export, image) - restored(weights, image)).max() > 0.01
