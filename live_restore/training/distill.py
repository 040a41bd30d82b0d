"""Distilling from start to end: teachers and a time in, a small network that keeps to it out. What `live-restore distill` does.

Receives packages to learn from, pairs or images, and a time for a volume of a size; hands on a scored package. Here the choice
of a network, the teacher and training meet; training itself is that of `live_restore.training.train`, and goes on after an
interruption as that does.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from live_restore.errors import PairError, TrainingError
from live_restore.evaluation.distilled import Distilled
from live_restore.models.facts import Normalisation
from live_restore.models.package import check_free
from live_restore.restore.noise import CameraNoise
from live_restore.training.compared import beside_filters, contenders, score_teacher, scored_pairs, time_both, write_into
from live_restore.training.family import Candidate, family
from live_restore.training.lessons import Lessons, single_dimensions
from live_restore.training.material import Chosen, dimensions
from live_restore.training.options import TrainingOptions
from live_restore.training.presets import preset
from live_restore.training.progress import TrainingListener
from live_restore.training.student_choice import Choice, Conditions, TimingListener, choose_student, kept_choice
from live_restore.training.teacher import Teacher
from live_restore.training.train import Outcome, Task, train

MINUTES = 8.0
# Stacks are cut in depths that every rung of the family can halve.
_PATCHES_3D = ((8, 64, 64), (16, 64, 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilling:
    """What is wanted.

    Attributes
    ----------
    teachers : sequence of Path
        Packages; of several, the mean teaches.
    output : Path
        The package to write.
    conditions : Conditions
        What the student has to keep to, and by what it is to be served.
    pairs : sequence of Path
        Folders of pairs.
    images : sequence of Path
        Low-light images without partner, or folders of them.
    weight : float or None
        Of the teacher in what is learned where there are pairs, 0 to 1; None: as much as it is worth.
    words : mapping
        Changes of the options, by section.
    minutes : float
        Wall time of a training; timing and the teacher's work come on top.
    steps : int or None
        Instead of minutes.
    held_out_from, camera, device, threads, fresh, overwrite, name
        As in `live_restore.training.train.Task`.
    """

    teachers: Sequence[Path]
    output: Path
    conditions: Conditions
    pairs: Sequence[Path] = ()
    images: Sequence[Path] = ()
    weight: float | None = None
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    minutes: float = MINUTES
    steps: int | None = None
    held_out_from: Sequence[Path] = ()
    camera: CameraNoise | None = None
    device: str = "auto"
    threads: int | None = None
    fresh: bool = False
    overwrite: bool = False
    name: str | None = None


class DistillingListener(TrainingListener, TimingListener, Protocol):
    """Who is told how it goes; the command line draws it."""


def teaching_folder(output: Path) -> Path:
    """Where the teacher's images and the choice are kept until the student is done: beside it, ``NAME.teaching``."""
    return output.with_name(f"{output.name}.teaching")


def distil(wanted: Distilling, listener: DistillingListener) -> tuple[Outcome, Distilled]:
    """Choose a student, train it, and compare it with its teacher.

    Parameters
    ----------
    wanted : Distilling
    listener : DistillingListener

    Raises
    ------
    TrainingError
        If no network of the family keeps to the time, or training cannot begin or go on.
    PairError
        If there is nothing to learn from, or nothing to judge by.
    ModelError
        If a package cannot teach, or there is something else where the student should be.
    ValueError
        If what is wanted cannot be.
    KeyboardInterrupt
        After Ctrl-C, when the state is kept.
    """
    _check(wanted)
    folder = teaching_folder(wanted.output)
    if wanted.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    with Teacher(wanted.teachers, wanted.conditions.served) as teacher:
        _check_axes(wanted, teacher)
        choice = _choose(wanted, teacher, folder, listener)
        lessons = Lessons(teacher, wanted.weight, wanted.images, folder / "images")
        # the teacher's work is done before the minutes of the training begin
        chosen = lessons.choose(wanted.pairs, _options(wanted, choice, teacher), wanted.held_out_from, listener.said)
        while True:
            outcome = train(_task(wanted, choice, teacher, chosen), listener)
            assert outcome is not None  # there is one process
            outcome, distilled = _compare(wanted, choice, teacher, lessons, outcome)
            smaller = choice.next_smaller()
            if distilled.met or smaller is None:
                break
            # nothing that was trained is thrown away: it lies beside the next one
            aside = _set_aside(wanted.output, choice.name)
            listener.said(
                f"{choice.name} takes {distilled.judged_ms:.3g} ms after training, more than "
                f"{wanted.conditions.target_ms:g} ms; it is kept as {aside.name}, "
                f"and the next smaller one is trained, {smaller}"
            )
            missed = f"{choice.name} ({distilled.judged_ms:.3g} ms, kept as {aside.name})"
            choice = replace(choice, name=smaller, missed=(*choice.missed, missed))
            choice.keep(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome, distilled


def _choose(wanted: Distilling, teacher: Teacher, folder: Path, listener: DistillingListener) -> Choice:
    """Take the choice that an interrupted run wrote down, or time the family and choose."""
    choice = kept_choice(folder, wanted.conditions.about(teacher))
    check_free(wanted.output, wanted.overwrite or bool(choice and choice.missed))
    if choice is None:
        choice = choose_student(teacher, wanted.conditions, listener)
        choice.keep(folder)
    listener.chosen(choice.rungs, choice.name, wanted.conditions.target_ms)
    return choice


def student_options(candidate: Candidate, wanted: Distilling, rule: Normalisation) -> TrainingOptions:
    """Put the options of the student's training together: the preset of its kind, its network, the teacher's percentiles."""
    sections: dict[str, dict[str, Any]] = {
        "network": {"options": dict(candidate.options)},
        "sampling": {"patches": _PATCHES_3D} if candidate.n_dim == 3 else {},
        "fit": {"minutes": None, "steps": wanted.steps} if wanted.steps else {"minutes": wanted.minutes},
        "normalisation": {
            "mode": rule.mode,
            "low_percentile": rule.low_percentile,
            "high_percentile": rule.high_percentile,
        },
    }
    for section, words in wanted.words.items():
        sections[section] = {**sections.get(section, {}), **words}
    return preset(candidate.kind, candidate.n_dim, "quick").changed(**sections)


def _rung(wanted: Distilling, choice: Choice, teacher: Teacher) -> Candidate:
    return next(one for one in family(teacher.n_dim, wanted.conditions.kind) if one.name == choice.name)


def _options(wanted: Distilling, choice: Choice, teacher: Teacher) -> TrainingOptions:
    return student_options(_rung(wanted, choice, teacher), wanted, teacher.normalisation)


def _set_aside(output: Path, rung: str) -> Path:
    """Give a trained student a name of its own, beside the one that comes next."""
    name = f"{output.stem}_{re.sub('[^0-9A-Za-z]+', '-', rung).strip('-')}"
    aside, number = output.with_name(name + output.suffix), 1
    while aside.exists():
        number += 1
        aside = output.with_name(f"{name}_{number}{output.suffix}")
    output.rename(aside)
    return aside


def _check_axes(wanted: Distilling, teacher: Teacher) -> None:
    """Refuse images for a teacher of stacks, and stacks for one of images, before anything is timed.

    Raises
    ------
    PairError
        If there is nothing to read, or its axes are not the teacher's.
    """
    options = preset(wanted.conditions.kind, teacher.n_dim, "quick").changed(pairs=dict(wanted.words.get("pairs", {})))
    found = [(folder, dimensions([folder], options)) for folder in (*wanted.pairs, *wanted.held_out_from)]
    found += [(place, single_dimensions(place)) for place in wanted.images]
    kinds = {2: "images (Y, X)", 3: "stacks (Z, Y, X)"}
    for place, n_dim in found:
        if n_dim != teacher.n_dim:
            raise PairError(
                f"{place} holds {kinds[n_dim]}, and {teacher.name} restores {kinds[teacher.n_dim]}; give it "
                f"{kinds[teacher.n_dim]}, or take a teacher of {kinds[n_dim]}"
            )


def _task(wanted: Distilling, choice: Choice, teacher: Teacher, chosen: Chosen) -> Task:
    return Task(
        folders=wanted.pairs,
        output=wanted.output,
        options=_options(wanted, choice, teacher),
        held_out_from=wanted.held_out_from,
        camera=wanted.camera,
        device=wanted.device,
        threads=wanted.threads,
        fresh=wanted.fresh and not choice.missed,
        overwrite=wanted.overwrite or bool(choice.missed),
        name=wanted.name,
        choose=lambda *_: chosen,
        inheritance=teacher.inheritance,
    )


def _compare(
    wanted: Distilling, choice: Choice, teacher: Teacher, lessons: Lessons, outcome: Outcome
) -> tuple[Outcome, Distilled]:
    """Time student and teacher, score the teacher on the student's pairs, and put both into the package."""
    package, evaluation = outcome.package, outcome.evaluation
    asked = wanted.conditions
    calm_ms = next(rung.median_ms for rung in choice.rungs if rung.name == choice.name)
    times = time_both(teacher, package, asked, _rung(wanted, choice, teacher), calm_ms)
    scores = None
    if wanted.pairs and evaluation is not None:
        scores = score_teacher(teacher, scored_pairs(lessons.judged, evaluation.scores))
        teacher.close()
    if evaluation is not None:
        evaluation = beside_filters(evaluation, scores)
    student, taught_by = contenders(teacher, package, times, evaluation, scores)
    distilled = Distilled(
        student=student,
        teacher=taught_by,
        target_ms=asked.target_ms,
        shape=asked.shape,
        rungs=choice.rungs,
        chosen=choice.name,
        missed=choice.missed,
        weight=lessons.weight if wanted.pairs else 1.0,
        teachers_db=scores.psnr_db if scores else (),
        filtered_db=scores.filtered_db if scores else (),
        busier=times.busier,
        teacher_is_known=all(package.learned_from() for package in teacher.packages),
    )
    write_into(package, distilled, evaluation, scores.images if scores else {})
    return replace(outcome, evaluation=evaluation), distilled


def _check(wanted: Distilling) -> None:
    """Refuse what cannot be, before anything is opened."""
    if not wanted.conditions.target_ms > 0:
        raise ValueError(f"a target of {wanted.conditions.target_ms:g} ms cannot be met; give milliseconds above 0")
    if wanted.weight is not None and not 0 <= wanted.weight <= 1:
        raise ValueError(f"the teacher's weight {wanted.weight:g} must be from 0 (truth alone) to 1 (teacher alone)")
    if not wanted.pairs and not wanted.images:
        raise ValueError("there is nothing to learn from; give --pairs, or --images of low light, or both")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("distilling runs in one process; start it without torchrun")
