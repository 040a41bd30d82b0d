"""The engines: a protocol, the table of kinds, and how one is opened.

Receives the bytes of an ONNX graph and a precision by name; hands on an object that turns batches into batches.
It does not know what a frame, a percentile, a tile or a model package is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import EngineUnavailable

FloatArray = NDArray[np.float32]
Array = NDArray[Any]
Batch = tuple[Array, ...]  # one array per graph input
Precision = Literal["f32", "bf16", "f16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "f16", "int8")


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
    precision : {"f32", "bf16", "f16", "int8"}
        Arithmetic within the network; what goes in and comes out is as the graph says.
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

    def infer(self, *inputs: Array) -> tuple[Array, ...]:
        """Run the graph once. Called for every batch.

        Parameters
        ----------
        *inputs : ndarray
            One per graph input, in the graph's order; the first is the batch (N, C, [Z,] Y, X). float32, or what the graph
            says: uint16 where it takes camera counts (`live_restore.engines.graphs.counts_graph`).

        Returns
        -------
        tuple of ndarray
            One per graph output, in the graph's order, float32 or what the graph says; each belongs to the caller.

        Raises
        ------
        EngineMismatch
            If number, dtypes or shapes of the inputs do not fit the graph.
        """

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[tuple[Array, ...]]:
        """Run the graph on batches in turn, taking the next one while the last is computed where the runtime can.

        Parameters
        ----------
        batches : iterable of tuple of ndarray
            Each as for `infer`; none may be changed until its result is there.

        Yields
        ------
        tuple of ndarray
            As from `infer`, in the order of the batches, but for one thing: an array is the engine's own memory, and holds its
            numbers only until the next result is asked for.
        """

    def close(self) -> None:
        """Give back memory and threads."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What a kind of engine can do on this machine.

    Attributes
    ----------
    version, device : str
        As in `EngineSpec`.
    precisions : tuple of {"f32", "bf16", "f16", "int8"}
        What it computes with natively.
    why_not : str
        Why a precision is missing, one sentence; empty if none is.
    free_bytes : int or None
        Memory of the device that is free now; None where it is the machine's own.
    """

    version: str
    device: str
    precisions: tuple[Precision, ...]
    why_not: str = ""
    free_bytes: int | None = None


class EngineClass(Protocol):
    """What a row of `ENGINES` points at: it can be asked what it offers, and called to open."""

    def __call__(self, onnx: bytes, precision: Precision, threads: int | None) -> Engine:
        """Open the graph; see `open_engine`."""

    def offer(self) -> Offer:
        """Ask what it can do here, without opening anything."""


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One row of `ENGINES`; its module is imported when it is chosen.

    Attributes
    ----------
    name : str
        What the user types.
    module, class_name : str
        Where the implementation is, an `EngineClass`.
    install : str
        What pip is told where the runtime is missing.
    about : str
        One line for ``live-restore engines``.
    """

    name: str
    module: str
    class_name: str
    install: str
    about: str


ENGINES = (
    EngineKind(
        "openvino",
        "live_restore.engines.openvino.engine",
        "OpenVinoEngine",
        install="openvino",
        about="the embedded default: any x86-64 or Arm CPU, f32 and bf16",
    ),
    EngineKind(
        "tensorrt",
        "live_restore.engines.tensorrt.engine",
        "TensorRtEngine",
        install="live_restore[rtx]",
        about="an NVIDIA card, by TensorRT or TensorRT for RTX: f32, f16 and bf16",
    ),
    EngineKind(
        "torch",
        "live_restore.engines.torch.engine",
        "TorchEngine",
        install="live_restore[train]",
        about="PyTorch, on a CUDA device if there is one, otherwise on the CPU",
    ),
    EngineKind(
        "torch-compiled",
        "live_restore.engines.torch.engine",
        "CompiledTorchEngine",
        install="live_restore[train]",
        about="PyTorch through its compiler, on a CUDA device; every size is compiled once, which takes a minute",
    ),
    EngineKind(
        "identity",
        "live_restore.engines.identity_engine",
        "IdentityEngine",
        install="live_restore",
        about="gives every batch back as it came: for trying out everything around the network",
    ),
)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One line of ``live-restore engines``.

    Attributes
    ----------
    kind : EngineKind
    offer : Offer or None
        None where the runtime is not installed or does not start.
    why_not : str
        What is missing and how to get it; empty if nothing is.
    """

    kind: EngineKind
    offer: Offer | None
    why_not: str


def engine_status() -> list[EngineStatus]:
    """Ask every kind in `ENGINES` what it can do on this machine."""
    return [_status(kind) for kind in ENGINES]


def what_is_offered(kind: str) -> Offer:
    """Ask one kind by name what it can do on this machine.

    Raises
    ------
    EngineUnavailable
        If there is no such kind, or its runtime is missing.
    """
    return _load(_row(kind)).offer()


def open_engine(kind: str, onnx: bytes, precision: str = "f32", threads: int | None = None) -> Engine:
    """Open one engine by name, exactly as asked or not at all.

    Parameters
    ----------
    kind : str
        A name in `ENGINES`.
    onnx : bytes
        The graph; float32 in and out.
    precision : {"f32", "bf16", "f16", "int8"}
        Arithmetic within the network.
    threads : int, optional
        CPU threads; default: as many as the runtime thinks right.

    Raises
    ------
    EngineUnavailable
        If there is no such kind, its runtime is missing, or this machine lacks the precision.
    EngineError
        If the runtime refuses the graph.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads {threads} is not possible; use 1 or more, or None for the runtime's own choice")
    engine_class = _load(_row(kind))
    return engine_class(onnx, _offered(kind, engine_class.offer(), precision), threads)


def _row(name: str) -> EngineKind:
    for kind in ENGINES:
        if kind.name == name:
            return kind
    raise EngineUnavailable(f"there is no engine {name!r}; the engines are {', '.join(kind.name for kind in ENGINES)}")


def _load(kind: EngineKind) -> EngineClass:
    try:
        engine_class: EngineClass = getattr(import_module(kind.module), kind.class_name)
    except ImportError as missing:
        raise EngineUnavailable(f"engine {kind.name!r} needs: pip install {kind.install} ({missing})") from missing
    return engine_class


def _offered(kind: str, offer: Offer, wanted: str) -> Precision:
    for precision in offer.precisions:
        if precision == wanted:
            return precision
    raise EngineUnavailable(
        f"engine {kind!r} does not compute in {wanted!r} on this machine; use {' or '.join(offer.precisions)}"
        + (f" ({offer.why_not})" if wanted in PRECISIONS and offer.why_not else "")
    )


def _status(kind: EngineKind) -> EngineStatus:
    try:
        offer = _load(kind).offer()
    except EngineUnavailable as refused:
        return EngineStatus(kind, None, str(refused))
    return EngineStatus(kind, offer, offer.why_not)
