"""The terminal of distilling: the ladder of networks while it is timed, training, and student beside teacher in the end.

Receives what distilling reports; draws it with rich. It decides nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from live_restore.terminal.training import TrainingView

if TYPE_CHECKING:
    from rich.console import Console

    from live_restore.evaluation.distilled import Contender, Distilled, Rung
    from live_restore.evaluation.scores import Evaluation
    from live_restore.training.train import Outcome


class DistillingView(TrainingView):
    """A `DistillingListener` that draws; use it as a context manager."""

    def timed(self, done: int, total: int) -> None:
        """Say that a network of the family was opened."""
        if done == 1:
            self.said(f"timing a family of {total} networks on this machine, smallest first")

    def chosen(self, rungs: "Sequence[Rung]", name: str, target_ms: float) -> None:
        """Show the family and its times."""
        table = Table("network", "kFLOP per pixel", "weights", "ms, median", "ms, 95 %", box=None, pad_edge=False)
        for rung in rungs:
            times = ["-" if value is None else f"{value:.2f}" for value in (rung.median_ms, rung.p95_ms)]
            row = [rung.name, f"{rung.flop_per_pixel / 1000:.1f}", f"{rung.parameters:,}", *times]
            table.add_row(*map(escape, row), style="bold cyan" if rung.name == name else None)
        self.printed(table)
        self.said(f"the student will be {name}, the largest within {target_ms:g} ms")


def print_distilled(console: "Console", outcome: "Outcome", distilled: "Distilled") -> None:
    """Print student and teacher side by side, and what the photons say."""
    from live_restore.evaluation.distilled import rows

    table = Table("", "kFLOP per pixel", "weights", "ms, median", "PSNR, dB", "largest bias, %", box=None, pad_edge=False)
    for name, one in (("teacher", distilled.teacher), ("student", distilled.student)):
        table.add_row(name, *_figures(one))
    console.print(table)
    by_channel = rows(distilled, outcome.evaluation)
    if by_channel:
        decibels = Table("PSNR on held-out pairs, dB", "raw", "best Gaussian", "teacher", "student", box=None, pad_edge=False)
        for name, values in by_channel:
            decibels.add_row(escape(name), *(f"{value:.2f}" for value in values))
        console.print(decibels)
    _print_bias(console, distilled)
    if outcome.evaluation is not None:
        _print_trust(console, outcome.evaluation)
    for sentence in distilled.sentences():
        console.print(escape(sentence), soft_wrap=True, style=None if distilled.met else "yellow")
    path = outcome.package.path
    console.print(f"model package: [bold]{escape(str(path))}[/]", soft_wrap=True)
    if path.is_dir() and outcome.evaluation is not None:
        console.print(f"report: [bold]{escape(str(path / 'report.html'))}[/]", soft_wrap=True)


def _figures(one: "Contender") -> list[str]:
    return [
        f"{one.flop_per_pixel / 1000:.1f}",
        f"{one.parameters:,}",
        f"{one.median_ms:.2f}",
        "-" if one.psnr_db is None else f"{one.psnr_db:.2f}",
        "-" if one.bias is None else f"{one.bias.worst:.1f}",
    ]


def _print_bias(console: "Console", distilled: "Distilled") -> None:
    known = [(name, one.bias) for name, one in (("teacher", distilled.teacher), ("student", distilled.student)) if one.bias]
    if not known:
        return
    table = Table("bias by tenth of pixels, % of range", *map(str, range(1, 11)), box=None, pad_edge=False)
    for name, bias in known:
        table.add_row(name, *(f"{value:+.1f}" for value in bias.deciles))
    console.print(table)


def _print_trust(console: "Console", evaluation: "Evaluation") -> None:
    judged = [score for score in evaluation.scores if score.trusted is not None]
    if judged:
        trusted = sum(score.trusted is True for score in judged)
        console.print(f"{trusted} of {len(judged)} restored images agree with the photons that were counted")
