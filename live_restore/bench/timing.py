"""Time, measured so that it can be compared: what is compared takes turns, and the median of many turns counts.

Receives callables that do something once and say how many seconds it took; hands on medians and percentiles. It does not
know what is done, nor where.

Other programs of the machine hit all of those that take turns alike, so that ratios hold where absolute figures do not.
Every second round runs backwards: nobody always runs behind the same neighbour, whose caches and threads it would feel.
"""

import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from live_restore.errors import LiveRestoreError

Name = TypeVar("Name", bound=Hashable)
# Threads of a runtime spin for a moment after their work, and would take the core of whoever comes next.
_PAUSE_S = 0.03


@dataclass(frozen=True, slots=True)
class Turns:
    """How often everyone has a turn.

    Attributes
    ----------
    warm_up : int
        Turns that do not count.
    least, most : int
        Turns that count; between the two the budget decides.
    budget_s : float
        No further round is begun after so many seconds.
    """

    warm_up: int = 2
    least: int = 5
    most: int = 15
    budget_s: float = 10.0

    def __post_init__(self) -> None:
        if self.warm_up < 0 or not 1 <= self.least <= self.most:
            raise ValueError(
                f"{self.warm_up} turns to warm up and {self.least} to {self.most} that count are not possible; "
                "at least one turn counts"
            )


@dataclass(frozen=True, slots=True)
class Spread:
    """What the turns of one took.

    Attributes
    ----------
    median_ms, p95_ms, least_ms : float
    turns : int
        How many counted.
    """

    median_ms: float
    p95_ms: float
    least_ms: float
    turns: int


def spread(seconds: list[float]) -> Spread:
    """Sum up the turns of one; at least one turn."""
    ms = 1e3 * np.asarray(seconds)
    return Spread(float(np.median(ms)), float(np.percentile(ms, 95)), float(ms.min()), len(ms))


def alternate(
    takers: Mapping[Name, Callable[[], float]], turns: Turns, round_done: Callable[[int, int], None] = lambda done, of: None
) -> dict[Name, Spread | str]:
    """Let everyone take turns.

    Parameters
    ----------
    takers : mapping of name to callable () -> float
        Each does its work once and returns the seconds that this took; one that raises LiveRestoreError is out.
    turns : Turns
    round_done : callable (done, most)
        Called after every round that counts.

    Returns
    -------
    dict
        For every name its `Spread`, or the reason why it is out.
    """
    out: dict[Name, str] = {}
    seconds: dict[Name, list[float]] = {name: [] for name in takers}
    until = float("inf")
    for number in range(turns.warm_up + turns.most):
        counted = number - turns.warm_up
        if counted == 0:
            until = time.monotonic() + turns.budget_s
        if counted >= turns.least and time.monotonic() > until:
            break
        for name in list(takers) if number % 2 == 0 else list(takers)[::-1]:
            if name in out:
                continue
            time.sleep(_PAUSE_S)
            try:
                taken = takers[name]()
            except LiveRestoreError as refused:
                out[name] = str(refused)
            else:
                seconds[name] += [taken] if counted >= 0 else []
        if counted >= 0:
            round_done(counted + 1, turns.most)
    round_done(turns.most, turns.most)
    return {name: out.get(name) or spread(seconds[name]) for name in takers}


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect now, and not while something is timed."""
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Make a callable that does some work once and returns the seconds."""

    def turn() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return turn
