"""The schedule: how far training is, and how large its steps are then.

Receives how many steps were made and how much time has passed; hands on a position from 0 to 1 and a learning rate. Pure: it
has no clock. It does not know networks.

The position is the larger of two fractions, of steps and of time: whichever limit comes first, the learning rate has just
reached its end there, on a busy machine and after an interruption too.
"""

import math
from dataclasses import dataclass

# Part of the highest learning rate that the very first step has.
_FIRST = 0.01


@dataclass(frozen=True, slots=True)
class Schedule:
    """A short rise, then half a cosine down.

    Attributes
    ----------
    learning_rate : float
        The highest.
    steps : int or None
        After so many it ends.
    seconds : float or None
        After so long it ends; of training, interruptions not counted.
    warm_up : float
        Fraction of the whole during which the learning rate rises, linearly.
    final : float
        The last learning rate, as a fraction of the highest.
    """

    learning_rate: float
    steps: int | None = None
    seconds: float | None = None
    warm_up: float = 0.05
    final: float = 0.0

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("the schedule has no end; give steps or minutes")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up {self.warm_up} must be a fraction of the whole, 0 to less than 1")

    def position(self, step: int, elapsed_s: float) -> float:
        """Say how far training is, 0 to 1, after this many steps and seconds."""
        by_steps = step / self.steps if self.steps else 0.0
        if self.seconds is None:
            return min(1.0, by_steps)
        by_time = elapsed_s / self.seconds if self.seconds > 0 else 1.0
        return min(1.0, max(by_steps, by_time))

    def rate(self, position: float) -> float:
        """Give the learning rate at a position."""
        if position < self.warm_up:
            return self.learning_rate * max(position / self.warm_up, _FIRST)
        fallen = (position - self.warm_up) / (1 - self.warm_up)
        return self.learning_rate * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * fallen)))
