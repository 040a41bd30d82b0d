"""The bundled networks: what their packages say, what they gain on cells they never saw, and that training them repeats."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import KINDS, example_field
from live_restore.engines.engine import open_engine
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder, find_packages
from live_restore.restorer import Restorer
from live_restore.score import score_pair

NAMES = ("care2d_demo", "care3d_demo", "rcan3d_demo")
STACKS = NAMES[1:]
# Neither in the training (500,000 and up) nor in its held-out fields (1,000,000 and up).
FRESH_SEED = 20_000_000


@pytest.fixture(scope="module")
def restorers():
    """Every bundled network on OpenVINO, by name."""
    opened = {name: Restorer(open_package(bundled_folder() / name), engine="openvino", precision="f32") for name in NAMES}
    yield opened
    for restorer in opened.values():
        restorer.close()


def low_light(kind, peak_photons, shape=(256, 256)):
    """A raw image and its truth, ([Z,] Y, X), counts."""
    photons = example_field(FRESH_SEED, shape, kind, peak_photons=peak_photons, z_step_um=0.45)
    camera = build_camera(FRESH_SEED, shape[-2:])
    gain = float(np.median(camera.gain_adu_per_e)) * camera.quantum_efficiency
    clean = float(np.median(camera.offset_adu)) + gain * photons
    return camera.expose(photons, np.random.default_rng(FRESH_SEED)), clean


def restore(restorer, raw):
    """Restore a plane or a stack, ([Z,] Y, X)."""
    stack = raw if raw.ndim == 3 else raw[None]
    return restorer.restore(stack[None]).pixels[0].reshape(raw.shape)


def shape_for(name):
    return (256, 256) if name == "care2d_demo" else (12, 256, 256)


def test_the_registry_finds_all_of_them_and_they_are_small():
    found = find_packages([bundled_folder()])
    assert [one.path.name for one in found] == list(NAMES)
    assert not [one.error for one in found if one.error]
    assert sum(file.stat().st_size for file in bundled_folder().rglob("*") if file.is_file()) < 5_000_000


@pytest.mark.parametrize(
    ("name", "kind", "divisible_by"),
    [("care2d_demo", "care", (4, 4)), ("care3d_demo", "care", (4, 4, 4)), ("rcan3d_demo", "rcan", (1, 1, 1))],
)
def test_facts_say_what_it_is(name, kind, divisible_by):
    package = open_package(bundled_folder() / name)
    facts = package.facts
    assert facts.architecture.kind == kind
    assert facts.provenance.source_format == "trained"
    assert facts.geometry.divisible_by == divisible_by
    assert facts.geometry.global_pooling == (kind == "rcan")
    assert facts.light_levels == {"trained_peak_photons_from": 4, "trained_peak_photons_to": 100}
    assert facts.scores["gain_db"] >= 6
    assert "not for science" in package.description
    assert package.licence == "BSD-3-Clause"


@pytest.mark.parametrize("name", STACKS)
def test_what_a_stack_network_gained_beats_every_gaussian_filter(name):
    scores = open_package(bundled_folder() / name).facts.scores
    assert scores["gain_db"] >= scores["gaussian_gain_db"] + 1


@pytest.mark.parametrize("name", NAMES)
def test_engine_gives_the_packages_own_answer(name):
    package = open_package(bundled_folder() / name)
    with open_engine("openvino", package.onnx()) as engine:
        (output,) = engine.infer(package.test_input())
    np.testing.assert_allclose(output, package.test_output(), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peak_photons", [8, 20])
def test_it_gains_at_low_light_on_cells_it_never_saw(restorers, kind, peak_photons):
    raw, clean = low_light(kind, peak_photons)
    score = score_pair(restore(restorers["care2d_demo"], raw), clean, raw)
    assert score.gain_db >= 6
    assert score.restored.ssim > score.raw.ssim


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("kind", ["nuclei", "filaments"])
@pytest.mark.parametrize("peak_photons", [15, 20])
def test_stacks_gain_at_low_light_on_cells_nobody_saw(restorers, name, kind, peak_photons):
    raw, clean = low_light(kind, peak_photons, shape_for(name))
    score = score_pair(restore(restorers[name], raw), clean, raw)
    assert score.gain_db >= 6
    assert score.restored.ssim > score.raw.ssim


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_intensities(restorers, name, kind):
    """Restored counts are counts: the mean stays, and nothing needs stretching to fit the truth."""
    raw, clean = low_light(kind, 40, shape_for(name))
    restored = restore(restorers[name], raw)
    assert restored.mean() - 97 == pytest.approx(clean.mean() - 97, rel=0.1)
    assert score_pair(restored, clean).restored.slope == pytest.approx(1, abs=0.15)


def test_channel_attention_pools_over_a_whole_stack_as_well_as_over_a_patch(restorers):
    """Trained on patches, used on stacks: the pooled means differ, the result must be no worse."""
    restorer = restorers["rcan3d_demo"]
    raw, clean = low_light("filaments", 15, (12, 512, 512))
    whole = restorer.restore(raw[None])
    patch, inside = np.s_[:, 200:296, 200:296], np.s_[:, 12:-12, 12:-12]  # away from the padding of the patch
    with open_engine("openvino", restorer.package.onnx()) as engine:
        alone = whole.intensity.unscale(engine.infer(whole.intensity.scale(raw[None])[:, *patch][None])[0][0])
    errors = [np.mean((pixels - clean[patch])[inside] ** 2) for pixels in (whole.pixels[0][patch], alone[0])]
    assert errors[0] <= 1.1 * errors[1]


@pytest.mark.realdata
def test_it_serves_a_real_microscope_it_was_not_trained_for(restorers, shared_data):
    """42 widefield images, 19.4 dB raw; the best Gaussian blur (sigma 2) reaches 31.4 dB."""
    import tifffile

    folder = shared_data / "pairs_widefield_w2s"
    found = []
    for path in sorted((folder / "low").glob("*.tif")):
        raw, reference = tifffile.imread(path), tifffile.imread(folder / "high" / path.name)
        found.append(score_pair(restore(restorers["care2d_demo"], raw), reference).restored.psnr_db)
    assert len(found) == 42
    assert np.mean(found) > 31.4


@pytest.fixture
def scripts(monkeypatch):
    """The training script and its parts can be imported; torch's threads are given back."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "scripts")
    yield
    torch.set_num_threads(threads)
    for module in ("train_bundled", "held_out_scores", "training_fields"):
        sys.modules.pop(module, None)


def test_training_stops_where_it_went_wrong(scripts):
    from train_bundled import RECIPES, train

    batch = np.full((1, 1, 8, 16, 16), np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="step 1: the error is nan, from which no training recovers; lower the"):
        train(RECIPES["care3d_demo"], iter([(batch, batch)]), 1, 0)


@pytest.mark.parametrize("name", NAMES)
def test_training_repeats_from_its_seed(scripts, tmp_path, capsys, name):
    """Two steps on tiny fields, twice; the whole way to a package."""
    weights = [_trained(name, tmp_path / str(turn), seed=0) for turn in range(2)]
    assert weights[0] == weights[1]
    assert "| nuclei | 15 |" in capsys.readouterr().out
    trained, bundled = open_package(tmp_path / "0").facts, open_package(bundled_folder() / name).facts
    assert trained.architecture == bundled.architecture
    assert set(trained.scores) >= {"gain_db_at_15_photons", "slope", "gaussian_gain_db"}
    assert trained.provenance.notes[0].startswith("seed 0, 1 thread(s), Python 3.")


def test_another_seed_gives_other_weights(scripts, tmp_path):
    assert _trained("care3d_demo", tmp_path / "0", seed=0) != _trained("care3d_demo", tmp_path / "1", seed=1)


def _trained(name, path, seed):
    from train_bundled import main

    tiny = ["--steps", "2", "--fields", "2", "--held-out", "1", "--side", "48"]
    main([name, *tiny, "--seed", str(seed), "--out", str(path)])
    return hashlib.sha256(open_package(path).onnx()).hexdigest()
