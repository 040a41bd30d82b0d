"""The command line of calibration: calibrate, pairs, noise.

Receives what the user typed; hands it to the parts, and shows how far they are. Every command imports what it needs when it
is called. How errors become sentences is in `live_restore.cli`.
"""

import typer
from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

pairs = typer.Typer(help="Look at folders of low/high-light pairs, and check them.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(pairs, name="pairs")
