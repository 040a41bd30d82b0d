"""The terminal of evaluation and promotion: scores by channel and light, verdicts by calibration, the journal.

Receives evaluations, verdicts and promotions; prints them with rich. It decides nothing.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from live_restore.evaluation.gate import Standing, Verdict
    from live_restore.evaluation.scores import Evaluation, PairScore
    from live_restore.records.promotions import Promotion


def print_evaluation(out: Console, err: Console, evaluation: "Evaluation") -> None:
    """Print the scores by channel and signal-to-noise ratio, and what to beware of."""
    from live_restore.evaluation.doubts import doubts
    from live_restore.evaluation.scores import means

    table = Table(title=f"{escape(evaluation.model)} on {evaluation.title}", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for heading in ("pairs", "raw dB", "restored dB", "gain dB", "best Gaussian", "NLM", "SSIM", "NRMSE"):
        table.add_column(heading, justify="right")
    groups: dict[str, Sequence[PairScore]] = {name: scores for name, scores in evaluation.by_channel().items() if name}
    for name, scores in (groups | evaluation.by_snr()).items():
        table.add_row(escape(name), *_cells(len(scores), means(scores)))
    table.add_row("all", *_cells(len(evaluation.scores), evaluation.mean), style="bold")
    out.print(table)
    for sentence in doubts(evaluation):
        err.print(f"[yellow]warning:[/] {escape(sentence)}")


def _cells(pairs: int, mean: Mapping[str, float]) -> list[str]:
    filters = [f"{mean[key]:+.2f}" if key in mean else "-" for key in ("gaussian_gain_db", "nlm_gain_db")]
    figures = [f"{mean['raw_psnr_db']:.2f}", f"{mean['psnr_db']:.2f}", f"{mean['gain_db']:+.2f}", *filters]
    return [str(pairs), *figures, f"{mean['ssim']:.3f}", f"{mean['nrmse']:.4f}"]


def print_verdict(out: Console, err: Console, verdict: "Verdict") -> None:
    """Print how the new model stands on every calibration, and what speaks against it."""
    first = all(one.old_db is None for one in verdict.standings)
    table = Table(box=None, pad_edge=False)
    table.add_column("calibration")
    for heading in ("pairs", "raw dB", *([] if first else ["serving dB"]), "new dB", "gained dB", "alarms", "bias"):
        table.add_column(heading, justify="right")
    for one in verdict.standings:
        table.add_row(escape(one.calibration), *_standing_cells(one, first), style="red" if one.against else "")
    if verdict.standings:
        out.print(table)
        out.print("[dim]mean PSNR over the held-out pairs; gained: pair by pair, with its 95 % confidence interval[/]")
    for sentence in verdict.against:
        err.print(f"[yellow]against it:[/] {escape(sentence)}")


def _standing_cells(one: "Standing", first: bool) -> list[str]:
    error = "" if one.error_db is None else f" ± {one.error_db:.2f}"
    old = [] if first else ["-" if one.old_db is None else f"{one.old_db:.2f}"]
    alarms = "-" if one.new_alarms is None else _both(str(one.new_alarms), one.old_alarms, "d")
    bias = "-" if one.new_bias is None else _both(f"{one.new_bias:.1f} %", one.old_bias, ".1f")
    return [str(one.pairs), f"{one.raw_db:.2f}", *old, f"{one.new_db:.2f}", f"{one.gained_db:+.2f}{error}", alarms, bias]


def _both(new: str, old: float | None, form: str) -> str:
    return new if old is None else f"{new} (was {old:{form}})"


def print_promotions(
    out: Console, journals: "Mapping[str, Sequence[Promotion]]", serving: "Mapping[str, Promotion | None]"
) -> None:
    """Print what happened, channel by channel, oldest first; what serves now stands out."""
    for channel, lines in journals.items():
        table = Table(title=escape(channel), title_justify="left", box=None, pad_edge=False)
        for heading in ("when, UTC", "what", "model", "by", "why"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "when, UTC")
        for line in lines:
            what = line.what + (", forced" if line.forced else "")
            model = f"{line.model or 'none'}, {line.sha256[:8]}" if line.sha256 else "none"
            words = (line.when[:16].replace("T", " "), what, model, line.by, line.why)
            style = "bold" if line == serving.get(channel) else "dim" if line.what == "refused" else ""
            table.add_row(*map(escape, words), style=style)
        out.print(table)
