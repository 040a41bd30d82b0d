import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.ndimage import gaussian_filter

from live_restore.errors import ImageError
from live_restore.ring_correlation import ring_correlation
from live_restore.score import as_dict, fit_affine, means, score_pair, table, write_figure, write_json


def clean_image(shape=(64, 64), seed=0):
    """Smooth blobs on a background, 100 to about 1000 counts."""
    lumps = gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0,) * (len(shape) - 2) + (3, 3))
    return 100 + 900 * np.clip(lumps / lumps.max(), 0, None)


def noisy(clean, sd, seed=1):
    return clean + np.random.default_rng(seed).normal(scale=sd, size=clean.shape)


def test_psnr_is_the_formula_written_out():
    reference, image = clean_image(), noisy(clean_image(), 50)
    slope, offset = np.polyfit(image.ravel(), reference.ravel(), 1)
    span = np.percentile(reference, 99.9) - np.percentile(reference, 0.1)
    mse = np.mean((slope * image + offset - reference) ** 2)
    scored = score_pair(image, reference).restored
    assert scored.psnr_db == pytest.approx(10 * math.log10(span**2 / mse), abs=1e-9)
    assert scored.nrmse == pytest.approx(math.sqrt(mse) / span, rel=1e-9)
    assert (scored.slope, scored.offset) == pytest.approx((slope, offset), rel=1e-6)


def test_ssim_is_skimages():
    from skimage.metrics import structural_similarity

    reference, image = clean_image(), noisy(clean_image(), 50)
    slope, offset = fit_affine(image, reference)
    span = np.percentile(reference, 99.9) - np.percentile(reference, 0.1)
    wanted = structural_similarity(
        slope * image + offset, reference, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=span
    )
    assert score_pair(image, reference).restored.ssim == pytest.approx(wanted, abs=1e-12)


@given(gain=st.floats(0.01, 100), offset=st.floats(-1e4, 1e4))
@settings(max_examples=25, deadline=None)
def test_gain_and_offset_of_the_image_do_not_matter(gain, offset):
    reference, image = clean_image((32, 32)), noisy(clean_image((32, 32)), 50)
    plain, changed = (score_pair(pixels, reference).restored for pixels in (image, gain * image + offset))
    assert changed.psnr_db == pytest.approx(plain.psnr_db, abs=1e-4)
    assert changed.ssim == pytest.approx(plain.ssim, abs=1e-5)
    np.testing.assert_allclose(changed.rings.correlation, plain.rings.correlation, atol=1e-5)


def test_less_noise_scores_better_everywhere():
    reference = clean_image((128, 128))
    score = score_pair(noisy(reference, 20), reference, raw=noisy(reference, 100, seed=2))
    assert score.raw is not None and score.gain_db is not None
    assert score.gain_db == pytest.approx(score.restored.psnr_db - score.raw.psnr_db)
    assert score.gain_db > 6
    assert score.restored.ssim > score.raw.ssim
    assert score.restored.nrmse < score.raw.nrmse


def test_perfect_image():
    reference = clean_image().round().astype(np.uint16)
    score = score_pair(reference, reference)
    assert score.restored.psnr_db > 200
    assert score.restored.ssim == pytest.approx(1)
    assert score.restored.rings.resolution_px is None
    assert score.gain_db is None


@pytest.mark.parametrize(
    "image",
    [np.full((64, 64), 7.0), np.full((64, 64), 1e9 + 0.1), np.zeros((64, 64), np.uint8), 2000 - clean_image()],
    ids=["constant", "large constant", "zero", "negative"],
)
def test_what_tells_nothing_scores_as_the_mean(image):
    reference = clean_image()
    scored = score_pair(image, reference).restored
    assert scored.slope == 0
    span = np.percentile(reference, 99.9) - np.percentile(reference, 0.1)
    assert scored.nrmse == pytest.approx(reference.std() / span)
    assert scored.rings.resolution_px == math.inf


def broken(value):
    image = clean_image()
    image[3, 4] = value
    return image


@pytest.mark.parametrize(
    ("restored", "reference", "raw", "message"),
    [
        (clean_image((64, 60)), clean_image(), None, r"the restored image has shape \(64, 60\), the reference \(64, 64\)"),
        (clean_image(), clean_image(), clean_image((32, 64)), r"the raw image has shape \(32, 64\)"),
        (broken(np.nan), clean_image(), None, "the restored image has 1 pixels that are NaN or infinite"),
        (clean_image(), broken(np.inf), None, "the reference image has 1 pixels that are NaN"),
        (clean_image(), np.full((64, 64), 5), None, "the reference is constant at 5 counts"),
        (np.arange(64), np.arange(64), None, r"has 1 axes; give one channel"),
        (clean_image((1, 2, 16, 16)), clean_image((1, 2, 16, 16)), None, r"has 4 axes; give one channel"),
        (clean_image((10, 64)), clean_image((10, 64)), None, "at least 11 pixels"),
        (np.empty((0, 16, 16)), np.empty((0, 16, 16)), None, r"shape \(0, 16, 16\)"),
    ],
    ids=["shape", "raw shape", "nan", "inf reference", "constant reference", "1 axis", "4 axes", "small", "empty"],
)
def test_refuses(restored, reference, raw, message):
    with pytest.raises(ImageError, match=message):
        score_pair(restored, reference, raw)


@pytest.mark.parametrize("shape", [(256, 256), (192, 320), (255, 257), (4, 160, 160)], ids=str)
@pytest.mark.parametrize("cutoff", [0.125, 0.25], ids=["8 px", "4 px"])
def test_resolution_of_a_band_limited_image(shape, cutoff):
    """Structure up to a known frequency, beyond it independent noise: the curve must fall there."""
    rng = np.random.default_rng(3)
    radius = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1]))
    white = np.fft.fft2(rng.normal(size=shape))
    structure = np.fft.ifft2(np.where(radius < cutoff, white, 0)).real
    # three times the noise within the band: with more, what the window leaks beyond the band would count
    noise_sd = structure.std() / math.sqrt(3 * math.pi * cutoff**2)
    first, second = (structure + rng.normal(scale=noise_sd, size=shape) for _ in range(2))
    assert ring_correlation(first, second).resolution_px == pytest.approx(1 / cutoff, rel=0.06)


def test_ring_correlation_of_independent_noise_is_none():
    first, second = np.random.default_rng(4).normal(size=(2, 256, 256))
    curve = ring_correlation(first, second)
    assert np.abs(curve.correlation).max() < 0.3
    assert np.abs(curve.correlation[16:]).mean() < 0.06


def test_ring_correlation_follows_the_signal_to_noise_ratio():
    """White structure of power 1 and noise of power n in both: correlation 1 / (1 + n)."""
    rng = np.random.default_rng(5)
    structure = rng.normal(size=(512, 512))
    first, second = (structure + rng.normal(scale=math.sqrt(0.5), size=structure.shape) for _ in range(2))
    assert ring_correlation(first, second).correlation[10:].mean() == pytest.approx(1 / 1.5, abs=0.01)


def test_a_stack_is_fitted_as_one_volume_and_compared_plane_by_plane():
    reference = clean_image((3, 64, 64))
    image = noisy(reference, 50)
    whole = score_pair(image, reference).restored
    single = score_pair(image[0], reference[0]).restored
    span = np.percentile(reference, 99.9) - np.percentile(reference, 0.1)
    assert whole.nrmse * span == pytest.approx(50, rel=0.1)
    assert 0 < whole.ssim < 1
    assert score_pair(image[:1], reference[:1]).restored.ssim == pytest.approx(single.ssim)


def scores():
    reference = clean_image()
    image, raw = noisy(reference, 60), noisy(reference, 200, seed=2)
    return [score_pair(image, reference, raw, pixel_size_um=0.1, name="007_0"), score_pair(raw, reference)]


def test_table_shows_every_field_and_the_mean():
    console = Console(width=120, file=io.StringIO())
    console.print(table(scores()))
    text = console.file.getvalue()
    assert all(word in text for word in ("007_0", "mean", "gain dB", f"{scores()[0].restored.psnr_db:.2f}", "px", "µm"))


def test_means_take_raw_where_there_is_raw():
    with_raw, without = scores()
    mean = means([with_raw, without])
    assert mean["psnr_db"] == pytest.approx((with_raw.restored.psnr_db + without.restored.psnr_db) / 2)
    assert mean["raw_psnr_db"] == with_raw.raw.psnr_db
    assert mean["gain_db"] == with_raw.gain_db
    assert "gain_db" not in means([without])


def test_json_is_strict_and_complete(tmp_path):
    reference = clean_image()
    path = tmp_path / "score.json"
    write_json([*scores(), score_pair(reference, reference), score_pair(0 * reference, reference)], path, {"model": "demo"})
    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert read["model"] == "demo"
    first = read["fields"][0]
    assert first["restored"]["resolution_um"] == pytest.approx(0.1 * first["restored"]["resolution_px"])
    assert len(first["raw"]["rings"]["frequency"]) == 32
    assert read["fields"][3]["restored"]["resolution_px"] is None


def test_infinite_becomes_null():
    reference = np.tile([0.0, 1.0], (16, 8))
    assert as_dict(score_pair(reference, reference))["restored"]["psnr_db"] is None


def test_figure_is_written(tmp_path):
    write_figure(scores(), tmp_path / "score.png")
    assert (tmp_path / "score.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.realdata
def test_raw_score_of_the_real_pairs(shared_data):
    """42 short exposures against the means of 400, as in every comparison made with these images: 19.38 dB."""
    import tifffile

    folder = shared_data / "pairs_widefield_w2s"
    low, high = (sorted((folder / side).glob("*.tif")) for side in ("low", "high"))
    assert [path.name for path in low] == [path.name for path in high]
    found = [score_pair(tifffile.imread(a), tifffile.imread(b)) for a, b in zip(low, high, strict=True)]
    assert len(found) == 42
    assert means(found)["psnr_db"] == pytest.approx(19.38, abs=0.01)
