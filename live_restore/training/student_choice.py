"""The choice of a student: which network of the family keeps to the time, written down until it is trained.

Receives what is wanted and the teacher; hands on a choice. Times differ from one measurement to the next: an interrupted
training must go on with the network that it began with. It does not train.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from live_restore.errors import ModelError, TrainingError
from live_restore.evaluation.distilled import Rung
from live_restore.training.family import Candidate, family
from live_restore.training.options import Kind
from live_restore.training.student_timing import Served, Shape, Timing, time_candidates
from live_restore.training.teacher import Teacher

# Rungs that are trained at most, if one after the other turns out too slow.
_MOST_TRAINED = 3
_CHOICE = "choice.json"


class TimingListener(Protocol):
    """Who is told how the family is timed."""

    def timed(self, done: int, total: int) -> None:
        """Tell how many networks were opened and timed."""

    def chosen(self, rungs: Sequence[Rung], name: str, target_ms: float) -> None:
        """Tell which network was chosen, and which there were."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rung becomes the student, and why.

    Attributes
    ----------
    about : dict
        What must be the same for the choice to be taken again.
    rungs : tuple of Rung
        Largest first.
    name : str
    missed : tuple of str
        What was said of rungs that were trained already, and took too long.
    """

    about: dict[str, Any]
    rungs: tuple[Rung, ...]
    name: str
    missed: tuple[str, ...] = ()

    def next_smaller(self) -> str | None:
        """Name the rung to train if this one is too slow after all; None if there is none, or enough were tried."""
        names = [rung.name for rung in self.rungs]
        place = names.index(self.name) + 1
        return names[place] if place < len(names) and len(self.missed) + 1 < _MOST_TRAINED else None

    def keep(self, folder: Path) -> None:
        """Write it down, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{_CHOICE}.new"
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(draft, folder / _CHOICE)


def kept_choice(folder: Path, about: Mapping[str, Any]) -> Choice | None:
    """Read the choice of an interrupted run; None where there is none, or it was for something else."""
    try:
        said = json.loads((folder / _CHOICE).read_text(encoding="utf-8"))
        rungs = tuple(Rung(**rung) for rung in said["rungs"])
        choice = Choice(said["about"], rungs, said["name"], tuple(said["missed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return choice if choice.about == about else None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the student has to keep to.

    Attributes
    ----------
    target_ms : float
        What restoring a volume may take on this machine.
    shape : tuple of int, (Z, Y, X)
        Of that volume.
    kind : {"care", "rcan"}
        Which ladder of the family.
    most_kflop : float or None
        Operations per pixel, thousands, at most.
    served : Served
        By what it is to be served.
    """

    target_ms: float
    shape: Shape
    kind: Kind = "care"
    most_kflop: float | None = None
    served: Served = field(default_factory=Served)

    def about(self, teacher: Teacher) -> dict[str, Any]:
        """Say what the choice depends on, as JSON has it."""
        return {**asdict(self), "shape": list(self.shape), "teacher": teacher.sha256}


def choose_student(teacher: Teacher, conditions: Conditions, listener: TimingListener) -> Choice:
    """Time the family, and choose the largest network that keeps to the time.

    Raises
    ------
    ModelError
        If the teacher, or what is allowed, is no larger than the smallest network of the family.
    TrainingError
        If none keeps to the time.
    ImageError
        If the networks cannot restore volumes of this shape.
    """
    shape, target_ms = conditions.shape, conditions.target_ms
    candidates = _small_enough(teacher, conditions)
    with tempfile.TemporaryDirectory(prefix="live_restore-", ignore_cleanup_errors=True) as place:
        timings = time_candidates(
            candidates, shape, target_ms, conditions.served, Path(place), teacher.normalisation, listener.timed
        )
    rungs = tuple(_rung(candidate, timings.get(candidate)) for candidate in candidates)
    quick = [rung.name for rung in rungs if rung.median_ms is not None and rung.median_ms <= target_ms]
    if not quick:
        fastest = min((rung for rung in rungs if rung.median_ms is not None), key=lambda rung: rung.median_ms or 0.0)
        raise TrainingError(
            f"no network of the family restores {' x '.join(map(str, shape))} (Z, Y, X) in {target_ms:g} ms on this machine: "
            f"{fastest.name} takes {fastest.median_ms:.3g} ms; allow more time, or take smaller images"
        )
    return Choice(conditions.about(teacher), rungs, quick[0])


def _small_enough(teacher: Teacher, conditions: Conditions) -> list[Candidate]:
    whole, most = family(teacher.n_dim, conditions.kind), conditions.most_kflop
    smaller = [candidate for candidate in whole if candidate.flop_per_pixel < teacher.flop_per_pixel]
    if not smaller:
        raise ModelError(
            f"{teacher.name} has {teacher.flop_per_pixel / 1000:.3g} kFLOP per pixel, and the smallest network of the family "
            f"{whole[-1].flop_per_pixel / 1000:.3g}: there is nothing to gain; serve the teacher itself"
        )
    allowed = [candidate for candidate in smaller if most is None or candidate.flop_per_pixel <= 1000 * most]
    if not allowed:
        raise ModelError(
            f"no network of the family has at most {most:g} kFLOP per pixel; the smallest has "
            f"{whole[-1].flop_per_pixel / 1000:.3g}"
        )
    return allowed


def _rung(candidate: Candidate, timing: Timing | None) -> Rung:
    times = (timing.median_ms, timing.p95_ms) if timing else (None, None)
    return Rung(candidate.name, candidate.flop_per_pixel, candidate.parameters, *times)
