"""3D-RCAN's own network under TensorFlow: the forward pass that its `apply` makes of one block, on an image scaled before.

Receives the folder of its source (branch TF2 of AiviaCommunity/3D-RCAN, CC BY-NC 4.0: got by the user, no part of this
project), the structure and the image as options; hands on a turn. Weights are random: time does not depend on them. Runs in an
environment with TensorFlow, started by ``live_restore/bench/peer_programs/turns.py``.
"""

import os
import sys
from importlib import import_module


def prepare(options):
    """Build the network.

    Parameters
    ----------
    options : dict
        ``source`` (folder), ``options`` of an RCAN, ``image`` (.npy, (C, Z, Y, X)), ``low``, ``span``.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np

    tensorflow = import_module("tensorflow")
    # what Keras 2 had and Keras 3 has not
    tensorflow.keras.backend.ndim = lambda tensor: len(tensor.shape)
    sys.path.insert(0, options["source"])
    build_rcan = import_module("rcan.model").build_rcan
    structure, image = options["options"], np.load(options["image"])
    if structure["n_dim"] == 2:
        image = image[:, 0]
    scaled = ((image[0] - options["low"][0]) / options["span"][0]).astype(np.float32)[None, ..., None]
    network = build_rcan(
        scaled.shape[1:],
        num_channels=structure["channels"],
        num_residual_blocks=structure["blocks"],
        num_residual_groups=structure["groups"],
        channel_reduction=structure["reduction"],
    )
    facts = {
        "kind": "3D-RCAN (TensorFlow)",
        "version": tensorflow.__version__,
        "device": "CPU",
        "precision": "f32",
        "parameters": network.count_params(),
    }
    return lambda: network.predict_on_batch(scaled), facts
