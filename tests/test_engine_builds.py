"""Engines built beside the restoration: by a real process, swapped in while volumes come, told of where they fail."""

import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
from bare_clients import PACKAGE, BareHook, image, options, order, status, until
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import SimulatedTensorRt, simulated_flavour
from tiny_packages import write_smoothing_package

from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.tensorrt import card as tensorrt_card
from live_restore.engines.tensorrt.card import Card
from live_restore.engines.tensorrt.plans import to_build
from live_restore.engines.tensorrt.recipe import own_recipes_folder
from live_restore.errors import EngineError
from live_restore.models.package import open_package
from live_restore.server import Server
from live_restore.serving.engine_builds import EngineBuilds, build_command, takes_minutes
from live_restore.serving.models import ModelChoice, Models

# A build that says where it is, and goes on when a file appears: until then volumes are restored by the other engine.
WAITING = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "begun").write_text("", encoding="utf-8")
while not (folder / "go").exists():
    time.sleep(0.01)
(folder / "built").write_text("", encoding="utf-8")
"""
FAILING = "import sys; print('the card has no memory left; free some'); sys.exit(3)"


def python(program, *arguments):
    return lambda choice: [sys.executable, "-c", program, *map(str, arguments)]


@pytest.fixture
def smooth(tmp_path):
    """A model whose engine is to be built before it can be opened by "auto"."""
    return ModelChoice("*", write_smoothing_package(tmp_path / "smooth").path)


def not_built(tmp_path):
    return lambda choice: not (tmp_path / "built").exists()


def row(models, state):
    return next((each for each in models.described() if each["state"] == state), None)


def test_the_restoration_begins_with_another_engine_and_goes_on_with_the_one_that_was_built(tmp_path, smooth):
    builds = EngineBuilds(not_built(tmp_path), python(WAITING, tmp_path))
    begun = builds.at_once([smooth])
    assert [choice.engine for choice in begun] == ["openvino"]
    models = Models(begun)
    builds.start(models)
    until((tmp_path / "begun").exists)
    assert row(models, "building")["why"].startswith("the engine for this card is being built, which takes minutes")
    pixels = image()[None, None]
    before = models.of("GFP").restorer.restore(pixels).pixels
    assert models.of("GFP").choice.engine == "openvino"
    (tmp_path / "go").touch()
    until(lambda: models.of("GFP").choice.engine == "auto")
    np.testing.assert_allclose(models.of("GFP").restorer.restore(pixels).pixels, before, rtol=1e-2)
    builds.stop()
    assert [each["state"] for each in models.described()] == ["ready"]
    models.close()


def test_an_engine_that_cannot_be_built_is_told_of_and_the_other_one_goes_on(smooth):
    builds = EngineBuilds(lambda choice: True, python(FAILING))
    models = Models(builds.at_once([smooth]))
    builds.start(models)
    failed = until(lambda: row(models, "failed"))
    assert failed["why"] == (
        "the engine was not built: the card has no memory left; free some; the model goes on with the one it has"
    )
    assert models.of("GFP").choice.engine == "openvino"
    assert models.of("GFP").restorer.restore(image()[None, None]).pixels.shape == (1, 1, 32, 40)
    builds.stop()
    models.close()


def test_a_build_that_cannot_even_begin(smooth, tmp_path):
    builds = EngineBuilds(lambda choice: True, lambda choice: [str(tmp_path / "no such program")])
    models = Models(builds.at_once([smooth]))
    with pytest.raises(EngineError, match=r"the engine was not built: .*no such program"):
        builds.before_swap(models, smooth)
    assert "no such program" in row(models, "failed")["why"]
    models.close()


def test_a_build_without_a_word(smooth):
    builds = EngineBuilds(lambda choice: True, python("raise SystemExit(4)"))
    models = Models(builds.at_once([smooth]))
    with pytest.raises(EngineError, match="the engine was not built: the build ended with code 4; the model goes on"):
        builds.before_swap(models, smooth)
    models.close()


def test_the_build_leaves_the_processor_to_everything_else(tmp_path, smooth):
    builds = EngineBuilds(not_built(tmp_path), python(WAITING, tmp_path))
    models = Models(builds.at_once([smooth]))
    builds.start(models)
    until((tmp_path / "begun").exists)
    ours = psutil.Process()
    (child,) = [each for each in ours.children() if str(tmp_path) in each.cmdline()]
    until(lambda: child.nice() != ours.nice())
    assert child.nice() == getattr(psutil, "IDLE_PRIORITY_CLASS", 19)
    builds.stop()
    models.close()


def test_stopping_ends_the_build(tmp_path, smooth):
    builds = EngineBuilds(not_built(tmp_path), python(WAITING, tmp_path))
    models = Models(builds.at_once([smooth]))
    builds.start(models)
    until((tmp_path / "begun").exists)
    builds.stop()
    assert not (tmp_path / "built").exists()
    assert models.of("GFP").choice.engine == "openvino"
    with pytest.raises(EngineError, match="the restore process ends, so no engine is built"):
        builds.before_swap(models, smooth)
    models.close()


def test_a_model_that_was_changed_meanwhile_stays(tmp_path, smooth):
    builds = EngineBuilds(not_built(tmp_path), python(WAITING, tmp_path))
    models = Models(builds.at_once([smooth]))
    builds.start(models)
    until((tmp_path / "begun").exists)
    models.swap(replace(smooth, engine="identity", precision="f32"))
    (tmp_path / "go").touch()
    until((tmp_path / "built").exists)
    builds._thread.join(20)
    assert models.of("GFP").choice.engine == "identity"
    builds.stop()
    models.close()


def test_what_is_asked_for_by_name_is_not_replaced(smooth):
    builds = EngineBuilds(lambda choice: True, python(FAILING))
    named = replace(smooth, engine="openvino")
    assert builds.at_once([named]) == [named]
    builds.start(None)  # there is nothing to do
    builds.stop()


def test_nothing_to_build_here(smooth):
    builds = EngineBuilds()
    assert builds.at_once([smooth]) == [smooth]
    builds.before_swap(None, smooth)
    builds.stop()


def test_the_process_that_builds(smooth):
    words = ["-m", "live_restore.cli", "build", str(smooth.package), "--for", "this"]
    assert build_command(smooth)[1:] == words
    assert build_command(replace(smooth, precision="f32"))[1:] == [*words, "--precision", "f32"]


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
def test_which_engines_take_minutes(tmp_path, smooth, monkeypatch, flavour):
    """TensorRT for data-centre cards, as long as a plan is missing; never what another engine is to run."""
    cuda = SimulatedCuda()
    simulated = simulated_flavour(SimulatedTensorRt(cuda, lambda plan: plan))
    simulated.name, simulated.builds_without_card = flavour, flavour == "tensorrt_rtx"
    card = Card(cuda, simulated, EngineCache(tmp_path / "cache", b"of this machine"))
    monkeypatch.setattr(tensorrt_card, "this_card", lambda: card)
    slow = flavour == "tensorrt"
    assert takes_minutes(smooth) is slow
    assert takes_minutes(replace(smooth, engine="tensorrt", precision="f32")) is slow
    assert not takes_minutes(replace(smooth, engine="openvino"))
    if slow:
        for request in to_build(from_counts(open_package(smooth.package).onnx()), "auto", card):
            card.cache.store(request.key, b"a plan")
        assert not takes_minutes(smooth)


def test_what_cannot_be_built_is_left_to_whoever_opens_it(tmp_path, smooth, monkeypatch):
    """No package, a recipe that is none: the choice of an engine says so, or takes another one."""
    cuda = SimulatedCuda()
    card = Card(cuda, simulated_flavour(SimulatedTensorRt(cuda, lambda plan: plan)), EngineCache(tmp_path / "cache", b"mine"))
    card.flavour.name, card.flavour.builds_without_card = "tensorrt", False
    monkeypatch.setattr(tensorrt_card, "this_card", lambda: card)
    assert takes_minutes(smooth)
    assert not takes_minutes(replace(smooth, package=tmp_path / "nowhere"))
    monkeypatch.setenv("LIVE_RESTORE_CONFIG", str(tmp_path))
    own_recipes_folder().mkdir()
    (own_recipes_folder() / "mine.toml").write_text("nonsense", encoding="utf-8")
    assert not takes_minutes(smooth)


# Ends with 2 where another one runs beside it, else with 3.
ALONE = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
own = folder / str(os.getpid())
own.touch()
for _ in range(50):
    if len(list(folder.iterdir())) > 1:
        sys.exit(2)
    time.sleep(0.01)
own.unlink()
sys.exit(3)
"""


def test_one_engine_is_built_at_a_time(tmp_path, smooth):
    """A swap waits for the build that is under way."""
    running = tmp_path / "running"
    running.mkdir()
    builds = EngineBuilds(lambda choice: True, python(ALONE, running))
    models = Models(builds.at_once([smooth]))
    builds.start(models)
    until(lambda: list(running.iterdir()))
    with pytest.raises(EngineError, match="the build ended with code 3"):
        builds.before_swap(models, replace(smooth, channel="GFP"))
    assert "the build ended with code 3" in until(lambda: row(models, "failed"))["why"]
    assert {each["why"].partition(";")[0] for each in models.described() if each["state"] == "failed"} == {
        "the engine was not built: the build ended with code 3"
    }
    builds.stop()
    models.close()


# --- in the server


def test_the_server_goes_on_while_an_engine_is_built(tmp_path, smooth):
    builds = EngineBuilds(not_built(tmp_path), python(WAITING, tmp_path))
    asked = options(tmp_path, engine="auto", package=smooth.package)
    with Server(replace(asked, models=(smooth,)), builds) as server, BareHook(server.address, results="float32") as hook:
        until((tmp_path / "begun").exists)
        hook.frame(image(), time_point=0)
        hook.back(1)
        assert {model["state"] for model in status(server.address)["models"]} == {"ready", "building"}
        (tmp_path / "go").touch()
        until(lambda: [model["state"] for model in status(server.address)["models"]] == ["ready"])
        hook.frame(image(), time_point=1)
        assert [result.provenance["model"] for result in hook.back(2)] == ["smoothing 3x3"] * 2
        hook.end()


def test_a_swap_waits_for_its_engine_and_says_if_there_is_none(tmp_path, smooth):
    failing = EngineBuilds(lambda choice: choice.engine == "openvino", python(FAILING))
    with Server(options(tmp_path), failing) as server, BareHook(server.address):
        refused = order(server.address, "swap", 60, package=str(PACKAGE), engine="openvino").refused
        assert "the engine was not built: the card has no memory left" in refused
        ready, failed = status(server.address)["models"]
        assert (ready["state"], failed["state"]) == ("ready", "failed")
