from pathlib import Path

import numpy as np
import pytest

import live_restore
from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import KINDS, example_field
from live_restore.engines.engine import open_engine
from live_restore.intensity import measure_percentiles
from live_restore.models.package import open_package
from live_restore.score import score_pair

FOLDER = Path(live_restore.__file__).parent / "bundled" / "care2d_demo"
# Neither in the training (500,000 and up) nor in its held-out fields (1,000,000 and up).
FRESH_SEED = 20_000_000


@pytest.fixture(scope="module")
def package():
    return open_package(FOLDER)


@pytest.fixture(scope="module")
def engine(package):
    with open_engine("openvino", package.onnx(), "f32") as opened:
        yield opened


def test_it_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 500_000


def test_facts_say_what_it_is(package):
    facts = package.facts
    assert facts.architecture.kind == "care"
    assert facts.provenance.source_format == "trained"
    assert facts.geometry.divisible_by == (4, 4)
    assert facts.scores["gain_db"] >= 6
    assert "not for science" in package.description
    assert package.licence == "BSD-3-Clause"


def test_engine_gives_the_packages_own_answer(package, engine):
    (output,) = engine.infer(package.test_input())
    np.testing.assert_allclose(output, package.test_output(), atol=1e-4)


def low_light(kind, peak_photons, seed=FRESH_SEED):
    """A raw frame and its truth, (Y, X), counts."""
    photons = example_field(seed, (256, 256), kind, peak_photons=peak_photons)
    camera = build_camera(seed, photons.shape)
    gain = float(np.median(camera.gain_adu_per_e)) * camera.quantum_efficiency
    clean = float(np.median(camera.offset_adu)) + gain * photons
    return camera.expose(photons, np.random.default_rng(seed)), clean


def restore(engine, raw):
    measured = measure_percentiles(raw[None])
    (output,) = engine.infer(measured.scale(raw[None])[None])  # (1, 1, Y, X)
    return measured.unscale(output[0])[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peak_photons", [8, 20])
def test_it_gains_at_low_light_on_cells_it_never_saw(engine, kind, peak_photons):
    raw, clean = low_light(kind, peak_photons)
    score = score_pair(restore(engine, raw), clean, raw)
    assert score.gain_db >= 6
    assert score.restored.ssim > score.raw.ssim


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_intensities(engine, kind):
    """Restored counts are counts: the mean stays, and nothing needs stretching to fit the truth."""
    raw, clean = low_light(kind, 40)
    restored = restore(engine, raw)
    assert restored.mean() - 97 == pytest.approx(clean.mean() - 97, rel=0.1)
    assert score_pair(restored, clean).restored.slope == pytest.approx(1, abs=0.15)


@pytest.mark.realdata
def test_it_serves_a_real_microscope_it_was_not_trained_for(engine, shared_data):
    """42 widefield images, 19.4 dB raw; the best Gaussian blur (sigma 2) reaches 31.4 dB."""
    import tifffile

    folder = shared_data / "pairs_widefield_w2s"
    found = []
    for path in sorted((folder / "low").glob("*.tif")):
        raw, reference = tifffile.imread(path), tifffile.imread(folder / "high" / path.name)
        found.append(score_pair(restore(engine, raw), reference).restored.psnr_db)
    assert len(found) == 42
    assert np.mean(found) > 31.4
