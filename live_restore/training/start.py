"""The start: with fresh weights, or with those of a package that is to be trained further.

Receives options and perhaps a package; hands on a network of `live_restore.models.nets`. The weights of a package, trained
here or imported, are read from its ONNX graph by their names. It does not know pairs or batches.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from live_restore.errors import TrainingError
from live_restore.models.nets import build_net
from live_restore.models.nets.layers import Net
from live_restore.models.package import ModelPackage
from live_restore.training.options import NET_OPTIONS, Kind, TrainingOptions

# Further training takes this part of a preset's learning rate: with the whole of it, a network first forgets (measured with
# CSBDeep's weights on crops: after five steps it gains 0.1 dB over raw, with a tenth 1.6 dB).
_GENTLER = 0.1

# A CARE network may learn to give a scale later; this part of it then starts fresh.
_SCALE_HEAD = "head_scale."


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Weights to begin with, by the names of the torch parameters, and where they came from."""

    weights: dict[str, torch.Tensor]
    package: str
    onnx_sha256: str


def build_start(options: TrainingOptions, seed: int, start: Start | None = None) -> Net:
    """Build the network that is to be trained."""
    net = build_net(options.network.kind, options.network.net_options, seed)
    if start is not None:
        missing, _ = net.load_state_dict(start.weights, strict=False)
        if strange := [name for name in missing if not name.startswith(_SCALE_HEAD)]:
            raise TrainingError(_not_in(start.package, strange[0]))
    return net


def start_from(package: ModelPackage) -> Start:
    """Read the weights of a package.

    Raises
    ------
    TrainingError
        If it is no network that can be trained here.
    """
    check_trainable(package)
    graph = onnx.load_model_from_string(package.onnx()).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    architecture = package.facts.architecture
    wanted = build_net(architecture.kind, architecture.options).state_dict()
    weights = {}
    for name, like in wanted.items():
        if name not in held or held[name].shape != tuple(like.shape):
            raise TrainingError(_not_in(package.name, name))
        weights[name] = torch.from_numpy(np.array(held[name], np.float32))
    return Start(weights, package.name, package.onnx_sha256)


def continued(options: TrainingOptions, package: ModelPackage) -> TrainingOptions:
    """Give the options with the network of a package, and with its percentiles.

    Raises
    ------
    TrainingError
        If the package is no network that can be trained here.
    """
    check_trainable(package)
    facts = package.facts
    kept: dict[str, Any] = {
        key: facts.architecture.options[key]
        for key in NET_OPTIONS[facts.architecture.kind]
        if key in facts.architecture.options
    }
    if options.network.probabilistic and facts.architecture.kind == "care":
        kept["probabilistic"] = True
    loss = _fitting_loss(options.fit.loss, bool(kept.get("probabilistic")))
    rule = facts.normalisation
    percentiles = {}
    if rule.measure == "percentiles":
        percentiles = {"low_percentile": rule.low_percentile, "high_percentile": rule.high_percentile}
    network = {"kind": facts.architecture.kind, "n_dim": facts.geometry.n_dim, "options": kept}
    return options.changed(network=network, fit={"loss": loss}, normalisation=percentiles)


def gentler(options: TrainingOptions) -> TrainingOptions:
    """Give the options with a learning rate for weights that are good already."""
    return options.changed(fit={"learning_rate": _GENTLER * options.fit.learning_rate})


def _fitting_loss(loss: str, probabilistic: bool) -> str:
    if probabilistic:
        return "laplace"
    return "mae" if loss == "laplace" else loss


def as_preset(package: ModelPackage) -> tuple[Kind, Literal[2, 3]]:
    """Say which presets the network of a package belongs to."""
    facts = package.facts
    kind: Kind = "rcan" if facts.architecture.kind == "rcan" else "care"
    return kind, 3 if facts.geometry.n_dim == 3 else 2


def check_trainable(package: ModelPackage) -> None:
    """Refuse a package that can only be served.

    Raises
    ------
    TrainingError
    """
    facts, name = package.facts, package.name
    kind = facts.architecture.kind
    if kind not in NET_OPTIONS:
        what = "a graph without its recipe" if kind == "onnx" else f"a network of the kind {kind}"
        raise TrainingError(
            f"model '{name}' is {what}, which can be served but not trained further; "
            "start from a CARE or RCAN package, trained here or imported from CSBDeep or 3D-RCAN, or train anew without --from"
        )
    if facts.channels_in != 1 or facts.channels_out != 1:
        raise TrainingError(
            f"model '{name}' has {facts.channels_in} channels in and {facts.channels_out} out; "
            "training further is for networks of one channel"
        )
    if facts.procedure != "direct" or set(facts.geometry.output_factor) != {1}:
        raise TrainingError(
            f"model '{name}' changes the number of pixels ({facts.procedure}, output factor {facts.geometry.output_factor}); "
            "pairs have images of one size, so only networks that keep sizes can be trained further"
        )


def _not_in(package: str, name: str) -> str:
    return (
        f"the graph of model '{package}' holds no weights '{name}' of the size that its description promises; "
        "import the model again, or train anew without --from"
    )
