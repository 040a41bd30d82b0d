"""The build of TensorRT plans, with the real TensorRT for RTX, which needs no GPU: errors, layers, profiles, size."""

import importlib
import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from small_graphs import graph, net_graph, node

from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.onnx_file import read_onnx
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.tensorrt.build import PlanRequest, build_plan, requests, tensorrt_graph, validity
from live_restore.engines.tensorrt.flavour import flavour_for, installed_flavours, serves
from live_restore.engines.tensorrt.recipe import Profile, exactly, recipe_for
from live_restore.engines.tensorrt.targets import Target, target_named
from live_restore.errors import EngineError, EngineUnavailable

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")

RTX40 = target_named("rtx40")
CARE = ("care", {"first_filters": 4})
RCAN = ("rcan", {"groups": 1, "blocks": 1, "channels": 8})

# The networks as they are trained by default: (kind, axes, layers of the plain float32 graph)
DEFAULTS = {"care2d": ("care", 2, 28), "care3d": ("care", 3, 28), "rcan2d": ("rcan", 2, 176), "rcan3d": ("rcan", 3, 176)}


def request_for(onnx_bytes, profile=0, precision="f32", target=RTX40):
    return requests(onnx_bytes, recipe_for(onnx_bytes), target, precision)[profile]


def small(net=CARE, n_dim=2):
    return net_graph(net[0], n_dim=n_dim, **net[1])


@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_networks_are_built(name, precision, record_property):
    kind, n_dim, layers = DEFAULTS[name]
    plain = net_graph(kind, n_dim=n_dim)
    steps = []
    built = build_plan(request_for(from_counts(plain), 0, precision), steps.append)
    for figure in ("layers", "seconds", "memory_bytes", "validity"):
        record_property(figure, getattr(built, figure))
    record_property("bytes", len(built.plan))
    assert built.layers > layers  # those of the network, and those that scale the counts
    assert steps == sorted(steps) and steps[-1] == 1
    # the plan holds the weights: in 16 bits half as many bytes
    weights = sum(array.nbytes for array in read_onnx(plain).weights.values())
    share = {"f32": 1.0, "f16": 0.5}[precision] * weights
    assert 0.9 * share < len(built.plan) < 3 * share + 1_000_000
    assert built.validity.startswith(("valid here", "well-formed"))
    sizes = {"care2d": (4096, 4096), "care3d": (64, 512, 512), "rcan2d": (4096, 4096), "rcan3d": (32, 768, 768)}[name]
    assert built.shapes["counts"][2] == (1, 1, *sizes, 2) and built.shapes["counts_out"] == ((2, 1),) * 3
    assert built.memory_bytes and 1e8 < built.memory_bytes < 2e10


@pytest.mark.parametrize("name", DEFAULTS)
def test_layers_of_the_plain_network(name):
    """A layer more or less is a change of the network, or of how it is exported."""
    kind, n_dim, layers = DEFAULTS[name]
    narrow = {"care": {"first_filters": 4}, "rcan": {"channels": 8}}[kind]  # as many layers, quicker to build
    assert build_plan(request_for(net_graph(kind, n_dim=n_dim, **narrow), 1)).layers == layers


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("rounded", [False, True])
def test_counts_in_counts_out(precision, rounded):
    request = request_for(from_counts(small(), rounded=rounded), 1, precision)
    assert build_plan(request).shapes == {
        "counts": ((1, 1, 16, 16, 2), (1, 1, 512, 512, 2), (8, 1, 1024, 1024, 2)),
        "counts_in": ((2, 1),) * 3,
        "counts_out": ((2, 1),) * 3,
    }
    described = onnx.load_from_string(request.graph).graph
    assert [value.type.tensor_type.elem_type for value in (described.input[0], described.output[-1])] == [
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT32 if rounded else onnx.TensorProto.FLOAT,
    ]


@pytest.mark.parametrize("n_dim", [2, 3])
@pytest.mark.parametrize("variant", [measuring, applying])
def test_the_variants_for_tiles_are_built(n_dim, variant):
    shapes = build_plan(request_for(from_counts(variant(small(RCAN, n_dim))), 1, "f16")).shapes
    sizes = (8, 1024, 1024) if n_dim == 2 else (8, 32, 256, 256)
    assert shapes["pooling_weights"][2] == (sizes[0], 1, *sizes[1:])
    if variant is applying:
        assert shapes["pooling_means"] == ((1, 8), (1, 8), (8, 8))


def test_networks_of_several_channels_and_of_other_sizes():
    probabilistic = net_graph("care", n_dim=2, channels_in=2, channels_out=2, probabilistic=True, first_filters=4)
    shapes = build_plan(request_for(from_counts(probabilistic), 1, "f16")).shapes
    assert shapes["counts"][0] == (1, 2, 16, 16, 2) and shapes["counts_out"][0] == (2, 4)
    assert build_plan(request_for(net_graph("projection_care", n_dim=3, first_filters=4), 1, "f16")).layers
    assert build_plan(request_for(net_graph("rcan", n_dim=2, groups=1, blocks=1, channels=8, upscale=2), 1, "f16")).layers


@pytest.mark.parametrize("name", ["rtx20", "rtx30", "rtx40", "rtx50"])
def test_every_generation_of_cards(name):
    built = build_plan(request_for(from_counts(small()), 1, "f16", target_named(name)))
    assert built.plan and built.request.key.device == name


def test_one_exact_shape():
    request = replace(request_for(from_counts(small())), profile=exactly(1, (512, 512)))
    assert build_plan(request).shapes["counts"] == ((1, 1, 512, 512, 2),) * 3 and request.key.profile == "exact 1x512x512"


def test_the_key_is_of_what_was_built():
    request = request_for(from_counts(small()), 1, "f16")
    key = request.key
    assert (key.flavour, key.device, key.capability, key.driver, key.precision) == (
        "tensorrt_rtx",
        "rtx40",
        "8.9",
        "any",
        "f16",
    )
    assert key.flavour_version == importlib.import_module("tensorrt_rtx").__version__
    card = Target("this", "NVIDIA GeForce RTX 4070", (8, 9), "13.0")
    for other in (
        replace(request, precision="f32"),
        replace(request, profile=exactly(1, (512, 512))),
        replace(request, target=card),
        replace(request, recipe=request.recipe.model_copy(update={"tf32": True})),
        replace(request, onnx=from_counts(small(), rounded=True)),
    ):
        assert other.key.folder != key.folder
    assert replace(request).key == key


def test_a_plan_goes_through_the_cache(tmp_path):
    built = build_plan(request_for(from_counts(small()), 1))
    cache = EngineCache(tmp_path, b"s" * 32)
    cache.store(built.request.key, built.plan)
    loaded = cache.load(built.request.key)
    assert loaded == built.plan and validity(built.request.flavour, loaded) == built.validity


def test_what_is_no_plan_is_refused():
    flavour = flavour_for()
    with pytest.raises(EngineError, match=r"these 5000 bytes are no plan of tensorrt_rtx \d.*; build it again"):
        validity(flavour, b"x" * 5000)


class SilentRuntime:
    """The real one, as older versions have it: it does not tell whether a plan is valid."""

    def __init__(self, log):
        self.deserialize_cuda_engine = importlib.import_module("tensorrt_rtx").Runtime(log).deserialize_cuda_engine


def test_a_runtime_that_does_not_tell_is_asked_to_load():
    older = replace(flavour_for(), module=SimpleNamespace(Runtime=SilentRuntime))
    assert validity(older, b"x" * 5000) == "not checked, this version does not tell"
    with pytest.raises(
        EngineError, match=r"tensorrt \d.* does not load what it should have built \(5000 bytes\); build it again"
    ):
        validity(replace(older, name="tensorrt"), b"x" * 5000)


def test_what_the_parser_refuses_is_named():
    strange = graph([node("Det", ("x",), ("a",)), node("Reshape", ("a", "s"))], {"s": np.array([1, 1, 1, 1])})
    with pytest.raises(EngineError, match=r"tensorrt_rtx .* cannot take this network: Det .*; use another engine for it"):
        build_plan(request_for(strange))


def test_what_the_builder_refuses_is_named():
    odd = Profile(name="odd", min=(1, 17, 17), opt=(1, 65, 65), max=(1, 129, 129))
    with pytest.raises(EngineError, match=r"cannot build care2d odd .* in f32 for rtx40 \(8.9\): .*[Cc]oncat"):
        build_plan(replace(request_for(small()), profile=odd))


def test_a_profile_that_is_refused_is_named():
    backwards = Profile.model_construct(name="backwards", min=(1, 64, 64), opt=(1, 32, 32), max=(1, 16, 16))
    with pytest.raises(EngineError, match=r"does not take the profile backwards .*MIN<=OPT<=MAX"):
        build_plan(replace(request_for(small()), profile=backwards))


def test_open_channels_are_refused():
    model = onnx.load_from_string(graph([node("Identity")], shape=["n", "c", "y", "x"]))
    with pytest.raises(
        EngineError, match=r"input 'x' of the network has sizes \(-1, -1, -1, -1\), which the recipe care2d .*fixed"
    ):
        build_plan(request_for(model.SerializeToString()))


def test_a_recipe_for_other_axes_is_refused():
    with pytest.raises(EngineError, match="the recipe care2d is for images with axes YX, this network has others"):
        requests(small(n_dim=3), recipe_for(small()), RTX40)
    wrong = replace(request_for(small(n_dim=3)), recipe=recipe_for(small()), profile=recipe_for(small()).profiles[0])
    with pytest.raises(EngineError, match=r"input 'input' of the network has sizes .* does not fill"):
        build_plan(wrong)


def test_a_build_can_be_given_up():
    stop = threading.Event()
    steps = []

    def stop_after_the_first_step(done):
        steps.append(done)
        stop.set()

    with pytest.raises(EngineError, match="the build of rcan2d frames was given up, as asked"):
        build_plan(request_for(small(RCAN)), stop_after_the_first_step, stop)
    assert steps[0] < 1


def test_two_builds_at_once():
    """Each has its own answer; nothing of one comes into the other."""
    jobs = [request_for(small(), 1, precision) for precision in ("f32", "f16")]
    plans = {}
    threads = [threading.Thread(target=lambda job=job: plans.update({job.precision: build_plan(job)})) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plans["f16"].plan) < len(plans["f32"].plan) and plans["f16"].layers == plans["f32"].layers + 2


def test_which_cards_a_flavour_serves():
    flavours = installed_flavours()
    assert "tensorrt_rtx" in [flavour.name for flavour in flavours]
    assert flavour_for((8, 9)).name == flavour_for((12, 0)).name == "tensorrt_rtx"
    assert serves("tensorrt", (9, 0)) and not serves("tensorrt_rtx", (9, 0)) and not serves("tensorrt_rtx", (8, 0))


@pytest.mark.skipif(len(installed_flavours()) > 1, reason="the flavour for data-centre cards is installed too")
def test_a_data_centre_card_needs_the_other_flavour():
    with pytest.raises(EngineUnavailable, match=r"tensorrt_rtx does not serve a card of compute capability 9\.0 .*data-centre"):
        flavour_for((9, 0))


def test_a_flavour_that_does_not_serve_the_target():
    h200 = Target("this", "NVIDIA H200", (9, 0), "13.0")
    with pytest.raises(
        EngineUnavailable, match=r"tensorrt_rtx .* does not serve NVIDIA H200 \(9\.0\); install the other flavour"
    ):
        requests(small(), recipe_for(small()), h200, flavour=flavour_for())
    with pytest.raises(EngineUnavailable, match=r"does not build for new card \(12\.7\); install a newer one"):
        build_plan(replace(request_for(small()), target=Target("rtx60", "new card", (12, 7))))


def test_the_other_flavour_builds_only_where_it_runs():
    enterprise = replace(flavour_for(), name="tensorrt")
    with pytest.raises(
        EngineUnavailable, match=r"tensorrt .* builds only for the card it runs on, not for rtx40; use --for this"
    ):
        requests(small(), recipe_for(small()), RTX40, flavour=enterprise)


def test_weights_beyond_16_bits_are_refused():
    large = graph([node("Conv", ("x", "w"))], {"w": np.full((1, 1, 1, 1), 1e6, np.float32)})
    with pytest.raises(EngineError, match="f16 ends at 65504"):
        tensorrt_graph(large, "f16")


def test_a_request_is_read_once():
    request = request_for(from_counts(small()))
    assert request.graph is request.graph and isinstance(request, PlanRequest)


def test_the_log_is_heard_only_while_one_listens():
    flavour = flavour_for()
    with flavour.log.listening() as first:
        flavour.log.log(flavour.module.ILogger.ERROR, "one")
        flavour.log.log(flavour.module.ILogger.INFO, "two")
        flavour.log.log(flavour.module.ILogger.VERBOSE, "three")
    flavour.log.log(flavour.module.ILogger.ERROR, "four")
    assert [word for word in first if re.search("one|two|three|four", word)] == ["error: one", "two"]
