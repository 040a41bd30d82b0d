"""The dish: cells on an endless glass, each in its place for ever, grown when somebody looks.

Receives a seed and a window in µm; hands on the living cells in and around it. It does not know where stage or focus are.
"""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.simulate.living import LivingCell

DoubleArray = NDArray[np.float64]

_SPACING_UM = 25.5  # of the places, a hexagonal lattice
_SCATTER_UM = 3.0  # of the cells about them
_REACH_UM = 26.0  # a cell with all it does stays this near its place
_PER_PLACE = 1.2  # area of a place over the mean area of a cell
_PARTING_UM = 11.0  # how far from its mother's place a daughter goes
# Cells that are kept, some 3 MB each once they were looked at; others are grown again.
_REMEMBERED = 400
# About one in seven has divided shortly before; the others do it sooner or later.
_DIVIDED_ALREADY = 0.15
_MEAN_WAIT_S = 1500.0
# Who looks at the middle of the dish should not wait for long.
_FIRST_DIVISION_S = 25.0


class Dish:
    """An endless dish of living cells.

    Parameters
    ----------
    seed : int
    coverage : float
        Roughly the part of the glass that cells cover, in (0, 1].
    """

    def __init__(self, seed: int, coverage: float = 0.8) -> None:
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage {coverage} must be above 0 and at most 1")
        self.seed, self.coverage = seed, coverage
        self._grown: OrderedDict[tuple[int, int], LivingCell | None] = OrderedDict()

    def cells_in(self, low_um: DoubleArray, high_um: DoubleArray) -> Iterator[LivingCell]:
        """Give the cells that may reach into a window, (y, x) corners; the same window gives the same cells."""
        rows = self._range(low_um[0], high_um[0], _SPACING_UM * np.sqrt(0.75))
        columns = self._range(low_um[1], high_um[1], _SPACING_UM)
        for row in rows:
            for column in columns:
                cell = self._cell(row, column)
                if cell is not None:
                    yield cell

    @staticmethod
    def _range(low: float, high: float, spacing: float) -> range:
        return range(int(np.floor((low - _REACH_UM) / spacing)), int(np.ceil((high + _REACH_UM) / spacing)) + 1)

    def _cell(self, row: int, column: int) -> LivingCell | None:
        place = (row, column)
        if place not in self._grown:
            self._grown[place] = self._grow(row, column)
            if len(self._grown) > _REMEMBERED:
                self._grown.popitem(last=False)
        self._grown.move_to_end(place)
        return self._grown[place]

    def _grow(self, row: int, column: int) -> LivingCell | None:
        home = self._home(row, column)
        if home is None:
            return None
        seed, rng = self._seed(row, column), self._rng(row, column, 1)
        already, wait_s, ago_s = rng.random() < _DIVIDED_ALREADY, rng.exponential(_MEAN_WAIT_S), rng.uniform(30, 400)
        divides_at_s = -ago_s if already else wait_s + 20
        if (row, column) == (0, 0):
            divides_at_s = _FIRST_DIVISION_S
        return LivingCell(seed, home, divides_at_s, self._roomiest_axis(row, column, home))

    def _home(self, row: int, column: int) -> DoubleArray | None:
        """Where the cell of a place lives, (y, x); None where none does."""
        rng = self._rng(row, column, 0)
        occupied = rng.random() < self.coverage * _PER_PLACE
        scatter = np.clip(_SCATTER_UM * rng.normal(size=2), -2 * _SCATTER_UM, 2 * _SCATTER_UM)
        if not occupied and (row, column) != (0, 0):
            return None
        return np.array([row * np.sqrt(0.75), column + 0.5 * (row % 2)]) * _SPACING_UM + scatter

    def _roomiest_axis(self, row: int, column: int, home: DoubleArray) -> float:
        """Daughters part where there is room."""
        around = [self._home(row + r, column + c) for r in range(-2, 3) for c in range(-2, 3) if (r, c) != (0, 0)]
        others = np.array([place for place in around if place is not None] or [home + 1000])  # (N, 2)
        angles = np.arange(0, np.pi, np.pi / 18)
        apart = _PARTING_UM * np.stack([np.sin(angles), np.cos(angles)], axis=-1)  # (A, 2)
        room = [min(np.linalg.norm(others - home - side * step, axis=1).min() for side in (-1, 1)) for step in apart]
        return float(angles[int(np.argmax(room))])

    def _rng(self, row: int, column: int, salt: int) -> np.random.Generator:
        return np.random.default_rng((*self._seed(row, column), salt))

    def _seed(self, row: int, column: int) -> tuple[int, int, int]:
        return self.seed, row % 2**32, column % 2**32  # seeds are not negative
