"""Evaluating: every held-out pair restored by the very engine that restores live, and compared with its high-light image.

Receives a model package and pairs; hands on an `Evaluation`. It trains nothing, needs no torch, and does not know what is done
with the figures.
"""

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from live_restore import __version__
from live_restore.engines.certificates.certificate import Tolerance
from live_restore.errors import ModelError, PairError
from live_restore.evaluation.baselines import MOST_FOR_NLM, best_gaussian, best_non_local_means, middle
from live_restore.evaluation.overlaid import Overlaid
from live_restore.evaluation.scores import Case, Evaluation, Figures, PairScore
from live_restore.models.package import ModelPackage, open_package
from live_restore.models.registry import summary_row
from live_restore.pairs.moved import cut_moved, overlap_window
from live_restore.records.pairs import Pair, pairs_sha256
from live_restore.restore.noise import CameraNoise
from live_restore.restore.trust import TrustCheck
from live_restore.restorer import Mode, Restorer
from live_restore.score import Likeness, score_pair

Told = Callable[[int, int], None]

# A smaller shift between low and high than this is within the error of its measurement.
_LEAST_SHIFT_PX = 0.05
_HIGHEST_DB = 120.0
_WORST_SHOWN = 2


def evaluate(  # noqa: PLR0913  (keywords, each with its own default)
    package: Path | ModelPackage,
    pairs: Sequence[Pair],
    *,
    engine: str = "auto",
    precision: str = "auto",
    mode: Mode | None = None,
    tolerance: Tolerance | None = None,
    noise: CameraNoise | None = None,
    baselines: bool = True,
    cases: bool = True,
    until: float = math.inf,
    listener: Told | None = None,
) -> Evaluation:
    """Score a network on pairs that it did not see in training.

    Parameters
    ----------
    package : Path or ModelPackage
    pairs : sequence of Pair
        At least one; whoever calls has chosen the held-out ones.
    engine, precision, mode, tolerance
        As for `Restorer`, whose defaults are those of live restoration.
    noise : CameraNoise or None
        The camera's, if known: then the photon-consistency check gives its verdict on every pair.
    baselines : bool
        Whether to compare with filters too; takes about a second per plane of 512 x 512.
    cases : bool
        Whether to keep parts of the best, the median and the worst pairs, to be looked at.
    until : float
        ``time.monotonic()`` after which no further pair is begun; the first one always is; what was left out is noted.
    listener : callable (done, total), optional
        Called after every pair.

    Returns
    -------
    Evaluation

    Raises
    ------
    PairError
        If there are no pairs, or a pair cannot be read or compared.
    ModelError
        If the package takes several channels, or gives images of another size.
    ImageError, EngineError
        As `Restorer.restore`.
    """
    if not pairs:
        raise PairError("there are no pairs to score; name a folder that has accepted, held-out ones")
    opened = package if isinstance(package, ModelPackage) else open_package(package)
    _check_channels(opened)
    with Restorer(opened, engine=engine, precision=precision, mode=mode, tolerance=tolerance) as restorer:
        scorer = _Scorer(restorer, noise, baselines)
        scores: list[PairScore] = []
        for done, pair in enumerate(pairs, start=1):
            if scores and time.monotonic() > until:
                break
            scores.append(scorer.score(pair))
            if listener is not None:
                listener(done, len(pairs))
        left = len(pairs) - len(scores)
        pairs = pairs[: len(scores)]
        looked_at = _cases(scorer, pairs, scores) if cases else ()
        return Evaluation(
            model=opened.name,
            model_sha256=opened.onnx_sha256,
            network=", ".join(summary_row(opened)[:2]) + " parameters",
            engine=str(restorer.engine),
            precision=restorer.engine.precision,
            normalisation=restorer.normalisation.mode,
            probabilistic=opened.facts.probabilistic,
            pairs_sha256=pairs_sha256(pairs),
            scores=tuple(scores),
            noise="" if noise is None else noise.source,
            software=f"live_restore {__version__}",
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=(*scorer.notes, *((f"{left} more held-out pair(s) were not scored, for lack of time",) if left else ())),
            cases=looked_at,
        )


class _Scorer:
    """Scores pair after pair with one open model."""

    def __init__(self, restorer: Restorer, noise: CameraNoise | None, baselines: bool) -> None:
        self.restorer, self._noise, self._baselines = restorer, noise, baselines
        self._counts = restorer.normalisation.output != "none"
        self._checks: dict[str, TrustCheck] = {}
        self._moved = self._cropped = 0

    @property
    def notes(self) -> tuple[str, ...]:
        said = ["the high-light images have noise of their own, which counts as error of whatever is compared with them"]
        if self._baselines:
            said.append("the strength of each filter was chosen with the high image in hand, better than anybody could in use")
        if self._cropped:
            said.append(f"non-local means ran on the middle {MOST_FOR_NLM:,} pixels of {self._cropped} large images")
        if self._moved:
            said.append(f"{self._moved} high images were moved by the shift measured between the exposures")
        return tuple(said)

    def score(self, pair: Pair) -> PairScore:
        """Restore and compare one pair."""
        looked = self.look(pair)
        self._moved += _is_far(pair.shift_px)
        likeness = score_pair(looked.restored, looked.high, looked.low)
        assert likeness.raw is not None  # it was given
        baselines = self._compare(looked) if self._baselines else {}
        return PairScore(
            name=pair.name,
            channel=pair.channel,
            position=pair.position,
            source=pair.low.parent.parent.name,
            split=pair.split,
            restored=_figures(likeness.restored),
            raw=_figures(likeness.raw),
            coverage=looked.coverage(likeness.restored.slope, likeness.restored.offset),
            bias=looked.bias() if self._counts else None,
            **self._trust(pair.channel, looked),
            **baselines,
        )

    def look(self, pair: Pair) -> Overlaid:
        """Restore a pair, and bring its high image over the low one."""
        low, high = pair.read()
        if low.shape != high.shape:
            raise PairError(f"pair '{pair.name}': low has shape {low.shape}, high {high.shape}; both need the same")
        self.restorer.reset()  # every pair on its own: a rolling range would follow from one field to the next
        restored = self.restorer.restore(low.reshape(1, -1, *low.shape[-2:]))
        if restored.pixels.size != low.size:
            raise ModelError(
                f"model '{self.restorer.package.name}' gives images of shape {restored.pixels.shape[1:]} for {low.shape}; "
                "only models that keep sizes can be compared with high-light images of the same camera"
            )
        shift_px = pair.shift_px[-low.ndim :] if _is_far(pair.shift_px) else ()
        kept = overlap_window(low.shape, shift_px)
        widths = None if restored.widths is None else restored.widths.reshape(low.shape)[kept]
        return Overlaid(low[kept], restored.pixels.reshape(low.shape)[kept], cut_moved(high, kept, shift_px), widths)

    def _trust(self, channel: str, looked: Overlaid) -> dict[str, Any]:
        """SNR of the low image, and whether the restored one agrees with its photons."""
        if looked.low.dtype not in (np.uint8, np.uint16) or not self._counts:
            return {"snr": None}
        check = self._checks.setdefault(channel, TrustCheck(self._noise))
        raw, restored = (_stack(pixels) for pixels in (looked.low, looked.restored))
        figures = check.check(raw, restored).figures
        if self._noise is None:
            return {"snr": figures["snr"]}
        return {name: figures[name] for name in ("snr", "trusted", "why", "raised")}

    def _compare(self, looked: Overlaid) -> dict[str, Any]:
        filtered, sigma = best_gaussian(looked.low, looked.high)
        part = middle(looked.low.shape, MOST_FOR_NLM)
        low, high = looked.low[part], looked.high[part]
        self._cropped += low.size < looked.low.size
        means = score_pair(best_non_local_means(low, high), high, low)
        restored = score_pair(looked.restored[part], high).restored
        return {
            "gaussian": _figures(score_pair(filtered, looked.high).restored),
            "gaussian_sigma": sigma,
            "nlm_gain_db": means.gain_db,
            "nlm_lead_db": restored.psnr_db - means.restored.psnr_db,
        }


def _cases(scorer: _Scorer, pairs: Sequence[Pair], scores: Sequence[PairScore]) -> tuple[Case, ...]:
    """Restore the best, the median and the worst pairs once more, to be looked at; fewer where there are fewer."""
    order = sorted(range(len(scores)), key=lambda n: -scores[n].gain_db)
    kinds = {order[0]: "best", order[len(order) // 2]: "median"}
    kinds |= dict.fromkeys(order[1:][-_WORST_SHOWN:], "worst")
    size = scorer.restorer.facts.pixel_size_um
    return tuple(
        scorer.look(pairs[n]).case(kinds[n], pairs[n].name, scores[n].gain_db, size[-1] if size else None)
        for n in order
        if n in kinds
    )


def _is_far(shift_px: tuple[float, ...]) -> bool:
    return max(map(abs, shift_px), default=0.0) >= _LEAST_SHIFT_PX


def _stack(pixels: Any) -> Any:
    """View ([Z,] Y, X) as (Z, Y, X), contiguous."""
    return np.ascontiguousarray(pixels.reshape(-1, *pixels.shape[-2:]))


def _figures(likeness: Likeness) -> Figures:
    return Figures(min(likeness.psnr_db, _HIGHEST_DB), likeness.ssim, likeness.nrmse)


def _check_channels(package: ModelPackage) -> None:
    facts = package.facts
    if facts.channels_in != 1 or facts.channels_out != 1:
        raise ModelError(
            f"model '{package.name}' takes {facts.channels_in} channel(s) and gives {facts.channels_out}; pairs have a single "
            "channel: score its restored images with live-restore score"
        )
