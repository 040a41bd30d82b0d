"""The engine that is no network: every batch comes back as it came.

Receives batches and hands on copies of them, so that everything around an engine can be tried and timed without one. It
does not look at the graph, which may be empty.
"""

from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np

from live_restore import __version__
from live_restore.engines.batches import one_by_one
from live_restore.engines.engine import PRECISIONS, Array, Batch, EngineSpec, Offer, Precision
from live_restore.errors import EngineMismatch


class IdentityEngine:
    """See `live_restore.engines.engine.Engine`. Several inputs are accepted; the first comes back."""

    def __init__(self, onnx: bytes = b"", precision: Precision = "f32", threads: int | None = None) -> None:
        del onnx, threads
        offer = self.offer()
        self.spec = EngineSpec("identity", offer.version, offer.device, precision)

    @classmethod
    def offer(cls) -> Offer:
        """Offer every precision: nothing is computed."""
        return Offer(__version__, "no device", PRECISIONS)

    def warm_up(self, *shapes: tuple[int, ...]) -> None:
        """Do nothing: there is nothing to prepare."""

    def infer(self, *inputs: Array) -> tuple[Array, ...]:
        """Give back a copy of the first input, as float32: camera counts come back as they are, whatever the ranges."""
        if not inputs:
            raise EngineMismatch("0 arrays were given; the identity takes 1 or more")
        return (inputs[0].astype(np.float32),)

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[tuple[Array, ...]]:
        """Give back the batches, one after the other."""
        return one_by_one(self, batches)

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
