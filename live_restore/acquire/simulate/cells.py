"""What the simulated microscope looks at, as numbers: cells with nuclei, mitochondria, filaments and vesicles.

Receives a seed and the size of a field; hands on a `Specimen`, all of it in µm, so that it can be moved, grown and
rendered at any magnification. It does not know pixels, optics or light.

Positions are (z, y, x) with z = 0 at the coverslip. Sizes are those of cultured human cells: 20 to 30 µm across,
nuclei of 10 to 16 µm, mitochondria half a micrometre thick, microtubules far below any resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]

_STEP_UM = 0.2  # between the points of a path
_CHROMATIN_WAVES = 40


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Small balls of dye.

    Attributes
    ----------
    centres_um : ndarray, (N, 3), float64
    radii_um : ndarray, (N,), float64
    amounts : ndarray, (N,), float64
        Dye in each ball, arbitrary units.
    """

    centres_um: DoubleArray
    radii_um: DoubleArray
    amounts: DoubleArray


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Tubes along curves.

    Attributes
    ----------
    points_um : ndarray, (N, S, 3), float64
        S points of each of N curves.
    radii_um : ndarray, (N,), float64
    brightness : ndarray, (N, S), float64
        Dye per µm at every point.
    """

    points_um: DoubleArray
    radii_um: DoubleArray
    brightness: DoubleArray

    def as_spots(self, spacing_um: float) -> Spots:
        """Fill the curves with balls no further apart than `spacing_um`."""
        pieces = int(np.ceil(_STEP_UM / spacing_um))
        starts, ends = self.points_um[:, :-1], self.points_um[:, 1:]  # (N, S-1, 3)
        along = (np.arange(pieces) + 0.5)[:, None, None, None] / pieces
        centres = starts + along * (ends - starts)  # (pieces, N, S-1, 3)
        amounts = self.brightness[:, :-1] * np.linalg.norm(ends - starts, axis=-1) / pieces  # (N, S-1)
        radii = np.broadcast_to(self.radii_um[:, None], amounts.shape)
        whole = centres.shape[:-1]
        return Spots(
            centres.reshape(-1, 3), np.broadcast_to(radii, whole).reshape(-1), np.broadcast_to(amounts, whole).reshape(-1)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Nucleus:
    """An ellipsoid full of chromatin.

    Attributes
    ----------
    centre_um, radii_um : ndarray, (3,), float64
    angle_rad : float
        Rotation about z.
    brightness : float
        Dye per µm³.
    waves_per_um : ndarray, (W, 3), float64
        Wave vectors, radians per µm in the nucleus' own axes, whose sum is the chromatin's texture, longer waves the
        stronger; being tied to the nucleus it moves and turns with it.
    phases_rad : ndarray, (W,), float64
    nucleoli : ndarray, (M, 4), float64
        Centre in the unit ball and radius in µm of each dark nucleolus.
    """

    centre_um: DoubleArray
    radii_um: DoubleArray
    angle_rad: float
    brightness: float
    waves_per_um: DoubleArray
    phases_rad: DoubleArray
    nucleoli: DoubleArray

    def within(self, positions_um: DoubleArray) -> DoubleArray:
        """Positions in the nucleus' own axes, in units of its radii: inside where their length is below 1; (..., 3)."""
        z, y, x = np.moveaxis(positions_um - self.centre_um, -1, 0)
        c, s = np.cos(self.angle_rad), np.sin(self.angle_rad)
        return np.stack([z, c * y + s * x, c * x - s * y], axis=-1) / self.radii_um


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """The edge of a cell seen from above, a circle with a few waves around it.

    Attributes
    ----------
    centre_um : ndarray, (2,), float64
        (y, x).
    radius_um : float
    waves : ndarray, (K,), float64
        Relative amplitudes of 2, 3, ... waves around the edge.
    phases_rad : ndarray, (K,), float64
    """

    centre_um: DoubleArray
    radius_um: float
    waves: DoubleArray
    phases_rad: DoubleArray

    def depth_um(self, positions_um: DoubleArray) -> DoubleArray:
        """How far inside the edge the positions lie, negative outside; (..., 2) to (...)."""
        y, x = np.moveaxis(positions_um - self.centre_um, -1, 0)
        angle = np.arctan2(y, x)
        edge = np.ones_like(angle)
        for number, (wave, phase) in enumerate(zip(self.waves, self.phases_rad, strict=True), 2):
            edge += wave * np.cos(number * angle - phase)
        return np.asarray(self.radius_um * edge - np.hypot(y, x))


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One cell and what is in it."""

    outline: Outline
    nucleus: Nucleus
    mitochondria: Paths
    filaments: Paths
    vesicles: Spots


@dataclass(frozen=True, slots=True)
class Specimen:
    """All cells in and around a field whose corner is (0, 0)."""

    cells: tuple[Cell, ...]


def grow_specimen(seed: int, field_um: tuple[float, float], coverage: float = 0.8) -> Specimen:
    """Grow cells in a field and half a cell around it; the same arguments give the same specimen.

    Parameters
    ----------
    seed : int
    field_um : tuple of float, (Y, X)
    coverage : float
        Roughly the part of the field that cells cover, in (0, 1].
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage {coverage} must be above 0 and at most 1")
    rng = np.random.default_rng(seed)
    outlines = _scatter_outlines(rng, np.asarray(field_um, np.float64), coverage)
    return Specimen(tuple(_grow_cell(rng, outline) for outline in outlines))


def grow_cell(rng: np.random.Generator, centre_um: DoubleArray) -> Cell:
    """Grow one cell about a (y, x) position."""
    return _grow_cell(rng, _outline(rng, centre_um))


def _scatter_outlines(rng: np.random.Generator, field_um: DoubleArray, coverage: float) -> list[Outline]:
    """Throw cells at random and keep those that overlap no earlier one by much; the first one lands well inside."""
    margin = 12.0
    wanted = coverage * float(np.prod(field_um + 2 * margin)) / (np.pi * 13.0**2)
    outlines: list[Outline] = [_outline(rng, field_um * rng.uniform(0.35, 0.65, 2))]
    for _ in range(int(60 * wanted)):
        candidate = _outline(rng, rng.uniform(-margin, field_um + margin))
        apart = [np.hypot(*(candidate.centre_um - o.centre_um)) / (candidate.radius_um + o.radius_um) for o in outlines]
        if min(apart) > 0.74:
            outlines.append(candidate)
        if len(outlines) >= wanted:
            break
    return outlines


def _outline(rng: np.random.Generator, centre_um: DoubleArray) -> Outline:
    waves = rng.normal(scale=(0.16, 0.09, 0.06, 0.04))
    return Outline(centre_um, float(rng.uniform(9.5, 15.0)), waves, rng.uniform(0, 2 * np.pi, 4))


def _grow_cell(rng: np.random.Generator, outline: Outline) -> Cell:
    nucleus = grow_nucleus(rng, outline)
    mitochondria = _mitochondria(rng, outline, nucleus)
    return Cell(outline, nucleus, mitochondria, _filaments(rng, outline, nucleus), _vesicles(rng, outline, nucleus))


def grow_nucleus(rng: np.random.Generator, outline: Outline) -> Nucleus:
    """Grow the nucleus of a cell with this outline."""
    across = 0.47 * outline.radius_um * rng.uniform(0.9, 1.1)
    elongation = rng.uniform(1.0, 1.35)
    radii = np.array([rng.uniform(2.3, 3.2), across / np.sqrt(elongation), across * np.sqrt(elongation)])
    centre = np.array([radii[0] + 0.5, *(outline.centre_um + 0.12 * outline.radius_um * rng.normal(size=2))])
    waves = rng.normal(size=(_CHROMATIN_WAVES, 3))
    waves *= (
        2 * np.pi / (np.linalg.norm(waves, axis=1) * np.geomspace(0.4, 3.5, _CHROMATIN_WAVES))[:, None]
    )  # 0.4 to 3.5 µm long
    number = rng.integers(1, 5)
    nucleoli = np.column_stack([rng.uniform(-0.5, 0.5, (number, 3)) * (0.5, 1, 1), rng.uniform(0.6, 1.4, number)])
    phases = rng.uniform(0, 2 * np.pi, _CHROMATIN_WAVES)
    brightness = float(np.exp(0.3 * rng.normal()))
    return Nucleus(centre, radii, rng.uniform(0, np.pi), brightness, waves, phases, nucleoli)


def _filaments(rng: np.random.Generator, outline: Outline, nucleus: Nucleus) -> Paths:
    """Microtubules: stiff, from beside the nucleus towards the edge, along which they bend."""
    number = int(rng.integers(70, 120))
    away = rng.uniform(0, 2 * np.pi)
    origin = nucleus.centre_um[1:] + 0.8 * nucleus.radii_um[1] * np.array([np.sin(away), np.cos(away)])
    free = rng.random((number, 1)) < 0.35  # of the centrosome
    starts = np.where(
        free, nucleus.centre_um[1:] + 3.5 * rng.normal(size=(number, 2)), origin + 0.8 * rng.normal(size=(number, 2))
    )
    stop_um = rng.uniform(0.3, 3.0, number)  # most end well before the edge; those that reach it bend along
    flat = _wander(rng, starts, rng.gamma(3.0, 5.0, number), 14.0, lambda at: outline.depth_um(at) > stop_um)
    brightness = np.exp(0.2 * rng.normal(size=(number, 1))) * np.ones(flat.shape[1])
    return Paths(_at_height(rng, flat, nucleus), np.full(number, 0.03), brightness)


def _mitochondria(rng: np.random.Generator, outline: Outline, nucleus: Nucleus) -> Paths:
    """Wavy tubes around the nucleus, some of them branches of others."""

    def allowed(at: DoubleArray) -> NDArray[np.bool_]:
        return (outline.depth_um(at) > 1.2) & (_flat_distance(nucleus, at) > 1.08)

    starts = _around_nucleus(rng, int(rng.integers(90, 160)), outline, nucleus)
    trunks = _wander(rng, starts, np.minimum(0.8 + rng.exponential(3.0, len(starts)), 12.0), 2.5, allowed)
    forks = trunks[rng.integers(0, len(trunks), len(trunks) // 3), 4]
    branches = _wander(rng, forks, np.minimum(0.6 + rng.exponential(2.0, len(forks)), 8.0), 2.5, allowed, trunks.shape[1])
    flat = np.concatenate([trunks, branches])  # (N, S, 2)
    brightness = np.exp(0.3 * rng.normal(size=(len(flat), 1)) + 0.2 * rng.normal(size=flat.shape[:2]))
    return Paths(_at_height(rng, flat, nucleus), rng.uniform(0.16, 0.28, len(flat)), brightness)


def _vesicles(rng: np.random.Generator, outline: Outline, nucleus: Nucleus) -> Spots:
    flat = _around_nucleus(rng, int(rng.integers(60, 160)), outline, nucleus)[:, None]  # (N, 1, 2)
    centres = _at_height(rng, flat, nucleus)[:, 0]  # (N, 3)
    radii = np.clip(0.12 * np.exp(0.5 * rng.normal(size=len(centres))), 0.04, 0.45)
    return Spots(centres, radii, np.exp(0.6 * rng.normal(size=len(centres))) * (radii / 0.12) ** 2)


def _wander(
    rng: np.random.Generator,
    starts: DoubleArray,
    lengths_um: DoubleArray,
    persistence_um: float,
    allowed: Callable[[DoubleArray], NDArray[np.bool_]],
    points: int | None = None,
) -> DoubleArray:
    """Walk with a slowly turning heading, turning away from where it is not allowed.

    Parameters
    ----------
    rng : numpy.random.Generator
    starts : ndarray, (N, 2), float64
    lengths_um : ndarray, (N,), float64
        A path that is done, or finds no way, stays where it is.
    persistence_um : float
        Length over which the direction is remembered.
    allowed : callable
        (N, 2) positions to (N,) bool.
    points : int, optional
        S; as many as the longest path needs.

    Returns
    -------
    ndarray, (N, S, 2), float64
    """
    steps = (int(lengths_um.max() / _STEP_UM) + 2 if points is None else points) - 1
    heading = rng.uniform(0, 2 * np.pi, len(starts))
    side = rng.choice((-0.5, 0.5), len(starts))
    path = [starts]
    for step in range(steps):
        heading = heading + np.sqrt(_STEP_UM / persistence_um) * rng.normal(size=len(starts))
        ahead = path[-1] + _STEP_UM * np.column_stack([np.sin(heading), np.cos(heading)])
        free = allowed(ahead)
        heading = np.where(free, heading, heading + side)
        going = free & (step * _STEP_UM < lengths_um)
        path.append(np.where(going[:, None], ahead, path[-1]))
    return np.stack(path, axis=1)


def _around_nucleus(rng: np.random.Generator, number: int, outline: Outline, nucleus: Nucleus) -> DoubleArray:
    """Positions in the cytoplasm, denser near the nucleus; (N, 2)."""
    thrown = outline.centre_um + rng.normal(scale=0.6 * outline.radius_um, size=(40 * number, 2))
    inside = (outline.depth_um(thrown) > 1.5) & (_flat_distance(nucleus, thrown) > 1.15)
    found: DoubleArray = thrown[inside][:number]
    return found


def _flat_distance(nucleus: Nucleus, at: DoubleArray) -> DoubleArray:
    """Distance from the nucleus' axis in units of its radii, ignoring height; (..., 2) to (...)."""
    mid_height = np.full((*at.shape[:-1], 1), nucleus.centre_um[0])
    return np.asarray(np.linalg.norm(nucleus.within(np.concatenate([mid_height, at], axis=-1)), axis=-1))


def _at_height(rng: np.random.Generator, flat: DoubleArray, nucleus: Nucleus) -> DoubleArray:
    """Give flat curves a height: low at the cell's edge, higher beside the nucleus; (N, S, 2) to (N, S, 3)."""
    distance = _flat_distance(nucleus, flat)
    ceiling = 0.6 + 2.2 * np.exp(-((distance / 1.6) ** 2))
    own = rng.uniform(0.15, 1.0, (len(flat), 1))
    height = 0.3 + ceiling * own
    return np.concatenate([height[..., None], flat], axis=-1)
