"""Batches drawn ahead: the next ones, in a thread of their own, while the network learns from this one.

Receives a sampler; hands on the batch of a step. It does not know what is in a batch.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_AHEAD = 3


class DrawnBatch(Protocol):
    """Patches in network units, (N, 1, [Z,] Y, X), float32."""

    @property
    def low(self) -> FloatArray:
        """What goes in."""

    @property
    def target(self) -> FloatArray:
        """What is to come out."""


class Sampler(Protocol):
    """Where batches come from; the same step gives the same batch, whenever it is asked for."""

    def draw(self, step: int) -> DrawnBatch:
        """Draw the batch of a step, counted from 0."""


class Ahead:
    """Draws ahead, use it as a context manager.

    Parameters
    ----------
    sampler : Sampler
        Asked from one thread only.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._drawn: deque[tuple[int, Future[DrawnBatch]]] = deque()

    def take(self, step: int) -> DrawnBatch:
        """Give the batch of a step, and begin with those after it."""
        while self._drawn and self._drawn[0][0] != step:
            self._drawn.popleft()[1].cancel()
        first = self._drawn[-1][0] + 1 if self._drawn else step
        for later in range(first, step + _AHEAD + 1):
            self._drawn.append((later, self._thread.submit(self._sampler.draw, later)))
        return self._drawn.popleft()[1].result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
