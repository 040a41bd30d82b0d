"""The TensorRT engine: everything up to the card for real, and a simulated card that runs the graph by OpenVINO."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import SimulatedTensorRt, run_by_openvino, simulated_flavour
from small_graphs import graph, image, net_graph, node

from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.engine import open_engine, what_is_offered
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.tensorrt import engine as tensorrt_engine
from live_restore.engines.tensorrt import plans as tensorrt_plans
from live_restore.engines.tensorrt.build import PlanRequest, tensorrt_graph
from live_restore.engines.tensorrt.card import Card
from live_restore.engines.tensorrt.engine import TensorRtEngine
from live_restore.engines.tensorrt.flavour import installed_flavours
from live_restore.engines.tensorrt.plans import Plans
from live_restore.engines.tensorrt.recipe import exactly, recipe_for
from live_restore.engines.tensorrt.targets import target_named, target_of
from live_restore.errors import EngineError, EngineMismatch, EngineUnavailable

CARE = net_graph("care", n_dim=2, first_filters=4)
COUNTS = from_counts(CARE)
RANGES = np.array([[90.0], [400.0]], np.float32), np.array([[100.0], [500.0]], np.float32)  # low and span


def frame(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 65536, shape, np.uint16)


def simulated_card(folder, onnx, precision="f32", order="late"):
    """A card whose plans stand for the graph that this network is built as; the cache is this machine's own."""
    cuda = SimulatedCuda(order)
    module = SimulatedTensorRt(cuda, lambda plan: tensorrt_graph(onnx, precision))
    return Card(cuda, simulated_flavour(module), EngineCache(folder / "cache", secret=b"of this machine"))


def request(card, onnx, precision, shape):
    recipe = recipe_for(onnx)
    profile = recipe.profile_for(shape[0], shape[2:]) or exactly(shape[0], shape[2:])
    return PlanRequest(onnx, recipe, profile, precision, target_of(card.cuda.device()), card.flavour)


@pytest.fixture
def opened(tmp_path):
    """Open an engine on a simulated card for which there are plans in the cache already."""

    def open_it(onnx, precision="f32", order="late"):
        card = simulated_card(tmp_path, onnx, precision, order)
        recipe, target = recipe_for(onnx), target_of(card.cuda.device())
        for profile in recipe.profiles:
            card.cache.store(PlanRequest(onnx, recipe, profile, precision, target, card.flavour).key, b"a plan")
        return TensorRtEngine(onnx, precision, card=card), card

    return open_it


# --- results


@pytest.mark.parametrize("order", ["late", "soon", 1, 2])
@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "uint16"])
def test_camera_counts_go_up_as_bytes_and_come_back_as_counts(opened, rounded, order):
    onnx = from_counts(CARE, rounded=rounded)
    engine, card = opened(onnx, order=order)
    batches = [(frame(1, 1, 48, 64, seed=i), *RANGES) for i in range(5)]
    wanted = [run_by_openvino(onnx, *batch)[-1] for batch in batches]
    with engine:
        many = [result[-1].copy() for result in engine.infer_many(batches)]
        alone = [engine.infer(*batch)[-1] for batch in batches]
    for found, one, want in zip(many, alone, wanted, strict=True):
        assert found.dtype == one.dtype == (np.uint16 if rounded else np.float32)
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1 if rounded else 0.1)
        np.testing.assert_array_equal(one, found)
    uploads = [n_bytes for call, n_bytes in card.cuda.calls if call == "upload"]
    assert uploads[:3] == [48 * 64 * 2, 8, 8]
    assert card.cuda.held == {}


def test_float_batches_and_batches_of_several(opened):
    engine, _ = opened(CARE)
    with engine:
        for batch in (image(1, 1, 64, 64), image(3, 1, 64, 80), image(1, 1, 16, 16)):
            wanted = run_by_openvino(CARE, batch)[0]
            np.testing.assert_allclose(engine.infer(batch)[0], wanted, atol=1e-6)


def test_volumes(opened):
    onnx = from_counts(net_graph("care", n_dim=3, first_filters=4))
    engine, _ = opened(onnx)
    batch = frame(1, 1, 8, 32, 32), *RANGES
    with engine:
        np.testing.assert_allclose(engine.infer(*batch)[0], run_by_openvino(onnx, *batch)[0], rtol=1e-5, atol=0.1)


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_sixteen_bits(opened, precision):
    engine, _ = opened(COUNTS, precision)
    batch = frame(1, 1, 64, 64), *RANGES
    with engine:
        assert engine.spec.precision == precision
        found, wanted = engine.infer(*batch)[0], run_by_openvino(COUNTS, *batch)[0]
    # the simulated card computes the 16-bit graph in float32, so only the weights are rounded
    assert np.abs(found - wanted).max() < 0.02 * np.ptp(wanted)


def test_results_belong_to_the_caller(opened):
    engine, _ = opened(CARE)
    with engine:
        first = engine.infer(image(1, 1, 64, 64))[0]
        kept = first.copy()
        engine.infer(image(1, 1, 64, 64, seed=1))
        np.testing.assert_array_equal(first, kept)


def test_batches_of_any_layout_and_read_only(opened):
    engine, _ = opened(COUNTS)
    counts = frame(1, 1, 64, 64)
    turned = np.ascontiguousarray(counts.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    turned.flags.writeable = False
    with engine:
        np.testing.assert_array_equal(engine.infer(turned, *RANGES)[0], engine.infer(counts, *RANGES)[0])


# --- the door


def test_what_does_not_fit_is_refused_before_the_card_is_asked(opened):
    engine, card = opened(COUNTS)
    card.cuda.calls.clear()
    with pytest.raises(EngineMismatch, match="1 arrays were given to a graph with 3 inputs"):
        engine.infer(frame(1, 1, 64, 64))
    with pytest.raises(EngineMismatch, match=r"is float32; this graph takes uint16"):
        engine.infer(image(1, 1, 64, 64), *RANGES)
    with pytest.raises(EngineMismatch, match="2 channels; the graph takes 1"):
        engine.warm_up((1, 2, 64, 64), (2, 1), (2, 1))
    assert card.cuda.calls == []


def test_a_closed_engine_stays_closed(opened):
    engine, card = opened(CARE)
    engine.infer(image(1, 1, 64, 64))
    engine.close()
    engine.close()
    assert card.cuda.held == {}
    for used in (
        lambda: engine.infer(image(1, 1, 64, 64)),
        lambda: engine.infer_many([]),
        lambda: engine.warm_up((1, 1, 64, 64)),
    ):
        with pytest.raises(EngineError, match="this tensorrt engine is closed; open a new one"):
            used()


def test_what_is_no_graph(tmp_path):
    with pytest.raises(EngineError, match="these 4 bytes are no ONNX graph"):
        TensorRtEngine(b"junk", "f32", card=simulated_card(tmp_path, CARE))


def test_a_network_without_a_recipe(tmp_path):
    flat = graph([node("Relu")], n_dim=1)
    with pytest.raises(EngineError, match="there is no build recipe for a network with 3 axes without attention"):
        TensorRtEngine(flat, "f32", card=simulated_card(tmp_path, CARE))


def test_int8_is_not_built(tmp_path):
    with pytest.raises(EngineUnavailable, match="plans are not built in int8; use f32, f16, bf16"):
        Plans(CARE, "int8", simulated_card(tmp_path, CARE))


def test_the_spec_names_flavour_version_card_and_capability(opened):
    engine, _ = opened(CARE)
    assert str(engine.spec) == "tensorrt 1.7.1.116 (tensorrt_rtx), f32, on Simulated card (compute capability 8.9)"


OFFERS = [
    ("ada", (8, 9), ("f32", "f16", "bf16"), "int8: plans are built in f32, f16 and bf16"),
    ("turing", (7, 5), ("f32", "f16"), "bf16: cards compute it from compute capability 8.0 on"),
]


@pytest.mark.parametrize(("capability", "precisions", "why_not"), [row[1:] for row in OFFERS], ids=[row[0] for row in OFFERS])
def test_what_is_offered_depends_on_the_card(tmp_path, capability, precisions, why_not):
    card = simulated_card(tmp_path, CARE)
    device = replace(card.cuda.device(), capability=capability)
    card = replace(card, cuda=SimpleNamespace(device=lambda: device))
    found = tensorrt_engine._offer(card)
    assert (found.precisions, found.why_not, found.free_bytes) == (precisions, why_not, 1 << 33)


# --- plans: cache, build, refusal


def needs_tensorrt():
    flavours = installed_flavours()
    if not flavours:
        pytest.skip("TensorRT is not installed: pip install tensorrt-rtx")
    return flavours[0]


def test_without_a_plan_one_is_built_and_kept(tmp_path, monkeypatch):
    """The plan is built by the real builder; the simulated card then takes it for what it stands for."""
    flavour = needs_tensorrt()
    card = simulated_card(tmp_path, COUNTS, "f16")
    card.flavour.log, building = flavour.log, card.flavour.module
    for name in vars(flavour.module):
        if not hasattr(building, name) and not name.startswith("_"):
            setattr(building, name, getattr(flavour.module, name))
    # what the builder asks of the runtime when it is done is asked of the real one
    monkeypatch.setattr("live_restore.engines.tensorrt.build.validity", lambda *_: "not asked")
    batch = frame(1, 1, 64, 64), *RANGES
    with TensorRtEngine(COUNTS, "f16", card=card) as engine:
        first = engine.infer(*batch)[0]
    key = request(card, COUNTS, "f16", (1, 1, 64, 64)).key
    assert len(card.cache.load(key)) > 100_000
    written = card.cache.path(key).stat().st_mtime_ns
    with TensorRtEngine(COUNTS, "f16", card=replace(card, cuda=card.cuda)) as engine:
        np.testing.assert_array_equal(engine.infer(*batch)[0], first)
    assert card.cache.path(key).stat().st_mtime_ns == written


@pytest.fixture
def built(monkeypatch):
    """Count the builds, each of which takes no time."""
    requested = []

    def build(asked):
        requested.append(asked)
        return SimpleNamespace(plan=b"a new plan")

    monkeypatch.setattr(tensorrt_plans, "build_plan", build)
    return requested


@pytest.mark.parametrize("how", ["refused by the runtime", "not to be loaded", "changed since", "of another machine", "none"])
def test_a_plan_that_cannot_be_used_is_built_again(tmp_path, built, caplog, how):
    card = simulated_card(tmp_path, CARE)
    key = request(card, CARE, "f32", (1, 1, 64, 64)).key
    if how != "none":
        theirs = EngineCache(card.cache.root, b"of another machine") if how == "of another machine" else card.cache
        theirs.store(key, b"an old plan")
    if how == "refused by the runtime":
        card.flavour.module.refused[b"an old plan"] = 1
    if how == "not to be loaded":
        card.flavour.module.unreadable.add(b"an old plan")
    if how == "changed since":
        path = card.cache.path(key)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    caplog.set_level("INFO", "live_restore.engines.tensorrt.plans")
    with TensorRtEngine(CARE, "f32", card=card) as engine:
        engine.infer(image(1, 1, 64, 64))
        engine.infer(image(1, 1, 32, 64))
    assert [asked.key for asked in built] == [key]  # one profile holds both sizes
    assert card.cache.load(key) == b"a new plan"
    said = {
        "refused by the runtime": "version mismatch",
        "not to be loaded": "magicTag",
        "of another machine": "another machine",
    }
    assert said.get(how, "") in caplog.text


def test_a_plan_of_another_card_is_not_run(tmp_path, built, caplog):
    card = simulated_card(tmp_path, CARE)
    key = request(card, CARE, "f32", (1, 1, 64, 64)).key
    card.cache.store(replace(key, device="NVIDIA H200", capability="9.0"), b"an old plan")
    caplog.set_level("INFO", "live_restore.engines.tensorrt.plans")
    with TensorRtEngine(CARE, "f32", card=card) as engine:
        engine.infer(image(1, 1, 64, 64))
    assert len(built) == 1
    assert "the engine was built for NVIDIA H200 (9.0), driver 13.0" in caplog.text


def test_a_plan_built_ahead_for_the_generation_is_run(tmp_path, built):
    card = simulated_card(tmp_path, CARE)
    wanted = request(card, CARE, "f32", (1, 1, 64, 64))
    card.cache.store(replace(wanted, target=target_named("rtx40")).key, b"built ahead")
    with TensorRtEngine(CARE, "f32", card=card) as engine:
        engine.infer(image(1, 1, 64, 64))
    assert built == []


def test_a_shape_beyond_the_recipe_has_a_plan_of_its_own(tmp_path, built):
    card = simulated_card(tmp_path, CARE)
    with TensorRtEngine(CARE, "f32", card=card) as engine:
        engine.warm_up((1, 1, 8, 2400))
    assert [str(asked.profile) for asked in built] == ["exact 1x8x2400"]


def test_what_the_card_compiled_is_kept_beside_the_plan(tmp_path, built):
    card = simulated_card(tmp_path, CARE)
    with TensorRtEngine(CARE, "f32", card=card) as engine:
        engine.warm_up((1, 1, 64, 64))
        engine.infer(image(1, 1, 32, 32))
    kept = [entry.key.flavour for entry in card.cache.entries()]
    assert sorted(kept) == ["tensorrt_rtx", "tensorrt_rtx-compiled"]
    with TensorRtEngine(CARE, "f32", card=card) as engine:
        engine.infer(image(1, 1, 64, 64))
        assert b"32, 32" in card.flavour.module.contexts[-1].config.cache.compiled


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tmp_path, built, caplog):
    card = simulated_card(tmp_path, CARE)
    card.cache.root.write_text("a file where a folder should be", encoding="utf-8")
    with TensorRtEngine(CARE, "f32", card=card) as engine:
        engine.infer(image(1, 1, 64, 64))
    assert "cannot be kept in" in caplog.text


# --- with a card


@pytest.mark.gpu
def test_on_a_real_card_the_results_are_those_of_the_processor():
    try:
        offer = what_is_offered("tensorrt")
    except EngineUnavailable as refused:
        pytest.skip(str(refused))
    batches = [(frame(1, 1, 256, 256, seed=i), *RANGES) for i in range(6)]
    wanted = [run_by_openvino(COUNTS, *batch)[0] for batch in batches]
    for precision in offer.precisions:
        with open_engine("tensorrt", COUNTS, precision) as engine:
            for found, want in zip(engine.infer_many(batches), wanted, strict=True):
                assert np.abs(found[0] - want).max() < (1e-4 if precision == "f32" else 2e-2) * np.ptp(want)
