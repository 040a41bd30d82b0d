"""Upsampling and isotropic restoration, against what CSBDeep's classes do step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom
from test_pipeline import counts, network

from live_restore.intensity import measure_percentiles
from live_restore.restore.pipeline import restore
from live_restore.restore.procedures import finer_planes, finer_spacing, interpolate_z, restore_isotropic, restore_upsampled


@settings(max_examples=60, deadline=None)
@given(planes=st.integers(1, 12), factor=st.floats(0.3, 6), seed=st.integers(0, 99))
def test_interpolation_is_scipys_zoom(planes, factor, seed):
    pixels = np.random.default_rng(seed).random((1, planes, 2, 3))
    finer = interpolate_z(pixels, factor)
    assert finer.shape[1] == finer_planes(planes, factor)
    if finer.shape[1] > 1 and round(planes * factor) >= 1:
        # "nearest", because scipy's default makes the last plane black where rounding puts it a hair outside
        expected = zoom(pixels, (1, finer.shape[1] / planes, 1, 1), order=1, mode="nearest")
        np.testing.assert_allclose(finer, expected, atol=1e-6)


@pytest.mark.parametrize("probabilistic", [False, True])
def test_isotropic_turns_planes_as_csbdeep_does(probabilistic):
    """A random network tells any other turn or mirror image apart; CSBDeep's: Z along X, and downward in YZ planes."""
    pixels = counts((1, 6, 20, 24))
    net = network("care", {"n_dim": 2, "first_filters": 4, "probabilistic": probabilistic}, 10**9, probabilistic)
    intensity = measure_percentiles(pixels)
    found = restore_isotropic(pixels, 2.5, net, lambda _: (intensity, None))
    finer = interpolate_z(pixels, 2.5)[0]  # (Z, Y, X)
    xz = [restore(finer[:, y].T[None], net, intensity, None) for y in range(20)]  # each (1, X, Z)
    yz = [restore(finer[::-1, :, x].T[None], net, intensity, None) for x in range(24)]  # each (1, Y, Z)
    first = np.stack([p.pixels[0].T for p in xz], axis=1)  # (Z, Y, X)
    second = np.stack([p.pixels[0].T[::-1] for p in yz], axis=2)
    expected = np.sqrt(np.maximum(first, 0) * np.maximum(second, 0))
    np.testing.assert_allclose(found.pixels[0], expected, atol=1e-5)
    if probabilistic:
        widths = np.stack([p.widths[0].T for p in xz], axis=1), np.stack([p.widths[0].T[::-1] for p in yz], axis=2)
        np.testing.assert_allclose(found.widths[0], np.maximum(*widths), atol=1e-5)


def test_upsampling_measures_the_interpolated_stack():
    pixels = counts((1, 5, 16, 20))
    net = network("care", {"n_dim": 3, "depth": 1, "first_filters": 4}, 10**9)
    seen = []

    def measure(volume):
        seen.append(volume.shape)
        return measure_percentiles(volume), None

    found = restore_upsampled(pixels, 3.0, net, measure)
    finer = interpolate_z(pixels, 3.0)
    assert seen == [(1, 15, 16, 20)]
    np.testing.assert_array_equal(found.pixels, restore(finer, net, measure_percentiles(finer), None).pixels)


def test_progress_covers_both_directions():
    steps = []
    pixels = counts((1, 3, 8, 12))
    net = network("care", {"n_dim": 2, "first_filters": 4}, 10**9)
    restore_isotropic(
        pixels, 2.0, net, lambda p: (measure_percentiles(p), None), lambda done, total: steps.append((done, total))
    )
    assert steps == [(n + 1, 20) for n in range(20)]


def test_how_far_apart_restored_pixels_are():
    raw, finer = (5, 32, 40), (17, 64, 80)
    assert finer_spacing((2.0, 0.2, None), raw, finer, interpolated=True) == (0.5, 0.1, None)  # both end planes stay
    assert finer_spacing((3.4, 0.2, 0.2), raw, finer, interpolated=False) == (1.0, 0.1, 0.1)
    assert finer_spacing((None, 0.2, 0.2), raw, raw, interpolated=True) == (None, 0.2, 0.2)
