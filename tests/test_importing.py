"""Importing: every source finds its importer, and what comes out is a package that computes what its facts say."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow_files as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import care_layers, rcan_layers, write_care, write_model, write_projection
from tiny_packages import smoothing_graph, smoothing_tensors

from live_restore.engines.engine import open_engine
from live_restore.errors import ModelError
from live_restore.intensity import measure_percentiles
from live_restore.models.facts import Architecture, Normalisation
from live_restore.models.foreign import importing
from live_restore.models.foreign.example_image import render_counts
from live_restore.models.foreign.imported import Imported, sha256_of
from live_restore.models.foreign.importers import BIOIMAGEIO, CAREAMICS, CSBDEEP, RCAN, importer_of, read_source
from live_restore.models.foreign.importing import import_model
from live_restore.models.package import open_package

# name: what is written, (kind, n_dim, output channels of the graph)
SOURCES = {
    "care 2d": (write_care, ("care", 2, 1)),
    "care 3d probabilistic": (lambda folder: write_care(folder, n_dim=3, probabilistic=True, depth=1), ("care", 3, 2)),
    "care two channels to one": (lambda folder: write_care(folder, channels_in=2, residual=False), ("care", 2, 1)),
    "projection": (write_projection, ("projection_care", 3, 1)),
    "rcan 3d": (lambda folder: write_rcan(folder, n_dim=3), ("rcan", 3, 1)),
    "rcan 2d that doubles": (lambda folder: write_rcan(folder, steps=(2,)), ("rcan", 2, 1)),
}


def write_rcan(folder, **options):
    folder.mkdir(parents=True)
    write_model(folder / "weights_003_0.01.hdf5", rcan_layers(**options))


@pytest.mark.parametrize("case", SOURCES)
def test_a_package_computes_what_it_says(tmp_path, case):
    write, (kind, n_dim, channels) = SOURCES[case]
    write(tmp_path / "a model")
    package = import_model(tmp_path / "a model", tmp_path / "package")
    assert (package.name, package.facts.architecture.kind, package.facts.geometry.n_dim) == ("a model", kind, n_dim)
    assert package.test_output().shape[1] == channels
    with open_engine("openvino", package.onnx(), "f32") as engine:
        (found,) = engine.infer(package.test_input())
    np.testing.assert_allclose(found, package.test_output(), atol=1e-5)
    assert found.std() > 1e-3


def test_the_facts_of_a_package(tmp_path):
    write_care(tmp_path / "nuclei")
    source = tmp_path / "nuclei" / "weights_best.h5"
    facts = import_model(tmp_path / "nuclei", tmp_path / "nuclei.zip").facts
    assert facts.provenance.source_sha256 == sha256_of(source) == sha256_of(source.read_bytes())
    assert (facts.provenance.source_name, facts.provenance.written_by) == ("weights_best.h5", "keras 2.8.0")
    assert facts.provenance.imported_by.startswith("live_restore ")
    assert facts.geometry.divisible_by == (4, 4)
    assert facts.geometry.halo == (23, 23)
    assert (facts.procedure, facts.z_factor) == ("direct", None)
    assert open_package(tmp_path / "nuclei.zip").facts == facts


def test_options_reach_the_package(tmp_path):
    write_care(tmp_path / "model", n_dim=3, depth=1)
    package = import_model(
        tmp_path / "model",
        tmp_path / "package",
        name="chosen name",
        procedure="upsampling",
        z_factor=4,
        low_percentile=3,
        high_percentile=99,
        weights=tmp_path / "model" / "weights_best.h5",
    )
    facts = package.facts
    assert (package.name, facts.procedure, facts.z_factor) == ("chosen name", "upsampling", 4)
    assert (facts.normalisation.low_percentile, facts.normalisation.high_percentile) == (3, 99)


def test_a_short_name_is_made_long_enough(tmp_path):
    write_care(tmp_path / "care")
    assert import_model(tmp_path / "care", tmp_path / "package").name == "care model"


def test_a_package_is_replaced_only_when_asked(tmp_path):
    write_care(tmp_path / "model")
    import_model(tmp_path / "model", tmp_path / "package")
    with pytest.raises(ModelError, match=r"exists already; choose another name, or overwrite it"):
        import_model(tmp_path / "model", tmp_path / "package")
    assert import_model(tmp_path / "model", tmp_path / "package", name="second", overwrite=True).name == "second"


REFUSED_OPTIONS = {
    "isotropic with 3D": (
        {"procedure": "isotropic", "z_factor": 4},
        {"n_dim": 3, "depth": 1},
        "procedure 'isotropic' needs a 2D network",
    ),
    "upsampling with 2D": ({"procedure": "upsampling", "z_factor": 4}, {}, "procedure 'upsampling' needs a 3D network"),
    "negative factor": (
        {"procedure": "isotropic", "z_factor": -1},
        {},
        "cannot be imported like this: Input should be greater than or equal to 1",
    ),
    "factor without procedure": ({"z_factor": 2}, {}, "z_factor 2 needs the procedure that makes Z finer"),
    "percentiles reversed": ({"low_percentile": 99.9}, {}, r"percentiles are not possible: low_percentile 99\.9 must be below"),
    "percentile of 200": (
        {"high_percentile": 200},
        {},
        "percentiles are not possible: Input should be less than or equal to 100",
    ),
}


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_options_that_are_not_possible(tmp_path, case):
    options, network, message = REFUSED_OPTIONS[case]
    write_care(tmp_path / "model", **network)
    with pytest.raises(ModelError, match=message):
        import_model(tmp_path / "model", tmp_path / "package", **options)
    assert not (tmp_path / "package").exists()


# --- a source that brings its own graph ----------------------------------------------------------------------------


def graph_source(**changes):
    test_input, test_output = smoothing_tensors()
    return Imported(
        **{
            "onnx": smoothing_graph(),
            "architecture": Architecture(kind="onnx"),
            "normalisation": Normalisation(),
            "source_format": "bioimageio-onnx",
            "source_name": "weights.onnx",
            "source_sha256": "0" * 64,
            "name": "a graph",
            "test_input": test_input,
            "test_output": test_output,
        }
        | changes
    )


def test_a_source_keeps_its_own_test_images():
    source = graph_source()
    test_input, test_output = importing.example_images(source, source.onnx, facts_of(source))
    assert test_input is source.test_input
    assert test_output is source.test_output


@pytest.mark.parametrize("changes", [{"test_output": None}, {"test_input": None}], ids=["no output", "no input"])
def test_a_graph_without_test_images_is_run(changes):
    source = graph_source(**changes)
    test_input, test_output = importing.example_images(source, source.onnx, facts_of(source))
    assert test_input.shape == test_output.shape == (1, 1, 128, 128)
    with open_engine("openvino", source.onnx, "f32") as engine:
        np.testing.assert_allclose(engine.infer(test_input)[0], test_output, atol=1e-6)


@pytest.mark.parametrize(
    "normalisation", [Normalisation(measure="mean_std"), Normalisation(per_channel=False)], ids=["mean_std", "jointly"]
)
def test_rendered_images_are_normalised_as_the_facts_say(normalisation):
    source = graph_source(normalisation=normalisation, test_input=None)
    test_input, _ = importing.example_images(source, source.onnx, facts_of(source))
    if normalisation.measure == "mean_std":
        assert (abs(test_input.mean()) < 1e-5, abs(test_input.std() - 1) < 1e-5) == (True, True)
    else:
        measured = measure_percentiles(test_input[0], per_channel=False)
        np.testing.assert_allclose([measured.low[0], measured.high[0]], [0, 1], atol=1e-5)


def facts_of(source):
    from live_restore.models.geometry.graph import measure_geometry

    return importing.facts_of(source, source.normalisation, measure_geometry(source.onnx), "direct", None)


def test_percentiles_of_a_model_that_has_none():
    with pytest.raises(ModelError, match=r"normalised by mean_std \(volume\); leave out the percentiles"):
        importing.with_percentiles(Normalisation(measure="mean_std"), 1, None)


@pytest.mark.parametrize(("changes", "word"), [({"onnx": None}, "neither"), ({"net": object()}, "both")])
def test_a_source_has_a_network_or_a_graph(changes, word):
    with pytest.raises(ValueError, match=f"give exactly one of net and onnx for 'a graph'; got {word}"):
        graph_source(**changes)


# --- who reads what ------------------------------------------------------------------------------------------------


def _zip(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return path


def _text(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _care(folder):
    write_care(folder / "m")
    return folder / "m"


def _rcan(folder):
    return write_model(folder / "weights_001_0.1.hdf5", rcan_layers())


def _renamed(folder, name):
    return _rcan(folder).rename(folder / name)


def _export(folder):
    return tf.write_export(folder / "TF_SavedModel.zip", care_layers(), tf.care_graph())


IMPORTERS = {
    "CSBDeep folder": (_care, CSBDEEP),
    "config.json": (lambda f: _care(f) / "config.json", CSBDEEP),
    "CARE h5": (lambda f: _care(f) / "weights_best.h5", CSBDEEP),
    "CARE h5 of another name": (lambda f: (_care(f) / "weights_best.h5").rename(f / "w.hdf5"), CSBDEEP),
    "folder with a CARE h5 alone": (lambda f: (_care(f) / "config.json").unlink() or f / "m", CSBDEEP),
    "projection h5": (lambda f: write_projection(f) and f / "weights_best.h5", CSBDEEP),
    "SavedModel zip": (_export, CSBDEEP),
    "folder with a zip alone": (lambda f: _export(f).parent, CSBDEEP),
    "SavedModel folder": (lambda f: _text(f / "saved_model.pb").parent, CSBDEEP),
    "RCAN file": (_rcan, RCAN),
    "RCAN file of another name": (lambda f: _renamed(f, "best.h5"), RCAN),
    "RCAN folder": (lambda f: _rcan(f).parent, RCAN),
    "RCAN folder with its configuration": (lambda f: _rcan(_text(f / "config.json", '{"epochs": 300}').parent).parent, RCAN),
    "folder with an RCAN of another name": (lambda f: _renamed(f, "best.hdf5").parent, RCAN),
    "checkpoint": (lambda f: _zip(f / "last.ckpt", "last/data.pkl", "last/data/0"), CAREAMICS),
    "bioimage.io folder": (lambda f: _text(f / "rdf.yaml").parent, BIOIMAGEIO),
    "bioimage.io zip": (lambda f: _zip(f / "m.zip", "bioimageio.yaml", "weights.onnx"), BIOIMAGEIO),
    "bioimage.io zip with a state dict": (lambda f: _zip(f / "m.zip", "sub/data.pkl", "rdf.yaml"), BIOIMAGEIO),
    "bioimage.io description": (lambda f: _text(f / "rdf.yaml"), BIOIMAGEIO),
}


@pytest.mark.parametrize("case", IMPORTERS)
def test_every_source_finds_its_importer(tmp_path, case):
    make, importer = IMPORTERS[case]
    assert importer_of(make(tmp_path)) is importer


def _other_layers(folder):
    with h5py.File(folder / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense", b"dense_1"]
    return folder / "w.h5"


NOBODYS = {
    "nothing there": (lambda f: f / "gone", "there is nothing at .*gone; check the path"),
    "empty folder": (
        lambda f: f,
        r"holds no model that is known \(it is empty\); what can be imported: a CSBDeep model folder",
    ),
    "folder of images": (lambda f: _text(f / "cells.tif").parent, r"holds no model that is known \(cells\.tif\)"),
    "zip of images": (
        lambda f: _zip(f / "a.zip", "1", "2", "3", "4", "5", "6"),
        r"the zip a\.zip holds no model .*\(1, 2, 3, 4, 5, \.\.\.\)",
    ),
    "keras 3 archive": (
        lambda f: _zip(f / "a.keras", "config.json", "model.weights.h5"),
        r"is in Keras 3's own format \(\.keras\)",
    ),
    "bare onnx": (lambda f: _text(f / "net.onnx", "\x08\x09"), r"net\.onnx is a bare graph that does not say how to normalise"),
    "pickle": (
        lambda f: (f / "w.ckpt").write_bytes(b"\x80\x04x") and f / "w.ckpt",
        r"w\.ckpt is a Python pickle: it could run any program",
    ),
    "web page": (lambda f: _text(f / "w.h5", "<!DOCTYPE html>"), r"w\.h5 is a web page: download the weight file itself"),
    "git lfs": (
        lambda f: _text(f / "w.h5", "version https://git-lfs.github.com/spec/v1"),
        "is a Git LFS pointer: run 'git lfs pull'",
    ),
    "other network": (_other_layers, r"w\.h5 has the layers dense, dense_1, which are those of neither CARE nor 3D-RCAN"),
}


@pytest.mark.parametrize("case", NOBODYS)
def test_what_nobody_can_import_is_named(tmp_path, case):
    make, message = NOBODYS[case]
    with pytest.raises(ModelError, match=message):
        importer_of(make(tmp_path))


def test_weights_cannot_be_chosen_where_there_is_one_set(tmp_path):
    source = _text(tmp_path / "rdf.yaml")
    with pytest.raises(
        ModelError, match=r"is a bioimage\.io package, which has one set of weights; leave out the choice of other\.h5"
    ):
        read_source(source, tmp_path / "other.h5")


# --- the rendered image --------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 2), st.integers(8, 40), st.integers(8, 40)) | st.tuples(*[st.integers(1, 20)] * 4),
    st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_a_rendered_image_is_dim_noisy_and_the_same_again(shape, seed):
    counts = render_counts(shape, seed)
    assert (counts.shape, counts.dtype) == (shape, np.uint16)
    assert 60 < counts.mean() < 300
    np.testing.assert_array_equal(counts, render_counts(shape, seed))


def test_a_rendered_image_has_structure_above_its_noise():
    counts = render_counts((1, 128, 128))[0].astype(float)
    blocks = counts.reshape(32, 4, 32, 4).mean((1, 3))
    noise = np.diff(counts, axis=1).std() / np.sqrt(2)
    assert blocks.std() > 2 * noise / 4


@pytest.mark.realdata
def test_a_real_model_becomes_a_package(shared_data, tmp_path):
    package = import_model(shared_data / "models" / "care2d", tmp_path / "care2d")
    facts = package.facts
    assert (package.name, facts.architecture.parameters) == ("care2d", 332_641)
    assert json.loads((shared_data / "models" / "care2d" / "config.json").read_text(encoding="utf-8"))["unet_n_depth"] == 2
    assert facts.architecture.options["depth"] == 2
