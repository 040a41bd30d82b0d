"""The plans of one network on one card: from this machine's cache, or built now.

Receives a graph, a precision, a card and the cache; hands on loaded plans, one for each profile of the recipe that is asked
for, and keeps what the card compiled for them. It does not know batches.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

from live_restore.engines.batches import Shapes
from live_restore.engines.cache.engine_cache import EngineKey
from live_restore.engines.engine import Precision
from live_restore.engines.tensorrt.build import PlanRequest, build_plan, requests
from live_restore.engines.tensorrt.card import Card
from live_restore.engines.tensorrt.plan import TensorRtPlan
from live_restore.engines.tensorrt.recipe import BuildPrecision, Profile, exactly, recipe_for
from live_restore.engines.tensorrt.targets import generation_of, target_of
from live_restore.errors import EngineError, EngineUnavailable, ModelError

# What is compiled on the card is kept beside the plan, as an entry of its own.
_COMPILED = "compiled"
_BUILT: dict[str, BuildPrecision] = {"f32": "f32", "f16": "f16", "bf16": "bf16"}

_log = logging.getLogger(__name__)


def to_build(onnx: bytes, precision: str, card: Card) -> list[PlanRequest]:
    """Say which plans of a network this machine does not have yet.

    Parameters
    ----------
    onnx : bytes
        As for `live_restore.engines.tensorrt.build.PlanRequest`.
    precision : {"f32", "f16", "bf16", "auto"}
        "auto": the recipe's first.
    card : Card
    """
    target = target_of(card.cuda.device())
    asked = requests(onnx, recipe_for(onnx), target, _BUILT.get(precision), card.flavour)
    return [request for request in asked if not card.cache.holds(request.key)]


class Plans:
    """See the module.

    Parameters
    ----------
    onnx : bytes
        As for `live_restore.engines.tensorrt.build.PlanRequest`.
    precision : {"f32", "f16", "bf16"}
    card : Card

    Raises
    ------
    EngineUnavailable
        If TensorRT does not compute in this precision.
    EngineError
        If there is no recipe for this network.
    """

    def __init__(self, onnx: bytes, precision: Precision, card: Card) -> None:
        if precision not in _BUILT:
            raise EngineUnavailable(f"plans are not built in {precision}; use {', '.join(_BUILT)}")
        self._card, self._onnx, self._precision = card, onnx, _BUILT[precision]
        self._device = card.cuda.device()
        try:
            self._recipe = recipe_for(onnx)
        except ModelError as refused:
            raise EngineError(str(refused)) from refused
        self._open: dict[str, tuple[PlanRequest, TensorRtPlan, bytes]] = {}

    def for_shapes(self, shapes: Shapes) -> TensorRtPlan:
        """Give the plan for inputs of these shapes, the image first; it is built if this machine has none.

        Raises
        ------
        EngineError
            If it cannot be built, or not be loaded.
        """
        batch, _, *sizes = shapes[0]
        profile = self._recipe.profile_for(batch, tuple(sizes)) or exactly(batch, tuple(sizes))
        if str(profile) not in self._open:
            request = self._request(profile)
            compiled = self._compiled(request.key)
            self._open[str(profile)] = request, self._loaded(request, compiled), compiled
        return self._open[str(profile)][1]

    def keep_compiled(self) -> None:
        """Keep what the card compiled since, so that the next start takes no time for it."""
        for profile, (request, plan, before) in self._open.items():
            if (compiled := plan.compiled) != before:
                self._store(_compiled_key(request.key), compiled)
                self._open[profile] = request, plan, compiled

    def close(self) -> None:
        """Give back the weights of all plans."""
        while self._open:
            self._open.popitem()[1][1].close()

    def _request(self, profile: Profile) -> PlanRequest:
        target = target_of(self._device)
        return PlanRequest(self._onnx, self._recipe, profile, self._precision, target, self._card.flavour)

    def _loaded(self, request: PlanRequest, compiled: bytes) -> TensorRtPlan:
        """Load from the cache, for this card or for its generation; build where there is nothing that fits."""
        for key in self._keys(request):
            try:
                return TensorRtPlan(self._card.flavour, self._card.cuda, self._card.cache.load(key), compiled)
            except EngineError as refused:
                _log.info("%s", refused)
        built = build_plan(request).plan
        self._store(request.key, built)
        return TensorRtPlan(self._card.flavour, self._card.cuda, built, compiled)

    def _keys(self, request: PlanRequest) -> Iterator[EngineKey]:
        yield request.key
        if generation := generation_of(self._device.capability):
            yield replace(request, target=generation).key

    def _compiled(self, key: EngineKey) -> bytes:
        try:
            return self._card.cache.load(_compiled_key(key))
        except EngineError as refused:
            _log.debug("%s", refused)
            return b""

    def _store(self, key: EngineKey, built: bytes) -> None:
        try:
            self._card.cache.store(key, built, name=f"{self._recipe.name} {key.precision} {key.profile}")
        except EngineError as refused:  # it runs all the same, and is built again next time
            _log.warning("%s", refused)


def _compiled_key(key: EngineKey) -> EngineKey:
    return replace(key, flavour=f"{key.flavour}-{_COMPILED}")
