"""The networks themselves, in torch (extra `train`), chosen by the kind that a model package names.

Receives a kind and its options (``Architecture.kind`` and ``.options``); hands on a network with fresh weights. torch is
imported only when a network is built. It does not know weight files, engines or images.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from live_restore.errors import ModelError

if TYPE_CHECKING:
    from live_restore.models.nets.layers import Net

# kind: (module, class); a module is imported when its network is asked for.
NETS = {
    "care": ("live_restore.models.nets.care", "CareNet"),
    "projection_care": ("live_restore.models.nets.projection", "ProjectionCareNet"),
    "rcan": ("live_restore.models.nets.rcan", "RcanNet"),
    "careamics_unet": ("live_restore.models.nets.careamics_unet", "CareamicsUnet"),
}


def build_net(kind: str, options: Mapping[str, Any], seed: int | None = None) -> "Net":
    """Build a network by name, with untrained weights.

    Parameters
    ----------
    kind : str
        A key of `NETS`.
    options : dict
        Constructor arguments of the network; what is missing takes its default. ``net.options`` gives them back complete.
    seed : int, optional
        For weights that can be drawn again; otherwise from torch's global random state.

    Returns
    -------
    Net
        A ``torch.nn.Module``, (N, C, [Z,] Y, X) float32 in and out.

    Raises
    ------
    ValueError
        If kind, an option's name or an option's value is impossible.
    ModelError
        If torch is not installed.
    """
    if kind not in NETS:
        raise ValueError(f"no network of kind {kind!r}; the kinds are {', '.join(NETS)}")
    net_class = _load(*NETS[kind])
    known = inspect.signature(net_class).parameters
    if strange := sorted(set(options) - set(known)):
        raise ValueError(f"a {kind} network has no option {', '.join(strange)}; its options are {', '.join(known)}")
    if "n_dim" not in options:
        raise ValueError(f"a {kind} network needs the option n_dim: 2 for images, 3 for volumes")
    net: Net = net_class(**options)
    if seed is not None:
        net.draw_weights(seed)
    return net


def _load(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        raise ModelError("building a network needs torch, which is not installed: pip install live_restore[train]") from None
