"""The targets of a TensorRT build: the card in this machine, or a generation of GeForce and RTX cards.

Receives a name; hands on which cards a plan is for, as its key in the cache says it. It does not know networks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from live_restore.engines.tensorrt.recipe import CAPABILITIES
from live_restore.errors import EngineUnavailable

if TYPE_CHECKING:
    from live_restore.engines.cuda.calls import CudaDevice

THIS = "this"
ANY = "any"


@dataclass(frozen=True, slots=True)
class Target:
    """The cards that a plan is for.

    Attributes
    ----------
    name : str
        ``"this"``, ``"rtx40"``...
    device : str
        The card as its driver names it; for a generation its name.
    capability : (int, int)
        Compute capability.
    driver : str
        As the card's driver says it; ``"any"`` for a generation.
    """

    name: str
    device: str
    capability: tuple[int, int]
    driver: str = ANY

    @property
    def is_here(self) -> bool:
        """Whether it is the card in this machine."""
        return self.name == THIS

    def __str__(self) -> str:
        return f"{self.device} ({self.capability[0]}.{self.capability[1]})"


def target_named(name: str) -> Target:
    """Give a target by its name.

    Raises
    ------
    EngineUnavailable
        If there is no such target, or it is ``this`` and there is no card here.
    """
    if name == THIS:
        return target_of(_card())
    if name not in CAPABILITIES:
        raise EngineUnavailable(f"there is no target {name!r}; the targets are {THIS}, {', '.join(CAPABILITIES)}")
    return Target(name, name, CAPABILITIES[name])


def target_of(device: "CudaDevice") -> Target:
    """Give the target that is one card and no other."""
    return Target(THIS, device.name, device.capability, device.driver)


def generation_of(capability: tuple[int, int]) -> Target | None:
    """Give the generation that a card belongs to, since a plan built ahead for it runs there too; None: it is of none."""
    name = next((name for name, of in CAPABILITIES.items() if of == capability), None)
    return None if name is None else target_named(name)


def _card() -> "CudaDevice":
    cure = f"say for which card to build: --for {', --for '.join(CAPABILITIES)}"
    try:
        from live_restore.engines.cuda.runtime import CudaRuntime
    except ImportError as missing:
        raise EngineUnavailable(
            f"this machine's card cannot be asked ({missing}): pip install cuda-python; or {cure}"
        ) from missing
    try:
        return CudaRuntime().device()
    except EngineUnavailable as refused:
        found = str(refused).partition(", or use --engine ")[0]  # engines are chosen for restoring, not for building
        raise EngineUnavailable(f"{found}; or {cure}") from refused
