"""The student beside its teacher, measured: times in turns, PSNR and bias on the pairs that neither has learned from.

Receives the finished package, its evaluation, the teacher and what was known when the student was chosen; hands on a
`Distilled`, and writes it into the package: as JSON, and into the report. It trains nothing.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from live_restore.evaluation.baselines import best_gaussian
from live_restore.evaluation.distilled import DISTILLATION, Contender, Distilled
from live_restore.evaluation.distilled_page import sections
from live_restore.evaluation.overlaid import Overlaid
from live_restore.evaluation.report import write_package_report
from live_restore.evaluation.scores import TEACHERS, Bias, Evaluation, Figures, PairScore
from live_restore.models.package import ModelPackage
from live_restore.pairs.moved import cut_moved, overlap_window
from live_restore.records.pairs import Pair
from live_restore.score import score_pair
from live_restore.training.family import Candidate
from live_restore.training.student_choice import Conditions
from live_restore.training.student_timing import Timing, time_packages, untrained_package
from live_restore.training.teacher import Teacher

FloatArray = NDArray[np.float32]

_STUDENT, _UNTRAINED = "student", "untrained"
_EVALUATION = "evaluation.json"
_REPORT = "report.html"
# A student that misses its time by less than this is timed again: the machine may have been busy.
_NEARLY, _TRIES = 1.25, 3
# What a filter that gives the very high image is said to reach, as in an evaluation.
_HIGHEST_DB = 120.0


@dataclass(frozen=True, slots=True)
class TeachersScores:
    """What the teacher reaches on held-out pairs; and its images, by name, to be looked at.

    Attributes
    ----------
    psnr_db, filtered_db : tuple of float
        Of the teacher, and of the Gaussian filter that fits each image best.
    filtered : tuple of (Figures, float)
        All figures of that filter, and its sigma in pixels.
    bias : Bias or None
    images : dict
        ([Z,] Y, X) float32, counts of the low images, of the overlap of low and high.
    """

    psnr_db: tuple[float, ...]
    filtered: tuple[tuple[Figures, float], ...]
    bias: Bias | None
    images: Mapping[str, FloatArray]

    @property
    def filtered_db(self) -> tuple[float, ...]:
        """PSNR of the Gaussian filter that fits each image best."""
        return tuple(figures.psnr_db for figures, _ in self.filtered)


@dataclass(frozen=True, slots=True)
class Times:
    """Student and teachers, timed in turns with the student's own network as it was when the family was timed: untrained.

    Attributes
    ----------
    student : Timing
    teachers : tuple of Timing
    untrained_ms : float
        Median of the student's network without training, in the same turns.
    calm_ms : float or None
        Its median when the family was timed; None where nobody waited for it.
    """

    student: Timing
    teachers: tuple[Timing, ...]
    untrained_ms: float
    calm_ms: float | None = None

    @property
    def busier(self) -> float:
        """How many times as long the machine takes as when the family was timed; never below 1."""
        return max(1.0, self.untrained_ms / self.calm_ms) if self.calm_ms else 1.0

    @property
    def judged_ms(self) -> float:
        """The student's time on a machine as calm as it was when the family was timed."""
        return self.student.median_ms / self.busier


def time_both(teacher: Teacher, student: ModelPackage, asked: Conditions, rung: Candidate, calm_ms: float | None) -> Times:
    """Time teachers and student in turns; a student that nearly keeps to its time is given more than one chance.

    Parameters
    ----------
    teacher : Teacher
    student : ModelPackage
    asked : Conditions
    rung : Candidate
        What became the student.
    calm_ms : float or None
        Its median when the family was timed.
    """
    taught_by = {str(number): package for number, package in enumerate(teacher.packages)}
    best: Times | None = None
    with tempfile.TemporaryDirectory(prefix="live_restore-", ignore_cleanup_errors=True) as place:
        untrained = {_UNTRAINED: untrained_package(rung, Path(place) / _UNTRAINED, teacher.normalisation)}
        for _ in range(_TRIES):
            found = time_packages({_STUDENT: student} | taught_by, asked.shape, asked.served, untrained)
            teachers = tuple(found[name] for name in taught_by)
            times = Times(found[_STUDENT], teachers, found[_UNTRAINED].median_ms, calm_ms)
            best = times if best is None or times.judged_ms < best.judged_ms else best
            if not asked.target_ms < best.judged_ms < _NEARLY * asked.target_ms:
                break
    assert best is not None
    return best


def score_teacher(teacher: Teacher, pairs: Sequence[Pair]) -> TeachersScores:
    """Score the teacher on pairs, as its student is."""
    decibels, filtered, biases, images = [], [], [], {}
    for pair in pairs:
        low, high = pair.read()
        kept = overlap_window(low.shape, pair.shift_px)
        looked = Overlaid(low[kept], teacher.restore(low)[kept], cut_moved(high, kept, pair.shift_px), None)
        decibels.append(score_pair(looked.restored, looked.high).restored.psnr_db)
        image, sigma = best_gaussian(looked.low, looked.high)
        like = score_pair(image, looked.high).restored
        filtered.append((Figures(min(like.psnr_db, _HIGHEST_DB), like.ssim, like.nrmse), sigma))
        biases.append(looked.bias())
        images[pair.name] = looked.restored
    known = [bias for bias in biases if bias is not None]
    return TeachersScores(tuple(decibels), tuple(filtered), _mean_bias(known), images)


def _mean_bias(known: Sequence[Bias]) -> Bias | None:
    if not known:
        return None
    deciles = np.mean([bias.deciles for bias in known], axis=0)
    brightest, slope = (float(np.mean([getattr(bias, name) for bias in known])) for name in ("brightest", "slope"))
    return Bias(tuple(float(value) for value in deciles), brightest, slope)


def contenders(
    teacher: Teacher,
    student: ModelPackage,
    times: Times,
    evaluation: Evaluation | None,
    scores: TeachersScores | None,
) -> tuple[Contender, Contender]:
    """Put the figures of student and teacher together; several teachers take as long as all of them."""
    judged = evaluation if scores is not None else None
    mine, theirs = times.student, times.teachers
    return (
        Contender(
            name=student.name,
            sha256=student.onnx_sha256,
            flop_per_pixel=student.facts.geometry.flop_per_pixel,
            parameters=student.facts.architecture.parameters,
            median_ms=mine.median_ms,
            p95_ms=mine.p95_ms,
            engine=mine.engine,
            psnr_db=judged.mean["psnr_db"] if judged else None,
            bias=judged.bias if judged else None,
        ),
        Contender(
            name=teacher.name,
            sha256=teacher.sha256,
            flop_per_pixel=teacher.flop_per_pixel,
            parameters=teacher.parameters,
            median_ms=sum(timing.median_ms for timing in theirs),
            p95_ms=sum(timing.p95_ms for timing in theirs),
            engine=theirs[0].engine,
            psnr_db=float(np.mean(scores.psnr_db)) if scores else None,
            bias=scores.bias if scores else None,
        ),
    )


def scored_pairs(pairs: Sequence[Pair], scores: Sequence[PairScore]) -> list[Pair]:
    """Find the pairs of an evaluation again, in its order."""
    by_name = {(pair.name, pair.low.parent.parent.name): pair for pair in pairs}
    return [by_name[(score.name, score.source)] for score in scores]


def beside_filters(evaluation: Evaluation, scores: TeachersScores | None) -> Evaluation:
    """Say in the student's evaluation how good the best Gaussian filter is on the same pairs, or that there was no truth."""
    if scores is None:
        return replace(evaluation, truth=TEACHERS)
    pairs = zip(evaluation.scores, scores.filtered, strict=True)
    generous = "the strength of each filter was chosen with the high image in hand, better than anybody could in use"
    return replace(
        evaluation,
        notes=tuple(dict.fromkeys((*evaluation.notes, generous))),
        scores=tuple(replace(score, gaussian=figures, gaussian_sigma=sigma) for score, (figures, sigma) in pairs),
    )


def write_into(
    package: ModelPackage, distilled: Distilled, evaluation: Evaluation | None, images: Mapping[str, FloatArray]
) -> None:
    """Put the figures into the package, and the pages into its report; each file whole or not at all."""
    if evaluation is not None:
        package.files.replace(_EVALUATION, json.dumps(evaluation.as_json(), indent=1, allow_nan=False).encode())
        package.files.replace(_REPORT, package_page(package, distilled, evaluation, images))
    package.files.replace(DISTILLATION, json.dumps(distilled.as_json(), indent=1).encode())


def package_page(
    package: ModelPackage, distilled: Distilled, evaluation: Evaluation, images: Mapping[str, FloatArray]
) -> bytes:
    """Write the report of the package anew, with the pages of student and teacher in it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / _REPORT
        write_package_report(page, evaluation, package, further=sections(distilled, evaluation, images))
        return page.read_bytes()
