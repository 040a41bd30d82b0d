"""The gate: a new model serves a channel only if it is better on the held-out pairs of every calibration that is kept.

Receives the new model, the one that serves, and calibrations; hands on a verdict. It does not know how models are trained, nor
what becomes of the verdict (see `live_restore.promote`).

The rule, all of it, for every calibration that has held-out pairs of the channel:

1. The new model's PSNR, averaged over the held-out pairs, is higher than the old one's; where no model serves yet, higher than
   the raw image's. No tolerance: a model that is not better has no business replacing one that is known.
2. It raises no more photon-consistency alarms than the old one (where none serves: none), but for one image in twenty.
3. Its largest bias, over tenths of the pixels, exceeds the old one's by at most 2 % of the range, or stays below 5 %; where
   none serves, it stays below 15 %, beyond which restored intensities are no intensities any more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from live_restore.errors import PairError
from live_restore.evaluation.evaluate import evaluate
from live_restore.evaluation.scores import Evaluation
from live_restore.models.package import open_package
from live_restore.records.pair_positions import split_positions
from live_restore.records.pairs import LINES, Pair, file_sha256, read_pairs
from live_restore.restore.noise import CameraNoise
from live_restore.serving.models import ModelChoice

Told = Callable[[int, int], None]

# Honest networks show 1 to 5 % in the brightest tenth at 60 to 5 photons per pixel, one that was trained too briefly 10 %.
FIRST_BIAS_PERCENT, _LITTLE_BIAS_PERCENT, _MORE_BIAS_PERCENT = 15.0, 5.0, 2.0
# The check's own false alarms, and single odd structures, are let pass: one image in so many.
_IMAGES_PER_ALARM = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """How two models compare on one calibration.

    Attributes
    ----------
    calibration : str
    pairs : int
    raw_db, new_db : float
        Mean PSNR over the held-out pairs.
    old_db : float or None
        None where no model serves yet.
    gained_db : float
        New over old, or over raw; the mean of the differences pair by pair.
    error_db : float or None
        Half of its 95 % confidence interval, from the scatter of these differences; None for a single pair.
    new_alarms, old_alarms : int or None
        Images that disagree with their photons; None where the camera's noise is not known.
    new_bias, old_bias : float or None
        Largest bias of a tenth of the pixels, per cent of the range.
    against : tuple of str
        What speaks against the new model here; empty if nothing does.
    """

    calibration: str
    pairs: int
    raw_db: float
    new_db: float
    old_db: float | None
    gained_db: float
    error_db: float | None
    new_alarms: int | None
    old_alarms: int | None
    new_bias: float | None
    old_bias: float | None
    against: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model may serve.

    Attributes
    ----------
    standings : tuple of Standing
        One per calibration that has a say.
    same : bool
        Whether it is the very model that serves already.
    notes : tuple of str
        What should be known of the comparison, e.g. calibrations that have no say.
    """

    standings: tuple[Standing, ...]
    same: bool = False
    notes: tuple[str, ...] = ()

    @property
    def against(self) -> tuple[str, ...]:
        """Everything that speaks against promoting it; empty if it may serve."""
        if self.same:
            return ("this very network serves already",)
        return tuple(f"{one.calibration}: {sentence}" for one in self.standings for sentence in one.against)

    @property
    def better(self) -> bool:
        """Whether it may serve."""
        return not self.against

    @property
    def praise(self) -> str:
        """What it gained on each calibration, in words."""
        return ", ".join(f"{one.calibration} {one.gained_db:+.2f} dB" for one in self.standings)


def kept_calibrations(
    folder: Path, others: Sequence[Path], channel: str
) -> tuple[dict[str, tuple[Pair, ...]], tuple[str, ...]]:
    """Find the held-out pairs of a channel in all calibrations.

    Parameters
    ----------
    folder : Path
        Whose sub-folders are the calibrations that are kept; need not exist.
    others : sequence of Path
        Further folders of pairs.
    channel : str
        Pairs of which nobody said the channel count too.

    Returns
    -------
    calibrations : dict of str to tuple of Pair
        By the name of their folder.
    notes : tuple of str
        Which folders have no say, and why.

    Raises
    ------
    PairError
        If a further folder is none of pairs, or no folder has a held-out pair.
    """
    kept = sorted(path for path in folder.iterdir() if _looks_like_pairs(path)) if folder.is_dir() else []
    found: dict[str, tuple[Pair, ...]] = {}
    notes: list[str] = []
    here, named = ([one.resolve() for one in paths] for paths in (kept, others))
    for path in dict.fromkeys([*here, *named]):
        name = path.name if path.name not in found else str(path)
        try:
            chosen, why = held_out_pairs(path, channel)
        except PairError as error:
            if path not in here:
                raise
            chosen, why = (), str(error)  # a calibration that ended before its first pair leaves such a folder
        if chosen:
            found[name] = chosen
        notes += [f"{name}: {why}"] if why else []
    if not found:
        reasons = f" ({'; '.join(notes)})" if notes else ""
        raise PairError(
            f"no calibration has held-out pairs of {channel} to judge by: {len(kept)} folders of pairs are in {folder}, and "
            f"{len(others)} were named{reasons}; take some with live-restore calibrate, or name folders with --pairs"
        )
    return found, tuple(notes)


def _looks_like_pairs(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_dir():
        return False
    return (path / LINES).exists() or any(child.name.lower() in ("low", "raw") for child in path.iterdir())


def held_out_pairs(folder: Path, channel: str | None = None) -> tuple[tuple[Pair, ...], str]:
    """Choose the held-out pairs of a folder; where nobody said which, as training chooses by itself.

    Parameters
    ----------
    folder : Path
    channel : str or None
        None: all channels.

    Returns
    -------
    pairs : tuple of Pair
    why : str
        What had to be assumed, or why there are none.

    Raises
    ------
    PairError
        If it is no folder of pairs.
    """
    accepted = [pair for pair in read_pairs(folder).accepted if channel is None or pair.channel in (channel, "")]
    if not accepted:
        return (), f"no accepted pairs of {channel or 'any channel'}"
    if any(pair.split for pair in accepted):
        held_out = tuple(pair for pair in accepted if pair.split == "held-out")
        return held_out, "" if held_out else "all of its pairs are for training, none is held out"
    try:
        divided = split_positions(accepted)
    except PairError as error:
        return (), str(error)
    return tuple(pair for pair in divided if pair.split == "held-out"), "nobody said which positions are held out: chosen anew"


def judge(
    new: ModelChoice,
    old: ModelChoice | None,
    calibrations: Mapping[str, Sequence[Pair]],
    noise: CameraNoise | None = None,
    listener: Told | None = None,
) -> Verdict:
    """Compare two models on the held-out pairs of all calibrations, each as it would be served.

    Parameters
    ----------
    new : ModelChoice
    old : ModelChoice or None
        None: no model serves, and the new one is compared with the raw images.
    calibrations : mapping of str to sequence of Pair
    noise : CameraNoise or None
    listener : callable (done, total), optional
        Called after every restored image.

    Raises
    ------
    PairError
        If a model has learned from all of them.
    ModelError, ImageError, EngineError, ValueError
        If a model cannot be opened or a pair cannot be restored.
    """
    if old is not None and open_package(new.package).onnx_sha256 == open_package(old.package).onnx_sha256:
        return Verdict((), same=True)
    calibrations, notes = _unseen(calibrations, [choice for choice in (new, old) if choice is not None])
    pairs = [pair for chosen in calibrations.values() for pair in chosen]
    told = _Told(listener, len(pairs) * (1 if old is None else 2))
    news = _evaluated(new, pairs, noise, told)
    olds = None if old is None else _evaluated(old, pairs, noise, told)
    standings, first = [], 0
    for name, chosen in calibrations.items():
        here = slice(first, first + len(chosen))
        first += len(chosen)
        mine = replace(news, scores=news.scores[here])
        standings.append(compare(name, mine, None if olds is None else replace(olds, scores=olds.scores[here])))
    return Verdict(tuple(standings), notes=notes)


def _unseen(
    calibrations: Mapping[str, Sequence[Pair]], choices: Sequence[ModelChoice]
) -> tuple[dict[str, Sequence[Pair]], tuple[str, ...]]:
    """Leave out the pairs that either model has learned from; nobody is judged by those.

    Raises
    ------
    PairError
        If none are left.
    """
    seen = frozenset().union(*(open_package(choice.package).learned_from() for choice in choices))
    kept: dict[str, Sequence[Pair]] = {}
    notes = []
    for name, pairs in calibrations.items():
        fresh = [pair for pair in pairs if not seen or file_sha256(pair.low) not in seen]
        if left := len(pairs) - len(fresh):
            notes.append(f"{name}: {left} of {len(pairs)} held-out pairs are left out, for a model has learned from them")
        if fresh:
            kept[name] = fresh
    if not kept:
        raise PairError(
            "the models have learned from every held-out pair of the calibrations that are kept: nothing is left to judge by; "
            "take a new calibration, or train without the held-out pairs (leave out --held-out-from and --held-out)"
        )
    return kept, tuple(notes)


class _Told:
    """Counts the pairs through both models."""

    def __init__(self, listener: Told | None, total: int) -> None:
        self._listener, self._total, self._done = listener, total, 0

    def __call__(self, done: int, total: int) -> None:
        self._done += 1
        if self._listener is not None:
            self._listener(self._done, self._total)


def _evaluated(choice: ModelChoice, pairs: Sequence[Pair], noise: CameraNoise | None, told: _Told) -> Evaluation:
    return evaluate(
        choice.package,
        pairs,
        engine=choice.engine,
        precision=choice.precision,
        mode=choice.mode,
        tolerance=choice.tolerance,
        noise=noise,
        baselines=False,
        cases=False,
        listener=told,
    )


def compare(calibration: str, new: Evaluation, old: Evaluation | None) -> Standing:
    """Compare two evaluations of the same pairs, or one with the raw images."""
    olds = [score.raw.psnr_db for score in new.scores] if old is None else [score.restored.psnr_db for score in old.scores]
    gains = np.array([score.restored.psnr_db for score in new.scores]) - olds
    judged = new.noise != ""
    alarms = len(new.distrusted), (0 if old is None else len(old.distrusted))
    biases = None if new.bias is None else new.bias.worst, None if old is None or old.bias is None else old.bias.worst
    said = [*_not_better(gains, old is None), *_alarming(new, alarms), *_biased(*biases)]
    return Standing(
        calibration=calibration,
        pairs=len(gains),
        raw_db=new.mean["raw_psnr_db"],
        new_db=new.mean["psnr_db"],
        old_db=None if old is None else old.mean["psnr_db"],
        gained_db=float(gains.mean()),
        error_db=_half_interval(gains),
        new_alarms=alarms[0] if judged else None,
        old_alarms=alarms[1] if judged and old is not None else None,
        new_bias=biases[0],
        old_bias=biases[1],
        against=tuple(said),
    )


def _not_better(gains: "np.ndarray[Any, np.dtype[np.float64]]", first: bool) -> list[str]:
    mean = float(gains.mean())
    if mean > 0:
        return []
    other = "the raw images" if first else "the model that serves"
    error = _half_interval(gains)
    scatter = "" if error is None else f" ± {error:.2f}"
    return [f"it is not better than {other}, by {mean:+.2f}{scatter} dB on {len(gains)} held-out pair(s)"]


def _half_interval(gains: "np.ndarray[Any, np.dtype[np.float64]]") -> float | None:
    """Half of the 95 % confidence interval of the mean, Student's t."""
    from scipy.stats import t

    if len(gains) < 2:
        return None
    return float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5)


def _alarming(new: Evaluation, alarms: tuple[int, int]) -> list[str]:
    allowed = max(alarms[1], len(new.scores) // _IMAGES_PER_ALARM)
    if alarms[0] <= allowed:
        return []
    first = new.distrusted[0]
    return [
        f"{alarms[0]} of {len(new.scores)} restored images disagree with their photons, {allowed} may: in {first.name}, "
        f"{first.why}"
    ]


def _biased(new: float | None, old: float | None) -> list[str]:
    limit = FIRST_BIAS_PERCENT if old is None else max(_LITTLE_BIAS_PERCENT, old + _MORE_BIAS_PERCENT)
    if new is None or new <= limit:
        return []
    return [f"its intensities are off by up to {new:.1f} % of the range, {limit:.1f} % are allowed"]
