"""PyTorch as it comes: the same network with the package's weights, eager, float32, on the CPU or a CUDA device.

Receives the network's options and its weights as options; hands on a turn. Needs live_restore in its environment, for the
network's definition. Scaling is in the turn, the percentiles are given. It does not know packages.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from live_restore.models.nets import build_net


def prepare(options: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Build the network.

    Parameters
    ----------
    options : dict
        ``kind``, ``options`` of the network, ``weights`` (.npz by parameter name), and those of `onnxruntime_peer`.
    """
    net = build_net(options["kind"], options["options"])
    torch: Any = import_module("torch")
    # a sibling, found beside this file and not as a module of the package: these programs run anywhere
    around: Any = import_module("onnxruntime_peer").counts_in_counts_out
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with np.load(options["weights"]) as stored:
        net.load_state_dict({name: torch.from_numpy(stored[name]) for name in net.state_dict()})
    net.eval().to(device)

    def network(batch: Any) -> Any:
        with torch.inference_mode():
            return net(torch.from_numpy(batch).to(device)).cpu().numpy()

    facts = {"kind": "torch eager", "version": torch.__version__, "device": device.upper(), "precision": "f32"}
    return around(network, options), facts
