"""The engines of one network: for counts of either dtype, whole or pooling over tiles; only what is in use is open.

Receives the plain ONNX graph and what to open it with; hands on engines that take camera counts and give camera counts. It
does not know images or tiles.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from live_restore.engines.engine import Engine, open_engine

if TYPE_CHECKING:
    from live_restore.engines.graphs.counts_graph import ImageType


class NetworkEngines:
    """One network, ready to be opened; use it from one thread.

    Of the graph for whole images, and of the two for pooled tiles, one each is open at a time, since each holds memory: another
    dtype, or the other pass over the tiles, closes the one before.

    Parameters
    ----------
    onnx : bytes
        The plain network.
    kind, precision : str
        As for `live_restore.engines.engine.open_engine`.
    threads : int, optional
    """

    def __init__(self, onnx: bytes, kind: str, precision: str, threads: int | None = None) -> None:
        self._onnx = onnx
        self._how = kind, precision, threads
        self._open: dict[str, tuple[str, Engine]] = {}

    def whole(self, image: "ImageType", rounded: bool = False) -> Engine:
        """Open the network as it is.

        Parameters
        ----------
        image : {"uint16", "float32"}
            What the counts come as.
        rounded : bool
            Whether the result is whole counts, uint16; else float32.

        Raises
        ------
        EngineError, ModelError
            If the runtime refuses the graph, or the graph cannot take counts.
        """
        return self._opened("whole", f"whole {image} {rounded}", lambda onnx: _from_counts(onnx, image, rounded))

    def measuring(self, image: "ImageType") -> Engine:
        """Open the variant ``(counts, weights, ...) -> (sums, counts)`` of `live_restore.engines.graphs.pooling`."""

        def variant(onnx: bytes) -> bytes:
            from live_restore.engines.graphs.pooling import measuring

            return _from_counts(measuring(onnx), image, rounded=False)

        return self._opened("pooled", f"measuring {image}", variant)

    def applying(self, image: "ImageType", rounded: bool = False) -> Engine:
        """Open the variant ``(counts, weights, means, ...) -> (sums, counts)`` of `live_restore.engines.graphs.pooling`."""

        def variant(onnx: bytes) -> bytes:
            from live_restore.engines.graphs.pooling import applying

            return _from_counts(applying(onnx), image, rounded)

        return self._opened("pooled", f"applying {image} {rounded}", variant)

    def close(self) -> None:
        """Close what is open; it opens again when it is asked for."""
        for place in list(self._open):
            self._close(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _opened(self, place: str, name: str, variant: Callable[[bytes], bytes]) -> Engine:
        if self._open.get(place, ("",))[0] != name:
            self._close(place)
            kind, precision, threads = self._how
            self._open[place] = name, open_engine(kind, variant(self._onnx), precision, threads)
        return self._open[place][1]

    def _close(self, place: str) -> None:
        if place in self._open:
            self._open.pop(place)[1].close()


def _from_counts(onnx: bytes, image: "ImageType", rounded: bool) -> bytes:
    # loads onnx, which whoever only looks at engines does not need
    from live_restore.engines.graphs.counts_graph import from_counts

    return from_counts(onnx, image, rounded)
