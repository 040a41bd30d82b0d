"""Packages written and opened again; what is wrong with a package is said in a sentence."""

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from tiny_packages import smoothing_facts, smoothing_graph, smoothing_tensors, write_smoothing_package

from live_restore.errors import ModelError
from live_restore.models.description import output_range
from live_restore.models.facts import FrozenRange, Geometry, Normalisation
from live_restore.models.package import open_package

COUNTS = FrozenRange(low=(100.0,), high=(1300.0,))
FROZEN = Normalisation(mode="frozen", frozen=COUNTS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder package, written once: opened and damaged copies are made by the tests."""
    return write_smoothing_package(tmp_path_factory.mktemp("written") / "smooth")


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the package to damage."""
    (tmp_path / "smooth").mkdir()
    for file in written.path.iterdir():
        (tmp_path / "smooth" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "smooth"


def change(folder, edit):
    """Let `edit` change the description of a package."""
    path = folder / "rdf.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.mark.parametrize("form", ["smooth", "smooth.zip"])
def test_what_is_written_is_opened(tmp_path, form):
    made = write_smoothing_package(tmp_path / form, licence="BSD-3-Clause", authors=("A. Author",))
    package = open_package(tmp_path / form)
    assert (package.name, package.description, package.licence) == ("smoothing 3x3", "Averages 3 x 3 pixels.", "BSD-3-Clause")
    assert package.authors == ("A. Author",)
    assert package.facts == made.facts == smoothing_facts()
    assert package.onnx() == smoothing_graph()
    assert package.onnx_sha256 == hashlib.sha256(smoothing_graph()).hexdigest()
    for read, given in zip((package.test_input(), package.test_output()), smoothing_tensors(), strict=True):
        np.testing.assert_array_equal(read, given)
    assert [path.name for path in tmp_path.iterdir()] == [form]


def test_opening_the_description_opens_the_package(written):
    assert open_package(written.path / "rdf.yaml").name == written.name
    assert open_package(str(written.path)).name == written.name


def test_opening_is_fast(written):
    def once():
        started = time.perf_counter()
        open_package(written.path)
        return time.perf_counter() - started

    assert min(once() for _ in range(5)) < 0.05


def test_opening_loads_nothing_heavy(written):
    heavy = ("torch", "bioimageio", "onnx", "h5py", "matplotlib", "openvino")
    code = (
        "import sys; from live_restore.models.package import open_package; "
        f"open_package({str(written.path)!r}); print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


RANGES = {
    "percentiles per image": (Normalisation(), None),
    "frozen": (FROZEN, COUNTS),
    "frozen output": (Normalisation(output="frozen", output_range=COUNTS), COUNTS),
    "frozen, no intensity out": (Normalisation(mode="frozen", frozen=COUNTS, output="none"), None),
    "nothing measured": (Normalisation(measure="none"), None),
}


@pytest.mark.parametrize(("normalisation", "counts"), RANGES.values(), ids=RANGES)
def test_test_tensors_come_back_in_network_units(tmp_path, normalisation, counts):
    package = write_smoothing_package(tmp_path / "smooth", facts=smoothing_facts(normalisation=normalisation))
    test_input, test_output = smoothing_tensors(normalisation=normalisation)
    np.testing.assert_allclose(package.test_input(), test_input, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(package.test_output(), test_output, rtol=1e-6, atol=1e-6)
    assert output_range(package.facts) == counts


def test_files_hold_counts_where_the_range_is_frozen(tmp_path):
    package = write_smoothing_package(tmp_path / "smooth", facts=smoothing_facts(normalisation=FROZEN))
    test_input, test_output = smoothing_tensors()
    np.testing.assert_allclose(np.load(package.path / "test_input.npy"), test_input * 1200 + 100, rtol=1e-6)
    np.testing.assert_allclose(np.load(package.path / "test_output.npy"), test_output * 1200 + 100, rtol=1e-6)


def test_scales_of_a_probabilistic_network_have_no_offset(tmp_path):
    test_input, test_output = smoothing_tensors()
    both = np.concatenate([test_output, 0.1 + 0 * test_output], axis=1)
    facts = smoothing_facts(normalisation=FROZEN, probabilistic=True)
    package = write_smoothing_package(tmp_path / "smooth", facts=facts, test_input=test_input, test_output=both)
    np.testing.assert_allclose(np.load(package.path / "test_output.npy")[:, 1], 120, rtol=1e-6)
    np.testing.assert_allclose(package.test_output(), both, atol=1e-6)


def test_writing_replaces_nothing_unless_told(copy):
    with pytest.raises(ModelError, match=r"smooth exists already; choose another name, or overwrite it \(--overwrite\)"):
        write_smoothing_package(copy)
    assert write_smoothing_package(copy, overwrite=True, name="second one").name == "second one"
    assert [path.name for path in copy.parent.iterdir()] == ["smooth"]


def test_a_zip_is_replaced_too(tmp_path):
    write_smoothing_package(tmp_path / "smooth.zip")
    assert write_smoothing_package(tmp_path / "smooth.zip", overwrite=True, name="second one").name == "second one"


def test_nothing_but_a_package_is_ever_replaced(copy, tmp_path):
    (copy / "results.csv").write_text("years of work")
    with pytest.raises(ModelError, match=r"holds 'results\.csv', which is no part of a package; move it away"):
        write_smoothing_package(copy, overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("more years of work")
    with pytest.raises(ModelError, match="thesis is no model package, and nothing else is ever replaced"):
        write_smoothing_package(tmp_path / "thesis", overwrite=True)
    assert (copy / "results.csv").read_text() == "years of work"
    assert (tmp_path / "thesis" / "thesis.tex").exists()


def test_a_refused_package_leaves_nothing_behind(tmp_path):
    with pytest.raises(ModelError, match=r"bioimageio\.spec refuses the package: .*license.*"):
        write_smoothing_package(tmp_path / "smooth", licence="my own licence")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_package_leaves_the_old_one(copy):
    with pytest.raises(ModelError, match=r"bioimageio\.spec refuses"):
        write_smoothing_package(copy, overwrite=True, licence="my own licence")
    assert open_package(copy).name == "smoothing 3x3"


def test_bytes_that_are_no_graph_are_refused(tmp_path):
    with pytest.raises(ModelError, match="these 8 bytes are no ONNX graph"):
        write_smoothing_package(tmp_path / "smooth", onnx=b"\xff" * 8)


WRONG_TENSORS = {
    "axes": (
        {"test_input": np.zeros((1, 32, 32), np.float32)},
        r"test_input is float32 \(1, 32, 32\); the facts say .* 4 axes",
    ),
    "channels": ({"test_output": np.zeros((1, 2, 32, 32), np.float32)}, "test_output is .* and 1 channels"),
    "dtype": ({"test_input": np.zeros((1, 1, 32, 32))}, "test_input is float64"),
    "size": ({"test_input": np.zeros((1, 1, 30, 32), np.float32)}, r"its axes must be multiples of \(4, 4\)"),
    "range": (
        {"test_input": smoothing_tensors()[0] * 100},
        r"test_input must be normalised as the facts say \(percentiles\).* scale it by .*\.measure_percentiles",
    ),
}


@pytest.mark.parametrize(("options", "reason"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_test_tensors_that_do_not_fit_are_refused(tmp_path, options, reason):
    with pytest.raises(ValueError, match=reason):
        write_smoothing_package(tmp_path / "smooth", **options)


def set_fact(*path_and_value):
    *path, last, value = path_and_value

    def edit(content):
        node = content
        for key in path:
            node = node[key]
        node[last] = value

    return edit


FACTS = ("config", "live_restore")
DAMAGES = {
    "wrong type": (
        set_fact(*FACTS, "channels_in", "many"),
        r"config\.live_restore\.channels_in is 'many': input should be a valid integer.*; correct it in rdf\.yaml",
    ),
    "out of range": (
        set_fact(*FACTS, "normalisation", "low_percentile", 101),
        r"config\.live_restore\.normalisation\.low_percentile is 101: input should be less than or equal to 100",
    ),
    "contradiction": (
        set_fact(*FACTS, "normalisation", "mode", "frozen"),
        r"config\.live_restore\.normalisation: mode 'frozen' needs the field 'frozen' with low and high",
    ),
    "unknown field": (
        set_fact(*FACTS, "colour", "blue"),
        r"config\.live_restore\.colour is 'blue': extra inputs are not permitted",
    ),
    "facts of tomorrow": (
        set_fact(*FACTS, "format", 2),
        r"config\.live_restore\.format is 2; this live_restore reads format 1: upgrade it",
    ),
    "format of tomorrow": (set_fact("format_version", "0.6.0"), "format_version 0.6.0; packages of live_restore have 0.5"),
    "no facts": (
        set_fact("config", {}),
        "this bioimage.io package was not made by live_restore; import it first: live-restore import smooth -o NEW_PACKAGE",
    ),
    "no config": (set_fact("config", None), "this bioimage.io package was not made by live_restore"),
    "a data set": (set_fact("type", "dataset"), "smooth describes a bioimage.io 'dataset'; live_restore runs .* 'model'"),
    "no weights": (set_fact("weights", {}), "the description lacks, or has in another form .* 'onnx'; import the model again"),
    "weights as list": (set_fact("weights", []), "the description lacks, or has in another form"),
    "no inputs": (set_fact("inputs", []), "the description lacks, or has in another form"),
    "weights outside": (set_fact("weights", "onnx", "source", "../weights.onnx"), "is no file inside the package"),
    "weights on the web": (set_fact("weights", "onnx", "source", "https://example.com/w.onnx"), "downloads nothing"),
    "weights missing": (set_fact("weights", "onnx", "source", "other.onnx"), r"the file 'other\.onnx' is missing"),
    "other weights": (
        set_fact("weights", "onnx", "sha256", "0" * 64),
        r"'weights\.onnx' has sha256 .* its description says 000000000000.*damaged or was exchanged; get the package again",
    ),
}


@pytest.mark.parametrize(("edit", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_said_in_one_sentence(copy, edit, reason):
    change(copy, edit)
    with pytest.raises(ModelError, match=reason) as caught:
        open_package(copy)
    assert "\n" not in str(caught.value)


def test_weights_exchanged_after_opening_are_noticed(copy):
    package = open_package(copy)
    (copy / "weights.onnx").write_bytes(b"other graph")
    with pytest.raises(ModelError, match="is damaged or was exchanged"):
        package.onnx()


def load_with_spec(path):
    """What bioimageio.spec makes of a package, as its newest format, all files checked, warnings listed."""
    from bioimageio.spec import load_description

    return load_description(path, format_version="latest", perform_io_checks=True)


NORMALISATIONS = {
    "percentiles": Normalisation(low_percentile=1, high_percentile=99.9, per_channel=False),
    "mean and sd": Normalisation(measure="mean_std"),
    "frozen": FROZEN,
    "frozen per channel": Normalisation(mode="frozen", frozen=FrozenRange(low=(100, 200), high=(1000, 3000))),
    "none": Normalisation(measure="none"),
}


@pytest.mark.parametrize("n_dim", [2, 3])
@pytest.mark.parametrize("normalisation", NORMALISATIONS.values(), ids=NORMALISATIONS)
def test_bioimageio_spec_agrees(tmp_path, normalisation, n_dim):
    from bioimageio.spec.model.v0_5 import ModelDescr

    write_smoothing_package(tmp_path / "smooth", n_dim, 2, smoothing_facts(n_dim, 2, normalisation=normalisation))
    described = load_with_spec(tmp_path / "smooth")
    assert isinstance(described, ModelDescr), described.validation_summary
    assert [axis.halo for axis in described.outputs[0].axes[2:]] == [2] * n_dim
    assert [(axis.size.min, axis.size.step) for axis in described.inputs[0].axes[2:]] == [(8, 4)] * n_dim


GEOMETRIES = {
    "doubling": (Geometry(halo=(2, 2), divisible_by=(4, 4), output_factor=(2, 2), bytes_per_pixel=8), (1, 1, 64, 64)),
    "large halo": (Geometry(halo=(40, 3), divisible_by=(8, 8), output_factor=(1, 1), bytes_per_pixel=8), (1, 1, 32, 32)),
    "projection": (
        Geometry(halo=(9, 3, 3), divisible_by=(1, 8, 8), output_factor=(0, 1, 1), bytes_per_pixel=8),
        (1, 1, 32, 32),
    ),
}


@pytest.mark.parametrize(("geometry", "output_shape"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_bioimageio_spec_agrees_on_sizes(tmp_path, geometry, output_shape):
    from bioimageio.spec.model.v0_5 import ModelDescr

    facts = smoothing_facts(geometry.n_dim).model_copy(update={"geometry": geometry})
    test_output = np.linspace(0, 1, np.prod(output_shape), dtype=np.float32).reshape(output_shape)
    write_smoothing_package(tmp_path / "smooth", geometry.n_dim, facts=facts, test_output=test_output)
    assert isinstance(load_with_spec(tmp_path / "smooth"), ModelDescr)


def test_a_halo_is_stated_even_where_the_test_input_is_large_enough(tmp_path):
    geometry = GEOMETRIES["large halo"][0]
    facts = smoothing_facts().model_copy(update={"geometry": geometry})
    package = write_smoothing_package(tmp_path / "smooth", facts=facts)
    y, x = package.files.read_description()["outputs"][0]["axes"][2:]
    assert "halo" not in y
    assert x["halo"] == 4


CITES = {
    "care": ((), ["10.1038/s41592-018-0216-7"]),
    "rcan": ((), ["10.1038/s41592-021-01155-x"]),
    "onnx": ((), []),
    "given": (("Someone 2020, a method, doi:10.1234/abc.5.", "a book without a DOI"), ["10.1234/abc.5"]),
}


@pytest.mark.parametrize("case", CITES)
def test_the_paper_of_the_architecture_is_cited(tmp_path, case):
    cite, dois = CITES[case]
    facts = smoothing_facts()
    kind = case if case != "given" else "care"
    facts = facts.model_copy(update={"architecture": facts.architecture.model_copy(update={"kind": kind})})
    package = write_smoothing_package(tmp_path / "smooth", facts=facts, cite=cite)
    assert [entry["doi"] for entry in package.files.read_description()["cite"]] == dois


NAMES = {"care2d.h5 (best)": "care2d-h5 (best)", "a": "a model", "café/zürich": "caf--z-rich", "x" * 200: "x" * 128}


@pytest.mark.parametrize(("given", "accepted"), NAMES.items(), ids=["dot", "short", "accents", "long"])
def test_any_name_becomes_one_that_bioimageio_accepts(tmp_path, given, accepted):
    assert write_smoothing_package(tmp_path / "smooth", name=given).name == accepted


def test_a_package_that_bioimageio_saved_again_opens(written, tmp_path):
    from bioimageio.spec import save_bioimageio_package

    described = load_with_spec(written.path)
    again = save_bioimageio_package(described, output_path=tmp_path / "again.zip")
    assert open_package(again).facts == written.facts
    np.testing.assert_array_equal(open_package(again).test_output(), written.test_output())
