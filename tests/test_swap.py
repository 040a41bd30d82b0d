"""A model is changed while volumes come in: loaded beside, switched between volumes, the old one kept if anything fails."""

from threading import Thread

import numpy as np
import pytest
from bare_clients import PACKAGE, BareHook, image, options, order, settled, status, until
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.errors import ModelError
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.models.package import open_package
from live_restore.records.runs import RunFolder, read_journal
from live_restore.restorer import Restorer
from live_restore.run_models import models_of, open_used
from live_restore.server import ModelChoice, Server
from live_restore.serving.models import Models
from live_restore.wire.messages import Command, Hello
from live_restore.wire.sockets import Caller


def smooth(tmp_path, n_dim=2, channels=1):
    return write_smoothing_package(tmp_path / f"smooth{n_dim}{channels}", n_dim, channels).path


def test_a_model_is_changed_between_volumes(tmp_path):
    package = smooth(tmp_path)
    with Server(options(tmp_path)) as server, BareHook(server.address, results="float32") as hook:
        hook.frame(image(), time_point=0)
        hook.back(1)
        answer = order(server.address, "swap", 60, channel="*", package=str(package), engine="openvino", precision="f32")
        assert (answer.refused, answer.said["model"], answer.said["state"]) == ("", "smoothing 3x3", "ready")
        hook.frame(image(), time_point=1)
        before, after = hook.back(2)
        (model,) = status(server.address)["models"]
        hook.end()
    assert (before.provenance["model"], after.provenance["model"]) == ("CARE 2D demo", "smoothing 3x3")
    assert model["model"] == "smoothing 3x3"
    np.testing.assert_allclose(before.pixels[0], image(), rtol=1e-4)
    assert after.pixels.std() < 0.5 * before.pixels.std()
    folder = tmp_path / "records" / "run"
    assert [line["said"]["provenance"]["model"] for line in read_journal(folder).values()] == ["CARE 2D demo", "smoothing 3x3"]
    (event,) = [each for each in RunFolder.open(folder).events() if each["event"] == "model changed"]
    assert event["loaded"]["model"] == "smoothing 3x3"
    (used,) = models_of(RunFolder.open(folder), {})  # what was left out is restored by the model that is at work now
    assert (used.package, used.engine, used.precision) == (package.absolute(), "openvino", "f32")
    assert open_used(used).onnx_sha256 == after.provenance["sha256"]


def test_a_channel_gets_a_model_of_its_own(tmp_path):
    with Server(options(tmp_path, channel="GFP")) as server, BareHook(server.address) as hook:
        hook.frame(image(), channel="DAPI")
        settled(server.address, without_model=1)
        order(server.address, "swap", 60, channel="DAPI", package=str(smooth(tmp_path)), engine="identity")
        hook.frame(image(), channel="DAPI", time_point=1)
        settled(server.address, restored=1)
        assert {model["channel"] for model in status(server.address)["models"]} == {"GFP", "DAPI"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"package": "nowhere"}, "nowhere"),
        ({"package": str(PACKAGE), "engine": "abacus"}, "there is no engine 'abacus'"),
        ({"package": "two"}, "every channel is restored on its own"),
        ({"package": "3d"}, "restores z-stacks"),
    ],
    ids=["missing", "engine", "channels", "shape"],
)
def test_the_old_model_stays_if_anything_fails(tmp_path, wrong, why):
    made = {"two": lambda: smooth(tmp_path, 2, 2), "3d": lambda: smooth(tmp_path, 3)}
    package = str(made[wrong["package"]]()) if wrong["package"] in made else wrong["package"]
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook:
        hook.frame(image())
        settled(server.address, restored=1)
        assert why in order(server.address, "swap", 60, **{**wrong, "package": package}).refused
        hook.frame(image(), time_point=1)
        settled(server.address, restored=2)
        ready, failed = status(server.address)["models"]
        assert (ready["state"], ready["model"]) == ("ready", "CARE 2D demo")
        assert failed["state"] == "failed" and why in failed["why"]
        warned = until(
            lambda: [w for w in status(server.address, "run")["warnings"] if w.startswith("the model was not changed")]
        )
        assert why in warned[0]
        order(server.address, "swap", 60, package=str(PACKAGE), engine="identity")
        assert [model["state"] for model in status(server.address)["models"]] == ["ready"]
        assert not [w for w in status(server.address, "run")["warnings"] if w.startswith("the model was not changed")]


def test_frames_go_on_while_a_model_is_loaded(tmp_path):
    with Server(options(tmp_path)) as server, BareHook(server.address, results="uint16") as hook:
        hook.frame(image(shape=(64, 64)))
        hook.back(1)
        answers = []
        order_it = Thread(
            target=lambda: answers.append(
                order(server.address, "swap", 60, package=str(PACKAGE), engine="openvino", precision="f32")
            )
        )
        order_it.start()
        number = 1
        while order_it.is_alive():
            hook.frame(image(shape=(64, 64)), time_point=number)
            number += 1
            hook.back(number)
        hook.frame(image(shape=(64, 64)), time_point=number)
        engines = [restored.provenance["engine"].split()[0] for restored in hook.back(number + 1)]
    assert not answers[0].refused
    assert engines[0] == "identity" and engines[-1] == "openvino" and engines == sorted(engines)


def test_one_model_is_loaded_at_a_time(tmp_path):
    with Server(options(tmp_path)) as server, Caller(server.address) as caller:
        caller.ask(Hello("command"), 10)
        for _ in range(2):
            caller.send(Command("swap", {"package": str(PACKAGE), "engine": "openvino", "precision": "f32"}))
        answers = []
        until(lambda: answers.extend(caller.receive(100)) or len(answers) == 2)
    assert sorted(answer.refused for answer in answers) == ["", "another model is being loaded; try again when it is ready"]


def test_warming_up_moves_no_rolling_range(tmp_path):
    package = open_package(smooth(tmp_path))
    with Restorer(package, engine="identity", mode="rolling") as restorer:
        restorer.restore(image()[None, None], movie="m")
        expected = restorer.restore(image(1)[None, None], movie="m").intensity.high[0]
        restorer.reset()
        restorer.restore(image()[None, None], movie="m")
        restorer.warm_up((3, 32, 40))
        assert restorer.restore(image(1)[None, None], movie="m").intensity.high[0] == expected


def test_models_by_channel(tmp_path):
    choices = [ModelChoice("*", PACKAGE, "identity", "f32"), ModelChoice("GFP", smooth(tmp_path), "identity", "f32")]
    models = Models(choices)
    assert models.of("GFP").restorer.package.name == "smoothing 3x3"
    assert models.of("anything").restorer.package.name == "CARE 2D demo"
    assert models.seen("GFP", (1, 8, 8)) and not models.seen("GFP", (1, 8, 8))
    models.close()
    assert models.of("GFP") is None


def test_what_cannot_be_opened_opens_nothing(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        Models([ModelChoice("GFP", PACKAGE, "identity"), ModelChoice("*", tmp_path / "nowhere")])


def test_a_frozen_2d_model_takes_slabs(tmp_path):
    rule = Normalisation(mode="frozen", frozen=FrozenRange(low=(100,), high=(500,)))
    package = write_smoothing_package(tmp_path / "frozen", 2, facts=smoothing_facts(normalisation=rule)).path
    for path, takes in ((package, True), (PACKAGE, False), (smooth(tmp_path, 3), False)):
        models = Models([ModelChoice("*", path, "identity")])
        assert models.of("x").takes_slabs == takes
        models.close()


def test_what_was_at_work_is_told_after_all_were_closed(tmp_path):
    models = Models([ModelChoice("*", PACKAGE, "identity")])
    models.swap(ModelChoice("GFP", smooth(tmp_path), "identity"))
    before = models.described()
    assert [row["model"] for row in before] == ["CARE 2D demo", "smoothing 3x3"]
    models.close()
    models.close()
    assert models.described() == before  # the record thread may ask this late
    assert models.of("GFP") is None
