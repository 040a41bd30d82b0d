"""The engines: a protocol, the table of kinds, and how one is opened.

Receives the bytes of an ONNX graph and a precision by name; hands on an object that turns batches into batches.
It does not know what a frame, a percentile, a tile or a model package is.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Precision = Literal["f32", "bf16"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What is running, by name: shown on the screen and written into the record.

    Attributes
    ----------
    kind : str
        Name in `ENGINES`.
    version : str
        Version of the runtime, e.g. ``"2026.4.1"``.
    device : str
        The device as its runtime names it.
    precision : {"f32", "bf16"}
        Arithmetic of the network. Batches are float32 at either.
    """

    kind: str
    version: str
    device: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.kind} {self.version}, {self.precision}, on {self.device}"


class Engine(Protocol):
    """The engine knows nothing of frames, percentiles or tiles.

    Opened once per model, used from one thread, closed once (a second time is fine).
    """

    spec: EngineSpec

    def warm_up(self, *shapes: tuple[int, ...]) -> None:
        """Prepare for inputs of exactly these shapes, one per graph input; called before the first batch of a new shape."""

    def infer(self, *inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Run the graph once. Called for every batch.

        Parameters
        ----------
        *inputs : ndarray, float32
            One per graph input, in the graph's order; the first is the batch (N, C, [Z,] Y, X).

        Returns
        -------
        tuple of ndarray, float32
            One per graph output, in the graph's order; each belongs to the caller.

        Raises
        ------
        EngineMismatch
            If number or shapes of the inputs do not fit the graph.
        """

    def close(self) -> None:
        """Give back memory and threads."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
