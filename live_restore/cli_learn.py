"""The command line of learning: train, limits, promote, rollback.

Receives what the user typed; hands it to the parts, and shows how far they are. Every command imports what it needs when it
is called. How errors become sentences is in `live_restore.cli`.
"""

import typer
from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in ():
        app.command()(command)
