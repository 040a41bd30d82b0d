"""The engine that is no network: every batch comes back as it came.

Receives batches and hands on copies of them, so that everything around an engine can be tried and timed without one. It
does not look at the graph, which may be empty.
"""

from typing import Self

from live_restore import __version__
from live_restore.engines.engine import PRECISIONS, EngineSpec, FloatArray, Offer, Precision
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

    def infer(self, *inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Give back a copy of the first input."""
        if not inputs:
            raise EngineMismatch("0 arrays were given; the identity takes 1 or more")
        return (inputs[0].copy(),)

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
