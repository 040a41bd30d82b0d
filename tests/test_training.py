"""Training from pairs to package: what is served is what was trained, for every network, also begun from another one."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
import torch
from pair_folders import cells, pair, write
from tiny_packages import smoothing_facts, write_smoothing_package
from training_folders import Heard, pairs_folder, run, same, tiny, weights_of

from live_restore.cli import main
from live_restore.errors import PairError, TrainingError
from live_restore.evaluation.evaluate import evaluate
from live_restore.models.facts import Architecture
from live_restore.models.foreign.importing import import_model
from live_restore.models.nets import build_net
from live_restore.models.package import open_package
from live_restore.restorer import Restorer
from live_restore.training.arithmetic import set_threads
from live_restore.training.checkpoint import folder_of
from live_restore.training.material import choose, prepare
from live_restore.training.members import Ensemble
from live_restore.training.options import TrainingOptions
from live_restore.training.presets import preset
from live_restore.training.start import build_start, check_trainable, start_from


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    set_threads(1)
    return pairs_folder(tmp_path_factory.mktemp("pairs") / "dish")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A whole training, uninterrupted: what came of it, and what was heard."""
    heard = Heard()
    outcome = run(folder, tmp_path_factory.mktemp("trained") / "cells.bioimageio", listener=heard)
    return outcome, heard


# --- from pairs to package


def test_a_training_ends_with_a_package_that_restores_better_than_raw(trained, folder):
    outcome, heard = trained
    package, scored = outcome.package, outcome.evaluation
    assert scored.mean["gain_db"] > 1
    assert [score.name for score in scored.scores] == ["p0", "p1"]
    assert package.facts.scores["psnr_db"] == pytest.approx(scored.mean["psnr_db"])
    assert package.facts.training_pairs_sha256 == choose([folder], tiny()).sha256()
    assert {"training.toml", "history.json", "evaluation.json", "report.html"} <= {path.name for path in package.path.iterdir()}
    assert not folder_of(package.path).exists()
    assert [path.name for path in package.path.parent.iterdir()] == [package.path.name]
    history = json.loads((package.path / "history.json").read_text(encoding="utf-8"))
    assert history["entries"][-1]["step"] == 40
    assert "CARE 2D on CPU, 1 threads, f32: 4 pairs to learn from, 2 held out; batches of 4 x 32 x 32" in heard.text()


def test_no_position_is_on_both_sides(folder):
    chosen = choose([folder], tiny(pairs={"held_out": ()}))
    sides = [{one.position for one in side} for side in (chosen.train, chosen.held_out)]
    assert not sides[0] & sides[1]
    assert all(sides)


def test_what_is_served_is_what_was_trained(trained, folder):
    """Counts to counts: OpenVINO through the restorer against the torch network and the formula written out."""
    package = trained[0].package
    net = build_net(package.facts.architecture.kind, package.facts.architecture.options)
    net.load_state_dict(weights_of(package))
    low = tifffile.imread(folder / "low" / "p0.tif")
    p2, p998 = np.percentile(low, (2, 99.8))
    with torch.inference_mode():
        scaled = torch.from_numpy(((low - p2) / (p998 - p2)).astype(np.float32))[None, None]
        expected = net.eval()(scaled)[0, 0].numpy() * (p998 - p2) + p2
    with Restorer(package, engine="openvino", precision="f32") as restorer:
        found = restorer.restore(low[None, None]).pixels[0, 0]
    assert np.abs(found - expected).max() < 1e-4 * (p998 - p2)


def test_the_saved_options_train_the_same_network_again(trained, folder, tmp_path):
    first = trained[0].package
    options = TrainingOptions.from_file(first.path / "training.toml")
    assert options == tiny()
    again = run(folder, tmp_path / "again", options, scored=False).package
    assert again.onnx_sha256 == first.onnx_sha256


def test_held_out_images_that_are_too_small(tmp_path):
    images = {f"p{place}": pair(seed=place, field=cells(place, (64, 80))) for place in range(4)}
    images["p0"] = tuple(image[:3] for image in images["p0"])
    folder = write(tmp_path / "dish", images)
    options = tiny(net={"depth": 2}, pairs={"held_out": ("p0",)})
    with pytest.raises(PairError, match=r"held-out pair 'p0' is \[3, 80\] large; every side needs 4 pixels or more"):
        prepare(choose([folder], options), options)


KINDS = {
    "probabilistic": {"net": {"probabilistic": True}, "fit": {"loss": "laplace"}},
    "folded": {"net": {"entry": 2, "skip_kernel": 5}},
    "rcan 2D": {"kind": "rcan"},
    "care 3D": {"n_dim": 3},
    "rcan 3D": {"kind": "rcan", "n_dim": 3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_trains_and_is_served_as_it_was_trained(kind, folder, tmp_path):
    options = tiny(4, **KINDS[kind])
    if options.network.n_dim == 3:
        folder = pairs_folder(tmp_path / "stacks", 3, (8, 48, 48))
    package = run(folder, tmp_path / "net", options, scored=kind == "rcan 3D").package
    facts, image = package.facts, package.test_input()
    net = build_net(facts.architecture.kind, facts.architecture.options)
    net.load_state_dict(weights_of(package))
    with torch.inference_mode():
        expected = net.eval()(torch.from_numpy(image.copy())).numpy()
    assert package.test_output() == pytest.approx(expected, abs=1e-5)
    with Restorer(package, engine="openvino", precision="f32") as restorer:
        assert restorer.choice is not None
    assert facts.probabilistic == (kind == "probabilistic")
    assert facts.geometry.n_dim == options.network.n_dim


def test_an_ensemble_gives_the_mean_and_how_far_it_disagrees(folder, tmp_path):
    outcome = run(folder, tmp_path / "both", tiny(6, fit={"members": 2}), scored=False)
    package = outcome.package
    assert package.facts.probabilistic
    assert package.facts.architecture.options["members"] == 2
    assert {entry.member for entry in outcome.history} == {0, 1}
    one = [run(folder, tmp_path / f"one{seed}", tiny(6, fit={"seed": seed}), scored=False).package for seed in (0, 1000)]
    image = torch.from_numpy(package.test_input().copy())
    nets = []
    for member in one:
        nets.append(build_net("care", member.facts.architecture.options))
        nets[-1].load_state_dict(weights_of(member))
    with torch.inference_mode():
        answers = [net.eval()(image).numpy() for net in nets]
    output = package.test_output()
    assert output[:, :1] == pytest.approx(np.mean(answers, axis=0), abs=1e-5)
    assert output[:, 1:] == pytest.approx(np.sqrt(np.var(answers, axis=0, ddof=1) / 2) + 1e-3, abs=1e-5)
    with pytest.raises(TrainingError, match="a graph without its recipe, which can be served but not trained further"):
        start_from(package)


def test_members_that_give_scales_add_them():
    nets = [
        build_net("care", {"n_dim": 2, "depth": 1, "first_filters": 2, "kernel": 3, "probabilistic": True}, seed)
        for seed in (0, 1)
    ]
    image = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answers = [net.eval()(image).numpy() for net in nets]
        mean, scale = Ensemble(nets).eval()(image).numpy()[0]
    means, scales = (np.array([answer[0, part] for answer in answers]) for part in (0, 1))
    assert mean == pytest.approx(means.mean(0), abs=1e-6)
    variance = means.var(0, ddof=1) + 2 * (scales**2).mean(0)
    assert scale == pytest.approx(np.sqrt(variance / 2) + 1e-3, abs=1e-6)
    with pytest.raises(ValueError, match=r"1 network.* cannot disagree"):
        Ensemble(nets[:1])
    with pytest.raises(ValueError, match="must be networks with the same options"):
        Ensemble([nets[0], build_net("care", {"n_dim": 2, "depth": 1, "first_filters": 4, "kernel": 3}, 0)])


# --- beginning with another network


def test_training_goes_on_from_a_package(trained, folder, tmp_path):
    first = trained[0].package
    begun = start_from(first)
    net = build_start(tiny(), 5, begun)
    assert same(net.state_dict(), weights_of(first))
    further = run(folder, tmp_path / "further", tiny(5, fit={"learning_rate": 1e-4}), start=first.path, scored=False)
    assert further.history[0].psnr_db > further.history[0].raw_psnr_db + 1
    assert any(first.onnx_sha256 in note for note in further.package.facts.provenance.notes)
    sure = build_start(tiny(net={"probabilistic": True}, fit={"loss": "laplace"}), 0, begun)
    assert torch.equal(sure.head_mean.weight, net.head_mean.weight)


def test_packages_that_cannot_be_trained_further(tmp_path):
    facts = smoothing_facts()
    cases = {
        "holds no weights 'down_level_0_no_0.weight'": {},
        "is a graph without its recipe": {"architecture": Architecture(kind="onnx", parameters=9)},
        "has 2 channels in and 2 out": {"channels_in": 2, "channels_out": 2},
    }
    for number, (words, changes) in enumerate(cases.items()):
        several = changes.get("channels_in", 1)
        changed = facts.model_copy(
            update={"architecture": Architecture(kind="care", options={"n_dim": 2}, parameters=9), **changes}
        )
        package = write_smoothing_package(tmp_path / f"net{number}", channels=several, facts=changed)
        with pytest.raises(TrainingError, match=words):
            start_from(package)
    finer = facts.model_copy(update={"geometry": facts.geometry.model_copy(update={"output_factor": (2, 2)})})
    with pytest.raises(TrainingError, match="changes the number of pixels"):
        check_trainable(
            dataclasses.replace(package, facts=finer.model_copy(update={"architecture": Architecture(kind="care")}))
        )
    with pytest.raises(TrainingError, match="holds no weights"):
        build_start(tiny(net={"depth": 2}), 0, type("Begun", (), {"weights": {}, "package": "nothing"})())


@pytest.mark.realdata
def test_a_network_of_csbdeep_is_trained_further(shared_data, tmp_path, capsys):
    """On pairs of its own kind: after five small steps it restores as well as before."""
    package = import_model(shared_data / "models" / "care2d", tmp_path / "care2d")
    pairs = shared_data / "pairs_widefield_w2s"
    few = write(tmp_path / "few", {
        name: tuple(tifffile.imread(pairs / side / f"{name}.tif")[:128, :128] for side in ("low", "high"))
        for name in ("067_0", "067_1", "073_0", "073_1")
    })  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(["train", str(few), "-o", str(tmp_path / "more"), "--from", str(package.path), "--steps", "5", "--threads", "1"])
    assert ended.value.code == 0, capsys.readouterr().err
    more = open_package(tmp_path / "more")
    assert more.facts.architecture.options["kernel"] == package.facts.architecture.options["kernel"]
    judged = choose([few], preset("care", 2).changed(pairs={"check": False})).held_out
    assert more.facts.scores["psnr_db"] > evaluate(package, judged, baselines=False).mean["psnr_db"] - 0.3
