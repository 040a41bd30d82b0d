"""Side by side: every engine and every peer restores the same image in turn, in processes of their own.

Receives networks, sizes, engines, precisions and peers; hands on a `Benchmark`. What cannot run becomes a row with its reason.
It does not know how a turn is taken, nor how a table is shown.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from live_restore.bench.conditions import conditions
from live_restore.bench.networks import BenchNetwork, bench_networks
from live_restore.bench.peak import copy_gb_per_s, peak_gflop_per_s
from live_restore.bench.peers import PEERS, TurnProcess
from live_restore.bench.scenes import low_light
from live_restore.bench.table import Benchmark, Row
from live_restore.bench.timing import Spread, Turns, alternate
from live_restore.bench.work import peer_options, size_text, why_peer_cannot
from live_restore.engines.engine import engine_status
from live_restore.errors import LiveRestoreError

Progress = Callable[[str, int, int, str], None]
Size = tuple[int, ...]

DEFAULT_SIZES: dict[int, Size] = {2: (512, 512), 3: (16, 256, 256)}
# What is taken where nobody says which: quantising to int8 takes minutes, so it is asked for by name.
_PRECISIONS = ("f32", "bf16", "f16")
_PEER_PRECISION = "f32"
_TURNS = Turns()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured.

    Attributes
    ----------
    packages : tuple of str
        See `live_restore.bench.networks.bench_networks`.
    engines, precisions : tuple of str
        Empty: all that this machine has.
    sizes : tuple of tuple
        (Y, X) for 2D networks, (Z, Y, X) for 3D ones; empty: `DEFAULT_SIZES`. A network that none of them fits is a row with
        that reason.
    peers : tuple of str
        Names in `live_restore.bench.peers.PEERS`.
    pythons : mapping of str to str
        Interpreter of each peer; what is missing runs in this one.
    turns : Turns
    patience_s : float
        What takes longer is given up.
    """

    packages: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    peers: tuple[str, ...] = ()
    pythons: Mapping[str, str] = field(default_factory=dict)
    turns: Turns = _TURNS
    patience_s: float = 300.0

    def __post_init__(self) -> None:
        for peer in (*self.peers, *self.pythons):
            if peer not in PEERS:
                raise ValueError(f"there is no peer {peer!r}; the peers are {', '.join(PEERS)}")


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of those that take turns; `hidden` ones are there for their result only."""

    engine: str
    precision: str
    program: str = "ours"
    hidden: bool = False
    why_not: str = ""


def measure_side_by_side(asked: Asked, progress: Progress = lambda name, done, total, unit: None) -> Benchmark:
    """Measure everything that was asked for.

    Parameters
    ----------
    asked : Asked
    progress : callable (name, done, total, unit)

    Returns
    -------
    Benchmark

    Raises
    ------
    ModelError
        If there is nothing by a name that is given.
    """
    ours = list(contestants(asked.engines, asked.precisions))
    found = Benchmark(conditions())
    with tempfile.TemporaryDirectory(prefix="live_restore_bench_") as name:
        folder = Path(name)
        progress("networks", 0, 1, "networks")
        networks = bench_networks(asked.packages, folder / "packages")
        groups = [(network, size) for network in networks for size in _sizes(network, asked.sizes)]
        runs = any(network.package is not None and not _why_no_size(network, size) for network, size in groups)
        if runs:
            _limits(ours, found, progress)  # where nothing can run, nothing is a share of them
        for number, (network, size) in enumerate(groups):
            found.rows += _Group(network, size, folder / str(number), asked).rows(ours, progress)
        if runs:
            _limits(ours, found, progress)  # again: the machine may have been busy the first time
    found.rows = [_beside_peak(row, found.peaks) for row in found.rows]
    return found


def contestants(engines: Sequence[str], precisions: Sequence[str]) -> Iterator[Contestant]:
    """Name our engines at their precisions; what was asked for and is not to be had comes with its reason."""
    known = {status.kind.name: status for status in engine_status()}
    named = engines or [name for name, status in known.items() if status.offer is not None and name != "identity"]
    for engine in named:
        status = known.get(engine)
        if status is None and engine != "auto":
            why_not = f"there is no engine {engine!r}; the engines are {', '.join(known)}"
            yield Contestant(engine, (precisions or ("f32",))[0], why_not=why_not)
        elif status is None:
            yield from (Contestant(engine, precision) for precision in precisions or ("f32", "auto"))
        elif status.offer is None:
            yield Contestant(engine, (precisions or ("f32",))[0], why_not=status.why_not)
        else:
            offered = [precision for precision in status.offer.precisions if precision in _PRECISIONS]
            yield from (Contestant(engine, precision) for precision in precisions or offered)


def _sizes(network: BenchNetwork, asked: Sequence[Size]) -> list[Size]:
    """Choose the sizes that have as many axes as the network; a broken package has one line, whatever the sizes."""
    fitting = [size for size in asked if len(size) == network.n_dim]
    return fitting or list(asked if network.n_dim else asked[:1]) or [DEFAULT_SIZES.get(network.n_dim, ())]


def _why_no_size(network: BenchNetwork, size: Size) -> str:
    """Say why a network does not take images of a size; empty if it does."""
    if len(size) == network.n_dim:
        return ""
    takes = {2: "images, rows x columns", 3: "stacks, planes x rows x columns"}[network.n_dim]
    example = size_text(DEFAULT_SIZES[network.n_dim])
    return f"{size_text(size)} is no size for this network, which takes {takes}: --size {example}"


def _limits(ours: Sequence[Contestant], found: Benchmark, progress: Progress) -> None:
    """Measure what the figures are a share of; the best that was ever reached counts."""
    asked = list(dict.fromkeys((each.engine, each.precision) for each in ours if not each.why_not))
    asked = [pair for pair in asked if "auto" not in pair and pair[1] != "int8" and pair[0] != "identity"]
    for done, (engine, precision) in enumerate(asked):
        progress(f"peak of {engine} {precision}", done, len(asked) + 1, "limits")
        try:
            name = f"{engine} {precision}"
            found.peaks[name] = max(peak_gflop_per_s(engine, precision), found.peaks.get(name, 0.0))
        except LiveRestoreError as refused:
            found.conditions = {**found.conditions, f"peak of {engine} {precision}": f"not measured: {refused}"}
    progress("memory", len(asked), len(asked) + 1, "limits")
    found.copy_gb_per_s = max(round(copy_gb_per_s(), 1), found.copy_gb_per_s or 0.0)
    progress("memory", len(asked) + 1, len(asked) + 1, "limits")


def _beside_peak(row: Row, peaks: Mapping[str, float]) -> Row:
    same = [rate for name, rate in peaks.items() if name.endswith(" f32")] if row.peer else []
    peak = max(same, default=0.0) if row.peer else peaks.get(f"{row.engine} {row.precision}", 0.0)
    return replace(row, of_peak=row.gflop_per_s / peak) if row.gflop_per_s and peak else row


class _Group:
    """Everybody on one network and one size."""

    def __init__(self, network: BenchNetwork, size: Size, folder: Path, asked: Asked) -> None:
        self._network, self._size, self._folder, self._asked = network, size, folder, asked

    def rows(self, ours: Sequence[Contestant], progress: Progress) -> list[Row]:
        """Measure; one row for everybody who is not hidden."""
        if self._network.package is None:
            return [self._row(each, why_not=self._network.why_not) for each in ours]
        if why_not := _why_no_size(self._network, self._size):
            return [self._row(each, why_not=why_not) for each in ours]
        everybody = [*ours, *(self._peer(name) for name in self._asked.peers)]
        if not any(each.precision == "f32" and each.program == "ours" and not each.why_not for each in ours):
            everybody.insert(0, Contestant("auto", "f32", hidden=True))
        self._folder.mkdir(parents=True)
        np.save(self._folder / "image.npy", self._image())
        started, rows = self._started(everybody, progress)
        with ExitStack() as stack:
            for process in started.values():
                stack.callback(process.close)
            timed = self._timed(started, progress)
            peaks = {each: process.finish()["peak_mb"] for each, process in started.items()}
        expected = self._reference(everybody, started)
        for each, process in started.items():
            taken = timed.get(each)
            if isinstance(taken, Spread):
                rows[each] = self._measured(each, process.said, taken, peaks[each], expected)
            else:
                rows[each] = self._row(each, why_not=taken or "")
        return [rows[each] for each in everybody if not each.hidden]

    def _started(
        self, everybody: Sequence[Contestant], progress: Progress
    ) -> tuple[dict[Contestant, TurnProcess], dict[Contestant, Row]]:
        started: dict[Contestant, TurnProcess] = {}
        rows: dict[Contestant, Row] = {}
        for done, each in enumerate(everybody):
            progress(f"{self._title}: loading {each.engine} {each.precision}", done, len(everybody), "loaded")
            try:
                if each.why_not:
                    raise LiveRestoreError(each.why_not)
                python = self._asked.pythons.get(each.engine, sys.executable) if each.program != "ours" else sys.executable
                started[each] = TurnProcess(each.program, self._options(each), python, self._asked.patience_s)
            except LiveRestoreError as refused:
                rows[each] = self._row(each, why_not=str(refused))
        return started, rows

    def _timed(self, started: Mapping[Contestant, TurnProcess], progress: Progress) -> dict[Contestant, Spread | str]:
        takers = {each: process.turn for each, process in started.items() if not each.hidden}
        return alternate(takers, self._asked.turns, lambda done, of: progress(self._title, done, of, "turns"))

    def _reference(self, everybody: Sequence[Contestant], started: Mapping[Contestant, TurnProcess]) -> Any:
        """Give our float32 result."""
        for each in everybody:
            if each in started and each.program == "ours" and each.precision == "f32":
                return np.load(self._result(each))
        return None

    def _measured(self, each: Contestant, said: Mapping[str, Any], taken: Spread, peak_mb: float | None, expected: Any) -> Row:
        facts = self._facts
        pixels = prod(self._size)
        known = facts.procedure == "direct" and facts.geometry.flop_per_pixel and not said.get("other_network")
        rate = facts.geometry.flop_per_pixel * pixels / taken.median_ms / 1e6 if known else None
        return replace(
            self._row(each),
            precision=str(said["precision"]),
            runs_on=f"{said['kind']} {said['version']} on {said['device']}",
            median_ms=taken.median_ms,
            p95_ms=taken.p95_ms,
            turns=taken.turns,
            images_per_s=1e3 / taken.median_ms,
            mpx_per_s=pixels / taken.median_ms / 1e3,
            gflop_per_s=rate,
            memory_mb=peak_mb,
            error=None if said.get("other_network") else _error(np.load(self._result(each)), expected),
            certificate=said.get("certificate"),
            note=str(said.get("note", "")),
        )

    def _row(self, each: Contestant, why_not: str = "") -> Row:
        return Row(
            network=self._network.name,
            size=size_text(self._size),
            engine=each.engine,
            precision=each.precision,
            peer=each.program != "ours",
            why_not=why_not,
        )

    def _peer(self, name: str) -> Contestant:
        assert self._network.package is not None
        why_not = why_peer_cannot(name, self._network.package.facts, self._size)
        return Contestant(name, _PEER_PRECISION, f"{name}_peer", why_not=why_not)

    def _options(self, each: Contestant) -> dict[str, Any]:
        package = self._network.package
        assert package is not None
        common = {"image": str(self._folder / "image.npy"), "result": str(self._result(each))}
        if each.program == "ours":
            return {**common, "package": str(package.path), "engine": each.engine, "precision": each.precision}
        return {**common, **peer_options(package, np.load(self._folder / "image.npy"), self._folder)}

    def _result(self, each: Contestant) -> Path:
        return self._folder / f"{each.program}_{each.engine}_{each.precision}.npy"

    def _image(self) -> Any:
        """Give what everybody restores, (C, Z, Y, X) uint16."""
        shape = (1, *self._size) if len(self._size) == 2 else self._size
        channels = [low_light(shape, seed)[0] for seed in range(1, self._facts.channels_in + 1)]  # type: ignore[arg-type]
        return np.stack(channels)

    @property
    def _facts(self) -> Any:
        assert self._network.package is not None
        return self._network.package.facts

    @property
    def _title(self) -> str:
        return f"{self._network.name} {size_text(self._size)}"


def _error(found: Any, expected: Any) -> float | None:
    """Give the rms difference over the range of float32; None where there is none to compare with, or the image is flat."""
    if expected is None or found.shape != expected.shape:
        return None
    low, high = np.percentile(expected, (0.1, 99.9))
    difference = np.sqrt(np.mean(np.square(found - expected, dtype=np.float64)))
    return float(difference / (high - low)) if high > low else None
