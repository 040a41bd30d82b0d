"""The certificates on the screen: a row for each engine and precision that a model package can run on here.

Receives what is offered for a package; hands on a table. It decides nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from live_restore.engines.certificates.certificate import Certificate

if TYPE_CHECKING:
    from live_restore.certified import Offered

_FIGURES = ("relative error", "PSNR loss", "worst pixel", "bias dim", "bright")


def certificates_table(name: str, offered: "Sequence[Offered]") -> Table:
    """Lay out the figures of a package; below, what they are measured on, and why others are not taken."""
    sources = dict.fromkeys(row.certificate.source for row in offered if row.certificate)
    said = [f"against float32 on the CPU, on {', '.join(sources)}" if sources else "nothing here but float32 on the CPU"]
    said += [f"{row.kind} {row.precision}: {why}" for row in offered if (why := _why_not(row))]
    table = Table(
        "engine", "", *_FIGURES, "", box=None, pad_edge=False, title=escape(name), title_justify="left",
        caption=escape("\n".join(said)), caption_justify="left",
    )  # fmt: skip
    for row in offered:
        table.add_row(row.kind, row.precision, *_figures(row))
    return table


def _figures(row: "Offered") -> list[str]:
    if row.certificate is None:
        said = "[yellow]not measured[/]" if row.why_not else "[dim]reference[/]"
        return [""] * len(_FIGURES) + [said]
    return [*(words for _, words in row.certificate.facts[1:]), _verdict(row.certificate)]


def _verdict(found: Certificate) -> str:
    return "[green]passes[/]" if found.passes else "[yellow]refused[/]"


def _why_not(row: "Offered") -> str:
    if row.certificate is None or row.certificate.passes:
        return row.why_not
    return row.certificate.refusal.removeprefix(f"{row.certificate.engine}: ")
