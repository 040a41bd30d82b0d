"""CAREamics checkpoints as CAREamics 0.3.5 and 0.0.22 write them, with weights that anybody can draw again."""

import re

import numpy as np
import torch

from live_restore.models.nets.careamics_unet import CareamicsUnet

OURS_TO_THEIRS = (
    (re.compile(r"^down\.(\d+)"), lambda n: f"encoder.encoder_blocks.{2 * n}"),
    (re.compile(r"^up\.(\d+)"), lambda n: f"decoder.decoder_blocks.{2 * n + 1}"),
    (re.compile(r"^(bottleneck)"), lambda _: "decoder.bottleneck"),
    (re.compile(r"^(head)"), lambda _: "final_conv"),
)

# Our words for CAREamics' model configuration.
WORDS = {
    "n_dim": "conv_dims",
    "channels_in": "in_channels",
    "channels_out": "num_classes",
    "first_filters": "num_channels_init",
    "batch_norm": "use_batch_norm",
}


def their_name(name):
    for pattern, theirs in OURS_TO_THEIRS:
        if match := pattern.match(name):
            place = match.group(1)
            return theirs(int(place) if place.isdigit() else 0) + name[match.end() :]
    return name


def draw(name, shape):
    """A sine of the place, scaled so that the signal neither dies nor explodes."""
    size = int(np.prod(shape, dtype=int))
    wave = np.sin(np.arange(size) * 0.37 + len(name))
    if name.endswith("running_var"):
        wave = 1 + 0.5 * wave
    elif "norm" in name and name.endswith("weight"):
        wave = 1 + 0.2 * wave
    elif name.endswith("weight"):
        wave = wave * 1.5 / np.sqrt(np.prod(shape[1:]))
    else:
        wave = 0.1 * wave
    return torch.from_numpy(wave.reshape(shape).astype(np.float32))


def state_dict(prefix="", **options):
    """The weights of CAREamics' UNet with these (our) options, drawn, under its names."""
    own = CareamicsUnet(**options).state_dict()
    named = {their_name(name): tensor for name, tensor in own.items()}
    return {prefix + n: draw(n, tuple(t.shape)) if t.is_floating_point() else t for n, t in named.items()}


def picture(shape):
    return np.sin(np.arange(np.prod(shape)) * 0.11).reshape(shape).astype(np.float32)


def model_config(**options):
    """CAREamics' ``algorithm_config.model`` for (our) options."""
    ours = {name: value for name, value in CareamicsUnet(**options).options.items() if name != "early"}
    return {"architecture": "UNet", "final_activation": "None", **{WORDS.get(k, k): v for k, v in ours.items()}}


STATISTICS = {
    "name": "mean_std",
    "per_channel": True,
    "skip_target": False,
    "input_means": [300.0],
    "input_stds": [140.0],
    "target_means": [430.0],
    "target_stds": [180.0],
}


def checkpoint(algorithm="care", normalization=None, **options):
    """What CAREamics 0.3.5 hands to ``torch.save``."""
    return {
        "epoch": 1,
        "global_step": 4,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": state_dict("model.", **options),
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.001, "params": [0, 1]}]}],
        "hparams_name": None,
        "hyper_parameters": {
            "algorithm_config": {"algorithm": algorithm, "loss": "mae", "model": model_config(**options)},
        },
        "datamodule_hyper_parameters": {
            "data_config": {
                "mode": "training",
                "axes": "YX",
                "channels": None,
                "normalization": STATISTICS if normalization is None else normalization,
            }
        },
        "careamics_info": {"version": "0.3.0", "experiment_name": "cells", "training_config": {}},
    }


def early_checkpoint(algorithm="care", **options):
    """What CAREamics 0.0.12 and 0.0.22 hand to ``torch.save``: one configuration, statistics as words."""
    supervised = algorithm != "n2v"
    return {
        "epoch": 0,
        "pytorch-lightning_version": "2.5.0.post0",
        "state_dict": state_dict("model.", **options),
        "hyper_parameters": {
            "version": "0.1.0",
            "experiment_name": "cells",
            "algorithm_config": {"algorithm": algorithm, "loss": "mae", "model": model_config(**options)},
            "data_config": {
                "data_type": "array",
                "axes": "YX",
                "image_means": ["3.0000000e+02"],
                "image_stds": ["1.4000000e+02"],
                "target_means": ["4.3000000e+02"] if supervised else [],
                "target_stds": ["1.8000000e+02"] if supervised else [],
            },
            "training_config": {"num_epochs": 1},
        },
    }
