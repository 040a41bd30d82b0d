"""The presets: sensible options for each network, ``quick`` and ``best``.

Receives a kind of network and the name of a preset; hands on `TrainingOptions`. It does not know the pairs, so nothing here
depends on how many there are.
"""

from typing import Any, Literal

from live_restore.config import check
from live_restore.training.options import Kind, TrainingOptions

Preset = Literal["quick", "best"]

# In runs of minutes a shorter memory for the size of gradients than torch's 0.999 is a little better (measured).
_SHORT_MEMORY = 0.99

# Patches of several depths, see `Sampling`. The larger ones are for channel attention, which pools over a patch here and over
# a whole image in use.
_PATCHES_3D = ((8, 64, 64), (12, 64, 64), (16, 64, 64))
_WIDE_PATCHES_3D = ((8, 80, 80), (12, 80, 80), (16, 80, 80))

# Two pixels a side are folded into one, and the input is added through a filter: more is learned in the same time.
_FOLDED = {"entry": 2, "skip_kernel": 7}

_NETWORKS: dict[tuple[str, int, str], dict[str, Any]] = {
    ("care", 2, "quick"): {
        "network": {"options": {"depth": 2, "kernel": 3, "first_filters": 32, "residual": True, **_FOLDED}},
        "sampling": {"patches": ((64, 64),), "batch": 8},
        "fit": {"learning_rate": 2e-3, "gradient_norm": 0.0},
    },
    ("care", 2, "best"): {
        "network": {"options": {"depth": 3, "kernel": 3, "first_filters": 32, "residual": True}},
        "sampling": {"patches": ((128, 128),), "batch": 16},
        "fit": {"learning_rate": 1e-3},
    },
    ("care", 3, "quick"): {
        "network": {"options": {"depth": 2, "kernel": 3, "first_filters": 8, "residual": True}},
        "sampling": {"patches": _PATCHES_3D, "batch": 4},
        "fit": {"learning_rate": 2e-3},
    },
    ("care", 3, "best"): {
        "network": {"options": {"depth": 2, "kernel": 3, "first_filters": 32, "residual": True}},
        "sampling": {"patches": _PATCHES_3D, "batch": 8},
        "fit": {"learning_rate": 8e-4},
    },
    ("rcan", 2, "quick"): {
        "network": {"options": {"channels": 16, "blocks": 2, "groups": 2, "reduction": 4}},
        "sampling": {"patches": ((96, 96),), "batch": 8},
        "fit": {"learning_rate": 2e-3},
    },
    ("rcan", 2, "best"): {
        "network": {"options": {"channels": 32, "blocks": 3, "groups": 5, "reduction": 8}},
        "sampling": {"patches": ((128, 128),), "batch": 8},
        "fit": {"learning_rate": 5e-4},
    },
    ("rcan", 3, "quick"): {
        "network": {"options": {"channels": 16, "blocks": 1, "groups": 2, "reduction": 4}},
        "sampling": {"patches": _WIDE_PATCHES_3D, "batch": 2},
        "fit": {"learning_rate": 1.5e-3},
    },
    ("rcan", 3, "best"): {
        "network": {"options": {"channels": 32, "blocks": 3, "groups": 5, "reduction": 8}},
        "sampling": {"patches": _WIDE_PATCHES_3D, "batch": 4},
        "fit": {"learning_rate": 5e-4},
    },
}
_FITS: dict[str, dict[str, Any]] = {
    "quick": {"minutes": 4.0, "ema": 0.995, "beta2": _SHORT_MEMORY},
    "best": {"minutes": 120.0, "patience": 20},
}


def preset(kind: Kind, n_dim: Literal[2, 3], name: Preset = "quick", probabilistic: bool = False) -> TrainingOptions:
    """Give the options of a preset.

    Parameters
    ----------
    kind : {"care", "rcan"}
    n_dim : {2, 3}
    name : {"quick", "best"}
        ``quick``: minutes on the processor of a laptop. ``best``: a larger network, for hours or a graphics card.
    probabilistic : bool
        Whether a CARE network also learns how sure it is.

    Raises
    ------
    ValueError
        If there is no such preset, or a probabilistic network of a kind that cannot be.
    """
    words = _NETWORKS.get((kind, n_dim, name))
    if words is None:
        raise ValueError(f"there is no preset {name!r} for {kind} {n_dim}D; kinds are care and rcan, 2D and 3D, quick and best")
    if probabilistic and kind != "care":
        raise ValueError(f"a {kind} network gives no scale; only care can be probabilistic")
    network, fit = words["network"], {**_FITS[name], **words["fit"]}
    if probabilistic:
        network, fit = {"options": {**network["options"], "probabilistic": True}}, {**fit, "loss": "laplace"}
    chosen = {
        **words,
        "network": {"kind": kind, "n_dim": n_dim, **network},
        "augment": {"thinning": (0.5, 1.0)},
        "fit": fit,
    }
    return check(chosen, TrainingOptions, f"preset {name}")
