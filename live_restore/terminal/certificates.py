"""The certificates on the screen: a row for each engine and precision that a model package can run on here.

Receives what is offered for a package; hands on a table. It decides nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from live_restore.engines.certificate import Certificate

if TYPE_CHECKING:
    from live_restore.certified import Offered

_FIGURES = ("relative error", "PSNR loss", "worst pixel", "bias dim", "bright")


def certificates_table(name: str, offered: "Sequence[Offered]") -> Table:
    """Lay out the figures of a package, and what they are measured on below."""
    sources = dict.fromkeys(row.certificate.source for row in offered if row.certificate)
    caption = f"against float32 on the CPU, on {', '.join(sources)}" if sources else "nothing here but float32 on the CPU"
    table = Table(
        "engine", "", *_FIGURES, "", box=None, pad_edge=False, title=escape(name), title_justify="left",
        caption=escape(caption), caption_justify="left",
    )  # fmt: skip
    for row in offered:
        table.add_row(row.kind, row.precision, *_figures(row))
    return table


def _figures(row: "Offered") -> list[str]:
    if row.certificate is None:
        said = f"[yellow]{escape(row.why_not)}[/]" if row.why_not else "[dim]what others are measured against[/]"
        return [""] * len(_FIGURES) + [said]
    return [*(words for _, words in row.certificate.facts[1:]), _verdict(row.certificate)]


def _verdict(found: Certificate) -> str:
    if found.passes:
        return "[green]passes[/]"
    return f"[yellow]refused: {escape(found.refusal.removeprefix(f'{found.engine}: '))}[/]"
