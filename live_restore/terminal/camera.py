"""The terminal of camera noise: three figures with their errors, and what would change in a configuration.

Receives a `CameraEstimate`; draws it with rich. It decides nothing.
"""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from live_restore.pairs.camera_estimate import CameraEstimate, Measured

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def print_camera(console: Console, estimate: CameraEstimate) -> None:
    """Print what is known of a camera, and what is not."""
    table = Table("", "value", "error", "unit", title=escape(estimate.method), title_justify="left", box=None, pad_edge=False)
    for name, measured, unit in (
        ("offset", estimate.offset_adu, "counts"),
        ("gain", estimate.gain_adu_per_e, "counts per electron"),
        ("read noise", estimate.read_noise_e, "electrons rms"),
    ):
        table.add_row(name, *_cells(measured), unit)
    console.print(table)
    looked = f"{estimate.pixels / 1e6:.3g} million measurements of pixels"
    moved = 0.0 if estimate.line is None else estimate.line.moved_px2
    motion = f"; the specimen moved by {np.sqrt(moved):.2g} pixels within a pair, which was taken off" if moved else ""
    console.print(f"[dim]{looked}{motion}[/]")
    if estimate.why:
        console.print(f"[yellow]{escape(estimate.why)}[/]")


def print_difference(console: Console, lines: str) -> None:
    """Print what would change in a file."""
    for line in lines.splitlines():
        colour = _COLOURS.get(line[:1], "dim")
        console.print(f"[{colour}]{escape(line)}[/]", soft_wrap=True)


def _cells(measured: Measured) -> tuple[str, str]:
    if not np.isfinite(measured.error):
        return "unknown", ""
    relative = f" ({100 * measured.relative:.2g} %)" if measured.value else ""
    return f"{measured.value:.4g}", f"± {measured.error:.2g}{relative}"
