"""How good a network is on held-out pairs: figures that agree with those computed by hand, and words that follow from them."""

import dataclasses
import doctest
import json
import subprocess
import sys

import numpy as np
import pytest
from judged_pairs import (
    GAIN,
    IDENTITY,
    OFFSET,
    READ_NOISE,
    expose,
    gaussian_kernel,
    pair_of_files,
    scene,
    write_calibration,
    write_kernel_package,
)
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import shift
from tiny_packages import smoothing_facts, smoothing_tensors, write_smoothing_package

from live_restore.errors import ModelError, PairError
from live_restore.evaluation import baselines, card_words
from live_restore.evaluation import doubts as doubts_words
from live_restore.evaluation import scores as evaluation_nouns
from live_restore.evaluation.baselines import best_gaussian, best_non_local_means, middle, noise_sd
from live_restore.evaluation.doubts import doubts
from live_restore.evaluation.evaluate import evaluate
from live_restore.evaluation.overlaid import Overlaid
from live_restore.evaluation.scores import LEVELS, Bias, Evaluation, Figures, PairScore, means
from live_restore.models.facts import Normalisation
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder
from live_restore.records.pairs import pairs_sha256
from live_restore.restore.noise import CameraNoise
from live_restore.restorer import Restorer
from live_restore.score import score_pair

CAMERA = CameraNoise(OFFSET, GAIN, READ_NOISE)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_calibration(tmp_path_factory.mktemp("pairs") / "monday", positions=3)


@pytest.fixture(scope="module")
def blurring(tmp_path_factory):
    return write_kernel_package(tmp_path_factory.mktemp("model") / "blurring", gaussian_kernel(1.5), "blurring").path


@pytest.fixture(scope="module")
def evaluation(blurring, pairs):
    return evaluate(blurring, pairs, precision="f32", noise=CAMERA)


def test_figures_are_those_of_the_restorer_and_of_score(evaluation, blurring, pairs):
    with Restorer(open_package(blurring), precision="f32") as restorer:
        for pair, score in zip(pairs, evaluation.scores, strict=True):
            low, high = pair.read()
            by_hand = score_pair(restorer.restore(low[None, None]).pixels[0, 0], high, low)
            assert score.restored.psnr_db == pytest.approx(by_hand.restored.psnr_db, abs=1e-4)
            assert score.raw.ssim == pytest.approx(by_hand.raw.ssim, abs=1e-6)
            assert score.gain_db == pytest.approx(by_hand.gain_db, abs=1e-4) and score.gain_db > 1
    assert evaluation.pairs_sha256 == pairs_sha256(pairs)
    assert (evaluation.model, evaluation.model_sha256) == ("blurring", open_package(blurring).onnx_sha256)
    assert evaluation.engine.startswith("openvino") and evaluation.precision == "f32"


def test_it_goes_to_json_and_back(evaluation):
    said = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert said["mean"]["gain_db"] == pytest.approx(evaluation.mean["gain_db"])
    assert Evaluation.from_json(said) == evaluation
    with pytest.raises(ValueError, match="format 7; format 1 is read"):
        Evaluation.from_json(said | {"format": 7})
    del said["scores"][0]["snr"]
    with pytest.raises(ValueError, match=r"lacks .*snr.*; evaluate again"):
        Evaluation.from_json(said)


def test_a_network_that_is_a_filter_does_not_beat_that_filter_at_its_best(evaluation):
    for score in evaluation.scores:
        assert score.gaussian_gain_db >= score.gain_db - 0.3
        assert score.gaussian_sigma in (1.0, 1.4, 2.0)
        assert score.nlm_gain_db > 1


def test_the_light_is_told_as_live_and_photons_are_checked(evaluation, blurring, pairs, tmp_path):
    assert all(score.trusted is not None and score.snr > 3 for score in evaluation.scores)
    assert evaluation.noise == "configuration"
    unknown = evaluate(blurring, pairs[:1], baselines=False)
    assert unknown.scores[0].trusted is None and unknown.scores[0].snr > 3 and unknown.noise == ""
    assert unknown.scores[0].gaussian is None and "gaussian_gain_db" not in unknown.mean
    erasing = write_kernel_package(tmp_path / "erasing", gaussian_kernel(6, 33), "erasing").path
    wiped = evaluate(erasing, pairs, noise=CAMERA, baselines=False, cases=False)
    assert len(wiped.distrusted) == 3 and "structure" in wiped.scores[0].why
    assert any("disagree with the photons" in sentence for sentence in doubts(wiped))


def test_the_shift_between_low_and_high_is_honoured(blurring, tmp_path):
    truth = scene(5, (80, 88))
    moved = shift(truth, (1.5, -2.25), order=3, mode="nearest")
    pair = pair_of_files(tmp_path, "a", expose(truth, 1), (50 * GAIN * moved).astype(np.float32))
    without = evaluate(blurring, [pair], baselines=False)
    told = evaluate(blurring, [dataclasses.replace(pair, shift_px=(1.5, -2.25))], baselines=False)
    assert told.mean["psnr_db"] > without.mean["psnr_db"] + 2
    assert told.cases[0].low.shape == (78, 85)
    assert any("1 high images were moved" in note for note in told.notes)
    hardly = evaluate(blurring, [dataclasses.replace(pair, shift_px=(0.04, 0.0))], baselines=False)
    assert hardly.mean == without.mean
    with pytest.raises(PairError, match="nothing is on both"):
        evaluate(blurring, [dataclasses.replace(pair, shift_px=(100.0, 0.0))])


def test_a_rolling_range_does_not_follow_from_one_pair_to_the_next(tmp_path):
    dim, bright = (
        pair_of_files(tmp_path, name, (level * truth).astype(np.uint16), (50 * truth).astype(np.uint16))
        for name, level, truth in (("dim", 2, scene(1)), ("bright", 90, scene(2)))
    )
    said = {"mode": "rolling", "precision": "f32", "baselines": False, "cases": False}
    alone, after = (evaluate(bundled_folder() / "care2d_demo", chosen, **said) for chosen in ([bright], [dim, bright]))
    assert after.scores[-1].restored == alone.scores[0].restored


def test_bias_of_intensities_is_told_by_decile(tmp_path):
    truth = scene(3, (96, 96))
    low = (OFFSET + 2 * truth).astype(np.float32)
    pair = pair_of_files(tmp_path, "clean", low, (7 * truth).astype(np.float32))
    honest = evaluate(write_kernel_package(tmp_path / "one", IDENTITY).path, [pair], precision="f32")
    assert honest.mean["psnr_db"] > 100 and honest.bias.worst < 1e-3
    assert honest.bias.slope == pytest.approx(1, abs=1e-4)
    assert honest.scores[0].snr is None and honest.by_snr() == {}  # no camera counts: nothing is known of photons
    faint = evaluate(write_kernel_package(tmp_path / "less", 0.8 * IDENTITY).path, [pair], precision="f32")
    assert faint.mean["psnr_db"] > 80  # the affine fit forgives it
    assert faint.bias.slope == pytest.approx(0.8, abs=1e-3)
    assert faint.bias.deciles[-1] < -5 and abs(faint.bias.deciles[0]) < 2 and faint.bias.brightest < -15
    said = " ".join(doubts(faint))
    assert "too dark in the brightest tenth" in said and "contrast is lost" in said
    units = Normalisation(output="none")
    own = write_kernel_package(tmp_path / "own", IDENTITY, normalisation=units).path
    assert evaluate(own, [pair]).bias is None


def test_predicted_intervals_hold_what_they_promise():
    rng = np.random.default_rng(1)
    width = np.full((200, 200), 3.0, np.float32)
    restored = np.zeros((200, 200), np.float32)
    high = rng.laplace(0, 3.0, (200, 200)).astype(np.float32)
    found = Overlaid(restored, restored, high, width).coverage(1.0, 0.0)
    assert found == pytest.approx(LEVELS, abs=0.01)
    narrow = Overlaid(restored, restored, high, width / 2).coverage(1.0, 0.0)
    assert narrow[LEVELS.index(0.9)] == pytest.approx(1 - 0.1**0.5, abs=0.01)
    assert Overlaid(restored, restored, high, None).coverage(1.0, 0.0) == ()


def test_a_probabilistic_network_is_held_to_its_intervals(tmp_path, pairs):
    sure = write_kernel_package(tmp_path / "sure", gaussian_kernel(1.5), scale=0.001).path
    found = evaluate(sure, pairs, baselines=False, cases=False)
    assert found.probabilistic and found.coverage[LEVELS.index(0.9)] < 0.3
    assert any("too narrow: those of 90%" in sentence for sentence in doubts(found))
    unsure = evaluate(write_kernel_package(tmp_path / "unsure", gaussian_kernel(1.5), scale=9.0).path, pairs, baselines=False)
    assert any("too wide" in sentence for sentence in doubts(unsure))


@pytest.mark.parametrize("n_dim", [2, 3])
def test_stacks(tmp_path, n_dim):
    truth = scene(4, (8, 48, 56))
    pair = pair_of_files(tmp_path, "stack", expose(truth, 1), expose(50 * truth, 2))
    found = evaluate(write_smoothing_package(tmp_path / "smooth", n_dim).path, [pair], noise=CAMERA)
    assert found.mean["gain_db"] > 1 and found.mean["gaussian_gain_db"] > found.mean["gain_db"] - 1
    (case,) = found.cases
    assert case.high.shape == (48, 56) and len(case.corner) == 3 and case.pixel_size_um is None


def test_cases_are_the_best_the_median_and_the_worst(evaluation, pairs):
    gains = [case.gain_db for case in evaluation.cases]
    assert [case.kind for case in evaluation.cases] == ["best", "worst", "worst"]  # of three, the median is among the worst
    assert gains == sorted(gains, reverse=True)
    assert evaluation.worst(1)[0].name == evaluation.cases[-1].name
    span = np.percentile(evaluation.cases[0].high, 99) - np.percentile(evaluation.cases[0].high, 1)
    assert abs(np.mean(evaluation.cases[0].restored - evaluation.cases[0].high)) < 0.1 * span  # in the same counts


def test_progress_is_told(blurring, pairs):
    told = []
    evaluate(blurring, pairs, baselines=False, cases=False, listener=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def doubling_package(path):
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    node = helper.make_node("Resize", ["input", "", "scales"], ["output"], mode="nearest")
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("b", 1, f"y{n}", f"x{n}")) for n in ("input", "output")]
    graph = helper.make_graph([node], "double", tensors[:1], tensors[1:], [scales])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    facts = smoothing_facts()
    facts = facts.model_copy(update={"geometry": facts.geometry.model_copy(update={"output_factor": (2, 2)})})
    given, _ = smoothing_tensors()
    return write_smoothing_package(
        path, facts=facts, onnx=onnx, test_input=given, test_output=given.repeat(2, axis=2).repeat(2, axis=3)
    ).path


def test_what_cannot_be_compared_is_refused(tmp_path, blurring, pairs):
    with pytest.raises(PairError, match="there are no pairs to score"):
        evaluate(blurring, [])
    with pytest.raises(ModelError, match=r"takes 2 channel\(s\) and gives 2; pairs have a single channel"):
        evaluate(write_smoothing_package(tmp_path / "two", 2, 2).path, pairs)
    with pytest.raises(ModelError, match="only models that keep sizes"):
        evaluate(doubling_package(tmp_path / "double"), pairs)
    odd = pair_of_files(tmp_path, "odd", np.ones((64, 64), np.uint16), np.ones((64, 60), np.uint16))
    with pytest.raises(PairError, match=r"pair 'odd': low has shape \(64, 64\), high \(64, 60\)"):
        evaluate(blurring, [odd])


def test_the_middle_of_an_image():
    assert middle((64, 72), 10_000) == (slice(0, 64), slice(0, 72))
    for shape, most in (((5, 600, 512), 1 << 18), ((9, 64, 64), 3 * 4096), ((3000, 40), 10_000), ((2, 2000, 2000), 5000)):
        part = middle(shape, most)
        size = np.prod([one.stop - one.start for one in part])
        assert size <= most * 1.1 and all(0 <= one.start < one.stop <= side for one, side in zip(part, shape, strict=True))


def test_filters_are_told_how_strong_to_be_by_the_truth():
    truth = scene(1, (96, 96))
    low = expose(truth, 3)
    noise = np.random.default_rng(1).normal(0, 5, (200, 200)).astype(np.float32)
    assert noise_sd(noise) == pytest.approx(5, rel=0.03)
    filtered, sigma = best_gaussian(low, truth)
    assert 0.7 <= sigma <= 4 and np.corrcoef(filtered.ravel(), truth.ravel())[0, 1] > 0.95
    flat = np.full((32, 32), 7, np.uint16)
    assert np.array_equal(best_non_local_means(flat, truth[:32, :32]), flat)  # nothing to estimate noise from
    _, sigma = best_gaussian(truth.astype(np.float32), truth)
    assert sigma == 0.5  # the weakest


def pair_score(name="a", gain=5.0, gaussian=4.0, nlm_lead=1.0, **said):
    words = {"channel": "", "position": name, "source": "monday", "snr": 5.0, **said}
    figures = {
        "restored": Figures(20 + gain, 0.9, 0.02),
        "raw": Figures(20, 0.4, 0.1),
        "gaussian": Figures(20 + gaussian, 0.8, 0.03),
    }
    return PairScore(name=name, nlm_gain_db=gain - nlm_lead, nlm_lead_db=nlm_lead, **figures, **words)


def of(*scores, **said):
    words = ("model", "model_sha256", "network", "engine", "precision", "normalisation")
    return Evaluation(**dict.fromkeys(words, "x"), probabilistic=False, pairs_sha256="", scores=scores, **said)


FEW = "only 1 position(s)"
GOOD = [pair_score(name) for name in "abc"]
WORDS = [
    ("nothing", GOOD, ""),
    ("few", [pair_score()], FEW),
    ("learnt", [*GOOD, pair_score("d", split="train")], "1 of 4 pairs are marked for training"),
    ("worse", [*GOOD, pair_score("d", gain=-1, gaussian=-2)], "1 of 4 images came out no better than the raw ones (d)"),
    (
        "filter in the dark",
        [*GOOD, pair_score("d", gain=1, snr=2.0)],
        "gains less than the Gaussian filter at SNR < 3 (1.0 against 4.0 dB, 1 image): do not use it there",
    ),
    ("filter everywhere", [pair_score(n, gain=3) for n in "abc"], "on these images (3.0 against 4.0 dB, 3 images)"),
    ("nlm", [pair_score(n, nlm_lead=-0.5) for n in "abc"], "non-local means at their best are better than the network"),
    (
        "bright",
        [pair_score(n, bias=Bias((0.0,) * 4 + (4.0,) + (0.0,) * 5, 0, 1)) for n in "abc"],
        "too bright in the 5th tenth",
    ),
]


@pytest.mark.parametrize(("scores", "said"), [case[1:] for case in WORDS], ids=[case[0] for case in WORDS])
def test_doubts_in_words(scores, said):
    found = doubts(of(*scores))
    assert [sentence for sentence in found if said in sentence] if said else found == ()


def test_groups_and_means():
    scores = [
        pair_score("a", 5, channel="DAPI", snr=1.0),
        pair_score("b", 7, channel="FITC", snr=30.0),
        pair_score("c", 9, snr=None),
    ]
    evaluation = of(*scores)
    assert {name: len(found) for name, found in evaluation.by_channel().items()} == {"": 1, "DAPI": 1, "FITC": 1}
    assert {name: found[0].name for name, found in evaluation.by_snr().items()} == {"SNR < 3": "a", "SNR > 25": "b"}
    assert means(scores)["gain_db"] == pytest.approx(7) and means(scores)["raw_psnr_db"] == 20
    assert evaluation.coverage == () and evaluation.bias is None


@pytest.mark.parametrize("module", [baselines, card_words, doubts_words, evaluation_nouns])
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_it_needs_no_torch():
    script = "import sys, live_restore.evaluation.evaluate, live_restore.evaluation.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
