"""Engines built ahead of time: packages, a target and a recipe become TensorRT plans in this machine's cache.

Receives packages, and for which cards; hands on what was built, plan by plan, and tells a listener how far it is. Packages,
recipes and the cache meet here. It does not know how a plan is run.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.tensorrt.build import BuiltPlan, PlanRequest, build_plan, requests
from live_restore.engines.tensorrt.recipe import BuildPrecision, Recipe, recipe_for
from live_restore.engines.tensorrt.targets import Target
from live_restore.errors import EngineError
from live_restore.models.package import ModelPackage

WHOLE = "whole"
_TILES = "tiles"
# The two graphs by which a network with attention restores an image in tiles.
_POOLED = {"tiles, first pass": measuring, "tiles, second pass": applying}


class BuildListener(Protocol):
    """Who is told how far the builds are."""

    def plan(self, name: str, number: int, total: int) -> None:
        """Tell that the next plan begins."""

    def progress(self, done: float) -> None:
        """Tell how much of this plan is done, 0 to 1; called from the thread that builds."""


class Silence:
    """Nobody listens."""

    def plan(self, name: str, number: int, total: int) -> None:
        """Ignore it."""

    def progress(self, done: float) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """One plan that is to be built.

    Attributes
    ----------
    network : str
        Name of the package.
    graph : str
        ``whole``, or which pass over tiles.
    request : PlanRequest
    """

    network: str
    graph: str
    request: PlanRequest

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self.network if self.graph == WHOLE else f"{self.network} ({self.graph})"


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """One plan that is in the cache.

    Attributes
    ----------
    planned : Planned
    plan : BuiltPlan or None
        None where it was in the cache already.
    path : Path
        Its file.
    """

    planned: Planned
    plan: BuiltPlan | None
    path: Path


def plans_for(
    package: ModelPackage, target: Target, precision: BuildPrecision | None = None, recipe: Recipe | None = None
) -> list[Planned]:
    """Say which plans serve a package: for camera frames, whole; with attention also the two passes over tiles.

    Parameters
    ----------
    package : ModelPackage
    target : Target
    precision : {"f16", "bf16", "f32"}, optional
        Default: the recipe's first.
    recipe : Recipe, optional
        Default: the one that comes with live_restore for such networks.

    Raises
    ------
    EngineUnavailable
        If no TensorRT that is installed here builds for the target.
    EngineError
        If the recipe is not for this network, or there is none for it.
    """
    onnx = package.onnx()
    recipe = recipe or recipe_for(onnx)
    whole = requests(from_counts(onnx), recipe, target, precision)
    planned = [Planned(package.name, WHOLE, request) for request in whole]
    if not package.facts.geometry.global_pooling:
        return planned
    for graph, variant in _POOLED.items():
        pooled = requests(from_counts(variant(onnx)), recipe, target, precision)
        tiles = [request for request in pooled if request.profile.name == _TILES]
        planned += [Planned(package.name, graph, request) for request in tiles or pooled]
    return planned


def build(
    planned: Sequence[Planned], cache: EngineCache, listener: BuildListener | None = None, fresh: bool = False
) -> Iterator[Built]:
    """Build plan after plan into the cache.

    Parameters
    ----------
    planned : sequence of Planned
    cache : EngineCache
    listener : BuildListener, optional
    fresh : bool
        Build also what the cache has.

    Yields
    ------
    Built

    Raises
    ------
    EngineError
        If a plan cannot be built or kept; those before it are in the cache.
    KeyboardInterrupt
        Once the build has come to a stop.
    """
    listener = listener or Silence()
    for number, one in enumerate(planned, 1):
        listener.plan(one.name, number, len(planned))
        key = one.request.key
        if not fresh and _is_there(cache, one.request):
            yield Built(one, None, cache.path(key))
            continue
        plan = _built(one.request, listener)
        yield Built(one, plan, cache.store(key, plan.plan, name=one.name))


def _is_there(cache: EngineCache, request: PlanRequest) -> bool:
    try:
        cache.load(request.key)
    except EngineError:
        return False
    return True


def _built(request: PlanRequest, listener: BuildListener) -> BuiltPlan:
    """Build in another thread: Ctrl-C comes to this one, and must not come into the middle of the builder."""
    stop, building = threading.Event(), Future[BuiltPlan]()

    def work() -> None:
        try:
            building.set_result(build_plan(request, listener.progress, stop))
        except BaseException as failed:  # whoever waits is told of it
            building.set_exception(failed)

    builder = threading.Thread(target=work, name="tensorrt-build")
    try:
        builder.start()
        return building.result()
    except KeyboardInterrupt:
        stop.set()
        raise
    finally:
        if builder.ident is not None:  # no pool: Ctrl-C while one starts its thread would leave that alone
            builder.join()
