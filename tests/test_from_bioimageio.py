"""bioimage.io packages imported: their processing understood, checked on their test images, or refused by name."""

import hashlib

import numpy as np
import onnx
import pytest
import yaml
from foreign_packages import counts, described, smooth, write_foreign, zipped
from scipy.special import expit, softmax
from tiny_packages import smoothing_graph, write_smoothing_package

from live_restore.engines.engine import open_engine
from live_restore.errors import ModelError
from live_restore.models.facts import FrozenRange
from live_restore.models.foreign.from_bioimageio import read
from live_restore.models.foreign.importing import import_model


def step(version, name, **kwargs):
    return {"name" if version == "0.4" else "id": name, "kwargs": kwargs}


def per_sample(measure):
    """Apply a normalisation to every sample on its own."""
    return lambda x: np.stack([measure(sample.astype(np.float64)) for sample in x])


def percentiles(low, high, axes):
    def scale(sample):
        lowest, highest = (np.percentile(sample, p, axis=axes, keepdims=True) for p in (low, high))
        return (sample - lowest) / (highest - lowest + 1e-6)

    return per_sample(scale)


def mean_std(axes):
    return per_sample(lambda s: (s - s.mean(axes, keepdims=True)) / (s.std(axes, keepdims=True) + 1e-6))


def columns(*values):
    return np.array(values).reshape(1, -1, 1, 1)


# name: (format, channels, steps before, the same in numpy, steps behind, the same in numpy, what is done with the output)
UNDERSTOOD = {
    "nothing": ("0.5", 1, [], lambda x: x, [], lambda y: y, "none"),
    "casts": (
        "0.5",
        1,
        [step("0.5", "ensure_dtype", dtype="uint16"), step("0.5", "ensure_dtype", dtype="float32")],
        lambda x: x,
        [step("0.5", "ensure_dtype", dtype="float32")],
        lambda y: y,
        "none",
    ),
    "percentiles": (
        "0.5",
        2,
        [step("0.5", "scale_range", axes=["y", "x"], min_percentile=1, max_percentile=99.5, eps="1e-6")],
        percentiles(1, 99.5, (1, 2)),
        [],
        lambda y: y,
        "none",
    ),
    "percentiles of all channels": (
        "0.5",
        2,
        [step("0.5", "scale_range", axes=["channel", "y", "x"])],
        percentiles(0, 100, (0, 1, 2)),
        [],
        lambda y: y,
        "none",
    ),
    "percentiles, then clipped": (
        "0.5",
        1,
        [step("0.5", "scale_range", axes=["y", "x"], max_percentile=95), step("0.5", "clip", min=0, max=1)],
        lambda x: np.clip(percentiles(0, 95, (1, 2))(x), 0, 1),
        [],
        lambda y: y,
        "none",
    ),
    "percentiles, then spread": (
        "0.5",
        1,
        [step("0.5", "scale_range", axes=["y", "x"]), step("0.5", "scale_linear", gain=2.0, offset=-1.0)],
        lambda x: 2 * percentiles(0, 100, (1, 2))(x) - 1,
        [step("0.5", "clip", min=-0.5)],
        lambda y: np.maximum(y, -0.5),
        "none",
    ),
    "unit variance and sigmoid": (
        "0.5",
        1,
        [step("0.5", "zero_mean_unit_variance", axes=["y", "x"])],
        mean_std((1, 2)),
        [step("0.5", "sigmoid")],
        expit,
        "none",
    ),
    "softmax": (
        "0.5",
        3,
        [step("0.5", "zero_mean_unit_variance", axes=["channel", "y", "x"])],
        mean_std((0, 1, 2)),
        [step("0.5", "softmax", axis="channel")],
        lambda y: softmax(y, axis=1),
        "none",
    ),
    "fixed, there and back": (
        "0.5",
        1,
        [step("0.5", "fixed_zero_mean_unit_variance", mean=200.0, std=50.0)],
        lambda x: (x - 200) / 50,
        [step("0.5", "scale_linear", gain=50.0, offset=200.0)],
        lambda y: y * 50 + 200,
        "frozen",
    ),
    "fixed per channel": (
        "0.5",
        2,
        [step("0.5", "fixed_zero_mean_unit_variance", mean=[200.0, 100.0], std=[50.0, 20.0], axis="channel")],
        lambda x: (x - columns(200, 100)) / columns(50, 20),
        [step("0.5", "scale_linear", gain=[3.0, 4.0], offset=1.0, axis="channel")],
        lambda y: y * columns(3, 4) + 1,
        "frozen",
    ),
    "two fixed in a row": (
        "0.5",
        1,
        [step("0.5", "scale_linear", gain=0.5, offset=10.0), step("0.5", "scale_linear", gain=0.02, offset=-1.0)],
        lambda x: (x * 0.5 + 10) * 0.02 - 1,
        [],
        lambda y: y,
        "none",
    ),
    "upside down": (
        "0.5",
        1,
        [step("0.5", "scale_linear", gain=-0.01, offset=5.0)],
        lambda x: x * -0.01 + 5,
        [step("0.5", "scale_linear", gain=-100.0, offset=500.0)],
        lambda y: y * -100 + 500,
        "none",
    ),
    "fixed, then measured": (
        "0.5",
        1,
        [step("0.5", "scale_linear", gain=0.5), step("0.5", "zero_mean_unit_variance", axes=["y", "x"])],
        mean_std((1, 2)),
        [],
        lambda y: y,
        "none",
    ),
    "0.4 unit variance": (
        "0.4",
        1,
        [step("0.4", "zero_mean_unit_variance", mode="per_sample", axes="yx")],
        mean_std((1, 2)),
        [step("0.4", "sigmoid")],
        expit,
        "none",
    ),
    "0.4 fixed": (
        "0.4",
        2,
        [step("0.4", "zero_mean_unit_variance", axes="yx", mean=[200.0, 100.0], std=[50.0, 20.0])],
        lambda x: (x - columns(200, 100)) / columns(50, 20),
        [],
        lambda y: y,
        "none",
    ),
    "0.4 percentiles": (
        "0.4",
        1,
        [step("0.4", "scale_range", mode="per_sample", axes="xyc", min_percentile=2, max_percentile=99.8)],
        percentiles(2, 99.8, (0, 1, 2)),
        [],
        lambda y: y,
        "none",
    ),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_processing_is_understood(tmp_path, case):
    version, channels, pre, scale, post, unscale, output = UNDERSTOOD[case]
    image = counts(2, channels)
    expected = unscale(smooth(scale(image.astype(float))))
    graph = smoothing_graph(2, channels)
    imported = read(write_foreign(tmp_path / "foreign", described(version, 2, channels, pre, post), image, expected, graph))
    assert imported.normalisation.output == output
    assert (imported.channels_in, imported.channels_out) == (channels, channels)
    assert any("its own test image becomes its test output to within" in note for note in imported.notes)
    with open_engine("openvino", imported.onnx, "f32") as engine:
        restored = engine.infer(imported.test_input)[0]
    if imported.normalisation.output_range:
        low, high = (columns(*getattr(imported.normalisation.output_range, side)) for side in ("low", "high"))
        restored = restored * (high - low) + low
    assert np.abs(restored - expected).max() < 1e-5 * max(1, np.ptp(expected))


def test_credits_and_provenance_are_kept(tmp_path):
    image = counts()
    folder = write_foreign(tmp_path / "foreign", described("0.5"), image, smooth(image.astype(float)), smoothing_graph())
    imported = read(folder)
    assert (imported.name, imported.description, imported.licence) == ("foreign smoother", "Smooths.", "MIT")
    assert (imported.authors, imported.cite) == (("A. Author",), ("A. Author 2020 doi:10.1234/abc",))
    assert (imported.source_format, imported.source_name) == ("bioimageio-onnx", "foreign")
    assert imported.source_sha256 == hashlib.sha256(smoothing_graph()).hexdigest()
    assert imported.written_by == "bioimage.io format 0.5.4"
    assert (imported.architecture.kind, imported.architecture.parameters) == ("onnx", 9)


@pytest.mark.parametrize("form", [lambda f: f, lambda f: f / "rdf.yaml", zipped], ids=["folder", "description", "zip"])
def test_every_form_is_read_and_needless_files_may_be_missing(tmp_path, form):
    image = counts(3, size=8)
    folder = write_foreign(tmp_path / "foreign", described("0.4", 3), image, smooth(image.astype(float)), smoothing_graph(3))
    imported = read(form(folder))
    assert imported.test_input.shape == image.shape


def test_without_test_tensors_the_notes_say_so(tmp_path):
    imported = read(write_foreign(tmp_path / "foreign", described("0.5"), onnx=smoothing_graph()))
    assert imported.test_input is None
    assert "the test tensors are not in the package, so the import was not tried out on them" in imported.notes


def test_the_output_of_a_restoring_network_goes_back_to_counts(tmp_path):
    pre = [step("0.5", "scale_range", axes=["y", "x"], min_percentile=2, max_percentile=99.8)]
    image = counts()
    result = smooth(percentiles(2, 99.8, (1, 2))(image))
    description = described("0.5", pre=pre, tags=["denoising", "2d"])
    imported = read(write_foreign(tmp_path / "foreign", description, image, result, smoothing_graph()))
    assert imported.normalisation.output == "inverse"
    assert any("its tags (denoising) say that it restores images" in note for note in imported.notes)


def test_an_output_fitted_to_the_input_goes_back_by_the_inverse(tmp_path):
    pre = [step("0.5", "zero_mean_unit_variance", axes=["y", "x"])]
    post = [step("0.5", "scale_mean_variance", reference_tensor="raw")]
    image = counts()
    smoothed = smooth(mean_std((1, 2))(image))
    means, stds = image.mean((2, 3), keepdims=True), image.std((2, 3), keepdims=True)
    fitted = mean_std((1, 2))(smoothed) * stds + means
    imported = read(write_foreign(tmp_path / "foreign", described("0.5", pre=pre, post=post), image, fitted, smoothing_graph()))
    assert imported.normalisation.output == "inverse"
    assert any("'scale_mean_variance' by the range of the input is done as the inverse" in note for note in imported.notes)


def test_a_measurement_over_a_data_set_is_taken_per_volume(tmp_path):
    pre = [step("0.5", "zero_mean_unit_variance", axes=["batch", "y", "x"])]
    imported = read(write_foreign(tmp_path / "foreign", described("0.5", pre=pre), onnx=smoothing_graph()))
    assert imported.normalisation.mode == "volume"
    assert any("was meant for a whole data set" in note for note in imported.notes)


def test_an_imported_package_is_one_of_ours(tmp_path):
    pre = [step("0.5", "fixed_zero_mean_unit_variance", mean=200.0, std=50.0)]
    post = [step("0.5", "scale_linear", gain=50.0, offset=200.0)]
    image = counts(size=64)[:1]
    result = smooth((image.astype(float) - 200) / 50) * 50 + 200
    folder = write_foreign(tmp_path / "foreign", described("0.5", pre=pre, post=post), image, result, smoothing_graph())
    package = import_model(folder, tmp_path / "ours.zip")
    assert package.facts.normalisation.frozen == FrozenRange(low=(200,), high=(250,))
    assert package.facts.geometry.halo == (1, 1)
    np.testing.assert_allclose(package.test_output() * 50 + 200, result, rtol=1e-5)
    with pytest.raises(ModelError, match=r"ours\.zip is a package of live_restore already; restore with it as it is"):
        read(tmp_path / "ours.zip")


def with_external_data(folder):
    model = onnx.load_model_from_string(smoothing_graph())
    (folder / "external").mkdir(parents=True)
    path = folder / "external" / "weights.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return path.read_bytes(), (folder / "external" / "weights.data").read_bytes()


def test_weights_in_a_second_file_are_put_into_the_graph(tmp_path):
    graph, data = with_external_data(tmp_path)
    image = counts()
    description = described("0.5")
    description["weights"]["onnx"] = {"source": "weights.onnx", "external_data": {"source": "weights.data"}}
    folder = write_foreign(tmp_path / "foreign", description, image, smooth(image.astype(float)), graph)
    (folder / "weights.data").write_bytes(data)
    assert len(read(folder).onnx) > len(data)


def test_weights_in_a_file_that_is_not_named_are_refused(tmp_path):
    graph, _ = with_external_data(tmp_path)
    description = described("0.5", weights={"onnx": {"source": "weights.onnx"}})
    with pytest.raises(ModelError, match="are in another file; export the ONNX graph as one single file"):
        read(write_foreign(tmp_path / "foreign", description, onnx=graph))


def tensors(side, **changes):
    """Change the first tensor of a side."""

    def change(description):
        description[side][0] |= changes

    return change


def set_field(**fields):
    return lambda description: description.update(fields)


def axes(*names):
    kinds = {"b": "batch", "c": "channel"}
    return [{"type": kinds.get(n, "space"), "id": n} for n in names]


REFUSED = {
    "no ONNX": (
        set_field(weights={"torchscript": {"source": "w.pt"}, "keras_hdf5": {"source": "w.h5"}}),
        "has weights as .*torchscript.*, and live_restore runs no code of others; it needs ONNX",
    ),
    "no weights": (set_field(weights=None), "describes no weights; get the package again"),
    "a data set": (set_field(type="dataset"), "describes a bioimage.io 'dataset'; resources of type 'model' are imported"),
    "format 0.3": (
        set_field(format_version="0.3.6"),
        r"format_version 0\.3\.6; 0\.4 and 0\.5 are imported: bring it up to date",
    ),
    "other graph": (
        set_field(weights={"onnx": {"source": "weights.onnx", "sha256": "0" * 64}}),
        r"its description says 000000000000\.\.\.: the file is damaged or was exchanged",
    ),
    "graph on the web": (
        set_field(weights={"onnx": {"source": "https://example.com/w.onnx"}}),
        "is no file inside the package; .* downloads nothing",
    ),
    "graph outside": (set_field(weights={"onnx": {"source": "../weights.onnx"}}), "is no file inside the package"),
    "two images": (
        lambda d: d["inputs"].append(dict(d["inputs"][0], id="more")),
        "has 2 inputs; live_restore runs networks of one image in and one out",
    ),
    "one name for both": (tensors("outputs", id="raw"), "input and output are both called 'raw'; names must differ"),
    "channels last": (
        tensors("inputs", axes=axes("b", "y", "x", "c")),
        r"the tensor 'raw' has the axes batch, y, x, channel; .* batch, channel, \[z,\] y, x in this order",
    ),
    "no axes": (tensors("outputs", axes=None), "the tensor 'restored' has the axes none"),
    "a volume in words only": (tensors("inputs", axes=axes("b", "c", "z", "y", "x")), "the graph has 2 spatial axes"),
    "custom code": (
        tensors("outputs", postprocessing=[{"id": "custom", "callable": "f", "source": "evil.py"}]),
        "the postprocessing 'custom' with {} cannot be done; live_restore does clip, .* put the step into the graph",
    ),
    "threshold": (tensors("outputs", postprocessing=[step("0.5", "binarize", threshold=0.5)]), "postprocessing 'binarize'"),
    "clip by percentiles": (
        tensors("inputs", preprocessing=[step("0.5", "clip", min_percentile=1)]),
        "the preprocessing 'clip' with .*min_percentile.* cannot be done",
    ),
    "measured after a clip": (
        tensors("inputs", preprocessing=[step("0.5", "clip", max=100), step("0.5", "scale_range", axes=["x", "y"])]),
        "the preprocessing 'scale_range' follows another that changes what it measures",
    ),
    "lines only": (
        tensors("inputs", preprocessing=[step("0.5", "zero_mean_unit_variance", axes=["x"])]),
        r"measures along x only; whole images are measured here \(along x, y\)",
    ),
    "axes without names": (
        tensors("inputs", preprocessing=[step("0.5", "scale_range", axes=3)]),
        "'axes' of the step 'scale_range' is 3 where names of axes belong",
    ),
    "softmax along x": (
        tensors("outputs", postprocessing=[step("0.5", "softmax", axis="x")]),
        "the postprocessing 'softmax' with .* cannot be done",
    ),
    "words for numbers": (
        tensors("inputs", preprocessing=[step("0.5", "scale_linear", gain="much")]),
        "'gain' of the step 'scale_linear' is 'much' where a number belongs",
    ),
    "no spread": (
        tensors("inputs", preprocessing=[step("0.5", "fixed_zero_mean_unit_variance", mean=1, std=0)]),
        r"'std' of the step 'fixed_zero_mean_unit_variance' is 0\.0; it must be above 0",
    ),
    "numbers that do not match": (
        tensors("inputs", preprocessing=[step("0.5", "scale_linear", gain=[1, 2], offset=[1, 2, 3])]),
        "has 2 and 3 numbers along 'channel'; give one for all channels, or one for each",
    ),
    "numbers along z": (
        tensors("inputs", preprocessing=[step("0.5", "scale_linear", gain=[1, 2], axis="z")]),
        "has 2 and 1 numbers along 'z'",
    ),
    "channels that are not there": (
        tensors("inputs", preprocessing=[step("0.5", "scale_linear", gain=[1, 2], axis="channel")]),
        "a fixed scaling is given for 2 channels, the graph has 1",
    ),
    "infinite": (
        tensors("inputs", preprocessing=[step("0.5", "scale_linear", gain=float("inf"))]),
        "a fixed scaling of the description is impossible: .*every high must exceed its low",
    ),
    "percentiles upside down": (
        tensors("inputs", preprocessing=[step("0.5", "scale_range", axes=["x", "y"], min_percentile=90, max_percentile=10)]),
        "the description's normalisation is impossible: .*must be below high_percentile",
    ),
    "rounded between": (
        tensors(
            "inputs",
            preprocessing=[step("0.5", "sigmoid"), step("0.5", "ensure_dtype", dtype="uint8"), step("0.5", "sigmoid")],
        ),
        "rounds to uint8 between two steps; only floats are restored",
    ),
    "steps that are none": (tensors("inputs", preprocessing="sigmoid"), "processing is str where a list of steps belongs"),
    "a step that is none": (tensors("inputs", preprocessing=["sigmoid"]), "has the step 'sigmoid', which has no name"),
    "misunderstood": (
        tensors("outputs", postprocessing=[step("0.5", "sigmoid")]),
        "test image becomes something else here than its test output .* its processing was misunderstood",
    ),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_by_name(tmp_path, change, reason):
    description = described("0.5")
    change(description)
    image = counts()
    folder = write_foreign(tmp_path / "foreign", description, image, smooth(image.astype(float)), smoothing_graph())
    with pytest.raises(ModelError, match=reason) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_a_graph_that_cannot_take_its_test_image_is_refused(tmp_path):
    image = counts(channels=2)
    folder = write_foreign(tmp_path / "foreign", described("0.5"), image, smooth(image.astype(float)), smoothing_graph())
    with pytest.raises(ModelError, match="the graph cannot be run on the package's own test image"):
        read(folder)


def test_a_test_output_of_another_size_is_refused(tmp_path):
    folder = write_foreign(tmp_path / "foreign", described("0.5"), counts(), counts(size=16), smoothing_graph())
    with pytest.raises(ModelError, match=r"the graph makes \(2, 1, 32, 32\) .* its test output has \(2, 1, 16, 16\)"):
        read(folder)


def test_our_own_package_comes_through_as_a_foreign_one(tmp_path):
    """Without our facts, a package that we wrote means the same to us as to any other software."""
    package = write_smoothing_package(tmp_path / "smooth")
    description = package.files.read_description()
    description["config"] = {}
    (package.path / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    normalisation = read(package.path).normalisation
    assert (normalisation.measure, normalisation.low_percentile, normalisation.high_percentile) == ("percentiles", 2, 99.8)
    assert normalisation.output == "inverse"


@pytest.mark.realdata
def test_a_published_package_is_imported(shared_data):
    """UNet 2D Nuclei Broad; many of the files it names are missing."""
    folder = shared_data / "models" / "bioimageio_unet2d"
    imported = read(folder)
    with open_engine("openvino", imported.onnx, "f32") as engine:
        restored = engine.infer(imported.test_input)[0]
    assert np.abs(restored - np.load(folder / "test_output.npy")).max() < 1e-5
    assert imported.normalisation.measure == "mean_std"
    assert imported.normalisation.output == "none"
    assert imported.licence == "MIT"


@pytest.mark.realdata
def test_a_published_package_runs_at_other_sizes(shared_data, tmp_path):
    package = import_model(shared_data / "models" / "bioimageio_unet2d", tmp_path / "unet")
    assert package.facts.geometry.divisible_by == (8, 8)
    with open_engine("openvino", package.onnx(), "f32") as engine:
        assert engine.infer(package.test_input()[..., :256, :128])[0].shape == (1, 1, 256, 128)


@pytest.mark.realdata
def test_a_published_invalid_description_is_refused(shared_data):
    folder = shared_data / "models" / "bioimageio_unet2d"
    with pytest.raises(ModelError, match="input and output are both called 'data'; names must differ"):
        read(folder / "invalid_v0_4_0_duplicate_tensor_names.bioimageio.yaml")
