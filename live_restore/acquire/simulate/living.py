"""A living cell: where everything in it is at a moment.

Receives a seed, a place in the dish and a time; hands on points of dye, nuclei and outlines, in µm. Everything is a
function of seed and time alone: no state, so any moment can be asked for, in any order, and gives the same. It does not
know optics, pixels or light.

Vesicles run along microtubules, pause and turn; mitochondria drift and wave; the cell creeps about its place and its
nucleus turns; and once in its life it divides.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.simulate.cells import Cell, Nucleus, Outline, Paths, grow_cell, grow_nucleus
from live_restore.acquire.simulate.mitosis import Chromosomes, Spindle, Stage, smooth, stage
from live_restore.acquire.simulate.specimen import Kind

DoubleArray = NDArray[np.float64]

_RUN_S, _PAUSE = 9.0, 0.35  # a vesicle's run and the part of it that it stands still
_RUN_UM = 6.0
_DAUGHTER = 0.8  # of the mother's radius, spread; both daughters together have her area and a little more
_ROUND = 0.78  # of the radius, rounded up


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points of dye.

    Attributes
    ----------
    at_um : ndarray, (N, 3), float64
        (z, y, x).
    amounts : ndarray, (N,), float64
    """

    at_um: DoubleArray
    amounts: DoubleArray


@dataclass(frozen=True, slots=True, eq=False)
class ShownNucleus:
    """A nucleus at a moment: the grown one, moved, turned, and shown as brightly as it is one."""

    grown: Nucleus
    centre_um: DoubleArray
    turned_rad: float
    scale: float
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Lobe:
    """A cell seen from above, or the half of one that is dividing.

    Attributes
    ----------
    outline : Outline
    thickness : float
        Times that of a cell lying flat.
    core_um : ndarray, (2,), float64
        Where it is thickest: the nucleus, (y, x).
    core_radius_um : float
        Organelles stay out of it.
    """

    outline: Outline
    thickness: float
    core_um: DoubleArray
    core_radius_um: float


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """A cell at a moment: how it stands, how far its division is, and its one or two lobes."""

    time_s: float
    since_s: float
    now: Stage
    centre_um: DoubleArray
    turned_rad: float
    half_distance_um: float
    lobes: tuple[Lobe, ...]


class Sway:
    """Smooth, bounded wandering about a place: for each of `number` things two slow sines per axis."""

    def __init__(self, rng: np.random.Generator, number: int, amplitude_um: DoubleArray, period_s: float) -> None:
        self._periods_s = period_s * rng.uniform(0.6, 1.8, (2, number, 1))
        self._phases = rng.uniform(0, 2 * np.pi, (2, number, len(amplitude_um)))
        self._amplitude_um = amplitude_um / np.sqrt(2) * rng.uniform(0.4, 1.4, (number, 1))

    def at(self, time_s: float) -> DoubleArray:
        """Displacements at a time, (number, axes)."""
        turns = np.sin(2 * np.pi * time_s / self._periods_s + self._phases)
        return np.asarray(self._amplitude_um * turns.sum(axis=0))


class _MovingPaths:
    """Curves that drift and wave, as points of dye."""

    def __init__(self, rng: np.random.Generator, paths: Paths, pieces: int, drift_um: float, wave_um: float) -> None:
        self.points_um = paths.points_um - 0.0
        lengths = np.linalg.norm(np.diff(paths.points_um, axis=1), axis=-1)  # (N, S-1)
        path, step = np.nonzero(lengths > 1e-6)
        start, end = paths.points_um[path, step], paths.points_um[path, step + 1]
        along = (np.arange(pieces) + 0.5)[:, None, None] / pieces
        self._base = (start + along * (end - start)).reshape(-1, 3)
        self.path = np.tile(path, pieces)
        self.amounts = np.tile(paths.brightness[path, step] * lengths[path, step] / pieces, pieces)
        self.steps = np.count_nonzero(lengths > 1e-6, axis=1)  # (N,), how far each goes
        count = len(paths.points_um)
        self._drift = Sway(rng, count, np.array([0.06, drift_um, drift_um]), 25.0)
        turn = rng.uniform(0, 2 * np.pi, count)
        self._waves = wave_um * np.column_stack([0.2 * np.ones(count), np.sin(turn), np.cos(turn)])  # (N, 3)
        self._phase = rng.uniform(0, 2 * np.pi, count)[self.path] + 2 * np.pi * np.tile(step * 0.2 / 4.0, pieces)
        middle = paths.points_um.mean(axis=1)
        self.middle = middle

    def at(self, time_s: float) -> DoubleArray:
        """Where the points are, (M, 3)."""
        wave = np.sin(self._phase - 2 * np.pi * time_s / 14.0)[:, None] * self._waves[self.path]
        return np.asarray(self._base + self._drift.at(time_s)[self.path] + wave)

    def on(self, path: NDArray[np.intp], step: DoubleArray, time_s: float) -> DoubleArray:
        """Places along the curves, counted in steps from their beginning; (K, 3)."""
        low = np.clip(np.floor(step).astype(int), 0, self.points_um.shape[1] - 2)
        part = (step - low)[:, None]
        at = self.points_um[path, low] * (1 - part) + self.points_um[path, low + 1] * part
        return np.asarray(at + self._drift.at(time_s)[path])


class LivingCell:
    """A cell with a life.

    Parameters
    ----------
    seed : tuple of int
        Of this cell.
    home_um : ndarray, (2,)
        Where it lives, (y, x).
    divides_at_s : float
        When its chromosomes will stand in the plate; infinity: never.
    axis_rad : float
        Direction in which its daughters part.
    """

    def __init__(self, seed: tuple[int, ...], home_um: DoubleArray, divides_at_s: float, axis_rad: float) -> None:
        rng = np.random.default_rng(seed)
        self.home_um, self.divides_at_s = home_um, divides_at_s
        self._creep = Sway(rng, 1, np.array([2.2, 2.2]), 240.0)
        self._turn = Sway(rng, 1, np.array([0.18]), 200.0)
        self._nucleus_shift = Sway(rng, 1, np.array([0.1, 0.5, 0.5]), 90.0)
        self._nucleus_turn = Sway(rng, 1, np.array([0.35]), 150.0)
        self._axis_rad = axis_rad
        self._rng_seed = (*seed, 1)

    @cached_property
    def cell(self) -> Cell:
        """The cell as it was grown, about (0, 0); it costs 50 ms, so it is grown when it is first looked at."""
        return grow_cell(np.random.default_rng((*self._rng_seed, 9)), np.zeros(2))

    # ---------------------------------------------------------------- the whole cell

    def pose(self, time_s: float) -> Pose:
        """Say how the cell stands at a time."""
        since_s = time_s - self.divides_at_s
        now = stage(max(since_s, -1e9))
        centre = self.home_um + self._creep.at(time_s)[0]
        turned = float(self._turn.at(time_s)[0, 0])
        outline = self.cell.outline
        radius = outline.radius_um * (1 - (1 - _ROUND) * now.rounded)
        daughter_um = outline.radius_um * (0.63 + (_DAUGHTER - 0.63) * now.spread)
        half = daughter_um * (0.97 + 0.08 * now.spread)
        parts = (0.0,) if now.split == 0 else (-1.0, 1.0)
        lobes = tuple(
            self._lobe(number, sign, now, (centre, turned, radius + now.split * (daughter_um - radius), half, time_s))
            for number, sign in enumerate(parts)
        )
        return Pose(time_s, since_s, now, centre, turned, half, lobes)

    def _lobe(self, number: int, sign: float, now: Stage, placed: tuple[DoubleArray, float, float, float, float]) -> Lobe:
        centre, turned, radius, half, time_s = placed
        mother, daughter = self.cell.outline, self._daughter_outlines[number]
        flat = 1 - 0.9 * now.rounded
        waves = flat * (mother.waves * (1 - now.split) + daughter.waves * now.split)
        orders = np.arange(2, 2 + len(waves))
        phases = (mother.phases_rad if now.split < 0.5 else daughter.phases_rad) + orders * turned
        middle = centre + now.split * sign * half * self._axis(turned)
        nucleus = self.cell.nucleus
        shift = self._nucleus_shift.at(time_s)[0, 1:]
        core = middle + (1 - now.split) * _turn(nucleus.centre_um[1:] * (1 - 0.8 * now.rounded), turned) + 0.7 * shift
        core_radius = float(nucleus.radii_um[1:].mean()) * (1 - 0.21 * now.split) * (1 - 0.5 * now.rounded)
        return Lobe(Outline(middle, radius, waves, phases), 1 + 0.9 * now.rounded, core, core_radius)

    def _axis(self, turned: float) -> DoubleArray:
        return np.array([np.sin(self._axis_rad + turned), np.cos(self._axis_rad + turned)])

    @cached_property
    def _daughter_outlines(self) -> tuple[Outline, ...]:
        rng = np.random.default_rng((*self._rng_seed, 5))
        return tuple(
            Outline(np.zeros(2), 1.0, rng.normal(scale=(0.13, 0.08, 0.05, 0.03)), rng.uniform(0, 2 * np.pi, 4))
            for _ in range(2)
        )

    # ---------------------------------------------------------------- what shines

    def points(self, kind: Kind, pose: Pose) -> Points:
        """Give the points of dye of one structure; nuclei only while they are chromosomes."""
        if kind == "nuclei":
            return self._chromatin(pose)
        if kind == "vesicles":
            return self._moving_vesicles(pose)
        if kind == "filaments":
            return self._microtubules(pose)
        paths = self._mitochondria
        at = self._carried(paths.at(pose.time_s), self._sides(paths.middle)[paths.path], pose, avoid=True)
        return Points(at, paths.amounts)

    def nuclei(self, pose: Pose) -> list[ShownNucleus]:
        """Give the nuclei: one, none while the chromosomes are condensed, then two."""
        now, shown = pose.now, []
        wobble = float(self._nucleus_turn.at(pose.time_s)[0, 0]) + pose.turned_rad
        height = self._nucleus_shift.at(pose.time_s)[0, 0]
        if now.condensed < 1:
            grown = self.cell.nucleus
            centre = np.array([grown.centre_um[0] + height + 0.6 * now.rounded, *pose.lobes[0].core_um])
            shown.append(ShownNucleus(grown, centre, wobble, 1.0, 1 - now.condensed))
        if now.reformed > 0:
            scale = 0.62 + 0.38 * smooth(0.2, 1, 0.5 * now.reformed + 0.5 * now.spread)
            for grown, lobe in zip(self._daughter_nuclei, pose.lobes, strict=True):
                centre = np.array([grown.centre_um[0] + height + 0.6 * now.rounded, *lobe.core_um])
                shown.append(ShownNucleus(grown, centre, wobble, scale, now.reformed))
        return shown

    @cached_property
    def _daughter_nuclei(self) -> tuple[Nucleus, Nucleus]:
        rng = np.random.default_rng((*self._rng_seed, 6))
        mother = self.cell.nucleus

        def daughter() -> Nucleus:
            grown = grow_nucleus(rng, Outline(np.zeros(2), self.cell.outline.radius_um, np.zeros(4), np.zeros(4)))
            flat = 0.8 * mother.radii_um[1:].mean()
            radii = np.array([0.92 * mother.radii_um[0], flat / 1.12, flat * 1.12])  # long axis along x before turning
            centre = np.array([radii[0] + 0.5, 0.0, 0.0])
            # across the spindle, as daughters' nuclei lie
            angle = float(np.pi / 2 - self._axis_rad)
            return Nucleus(centre, radii, angle, mother.brightness, grown.waves_per_um, grown.phases_rad, grown.nucleoli)

        return daughter(), daughter()

    # ---------------------------------------------------------------- chromosomes, spindle, vesicles

    def _chromatin(self, pose: Pose) -> Points:
        now = pose.now
        if now.condensed == 0 or now.reformed == 1:
            return _NOTHING
        both = self._chromosomes.points_um(now, pose.half_distance_um, pose.since_s)  # (2, N, 3)
        nucleus = self.cell.nucleus
        dye = nucleus.brightness * 4 / 3 * np.pi * float(np.prod(nucleus.radii_um))
        shown = now.condensed * (1 - now.reformed)
        points = both.reshape(-1, 3)
        height = nucleus.centre_um[0] + 0.6 * now.rounded
        middle = pose.lobes[0].core_um if len(pose.lobes) == 1 else pose.centre_um
        at = self._from_division_axes(points, pose, np.array([height, *middle]))
        at[:, 0] = np.maximum(at[:, 0], 0.3)
        return Points(at, np.full(len(at), 1.1 * dye * shown / len(at)))

    @cached_property
    def _chromosomes(self) -> Chromosomes:
        radii = self.cell.nucleus.radii_um
        across = float(radii[1:].mean())
        return Chromosomes(np.random.default_rng((*self._rng_seed, 2)), np.array([radii[0], across, across]))

    def _microtubules(self, pose: Pose) -> Points:
        now, paths = pose.now, self._filaments
        array = 1 - smooth(0, 0.8, now.rounded) * (1 - now.spread)
        at = self._carried(paths.at(pose.time_s), self._sides(paths.middle)[paths.path], pose, avoid=False)
        amounts = paths.amounts * array
        if now.spindle == 0 and now.midbody == 0:
            return Points(at, amounts)
        points, dye = self._spindle.points_um(now, pose.half_distance_um)
        height = self.cell.nucleus.centre_um[0] + 0.6 * now.rounded
        middle = pose.lobes[0].core_um if len(pose.lobes) == 1 else pose.centre_um
        fibres = self._from_division_axes(points, pose, np.array([height, *middle]))
        return Points(np.concatenate([at, fibres]), np.concatenate([amounts, 1.2 * dye]))

    @cached_property
    def _spindle(self) -> Spindle:
        return Spindle(np.random.default_rng((*self._rng_seed, 3)))

    @cached_property
    def _filaments(self) -> _MovingPaths:
        return _MovingPaths(np.random.default_rng((*self._rng_seed, 7)), self.cell.filaments, 2, 0.12, 0.1)

    @cached_property
    def _mitochondria(self) -> _MovingPaths:
        return _MovingPaths(np.random.default_rng((*self._rng_seed, 8)), self.cell.mitochondria, 1, 0.45, 0.16)

    def _moving_vesicles(self, pose: Pose) -> Points:
        """Two in three run along a microtubule, stop and turn; the others tremble in their place."""
        vesicles, paths, time_s = self.cell.vesicles, self._filaments, pose.time_s
        number = len(vesicles.radii_um)
        which = np.arange(number)
        rng = np.random.default_rng((*self._rng_seed, 4))
        phase, runs = rng.uniform(0, _RUN_S, number), rng.random(number) < 0.67
        path = rng.integers(0, len(paths.steps), number)
        turn, passed = np.divmod((time_s + phase) / _RUN_S, 1)
        gone = np.clip((passed - _PAUSE) / (1 - _PAUSE), 0, 1)
        part = _chance(which, turn, 0) * (1 - gone) + _chance(which, turn + 1, 0) * gone  # of the stretch it runs on
        stretch = np.minimum(_RUN_UM / 0.2, paths.steps[path])
        step = (paths.steps[path] - stretch) * rng.random(number) + stretch * part
        still = np.stack([_chance(which, turn, k) * (1 - passed) + _chance(which, turn + 1, k) * passed for k in (1, 2, 3)])
        still_um = vesicles.centres_um + (still.T - 0.5) * (0.5, 1.4, 1.4)
        tremble = 0.04 * np.stack([np.sin(37.0 * time_s + 10 * _chance(which, turn * 0, k)) for k in (4, 5, 6)]).T
        at = np.where(runs[:, None], paths.on(path, step, time_s), still_um) + tremble
        carried = self._carried(at, np.where(runs, self._sides(paths.middle)[path], self._sides(still_um)), pose, avoid=True)
        return _balls(carried, vesicles.radii_um, vesicles.amounts)

    # ---------------------------------------------------------------- from the cell to the dish

    def _sides(self, at_um: DoubleArray) -> DoubleArray:
        """Which daughter will have what lies here, -1 or 1; (N, 3) to (N,)."""
        return np.where(at_um[:, 1:] @ self._axis(0.0) < 0, -1.0, 1.0)

    def _carried(self, points_um: DoubleArray, side: DoubleArray, pose: Pose, avoid: bool) -> DoubleArray:
        """Carry what lies in the grown cell to where the cell is now, shared between the daughters once it divides."""
        now, radius = pose.now, self.cell.outline.radius_um
        axis = self._axis(0.0)
        y, x = points_um[:, 1], points_um[:, 2]
        along, across = y * axis[0] + x * axis[1], x * axis[0] - y * axis[1]
        scale = 1 - (1 - _ROUND) * now.rounded
        u, v = along * scale, across * scale
        if now.split > 0:
            # half a disc becomes a disc by doubling the angle about the nucleus, which stays in the middle
            angle = 2 * np.arctan2(across, side * along)
            out = np.hypot(along, across) * pose.lobes[0].outline.radius_um / radius
            own_u, own_v = out * np.cos(angle), out * np.sin(angle)
            u = (1 - now.split) * u + now.split * side * (pose.half_distance_um + own_u)
            v = (1 - now.split) * v + now.split * own_v
        turned_axis = self._axis(pose.turned_rad)
        flat = np.column_stack([u * turned_axis[0] - v * turned_axis[1], u * turned_axis[1] + v * turned_axis[0]])
        flat += pose.centre_um
        if avoid:
            flat = _kept_out(flat, side, pose.lobes)
        return np.column_stack([points_um[:, 0] * (1 + 0.9 * now.rounded), flat])

    def _from_division_axes(self, points_um: DoubleArray, pose: Pose, middle_um: DoubleArray) -> DoubleArray:
        axis = self._axis(pose.turned_rad)
        z, u, v = points_um.T
        return np.column_stack([z, u * axis[0] - v * axis[1], u * axis[1] + v * axis[0]]) + middle_um


_NOTHING = Points(np.zeros((0, 3)), np.zeros(0))


def _turn(flat_um: DoubleArray, angle_rad: float) -> DoubleArray:
    """Turn a (y, x) vector."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([c * flat_um[0] + s * flat_um[1], c * flat_um[1] - s * flat_um[0]])


def _kept_out(flat_um: DoubleArray, side: DoubleArray, lobes: tuple[Lobe, ...]) -> DoubleArray:
    """Push what would lie in a nucleus out to its rim, and leave the rest nearly where it is."""
    first, last = lobes[0], lobes[-1]
    low = (side < 0)[:, None]
    core = np.where(low, first.core_um, last.core_um)
    radius = np.where(low, first.core_radius_um, last.core_radius_um)
    away = flat_um - core
    distance = np.maximum(np.linalg.norm(away, axis=1, keepdims=True) / radius, 1e-3)
    return np.asarray(core + away * (distance**6 + 0.95**6) ** (1 / 6) / distance)


def _chance(which: NDArray[np.intp], turn: DoubleArray, salt: int) -> DoubleArray:
    """Draw a number in [0, 1) for each thing and turn, the same whenever it is asked for."""
    return np.asarray(np.modf(np.abs(np.sin(which * 12.9898 + turn * 78.233 + salt * 37.719 + 0.5) * 43758.5453))[0])


def _balls(centres_um: DoubleArray, radii_um: DoubleArray, amounts: DoubleArray, number: int = 32) -> Points:
    """Fill balls evenly with points."""
    turns = np.arange(number) * np.pi * (3 - 5**0.5)  # the golden angle: no two points line up
    heights = 1 - 2 * (np.arange(number) + 0.5) / number
    across = np.sqrt(1 - heights**2)
    distances = np.cbrt((np.arange(number) * 7 % number + 0.5) / number)
    pattern = distances[:, None] * np.column_stack([heights, across * np.cos(turns), across * np.sin(turns)])  # (P, 3)
    at = centres_um[:, None] + radii_um[:, None, None] * pattern  # (N, P, 3)
    return Points(at.reshape(-1, 3), np.repeat(amounts / number, number))
