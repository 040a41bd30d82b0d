"""The student beside its teacher, measured: times in turns, PSNR and bias on the pairs that neither has learned from.

Receives the finished package, its evaluation, the teacher and what was known when the student was chosen; hands on a
`Distilled`, and writes it into the package: as JSON, and into the report. It trains nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_restore.evaluation.baselines import best_gaussian
from live_restore.evaluation.distilled import DISTILLATION, Contender, Distilled
from live_restore.evaluation.distilled_page import sections
from live_restore.evaluation.overlaid import Overlaid
from live_restore.evaluation.report import write_package_report
from live_restore.evaluation.scores import Bias, Evaluation, PairScore
from live_restore.models.package import ModelPackage
from live_restore.pairs.moved import cut_moved, overlap_window
from live_restore.records.pairs import Pair
from live_restore.score import score_pair
from live_restore.training.student_timing import Served, Shape, Timing, time_packages
from live_restore.training.teacher import Teacher

FloatArray = NDArray[np.float32]

_STUDENT = "student"
_REPORT = "report.html"
# A student that misses its time by less than this is timed again: the machine may have been busy.
_NEARLY, _TRIES = 1.25, 3


@dataclass(frozen=True, slots=True)
class TeachersScores:
    """What the teacher reaches on held-out pairs; and its images, by name, to be looked at.

    Attributes
    ----------
    psnr_db, filtered_db : tuple of float
        Of the teacher, and of the Gaussian filter that fits each image best.
    bias : Bias or None
    images : dict
        ([Z,] Y, X) float32, counts of the low images, of the overlap of low and high.
    """

    psnr_db: tuple[float, ...]
    filtered_db: tuple[float, ...]
    bias: Bias | None
    images: Mapping[str, FloatArray]


def time_both(teacher: Teacher, student: ModelPackage, shape: Shape, target_ms: float, served: Served) -> dict[str, Timing]:
    """Time teachers and student in turns; a student that nearly keeps to its time is given more than one chance.

    Returns
    -------
    dict
        By ``student``, and ``0``, ``1``, ... for the teachers.
    """
    packages = {_STUDENT: student} | {str(number): package for number, package in enumerate(teacher.packages)}
    best: dict[str, Timing] = {}
    for _ in range(_TRIES):
        found = time_packages(packages, shape, served)
        best = found if not best or found[_STUDENT].median_ms < best[_STUDENT].median_ms else best
        if not target_ms < best[_STUDENT].median_ms < _NEARLY * target_ms:
            break
    return best


def score_teacher(teacher: Teacher, pairs: Sequence[Pair]) -> TeachersScores:
    """Score the teacher on pairs, as its student is."""
    decibels, filtered, biases, images = [], [], [], {}
    for pair in pairs:
        low, high = pair.read()
        kept = overlap_window(low.shape, pair.shift_px)
        looked = Overlaid(low[kept], teacher.restore(low)[kept], cut_moved(high, kept, pair.shift_px), None)
        decibels.append(score_pair(looked.restored, looked.high).restored.psnr_db)
        filtered.append(score_pair(best_gaussian(looked.low, looked.high)[0], looked.high).restored.psnr_db)
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
    timings: Mapping[str, Timing],
    evaluation: Evaluation | None,
    scores: TeachersScores | None,
) -> tuple[Contender, Contender]:
    """Put the figures of student and teacher together; several teachers take as long as all of them."""
    judged = evaluation if scores is not None else None
    mine = timings[_STUDENT]
    theirs = [timing for name, timing in timings.items() if name != _STUDENT]
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


def write_into(
    package: ModelPackage, distilled: Distilled, evaluation: Evaluation | None, images: Mapping[str, FloatArray]
) -> None:
    """Put the figures into the package, and the pages into its report; each file whole or not at all."""
    if evaluation is not None:
        package.files.replace(_REPORT, package_page(package, distilled, evaluation, images))
    package.files.replace(DISTILLATION, json.dumps(distilled.as_json(), indent=1).encode())


def package_page(
    package: ModelPackage, distilled: Distilled, evaluation: Evaluation, images: Mapping[str, FloatArray]
) -> bytes:
    """Write the report of the package anew, with the pages of student and teacher in it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / _REPORT
        write_package_report(page, evaluation, package, further=sections(distilled, evaluation, images))
        return page.read_bytes()
