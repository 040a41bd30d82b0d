"""CAREamics as its users run it: `CAREamist.predict` on counts, with its own normalisation, on the whole image at once.

Receives depth and filters of a CARE network as options; hands on a turn. CAREamics cannot build CSBDeep's network: this is its
own U-Net of the same depth and filters (3 x 3 kernels), with random weights, so that its result and its operations are others.
Runs in an environment of its own with careamics. It does not know live_restore.
"""

import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

_DEPTH, _FILTERS = 2, 32


def prepare(options: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Build the network.

    Parameters
    ----------
    options : dict
        ``options`` of a network (``depth``, ``first_filters``), ``image`` (.npy, (C, Z, Y, X)), ``n_dim``, ``low``, ``span``.
    """
    configure: Any = import_module("careamics.config").create_advanced_care_config
    careamist: Any = import_module("careamics").CAREamist
    structure = options["options"]
    image = np.load(options["image"])  # (C, Z, Y, X)
    flat = options["n_dim"] == 2
    known = {"input_means": options["low"], "input_stds": options["span"]}
    config = configure(
        experiment_name="bench",
        data_type="array",
        axes="SYX" if flat else "ZYX",
        patch_size=[64, 64] if flat else [8, 64, 64],
        batch_size=1,
        num_workers=0,
        normalization_params=known | {"target_means": options["low"], "target_stds": options["span"]},
        model_params={
            "depth": structure.get("depth", _DEPTH),
            "num_channels_init": structure.get("first_filters", _FILTERS),
        },
    )
    folder = tempfile.TemporaryDirectory(prefix="live_restore_careamics_", ignore_cleanup_errors=True)
    model = careamist(config, work_dir=folder.name, enable_progress_bar=False)
    checkpoint = Path(folder.name) / "random.ckpt"
    model.trainer.strategy.connect(model.model)
    model.trainer.save_checkpoint(checkpoint)  # it predicts from checkpoints only
    counts = image[0].astype(np.float32)  # (Z, Y, X): planes are samples of a 2D network

    def turn(_kept: Any = folder) -> Any:
        predicted, _ = model.predict(counts, checkpoint=checkpoint)
        return np.asarray(predicted[0]).reshape(image.shape)

    facts = {
        "kind": "careamics",
        "version": version("careamics"),
        "device": "CPU",
        "precision": "f32",
        "other_network": True,
        "note": "its own U-Net",
    }
    return turn, facts
