"""Computing the single channel of an image patch by patch changes the work, not the numbers."""

import numpy as np
import pytest

from live_restore.engines.openvino.engine import OpenVinoEngine, ov, the_core
from live_restore.engines.openvino.patches import compute_patches
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import run_net, to_onnx

RCAN = {"channels": 8, "groups": 1, "blocks": 1, "reduction": 4}
CASES = {
    "2D": ("rcan", {"n_dim": 2, **RCAN}, (20, 36), 1),
    "3D": ("rcan", {"n_dim": 3, **RCAN}, (4, 8, 12), 1),
    "3D, odd planes": ("rcan", {"n_dim": 3, **RCAN}, (5, 8, 12), 1),
    "no multiple of four": ("rcan", {"n_dim": 2, **RCAN}, (20, 38), 0),
    "two channels": ("rcan", {"n_dim": 2, "channels_in": 2, "channels_out": 2, **RCAN}, (20, 36), 0),
    "a head of one pixel": ("care", {"n_dim": 2, "first_filters": 8, "depth": 1}, (20, 36), 0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_result_is_the_networks_own(case):
    kind, options, shape, convolutions = case
    net = build_net(kind, options, seed=4)
    onnx = to_onnx(net)
    batch = np.random.default_rng(0).normal(size=(2, net.options["channels_in"], *shape)).astype(np.float32)
    model = the_core().read_model(onnx)
    assert compute_patches(ov, model) == 0  # sizes are free
    model.reshape(batch.shape)
    assert compute_patches(ov, model) == convolutions
    with OpenVinoEngine(onnx, "f32") as engine:
        (found,) = engine.infer(batch)
    expected = run_net(net, batch)
    assert np.abs(found - expected).max() <= 2e-6 * np.ptp(expected)
