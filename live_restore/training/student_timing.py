"""How long a network takes on this machine, as it will be served: counts in, restored counts out, through `Restorer`.

Receives candidates of a family, or model packages, and a volume's shape; hands on times. Everything is in them that a live
volume waits for: percentiles, scaling, padding, tiles, the engine, counts. Weights do not matter: candidates are untrained.

What is compared takes turns, a restoration each, round after round: when the machine is busy for a while, it is so for all of
them. Medians are compared, and the fastest are kept at hand, as other work on the machine only ever adds time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.certificates.certificate import ANYTHING, USUAL, Tolerance
from live_restore.intensity import measure_percentiles
from live_restore.models.facts import Architecture, ModelFacts, Normalisation, Provenance
from live_restore.models.onnx_export import run_net
from live_restore.models.package import ModelPackage, write_package
from live_restore.models.ranges import as_range
from live_restore.restorer import Restorer
from live_restore.training.family import Candidate

Counts = NDArray[np.uint16]
Told = Callable[[int, int], None]
Shape = tuple[int, int, int]
Name = TypeVar("Name")

# Rounds for every network, at least and at most; and what one of them may take in all.
_FEWEST, _MOST = 5, 40
_SECONDS = 8.0
# Larger networks than one that takes so many times the target are not waited for.
_HOPELESS = 2.5
# Sides of a candidate's test image, a multiple of what any rung of the ladders divides by.
_TEST_SIDE = {2: (64, 64), 3: (16, 32, 32)}
_FEW_PHOTONS = 12.0


@dataclass(frozen=True, slots=True)
class Timing:
    """What restoring a volume takes; milliseconds.

    Attributes
    ----------
    median_ms, p95_ms, fastest_ms : float
    rounds : int
    shape : tuple of int, (Z, Y, X)
    engine, precision : str
        What computed.
    """

    median_ms: float
    p95_ms: float
    fastest_ms: float
    rounds: int
    shape: Shape
    engine: str
    precision: str

    def as_json(self) -> dict[str, Any]:
        """Turn it into JSON's own types."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Served:
    """By what a network is to be served: as for `Restorer`."""

    engine: str = "auto"
    precision: str = "auto"

    def open(self, package: ModelPackage, tolerance: Tolerance = USUAL) -> Restorer:
        """Open a package so."""
        return Restorer(package, engine=self.engine, precision=self.precision, tolerance=tolerance)


def time_candidates(
    candidates: Sequence[Candidate],
    shape: Shape,
    target_ms: float,
    served: Served,
    folder: Path,
    normalisation: Normalisation | None = None,
    told: Told | None = None,
) -> dict[Candidate, Timing]:
    """Time the candidates of a family, smallest first, up to the first that is hopelessly slow.

    Parameters
    ----------
    candidates : sequence of Candidate
    shape : tuple of int, (Z, Y, X)
    target_ms : float
        Larger candidates than one that takes many times as long are left out.
    served : Served
    folder : Path
        Where the packages with untrained weights may lie meanwhile.
    normalisation : Normalisation, optional
        That of the student; None: percentiles of every volume.
    told : callable (done, total), optional

    Returns
    -------
    dict
        By candidate, in the order that was given.

    Raises
    ------
    ImageError
        If volumes of this shape cannot be restored, for instance a single plane by a 3D network.
    """
    volume = dim_volume(shape)
    found: dict[Candidate, Timing] = {}
    with ExitStack() as opened:
        restorers: dict[Candidate, Restorer] = {}
        smallest_first = sorted(candidates, key=lambda one: one.flop_per_pixel)
        for number, candidate in enumerate(smallest_first):
            package = untrained_package(candidate, folder / f"{number}", normalisation)
            # a network that has not learned anything amplifies rounding; once trained it will be within its tolerance
            restorer = opened.enter_context(served.open(package, ANYTHING))
            restorer.restore(volume)
            restorers[candidate] = restorer
            if told is not None:
                told(number + 1, len(candidates))
            if _took_ms(restorer, volume) > _HOPELESS * target_ms:
                break
        found = _in_turns(restorers, volume)
    return {candidate: found[candidate] for candidate in candidates if candidate in found}


def time_packages(
    packages: Mapping[str, ModelPackage], shape: Shape, served: Served, untrained: Mapping[str, ModelPackage] | None = None
) -> dict[str, Timing]:
    """Time packages against each other; those without training at any tolerance, as `time_candidates` does.

    Raises
    ------
    ImageError
        If volumes of this shape cannot be restored by one of them.
    """
    volume = dim_volume(shape)
    with ExitStack() as opened:
        restorers = {name: opened.enter_context(served.open(package)) for name, package in packages.items()}
        for name, package in (untrained or {}).items():
            restorers[name] = opened.enter_context(served.open(package, ANYTHING))
        for restorer in restorers.values():
            restorer.restore(_for(restorer, volume))
        return _in_turns(restorers, volume)


def _in_turns(restorers: Mapping[Name, Restorer], volume: Counts) -> dict[Name, Timing]:
    times: dict[Name, list[float]] = {name: [] for name in restorers}
    until = time.monotonic() + _SECONDS * len(restorers)
    for round_ in range(_MOST):
        if round_ >= _FEWEST and time.monotonic() > until:
            break
        for name, restorer in restorers.items():
            times[name].append(_took_ms(restorer, volume))
    return {name: _timing(restorers[name], taken, volume) for name, taken in times.items()}


def _took_ms(restorer: Restorer, volume: Counts) -> float:
    given = _for(restorer, volume)
    began = time.perf_counter_ns()
    restorer.restore(given)
    return (time.perf_counter_ns() - began) / 1e6


def _for(restorer: Restorer, volume: Counts) -> Counts:
    """Give the volume as many channels as the network takes; (C, Z, Y, X)."""
    return np.broadcast_to(volume, (restorer.facts.channels_in, *volume.shape[1:]))


def _timing(restorer: Restorer, taken: Sequence[float], volume: Counts) -> Timing:
    spec = restorer.engine
    _, planes, height, width = volume.shape
    return Timing(
        median_ms=median(taken),
        p95_ms=quantiles(taken, n=20, method="inclusive")[-1],
        fastest_ms=min(taken),
        rounds=len(taken),
        shape=(planes, height, width),
        engine=str(spec),
        precision=spec.precision,
    )


def dim_volume(shape: Shape) -> Counts:
    """Make a volume of few photons over a camera's offset, (1, Z, Y, X) uint16: the same for everybody."""
    rng = np.random.default_rng(0)
    waves = 1 + np.sin(np.linspace(0, 40, shape[2])) * np.sin(np.linspace(0, 40, shape[1]))[:, None]  # (Y, X)
    light = np.broadcast_to(_FEW_PHOTONS * waves, shape)
    counts: Counts = (100 + 2 * rng.poisson(light) + rng.normal(0, 2, shape)).clip(0, 65535).astype(np.uint16)[None]
    return counts


def untrained_package(candidate: Candidate, path: Path, normalisation: Normalisation | None = None) -> ModelPackage:
    """Write a candidate as a model package, as training would, with untrained weights."""
    from live_restore.models.nets import build_net

    net = build_net(candidate.kind, candidate.net_options, seed=0).eval()
    rule = normalisation or Normalisation()
    counts = dim_volume((1,) * (3 - candidate.n_dim) + _TEST_SIDE[candidate.n_dim])  # type: ignore[arg-type]
    image = counts.reshape(1, *_TEST_SIDE[candidate.n_dim]).astype(np.float32)
    frozen = as_range(rule.frozen) if rule.mode == "frozen" and rule.frozen else None
    range_ = frozen or measure_percentiles(image, rule.low_percentile, rule.high_percentile)
    test_input = range_.scale(image)[None]
    facts = ModelFacts(
        architecture=Architecture(kind=candidate.kind, options=net.options, parameters=candidate.parameters),
        geometry=candidate.geometry,
        normalisation=rule,
        provenance=Provenance(
            source_format="untrained", source_name="family", source_sha256="0" * 64, imported_by="live_restore"
        ),
    )
    return write_package(
        path,
        name="untrained",
        description="A network of the family of live networks with untrained weights, to be timed.",
        onnx=candidate.onnx,
        test_input=test_input,
        test_output=run_net(net, test_input),
        facts=facts,
    )
