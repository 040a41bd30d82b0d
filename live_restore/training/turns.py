"""Whose turn it is: every channel, every position of it and every image of that equally often.

Receives what there is to draw from; hands on, for every number, whose turn it is, without counting up to it. It does not know
images.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


class Turns:
    """A round dance in three circles.

    Every channel has its turn once a round, in an order that is drawn anew each round; so has every position of a channel, and
    every image of a position. A channel with few images is therefore seen as often as one with many.

    Parameters
    ----------
    places : sequence of (channel, position)
        Of the images, in their order.
    seed : int
    """

    def __init__(self, places: Sequence[tuple[str, str]], seed: int) -> None:
        grouped: dict[str, dict[str, list[int]]] = {}
        for number, (channel, position) in enumerate(places):
            grouped.setdefault(channel, {}).setdefault(position, []).append(number)
        self._circles = [list(positions.values()) for positions in grouped.values()]
        self._seed = seed

    def at(self, turn: int) -> int:
        """Say which image's turn it is; `turn` counts from 0."""
        round_, channel = self._next(turn, len(self._circles), ())
        positions = self._circles[channel]
        round_, position = self._next(round_, len(positions), (channel,))
        _, image = self._next(round_, len(positions[position]), (channel, position))
        return positions[position][image]

    def _next(self, turn: int, size: int, circle: tuple[int, ...]) -> tuple[int, int]:
        """Give the round that it is, and who is on."""
        round_, place = divmod(turn, size)
        return round_, _order(size, self._seed, circle, round_)[place]


@lru_cache(maxsize=4096)
def _order(size: int, seed: int, circle: tuple[int, ...], round_: int) -> tuple[int, ...]:
    drawn = np.random.default_rng([seed, len(circle), *circle, round_]).permutation(size)
    return tuple(int(place) for place in drawn)
