"""What a certificate says of an engine: the figures, whether they are within a tolerance, and its way through JSON."""

import json
import math

import numpy as np
import pytest
from small_graphs import image, net_graph, single

from live_restore.engines.certificates.certificate import (
    ANYTHING,
    USUAL,
    Certificate,
    Probe,
    Tolerance,
    certify,
    estimated_loss_db,
    results,
    short,
)
from live_restore.engines.certificates.comparison import compare
from live_restore.engines.engine import EngineSpec, open_engine, what_is_offered
from live_restore.errors import EngineMismatch
from live_restore.score import score_pair

CARE = net_graph("care", n_dim=2, first_filters=8)
WORDS = "2 made-up images"


class Given:
    """Gives what it was told to, so that every figure is known beforehand."""

    spec = EngineSpec("given", "1", "paper", "bf16")

    def __init__(self, *images):
        self._images = iter(images)

    def infer(self, *_):
        return (next(self._images),)


def field(seed=0, size=96):
    """A smooth image with a range of about 1; (1, 1, Y, X)."""
    y, x = np.mgrid[:size, :size] / size
    rng = np.random.default_rng(seed)
    return (0.5 + 0.3 * np.sin(6 * x + seed) * np.cos(5 * y) + 0.02 * rng.standard_normal((size, size))).astype(np.float32)[
        None, None
    ]


def dim(exact):
    """A truth that the network misses by far, so that a little more costs nothing."""
    return exact + (0.1 * np.random.default_rng(11).standard_normal(exact.shape)).astype(np.float32)


def spread(pixels):
    low, high = np.percentile(pixels.astype(np.float64), (0.1, 99.9))
    return high - low


def probe(**said):
    return Probe((np.zeros((1, 1, 8, 8), np.float32),), **said)


def made(exact, seen, tolerance=USUAL, **said):
    return certify(Given(seen), [exact], [probe(**said)], WORDS, tolerance)


def test_the_figures_are_what_they_say():
    exact = field()
    noise = (0.003 * np.random.default_rng(1).standard_normal(exact.shape)).astype(np.float32)
    seen = exact + noise + np.float32(0.001)
    found = made(exact, seen, read_noise=0.02)
    difference = (seen - exact).astype(np.float64)
    assert found.relative_error == pytest.approx(np.sqrt((difference**2).mean()) / spread(exact), rel=1e-4)
    assert found.in_read_noise and found.worst_pixel == pytest.approx(np.abs(difference).max() / 0.02, rel=1e-4)
    assert len(found.bias_per_decile) == 10
    assert np.mean(found.bias_per_decile) == pytest.approx(difference.mean() / spread(exact), rel=1e-3)
    assert (found.images, found.psnr_loss_db, found.engine) == (1, None, str(Given.spec))
    assert not made(exact, seen).in_read_noise


def test_bias_is_told_tenth_by_tenth():
    exact = field()
    bright = exact > np.percentile(exact, 90)
    found = made(exact, exact + np.where(bright, 0.01, 0).astype(np.float32))
    assert found.bias_per_decile[-1] == pytest.approx(0.01 / spread(exact), rel=0.01)
    assert max(map(abs, found.bias_per_decile[:-1])) < 1e-4
    assert found.bias == found.bias_per_decile[-1]


def test_the_loss_is_that_of_the_scores():
    truth = field()
    exact = 0.7 * truth + 0.05 * field(3) + 0.2
    seen = exact + 0.02 * np.random.default_rng(2).standard_normal(exact.shape).astype(np.float32)
    found = made(exact, seen, truth=truth)
    one, other = (score_pair(each[0, 0], truth[0, 0]).restored.psnr_db for each in (exact, seen))
    assert found.psnr_loss_db == pytest.approx(one - other, abs=1e-3) and found.psnr_loss_db > 0.1
    assert not found.estimated


def test_gain_and_offset_of_the_truth_mean_nothing():
    truth, exact = field(), field(5)
    seen = exact + np.float32(0.01) * truth
    losses = [made(exact, seen, truth=given).psnr_loss_db for given in (truth, 900 * truth - 17)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_without_truth_the_loss_is_estimated_where_a_score_is_known():
    exact = field()
    seen = exact + (0.004 * np.random.default_rng(1).standard_normal(exact.shape)).astype(np.float32)
    found = certify(Given(seen), [exact], [probe()], WORDS, held_out_psnr_db=30.0)
    assert found.estimated and found.psnr_loss_db == estimated_loss_db(found.relative_error, 30.0)
    assert "about" in found.brief and ("PSNR loss", f"about {found.psnr_loss_db:.4f} dB") in found.facts
    assert ("PSNR loss", "unknown") in made(exact, seen).facts


def test_an_estimate_is_right_for_an_error_of_its_own():
    truth = field()
    rng = np.random.default_rng(4)
    exact = truth + (0.03 * rng.standard_normal(truth.shape)).astype(np.float32)
    seen = exact + (0.005 * rng.standard_normal(truth.shape)).astype(np.float32)
    measured = made(exact, seen, truth=truth)
    psnr_db = score_pair(exact[0, 0], truth[0, 0]).restored.psnr_db
    assert estimated_loss_db(measured.relative_error, psnr_db) == pytest.approx(measured.psnr_loss_db, rel=0.3)


def test_the_worst_image_counts_and_the_mean_of_the_losses():
    exact = [field(1), field(2)]
    seen = [exact[0], exact[1] + np.float32(0.01)]
    truths = [probe(truth=field(3)), probe(truth=field(3))]
    found = certify(Given(*seen), exact, truths, WORDS)
    assert found.images == 2 and found.relative_error == pytest.approx(0.01 / spread(exact[1]), rel=1e-3)
    assert found.psnr_loss_db == pytest.approx(0, abs=1e-5)


def test_flat_images_tell_nothing():
    flat, exact = np.full((1, 1, 32, 32), 3, np.float32), field()
    found = certify(Given(flat, exact), [flat, exact], [probe(), probe()], WORDS)
    assert found.images == 1 and found.relative_error == 0 and found.passes
    nothing = made(flat, flat)
    assert nothing.images == 0 and math.isnan(nothing.relative_error)
    assert nothing.refusal == f"{Given.spec} cannot be judged on {WORDS}: flat, or no number"
    assert made(flat, flat, ANYTHING).passes
    assert made(exact, exact, truth=np.ones_like(exact)).psnr_loss_db is None


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_never_passes(wrong):
    exact = field()
    seen = exact.copy()
    seen[0, 0, 4, 4] = wrong
    found = made(exact, seen, truth=field(1))
    assert (not found.passes and "relative error" in found.refusal) or "PSNR" in found.refusal
    assert made(seen, exact).images == 0, "a reference that is no number tells nothing"


def test_widths_are_not_judged():
    exact = np.concatenate([field(), field(1)], axis=1)
    seen = exact.copy()
    seen[:, 1] += 1
    assert made(exact, seen, channels=1).relative_error == 0
    assert made(exact, seen).relative_error > 0.5


REFUSED = [
    (Tolerance(psnr_loss_db=1e-6), "PSNR loss in dB"),
    (Tolerance(relative_error=1e-6), "relative error"),
    (Tolerance(bias=1e-9), "bias"),
]


@pytest.mark.parametrize(("tolerance", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_beyond_a_tolerance_is_refused_by_name(tolerance, words):
    exact = field()
    seen = exact + (0.003 * np.random.default_rng(1).standard_normal(exact.shape)).astype(np.float32)
    found = made(exact, seen, tolerance, truth=dim(exact))
    assert found.refusal.startswith(f"{Given.spec}: {words} ") and found.refusal.endswith(f" on {WORDS}")


def test_without_a_loss_the_error_must_be_smaller():
    exact = field()
    seen = exact + (0.004 * np.random.default_rng(1).standard_normal(exact.shape)).astype(np.float32)
    assert made(exact, seen, truth=dim(exact)).passes
    assert "relative error" in made(exact, seen).refusal


def test_through_json_and_back():
    exact = field()
    for found in (
        made(exact, exact + np.float32(0.001), truth=exact, read_noise=2.0),
        made(exact, exact * np.float32(1.001), ANYTHING),
        made(np.zeros_like(exact), exact),
    ):
        again = Certificate.from_json(json.loads(json.dumps(found.as_json(), allow_nan=False)))
        np.testing.assert_equal(again.as_json(), found.as_json())
        assert (again.refusal, again.sentence, again.tolerance) == (found.refusal, found.sentence, found.tolerance)


WRONG = [
    ({}, "psnr_loss_db"),
    ({"bias_per_decile": [0.0] * 9}, "9 tenths"),
    ({"relative_error": "small"}, "'small' is no number"),
    ({"tolerance": {"age": 3}}, "age"),
    ({"tolerance": 3}, "items"),
]


@pytest.mark.parametrize(("changed", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_no_certificate_is_refused(changed, words):
    exact = field()
    content = made(exact, exact, truth=exact).as_json() | changed if changed else {"tolerance": {}, "bias_per_decile": []}
    with pytest.raises(ValueError, match=rf"no certificate of an engine .*{words}"):
        Certificate.from_json(content)


def test_what_does_not_fit_together_is_refused():
    exact = field()
    with pytest.raises(EngineMismatch, match=r"gives \(1, 1, 32, 32\) where float32 gives \(1, 1, 96, 96\)"):
        made(exact, field(size=32))
    with pytest.raises(EngineMismatch, match=r"the truth has shape \(1, 1, 32, 32\), the result \(1, 1, 96, 96\)"):
        made(exact, exact, truth=field(size=32))
    with pytest.raises(ValueError, match="no images to certify with"):
        certify(Given(), [], [], WORDS)


def test_real_engines():
    """bf16 differs, float32 of another runtime hardly does; and the reference may be an engine, or its results."""
    probes = [Probe((image(1, 1, 64, 64),), truth=image(1, 1, 64, 64))]
    with open_engine("openvino", CARE) as reference, open_engine("torch", CARE) as other:
        found = certify(other, reference, probes, WORDS)
        again = certify(other, results(reference, probes), probes, WORDS)
    assert found == again and 0 < found.relative_error < 1e-5 and found.passes
    if "bf16" in what_is_offered("openvino").precisions:
        with open_engine("openvino", CARE, "bf16") as engine, open_engine("openvino", CARE) as reference:
            assert 1e-5 < certify(engine, reference, probes, WORDS).relative_error < 1e-2


def test_small_images():
    """Fewer than ten pixels leave some tenths empty."""
    with open_engine("openvino", single("Relu")) as engine:
        found = certify(engine, engine, [Probe((image(1, 1, 2, 3),))], WORDS)
    assert found.bias_per_decile == (0.0,) * 10
    (row,) = compare(np.ones((1, 1, 1, 2)), np.arange(2.0).reshape(1, 1, 1, 2))
    assert row.tenths.shape == (10,)


SHORT = [(0.00041, "4.1e-4"), (0.41, "0.41"), (0.0, "0"), (-1e-3, "-1e-3"), (12.3, "12"), (345.6, "346"), (1e5, "1e5")]


@pytest.mark.parametrize(("number", "words"), SHORT)
def test_short(number, words):
    assert short(number) == words


def test_nothing_has_no_sign():
    exact = field()
    assert made(exact, exact, truth=dim(exact)).brief == "error 0, +0.000 dB"
    assert dict(made(exact, exact, truth=dim(exact)).facts)["PSNR loss"] == "0.0000 dB"
