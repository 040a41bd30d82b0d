"""The export: from trained weights to a package with its scores and its report, whole or not at all.

Receives a trained network and what it was trained on; hands on a model package. What is scored is what was written: a draft of
the package, through the engine that serves. It does not know how the network was trained.
"""

import hashlib
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from live_restore import __version__
from live_restore.errors import ImageError, LiveRestoreError
from live_restore.evaluation.evaluate import evaluate
from live_restore.evaluation.real_crops import real_crops
from live_restore.evaluation.report import write_report
from live_restore.evaluation.scores import Evaluation
from live_restore.intensity import IntensityRange, measure_percentiles
from live_restore.models.facts import Architecture, FrozenRange, ModelFacts, Normalisation, Provenance
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets.layers import Net
from live_restore.models.onnx_export import run_net, to_onnx
from live_restore.models.package import LEARNED_FROM, ModelPackage, open_package, write_package
from live_restore.models.real_images import REAL_IMAGES, pack
from live_restore.records.pairs import Pair
from live_restore.restore.noise import CameraNoise
from live_restore.training.held_out import HeldOut
from live_restore.training.members import Ensemble
from live_restore.training.options import Scaling, TrainingOptions
from live_restore.training.progress import Entry, Nobody, TrainingListener

# Y and X of the test image in a package, and its planes.
_TEST_SIDES = {2: (128, 128), 3: (16, 64, 64)}
_NAMES = {"care": "CARE", "rcan": "RCAN"}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trained:
    """A trained network and where it came from.

    Attributes
    ----------
    net : Net
        On the CPU.
    options : TrainingOptions
    pairs_sha256 : str
    learned_from : sequence of str
        The sha256 of every low-light image that it has seen.
    held_out : HeldOut
        An image of it becomes the package's test image.
    frozen : IntensityRange or None
        The range of all training images, where it was frozen.
    channel : str or None
    pixel_size_um : tuple of float or None
        Per spatial axis of the network.
    light_levels : dict
    history : list of Entry
    notes : tuple of str
        For the provenance.
    teacher : str
        Who taught it; empty if only the truth did.
    """

    net: Net
    options: TrainingOptions
    pairs_sha256: str
    learned_from: Sequence[str] = ()
    held_out: HeldOut
    frozen: IntensityRange | None = None
    channel: str | None = None
    pixel_size_um: tuple[float, ...] | None = None
    light_levels: Mapping[str, float]
    history: Sequence[Entry]
    notes: tuple[str, ...] = ()
    teacher: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trial:
    """How the draft is scored.

    Attributes
    ----------
    pairs : sequence of Pair
        Held-out ones; none: it is not scored.
    camera : CameraNoise or None
    seconds : float
        What scoring may take, about; fewer pairs are scored where it would take longer.
    cards : sequence of mapping
        Of the folders of pairs, for the report.
    """

    pairs: Sequence[Pair]
    camera: CameraNoise | None = None
    seconds: float = math.inf
    cards: Sequence[Mapping[str, Any]] = ()


def export(
    path: Path, name: str, trained: Trained, trial: Trial, overwrite: bool = False, listener: TrainingListener | None = None
) -> tuple[ModelPackage, Evaluation | None]:
    """Write the package, with scores, report, options and history in it.

    Parameters
    ----------
    path : Path
        A folder or a ``.zip``.
    name : str
        Of the model.
    trained : Trained
    trial : Trial
    overwrite : bool
        Replace a package that is there already.
    listener : TrainingListener, optional

    Raises
    ------
    ModelError
        If something is there already, or bioimageio.spec refuses the package.
    """
    write = _writer(name, trained)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-", ignore_cleanup_errors=True) as hidden:
        draft = Path(hidden) / "draft"
        # with the images that it is certified with, so that it is scored at the precision that it will be served at
        certified_with = _real_images(trained, trial)
        write(draft, {}, certified_with, False)
        scored = _score(draft, trial, listener or Nobody())
        extras = _extras(trained, scored, trial.cards, Path(hidden)) | certified_with
    scores = {} if scored is None else {key: value for key, value in scored.mean.items() if math.isfinite(value)}
    return write(path, scores, extras, overwrite), scored


def _writer(name: str, trained: Trained) -> Callable[[Path, Mapping[str, float], Mapping[str, bytes], bool], ModelPackage]:
    """Prepare what does not depend on the scores, once."""
    onnx = to_onnx(trained.net)
    facts = _facts(trained, onnx)
    test_input = _test_input(trained, facts)
    test_output = run_net(trained.net, test_input)

    def write(path: Path, scores: Mapping[str, float], extras: Mapping[str, bytes], overwrite: bool) -> ModelPackage:
        return write_package(
            path,
            name=name,
            description=describe(trained),
            onnx=onnx,
            test_input=test_input,
            test_output=test_output,
            facts=facts.model_copy(update={"scores": dict(scores)}),
            extras=extras,
            overwrite=overwrite,
        )

    return write


def describe(trained: Trained) -> str:
    """Say in one sentence what was trained on what."""
    network, members = trained.options.network, trained.options.fit.members
    several = f"An ensemble of {members}" if members > 1 else "A"
    s = "s" if members > 1 else ""
    sure = ", probabilistic" if network.probabilistic else ""
    what = "images made dim by computation" if trained.options.simulate else "pairs of low- and high-light images"
    how = f"distilled from {trained.teacher}" if trained.teacher else f"trained on {what}"
    return f"{several} {network.n_dim}D {_NAMES[network.kind]} network{s}{sure}, {how} by live_restore {__version__}."


def _facts(trained: Trained, onnx: bytes) -> ModelFacts:
    options = trained.options
    kind, net_options = (options.network.kind, trained.net.options)
    together = isinstance(trained.net, Ensemble)
    last = trained.history[-1]
    return ModelFacts(
        # an ensemble is served as a graph: no single network has its weights
        architecture=Architecture(
            kind="onnx" if together else kind,
            options={"network": kind, **net_options} if together else net_options,
            parameters=sum(weights.numel() for weights in trained.net.parameters()),
        ),
        geometry=measure_geometry(onnx),
        probabilistic=bool(net_options.get("probabilistic", False)),
        normalisation=_normalisation(options.normalisation, trained.frozen),
        provenance=Provenance(
            source_format="trained",
            source_name="pairs",
            source_sha256=hashlib.sha256(onnx).hexdigest(),
            written_by=f"torch {torch.__version__}",
            imported_by=f"live_restore {__version__}",
            notes=(
                *trained.notes,
                f"{last.step} steps of {options.sampling.batch} patches, loss {options.fit.loss}, seed {options.fit.seed}, "
                f"Python {platform.python_version()}, numpy {np.__version__}",
                "target: the high-light image in the low one's counts, so that restored images are in camera counts",
            ),
        ),
        pixel_size_um=trained.pixel_size_um,
        channel=trained.channel,
        light_levels=dict(trained.light_levels),
        training_pairs_sha256=trained.pairs_sha256,
    )


def _normalisation(scaling: Scaling, frozen: IntensityRange | None) -> Normalisation:
    return Normalisation(
        measure="percentiles",
        low_percentile=scaling.low_percentile,
        high_percentile=scaling.high_percentile,
        mode=scaling.mode,
        frozen=None if frozen is None else FrozenRange(low=tuple(frozen.low.tolist()), high=tuple(frozen.high.tolist())),
    )


def _test_input(trained: Trained, facts: ModelFacts) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Cut a corner of a held-out image, scaled as the facts say; (1, 1, [Z,] Y, X)."""
    low = trained.held_out.images[0].low
    sides = [
        min(side, most) // step * step
        for side, most, step in zip(low.shape, _TEST_SIDES[low.ndim], facts.geometry.divisible_by, strict=True)
    ]
    corner = np.ascontiguousarray(low[tuple(slice(side) for side in sides)])[None]  # (1, [Z,] Y, X)
    if facts.normalisation.mode == "frozen":
        return corner[None]
    rule = facts.normalisation
    return measure_percentiles(corner, rule.low_percentile, rule.high_percentile).scale(corner)[None]


# Seconds that scoring takes on two cores, per 512 x 512 pixels: the network and its figures, and the filters to compare with.
_SCORING_S, _BASELINES_S = 0.4, 1.0


def scoring_seconds(pixels: float) -> float:
    """Guess what scoring in full takes, for so many pixels in all held-out images together."""
    return pixels / 512**2 * (_SCORING_S + _BASELINES_S)


def _score(draft: Path, trial: Trial, listener: TrainingListener) -> Evaluation | None:
    """Score as much as there is time for; an even choice first."""
    if not trial.pairs:
        return None
    listener.said(f"scoring {len(trial.pairs)} held-out pair(s) as they will be served")
    baselines = scoring_seconds(len(trial.pairs) * trial.pairs[0].read()[0].size) < trial.seconds
    until = time.monotonic() + trial.seconds
    pairs = trial.pairs if math.isinf(until) else evenly(trial.pairs)
    try:
        return evaluate(open_package(draft), pairs, noise=trial.camera, baselines=baselines, until=until)
    except (ImageError, ValueError) as error:
        raise LiveRestoreError(f"the network was trained, but could not be scored: {error}") from error


def evenly(pairs: Sequence[Pair]) -> list[Pair]:
    """Order pairs so that any first few of them are spread over all: the middle, the quarters, the eighths, ..."""
    number, step, order = len(pairs), 1, dict[int, None]()
    while len(order) < number:
        order.update(dict.fromkeys(int((2 * part + 1) * number / (2 * step)) for part in range(step)))
        step *= 2
    return [pairs[place] for place in order]


def _extras(trained: Trained, scored: Evaluation | None, cards: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, bytes]:
    rows = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(entry).items()}
        for entry in trained.history
    ]
    history = {"format": 1, "entries": rows}
    options = trained.options.to_toml()
    extras = {"training.toml": options.encode(), "history.json": _json(history)}
    extras[LEARNED_FROM] = "".join(f"{sha256}\n" for sha256 in sorted(trained.learned_from)).encode()
    if scored is not None:
        extras["evaluation.json"] = _json(scored.as_json())
        page = folder / "report.html"
        write_report(page, scored, history=history, options_toml=options, cards=cards)
        extras["report.html"] = page.read_bytes()
    return extras


def _real_images(trained: Trained, trial: Trial) -> dict[str, bytes]:
    """Cut what engines are certified with out of the held-out pairs."""
    origin = "made dim" if trained.options.simulate else "held-out"
    crops = real_crops(trial.pairs, trained.options.network.n_dim, origin, trial.camera) if trial.pairs else None
    return {} if crops is None else {REAL_IMAGES: pack(crops)}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
