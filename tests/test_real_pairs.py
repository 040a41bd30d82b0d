"""Real low- and high-light pairs through an imported CSBDeep model: as good as CSBDeep, pixel by pixel."""

import h5py
import numpy as np
import pytest
import reference_forward as reference
import tifffile

from live_restore.channels import Assignment
from live_restore.engines.engine import what_is_offered
from live_restore.models.foreign.importing import import_model
from live_restore.offline import restore_files
from live_restore.pairing import score_files
from live_restore.restorer import Restorer
from live_restore.score import means

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def package(shared_data, tmp_path_factory):
    return import_model(shared_data / "models" / "care2d", tmp_path_factory.mktemp("models") / "care2d")


def test_the_42_pairs_score_as_csbdeep_scores_them(shared_data, package, tmp_path):
    """CSBDeep 0.8.2 itself lifts them from 19.38 to 28.49 dB."""
    pairs = shared_data / "pairs_widefield_w2s"
    with Restorer(package, precision="f32") as restorer:
        outcomes = restore_files([pairs / "low"], tmp_path / "restored", [Assignment(None, restorer)])
    assert len(outcomes) == 42
    scores = means(score_files([tmp_path / "restored"], [pairs / "high"], [pairs / "low"]))
    assert scores["raw_psnr_db"] == pytest.approx(19.38, abs=0.01)
    assert scores["psnr_db"] == pytest.approx(28.49, abs=0.05)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_one_image_equals_csbdeeps_formula(shared_data, package, precision):
    """Percentiles 2 and 99.8, the network, and back; written out here once more, in float64."""
    if precision not in what_is_offered("openvino").precisions:
        pytest.skip(f"this CPU does not compute in {precision}")
    low = tifffile.imread(shared_data / "pairs_widefield_w2s" / "low" / "067_1.tif")[100:292, 60:252]
    with h5py.File(shared_data / "models" / "care2d" / "weights_best.h5") as file:
        groups = [name for name in file if isinstance(file[name], h5py.Group) and name in file[name]]
        layers = {name: tuple(np.array(file[name][name][f"{part}:0"]) for part in ("kernel", "bias")) for name in groups}
    (head,) = (name for name in layers if name.startswith("conv2d"))
    layers["head_mean"] = layers.pop(head)
    p2, p998 = np.percentile(low, (2, 99.8))
    scaled = (low[..., None] - p2) / (p998 - p2)
    expected = reference.care(scaled, layers, 2, True, "linear", False)[..., 0] * (p998 - p2) + p2
    with Restorer(package, precision=precision) as restorer:
        found = restorer.restore(low[None, None]).pixels[0, 0]
    span = np.percentile(expected, 99.9) - np.percentile(expected, 0.1)
    difference = np.abs(found - expected) / span
    if precision == "f32":
        assert difference.max() <= 1e-5
    else:  # bf16 keeps eight bits: the worst pixel is far worse than the rest
        assert np.sqrt((difference**2).mean()) <= 2e-3
        assert difference.max() <= 3e-2
