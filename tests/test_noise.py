"""Gain and read noise, estimated from raw and restored images alone."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.restore.noise import CameraNoise, estimate_noise, follow_noise, robust_variance

OFFSET, GAIN, READ_NOISE = 100.0, 2.18, 1.6


def expose(electrons, seed=0, gain=GAIN, read_noise=READ_NOISE):
    rng = np.random.default_rng(seed)
    measured = rng.poisson(electrons) + read_noise * rng.standard_normal(electrons.shape)
    return np.clip(np.rint(OFFSET + gain * measured), 0, 65535).astype(np.uint16)


def field(kind="mitochondria", shape=(4, 256, 256), peak_photons=60.0):
    """Expected electrons."""
    return 0.72 * example_field(41_000_000, shape, kind, peak_photons=peak_photons).astype(np.float64)


@pytest.mark.parametrize("kind", ["nuclei", "mitochondria", "filaments", "vesicles"])
@pytest.mark.parametrize("peak_photons", [20, 60])
def test_gain_and_read_noise_of_a_stack(kind, peak_photons):
    electrons = field(kind, peak_photons=peak_photons)
    noise = estimate_noise(expose(electrons), np.asarray(OFFSET + GAIN * electrons, np.float32), OFFSET)
    assert noise.source == "estimated" and noise.why == ""
    assert noise.gain_adu_per_e == pytest.approx(GAIN, rel=0.07)
    assert noise.read_noise_e == pytest.approx(READ_NOISE, rel=0.15)


@pytest.mark.parametrize(("gain", "read_noise"), [(0.5, 1.0), (0.5, 3.0), (8.0, 1.0)])
def test_other_cameras(gain, read_noise):
    electrons = field(peak_photons=60)
    raw = expose(electrons, gain=gain, read_noise=read_noise)
    noise = estimate_noise(raw, np.asarray(OFFSET + gain * electrons, np.float32), OFFSET)
    assert noise.gain_adu_per_e == pytest.approx(gain, rel=0.07)
    assert noise.read_noise_e == pytest.approx(read_noise, rel=0.15)


@pytest.mark.parametrize("wrong_e", [0, 3])
def test_structure_that_the_network_got_wrong_is_not_taken_for_noise(wrong_e):
    electrons = field(peak_photons=60)
    smoothed = gaussian_filter(electrons, (0, 2, 2))
    smoothed[:, 100:150, 100:150] += wrong_e
    noise = estimate_noise(expose(electrons), np.asarray(OFFSET + GAIN * smoothed, np.float32), OFFSET)
    assert noise.gain_adu_per_e == pytest.approx(GAIN, rel=0.1)


def test_the_networks_own_gain_and_offset_do_not_matter():
    electrons = field(peak_photons=60)
    noise = estimate_noise(expose(electrons), np.asarray(30 + 0.5 * GAIN * electrons, np.float32), OFFSET)
    assert noise.gain_adu_per_e == pytest.approx(GAIN, rel=0.07)
    assert noise.read_noise_e == pytest.approx(READ_NOISE, rel=0.2)


def test_hot_pixels_are_not_taken_for_noise():
    electrons = field(peak_photons=60)
    raw = expose(electrons)
    raw[:, ::20, ::20] += 3000
    noise = estimate_noise(raw, np.asarray(OFFSET + GAIN * electrons, np.float32), OFFSET)
    assert noise.gain_adu_per_e == pytest.approx(GAIN, rel=0.1)
    assert noise.read_noise_e == pytest.approx(READ_NOISE, rel=0.2)


def test_a_real_cameras_fixed_pattern_counts_as_read_noise_unless_its_map_is_known():
    photons, camera = example_field(41_000_001, (6, 256, 256), "nuclei", peak_photons=40), build_camera(3, (256, 256))
    raw = camera.expose(photons, np.random.default_rng(0))
    gain, offset = float(np.median(camera.gain_adu_per_e)), float(np.median(camera.offset_adu))
    restored = np.asarray(offset + gain * 0.72 * photons, np.float32)
    plain, mapped = estimate_noise(raw, restored, offset), estimate_noise(raw, restored, camera.offset_adu)
    assert plain.gain_adu_per_e == pytest.approx(gain, rel=0.07)
    assert mapped.gain_adu_per_e == pytest.approx(gain, rel=0.07)
    read = np.sqrt(np.mean(np.square(camera.read_noise_e)))
    pattern = np.std(camera.offset_adu) / gain
    assert mapped.read_noise_e == pytest.approx(read, rel=0.2)
    assert plain.read_noise_e == pytest.approx(np.hypot(read, pattern), rel=0.2)
    assert mapped.offset_adu is camera.offset_adu


def test_without_an_offset_the_darkest_restored_counts_are_taken():
    electrons = field(peak_photons=20)
    noise = estimate_noise(expose(electrons), np.asarray(OFFSET + GAIN * electrons, np.float32))
    assert OFFSET <= noise.offset_adu < OFFSET + 2
    assert noise.gain_adu_per_e == pytest.approx(GAIN, rel=0.07)
    assert noise.read_noise_e == pytest.approx(READ_NOISE, rel=0.2)


def test_a_flat_image_tells_no_gain_but_its_scatter_is_right():
    electrons = np.full((1, 128, 128), 30.0)
    noise = estimate_noise(expose(electrons), np.full((1, 128, 128), OFFSET + GAIN * 30, np.float32), OFFSET)
    assert "too flat or too small" in noise.why
    variance = noise.gain_adu_per_e * GAIN * 30 + (noise.gain_adu_per_e * noise.read_noise_e) ** 2
    assert variance == pytest.approx(GAIN**2 * (30 + READ_NOISE**2), rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 9), (1, 5, 5)])
def test_tiny_images(shape):
    noise = estimate_noise(np.full(shape, 130, np.uint16), np.full(shape, 130, np.float32))
    assert "too flat or too small" in noise.why
    assert noise.gain_adu_per_e > 0 and np.isfinite(noise.read_noise_e)


def test_an_image_that_tells_little_says_so():
    electrons = np.full((1, 64, 64), 3.0)
    electrons[0, :, 40:] = 4.0
    noise = estimate_noise(expose(electrons), np.asarray(OFFSET + GAIN * electrons, np.float32), OFFSET)
    assert "no better than" in noise.why or "too flat" in noise.why


def test_large_stacks_are_thinned():
    electrons = np.broadcast_to(field(shape=(256, 256)), (40, 256, 256))
    noise = estimate_noise(expose(electrons), np.asarray(OFFSET + GAIN * electrons, np.float32), OFFSET)
    assert noise.gain_adu_per_e == pytest.approx(GAIN, rel=0.07)
    wide = np.tile(field(shape=(256, 256)), (8, 8))[None]
    noise = estimate_noise(expose(wide), np.asarray(OFFSET + GAIN * wide, np.float32), OFFSET)
    assert noise.gain_adu_per_e == pytest.approx(GAIN, rel=0.07)


def test_estimates_follow_one_another_and_bad_ones_do_not_count():
    good, better = CameraNoise(100.0, 2.0, 1.0, source="estimated"), CameraNoise(98.0, 3.0, 2.0, source="estimated")
    bad = CameraNoise(0.0, 9.0, 9.0, source="estimated", why="too flat")
    followed = follow_noise(good, better)
    assert (followed.offset_adu, followed.gain_adu_per_e) == (98.0, 2.5)
    assert followed.read_noise_e == pytest.approx(np.sqrt(2.5))
    assert follow_noise(good, bad) is good
    assert follow_noise(bad, good) is good


def test_robust_variance():
    values = np.random.default_rng(0).standard_normal(50_000) * 3
    values[::50] = 1000
    assert robust_variance(values) == pytest.approx(9, rel=0.05)
    assert robust_variance(values[1::2]) == pytest.approx(9, rel=0.05)
    assert robust_variance(np.zeros(0)) == 0


def test_wrong_cameras_are_refused():
    with pytest.raises(ValueError, match=r"offset_adu has shape \(3, 4\), the image \(8, 8\)"):
        estimate_noise(np.zeros((1, 8, 8), np.uint16), np.zeros((1, 8, 8), np.float32), np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="gain_adu_per_e goes down to 0"):
        CameraNoise(100.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="read_noise_e goes down to -1"):
        CameraNoise(100.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="the maps have different shapes"):
        CameraNoise(np.zeros((3, 4), np.float32), np.ones((4, 4), np.float32), 1.0)
