"""Limits: degradations, measures, break points, whole studies of models that are known to fail, and what is said live."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from bare_clients import BareHook, options, status, until
from judged_pairs import write_calibration
from onnx import TensorProto, helper, numpy_helper
from preview_server import Mood, StandIn, cells
from scipy.ndimage import gaussian_filter
from test_preview_browser import CHROMIUM, Visit
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.acquire.simulate.specimen import example_field
from live_restore.errors import ImageError, ModelError, PairError
from live_restore.limits.break_points import BreakPoint, coarse_below, exceeds_above, exceeds_below, find_limits, helping
from live_restore.limits.fields import check_measurable, demo_fields, read_fields
from live_restore.limits.light import (
    blurred,
    crop,
    describe_camera,
    efficiency,
    expose,
    field_of,
    for_shape,
    mean_counts,
    true_counts,
    usual_camera,
)
from live_restore.limits.measures import NAMES, best_gaussian, false_structure
from live_restore.limits.report import write_report
from live_restore.limits.strip import around_the_limit
from live_restore.limits.study import Choices, keep, study_limits, within_the_truth
from live_restore.limits.sweep import Grid, Sweep, grid_of, sweep
from live_restore.limits.words import facts_of, summary, why_of_blur
from live_restore.models.facts import Architecture, Geometry, Normalisation
from live_restore.models.package import open_package, update_facts, write_package
from live_restore.models.registry import bundled_folder
from live_restore.preview.web import Preview
from live_restore.restore.noise import CameraNoise
from live_restore.restore.trust import beyond_limits
from live_restore.restorer import Restorer
from live_restore.score import fit_affine
from live_restore.server import Server

CARE = bundled_folder() / "care2d_demo"
PLAIN = CameraNoise(100.0, 2.0, 1.5, quantum_efficiency=0.8)
QUICK = Grid((1.0, 4.0, 16.0, 64.0), (0.0, 3.0))


def kernel_package(path, kernel):
    """A network of one convolution."""
    side = len(kernel)
    weights = numpy_helper.from_array(np.asarray(kernel, np.float32)[None, None], "weights")
    node = helper.make_node("Conv", ["input", "weights"], ["output"], pads=[side // 2] * 4)
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("batch", 1, "y", "x")) for n in ("input", "output")]
    graph = helper.make_graph([node], "kernel", tensors[:1], tensors[1:], [weights])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    halo, size = (side // 2,) * 2, (1, 1, 64, 64)
    geometry = Geometry(halo=halo, divisible_by=(4, 4), output_factor=(1, 1), bytes_per_pixel=8)
    facts = smoothing_facts().model_copy(update={"geometry": geometry, "architecture": Architecture(kind="onnx")})
    image = np.random.default_rng(1).gamma(2, 100, size).astype(np.float32)
    low, high = np.percentile(image, (2, 99.8))
    scaled = ((image - low) / (high - low)).astype(np.float32)
    padded = np.pad(scaled[0, 0], side // 2)
    rows, columns = np.nonzero(kernel)
    convolved = sum(np.float32(kernel[y][x]) * padded[y : y + 64, x : x + 64] for y, x in zip(rows, columns, strict=True))
    described = {"name": "one kernel", "description": "One convolution.", "onnx": onnx, "facts": facts}
    return write_package(path, test_input=scaled, test_output=convolved[None, None].astype(np.float32), **described)


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return kernel_package(tmp_path_factory.mktemp("identity") / "identity", [[1.0]])


@pytest.fixture(scope="module")
def ghost(tmp_path_factory):
    """A network that shows everything once more, 12 pixels to the side."""
    kernel = np.zeros((25, 25))
    kernel[12, 12], kernel[12, 24] = 1.0, 0.6
    return kernel_package(tmp_path_factory.mktemp("ghost") / "ghost", kernel)


@pytest.fixture(scope="module")
def care():
    return study_limits(CARE, Choices(most_images=2, size=96, grid=QUICK, minutes=2))


# --- light


def test_exposures_have_the_mean_and_the_noise_that_physics_says():
    photons = np.full((4, 64, 64), 20.0, np.float32)
    raw = expose(photons, PLAIN, np.random.default_rng(0)).astype(float)
    electrons = 0.8 * 20
    assert raw.mean() == pytest.approx(100 + 2 * electrons, rel=0.01)
    assert raw.var() == pytest.approx(4 * (electrons + 1.5**2) + 1 / 12, rel=0.05)
    np.testing.assert_allclose(true_counts(photons, PLAIN), 100 + 2 * electrons)
    np.testing.assert_array_equal(raw, expose(photons, PLAIN, np.random.default_rng(0)))
    full = CameraNoise(100.0, 2.0, 1.5, saturation_adu=120.0)
    assert expose(photons, full, np.random.default_rng(0)).max() == 120 and efficiency(full) == 0.7
    assert "0.7 electrons per photon (not stated: supposed)" in describe_camera(full)


def test_the_usual_camera_has_its_own_pattern_and_the_truth_has_none():
    camera, photons = usual_camera((64, 64)), np.full((1, 64, 64), 50.0, np.float32)
    assert np.ptp(true_counts(photons, camera)) == 0 < np.ptp(mean_counts(photons, camera))
    assert "pixel by pixel" in describe_camera(camera)
    inner = for_shape(camera, (32, 48))
    np.testing.assert_array_equal(inner.offset_adu, camera.offset_adu[16:48, 8:56])
    assert for_shape(camera, (80, 80)).shape is None and for_shape(PLAIN, (8, 8)) is PLAIN


def test_blur_keeps_the_light_and_none_changes_nothing():
    photons = example_field(3, (64, 64))[None]
    assert blurred(photons, 0.0) is photons
    wide = blurred(photons, 2.0)
    assert wide.sum() == pytest.approx(photons.sum(), rel=1e-3) and wide.max() < photons.max()


def test_a_field_is_scaled_to_a_peak_of_one_and_the_busiest_part_is_cut_out():
    counts = np.full((9, 300, 200), 100.0)
    counts[6:8, 200:260, 90:150] += np.random.default_rng(0).gamma(1, 50, (2, 60, 60))
    part = crop(counts, 128, 4)
    assert part.shape == (4, 128, 128) and np.ptp(part[:, ::]) > 0 and part.max() == counts.max()
    field = field_of("a", part, pixel_size_um=0.2)
    assert np.percentile(field.photons, 99.9) == pytest.approx(1) and field.photons.min() == 0
    assert 0.1 < field.foreground < 1
    assert field_of("b", part, 50.0).photons.min() > 0.05
    with pytest.raises(ImageError, match="'empty' shows no structure above 100 counts"):
        field_of("empty", np.full((1, 64, 64), 100))


# --- measures


def test_false_structure_is_what_is_shown_and_is_not_there_or_the_other_way_round():
    truth = 100 + 900 * example_field(5, (128, 128), "nuclei")[None] / 100
    assert not false_structure(truth, truth, truth).any()
    assert not false_structure(3 * truth - 50, truth, truth).any()
    y, x = np.indices((128, 128))
    blob = np.exp(-((y - 20) ** 2 + (x - 100) ** 2) / (2 * 3.0**2)).astype(np.float32)
    dim = truth[0] < 130
    assert dim[20, 100]
    invented = false_structure(truth + 600 * blob, truth, truth)
    assert invented[0, 20, 100] and not invented[0, 60:, :60].any()
    erased = false_structure(truth, truth + 600 * blob, truth + 600 * blob)
    assert erased[0, 20, 100]
    # displaced a little, or as blurred as the light was: that is not false
    assert not false_structure(np.roll(truth, 2, axis=2), truth, truth)[0, 8:-8, 8:-8].any()
    seen = blurred(truth, 3.0)
    assert not false_structure(seen, truth, seen).any() and not false_structure(truth, truth, seen).any()
    assert false_structure(np.zeros_like(truth), truth, truth).all()


def test_the_best_gaussian_is_the_best_of_all():
    field = example_field(6, (96, 96))[None] / 100
    raw, truth = expose(10 * field, PLAIN, np.random.default_rng(0)), true_counts(10 * field, PLAIN)

    def error(sigma):
        smooth = gaussian_filter(raw.astype(np.float32), (0, sigma, sigma))
        slope, offset = fit_affine(smooth, truth)
        return np.mean((slope * smooth + offset - truth) ** 2)

    (planes, width), _ = best_gaussian(raw, truth)
    assert planes == 0 and width == min((0.0, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0), key=error)


# --- break points

LIGHT = 2.0 ** np.arange(-1, 9)


def test_helping_is_between_the_crossings_of_both_gains():
    step = np.log2(LIGHT)  # -1 ... 8
    gain_db = 3 - np.abs(step - 4)
    low, high = helping(LIGHT, gain_db, np.full(10, 0.1))
    assert (np.log2(low), np.log2(high)) == pytest.approx((1.25, 6.75))
    low, high = helping(LIGHT, gain_db, step - 2.5)
    assert (np.log2(low), np.log2(high)) == pytest.approx((2.5, 6.75))
    assert helping(LIGHT, np.full(10, 2.0), np.full(10, 0.1)) == (0.0, math.inf)
    assert helping(LIGHT, np.full(10, 0.2), np.full(10, 0.1)) == (math.inf, 0.0)
    assert helping(LIGHT, gain_db, np.full(10, -0.1)) == (math.inf, 0.0)


def test_noise_makes_no_crossing_of_its_own():
    noisy = np.array([-1, -0.8, 0.3, -0.4, 2, 1.8, 2.2, 2.0, 2.1, 2.3])
    low, _ = helping(LIGHT, noisy, np.full(10, 0.1))
    assert 4 < low < 8


def test_areas_and_detail_break_where_they_cross():
    area = 0.005 * 2.0 ** (3 - np.arange(10.0))
    area[0] = 0
    assert exceeds_below(LIGHT, area) == pytest.approx(4)
    assert exceeds_below(LIGHT, np.zeros(10)) == 0 and exceeds_below(LIGHT, np.full(10, 0.1)) == math.inf
    rising = 0.005 * 2.0 ** (np.arange(10.0) - 6)
    assert exceeds_above(LIGHT, rising) == pytest.approx(32)
    assert exceeds_above(LIGHT, np.zeros(10)) == math.inf and exceeds_above(LIGHT, np.full(10, 0.1)) == 0
    cutoff = np.minimum(0.4, 0.1 + 0.05 * np.arange(10))
    assert coarse_below(LIGHT, cutoff) == pytest.approx(2.0)
    assert coarse_below(LIGHT, np.full(10, 0.3)) == 0 and coarse_below(LIGHT, np.zeros(10)) == math.inf


def made_up(images=6, blurs=(0.0, 2.0, 4.0), **changes):
    """A sweep in which every image breaks at its own light, about 4 photons."""
    rng, grid = np.random.default_rng(0), Grid(tuple(LIGHT), blurs)
    shape = (images, len(LIGHT), len(blurs))
    numbers = {name: np.zeros(shape) for name in NAMES}
    own = rng.normal(0, 0.5, images)[:, None, None]
    step = np.log2(LIGHT)[None, :, None] - 2 - own
    blur = np.array(blurs)
    numbers["restored_db"] += np.clip(step, -2, 4) - 1.5 * blur + 0.25
    numbers["restored_ssim"] += 0.1
    numbers["false_area"] += 0.005 * 2.0 ** (-step)
    numbers["restored_cutoff"] += np.clip(0.2 + 0.05 * step, 0, 0.4)
    numbers["snr"] += np.sqrt(LIGHT)[None, :, None]
    for name, values in changes.items():
        numbers[name] = numbers[name] + values
    return Sweep(grid, tuple(map(str, range(images))), np.full(images, 0.4), numbers, 0.1)


def test_limits_have_a_spread_over_images_and_the_snr_of_their_light():
    limits = find_limits(made_up())
    for point in (limits.helps_from, limits.invents_below):
        assert point.low < point.at < point.high and 2.5 < point.at < 6
    assert limits.snr["helps_from"] == pytest.approx(math.sqrt(limits.helps_from.at), rel=0.05)
    assert limits.helps and not limits.helps_to.found and limits.blur_photons > 60
    facts = facts_of(limits, 0.1)
    assert facts["photons_low_from"] < facts["photons_low"] < facts["photons_low_to"]
    assert facts["resolution_px"] == 2.5 and facts["resolution_um"] == 0.25 and facts["tested_images"] == 6
    assert "photons_high" not in facts and "never_helps" not in facts
    assert limits.bears_blur.found and facts["blur_um_high"] == pytest.approx(0.1 * facts["blur_px_high"], rel=0.01)
    assert re.fullmatch(
        r"helps down to [\d.]+ photons \(SNR \d\.\d\); invents below [\d.]+ photons; resolves 0\.25 µm, and 0\.5 µm down to "
        r"[\d.]+ photons; bears blur up to [\d.]+ px \([\d.]+ µm\)",
        summary(limits, 0.1),
    )
    assert why_of_blur(limits) == "it no longer helps"


def test_one_image_has_no_spread_and_limits_beyond_what_was_tested_are_left_out():
    limits = find_limits(made_up(images=1, restored_db=9.0, false_area=-1.0, raised=0.1))
    assert limits.helps_from == BreakPoint(0.0, 0.0, 0.0) and limits.smooths_above.at == 0
    facts = facts_of(limits)
    assert not any(name.startswith(("photons_low", "photons_invents", "photons_smooths")) for name in facts)
    said = summary(limits)
    assert said.startswith("helps down to the least light tested, 0.5 photons; resolves")
    assert "contradicts the photons at any light" in said and "bears all blur tested, up to 4 px" in said


def test_a_grid_makes_a_curve_or_says_why_not():
    assert grid_of("1,3,10", "0,1").photons == (1, 3, 10) and grid_of(None, None) == Grid()
    assert Grid().mapped == (0, 2, 4, 6, 8, 10) and QUICK.mapped == (0, 1, 2, 3)
    with pytest.raises(ValueError, match=r"light levels 3, 1, 10 do not make a curve; give 3 or more"):
        grid_of("3,1,10", None)
    with pytest.raises(ValueError, match=r"widths of blur 1, 2 do not make a curve; begin with 0"):
        grid_of(None, "1,2")
    with pytest.raises(ValueError, match="--photons 'many' is no list of numbers"):
        grid_of("many", None)


# --- whole studies


def test_the_bundled_network_helps_where_it_was_trained_and_invents_below(care):
    limits = care.limits
    assert limits.helps and 1 < limits.helps_from.at < 12 and limits.best_gain_db > 1.5
    assert 1 < limits.invents_below.at < 12
    assert limits.resolution_px < 6 and limits.blur_photons in (16, 64)
    assert 0.5 < care.facts["snr_low"] < 3
    gains = care.measured.light("restored_db") - care.measured.light("raw_db")
    assert gains.mean(axis=0)[2] > 5


def test_a_study_is_the_same_every_time(care):
    again = study_limits(CARE, Choices(most_images=1, size=96, grid=Grid(QUICK.photons, (0.0,)), minutes=2))
    for name in ("restored_db", "snr", "false_area"):
        np.testing.assert_allclose(again.measured.light(name)[0], care.measured.light(name)[0], rtol=1e-4)
    assert again.limits.blur_photons is None and "bears" not in again.summary


def test_the_report_needs_nothing_beside_it(care, tmp_path):
    page = write_report(care, around_the_limit(care), tmp_path / "report")
    assert sorted(path.name for path in page.parent.iterdir()) == ["limits.html", "limits.json", "limits.pdf", "limits.png"]
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "<script" not in text
    assert "invents structure below" in text and "0.72 electrons per photon" in text
    said = json.loads((tmp_path / "report" / "limits.json").read_text("utf-8"))
    assert said["limits"] == care.facts and len(said["numbers"]["restored_db"][0]) == 4
    assert said["conditions"]["light"] == "1, 4, 16, 64 photons per pixel, peak"


def test_a_figure_is_png_pdf_or_svg(care, tmp_path):
    from live_restore.limits.figure import draw

    with pytest.raises(ValueError, match=r"'limits\.jpg' has the suffix '\.jpg'; use \.png, \.pdf or \.svg"):
        draw(care.measured, care.limits, [], tmp_path / "limits.jpg", title="", summary="", about="")


def test_a_network_that_does_nothing_never_helps(identity):
    found = study_limits(identity.path, Choices(most_images=1, size=64, grid=QUICK, minutes=1))
    assert found.summary.startswith("never helps: between 1 and 64 photons it gains -")
    assert found.facts["never_helps"] == 1 and "photons_low" not in found.facts


def test_a_network_that_adds_structure_is_found_out(ghost):
    found = study_limits(ghost.path, Choices(most_images=2, size=96, grid=QUICK, minutes=1))
    assert found.limits.invents_below.at == math.inf
    assert "invents structure at any light that was tested" in found.summary and found.facts["always_invents"] == 1
    assert found.limits.smooths_above.at < 64  # the trust check finds it without the truth, where there is light


def test_a_sweep_ends_in_time_and_says_what_it_left_out():
    fields = demo_fields(3, 64, 1)
    with Restorer(open_package(CARE), engine="openvino", precision="f32") as restorer:
        steps = []
        told = lambda done, total: steps.append((done, total))  # noqa: E731
        measured = sweep(restorer, fields, usual_camera((64, 64)), QUICK, seconds=0.0, told=told)
    assert measured.names == (fields[0].name,) and steps[-1] == (4, 24)
    assert np.isfinite(measured.light("snr")).all() and measured.light("snr").shape == (1, 4)
    assert len(measured.blurs("snr")) == 0 and find_limits(measured).blur_photons is None
    assert "time for 1 of 3 images; give more with --minutes" in measured.notes[0]
    assert "time to blur 0 of 1 images" in measured.notes[1]


def test_stacks_are_pushed_too():
    grid = Grid((4.0, 16.0, 64.0), (0.0,))
    found = study_limits(bundled_folder() / "care3d_demo", Choices(most_images=1, size=64, grid=grid, minutes=2))
    assert found.fields[0].photons.shape == (12, 64, 64) and math.isfinite(found.limits.best_gain_db)


# --- images


def test_images_are_found_in_files_folders_and_folders_of_pairs(tmp_path):
    (tmp_path / "pairs" / "high").mkdir(parents=True)
    for number in range(4):
        counts = (100 + 10 * example_field(number, (96, 128))).astype(np.uint16)
        tifffile.imwrite(tmp_path / "pairs" / "high" / f"{number}.tif", counts)
    fields = read_fields([tmp_path / "pairs"], 3, 64, 1, pixel_size_um=0.2)
    assert [field.name for field in fields] == ["0", "2", "3"]
    assert {field.photons.shape for field in fields} == {(1, 64, 64)} and fields[0].pixel_size_um == 0.2
    found = study_limits(CARE, Choices(images=(tmp_path / "pairs",), noise=PLAIN, size=64, most_images=1, grid=QUICK))
    assert found.measured.names == ("0",) and "the offset of the configuration" in found.specimen
    with pytest.raises(ImageError, match="'0' is a single plane, and the model restores z-stacks"):
        read_fields([tmp_path / "pairs"], 1, 64, 8)
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((32, 32), np.uint16))
    with pytest.raises(ImageError, match="'small' has 32 pixels along a side; limits are measured on 64 or more"):
        read_fields([tmp_path / "small.tif"], 1, 64, 1)


def test_of_a_calibration_only_what_was_held_out_in_the_models_channel(tmp_path):
    write_calibration(tmp_path / "monday", positions=3, held_out=1, shape=(96, 96))
    lines = (tmp_path / "monday" / "pairs.jsonl").read_text(encoding="utf-8")
    assert [field.name for field in read_fields([tmp_path / "monday"], 8, 64, 1)] == ["p0"]
    other = lines.replace('"channel": "FITC", "position": "p1", "split": "train"', '"channel": "DAPI", "split": "held-out"')
    (tmp_path / "monday" / "pairs.jsonl").write_text(other, encoding="utf-8")
    for channel, names in (("FITC", ["p0"]), ("DAPI", ["p1"]), ("Cy5", ["p0", "p1"]), (None, ["p0", "p1"])):
        assert [field.name for field in read_fields([tmp_path / "monday"], 8, 64, 1, channel=channel)] == names
    (tmp_path / "monday" / "pairs.jsonl").write_text(lines.replace("true", "false"), encoding="utf-8")
    with pytest.raises(PairError, match=r"none of the 3 pairs in .* is accepted"):
        read_fields([tmp_path / "monday"], 8, 64, 1)


def test_light_at_which_the_truth_itself_is_noisy_is_left_out():
    clean = demo_fields(2, 96, 1)
    assert within_the_truth(Grid(), clean, PLAIN) == (Grid(), ())
    rng = np.random.default_rng(0)
    noisy = [field_of("a", 100 + rng.poisson(200 * field.photons)) for field in clean]
    grid, (note,) = within_the_truth(Grid(), noisy, PLAIN)
    assert 8 <= grid.photons[-1] <= 64 and f"more than {grid.photons[-1]:g} photons were left out" in note
    bright = Grid((64.0, 128.0, 256.0, 512.0))
    assert within_the_truth(bright, noisy, PLAIN)[0].photons == (64.0, 128.0, 256.0)  # a curve needs three


@pytest.mark.realdata
def test_the_real_images_are_read(shared_data):
    fields = read_fields([shared_data / "clean_2d"], 8, 128, 1)
    assert len(fields) == 3 and all(field.photons.shape == (1, 128, 128) for field in fields)
    (stack,) = read_fields([shared_data / "clean_nuclei_3d"], 8, 96, 8)
    assert stack.photons.shape == (8, 96, 96)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels_in": 2, "channels_out": 2}, "takes 2 channel"),
        ({"procedure": "isotropic", "z_factor": 2.0}, "gives images of another size"),
        ({"normalisation": Normalisation(output="none")}, "gives no camera counts"),
    ],
    ids=["two channels", "other sizes", "no counts"],
)
def test_models_that_cannot_be_held_against_photons_are_refused(tmp_path, changes, words):
    facts = smoothing_facts().model_copy(update=changes)
    package = write_smoothing_package(tmp_path / "package", channels=facts.channels_in, facts=facts)
    with pytest.raises(ImageError, match=words):
        check_measurable(package)


# --- the package


@pytest.mark.parametrize("form", ["smooth", "smooth.zip"])
def test_facts_are_changed_in_place_and_nothing_else(tmp_path, form):
    package = write_smoothing_package(tmp_path / form, licence="MIT", authors=("A. Author",))
    before = {name: package.files.read(name) for name in package.files.names() if name != "rdf.yaml"}
    changed = update_facts(tmp_path / form, limits={"snr_low": 2.1}, channel="GFP")
    assert changed.facts == package.facts.model_copy(update={"limits": {"snr_low": 2.1}, "channel": "GFP"})
    assert (changed.name, changed.licence, changed.authors) == (package.name, package.licence, package.authors)
    assert {name: changed.files.read(name) for name in changed.files.names() if name != "rdf.yaml"} == before
    assert [path.name for path in tmp_path.iterdir()] == [form]
    with pytest.raises(ModelError, match=r"was not changed: config\.live_restore\.limits\.snr_low is 'much'"):
        update_facts(tmp_path / form, limits={"snr_low": "much"})
    with pytest.raises(ModelError, match=r"was not changed: config\.live_restore\.limit "):
        update_facts(tmp_path / form, limit={})
    assert open_package(tmp_path / form).facts == changed.facts


def test_a_changed_package_is_still_valid(tmp_path):
    from bioimageio.spec import InvalidDescr, ValidationContext, load_description

    write_smoothing_package(tmp_path / "smooth")
    update_facts(tmp_path / "smooth", limits={"snr_low": 2.1})
    with ValidationContext(perform_io_checks=True, log_warnings=False):
        assert not isinstance(load_description(tmp_path / "smooth", perform_io_checks=True), InvalidDescr)


def test_limits_are_kept_in_a_package_but_not_in_a_bundled_one(care, identity):
    before = (CARE / "rdf.yaml").read_bytes()
    assert not keep(care) and (CARE / "rdf.yaml").read_bytes() == before
    found = study_limits(identity.path, Choices(most_images=1, size=64, grid=Grid(QUICK.photons, (0.0,)), minutes=1))
    assert keep(found) and open_package(identity.path).facts.limits == found.facts


# --- live

LIMITS = {"snr_low": 2.0, "snr_invents": 3.0, "snr_high": 20.0}


@pytest.mark.parametrize(
    ("snr", "limits", "words"),
    [
        (1.5, LIMITS, "SNR 1.5 is below 2, where this model stops helping, and it invents structure below 3 (live"),
        (1.9, LIMITS, "SNR 1.9 is below 3, where this model begins to invent"),
        (1.5, {"snr_low": 2.0}, "SNR 1.5 is below 2, where this model stops helping (live-restore limits); give more light"),
        (25.0, LIMITS, "SNR 25 is above 20, where this model stops helping"),
        (25.0, {"never_helps": 1.0}, "found to help at no light"),
        (5.0, {"snr_low": 2.0, "always_invents": 1.0}, "found to invent structure at any light"),
    ],
)
def test_the_live_snr_is_compared_with_the_limits(snr, limits, words):
    assert words in beyond_limits({"snr": snr}, limits)


def test_within_the_limits_or_without_them_nothing_is_said():
    assert beyond_limits({"snr": 5.0}, LIMITS) == beyond_limits({"snr": 2.8}, LIMITS) == ""
    assert beyond_limits({"snr": 0.1}, {}) == beyond_limits({}, LIMITS) == ""
    assert beyond_limits({"snr": 0.1, "gain_known": False}, LIMITS) == ""


def test_a_real_server_warns_below_the_limit_and_takes_it_back(tmp_path):
    facts = smoothing_facts(limits={"snr_low": 3.4})
    package = write_smoothing_package(tmp_path / "package", facts=facts)
    field = 1e-2 * example_field(3, (96, 96))[None]
    rng = np.random.default_rng(0)
    chosen = options(tmp_path, engine="openvino", package=package.path, noise=PLAIN)
    with Server(chosen) as server, BareHook(server.address) as hook:
        assert status(server.address)["models"][0]["limits"] == {"snr_low": 3.4}
        hook.frame(expose(3 * field, PLAIN, rng)[0])
        said = until(lambda: [s for s in status(server.address, "run")["warnings"] if "stops helping" in s])
        assert re.search(r"channel GFP: SNR [12]\.\d is below 3\.4, where this model stops helping", said[0])
        hook.frame(expose(300 * field, PLAIN, rng)[0], time_point=1)
        until(lambda: not [s for s in status(server.address, "run")["warnings"] if "stops helping" in s])


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_preview_draws_the_limit_and_says_the_regime():
    playwright = pytest.importorskip("playwright.sync_api")
    with StandIn(cells(size=64, planes=3, times=2), mood=Mood(every_s=0.15, limits={"snr_low": 6.5})) as peer:
        with Preview(peer.address, port=0) as served, playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM)
            visit = Visit(browser, served)
            visit.shows()
            visit.until("document.querySelector('#chart-snr .limit line')")
            assert visit.page.locator("#chart-snr .limit text").text_content() == "helps from 6.5"
            visit.until("document.querySelector('#trust-facts').innerText.includes('too little: restoring helps from SNR')")
            peer.mood.limits = {"snr_low": 0.5}
            visit.until("document.querySelector('#trust-facts').innerText.includes('enough: restoring helps from SNR')")
            assert not visit.complaints
            browser.close()


# --- the command


def command(*words, cwd):
    call = [sys.executable, "-m", "live_restore.cli", "limits", *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, encoding="utf-8", timeout=170, cwd=cwd, check=False)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, re.sub(r"\s+", " ", done.stdout + " " + done.stderr)


def test_the_command_says_what_it_found_and_stores_it(tmp_path, identity):
    tifffile.imwrite(tmp_path / "high.tif", (100 + 10 * example_field(9, (96, 96))).astype(np.uint16))
    update_facts(identity.path, limits={})
    words = [identity.path, "--images", "high.tif", "--photons", "1,8,64", "--blur", "0", "--size", 64]
    code, said = command(*words, cwd=tmp_path)
    assert code == 0 and "one kernel never helps: between 1 and 64 photons" in said and "stored in the package" in said
    assert "never" in (tmp_path / "identity_limits" / "limits.html").read_text("utf-8")
    assert open_package(identity.path).facts.limits["never_helps"] == 1
    code, said = command(identity.path, "--photons", "1,2", cwd=tmp_path)
    assert code == 1 and "light levels 1, 2 do not make a curve" in said
