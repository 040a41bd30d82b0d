"""CSBDeep as its users run it: `CARE.predict` on counts, with its own percentiles, padding and scaling back.

Receives the structure of a CARE network and its weights as options; hands on a turn. Runs in an environment of its own with
csbdeep and TensorFlow. It does not know live_restore.
"""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

# What CSBDeep's Config calls the options of a CARE network.
_CONFIG = {
    "channels_in": "n_channel_in",
    "channels_out": "n_channel_out",
    "depth": "unet_n_depth",
    "kernel": "unet_kern_size",
    "first_filters": "unet_n_first",
    "residual": "unet_residual",
    "last_activation": "unet_last_activation",
    "probabilistic": "probabilistic",
}


def prepare(options: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Build the network.

    Parameters
    ----------
    options : dict
        ``options`` of a CARE network, ``weights`` (.npz, ``LAYER.weight`` and ``LAYER.bias``), ``image`` (.npy, (C, Z, Y, X)),
        ``percentiles``.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    models: Any = import_module("csbdeep.models")
    normaliser: Any = import_module("csbdeep.data").PercentileNormalizer
    structure = options["options"]
    axes = "YX" if structure["n_dim"] == 2 else "ZYX"
    said = {name: structure[ours] for ours, name in _CONFIG.items()}
    model = models.CARE(models.Config(axes, train_tensorboard=False, **said), name=None, basedir=None)
    with np.load(options["weights"]) as stored:
        _load(model.keras_model, stored)
    image = np.load(options["image"])  # (C, Z, Y, X)
    percentiles = normaliser(*options["percentiles"])

    def turn() -> Any:
        if axes == "ZYX":
            return _predicted(image)
        return np.stack([_predicted(image[:, z]) for z in range(image.shape[1])], 1)

    def _predicted(volume: Any) -> Any:
        if len(volume) == 1:
            return model.predict(volume[0], axes, normalizer=percentiles)[None]
        return model.predict(volume, "C" + axes, normalizer=percentiles)

    tensorflow = import_module("tensorflow").__version__
    facts = {
        "kind": "csbdeep",
        "version": f"{version('csbdeep')}, TensorFlow {tensorflow}",
        "device": "CPU",
        "precision": "f32",
    }
    return turn, facts


def _load(keras_model: Any, stored: Any) -> None:
    """Put the weights into the layers by name; the heads, which Keras numbers, in their order."""
    heads = iter(("head_mean", "head_scale"))
    for layer in keras_model.layers:
        if not layer.get_weights():
            continue
        name = layer.name if f"{layer.name}.weight" in stored.files else next(heads)
        kernel = stored[f"{name}.weight"]  # (out, in, [z,] y, x)
        layer.set_weights([np.moveaxis(kernel, (0, 1), (-1, -2)), stored[f"{name}.bias"]])
