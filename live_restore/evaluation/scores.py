"""The evaluation: how good a network is on pairs that it never saw, in figures.

Written by `live_restore.evaluation.evaluate`, kept as JSON, read by the report and by the gate that promotes. It does not know
how the figures came about, nor how they are shown.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Intervals of the predicted Laplace distribution: so much of the truth should lie within.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
DECILES = 10
# What restored images are compared with, in words: photographs, or what a teacher made of the same low image.
HIGH_LIGHT, TEACHERS = "the high-light images", "the teacher's images"
# Edges between the bins of signal-to-noise ratio; below the first and beyond the last is a bin too.
SNR_EDGES = (3.0, 6.0, 12.0, 25.0)
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """How like the high-light image one image is, after the affine fit; see `live_restore.score.Likeness`.

    Attributes
    ----------
    psnr_db : float
        At most 120, so that a perfect image has a number too.
    ssim, nrmse : float
    """

    psnr_db: float
    ssim: float
    nrmse: float


@dataclass(frozen=True, slots=True)
class Bias:
    """Whether restored intensities are too dark or too bright, against the high image fitted to the counts of the low one.

    Attributes
    ----------
    deciles : tuple of float
        Mean error of the pixels in each tenth of the high image, darkest first; per cent of its range.
    brightest : float
        The same of its brightest hundredth.
    slope : float
        Restored counts over true ones; below 1, contrast was lost.
    """

    deciles: tuple[float, ...]
    brightest: float
    slope: float

    @property
    def worst(self) -> float:
        """The largest of the deciles' errors in size, per cent of the range."""
        return max(abs(value) for value in self.deciles)


@dataclass(frozen=True, slots=True)
class PairScore:
    """One pair: restored, raw and the baselines against the high-light image.

    Attributes
    ----------
    name, channel, position : str
    source : str
        The folder of pairs it is from.
    split : str
        ``train``, ``held-out`` or empty, as the pair says.
    snr : float or None
        Of the low image, as the live preview tells it: brightest structures over their noise. None where the low image is no
        camera counts.
    restored, raw : Figures
    gaussian : Figures or None
        The Gaussian filter whose sigma fits this very image best; None where no baselines were asked for.
    gaussian_sigma : float or None
        Pixels in Y and X.
    nlm_gain_db : float or None
        Gain over raw of non-local means, within the middle of the image where the image is large.
    nlm_lead_db : float or None
        Restored over non-local means, within the same part.
    coverage : tuple of float
        Share of the pixels within the predicted interval of each of `LEVELS`; empty where the network predicts none.
    bias : Bias or None
        None where the output is no camera counts.
    trusted : bool or None
        Verdict of the photon-consistency check; None where the camera's noise is not known.
    why : str
        Why it is not trusted.
    raised : float or None
        Share of the area that the check raised.
    """

    name: str
    channel: str
    position: str
    source: str
    snr: float | None
    restored: Figures
    raw: Figures
    gaussian: Figures | None = None
    gaussian_sigma: float | None = None
    nlm_gain_db: float | None = None
    nlm_lead_db: float | None = None
    coverage: tuple[float, ...] = ()
    bias: Bias | None = None
    trusted: bool | None = None
    why: str = ""
    raised: float | None = None
    split: str = ""

    @property
    def gain_db(self) -> float:
        """What restoring gained over raw."""
        return self.restored.psnr_db - self.raw.psnr_db

    @property
    def gaussian_gain_db(self) -> float | None:
        """What the best Gaussian filter gained over raw."""
        return None if self.gaussian is None else self.gaussian.psnr_db - self.raw.psnr_db


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A pair to look at, where its error is largest.

    Attributes
    ----------
    kind : str
        ``best``, ``median`` or ``worst``.
    name : str
    gain_db : float
    low, restored, high : ndarray, (Y, X), float32
        Camera counts of one plane; high is fitted to the counts of low.
    corner : tuple of int
        Where this part begins in the image, ([z,] y, x).
    pixel_size_um : float or None
    """

    kind: str
    name: str
    gain_db: float
    low: FloatArray
    restored: FloatArray
    high: FloatArray
    corner: tuple[int, ...] = ()
    pixel_size_um: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a network is on held-out pairs.

    Attributes
    ----------
    model, model_sha256 : str
        Name, and hash of the ONNX graph.
    network : str
        Which network in words.
    engine, precision, normalisation : str
        What restored: the same that restores live.
    probabilistic : bool
        Whether a scale is predicted for every pixel.
    pairs_sha256 : str
        Hash of the pairs that were scored.
    scores : tuple of PairScore
    noise : str
        Where the camera's noise comes from; empty where it is not known.
    software, made : str
        Version, and date in UTC.
    notes : tuple of str
        What should be known of how it was scored.
    cases : tuple of Case
        Images to look at; they are no part of the JSON.
    truth : str
        What restored images were compared with, in words.
    """

    model: str
    model_sha256: str
    network: str
    engine: str
    precision: str
    normalisation: str
    probabilistic: bool
    pairs_sha256: str
    scores: tuple[PairScore, ...]
    noise: str = ""
    software: str = ""
    made: str = ""
    notes: tuple[str, ...] = ()
    cases: tuple[Case, ...] = field(default=(), compare=False, repr=False)
    truth: str = HIGH_LIGHT

    @property
    def has_truth(self) -> bool:
        """Whether it was compared with photographs of more light."""
        return self.truth == HIGH_LIGHT

    @property
    def mean(self) -> dict[str, float]:
        """Means over all pairs, see `means`."""
        return means(self.scores)

    @property
    def coverage(self) -> tuple[float, ...]:
        """Mean coverage at each of `LEVELS`; empty where no scale is predicted."""
        return _mean_of_each([score.coverage for score in self.scores if score.coverage])

    @property
    def bias(self) -> Bias | None:
        """Mean bias over all pairs."""
        return mean_bias(self.scores)

    @property
    def distrusted(self) -> tuple[PairScore, ...]:
        """The pairs whose restoration disagrees with the photons that were counted."""
        return tuple(score for score in self.scores if score.trusted is False)

    @property
    def title(self) -> str:
        """What was scored, in words."""
        held_out = "held-out " if all(score.split == "held-out" for score in self.scores) else ""
        return f"{len(self.scores)} {held_out}pair{'s' if len(self.scores) > 1 else ''}"

    def by_channel(self) -> dict[str, tuple[PairScore, ...]]:
        """Group the pairs by channel, in order of their names."""
        names = sorted({score.channel for score in self.scores})
        return {name: tuple(score for score in self.scores if score.channel == name) for name in names}

    def by_snr(self) -> dict[str, tuple[PairScore, ...]]:
        """Group the pairs by signal-to-noise ratio, low first; bins without a pair are left out."""
        bins = [(label, []) for label in snr_labels()]  # type: list[tuple[str, list[PairScore]]]
        for score in self.scores:
            if score.snr is not None:
                bins[sum(score.snr >= edge for edge in SNR_EDGES)][1].append(score)
        return {label: tuple(found) for label, found in bins if found}

    def worst(self, number: int = 3) -> tuple[PairScore, ...]:
        """Give the pairs that gained least."""
        return tuple(sorted(self.scores, key=lambda score: score.gain_db)[:number])

    def as_json(self) -> dict[str, Any]:
        """Turn it into JSON's own types; the images of the cases are left out."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "cases"}
        plain["scores"] = [dataclasses.asdict(score) for score in self.scores]
        plain["notes"] = list(self.notes)
        mean = {key: _finite(value) for key, value in self.mean.items()}
        return {"format": _FORMAT, **plain, "mean": mean}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote.

        Raises
        ------
        ValueError
            If it is of another format, or lacks something.
        """
        if said.get("format") != _FORMAT:
            raise ValueError(f"an evaluation of format {said.get('format')!r}; format {_FORMAT} is read: evaluate again")
        try:
            given = {f.name: said[f.name] for f in dataclasses.fields(cls) if f.name not in ("cases", "truth")}
            given["scores"] = tuple(_pair_score(score) for score in said["scores"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"an evaluation that lacks {error}; evaluate again") from error
        return cls(**{**given, "notes": tuple(said["notes"]), "truth": said.get("truth", HIGH_LIGHT)})


def _pair_score(said: Mapping[str, Any]) -> PairScore:
    figures: dict[str, Callable[..., Any]] = {"restored": Figures, "raw": Figures, "gaussian": Figures, "bias": Bias}
    made = {name: kind(**said[name]) for name, kind in figures.items() if said[name] is not None}
    if "bias" in made:
        made["bias"] = dataclasses.replace(made["bias"], deciles=tuple(made["bias"].deciles))
    return PairScore(**{**said, **made, "coverage": tuple(said["coverage"])})


def snr_labels() -> list[str]:
    """Name the bins of signal-to-noise ratio.

    >>> snr_labels()
    ['SNR < 3', 'SNR 3 to 6', 'SNR 6 to 12', 'SNR 12 to 25', 'SNR > 25']
    """
    first, last = f"SNR < {SNR_EDGES[0]:g}", f"SNR > {SNR_EDGES[-1]:g}"
    between = [f"SNR {low:g} to {high:g}" for low, high in pairwise(SNR_EDGES)]
    return [first, *between, last]


def means(scores: Sequence[PairScore]) -> dict[str, float]:
    """Mean over pairs: ``psnr_db, ssim, nrmse``, ``raw_*``, ``gain_db`` and what the baselines gained.

    Entries of baselines that were not asked for are missing.
    """
    mean = {f"{name}{key}": _mean(getattr(getattr(score, who), key) for score in scores) for who, name, key in _COLUMNS}
    mean["gain_db"] = _mean(score.gain_db for score in scores)
    for name in ("gaussian_gain_db", "nlm_gain_db", "nlm_lead_db"):
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        mean |= {name: _mean(values)} if values else {}
    return mean


_COLUMNS = [(who, name, key) for who, name in (("restored", ""), ("raw", "raw_")) for key in ("psnr_db", "ssim", "nrmse")]


def mean_bias(scores: Sequence[PairScore]) -> Bias | None:
    """Mean bias of several pairs; None where it is known of none."""
    known = [score.bias for score in scores if score.bias is not None]
    if not known:
        return None
    deciles = _mean_of_each([bias.deciles for bias in known])
    return Bias(deciles, _mean(bias.brightest for bias in known), _mean(bias.slope for bias in known))


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _mean_of_each(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(np.mean(rows, axis=0).tolist()) if rows else ()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
