"""The terminal of learning: how training goes, as bar, curves and figures, and what came of it.

Receives what training reports; draws it with rich. It decides nothing. Where nobody watches, in a file or a pipe, it writes a
line now and then.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from live_restore.training.progress import Entry, Example, Progress
    from live_restore.training.train import Outcome

# Without a terminal, a line so often; the picture is drawn so often, and may take this part of the time.
_LINE_S, _PICTURE_S, _PICTURE_SHARE = 15.0, 20.0, 0.02
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 48


class TrainingView:
    """A `TrainingListener` that draws, use it as a context manager.

    Parameters
    ----------
    console : Console
    picture : Path or None
        Where example patches and curves are drawn now and then; None: nowhere.
    """

    def __init__(self, console: Console, picture: Path | None = None) -> None:
        self._console, self._picture = console, picture
        self._progress: Progress | None = None
        self._history: list[Entry] = []
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._lined, self._drawn = -math.inf, time.monotonic() - _PICTURE_S / 2
        self._drawing_s, self._named = 0.0, False

    def said(self, sentence: str) -> None:
        """Print what happens, above the bar."""
        self._console.print(escape(sentence), soft_wrap=True)

    def printed(self, table: Table) -> None:
        """Print a table, above the bar."""
        self._console.print(table)

    def stepped(self, progress: "Progress") -> None:
        """Move the bar."""
        self._progress = progress
        now = time.monotonic()
        if self._live is not None:
            self._live.update(self._page(progress), refresh=True)
        elif now - self._lined >= _LINE_S:
            self._lined = now
            self._console.print(f"{_where(progress)}, {self._gain()}{_figures(progress)}", soft_wrap=True)

    def validated(self, history: "list[Entry]", examples: "list[Example]") -> None:
        """Take in the newest look at held-out images, and draw the picture if it is time."""
        self._history = history
        now = time.monotonic()
        pause = max(_PICTURE_S, self._drawing_s / _PICTURE_SHARE)
        if self._picture is None or now - self._drawn < pause:
            return
        from live_restore.training.picture import draw_progress

        self._picture.parent.mkdir(parents=True, exist_ok=True)
        draw_progress(self._picture, history, examples)
        self._drawn = time.monotonic()
        self._drawing_s = self._drawn - now
        if not self._named:
            self._named = True
            self.said(f"examples and curves, while it trains: {self._picture}")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _gain(self) -> str:
        if not self._history:
            return ""
        newest = self._history[-1]
        return f"held out {newest.psnr_db:.2f} dB ({newest.psnr_db - newest.raw_psnr_db:+.2f} over raw), "

    def _page(self, progress: "Progress") -> Group:
        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(total=1.0, completed=progress.position, width=_CURVE_WIDTH), _where(progress))
        table = Table.grid(padding=(0, 2))
        for name, values in self._curves():
            table.add_row(name, Text(curve(values), style="cyan"), f"{values[-1]:.4g}")
        return Group(head, table, Text(f"{self._gain()}{_figures(progress)}"))

    def _curves(self) -> list[tuple[str, list[float]]]:
        member = self._progress.member if self._progress else 0
        entries = [entry for entry in self._history if entry.member == member]
        if not entries:
            return []
        return [
            ("loss, training", [entry.loss for entry in entries]),
            ("loss, held out", [entry.held_out_loss for entry in entries]),
            ("PSNR, held out, dB", [entry.psnr_db for entry in entries]),
        ]


def curve(values: Sequence[float], width: int = _CURVE_WIDTH) -> str:
    """Draw numbers as a line of bars, the lowest as the lowest bar; of many the newest.

    >>> curve([1.0, 2.0, 3.0])
    '▁▅█'
    """
    shown = [value for value in values if math.isfinite(value)][-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown)


def print_trained(console: Console, outcome: "Outcome") -> None:
    """Print what was trained, and how good it is on held-out pairs."""
    package, scored = outcome.package, outcome.evaluation
    if scored is not None:
        mean = scored.mean
        table = Table("on held-out pairs", "raw", "restored", box=None, pad_edge=False)
        for name, label, form in (("psnr_db", "PSNR, dB", ".2f"), ("ssim", "SSIM", ".3f"), ("nrmse", "NRMSE", ".4f")):
            table.add_row(label, format(mean[f"raw_{name}"], form), format(mean[name], form))
        console.print(table)
        console.print(
            f"{mean['gain_db']:+.2f} dB over raw, mean of {len(scored.scores)} held-out pair(s), served by {scored.engine}",
            soft_wrap=True,
        )
    console.print(f"model package: [bold]{escape(str(package.path))}[/]", soft_wrap=True)
    if scored is not None and package.path.is_dir():
        console.print(f"report: [bold]{escape(str(package.path / 'report.html'))}[/]", soft_wrap=True)
    console.print(
        f'try it: live-restore restore IMAGE.tif -o RESTORED.ome.tif --model "{escape(str(package.path))}"', soft_wrap=True
    )


def _where(progress: "Progress") -> str:
    which = f"network {progress.member + 1} of {progress.members}, " if progress.members > 1 else ""
    return f"{which}{progress.position:4.0%}, {_span(progress.elapsed_s)}, {_span(progress.left_s)} left"


def _figures(progress: "Progress") -> str:
    return (
        f"step {progress.step}, loss {progress.loss:.4g}, learning rate {progress.rate:.2e}, {progress.steps_per_s:.1f} steps/s"
    )


def _span(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
