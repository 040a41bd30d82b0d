"""The trust check: exact noise on perfect restorations, what is found, what is raised for nothing, what it says."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import correlate1d, gaussian_filter

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import KINDS
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder
from live_restore.restore import windows
from live_restore.restore.hot_pixels import HotPixels
from live_restore.restore.noise import CameraNoise
from live_restore.restore.trust import TrustCheck, regime, threshold
from live_restore.restore.trust_words import doubts, notes, reasons
from live_restore.restore.windows import KERNEL, Windows, halve, inside
from live_restore.restorer import Restorer
from live_restore.serving.checking import Checks, _warn

SEED = 40_000_000
PLAIN = CameraNoise(offset_adu=100.0, gain_adu_per_e=2.0, read_noise_e=1.5)


@pytest.fixture(scope="module")
def planting():
    """The module that plants structures, which the measurement of docs/trust.md uses too."""
    folder = str(Path(__file__).resolve().parents[1] / "scripts")
    sys.path.insert(0, folder)
    import planted_structures

    yield planted_structures
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def restorer():
    with Restorer(open_package(bundled_folder() / "care2d_demo"), engine="openvino", precision="f32") as opened:
        yield opened


def expose(electrons, seed=0, noise=PLAIN, dtype=np.uint16):
    """Take a frame of expected electrons, any shape."""
    rng = np.random.default_rng(seed)
    measured = rng.poisson(electrons) + noise.read_noise_e * rng.standard_normal(np.shape(electrons))
    return np.clip(np.rint(noise.offset_adu + noise.gain_adu_per_e * measured), 0, np.iinfo(dtype).max).astype(dtype)


def counts(electrons, noise=PLAIN):
    """What a network without error would restore."""
    return np.asarray(noise.offset_adu + noise.gain_adu_per_e * np.asarray(electrons), np.float32)


def waves(shape, low=2.0, high=20.0):
    """A smooth field of expected electrons."""
    y, x = np.indices(shape[-2:])
    plane = low + (high - low) * (0.5 + 0.25 * np.sin(y / 9) + 0.25 * np.cos(x / 13))
    return np.broadcast_to(plane, shape)


def blob(shape, y, x, sigma, amplitude):
    rows, columns = np.indices(shape)
    return amplitude * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


# --- the windows


def direct(residual, weight):
    """The same z and strength by plain convolution in double precision."""
    kernel = KERNEL.astype(np.float64)

    def both(image, along):
        return correlate1d(correlate1d(image, along, 0, mode="constant"), along, 1, mode="constant")

    information = np.maximum(both(weight, kernel**2), 1e-20)
    return both(residual, kernel) / np.sqrt(information), np.sqrt(information)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (67, 90), (130, 33)])
@pytest.mark.parametrize("band", [300, 65_536])
def test_windows_are_the_plain_convolution(monkeypatch, shape, band):
    monkeypatch.setattr(windows, "_BAND", band)
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.1, 1, shape) * (rng.random(shape) > 0.1)
    residual = weight * rng.standard_normal(shape)
    level = Windows(shape)
    for _ in range(2):  # nothing of the first turn is left for the second
        inside(level.residual)[:], inside(level.weight)[:] = residual, weight
        level.measure()
    z, strength = direct(residual, weight)
    np.testing.assert_allclose(level.z, z, atol=2e-5)
    np.testing.assert_allclose(level.strength, strength, rtol=1e-5, atol=2e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 7), (8, 8), (301, 40)])
def test_halving_keeps_the_sum(monkeypatch, shape):
    monkeypatch.setattr(windows, "_BAND", 300)
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    out = np.full(((shape[0] + 1) // 2, (shape[1] + 1) // 2), 7, np.float32)
    halve(image, out)
    even = np.zeros((out.shape[0] * 2, out.shape[1] * 2))
    even[: shape[0], : shape[1]] = image
    np.testing.assert_allclose(out, even.reshape(out.shape[0], 2, out.shape[1], 2).sum((1, 3)), rtol=1e-5)


# --- restorations without error


def test_z_is_a_unit_normal_where_the_restoration_is_right(planting):
    exposed = planting.Exposed.take("mitochondria", 20, SEED)
    raw = np.stack([exposed.camera.expose(exposed.electrons / 0.72, np.random.default_rng(seed)) for seed in range(6)])
    trust = TrustCheck(exposed.noise).check(raw, np.broadcast_to(exposed.perfect, raw.shape))
    sds, figures = trust.figures["sd_z"], trust.figures
    assert sds["1"] == pytest.approx(1, abs=0.01)
    assert sds["2"] == pytest.approx(1, abs=0.015)
    assert sds["4"] == pytest.approx(1, abs=0.03)
    assert sds["8"] == pytest.approx(1, abs=0.06)
    assert figures["raised"] < 3e-4
    assert figures["trusted"] and figures["why"] == "" and figures["notes"] == []
    assert figures["slope"] == pytest.approx(1, abs=0.01)
    assert figures["peak_photons"] == pytest.approx(20, rel=0.1)
    assert figures["snr"] == pytest.approx((14.4 - figures["background_e"]) / np.sqrt(14.4 + 1), rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (2, 7, 1), (1, 21, 33), (3, 64, 50)])
def test_any_shape_and_no_nan(shape):
    electrons = waves(shape)
    trust = TrustCheck(PLAIN).check(expose(electrons), counts(electrons))
    assert trust.map.shape == shape and trust.map.dtype == np.int8
    assert trust.figures["trusted"], trust.figures["why"]
    json.dumps(trust.figures, allow_nan=False)


def test_uint8_frames():
    noise = CameraNoise(offset_adu=10.0, gain_adu_per_e=2.0, read_noise_e=1.5)
    electrons = waves((1, 200, 200))
    trust = TrustCheck(noise).check(expose(electrons, noise=noise, dtype=np.uint8), counts(electrons, noise))
    assert trust.figures["sd_z"]["1"] == pytest.approx(1, abs=0.02)
    assert trust.figures["raised"] < 1e-3


def test_the_networks_own_gain_and_offset_do_not_matter():
    electrons = waves((1, 200, 200))
    raw, right = expose(electrons), counts(electrons)
    plain, other = TrustCheck(PLAIN).check(raw, right), TrustCheck(PLAIN).check(raw, 0.4 * right + 700)
    assert other.figures["slope"] == pytest.approx(2.5 * plain.figures["slope"], rel=1e-3)
    # (two scales that say the same with different signs may take turns)
    assert np.max(np.abs(np.abs(plain.map).astype(int) - np.abs(other.map))) <= 1


def test_nothing_of_the_input_is_changed():
    electrons = waves((2, 60, 60))
    raw, restored = expose(electrons), counts(electrons)
    raw.flags.writeable = restored.flags.writeable = False
    TrustCheck(PLAIN).check(raw, restored)


def test_the_smallest_structure_follows_the_formula():
    electrons = np.full((1, 256, 256), 10.0)
    figures = TrustCheck(PLAIN).check(expose(electrons), counts(electrons)).figures
    kernel = np.outer(KERNEL, KERNEL) / KERNEL.max() ** 2
    variance = 10 + 1.5**2 + 1 / 48
    expected = threshold(4) * np.sqrt(np.sum(kernel**2) * variance) / np.sum(kernel**2)
    tolerated = 0.02 * 10 * np.sum(kernel) / np.sum(kernel**2)
    assert figures["smallest_e"]["1"] == pytest.approx(expected + tolerated, rel=0.02)


# --- wrong restorations


def test_structures_that_were_invented_or_erased_are_found_in_place():
    shown = waves((1, 300, 300)).copy()
    truth = shown + blob((300, 300), 60, 140, 2, 12)
    shown += blob((300, 300), 150, 40, 2, 8)
    trust = TrustCheck(PLAIN).check(expose(truth), counts(shown))
    found = {place["sign"]: place for place in trust.figures["places"][:2]}
    assert (found["erased"]["y"], found["erased"]["x"]) == (pytest.approx(60, abs=3), pytest.approx(140, abs=3))
    assert (found["invented"]["y"], found["invented"]["x"]) == (pytest.approx(150, abs=3), pytest.approx(40, abs=3))
    assert trust.map[0, 60, 140] > 42 and trust.map[0, 150, 40] < -42
    assert not trust.figures["trusted"]
    assert "the network removed a structure at (y=" in trust.figures["why"]
    assert trust.figures["doubts"] == []


def strong(places, shape=(12, 256, 256), size_px=2):
    """Check a stack to which the network added a strong blob at each of these places, (z, y, x)."""
    electrons = waves(shape)
    shown = electrons.copy()
    for z, y, x in places:
        shown[z] += blob(shape[1:], y, x, size_px, 40)
    return TrustCheck(PLAIN).check(expose(electrons), counts(shown)).figures


def test_one_wrong_structure_in_a_stack_is_a_place_to_look_at():
    figures = strong([(7, 120, 130)])
    assert figures["trusted"] and figures["why"] == ""
    assert 0 < figures["strong"] < 2e-4 and figures["strong_places"] == 1
    (doubt,) = figures["doubts"]
    place = figures["places"][0]
    at = f"(y={place['y']}, x={place['x']}, plane 8)"
    assert doubt.startswith(f"look at {at}: the network invented a structure, ") and doubt.endswith(
        "standard deviations beyond noise"
    )
    assert (place["y"], place["x"]) == (pytest.approx(120, abs=2), pytest.approx(130, abs=2))


def test_one_wrong_structure_that_reaches_through_planes_is_one_place():
    figures = strong([(z, 120, 130) for z in (5, 6)])
    assert figures["trusted"] and figures["strong_places"] == 1 and figures["strong_in_a_plane"] == 1


@pytest.mark.parametrize(
    ("places", "size_px"),
    [
        ([(7, 40, 50), (7, 120, 130), (7, 200, 210)], 2),  # three in one plane
        ([(1, 40, 50), (5, 120, 130), (9, 200, 210)], 2),  # one for every 512 x 512 pixels
        ([(7, 120, 130)], 6),  # a large one
    ],
    ids=["in_one_plane", "in_many_planes", "large"],
)
def test_wrong_structures_that_add_up_are_a_reason(places, size_px):
    figures = strong(places, size_px=size_px)
    assert not figures["trusted"] and figures["doubts"] == []
    assert figures["raised"] < 0.005
    assert figures["why"].endswith("; so it did in 3 places") is (len(places) == 3)
    assert "the network invented a structure at (y=" in figures["why"]


def test_one_wrong_structure_in_a_single_plane_is_a_reason():
    figures = strong([(0, 120, 130)], (1, 512, 512), size_px=1.2)
    assert figures["strong_places"] == 1 and not figures["trusted"]
    assert strong([(0, 120, 130)], (1, 1024, 1024), size_px=1.2)["doubts"]


def test_much_that_is_wrong_is_said_in_per_cent():
    electrons = waves((2, 128, 128))
    shown = electrons.copy()
    shown[1, 30:60, 40:90] += 15
    figures = TrustCheck(PLAIN).check(expose(electrons), counts(shown)).figures
    assert not figures["trusted"]
    assert figures["why"].startswith("the network removed or invented structure on ")
    assert "plane 2" in figures["why"]


def test_a_constant_image_is_no_restoration():
    electrons = waves((1, 128, 128))
    trust = TrustCheck(PLAIN).check(expose(electrons), np.full((1, 128, 128), 120, np.float32))
    assert trust.figures["raised"] > 0.2
    assert not trust.figures["trusted"]


def test_an_image_that_goes_the_other_way_is_no_restoration():
    electrons = waves((1, 128, 128))
    figures = TrustCheck(PLAIN).check(expose(electrons), 400 - counts(electrons)).figures
    assert figures["slope"] < 0.5
    assert "hardly follows" in figures["why"]


def test_raw_itself_is_no_restoration():
    raw = expose(waves((1, 128, 128)))
    figures = TrustCheck(PLAIN).check(raw, raw.astype(np.float32)).figures
    assert figures["trusted"]
    assert "keeps the raw image's noise" in figures["notes"][0]


def test_pixels_that_are_no_numbers_are_counted():
    electrons = waves((1, 64, 64))
    restored = counts(electrons)
    restored[0, 3, 4:6] = np.nan, np.inf
    trust = TrustCheck(PLAIN).check(expose(electrons), restored)
    assert "2 restored pixels are not numbers" in trust.figures["why"]
    json.dumps(trust.figures, allow_nan=False)


def test_a_smooth_error_of_two_per_cent_is_tolerated():
    electrons = waves((1, 256, 256), 100, 600)
    y, x = np.indices((256, 256))
    shaded = electrons * (1 + 0.02 * np.sin(y / 30) * np.sin(x / 30))
    figures = TrustCheck(PLAIN).check(expose(electrons), counts(shaded)).figures
    assert figures["sd_z"]["8"] > 2  # it is seen,
    assert figures["raised"] < 1e-3  # and not called structure


def test_networks_that_sharpen_are_blurred_before_they_are_compared():
    sharp = waves((1, 200, 200)).copy()
    sharp[0, 10::20, 10::20] += 400
    sharp = gaussian_filter(sharp, (0, 1, 1))
    raw = expose(gaussian_filter(sharp, (0, 1.5, 1.5)))
    assert TrustCheck(PLAIN).check(raw, counts(sharp)).figures["raised"] > 0.003
    assert TrustCheck(PLAIN, sharpened_px=1.5).check(raw, counts(sharp)).figures["raised"] < 0.001


# --- the claim


def test_honest_restorations_raise_less_than_a_thousandth(planting, restorer):
    raised = []
    for number, kind in enumerate(KINDS):
        exposed = planting.Exposed.take(kind, 20, SEED + number)
        restored = restorer.restore(exposed.raw[None, None]).pixels[0]
        figures = TrustCheck(exposed.noise).check(exposed.raw[None], restored).figures
        raised.append(figures["raised"])
        assert figures["trusted"], figures["why"]
    assert np.mean(raised) <= 0.001


def test_95_per_cent_of_strong_structures_are_found(planting, restorer):
    structures = [planting.Structure("blob", size) for size in (1, 2, 3, 4)] + [planting.Structure("filament", 10)]
    planted = []
    for number, kind in enumerate(("mitochondria", "vesicles")):
        exposed = planting.Exposed.take(kind, 20, SEED + number)
        restored = restorer.restore(exposed.raw[None, None]).pixels[0, 0]

        def check(raw, pixels, noise=exposed.noise):
            return TrustCheck(noise).check(raw[None], pixels[None])

        for turn in range(5):
            rng = np.random.default_rng([number, turn])
            planted += planting.plant(exposed, restored, structures, (6, 7, 8, 9, 10), rng, check)
    assert len(planted) > 350
    for way in ("erased", "invented"):
        assert np.mean([one.found for one in planted if one.way == way]) >= 0.95


def test_weak_structures_are_not_claimed_to_be_seen(planting):
    exposed = planting.Exposed.take("nuclei", 20, SEED, (256, 256))

    def check(raw, pixels):
        return TrustCheck(exposed.noise).check(raw[None], pixels[None])

    structures = [planting.Structure("blob", 2)]
    rngs = [np.random.default_rng(turn) for turn in range(8)]
    planted = [one for rng in rngs for one in planting.plant(exposed, exposed.perfect, structures, (2,), rng, check)]
    assert np.mean([one.found for one in planted]) < 0.3


# --- pixels


def test_hot_pixels_of_the_calibration_are_left_out():
    electrons, hot = waves((1, 128, 128)), np.zeros((128, 128), bool)
    hot[::16, ::16] = True
    raw = expose(electrons)
    raw[0, hot] = 5000
    noise = CameraNoise(100.0, 2.0, 1.5, hot=hot)
    trust = TrustCheck(noise).check(raw, counts(electrons))
    assert trust.figures["raised"] < 1e-3
    assert trust.figures["hot"] == 64


def test_bright_pixels_that_stand_alone_are_left_out_at_once():
    electrons = waves((1, 128, 128))
    raw = expose(electrons)
    raw[0, ::16, ::16] += 200
    assert TrustCheck(PLAIN).check(raw, counts(electrons)).figures["raised"] < 1e-3


@pytest.mark.parametrize("noise", [PLAIN, None], ids=["calibrated", "estimated"])
def test_dark_pixels_that_stand_alone_are_left_out_at_once(noise):
    electrons = waves((1, 256, 256), 20, 60)
    raw = expose(electrons)
    raw[0, ::16, ::16] -= 100
    figures = TrustCheck(noise).check(raw, counts(electrons)).figures
    assert figures["raised"] < 1e-3 and figures["strong_places"] == 0


def outcome(channel, raw, restored):
    """What the restore thread hands to the check thread, as far as the check looks at it."""
    volume = SimpleNamespace(run="run", key=SimpleNamespace(channel=channel), pixels=raw)
    restorer = SimpleNamespace(
        normalisation=SimpleNamespace(output="counts"), facts=SimpleNamespace(light_levels={}, limits={})
    )
    provenance = {"guarded": False}
    return SimpleNamespace(
        volume=volume, pixels=restored, slab=None, served=SimpleNamespace(restorer=restorer), provenance=provenance
    )


def test_channels_of_a_run_share_what_is_known_of_the_camera():
    electrons, checks = waves((4, 128, 128)), Checks(PLAIN)
    raw = expose(electrons)
    raw[:, ::16, ::16] += 200
    for _ in range(2):
        checks.check(outcome("GFP", raw, counts(electrons)))
    assert checks.check(outcome("RFP", raw, counts(electrons))).figures["hot"] >= 62
    # other pixels, of another shape
    assert checks.check(outcome("RFP", raw[:, :64], counts(electrons)[:, :64])).figures["hot"] == 0
    assert checks.check(outcome("GFP", raw, counts(electrons))).figures["hot"] >= 62


def test_doubts_are_a_mild_warning_of_the_channel():
    warnings = {}
    run = SimpleNamespace(warn=warnings.__setitem__, unwarn=lambda about: warnings.pop(about, None))
    one = outcome("GFP", None, None)
    for number in (1, 2):
        _warn(run, one, {"trusted": True, "doubts": [f"look at {number}", "look there", "and there"]})
    (said,) = warnings.values()
    assert "look at 2; look there" in said and "and there" not in said and "trust" not in said
    _warn(run, one, {"trusted": False, "why": "too dim", "doubts": []})
    (said,) = warnings.values()
    assert "do not trust" in said
    _warn(run, one, {"trusted": True, "doubts": []})
    assert not warnings


def test_pixels_that_stand_alone_again_and_again_are_remembered():
    electrons = waves((4, 128, 128))
    check, rng = TrustCheck(PLAIN), np.random.default_rng(0)
    for seed in range(5):
        raw = expose(electrons, seed).astype(float)
        # blinking pixels, to either side
        raw[:, ::16, ::16] += rng.choice([-60, 60], (4, 8, 8))
        trust = check.check(np.clip(raw, 0, 65535).astype(np.uint16), counts(electrons))
    assert trust.figures["hot"] >= 62
    assert trust.figures["raised"] < 1e-3
    # the memory is a value that another check can take
    other = TrustCheck(PLAIN).check(expose(electrons, 99), counts(electrons), trust.hot)
    assert other.figures["hot"] >= 62
    assert trust.hot.planes == pytest.approx(20, rel=0.2)


def test_a_structure_that_is_always_missing_is_not_taken_for_hot_pixels():
    truth = waves((4, 100, 100)).copy()
    truth[:] += blob((100, 100), 50, 50, 1, 60)
    shown, check = waves((4, 100, 100)), TrustCheck(PLAIN)
    for seed in range(5):
        trust = check.check(expose(truth, seed), counts(shown))
    assert trust.figures["hot"] == 0
    assert trust.map[0, 50, 50] > 100


def test_hot_pixels_fade_from_memory():
    hot = HotPixels.none_yet((4, 4)).after([np.array([5])] * 10)
    assert hot.places.tolist() == [5]
    for _ in range(60):
        hot = hot.after([np.zeros(0, np.intp)] * 4)
    assert hot.places.size == 0


@pytest.mark.parametrize(("largest", "told"), [(65535, None), (4095, None), (3000, 3000)])
def test_saturated_pixels_are_left_out(largest, told):
    electrons = waves((1, 128, 128)).copy()
    electrons[0, 40:44, 40:44] = 40_000
    noise = CameraNoise(100.0, 2.0, 1.5, saturation_adu=told)
    raw = np.minimum(expose(electrons), largest)
    trust = TrustCheck(noise).check(raw, counts(electrons))
    assert trust.map[0, 41:43, 41:43].max() < 42
    assert "saturated" in trust.figures["notes"][0]
    assert trust.figures["trusted"]


def test_too_many_saturated_pixels_are_a_reason():
    electrons = waves((1, 128, 128)).copy()
    electrons[0, :40] = 40_000
    raw = np.minimum(expose(electrons), 4095)
    assert "% of the pixels are saturated" in TrustCheck(PLAIN).check(raw, counts(electrons)).figures["why"]


def test_an_image_that_is_saturated_all_over():
    raw = np.full((1, 40, 40), 65535, np.uint16)
    trust = TrustCheck(PLAIN).check(raw, raw.astype(np.float32))
    assert not trust.figures["trusted"]
    assert not trust.map.any()
    json.dumps(trust.figures, allow_nan=False)


# --- cameras


def test_noise_is_estimated_where_nobody_knows_it():
    electrons, check = waves((1, 256, 256), 1, 40), TrustCheck(None)
    for seed in range(3):
        trust = check.check(expose(electrons, seed), counts(electrons))
    assert trust.figures["noise"] == "estimated"
    assert trust.figures["gain_adu_per_e"] == pytest.approx(2, rel=0.1)
    assert trust.figures["sd_z"]["1"] == pytest.approx(1, abs=0.05)
    assert trust.figures["raised"] < 1e-3


def test_a_dark_first_volume_does_not_settle_the_estimate():
    check, dark = TrustCheck(None), np.zeros((1, 128, 128))
    first = check.check(expose(dark), counts(dark))
    assert "too flat" in first.figures["notes"][0]
    assert not first.figures["gain_known"]
    electrons = waves((1, 256, 256), 1, 40)
    assert check.check(expose(electrons), counts(electrons)).figures["gain_adu_per_e"] == pytest.approx(2, rel=0.1)


def test_maps_of_another_region_are_replaced_by_their_medians():
    camera = build_camera(1, (300, 300))
    noise = CameraNoise(camera.offset_adu, camera.gain_adu_per_e, camera.read_noise_e)
    electrons = waves((1, 128, 128))
    figures = TrustCheck(noise).check(expose(electrons), counts(electrons)).figures
    assert "the camera's maps have (300, 300) pixels and the image (128, 128)" in figures["notes"][0]


# --- words


def test_regime():
    levels = {"trained_peak_photons_from": 4.0, "trained_peak_photons_to": 100.0}
    assert regime({"peak_photons": 20.0}, levels) == ""
    assert regime({"peak_photons": 3.5}, levels) == ""  # within the error of the estimate
    assert "2 photons per pixel, and the model was trained for 4 or more" in regime({"peak_photons": 2.0}, levels)
    assert "300 photons per pixel, and the model was trained for up to 100" in regime({"peak_photons": 300.0}, levels)
    assert "about 1.4 photons" in regime({"peak_photons": None, "peak_e": 1.0}, levels)
    assert regime({"peak_photons": None, "peak_e": 1.0, "gain_known": False}, levels) == ""
    assert regime({"peak_photons": 1.0}, {}) == ""
    assert regime({}, levels) == ""


def test_reasons_and_notes_are_sentences():
    place = {"z": 0, "y": 312, "x": 88, "scale_px": 2, "score": -12.3, "sign": "invented"}
    figures = {"raised": 0.021, "places": [place], "broken": 0, "slope": 1.0, "saturated": 0.0, "sd_z": {"1": 1.0}}
    figures |= {"strong": 2e-5, "strong_places": 1, "strong_in_a_plane": 1}
    assert reasons(figures, 512**2) == [
        "the network removed or invented structure on 2.1 % of the image, most at (y=312, x=88)"
    ]
    few = {**figures, "raised": 1e-4}
    assert reasons(few, 512**2) == ["the network invented a structure at (y=312, x=88), 12 standard deviations beyond noise"]
    assert reasons(few, 12 * 512**2) == []
    assert reasons({**few, "strong": 3e-4}, 12 * 512**2)
    assert reasons({**few, "strong_places": 4, "strong_in_a_plane": 3}, 12 * 512**2)
    assert reasons({**few, "strong": 0.0, "strong_places": 0, "strong_in_a_plane": 0, "places": []}, 512**2) == []
    there = {**place, "z": 11, "score": 22.1, "sign": "erased"}
    assert doubts([there]) == [
        "look at (y=312, x=88, plane 12): the network removed a structure, 22 standard deviations beyond noise"
    ]
    assert doubts([]) == [] and len(doubts([there] * 5)) == 3
    assert notes(figures, "why not") == ["why not"]


def test_wrong_arguments_are_refused():
    raw = np.zeros((1, 8, 8), np.uint16)
    with pytest.raises(ValueError, match=r"scales_px \(1, 3\) must be 1, 2, 4"):
        TrustCheck(PLAIN, (1, 3))
    with pytest.raises(ValueError, match="sharpened_px -1 must be 0 or more"):
        TrustCheck(PLAIN, sharpened_px=-1)
    with pytest.raises(ValueError, match=r"raw has shape \(1, 8, 8\), restored \(1, 16, 16\)"):
        TrustCheck(PLAIN).check(raw, np.zeros((1, 16, 16), np.float32))
    with pytest.raises(ValueError, match="raw has dtype float32"):
        TrustCheck(PLAIN).check(raw.astype(np.float32), np.zeros((1, 8, 8), np.float32))
