"""Offset, gain and read noise of a camera, from pairs and from dark and flat frames, against the simulated camera's own."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bare_clients import BareHook, options, status, until
from typer.testing import CliRunner

from live_restore.acquire.simulate.camera import Camera, build_camera
from live_restore.acquire.simulate.specimen import KINDS, example_field
from live_restore.camera_noise import measure_camera, read_frames
from live_restore.camera_section import camera_text, difference, write_maps, write_text
from live_restore.cli import app
from live_restore.config import HardwareConfig
from live_restore.configured import camera_noise
from live_restore.errors import ConfigError, PairError
from live_restore.pairs import photon_transfer
from live_restore.pairs.camera_estimate import CameraEstimate, Measured, read_noise_of, rms
from live_restore.pairs.camera_frames import estimate_from_frames, with_dark
from live_restore.pairs.photon_transfer import Field, estimate_from_fields, estimate_from_pairs
from live_restore.pairs.quality import PairFacts
from live_restore.pairs.transfer_figure import transfer_figure
from live_restore.records.pair_log import PairLog, TakenPair, pair_name
from live_restore.records.pairs import read_pairs
from live_restore.server import Server


def taken(camera, photons, rng, ratio=50.0, again=None):
    """One field of view; `again`: photons of a second exposure at low light."""
    images = (
        camera.expose(photons, rng),
        camera.expose(ratio * photons, rng),
        None if again is None else camera.expose(again, rng),
    )
    return Field("field", lambda: images)


@cache
def rendered(kind, shape, seed):
    return example_field(seed, shape, kind, peak_photons=1.0)


def cells(kind, shape, number):
    """Photons of several fields, 1 at the peak; two are rendered, the others are made of them."""
    for n in range(number):
        photons = rendered(kind, shape, 50 + n % 2)
        yield np.roll(photons[..., ::-1] if n % 4 > 1 else photons, (17 * n, 29 * n), (-2, -1))


def fields(seed, kind="mitochondria", shape=(192, 192), number=8, peak_photons=100.0, **said):
    camera, rng = build_camera(seed, shape[-2:]), np.random.default_rng(seed)
    return camera, [taken(camera, peak_photons * each, rng, **said) for each in cells(kind, shape, number)]


def rms_e(camera):
    return float(np.sqrt(np.mean(np.square(camera.read_noise_e, dtype=np.float64))))


def within_errors(estimate, camera, sd=4.0):
    truths = camera.offset_adu.mean(), camera.gain_adu_per_e.mean(), rms_e(camera)
    for measured, truth in zip((estimate.offset_adu, estimate.gain_adu_per_e, estimate.read_noise_e), truths, strict=True):
        assert not np.isfinite(measured.error) or abs(measured.value - truth) < sd * measured.error + 0.002 * truth
    return True


# --- from pairs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "kind"), list(enumerate((*KINDS, "mitochondria"), 1)))
@pytest.mark.parametrize("shape", [(192, 192), (4, 128, 128)], ids=["planes", "stacks"])
def test_gain_within_three_and_read_noise_within_ten_percent(kind, shape, seed):
    camera, seen = fields(seed, kind, shape, number=12)
    estimate = estimate_from_fields(seen)
    assert estimate.why == "" and estimate.certain
    assert estimate.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.03)
    assert estimate.read_noise_e.value == pytest.approx(rms_e(camera), rel=0.10)
    assert estimate.offset_adu.value == pytest.approx(camera.offset_adu.mean(), abs=0.2)
    assert within_errors(estimate, camera)


@pytest.mark.parametrize(("gain", "read_noise", "offset"), [(0.5, 1.2, 100.0), (0.5, 3.0, 20.0), (8.0, 0.9, 400.0)])
def test_other_cameras(gain, read_noise, offset):
    ones = np.ones((192, 192), np.float32)
    camera = Camera(0.8, offset * ones, gain * ones, read_noise * ones)
    rng = np.random.default_rng(4)
    estimate = estimate_from_fields([taken(camera, 100 * each, rng) for each in cells("mitochondria", (192, 192), 8)])
    assert estimate.gain_adu_per_e.value == pytest.approx(gain, rel=0.03)
    assert estimate.read_noise_e.value == pytest.approx(read_noise, rel=0.10)
    assert estimate.offset_adu.value == pytest.approx(offset, abs=0.3)


def test_low_light_twice_needs_no_high_light_for_the_gain():
    camera, rng = build_camera(3, (192, 192)), np.random.default_rng(3)
    photons = [100 * each for each in cells("filaments", (192, 192), 8)]
    twice = [(camera.expose(each, rng), None, camera.expose(0.9 * each, rng)) for each in photons]  # it bleaches
    estimate = estimate_from_fields([Field("twice", lambda images=images: images) for images in twice])
    assert estimate.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.03)
    assert not estimate.certain and "without high light the offset cannot be told" in estimate.why


def test_a_sandwich_is_used_and_bleaching_does_not_matter():
    camera, rng = build_camera(4, (192, 192)), np.random.default_rng(4)
    photons = [100 * each for each in cells("nuclei", (192, 192), 4)]
    estimate = estimate_from_fields([taken(camera, each, rng, again=0.8 * each) for each in photons])
    assert "4 of them taken twice" in estimate.method
    assert estimate.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.03)
    assert within_errors(estimate, camera)


@pytest.mark.parametrize("kind", ["mitochondria", "filaments"])
def test_motion_within_a_pair_is_seen_and_makes_the_gain_less_certain(kind):
    camera, rng = build_camera(5, (192, 192)), np.random.default_rng(5)
    seen = []
    for photons in (80 * each for each in cells(kind, (192, 192), 6)):
        images = camera.expose(photons, rng), camera.expose(50 * np.roll(photons, 1, axis=1), rng), None
        seen.append(Field("moved", lambda images=images: images))
    estimate = estimate_from_fields(seen)
    assert estimate.line.moved_px2 > 0.05 and within_errors(estimate, camera, 3)
    assert estimate.gain_adu_per_e.relative > 0.01


def test_a_shift_that_was_measured_is_taken_off():
    camera, rng = build_camera(6, (192, 192)), np.random.default_rng(6)
    seen = []
    for photons in (100 * each for each in cells("filaments", (192, 192), 8)):
        images = camera.expose(photons, rng), camera.expose(50 * np.roll(photons, (2, -1), (0, 1)), rng), None
        seen.append(Field("shifted", lambda images=images: images, (2.0, -1.0)))
    estimate = estimate_from_fields(seen)
    assert estimate.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.03)


def test_a_shift_along_z_counts_planes_of_the_whole_stack(monkeypatch):
    camera, rng = build_camera(6, (128, 128)), np.random.default_rng(6)
    seen = []
    for photons in (100 * each for each in cells("filaments", (9, 128, 128), 4)):
        images = camera.expose(photons[1:], rng), camera.expose(50 * photons[:-1], rng), None
        seen.append(Field("shifted", lambda images=images: images, (1.0, 0.0, 0.0)))
    whole = estimate_from_fields(seen)
    monkeypatch.setattr(photon_transfer, "_MOST_PIXELS", 4 * 2 * 128 * 128)  # two planes of each stack
    part = estimate_from_fields(seen)
    assert part.pixels < 0.5 * whole.pixels
    for estimate in (whole, part):
        assert estimate.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.06)


def test_hot_pixels_and_saturation_are_left_out():
    camera, rng = build_camera(7, (192, 192)), np.random.default_rng(7)
    seen = []
    for photons in (100 * each for each in cells("mitochondria", (192, 192), 6)):
        low, high = camera.expose(photons, rng), camera.expose(50 * photons, rng)
        for image in (low, high):
            image[rng.random(image.shape) < 5e-4] += 4000  # cosmic rays
        high = np.minimum(high, 4095)
        seen.append(Field("hot", lambda images=(low, high, None): images))
    assert within_errors(estimate_from_fields(seen), camera)


def test_a_single_image_cannot_tell_the_pattern_from_read_noise_unless_the_offsets_are_known():
    camera, seen = fields(8, number=1)
    alone = estimate_from_fields(seen)
    assert "cannot tell the pattern of the camera's offsets" in alone.why
    assert alone.read_noise_e.value > 1.1 * rms_e(camera)
    mapped = estimate_from_fields(seen, np.asarray(camera.offset_adu, np.float64))
    assert mapped.why == "" and mapped.read_noise_e.value == pytest.approx(rms_e(camera), rel=0.1)


def test_nothing_bright_enough_is_said():
    camera, seen = fields(9, number=3, peak_photons=2.0)
    estimate = estimate_from_fields(seen)
    assert not estimate.certain and "take brighter ones, or more" in estimate.why
    assert abs(estimate.gain_adu_per_e.value - camera.gain_adu_per_e.mean()) < 4 * estimate.gain_adu_per_e.error


def test_high_light_that_is_hardly_higher_does_not_tell_the_offset():
    camera, seen = fields(10, number=3, ratio=1.3)
    estimate = estimate_from_fields(seen)
    assert "times low light, so the offset cannot be told" in estimate.why and not estimate.certain
    known = estimate_from_fields(seen, 97.0)
    assert known.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.06)


def test_flat_or_tiny_images_tell_nothing_and_say_so():
    rng = np.random.default_rng(0)
    tiny = [
        Field("tiny", lambda: (rng.poisson(9, (32, 32)).astype(np.uint16), None, rng.poisson(9, (32, 32)).astype(np.uint16)))
    ]
    estimate = estimate_from_fields(tiny)
    assert not estimate.certain and "take brighter ones, or more" in estimate.why


COUNTS = np.random.default_rng(0).poisson(np.linspace(5, 50, 64)[:, None], (64, 64)).astype(np.uint16)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((COUNTS.astype(np.float32), COUNTS * 9, None), "needs raw counts"),
        ((COUNTS, (COUNTS * 9)[:32], None), "all of one shape"),
        ((COUNTS * 9, COUNTS, None), "they are swapped"),
        ((COUNTS, COUNTS[::-1] * 9, None), "does not follow"),
        ((COUNTS, np.full_like(COUNTS, 9), None), "too small or too flat"),
        ((COUNTS, None, None), "neither a high-light image"),
        (
            (
                np.linspace(0, 255, 4096).reshape(64, 64).astype(np.uint8),
                np.linspace(0, 255, 4096).reshape(64, 64).astype(np.uint8),
                None,
            ),
            "each stretched over all values",
        ),
    ],
)
def test_what_are_no_pairs_of_counts_is_refused(images, words):
    with pytest.raises(PairError, match=words):
        estimate_from_fields([Field("wrong", lambda: images)])


def test_offsets_of_another_region_are_refused():
    _, seen = fields(1, number=1, shape=(64, 64))
    with pytest.raises(PairError, match="use frames of the same region"):
        estimate_from_fields(seen, np.zeros((32, 32)))


def test_large_images_are_looked_at_in_the_middle_only(tmp_path):
    camera = build_camera(2, (1100, 1100))
    rng, photons = np.random.default_rng(2), np.linspace(5, 100, 1100)[:, None] * np.ones((1100, 1100))
    estimate = estimate_from_fields([taken(camera, photons, rng), taken(camera, photons, rng)])
    assert estimate.pixels <= 1024**2 and estimate.gain_adu_per_e.value == pytest.approx(2.18, rel=0.03)


# --- from dark and flat frames ---------------------------------------------------------------------------------------


def frames(camera, photons, number, rng, flicker=0.0):
    lamps = 1 + flicker * rng.standard_normal(number)
    return np.stack([camera.expose(lamp * photons, rng) for lamp in lamps])


def shaded(shape, photons):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return photons * (1 - ((y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2) / (2 * max(shape)) ** 2)


@pytest.mark.parametrize(("darks", "flats"), [(100, 60), (20, 10), (2, 2)])
def test_dark_and_flat_frames(darks, flats):
    camera, rng = build_camera(11, (128, 160)), np.random.default_rng(11)
    dark = frames(camera, np.zeros((128, 160)), darks, rng)
    light = [frames(camera, shaded((128, 160), level), flats, rng, 0.05) for level in (200.0, 2000.0, 10000.0)]
    estimate = estimate_from_frames(dark, light)
    assert estimate.why == "" and within_errors(estimate, camera, 5)
    assert estimate.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.03)
    assert estimate.read_noise_e.value == pytest.approx(rms_e(camera), rel=0.1)
    maps = estimate.maps
    if darks == 100:
        assert np.std(maps["offset_adu"] - camera.offset_adu) < 0.2 * np.std(camera.offset_adu)
        assert np.median(np.abs(maps["read_noise_e"] / camera.read_noise_e - 1)) < 0.1
    # a few frames say little of single pixels, and the maps do not pretend
    assert np.std(maps["gain_adu_per_e"]) < 0.2 * np.mean(maps["gain_adu_per_e"])


def test_a_saturated_flat_is_left_out():
    camera, rng = build_camera(12, (64, 64)), np.random.default_rng(12)
    dark, zero = frames(camera, np.zeros((64, 64)), 30, rng), np.ones((64, 64))
    light = [frames(camera, level * zero, 30, rng) for level in (500.0, 60_000.0)]
    estimate = estimate_from_frames(dark, [light[0], np.minimum(light[1], 60_000)])
    assert estimate.gain_adu_per_e.value == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.03)
    assert "flat 2 is saturated" in estimate.why


def test_a_lamp_that_changes_the_gain_is_said():
    camera, rng = build_camera(12, (64, 64)), np.random.default_rng(12)
    dark = frames(camera, np.zeros((64, 64)), 30, rng)
    light = [frames(camera, np.full((64, 64), level), 30, rng) for level in (500.0, 2000.0)]
    light[1] = (light[1] // 2).astype(np.uint16)  # as if by another amplifier
    assert "the camera is not linear there" in estimate_from_frames(dark, light).why


def test_dark_frames_alone_give_the_read_noise_in_counts_and_with_pairs_everything():
    camera, seen = fields(13, number=6)
    rng = np.random.default_rng(13)
    dark = estimate_from_frames(frames(camera, np.zeros((192, 192)), 60, rng))
    assert "the read noise is 3.3" in dark.why and not dark.certain
    pairs = estimate_from_fields(seen, np.asarray(dark.maps["offset_adu"], np.float64))
    both = with_dark(dark, pairs)
    assert both.certain and both.why == "" and within_errors(both, camera, 5)
    assert both.maps["read_noise_e"].shape == (192, 192) and set(both.maps) == {"offset_adu", "gain_adu_per_e", "read_noise_e"}
    with pytest.raises(ValueError, match="it must be of dark frames alone"):
        with_dark(both, pairs)


DARK = np.random.default_rng(0).poisson(100, (4, 16, 16)).astype(np.uint16)


@pytest.mark.parametrize(
    ("dark", "flats", "words"),
    [
        (DARK[:1], [], "1 dark frame tells no noise"),
        (DARK[0], [], "give counts"),
        (DARK.astype(float), [], "give counts"),
        (DARK, [DARK[:, :8]], "take both alike"),
        (DARK, [DARK], "a quarter and at half of the camera's range"),
    ],
)
def test_frames_that_tell_nothing_are_refused(dark, flats, words):
    with pytest.raises(PairError, match=words):
        estimate_from_frames(dark, flats)


# --- errors of what is derived ---------------------------------------------------------------------------------------


def test_errors_of_roots():
    assert rms(Measured(4.0, 0.4)) == (2.0, pytest.approx(0.1))
    nothing = rms(Measured(-0.1, 0.04))
    assert nothing.value == 0 and nothing.error == pytest.approx(0.2)
    assert Measured(0.0, 1.0).relative == np.inf
    assert not np.isfinite(read_noise_of(Measured(-1.0, 0.1), Measured(4.0, 0.1), 0.0).error)
    certain = Measured(2.0, 0.01)
    low = CameraEstimate(Measured(97.0, 0.1), certain, Measured(0.1, 0.2), 9, "test")
    assert low.doubts() == ["the read noise is below 0.5 electrons, and not known better"]


# --- the command line ------------------------------------------------------------------------------------------------

RIG = """# my microscope
[micromanager]
demo = true

[camera]                         # by the data sheet
offset_adu = 100.0               # counts
gain_adu_per_e = 2.0
read_noise_e = 1.0  # e-
quantum_efficiency = 0.72        # kept

[optics]
pixel_size_um = 0.1

[channels.GFP]
exposure_ms = 10.0
"""


def write_pairs(folder, seed=14, number=6):
    camera, seen = fields(seed, number=number)
    with PairLog(folder, "pairs") as log:
        for n, one in enumerate(seen):
            low, high, _ = one.read()
            log.write(TakenPair(pair_name(str(n), "GFP"), "GFP", str(n), 0, low, high), PairFacts())
    return camera


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with pairs, frames, and the camera that took them."""
    folder = tmp_path_factory.mktemp("bench")
    camera, rng = write_pairs(folder), np.random.default_rng(15)
    tifffile.imwrite(folder / "dark.tif", frames(camera, np.zeros((192, 192)), 30, rng))
    for level in (300, 3000):
        tifffile.imwrite(folder / f"flat{level}.tif", frames(camera, np.full((192, 192), float(level)), 20, rng))
    return folder, camera


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_estimate_goes_into_the_configuration_and_from_there_to_trust(bench, tmp_path):
    folder, camera = bench
    rig = tmp_path / "rig.toml"
    rig.write_text(RIG, encoding="utf-8")
    shown = run("noise", folder / "pairs", "--config", rig, "--figure", tmp_path / "curve.png")
    assert shown.exit_code == 0, shown.output
    assert rig.read_text("utf-8") == RIG and "-gain_adu_per_e = 2.0" in shown.output and "add --write" in shown.output
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    assert run("noise", folder / "pairs", "--config", rig, "--write").exit_code == 0
    text = rig.read_text("utf-8")
    for kept in ("# my microscope", "# by the data sheet", "# counts", "# e-", "quantum_efficiency = 0.72        # kept"):
        assert kept in text
    noise = camera_noise(HardwareConfig.from_file(rig).camera)
    assert noise.gain_adu_per_e == pytest.approx(camera.gain_adu_per_e.mean(), rel=0.03)
    assert noise.read_noise_e == pytest.approx(rms_e(camera), rel=0.1)
    low, _ = read_pairs(folder / "pairs").pairs[0].read()
    with Server(options(tmp_path, noise=noise)) as server, BareHook(server.address) as hook:
        hook.frame(low)
        run_folder = until(lambda: status(server.address, "run")["folder"])
    (line,) = [json.loads(line) for line in (Path(run_folder) / "volumes.jsonl").read_text("utf-8").splitlines()]
    figures = line["said"]["trust"]
    assert figures["noise"] == "configuration" and figures["gain_adu_per_e"] == pytest.approx(noise.gain_adu_per_e)


def test_frames_give_maps_that_the_configuration_names(bench, tmp_path):
    folder, camera = bench
    rig = tmp_path / "rig.toml"
    rig.write_text(RIG.replace("[camera]", "[unused]").split("[unused]")[0] + RIG[RIG.index("[optics]") :], encoding="utf-8")
    words = ("--dark", folder / "dark.tif", "--flat", folder / "flat300.tif", folder / "flat3000.tif")
    done = run("noise", *words, "--maps", tmp_path / "camera.npz", "--config", rig, "--write")
    assert done.exit_code == 0, done.output
    assert 'maps = "camera.npz"' in rig.read_text("utf-8")
    noise = camera_noise(HardwareConfig.from_file(rig).camera)
    assert noise.shape == (192, 192)
    assert np.std(noise.offset_adu - camera.offset_adu) < 0.4 * np.std(camera.offset_adu)
    again = camera_text(rig, measure_camera([], folder / "dark.tif", [folder / "flat300.tif"]))
    assert "maps" not in again, "maps of before would go ahead of the new figures"
    assert difference(rig, rig.read_text("utf-8")) == ""


def test_dark_frames_and_pairs_together(bench):
    folder, camera = bench
    assert within_errors(measure_camera([folder / "pairs"], folder / "dark.tif"), camera, 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is nothing to go by"),
        (("dark.tif",), "is a file; give a folder of pairs"),
        (("--flat", "flat300.tif"), "flat frames need dark ones"),
        (("pairs", "--dark", "dark.tif", "--flat", "flat300.tif"), "give one of them"),
        (("pairs", "--write"), "--write needs --config"),
        (("pairs", "--maps", "maps.npz"), "tells no maps"),
        (("--dark", "dark.tif", "--config", "rig.toml"), "not known well enough"),
        (("--dark", "dark.tif", "--figure", "curve.png"), "gave no curve to draw"),
    ],
)
def test_what_cannot_be_done_is_said(bench, monkeypatch, words, said):
    folder, _ = bench
    (folder / "rig.toml").write_text(RIG, encoding="utf-8")
    monkeypatch.chdir(folder)
    done = run("noise", *words)
    assert done.exit_code != 0 and said in " ".join(str(done.exception or "").split()) + done.output, done.output


def test_an_estimate_that_is_not_certain_is_not_written_down(tmp_path):
    rig, unknown = tmp_path / "rig.toml", Measured(float("nan"), float("inf"))
    rig.write_text(RIG, encoding="utf-8")
    with pytest.raises(PairError, match="not known well enough to be written down: no light"):
        camera_text(rig, CameraEstimate(Measured(97.0, 0.1), unknown, unknown, 0, "test", "no light"))
    with pytest.raises(PairError, match="gave no curve to draw"):
        transfer_figure(CameraEstimate(unknown, unknown, unknown, 0, "test", "no light"), tmp_path / "curve.png")


def test_files_that_cannot_be_written_leave_everything_as_it_was(tmp_path):
    (tmp_path / "rig.toml").mkdir()
    with pytest.raises(ConfigError, match="nothing was changed"):
        write_text(tmp_path / "rig.toml", "text")
    full = {name: np.ones((2, 2), np.float32) for name in ("offset_adu", "gain_adu_per_e", "read_noise_e")}
    known = Measured(1.0, 0.01)
    with pytest.raises(PairError, match="cannot be written"):
        write_maps(tmp_path / "rig.toml", CameraEstimate(known, known, known, 1, "test", maps=full))
    assert [path.name for path in tmp_path.iterdir()] == ["rig.toml"]


def test_frames_of_several_channels_or_sizes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "colours.tif", np.zeros((3, 2, 16, 16), np.uint16), imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(PairError, match="has 2 channels"):
        read_frames(tmp_path / "colours.tif")


def test_pairs_of_which_none_is_accepted_tell_nothing():
    with pytest.raises(PairError, match="none of 0 pairs is accepted"):
        estimate_from_pairs([])
