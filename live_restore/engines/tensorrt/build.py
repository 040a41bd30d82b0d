"""The build of TensorRT plans: a graph, a recipe's profile, a precision and a target become the bytes of a plan.

Receives a request; hands on the plan with what is known of it, or what the parser or the builder complained of, in one
sentence. Both flavours are built by the same code. It does not know packages, and it runs nothing: no GPU is needed with
``tensorrt_rtx``.

Source: NVIDIA, TensorRT 10 and TensorRT for RTX 1.7, Python API.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from live_restore.engines.cache.engine_cache import EngineKey
from live_restore.engines.graphs.byte_pairs import from_byte_pairs
from live_restore.engines.graphs.counts_graph import COUNTS_OUT
from live_restore.engines.graphs.onnx_file import read_onnx
from live_restore.engines.graphs.sixteen_bits import in_sixteen_bits
from live_restore.engines.tensorrt.flavour import Flavour, flavour_for, serves
from live_restore.engines.tensorrt.recipe import BuildPrecision, Profile, Recipe, fits
from live_restore.engines.tensorrt.targets import Target
from live_restore.errors import EngineError, EngineUnavailable

Shape = tuple[int, ...]
Shapes = tuple[Shape, Shape, Shape]

# What the builder says it will need on the card for what lies between the layers, at the profile's largest shape.
_MEMORY = re.compile(r"Total Activation Memory: (\d+) bytes")
_MOST_COMPLAINTS = 3


class Progress(Protocol):
    """Who wants to know how far one build is."""

    def __call__(self, done: float) -> None:
        """Take how much is done, 0 to 1; called from the thread that builds."""


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """One plan to be built.

    Attributes
    ----------
    onnx : bytes
        The network in float32: plain, or from `live_restore.engines.graphs.counts_graph`, or from
        `live_restore.engines.graphs.pooling`.
    recipe : Recipe
    profile : Profile
        One of the recipe's, or one of `live_restore.engines.tensorrt.recipe.exactly`.
    precision : {"f16", "bf16", "f32"}
    target : Target
    flavour : Flavour
    """

    onnx: bytes
    recipe: Recipe
    profile: Profile
    precision: BuildPrecision
    target: Target
    flavour: Flavour

    @cached_property
    def graph(self) -> bytes:
        """The graph as it is built: in its precision, uint16 as bytes."""
        return tensorrt_graph(self.onnx, self.precision)

    @cached_property
    def key(self) -> EngineKey:
        """All that the plan depends on."""
        return EngineKey(
            onnx_sha256=hashlib.sha256(self.graph).hexdigest(),
            flavour=self.flavour.name,
            flavour_version=self.flavour.version,
            device=self.target.device,
            capability="{}.{}".format(*self.target.capability),
            driver=self.target.driver,
            precision=self.precision,
            profile=str(self.profile),
            recipe_sha256=self.recipe.sha256,
        )


@dataclass(frozen=True, slots=True, eq=False)
class BuiltPlan:
    """A plan and what is known of it.

    Attributes
    ----------
    request : PlanRequest
    plan : bytes
    layers : int
        Of the network as TensorRT sees it before it fuses them.
    shapes : dict of str to (min, opt, max)
        What every input takes.
    seconds : float
        That parsing and building took.
    memory_bytes : int or None
        On the card at the largest shape, besides weights, input and output; None if the builder did not say.
    validity : str
        What the runtime says of the plan here, in words.
    """

    request: PlanRequest
    plan: bytes
    layers: int
    shapes: dict[str, Shapes]
    seconds: float
    memory_bytes: int | None
    validity: str


def requests(
    onnx: bytes, recipe: Recipe, target: Target, precision: BuildPrecision | None = None, flavour: Flavour | None = None
) -> list[PlanRequest]:
    """Say what there is to build for a network and a target: one plan for each profile of the recipe.

    Parameters
    ----------
    onnx : bytes
    recipe : Recipe
    target : Target
    precision : {"f16", "bf16", "f32"}, optional
        Default: the recipe's first.
    flavour : Flavour, optional
        Default: the installed one that serves the target.

    Raises
    ------
    EngineUnavailable
        If no installed flavour can build for the target here.
    EngineError
        If the recipe is for networks with other axes.
    """
    flavour = flavour or flavour_for(target.capability)
    if not serves(flavour.name, target.capability):
        raise EngineUnavailable(f"{flavour} does not serve {target}; install the other flavour of TensorRT")
    if not (flavour.builds_without_card or target.is_here):
        raise EngineUnavailable(
            f"{flavour} builds only for the card it runs on, not for {target.name}; use --for this on that machine, or "
            'pip install "live_restore[rtx]", which builds for GeForce and RTX cards anywhere'
        )
    if not fits(recipe, onnx):
        raise EngineError(
            f"the recipe {recipe.name} is for images with axes {recipe.axes}, this network has others; take another"
        )
    chosen = precision or recipe.precisions[0]
    return [PlanRequest(onnx, recipe, profile, chosen, target, flavour) for profile in recipe.profiles]


def tensorrt_graph(onnx: bytes, precision: BuildPrecision) -> bytes:
    """Make the graph that TensorRT is given: precision within, uint16 as bytes and int32, every size that is known fixed.

    Raises
    ------
    EngineError
        If a weight does not fit the precision.
    ModelError
        If the bytes are no graph, or one that cannot be changed so.
    """
    graph = from_byte_pairs(onnx)
    if precision != "f32":
        graph = in_sixteen_bits(graph, precision)
    return _with_known_channels(graph)


def build_plan(request: PlanRequest, progress: Progress | None = None, stop: threading.Event | None = None) -> BuiltPlan:
    """Build one plan; other threads go on meanwhile.

    Parameters
    ----------
    request : PlanRequest
    progress : callable, optional
    stop : Event, optional
        Set it from another thread to give the build up.

    Raises
    ------
    EngineError
        If the parser or the builder refuses, the shapes do not fit, or the build was given up.
    """
    trt, log = request.flavour.module, request.flavour.log
    since = time.perf_counter()
    stop = stop or threading.Event()
    with log.listening() as messages:
        builder = trt.Builder(log)
        network = builder.create_network(_network_flags(trt))
        _parse(request, network)
        shapes = {name: _shapes(name, shape, request) for name, shape in _inputs(network)}
        config = _configured(builder, shapes, request)
        config.progress_monitor = _monitor_class(trt)(progress or _nobody, stop)
        built = builder.build_serialized_network(network, config)
        if built is None:
            raise EngineError(_why_not_built(request, messages, stop))
        plan = bytes(memoryview(built))
        seconds = time.perf_counter() - since
        memory = next((int(found[1]) for found in map(_MEMORY.search, messages) if found), None)
    return BuiltPlan(request, plan, int(network.num_layers), shapes, seconds, memory, validity(request.flavour, plan))


def validity(flavour: Flavour, plan: bytes) -> str:
    """Ask the runtime whether a plan can be used here.

    Returns
    -------
    str
        ``"valid here"``; ``"well-formed, ..."`` with what stands against using it on this machine; ``"not checked, ..."``.

    Raises
    ------
    EngineError
        If it is no plan, or one of another version.
    """
    trt = flavour.module
    runtime = trt.Runtime(flavour.log)
    if not hasattr(runtime, "get_engine_validity"):
        if flavour.builds_without_card:
            return "not checked, this version does not tell"
        if runtime.deserialize_cuda_engine(plan) is None:  # it was built on this card
            raise EngineError(f"{flavour} does not load what it should have built ({len(plan)} bytes); build it again")
        return "valid here"
    found, diagnostics = runtime.get_engine_validity(plan)
    reasons = {name for name, one in trt.EngineInvalidityDiagnostics.__members__.items() if int(one.value) & int(diagnostics)}
    if reasons & {"MALFORMED_ENGINE", "VERSION_MISMATCH"}:
        raise EngineError(f"these {len(plan)} bytes are no plan of {flavour}; build it again")
    if found == trt.EngineValidity.INVALID:
        words = ", ".join(sorted(reasons)).lower().replace("_", " ")
        return f"well-formed, not for this machine: {words or 'it has no NVIDIA driver'}"
    return "valid here" if found == trt.EngineValidity.VALID else "valid here, but not the fastest"


def _network_flags(trt: Any) -> int:
    """Ask for a network whose types are those of the graph; newer versions know no other."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(request: PlanRequest, network: Any) -> None:
    parser = request.flavour.module.OnnxParser(network, request.flavour.log)
    parsed = parser.parse(request.graph)
    errors = [_parser_words(parser.get_error(at)) for at in range(parser.num_errors)]
    if errors or not parsed:
        more = f"; and {len(errors) - _MOST_COMPLAINTS} more" if len(errors) > _MOST_COMPLAINTS else ""
        raise EngineError(
            f"{request.flavour} cannot take this network: {'; '.join(errors[:_MOST_COMPLAINTS]) or 'it gives no reason'}{more}"
            "; use another engine for it: --engine openvino"
        )


def _parser_words(error: Any) -> str:
    where = f"{error.node_operator()} {error.node_name()!r}: " if error.node_operator() else ""
    return where + str(error.desc()).strip().rstrip(".")


def _inputs(network: Any) -> Iterator[tuple[str, Shape]]:
    for at in range(network.num_inputs):
        tensor = network.get_input(at)
        yield str(tensor.name), tuple(tensor.shape)


def _shapes(name: str, shape: Shape, request: PlanRequest) -> Shapes:
    """Fill the open sizes of an input from the profile: images, weights like them, and rows of one per image."""
    low, best, high = (_filled(name, shape, sizes, request) for sizes in _limits(request.profile))
    return low, best, high


def _limits(profile: Profile) -> tuple[Shape, Shape, Shape]:
    return profile.min, profile.opt, profile.max


def _filled(name: str, shape: Shape, sizes: Shape, request: PlanRequest) -> Shape:
    # (N, C, [Z,] Y, X), and (2,) behind it where the image comes as bytes
    wanted = (sizes[0], -1, *sizes[1:], -1)[: len(shape)] if len(shape) > 2 else (sizes[0], -1)
    filled = tuple(size if size >= 0 else other for size, other in zip(shape, wanted, strict=False))
    if min(filled, default=-1) < 1 or len(shape) not in (2, len(sizes) + 1, len(sizes) + 2):
        raise EngineError(
            f"input {name!r} of the network has sizes {shape}, which the recipe {request.recipe.name} (axes "
            f"{request.recipe.axes}) does not fill; export the network with fixed channels, or take another recipe"
        )
    return filled


def _configured(builder: Any, shapes: dict[str, Shapes], request: PlanRequest) -> Any:
    trt = request.flavour.module
    config = builder.create_builder_config()
    if not request.recipe.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # f32 means float32: a certificate compares with it
    profile = builder.create_optimization_profile()
    for name, (low, best, high) in shapes.items():
        profile.set_shape(name, low, best, high)
    with request.flavour.log.listening() as messages:
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"{request.flavour} does not take the profile {request.profile}: {_complaints(messages)}")
    if hasattr(config, "num_compute_capabilities"):
        _set_target(config, request)
    return config


def _set_target(config: Any, request: PlanRequest) -> None:
    """Name the card's compute capability, so that no card is asked for it; only TensorRT for RTX can be told."""
    capabilities = request.flavour.module.ComputeCapability
    major, minor = request.target.capability
    wanted = getattr(capabilities, f"SM{major}{minor}", None)
    if wanted is None and request.target.is_here:
        wanted = capabilities.CURRENT  # newer than this list
    config.num_compute_capabilities = 1
    if wanted is None or not config.set_compute_capability(wanted, 0):
        raise EngineUnavailable(
            f"{request.flavour} does not build for {request.target}; install a newer one: pip install -U tensorrt-rtx"
        )


def _with_known_channels(graph: bytes) -> bytes:
    """Fix the channels of the output range, which are those of the result."""
    model = read_onnx(graph).model
    channels = model.graph.output[-1].type.tensor_type.shape.dim
    for value in model.graph.input:
        size = value.type.tensor_type.shape.dim
        if value.name == COUNTS_OUT and not size[1].dim_value and len(channels) > 1 and channels[1].dim_value:
            size[1].dim_value = channels[1].dim_value
    return bytes(model.SerializeToString())


def _why_not_built(request: PlanRequest, messages: list[str], stop: threading.Event) -> str:
    if stop.is_set():
        return f"the build of {request.recipe.name} {request.profile.name} was given up, as asked"
    return (
        f"{request.flavour} cannot build {request.recipe.name} {request.profile} in {request.precision} for {request.target}: "
        f"{_complaints(messages)}"
    )


def _complaints(messages: list[str]) -> str:
    errors = [message.removeprefix("error: ").strip().rstrip(".") for message in messages if message.startswith("error: ")]
    return "; ".join(dict.fromkeys(errors[:_MOST_COMPLAINTS])) or "it gives no reason"


def _nobody(done: float) -> None:
    """Tell nobody."""


def _monitor_class(trt: Any) -> Any:
    """Make the progress monitor's class: its base belongs to the module that is installed."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Counts the steps of the outermost phase, and stops the build where that is asked."""

        def __init__(self, progress: Progress, stop: threading.Event) -> None:
            trt.IProgressMonitor.__init__(self)
            self._progress, self._stop = progress, stop
            self._outermost: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, num_steps: int) -> None:
            if parent is None:
                self._outermost[phase] = max(1, num_steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self._outermost:
                self._progress(min(1.0, (step + 1) / self._outermost[phase]))
            return not self._stop.is_set()

        def phase_finish(self, phase: str) -> None:
            if self._outermost.pop(phase, None):
                self._progress(1.0)

    return Monitor
