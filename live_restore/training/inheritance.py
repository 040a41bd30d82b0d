"""What a student takes over from its teacher; empty for a network that nobody taught.

Made by `live_restore.training.teacher`, used by training where pairs do not say it themselves. It does not know packages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from live_restore.intensity import IntensityRange


@dataclass(frozen=True, slots=True, eq=False)
class Inheritance:
    """What is taken over.

    Attributes
    ----------
    teacher : str
        Its name; empty where nobody teaches.
    learned_from : frozenset of str
        The sha256 of every low-light image that the teacher has seen: its student is not to be judged by those either.
    frozen : IntensityRange or None
        The range of its normalisation, where that is frozen.
    channel : str or None
    pixel_size_um : tuple of float or None
        Per spatial axis of the network.
    light_levels : mapping
    """

    teacher: str = ""
    learned_from: frozenset[str] = frozenset()
    frozen: IntensityRange | None = None
    channel: str | None = None
    pixel_size_um: tuple[float, ...] | None = None
    light_levels: Mapping[str, float] = field(default_factory=dict)
