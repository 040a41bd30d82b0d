"""How the cost grows: time and memory over pixels, planes, channels and tiles, and whether that is linear.

Receives networks and limits; hands on points with what was expected of each. All points of one sweep take turns, each in a
process of its own, so that the slope is no accident of the machine's load. It does not know how points are drawn.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from live_restore.bench.conditions import conditions
from live_restore.bench.growth import expected_work, explained, fixed_cost_ms
from live_restore.bench.networks import BenchNetwork, bench_networks
from live_restore.bench.peers import TurnProcess
from live_restore.bench.scenes import low_light
from live_restore.bench.timing import Spread, Turns, alternate
from live_restore.bench.work import size_text
from live_restore.errors import LiveRestoreError
from live_restore.models.facts import ModelFacts

Progress = Callable[[str, int, int, str], None]
Shape = tuple[int, int, int, int]

FORMAT = "live_restore.scaling/1"
_NETWORKS = ("care2d_demo", "care3d_demo")
_SIDES = (256, 512, 1024, 2048, 4096)
_PLANES = (4, 8, 16, 32)
_CHANNELS = (1, 2, 4)
# Budgets for tiles, as parts of what the whole image takes.
_PARTS = (1, 2, 4, 16)
_FIELD = 256
# What a runtime holds beyond the feature maps, so that a budget means about that part of the image.
_RUNTIME = 1.25
_TURNS = Turns(warm_up=1, least=4, most=9, budget_s=15.0)


@dataclass(frozen=True, slots=True)
class ScalingAsked:
    """What is to be measured.

    Attributes
    ----------
    packages : tuple of str
        2D networks go over pixels, channels and tiles, 3D ones over planes; empty: one bundled network of each.
    engine, precision : str
    largest : int
        Side of the largest image.
    least_memory_bytes : int or None
        No budget for tiles is smaller; None: a sixteenth of what the whole image takes.
    turns : Turns
    patience_s : float
    """

    packages: tuple[str, ...] = ()
    engine: str = "auto"
    precision: str = "f32"
    largest: int = 2048
    least_memory_bytes: int | None = None
    turns: Turns = _TURNS
    patience_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a sweep.

    Attributes
    ----------
    network, sweep : str
        Sweep: pixels, planes, channels or tiles.
    value : int
        Pixels of the image, planes, channels, or tiles.
    size : str
    pixels : int
        Of all channels together.
    tiles : int
    expected : float
        Work relative to the last point of the sweep (of tiles: relative to the whole image), from pixels and halos alone.
    median_ms, p95_ms : float or None
    memory_mb : float or None
        Largest resident memory above that before the first image, 10^6 bytes.
    of_expected : float or None
        Time relative to that point, over `expected`: 1 is linear.
    words : str
        ``linear``, or what explains the difference.
    why_not : str
    """

    network: str
    sweep: str
    value: int
    size: str
    pixels: int
    tiles: int = 0
    expected: float = 1.0
    median_ms: float | None = None
    p95_ms: float | None = None
    memory_mb: float | None = None
    of_expected: float | None = None
    words: str = ""
    why_not: str = ""


@dataclass(slots=True)
class Scaling:
    """All sweeps of one run, and its conditions."""

    conditions: Mapping[str, str]
    points: list[Point]

    def as_json(self) -> dict[str, Any]:
        """Give it as what is written into a file."""
        return {"format": FORMAT, "conditions": dict(self.conditions), "points": [asdict(point) for point in self.points]}

    def as_markdown(self) -> str:
        """Give it as a page."""
        lines = [f"- {name}: {what}" for name, what in self.conditions.items()]
        lines += ["", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
        return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in map(cells_of, self.points))]) + "\n"


HEAD = ("network", "over", "size", "tiles", "median", "memory", "work expected", "time over it", "")


def cells_of(point: Point) -> tuple[str, ...]:
    """Write the cells of one point, in the order of `HEAD`."""
    first = (point.network, point.sweep, point.size)
    if point.median_ms is None:
        return (*first, "", f"not measured: {point.why_not}", "", "", "", "")
    return (
        *first,
        str(point.tiles),
        f"{point.median_ms:.3g} ms" if point.median_ms < 100 else f"{point.median_ms:.0f} ms",
        "" if point.memory_mb is None else f"{point.memory_mb:.0f} MB",
        f"{point.expected:.3g}",
        "" if point.of_expected is None else f"{point.of_expected:.2f}",
        point.words,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """What one process restores."""

    value: int
    shape: Shape  # (C, Z, Y, X)
    memory: int | None = None


def measure_scaling(asked: ScalingAsked, progress: Progress = lambda name, done, total, unit: None) -> Scaling:
    """Measure every sweep that fits the networks.

    Raises
    ------
    LiveRestoreError
        If a package cannot be opened.
    """
    found = Scaling(conditions(), [])
    with tempfile.TemporaryDirectory(prefix="live_restore_scaling_") as name:
        folder = Path(name)
        for network in bench_networks(asked.packages or _NETWORKS, folder / "packages"):
            if network.package is None:
                raise LiveRestoreError(network.why_not)
            tile_ms = 0.0
            for sweep, cases in _sweeps(network.package.facts, asked).items():
                place = folder / f"{network.name}_{sweep}"
                points = _measured(network, sweep, cases, place, asked, progress)
                tile_ms = fixed_cost(points) if sweep == "pixels" else tile_ms
                found.points += _beside_expected(points, network.package.facts, tile_ms)
    return found


def _sweeps(facts: ModelFacts, asked: ScalingAsked) -> dict[str, list[_Case]]:
    channels, field = facts.channels_in, min(_FIELD, asked.largest)
    if facts.geometry.n_dim == 3 or facts.procedure != "direct":
        return {"planes": [_Case(planes, (channels, planes, field, field)) for planes in _PLANES]}
    sides = [side for side in _SIDES if side <= asked.largest]
    sweeps = {"pixels": [_Case(side * side, (channels, 1, side, side)) for side in sides]}
    if channels == 1:
        side = min(512, asked.largest)
        sweeps["channels"] = [_Case(number, (number, 1, side, side)) for number in _CHANNELS]
    side = sides[-1]
    whole = int(facts.geometry.bytes_per_pixel * side * side * _RUNTIME)
    least = asked.least_memory_bytes or 0
    budgets = [None, *(max(least, whole // part) for part in _PARTS[1:])]
    cases = [_Case(0, (channels, 1, side, side), budget) for budget in dict.fromkeys(budgets)]
    return {**sweeps, "tiles": cases}


def _measured(
    network: BenchNetwork, sweep: str, cases: Sequence[_Case], folder: Path, asked: ScalingAsked, progress: Progress
) -> list[Point]:
    """Let all points of one sweep take turns."""
    assert network.package is not None
    title = f"{network.name} over {sweep}"
    facts = network.package.facts
    points: dict[_Case, Point] = {}
    folder.mkdir()
    with ExitStack() as stack:
        started: dict[_Case, TurnProcess] = {}
        for done, case in enumerate(cases):
            progress(f"{title}: loading", done, len(cases), "loaded")
            try:
                options = _options(str(network.package.path), case, folder / str(done), asked, one_by_one=sweep == "channels")
                started[case] = stack.enter_context(TurnProcess("ours", options, patience_s=asked.patience_s))
            except LiveRestoreError as refused:
                points[case] = _point(network.name, sweep, case, why_not=str(refused))
        takers = {case: process.turn for case, process in started.items()}
        timed = alternate(takers, asked.turns, lambda done, of: progress(title, done, of, "turns"))
        for case, process in started.items():
            points[case] = _with_figures(_point(network.name, sweep, case), facts, case, process, timed[case])
    return [points[case] for case in cases]


def _options(package: str, case: _Case, folder: Path, asked: ScalingAsked, *, one_by_one: bool) -> dict[str, Any]:
    folder.mkdir()
    raw = low_light(case.shape[1:])[0]
    np.save(folder / "image.npy", np.stack([raw] * case.shape[0]))
    return {
        "package": package,
        "engine": asked.engine,
        "precision": asked.precision,
        "image": str(folder / "image.npy"),
        "result": str(folder / "result.npy"),
        "memory": case.memory,
        "one_by_one": one_by_one,
    }


def _point(network: str, sweep: str, case: _Case, why_not: str = "") -> Point:
    channels, planes, height, width = case.shape
    size = (planes, height, width) if planes > 1 or sweep == "planes" else (height, width)
    text = f"{channels} channels of {size_text(size)}" if sweep == "channels" else size_text(size)
    return Point(network=network, sweep=sweep, value=case.value, size=text, pixels=prod(case.shape), why_not=why_not)


def _with_figures(point: Point, facts: ModelFacts, case: _Case, process: TurnProcess, taken: Spread | str) -> Point:
    if isinstance(taken, str):
        return replace(point, why_not=taken)
    held, peak = process.said.get("resident_mb"), process.finish()["peak_mb"]
    tiles = int(process.said.get("tiles", 1))
    return replace(
        point,
        value=point.value or tiles,
        tiles=tiles,
        median_ms=taken.median_ms,
        p95_ms=taken.p95_ms,
        memory_mb=None if held is None or peak is None else peak - held,
        expected=expected_work(facts.geometry, case.shape[1:], tiles) if point.sweep == "tiles" else 1.0,
    )


def _beside_expected(points: list[Point], facts: ModelFacts, tile_ms: float) -> list[Point]:
    """Lay every point beside what its pixels, or its tiles' halos, let expect."""
    done = [point for point in points if point.median_ms is not None]
    if not done:
        return points
    tiled = done[0].sweep == "tiles"
    base = done[0] if tiled else done[-1]
    fixed_ms = tile_ms if tiled else fixed_cost(done)
    found = []
    for point in points:
        if point.median_ms is None or base.median_ms is None:
            found.append(point)
            continue
        share = point.expected if tiled else point.pixels / base.pixels
        ratio = point.median_ms / base.median_ms / share
        # each further tile has once more what does not grow with an image
        known_ms = fixed_ms * (point.tiles - 1) if tiled else fixed_ms
        held = point.pixels * facts.geometry.bytes_per_pixel
        words = explained(ratio, known_ms / point.median_ms, f"{fixed_ms:.2g} ms of every {'tile' if tiled else 'image'}", held)
        found.append(replace(point, expected=share, of_expected=ratio, words=words))
    return found


def fixed_cost(points: Sequence[Point]) -> float:
    """Fit what does not grow with the pixels, ms."""
    return fixed_cost_ms([(point.pixels, point.median_ms) for point in points if point.median_ms is not None])
