"""The two flavours of TensorRT, which share one Python interface: which is installed, and which is meant for a card.

Receives nothing, or a card's compute capability; hands on a flavour: its module, its version, and a log that can be listened
to. It builds nothing and runs nothing.

``tensorrt_rtx`` (TensorRT for RTX) is for GeForce and RTX cards and builds on any machine, also without a card;
``tensorrt`` is for data-centre cards and builds on the card itself.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Literal

from live_restore.errors import EngineUnavailable

FlavourName = Literal["tensorrt_rtx", "tensorrt"]
FLAVOURS: tuple[FlavourName, ...] = ("tensorrt_rtx", "tensorrt")

INSTALL = 'pip install "live_restore[rtx]" for a GeForce or RTX card, "live_restore[tensorrt]" for a data-centre card'

# Compute capabilities that TensorRT for RTX compiles for (8.0 and 9.0 are data-centre cards, which it refuses).
_RTX_CARDS = ((7, 5), (8, 6), (8, 9))
_RTX_FROM = 12

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Flavour:
    """One installed TensorRT.

    Attributes
    ----------
    name : {"tensorrt_rtx", "tensorrt"}
    version : str
        E.g. ``"1.7.1.116"``.
    module : module
        What ``import tensorrt`` or ``import tensorrt_rtx`` gives.
    log : Log
        The only logger that its objects are given: TensorRT keeps the first one it meets for the whole process.
    """

    name: FlavourName
    version: str
    module: Any
    log: Any = field(repr=False)

    @property
    def builds_without_card(self) -> bool:
        """Whether plans can be built on a machine that lacks the card."""
        return self.name == "tensorrt_rtx"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def installed_flavours() -> list[Flavour]:
    """Import every flavour that is installed; an empty list if there is none."""
    return [flavour for flavour in map(_load, FLAVOURS) if flavour is not None]


def flavour_for(capability: tuple[int, int] | None = None) -> Flavour:
    """Give the flavour for a card.

    Parameters
    ----------
    capability : (int, int), optional
        Compute capability of the card, e.g. (8, 9); None: the first flavour that is installed.

    Raises
    ------
    EngineUnavailable
        If none is installed, or none that is meant for such a card.
    """
    installed = installed_flavours()
    if not installed:
        raise EngineUnavailable(f"TensorRT is not installed: {INSTALL}")
    for flavour in installed:
        if capability is None or serves(flavour.name, capability):
            return flavour
    raise EngineUnavailable(
        f"{installed[0].name} does not serve a card of compute capability {capability[0]}.{capability[1]}"  # type: ignore[index]
        f" (it serves 7.5, 8.6, 8.9 and 12.x); for a data-centre card: pip install 'live_restore[tensorrt]'"
    )


def serves(name: str, capability: tuple[int, int]) -> bool:
    """Whether a flavour can make plans for a card of this compute capability; ``tensorrt`` serves every one."""
    return name != "tensorrt_rtx" or capability in _RTX_CARDS or capability[0] >= _RTX_FROM


@cache
def _load(name: FlavourName) -> Flavour | None:
    try:
        module = import_module(name)
    except ImportError as missing:
        _logger.debug("%s: %s", name, missing)
        return None
    return Flavour(name, str(module.__version__), module, _log_class(module)())


def _log_class(module: Any) -> Any:
    """Make the logger's class: its base belongs to the module that is installed."""

    class Log(module.ILogger):  # type: ignore[misc]
        """What TensorRT says, for whoever listens, from whichever thread it says it."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self._listening: list[list[str]] = []
            self._lock = threading.Lock()

        def log(self, severity: Any, message: str) -> None:
            if severity == module.ILogger.VERBOSE:
                return
            worst = severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR)
            _logger.debug("%s: %s", severity, message)
            with self._lock:
                for messages in self._listening:
                    messages.append(f"error: {message}" if worst else message)

        @contextmanager
        def listening(self) -> Iterator[list[str]]:
            """Give a list that fills with what is said meanwhile; errors begin with ``error:``."""
            messages: list[str] = []
            with self._lock:
                self._listening.append(messages)
            try:
                yield messages
            finally:
                with self._lock:
                    # by identity: two lists that hold the same are equal
                    self._listening = [other for other in self._listening if other is not messages]

    return Log
