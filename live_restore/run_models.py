"""The models of a run: which package restores which channel, as the run noted it or as somebody names it now.

Receives a run folder and names; hands on packages, verified to be the run's. It does not know volumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from live_restore.engines.certificates.certificate import ANYTHING, Tolerance
from live_restore.errors import ModelError
from live_restore.models.package import ModelPackage, open_package
from live_restore.records.runs import RUN, RunFolder
from live_restore.restorer import Mode

# The model of every channel that has none of its own.
OTHERS = "*"
_CURE = "name it with --model PACKAGE or --model CHANNEL=PACKAGE"


@dataclass(frozen=True, slots=True)
class ModelUsed:
    """Which package restores a channel, and how.

    Attributes
    ----------
    channel : str
        ``*``: every channel without a model of its own.
    package : Path
    sha256 : str
        Of its weights, as the run noted it; empty: whichever they are.
    engine, precision : str
    mode : {"frozen", "rolling", "volume"} or None
        None: what the package says.
    tolerance : Tolerance or None
        How far from float32 the precision may be; anything, where it restored live already; None: as usual.
    """

    channel: str
    package: Path
    sha256: str = ""
    engine: str = "auto"
    precision: str = "auto"
    mode: Mode | None = None
    tolerance: Tolerance | None = None


def models_of(run: RunFolder, named: Mapping[str, Path]) -> list[ModelUsed]:
    """Say which models restore the channels of a run: those that are named now, and else those that it noted.

    A package that is named now takes the engine, precision and normalisation that the run noted for its channel.

    Raises
    ------
    ModelError
        If there are none.
    """
    noted = run.described(RUN).get("models")
    rows = [_used(row) for row in noted if isinstance(row, dict)] if isinstance(noted, list) else []
    models = {row.channel: row for row in rows if row is not None}
    for channel, package in named.items():
        noted_for = models.get(channel, ModelUsed(channel, package))
        models[channel] = replace(noted_for, package=package, sha256="", tolerance=None)
    if not models:
        raise ModelError(f"{run.path} names no model, as no restore process was there; {_CURE}")
    return list(models.values())


def _used(row: Mapping[str, Any]) -> ModelUsed | None:
    """Read one model of ``run.json``; None for one that was loading or had failed."""
    words = [row.get(name) for name in ("channel", "package", "sha256", "engine", "precision", "normalisation")]
    channel, package, sha256, engine, precision, mode = (word if isinstance(word, str) else "" for word in words)
    if row.get("state", "ready") != "ready":
        return None
    return ModelUsed(
        channel or OTHERS,
        Path(package or str(row.get("model") or "without a name")),
        sha256,
        engine.split(" ")[0] or "auto",  # the kind, from words such as "openvino 2026.4, f32, on ..."
        precision or "auto",
        cast("Mode", mode) if mode in get_args(Mode) else None,
        ANYTHING,
    )


def open_used(used: ModelUsed) -> ModelPackage:
    """Open the package of a model, and see that it is the run's."""
    whose = "" if used.channel == OTHERS else f" of channel '{used.channel}'"
    if not used.package.exists():
        raise ModelError(f"the model{whose} of this run, {used.package}, is not there; {_CURE}")
    package = open_package(used.package)
    if used.sha256 and package.onnx_sha256 != used.sha256.lower():
        raise ModelError(
            f"{used.package} has other weights (sha256 {package.onnx_sha256[:12]}...) than the model{whose} of this run "
            f"({used.sha256[:12]}...); {_CURE}"
        )
    if package.facts.channels_in != 1 or package.facts.channels_out != 1:
        raise ModelError(
            f"model '{package.name}' takes {package.facts.channels_in} channel(s) and gives {package.facts.channels_out}; in a "
            "run every channel is restored on its own: use this model with live-restore restore"
        )
    return package
