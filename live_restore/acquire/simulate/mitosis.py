"""How a cell divides: condensation, the plate, two sets of chromosomes moving apart, two cells.

Receives the time since a cell's chromosomes stood in their plate; hands on how far everything is, and where chromosomes
and spindle fibres are, in the cell's own axes: z up, u along the spindle, v across, µm. It does not know where the cell is, nor
how it is drawn.

The order and the proportions are those of a cultured human cell (prophase to telophase in about an hour), told about forty
times as fast, so that somebody who watches for two minutes sees one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]

BEGINS_S, ENDS_S = -34.0, 120.0
_CHROMOSOMES = 46
_ARM_POINTS = np.linspace(-1, 1, 13)
_GRAINS = 8  # points drawn for each point of an arm, to give it a thickness
_POLE_UM = 5.0
_FIBRES = 70  # of each half of the spindle


def smooth(start: float, stop: float, now: float) -> float:
    """Rise from 0 to 1 between two times, without a kink."""
    x = min(max((now - start) / (stop - start), 0.0), 1.0)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a division is, each from 0 to 1.

    Attributes
    ----------
    condensed : float
        Of the chromatin, from a nucleus full of it to chromosomes.
    rounded : float
        Of the cell, which lets go of the glass and spreads again afterwards.
    spindle : float
        Its fibres; the cell's other microtubules are gone while it stands.
    congressed : float
        Of the chromosomes, from where they were in the nucleus to the plate.
    apart : float
        Of the two sets of chromosomes.
    split : float
        Of the two cells.
    midbody : float
        The bundle of fibres between them.
    reformed : float
        Of the daughters' nuclei.
    spread : float
        Of the daughters on the glass.
    """

    condensed: float
    rounded: float
    spindle: float
    congressed: float
    apart: float
    split: float
    midbody: float
    reformed: float
    spread: float


def stage(since_s: float) -> Stage:
    """Say how far a division is, this many seconds after the chromosomes stand in their plate."""
    spread = smooth(36, ENDS_S, since_s)
    return Stage(
        condensed=smooth(-32, -12, since_s),
        rounded=smooth(-28, -6, since_s) * (1 - spread),
        spindle=smooth(-14, -3, since_s) * (1 - smooth(24, 34, since_s)),
        congressed=smooth(-13, 1, since_s),
        apart=smooth(14, 23, since_s),
        split=smooth(18, 33, since_s),
        midbody=smooth(20, 27, since_s) * (1 - smooth(50, 85, since_s)),
        reformed=smooth(30, 56, since_s),
        spread=spread,
    )


class Chromosomes:
    """The chromosomes of one cell; each becomes two, which part.

    Parameters
    ----------
    rng : numpy.random.Generator
    nucleus_um : ndarray, (3,)
        Radii of the nucleus, (z, u, v).
    """

    def __init__(self, rng: np.random.Generator, nucleus_um: DoubleArray) -> None:
        number = _CHROMOSOMES
        directions = _unit(rng.normal(size=(number, 3)))
        self._scattered = 0.82 * nucleus_um * directions * np.cbrt(rng.random((number, 1)))  # (N, 3)
        radius, turn = np.sqrt(rng.random(number)), rng.uniform(0, 2 * np.pi, number)
        self._plate = np.column_stack([1.9 * radius * np.sin(turn), np.zeros(number), 4.2 * radius * np.cos(turn)])
        self._arms = _unit(rng.normal(size=(number, 3)))
        self._lengths_um = rng.uniform(1.0, 3.2, number)
        self._phases = rng.uniform(0, 2 * np.pi, number)
        self._bends = 0.35 * rng.normal(size=(number, 3))
        self._grains = rng.normal(scale=0.25, size=(2, number, len(_ARM_POINTS), _GRAINS, 3))

    def points_um(self, now: Stage, half_distance_um: float, since_s: float) -> DoubleArray:
        """Place both sets of chromosomes.

        Parameters
        ----------
        now : Stage
        half_distance_um : float
            From the middle to where either set ends up.
        since_s : float
            The plate trembles with it.

        Returns
        -------
        ndarray, (2, N, 3), float64
            (z, u, v) of the points of either set; the first goes to negative u.
        """
        tremble = 0.25 * np.sin(self._phases + 2 * np.pi * since_s / 5.0) * now.congressed * (1 - now.apart)
        plate = self._plate * (1, 1, 1 - 0.45 * now.split)
        plate[:, 1] += tremble
        centre = self._scattered + now.congressed * (plate - self._scattered)  # (N, 3)
        along = _ARM_POINTS[:, None]  # (P, 1)
        # arms lie within the plate, and trail behind when their middle is pulled
        flat = np.array([1, 1 - 0.4 * now.congressed, 1])
        half_um = self._lengths_um[:, None, None] / 2 * (1.3 - 0.3 * now.congressed) * (1 - 0.35 * now.split)
        arms = half_um * flat * (along * self._arms[:, None] + along**2 * self._bends[:, None])  # (N, P, 3)
        both = np.stack([centre[:, None] + arms] * 2)  # (2, N, P, 3)
        trailing = 0.75 * now.apart * (1 - 0.7 * now.reformed) * np.abs(_ARM_POINTS) * half_um[..., 0]  # (N, P)
        pulled = now.apart * (4.6 + now.split * (half_distance_um - 4.6)) - trailing
        for side, sign in enumerate((-1, 1)):
            both[side, ..., 1] += sign * pulled
        # as the nuclei form again, the chromosomes swell and blend
        swollen = 1 + 1.6 * now.reformed
        return (both[:, :, :, None] + swollen * self._grains).reshape(2, -1, 3)


class Spindle:
    """The fibres that move the chromosomes."""

    def __init__(self, rng: np.random.Generator) -> None:
        radius, turn = np.sqrt(rng.random(_FIBRES)), rng.uniform(0, 2 * np.pi, _FIBRES)
        self._ends = np.column_stack([2.4 * radius * np.sin(turn), 4.4 * radius * np.cos(turn)])  # (N, 2): z, v
        self._astral = _unit(rng.normal(size=(40, 3))) * rng.uniform(1.0, 3.5, (40, 1))

    def points_um(self, now: Stage, half_distance_um: float) -> tuple[DoubleArray, DoubleArray]:
        """Place the fibres; (N, 3) points (z, u, v) and the dye in each, (N,), for one unit per µm of fibre."""
        f = np.linspace(0, 1, 36)  # (P,), from the pole to the plate
        set_um = now.apart * (4.6 + now.split * (half_distance_um - 4.6))
        pole_um = max(_POLE_UM, set_um + 0.8) * (0.35 + 0.65 * now.congressed)
        across = self._ends[:, None] * np.sin(np.pi / 2 * f)[:, None] ** 0.8  # (N, P, 2)
        u = np.broadcast_to(pole_um + f * (set_um - pole_um), across.shape[:2])
        fibres = np.stack([across[..., 0], u, across[..., 1] * (1 - 0.5 * now.apart)], axis=-1)  # (N, P, 3)
        rays = self._astral[:, None] * f[:, None] + np.array([0, pole_um, 0])
        curves = [(half * (1, side, 1), now.spindle) for half in (fibres, rays) for side in (-1, 1)]
        curves.append((self._between(now, set_um), now.midbody))
        points = np.concatenate([curve[:, 1:].reshape(-1, 3) for curve, _ in curves])
        lengths = [np.linalg.norm(np.diff(curve, axis=1), axis=-1).reshape(-1) * bright for curve, bright in curves]
        return points, np.concatenate(lengths)

    def _between(self, now: Stage, set_um: float) -> DoubleArray:
        """Fibres between the two sets, gathered in the middle as the cells part; (N, P, 3)."""
        length_um = set_um * (1 - 0.65 * now.split)
        u = np.linspace(-1, 1, 60) * length_um  # (P,)
        gathered = 1 - 0.88 * now.split * np.exp(-((u / 2.5) ** 2))
        ends = self._ends[::2, None] * 0.7 * gathered[:, None]  # (N, P, 2)
        return np.stack([ends[..., 0], np.broadcast_to(u, ends.shape[:2]), ends[..., 1]], axis=-1)  # (N, P, 3)


def _unit(vectors: DoubleArray) -> DoubleArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
