"""Intensities: the measured range, its inverse, and what happens to flat images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_restore.intensity import IntensityRange, follow, measure_mean_std, measure_percentiles, whole_counts

SHAPES = [(1, 7), (2, 5, 9), (1, 3, 40, 33), (3, 2, 17, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("per_channel", [True, False])
def test_percentiles_are_numpys(shape, dtype, per_channel):
    pixels = np.random.default_rng(1).integers(0, 251, shape).astype(dtype)
    measured = measure_percentiles(pixels, 2, 99.8, per_channel)
    axes = tuple(range(1, len(shape))) if per_channel else None
    low, high = np.percentile(pixels, (2, 99.8), axis=axes)
    np.testing.assert_allclose(measured.low, np.broadcast_to(low, shape[0]), rtol=1e-6)
    np.testing.assert_allclose(measured.high, np.broadcast_to(high, shape[0]), rtol=1e-6)
    assert not measured.guarded


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(0, 65535), min_size=2, max_size=60).filter(lambda v: len(set(v)) > 1),
    percents=st.tuples(st.floats(0, 49), st.floats(51, 100)),
)
def test_counted_percentiles_are_numpys_for_any_counts(values, percents):
    pixels = np.array([values], np.uint16)
    low, high = np.percentile(pixels, percents)
    measured = measure_percentiles(pixels, *percents)
    if not measured.guarded:
        assert measured.low[0] == pytest.approx(low, abs=1e-6)
        assert measured.high[0] == pytest.approx(high, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    low=st.floats(0, 5000),
    span=st.floats(1, 60000),
    seed=st.integers(0, 10**6),
    channels=st.integers(1, 3),
)
def test_unscale_is_the_inverse_of_scale(low, span, seed, channels):
    pixels = np.random.default_rng(seed).integers(0, 65536, (channels, 6, 5)).astype(np.uint16)
    intensity = IntensityRange(np.full(channels, low), np.full(channels, low + span))
    back = intensity.unscale(intensity.scale(pixels))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, pixels, rtol=0, atol=65536 * 4e-7)


def test_widths_take_the_span_alone():
    intensity = IntensityRange(np.array([100.0]), np.array([300.0]))
    assert intensity.unscale_width(np.full((1, 2, 2), 0.5, np.float32)).max() == 100


def test_a_hundred_lit_pixels_do_not_explode():
    """CSBDeep's formula gives 1e20 on this image, as its p2 equals its p99.8."""
    pixels = np.full((1, 512, 512), 100, np.uint16)
    pixels[0, :10, :10] = 3000
    measured = measure_percentiles(pixels)
    assert measured.guarded
    assert measured.scale(pixels).max() == 1


@pytest.mark.parametrize("counts", [0, 100, 65535])
@pytest.mark.parametrize("measure", [measure_percentiles, measure_mean_std])
def test_a_constant_image_becomes_zero(counts, measure):
    pixels = np.full((1, 16, 16), counts, np.uint16)
    measured = measure(pixels)
    assert measured.guarded
    assert not measured.scale(pixels).any()


def test_mean_std_gives_zero_mean_and_unit_variance():
    pixels = np.random.default_rng(2).poisson(40, (2, 3, 64, 64)).astype(np.uint16)
    scaled = measure_mean_std(pixels).scale(pixels)
    np.testing.assert_allclose(scaled.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_a_rolling_range_moves_slowly_and_ignores_a_closed_shutter():
    start = IntensityRange(np.array([100.0]), np.array([200.0]))
    brighter = IntensityRange(np.array([100.0]), np.array([300.0]))
    assert follow(start, brighter, 0.1).high[0] == pytest.approx(210)
    dark = measure_percentiles(np.full((1, 8, 8), 100, np.uint16))
    after = follow(start, dark, 0.1)
    assert (after.low[0], after.high[0], after.guarded) == (100, 200, True)


def sparse(rng, shape):
    """Dim background, and in a corner of it the whole range of the camera."""
    pixels = rng.poisson(300, shape)
    pixels[..., : shape[-2] // 12, : shape[-1] // 12] += rng.integers(0, 60_000, (shape[-2] // 12, shape[-1] // 12))
    return pixels


LARGE = {
    "sparse light": sparse,
    "stripes as wide as the sampling": lambda rng, shape: rng.poisson(50, shape) + 5000 * (np.arange(shape[-1]) % 64 == 0),
    "two values": lambda rng, shape: 65_535 * (rng.random(shape) < 0.02),
    "constant but for one pixel": lambda rng, shape: 7 + 100 * (np.arange(np.prod(shape)).reshape(shape) == 12_345),
    "every value": lambda rng, shape: rng.integers(0, 65_536, shape),
    "empty but for few": lambda rng, shape: 40_000 * (rng.random(shape) < 1e-5),
}


@pytest.mark.parametrize("made", LARGE.values(), ids=LARGE.keys())
@pytest.mark.parametrize("shape", [(1, 600, 701), (2, 3, 250, 256)], ids=str)
def test_percentiles_of_images_that_are_sampled_first(made, shape):
    pixels = made(np.random.default_rng(0), shape).astype(np.uint16)
    for percents in ((2, 99.8), (0, 100), (0.01, 99.999), (50, 98)):
        measured = measure_percentiles(pixels, *percents, per_channel=False)
        if not measured.guarded:
            np.testing.assert_allclose([measured.low[0], measured.high[0]], np.percentile(pixels, percents), rtol=1e-12)


def test_whole_counts_are_the_nearest_a_camera_could_count():
    counts = np.array([-1e9, -0.6, 0.4, 1.5, 2.5, 65_534.6, 1e9], np.float32)
    whole = whole_counts(counts)
    assert whole.dtype == np.uint16
    np.testing.assert_array_equal(whole, [0, 0, 0, 2, 2, 65_535, 65_535])
    assert whole_counts(whole) is whole


def test_low_and_span_are_what_scaling_uses():
    intensity = IntensityRange(np.array([100.0, 20.0]), np.array([900.0, 21.5]))
    np.testing.assert_array_equal(intensity.low_and_span, np.float32([[100, 20], [800, 1.5]]))
