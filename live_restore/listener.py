"""The listener: who is told how far a long restoration is.

Receives what happened, step by step; the command line draws bars from it. Shared by offline restoration and backfill; it
does not know what is restored.
"""

from typing import Protocol


class Listener(Protocol):
    """Who is told how far the work is; the command line draws bars from it."""

    def image(self, name: str, volumes: int, already: int) -> None:
        """Tell that an image or a run begins: this many volumes, of which some were restored before."""

    def tile(self, done: int, total: int) -> None:
        """Tell that a tile of the volume in hand is done."""

    def volume(self) -> None:
        """Tell that a volume is restored and written."""


class Silence:
    """Nobody listens."""

    def image(self, name: str, volumes: int, already: int) -> None:
        """Ignore it."""

    def tile(self, done: int, total: int) -> None:
        """Ignore it."""

    def volume(self) -> None:
        """Ignore it."""
