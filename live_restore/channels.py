"""The channel plan: which channels of an image go through which model, and what the restored file's channels are.

Receives channel names and what the user asked for; hands on parts, in the order of the restored file. It does not know
pixels or files. Live and offline restoration share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from live_restore.errors import ImageError
from live_restore.models.facts import ModelFacts

Others = Literal["keep", "leave-out"]


class HasFacts(Protocol):
    """Anything that restores: all the plan needs of it is what its model says of itself."""

    @property
    def facts(self) -> ModelFacts:
        """The model's facts."""


R = TypeVar("R", bound=HasFacts)


@dataclass(frozen=True, slots=True)
class Assignment(Generic[R]):
    """Which channels go through which model together.

    Attributes
    ----------
    channels : tuple of str, or None
        In the order the model takes them; None: every channel that has no model of its own.
    restorer : R
    """

    channels: tuple[str, ...] | None
    restorer: R


@dataclass(frozen=True, slots=True)
class Part(Generic[R]):
    """Some channels of an image, through one model or as they are.

    Attributes
    ----------
    channels : tuple of int
        Indices in the raw image, in the order the model takes them.
    restorer : R or None
        None: these channels are kept as they are.
    names : tuple of str
        Of the channels that come out: the restored ones, then their Laplace scales if asked for.
    """

    channels: tuple[int, ...]
    restorer: R | None
    names: tuple[str, ...]


def plan_channels(
    names: Sequence[str], assignments: Sequence[Assignment[R]], others: Others = "keep", widths: bool = False
) -> list[Part[R]]:
    """Give every channel of an image its model.

    Parameters
    ----------
    names : sequence of str
        Channel names of the image.
    assignments : sequence of Assignment
    others : {"keep", "leave-out"}
        What happens to channels that no model takes.
    widths : bool
        Also write the Laplace scale of probabilistic models.

    Raises
    ------
    ImageError
        If a channel is named that the image lacks, or twice, or a model takes another number of channels.
    """
    if sum(wanted.channels is None for wanted in assignments) > 1:
        raise ImageError("two models are given for every channel; say which is for which: --model CHANNEL=PACKAGE")
    chosen = {index: part for part in _parts(names, assignments, widths) for index in part.channels[:1]}
    taken = {index for part in chosen.values() for index in part.channels}
    for index, name in enumerate(names):
        if index not in taken and others == "keep":
            chosen[index] = Part((index,), None, (f"{name} (raw)",))
    return [chosen[index] for index in sorted(chosen)]


def _parts(names: Sequence[str], assignments: Sequence[Assignment[R]], widths: bool) -> list[Part[R]]:
    parts: list[Part[R]] = []
    taken: set[int] = set()
    for wanted in sorted(assignments, key=lambda a: a.channels is None):
        groups = _groups(names, wanted, taken)
        for group in groups:
            _check_group(group, names, taken, wanted.restorer.facts)
            taken.update(group)
            parts.append(Part(group, wanted.restorer, _names(group, names, wanted.restorer.facts, widths)))
    return parts


def _groups(names: Sequence[str], wanted: Assignment[R], taken: set[int]) -> list[tuple[int, ...]]:
    """Channel indices that go through the model together; several groups if the model is for each channel."""
    if wanted.channels is not None:
        return [tuple(_index(name, names) for name in wanted.channels)]
    free = [index for index in range(len(names)) if index not in taken]
    if wanted.restorer.facts.channels_in == 1:
        return [(index,) for index in free]
    return [tuple(free)]


def _index(name: str, names: Sequence[str]) -> int:
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise ImageError(f"there is no channel '{name}' in this image; it has {', '.join(f'{n!r}' for n in names)}")


def _check_group(group: tuple[int, ...], names: Sequence[str], taken: set[int], facts: ModelFacts) -> None:
    twice = [names[index] for index in group if index in taken or group.count(index) > 1]
    if twice:
        raise ImageError(f"channel '{twice[0]}' is given to two models; give it to one")
    if len(group) != facts.channels_in:
        listed = ", ".join(f"'{names[index]}'" for index in group) or "none"
        raise ImageError(
            f"the model takes {facts.channels_in} channels together, and this image offers {len(group)} ({listed}); "
            "name them in the model's order: --model A+B=PACKAGE"
        )


def _names(group: tuple[int, ...], names: Sequence[str], facts: ModelFacts, widths: bool) -> tuple[str, ...]:
    if facts.channels_out == len(group):
        restored = tuple(names[index] for index in group)
    else:
        joined = "+".join(names[index] for index in group)
        restored = tuple(f"{joined} {n}" if facts.channels_out > 1 else joined for n in range(facts.channels_out))
    scales = tuple(f"{name} (Laplace scale)" for name in restored) if widths and facts.probabilistic else ()
    return restored + scales
