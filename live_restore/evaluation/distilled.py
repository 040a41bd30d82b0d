"""A student beside its teacher: what was lost in quality, what was gained in speed, and which networks were to be had.

Written by distilling, kept in the package as JSON, read by the report and the terminal. It does not know how the figures came
about, nor how they are shown.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from live_restore.evaluation.scores import Bias, Evaluation

DISTILLATION = "distillation.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Rung:
    """A network of the family, and its time on this machine.

    Attributes
    ----------
    name : str
    flop_per_pixel, parameters : int
    median_ms, p95_ms : float or None
        None where nobody waited for it, as a smaller one was far too slow already.
    """

    name: str
    flop_per_pixel: int
    parameters: int
    median_ms: float | None = None
    p95_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """Teacher or student.

    Attributes
    ----------
    name, sha256 : str
    flop_per_pixel, parameters : int
    median_ms, p95_ms : float
        Of a whole volume, measured in turns with the other; of several teachers together.
    engine : str
    psnr_db : float or None
        Mean over the held-out pairs, against the truth; None without truth.
    bias : Bias or None
        Mean over the same pairs.
    """

    name: str
    sha256: str
    flop_per_pixel: int
    parameters: int
    median_ms: float
    p95_ms: float
    engine: str
    psnr_db: float | None = None
    bias: Bias | None = None


@dataclass(frozen=True, slots=True)
class Distilled:
    """What came of it.

    Attributes
    ----------
    student, teacher : Contender
    target_ms : float
    shape : tuple of int, (Z, Y, X)
    rungs : tuple of Rung
        Of the family, largest first.
    chosen : str
        The name of the rung that became the student.
    missed : tuple of str
        Rungs that were trained, and then took longer than the target; each with its time, and where it is kept.
    busier : float
        How many times as long as when the family was timed the student's own network, untrained, took in the same turns as
        the student; 1 where it was no longer, or is not known.
    teacher_is_known : bool
        Whether it is written down what the teacher has learned from.
    weight : float
        Of the teacher in what was learned.
    teachers_db : tuple of float
        PSNR of the teacher, pair by pair, in the order of the evaluation's scores; empty without truth.
    filtered_db : tuple of float
        The same of the Gaussian filter that fits each image best.
    """

    student: Contender
    teacher: Contender
    target_ms: float
    shape: tuple[int, int, int]
    rungs: tuple[Rung, ...]
    chosen: str
    missed: tuple[str, ...] = ()
    weight: float = 1.0
    teachers_db: tuple[float, ...] = ()
    filtered_db: tuple[float, ...] = ()
    busier: float = 1.0
    teacher_is_known: bool = True

    @property
    def judged_ms(self) -> float:
        """The student's time on a machine as calm as it was when the family was timed."""
        return self.student.median_ms / self.busier

    @property
    def met(self) -> bool:
        """Whether the student keeps to the time, on a machine as calm as when the family was timed."""
        return self.judged_ms <= self.target_ms

    @property
    def filters_lead_db(self) -> float | None:
        """PSNR of the best Gaussian filter over that of the student, on the same pairs; None without truth."""
        if self.student.psnr_db is None or not self.filtered_db:
            return None
        return _mean(self.filtered_db) - self.student.psnr_db

    @property
    def lost_db(self) -> float | None:
        """PSNR of the teacher over that of the student; None without truth."""
        student, teacher = self.student.psnr_db, self.teacher.psnr_db
        return None if student is None or teacher is None else teacher - student

    @property
    def times_faster(self) -> float:
        """The teacher's time over the student's."""
        return self.teacher.median_ms / self.student.median_ms

    @property
    def times_fewer(self) -> float:
        """The teacher's operations over the student's."""
        return self.teacher.flop_per_pixel / max(1, self.student.flop_per_pixel)

    def sentences(self) -> list[str]:
        """Say in words what was gained, what was lost, and what should be thought of."""
        planes, height, width = self.shape
        size = f"{height} x {width}" if planes == 1 else f"{planes} x {height} x {width}"
        kept = "which keeps to" if self.met else "which does NOT keep to"
        if self.busier > _BUSY:
            kept = (
                f"while the machine took {self.busier:.2g} times as long as when the family was timed: {self.judged_ms:.3g} ms "
                f"when it is as calm, {kept}"
            )
        said = [
            f"{self.student.median_ms:.3g} ms for {size} on this machine, {kept} the {self.target_ms:g} ms asked for; "
            f"{self.times_faster:.3g} times as fast as the teacher, with {self.times_fewer:.3g} times fewer operations"
        ]
        if self.missed:
            said.append(f"trained before, and then found too slow: {', '.join(self.missed)}")
        lost, lead = self.lost_db, self.filters_lead_db
        if lead is not None and lead > 0:
            said.append(
                f"a Gaussian filter at its best is {lead:.2f} dB better than the student on these pairs: do not use the "
                "student on such images; train longer, allow more time, or give more pairs"
            )
        if lost is None:
            said.append("there was no truth to judge by: figures against the teacher's own images flatter the student")
        elif lost >= 0:
            said.append(f"{lost:.2f} dB of PSNR are lost against the teacher, {self._on_which_pairs()}")
        else:
            said.append(f"the student is {-lost:.2f} dB better than its teacher, {self._on_which_pairs()}")
        if lost is not None and lost < -_CLEARLY_DB and self.weight > 0:
            said.append("a teacher that is worse than its student holds it back: try again with --teacher-weight 0")
        return said

    def _on_which_pairs(self) -> str:
        if self.teacher_is_known:
            return "on pairs that neither has learned from"
        return "on pairs that the student has not learned from; what the teacher has learned from is not known"

    def as_json(self) -> dict[str, Any]:
        """Turn it into JSON's own types."""
        plain = dataclasses.asdict(self)
        return {"format": _FORMAT, **plain, "met": self.met, "lost_db": self.lost_db}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote.

        Raises
        ------
        ValueError
            If it is of another format, or lacks something.
        """
        if said.get("format") != _FORMAT:
            raise ValueError(f"a distillation of format {said.get('format')!r}; format {_FORMAT} is read: distil again")
        try:
            given = {f.name: said[f.name] for f in dataclasses.fields(cls) if f.name in said or f.name not in _ADDED_LATER}
            planes, height, width = said["shape"]
            given |= {
                "student": _contender(said["student"]),
                "teacher": _contender(said["teacher"]),
                "rungs": tuple(Rung(**rung) for rung in said["rungs"]),
                "missed": tuple(said["missed"]),
                "teachers_db": tuple(said["teachers_db"]),
                "filtered_db": tuple(said["filtered_db"]),
                "shape": (int(planes), int(height), int(width)),
            }
        except (KeyError, TypeError) as error:
            raise ValueError(f"a distillation that lacks {error}; distil again") from error
        return cls(**given)


# A student that is so much better than its teacher has learned it elsewhere.
_CLEARLY_DB = 0.1
# A machine that takes so many times as long is said to be busier.
_BUSY = 1.1
# What distillations of earlier versions do not say.
_ADDED_LATER = frozenset({"busier", "teacher_is_known"})


def _contender(said: Mapping[str, Any]) -> Contender:
    bias = said["bias"]
    made = None if bias is None else Bias(**{**bias, "deciles": tuple(bias["deciles"])})
    return Contender(**{**said, "bias": made})


def rows(distilled: Distilled, evaluation: Evaluation | None) -> list[tuple[str, list[float]]]:
    """Give PSNR in dB by channel, and of all; empty without truth.

    Returns
    -------
    list of (name, [raw, best Gaussian, teacher, student])
    """
    if evaluation is None or not distilled.teachers_db:
        return []
    scores = evaluation.scores
    table = [
        (score.channel, (score.raw.psnr_db, filtered, taught, score.restored.psnr_db))
        for score, filtered, taught in zip(scores, distilled.filtered_db, distilled.teachers_db, strict=True)
    ]
    channels = {f"channel {name}": name for name in sorted({score.channel for score in scores}) if name}
    groups = {shown: [row for channel, row in table if channel == name] for shown, name in channels.items()}
    groups["all"] = [row for _, row in table]
    return [(shown, [_mean(column) for column in zip(*group, strict=True)]) for shown, group in groups.items()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
