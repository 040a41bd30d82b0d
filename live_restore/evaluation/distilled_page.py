"""The pages of a report about student and teacher: the ladder of networks, quality beside speed, images before and after.

Receives a `Distilled`, the student's evaluation and the teacher's images; hands on HTML sections for `write_report`, in which
every figure is contained. It measures nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from live_restore.evaluation import report_page as html
from live_restore.evaluation.distilled import Contender, Distilled, rows
from live_restore.evaluation.report_figures import beside_picture, deciles_figure, ladder_figure
from live_restore.evaluation.scores import Case, Evaluation

FloatArray = NDArray[np.float32]


def sections(distilled: Distilled, evaluation: Evaluation, images: Mapping[str, FloatArray]) -> list[str]:
    """Write what is to be said of student and teacher.

    Parameters
    ----------
    distilled : Distilled
    evaluation : Evaluation
        The student's.
    images : mapping of str to ndarray
        What the teacher made of held-out images, by the name of the pair; of the size that the evaluation compared.
    """
    return [_both(distilled, evaluation), _ladder(distilled), *_looks(evaluation, images)]


def _both(distilled: Distilled, evaluation: Evaluation) -> str:
    lost, student, teacher = distilled.lost_db, distilled.student, distilled.teacher
    cells = [
        html.fact(f"{student.median_ms:.3g}", "ms", f"a volume; asked for were {distilled.target_ms:g} ms", not distilled.met),
        html.fact(f"{distilled.times_faster:.3g}", "x", "as fast as the teacher"),
        html.fact(f"{distilled.times_fewer:.3g}", "x", "fewer operations"),
    ]
    if lost is not None:
        cells.append(html.fact(f"{-lost:+.2f}", "dB", "PSNR against the teacher", lost > _MUCH_DB))
    table = html.table(
        ("", "kFLOP per pixel", "weights", "ms, median", "ms, 95 %", "PSNR, dB", "largest bias, %"),
        [_row("teacher", teacher), _row("student", student)],
    )
    channels = rows(distilled, evaluation)
    by_channel = html.table(
        ("PSNR, dB", "raw", "best Gaussian", "teacher", "student"),
        [[name, *(f"{value:.2f}" for value in values)] for name, values in channels],
        totals=1,
    )
    biased = [one for one in (("teacher", teacher.bias), ("student", student.bias)) if one[1] is not None]
    picture = (
        html.picture(
            deciles_figure({name: bias for name, bias in biased if bias is not None}),
            "bias per tenth of the pixels, teacher and student",
            "Mean error of each tenth of the pixels, darkest first.",
        )
        if biased
        else ""
    )
    whose = html.paragraph(
        f"Teacher: {teacher.name}, sha256 {teacher.sha256}. Times: {student.engine}, volumes of "
        f"{' x '.join(map(str, distilled.shape))} (Z, Y, X), counts in and counts out, in turns with the teacher.",
        muted=True,
    )
    words = [html.paragraph(f"{sentence[:1].upper()}{sentence[1:]}.") for sentence in distilled.sentences()]
    return html.section("Student and teacher", html.facts(cells), *words, table, by_channel if channels else "", picture, whose)


# A loss beyond this is shown as one.
_MUCH_DB = 0.5


def _row(name: str, one: Contender) -> list[str]:
    return [
        name,
        f"{one.flop_per_pixel / 1000:.1f}",
        f"{one.parameters:,}",
        f"{one.median_ms:.2f}",
        f"{one.p95_ms:.2f}",
        "-" if one.psnr_db is None else f"{one.psnr_db:.2f}",
        "-" if one.bias is None else f"{one.bias.worst:.1f}",
    ]


def _ladder(distilled: Distilled) -> str:
    timed = [
        [
            rung.name,
            f"{rung.flop_per_pixel / 1000:.1f}",
            f"{rung.parameters:,}",
            "-" if rung.median_ms is None else f"{rung.median_ms:.2f}",
            "-" if rung.p95_ms is None else f"{rung.p95_ms:.2f}",
            "the student" if rung.name == distilled.chosen else "",
        ]
        for rung in distilled.rungs
    ]
    caption = (
        "Time of the networks of the family on this machine over their operations; the largest within the target was taken. "
        "16/3: 16 filters in the first level, depth 3; folded 2: pixels are folded 2 by 2 into channels."
    )
    return html.section(
        "Which networks there were",
        html.picture(ladder_figure(distilled), "time over operations per pixel", caption),
        html.table(("network", "kFLOP per pixel", "weights", "ms, median", "ms, 95 %", ""), timed, words=1),
    )


def _looks(evaluation: Evaluation, images: Mapping[str, FloatArray]) -> Sequence[str]:
    pieces = []
    for case in evaluation.cases:
        taught = _part(case, images.get(case.name))
        if taught is not None:
            picture = beside_picture(case, taught)
            words = f"{case.kind.capitalize()} of the student: {case.name}, {case.gain_db:+.1f} dB over raw."
            pieces.append(html.picture(picture, f"low, teacher, student and high of {case.name}", words))
    return [html.section("Before and after: low, teacher, student, high", *pieces)] if pieces else []


def _part(case: Case, image: FloatArray | None) -> FloatArray | None:
    """Cut from the teacher's image the part that a case shows."""
    if image is None:
        return None
    stack = image.reshape(-1, *image.shape[-2:])
    z = case.corner[0] if len(case.corner) == 3 else 0
    y, x = case.corner[-2:]
    height, width = case.low.shape
    part: FloatArray = stack[z, y : y + height, x : x + width]
    return part if part.shape == case.low.shape else None
