"""What is told while a network trains, and to whom.

Made by `live_restore.training.fit`, shown by the command line. It does not know how it is drawn.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the history: since the last validation, and at this one.

    Attributes
    ----------
    member : int
        Which network of an ensemble, from 0.
    step : int
    elapsed_s : float
    position : float
        0 to 1, how far training is.
    rate : float
        Learning rate.
    loss, held_out_loss : float
        In network units: mean over the batches since the last entry; over the held-out images, with averaged weights.
    psnr_db, raw_psnr_db : float
        Means over the held-out images after the affine fit, see `live_restore.score`: restored, and as they came.
    """

    member: int
    step: int
    elapsed_s: float
    position: float
    rate: float
    loss: float
    held_out_loss: float
    psnr_db: float
    raw_psnr_db: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is now.

    Attributes
    ----------
    member, members : int
        Which network of how many, from 0.
    step : int
    position : float
    elapsed_s, left_s : float
    loss : float
        Smoothed over the last batches.
    rate, steps_per_s : float
    """

    member: int
    members: int
    step: int
    position: float
    elapsed_s: float
    left_s: float
    loss: float
    rate: float
    steps_per_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A held-out image before, after and as it should be; (Y, X) float32, network units."""

    name: str
    low: FloatArray
    restored: FloatArray
    high: FloatArray


class TrainingListener(Protocol):
    """Who is told how training goes; the command line draws it."""

    def said(self, sentence: str) -> None:
        """Tell what happens, in words."""

    def stepped(self, progress: Progress) -> None:
        """Tell where training is; several times a second."""

    def validated(self, history: list[Entry], examples: list[Example]) -> None:
        """Tell how good the network is on held-out images; the history with the new entry last."""


class Nobody:
    """Nobody listens."""

    def said(self, sentence: str) -> None:
        """Ignore it."""

    def stepped(self, progress: Progress) -> None:
        """Ignore it."""

    def validated(self, history: list[Entry], examples: list[Example]) -> None:
        """Ignore it."""
