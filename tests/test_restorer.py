"""The restorer: a package opened on an engine, its ranges, its refusals."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter, zoom
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.errors import EngineUnavailable, ImageError
from live_restore.intensity import measure_percentiles
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.restorer import Restorer


def stack(shape, seed=0):
    return np.random.default_rng(seed).poisson(300, shape).astype(np.uint16)


def opened(folder, facts=None, n_dim=2, channels=1, **options):
    package = write_smoothing_package(folder / "package", n_dim, channels, facts=facts)
    return Restorer(package, precision="f32", **options)


def smoothed_inside(raw):
    """What the smoothing package makes of a stack, but for the outermost pixels."""
    return uniform_filter(raw.astype(np.float64), (1, 1, 3, 3))[..., 4:-4, 4:-4]


def test_counts_in_counts_out(tmp_path):
    raw = stack((1, 3, 41, 50))
    with opened(tmp_path) as restorer:
        restored = restorer.restore(raw)
    np.testing.assert_allclose(restored.pixels[..., 4:-4, 4:-4], smoothed_inside(raw), rtol=1e-4)
    measured = measure_percentiles(raw)
    assert (restored.intensity.low, restored.intensity.high) == (measured.low, measured.high)


@pytest.mark.parametrize("memory_bytes", [20_000, 100_000, None])
def test_memory_changes_tiles_and_nothing_else(tmp_path, memory_bytes):
    raw = stack((1, 1, 150, 170))
    with opened(tmp_path, memory_bytes=memory_bytes) as restorer:
        restored = restorer.restore(raw)
    assert (restored.tiles > 1) == (memory_bytes is not None)
    np.testing.assert_allclose(restored.pixels[..., 4:-4, 4:-4], smoothed_inside(raw), rtol=1e-4)


def test_too_little_memory_is_said_in_bytes(tmp_path):
    with (
        opened(tmp_path, memory_bytes=100) as restorer,
        pytest.raises(ImageError, match=r"in 0\.0001 MB of memory .* needs at least 0\.00144 MB"),
    ):
        restorer.restore(stack((1, 1, 64, 64)))


def test_a_frozen_range_is_used_always(tmp_path):
    frozen = Normalisation(mode="frozen", frozen=FrozenRange(low=(100,), high=(500,)))
    with opened(tmp_path, smoothing_facts(normalisation=frozen)) as restorer:
        for seed in range(2):
            restored = restorer.restore(stack((1, 1, 20, 20), seed))
            assert (restored.intensity.low[0], restored.intensity.high[0]) == (100, 500)
        assert restored.pixels.mean() == pytest.approx(300, rel=0.1)


def test_a_rolling_range_follows_slowly_and_can_be_forgotten(tmp_path):
    dim, bright = stack((1, 1, 32, 32)), stack((1, 1, 32, 32)) * 10
    with opened(tmp_path, mode="rolling") as restorer:
        first = restorer.restore(dim).intensity.high[0]
        second = restorer.restore(bright).intensity.high[0]
        assert first < second < 2 * first
        restorer.reset()
        assert restorer.restore(bright).intensity.high[0] == pytest.approx(10 * first)


def test_observing_moves_the_rolling_range_as_restoring_does(tmp_path):
    dim, bright = stack((1, 1, 32, 32)), stack((1, 1, 32, 32)) * 10
    with opened(tmp_path, mode="rolling") as restorer:
        restorer.restore(dim)
        restored = restorer.restore(bright).intensity.high[0]
        restorer.reset()
        restorer.observe(dim)
        assert restorer.restore(bright).intensity.high[0] == restored


def test_each_movie_has_its_own_rolling_range(tmp_path):
    dim, bright = stack((1, 1, 32, 32)), stack((1, 1, 32, 32)) * 10
    with opened(tmp_path, mode="rolling") as restorer:
        first = restorer.restore(dim, movie="DAPI").intensity.high[0]
        assert restorer.restore(bright, movie="GFP").intensity.high[0] == pytest.approx(10 * first)
        assert restorer.restore(dim, movie="DAPI").intensity.high[0] == pytest.approx(first)


def test_a_dark_first_volume_starts_no_rolling_range(tmp_path):
    dark, lit = np.full((1, 1, 32, 32), 100, np.uint16), stack((1, 1, 32, 32))
    with opened(tmp_path, mode="rolling") as restorer:
        assert restorer.restore(dark).intensity.guarded
        measured = measure_percentiles(lit)
        assert restorer.restore(lit).intensity.high[0] == measured.high[0]


def test_observing_an_upsampled_movie_sees_what_restoring_sees(tmp_path):
    first, second = stack((1, 5, 24, 28)), stack((1, 5, 24, 28), 1) * 3
    facts = smoothing_facts(3, procedure="upsampling", z_factor=3)
    with opened(tmp_path, facts, n_dim=3, mode="rolling") as restorer:
        restorer.restore(first)
        expected = restorer.restore(second).intensity.high[0]
        restorer.reset()
        restorer.observe(first)
        assert restorer.restore(second).intensity.high[0] == expected


def test_frozen_can_be_asked_for_where_a_model_has_it(tmp_path):
    normalisation = Normalisation(mode="volume", frozen=FrozenRange(low=(100,), high=(500,)))
    with opened(tmp_path, smoothing_facts(normalisation=normalisation), mode="frozen") as restorer:
        assert restorer.restore(stack((1, 1, 20, 20))).intensity.high[0] == 500


def test_isotropic_needs_a_stack(tmp_path):
    facts = smoothing_facts(2, procedure="isotropic", z_factor=2.0)
    with opened(tmp_path, facts) as restorer, pytest.raises(ImageError, match="restores z-stacks"):
        restorer.restore(stack((1, 1, 20, 20)))


def test_upsampling_gives_finer_stacks(tmp_path):
    raw = stack((1, 5, 24, 28))
    with opened(tmp_path, smoothing_facts(3, procedure="upsampling", z_factor=3), n_dim=3) as restorer:
        assert restorer.output_shape((5, 24, 28)) == (15, 24, 28)
        restored = restorer.restore(raw)
    finer = zoom(raw.astype(np.float64), (1, 3, 1, 1), order=1)
    expected = uniform_filter(finer, (1, 3, 3, 3))[:, 2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(restored.pixels[:, 2:-2, 2:-2, 2:-2], expected, rtol=1e-3)


@pytest.mark.parametrize("facts", [{}, {"procedure": "isotropic", "z_factor": 2.0}], ids=["direct", "isotropic"])
def test_whole_counts(tmp_path, facts):
    raw = stack((1, 5, 24, 28))
    with opened(tmp_path / "a", smoothing_facts(**facts)) as restorer:
        expected = restorer.restore(raw).pixels
    with opened(tmp_path / "b", smoothing_facts(**facts), rounded=True) as restorer:
        restored = restorer.restore(raw)
        assert restored.pixels.dtype == np.uint16
        assert np.abs(restored.pixels - expected).max() <= 0.5 + 1e-3


def test_isotropic_is_the_geometric_mean_of_both_directions(tmp_path):
    raw = stack((1, 5, 24, 28))
    with opened(tmp_path, smoothing_facts(2, procedure="isotropic", z_factor=2.0)) as restorer:
        restored = restorer.restore(raw)
    measured = measure_percentiles(raw)
    finer = measured.scale(zoom(raw.astype(np.float64), (1, 2, 1, 1), order=1))
    xz, yz = (np.maximum(uniform_filter(finer, size), 0) for size in ((1, 3, 1, 3), (1, 3, 3, 1)))
    inside = (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(restored.pixels[inside], measured.unscale(np.sqrt(xz * yz))[inside], rtol=1e-3)


@pytest.mark.parametrize(
    ("raw", "n_dim", "message"),
    [
        (stack((2, 1, 20, 20)), 2, r"takes 1 channel\(s\).*shape \(2, 1, 20, 20\)"),
        (stack((1, 1, 20, 20)), 3, "restores z-stacks, and this image has a single plane"),
        (np.full((1, 1, 20, 20), 1e300), 2, r"1e\+300, beyond what float32 holds"),
        (np.full((1, 1, 20, 20), np.nan, np.float32), 2, r"400 pixel.* of channel 0, plane 0 .* the first at y=0, x=0"),
    ],
    ids=["channels", "planes", "float64", "NaN"],
)  # fmt: skip
def test_volumes_that_do_not_fit(tmp_path, raw, n_dim, message):
    with opened(tmp_path, n_dim=n_dim) as restorer, pytest.raises(ImageError, match=message):
        restorer.restore(raw)


@pytest.mark.parametrize(
    ("facts", "options", "error", "message"),
    [
        ({}, {"memory_bytes": 0}, ValueError, "a memory of 0 bytes holds nothing"),
        ({}, {"mode": "frozen"}, ValueError, "this model has no frozen percentiles"),
        ({"normalisation": Normalisation(measure="none")}, {"mode": "rolling"}, ValueError, "measures nothing on the image"),
        ({}, {"z_factor": 2.0}, ValueError, "z_factor 2.0 was given, but this model restores directly"),
        ({"procedure": "isotropic"}, {}, ValueError, "say with --z-factor how many times finer Z becomes"),
        (
            {"procedure": "isotropic"},
            {"z_factor": -1.0},
            ValueError,
            r"z_factor must be 1 to 100, .* got -1\.0",
        ),
        ({}, {"engine": "abacus"}, EngineUnavailable, "there is no engine 'abacus'"),
        (
            {"normalisation": Normalisation(output="none")},
            {"rounded": True},
            ValueError,
            "in its own units, which whole numbers",
        ),
    ],
    ids=["no memory", "no frozen", "measures nothing", "z factor", "no z factor", "negative z factor", "engine", "rounding"],
)
def test_choices_that_do_not_fit(tmp_path, facts, options, error, message):
    with pytest.raises(error, match=message):
        opened(tmp_path, smoothing_facts(**facts), **options)
