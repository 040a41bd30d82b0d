"""Options that train and distill share, and what becomes of them.

Receives what the user typed; hands on words for the training options. How errors become sentences is in `live_restore.cli`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

HeldOut = Annotated[
    list[str] | None,
    typer.Option(
        help="Positions to judge by: a name, 06*, or 067..079. Repeat it. [dim]default: as in the pair log, or a fifth[/]"
    ),
]
Position = Annotated[
    str | None, typer.Option(help="Regular expression whose one group is the position in a name, e.g. '^([0-9]+)_'.")
]
NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Learn from all pairs; otherwise bad ones of other origin are left out.")
]
CameraFrom = Annotated[
    Path | None, typer.Option(help="Hardware configuration, for the camera. [dim]default: what the pair log says[/]")
]
Seed = Annotated[int | None, typer.Option(help="Of weights and patches.", min=0)]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start anew, even if an interrupted training could go on.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a package of this name.")]


def pair_words(channel: str | None, position: str | None, held_out: list[str] | None, no_check: bool) -> dict[str, Any]:
    """Say which pairs are learned from, as the section ``pairs`` of the training options."""
    return said(channel=channel, position=position, held_out=tuple(held_out or ()) or None, check=False if no_check else None)


def said(**words: Any) -> dict[str, Any]:
    """Keep what was said."""
    return {name: value for name, value in words.items() if value is not None}
