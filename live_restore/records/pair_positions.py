"""Positions: which pairs were taken at one place of the stage, and which places are held out.

Receives names, or pairs; hands on the position of each name, or the same pairs with a side of the split. A position never
stands on both sides: cells next to each other would be learnt by heart and then asked for. It opens nothing.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from live_restore.errors import PairError

if TYPE_CHECKING:
    from live_restore.records.pairs import Pair

# While pairs are taken nobody knows how many positions will come: the second is held out, and then every fifth.
_EVERY, _FIRST = 5, 1


def held_out_at_once(number: int) -> bool:
    """Whether the position of this number, counted from 0 as they come, is held out.

    >>> [number for number in range(20) if held_out_at_once(number)]
    [1, 6, 11, 16]
    """
    return number % _EVERY == _FIRST


def split_positions(pairs: "Sequence[Pair]", held_out_fraction: float = 0.2, seed: int = 0) -> "tuple[Pair, ...]":
    """Choose which positions are held out, where nobody has chosen yet.

    A position of which one pair has a side already takes that side as a whole. Which of the others are held out depends only
    on their names and the seed.

    Parameters
    ----------
    pairs : sequence of Pair
        Of one folder or several; positions of different folders are different places.
    held_out_fraction : float
        Of all positions, above 0 and below 1; at least one position is held out, and at least one is not.
    seed : int

    Returns
    -------
    tuple of Pair
        All of them, in the same order, with `split` set.

    Raises
    ------
    ValueError
        If the fraction is none.
    PairError
        If there is only one position, or all are on one side already.
    """
    if not 0 < held_out_fraction < 1:
        raise ValueError(f"held_out_fraction {held_out_fraction} must be above 0 and below 1, e.g. 0.2")
    places = [_place(pair) for pair in pairs]
    sides = {place: pair.split for place, pair in zip(places, pairs, strict=True) if pair.split}
    distinct = sorted(set(places))
    if len(distinct) < 2:
        raise PairError(
            f"the {len(pairs)} pairs were all taken at one position, so none can be held out to see what was learnt; "
            "take more positions, or give another folder with --held-out-from FOLDER"
        )
    open_places = sorted((place for place in distinct if place not in sides), key=lambda place: _lot(place[1], seed))
    held_out = sum(side == "held-out" for side in sides.values())
    wanted = min(max(1, round(held_out_fraction * len(distinct))), len(distinct) - 1) - held_out
    for number, place in enumerate(open_places):
        sides[place] = "held-out" if number < wanted else "train"
    for side, cure in (("held-out", "or give another folder with --held-out-from FOLDER"), ("train", "or change the split")):
        if side not in sides.values():
            raise PairError(f"of {len(distinct)} positions none is on the side '{side}'; take more positions, {cure}")
    return tuple(replace(pair, split=sides[place]) for pair, place in zip(pairs, places, strict=True))


def positions_in_names(names: Sequence[str], pattern: str | None = None) -> tuple[dict[str, str], str]:
    """Read the position in each name, and say what had to be supposed.

    >>> positions_in_names(["001_0", "001_1", "002_0"])[0]
    {'001_0': '001', '001_1': '001', '002_0': '002'}

    Parameters
    ----------
    names : sequence of str
    pattern : str or None
        A regular expression with one group. None: what stands before the last ``_`` or ``-``, if that groups the names into
        several positions; else every name is a position of its own.

    Returns
    -------
    positions : dict
        By name.
    note : str
        Empty where nothing had to be supposed.

    Raises
    ------
    PairError
        If the pattern is none, has not one group, or fits a name nowhere.
    """
    if pattern is not None:
        return _by_pattern(names, pattern), ""
    heads = {name: re.split(r"[_-](?=[^_-]*$)", name)[0] for name in names}
    if 1 < len(set(heads.values())) < len(names):
        example = names[0]
        return heads, f"positions are what stands before the last _ or - of a name: '{heads[example]}' in '{example}'"
    return {name: name for name in names}, "the names do not group into positions, so every pair counts as one of its own"


def _by_pattern(names: Sequence[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise PairError(f"position {pattern!r} is no regular expression: {error}; an example is '^(.+)_[0-9]+$'") from error
    if compiled.groups != 1:
        raise PairError(f"position {pattern!r} has {compiled.groups} groups; put one pair of brackets around the position")
    found = {name: compiled.search(name) for name in names}
    lost = [name for name, match in found.items() if match is None or match[1] is None]
    if lost:
        raise PairError(f"position {pattern!r} does not fit {len(lost)} of {len(names)} names, the first is '{lost[0]}'")
    return {name: str(match[1]) for name, match in found.items() if match is not None}


def _place(pair: "Pair") -> tuple[Path, str]:
    """Name the folder, however its path was written, and the position of a pair; rejected ones lie one folder deeper."""
    folder = pair.low.parent.parent.resolve()
    return (folder.parent if folder.name == "rejected" else folder), pair.position or pair.name


def _lot(position: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{position}".encode()).hexdigest()
