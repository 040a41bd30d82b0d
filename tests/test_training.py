"""Training from pairs to package: the losses, the schedule, the loop, what survives a kill, and what is said of bad pairs."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from own_process import run_alone
from pair_folders import cells, pair, write
from tiny_packages import smoothing_facts, write_smoothing_package
from training_folders import Heard, HeardSecond, ctrl_c, pairs_folder, run, tiny

from live_restore.cli import main
from live_restore.errors import ModelError, TrainingError
from live_restore.models.facts import Architecture
from live_restore.models.foreign.importing import import_model
from live_restore.models.nets import build_net
from live_restore.models.package import open_package
from live_restore.restorer import Restorer
from live_restore.training.arithmetic import Arithmetic, choose_arithmetic, set_threads
from live_restore.training.average import POWER, Average
from live_restore.training.checkpoint import folder_of, load_checkpoint
from live_restore.training.fit import fit
from live_restore.training.held_out import HeldOut, HeldOutImage
from live_restore.training.losses import CHARBONNIER_WIDTH, LOSSES, choose_loss
from live_restore.training.material import choose
from live_restore.training.members import Ensemble
from live_restore.training.options import TrainingOptions
from live_restore.training.patches import Batch
from live_restore.training.presets import preset
from live_restore.training.schedule import Schedule
from live_restore.training.start import build_start, start_from
from live_restore.training.terms import Terms

CPU = Arithmetic(torch.device("cpu"), "f32", 2)


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


def weights_of(package):
    return start_from(package).weights


def same(some, others):
    return all(torch.equal(some[name], others[name]) for name in some) and some.keys() == others.keys()


# --- losses


FORMULAS = {
    "mae": lambda x, y: np.abs(x - y).mean(),
    "mse": lambda x, y: ((x - y) ** 2).mean(),
    "charbonnier": lambda x, y: np.sqrt((x - y) ** 2 + CHARBONNIER_WIDTH**2).mean(),
    "laplace": lambda x, y: (np.abs(x[:, :1] - y) / x[:, 1:] + np.log(2 * x[:, 1:])).mean(),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_loss_is_its_formula(loss):
    rng = np.random.default_rng(0)
    target = rng.gamma(1, 1, (3, 1, 8, 8))
    output = rng.gamma(1, 1, (3, 2 if loss.probabilistic else 1, 8, 8)) + 0.01
    computed = float(loss.compute(torch.from_numpy(output), torch.from_numpy(target)))
    assert computed == pytest.approx(FORMULAS[loss.name](output, target), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_loss_estimates_what_it_says(loss):
    """The constant that makes it smallest, over skewed targets whose mean and median are far apart."""
    target = np.random.default_rng(0).gamma(0.5, 1, 4001)
    tensor = torch.from_numpy(target).reshape(1, 1, 1, -1)
    scales = [np.abs(target - np.median(target)).mean()] if loss.probabilistic else [None]
    found = []
    for value in np.linspace(0.05, 1, 381):
        for scale in scales:
            output = torch.full_like(tensor, value)
            output = output if scale is None else torch.cat([output, torch.full_like(tensor, scale)], 1)
            found.append((float(loss.compute(output, tensor)), value))
    expected = target.mean() if loss.name == "mse" else np.median(target)
    assert loss.estimates.startswith("mean" if loss.name == "mse" else "median")
    assert min(found)[1] == pytest.approx(expected, abs=0.01)


def test_the_scale_of_laplace_is_the_mean_absolute_deviation():
    target = np.random.default_rng(0).gamma(0.5, 1, 4001)
    tensor, laplace = torch.from_numpy(target).reshape(1, 1, 1, -1), choose_loss("laplace", True)
    means = torch.full_like(tensor, np.median(target))
    found = [
        (float(laplace.compute(torch.cat([means, torch.full_like(tensor, b)], 1), tensor)), b) for b in np.linspace(0.1, 1, 361)
    ]
    assert min(found)[1] == pytest.approx(np.abs(target - np.median(target)).mean(), abs=0.005)


def test_losses_that_do_not_fit():
    with pytest.raises(ValueError, match="no loss 'l1'; the losses are mae"):
        choose_loss("l1", False)
    with pytest.raises(ValueError, match="'mae' does not fit a network that gives a scale for every pixel; use loss 'laplace'"):
        choose_loss("mae", True)
    with pytest.raises(ValueError, match="loss 'laplace' does not fit a network that gives no scale; use mae"):
        choose_loss("laplace", False)


# --- schedule, average, arithmetic


@pytest.mark.parametrize(
    "limits", [{"steps": 1000}, {"seconds": 50.0}, {"steps": 1000, "seconds": 500.0}, {"steps": 9999, "seconds": 50.0}]
)
def test_the_schedule_fits_itself_to_steps_and_minutes(limits):
    """At 20 steps a second all of these end after 1000 steps, with the same learning rates on the way."""
    schedule = Schedule(2e-3, warm_up=0.1, **limits)
    positions = [schedule.position(step, step / 20) for step in range(0, 1001, 50)]
    assert positions == pytest.approx(np.arange(0, 1.001, 0.05))
    rates = [schedule.rate(position) for position in positions]
    assert rates[:3] == pytest.approx([2e-5, 1e-3, 2e-3])
    assert np.all(np.diff(rates[2:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert schedule.position(1200, 60) == 1


def test_a_schedule_that_is_late_still_ends_in_time():
    schedule = Schedule(1.0, steps=1000, seconds=10.0)
    assert schedule.position(3, 9.0) == 0.9
    assert schedule.rate(0.9) < 0.05


def test_schedules_that_are_none():
    with pytest.raises(ValueError, match="the schedule has no end"):
        Schedule(1e-3)
    with pytest.raises(ValueError, match="warm_up 1 must be a fraction"):
        Schedule(1e-3, steps=3, warm_up=1)


@pytest.mark.parametrize("longest", [0.0, 0.9, 0.9999])
def test_the_average_of_weights_is_its_formula(longest):
    net = build_net("care", {"n_dim": 2, "depth": 1, "first_filters": 2, "kernel": 3}, 0)
    average, expected = Average(net, longest), None
    for step in range(1, 30):
        with torch.no_grad():
            for weights in net.parameters():
                weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(step)))
        average.update(net, step)
        keep = min(longest, (1 - 1 / step) ** (1 + POWER))
        now = net.head_mean.weight.detach().double()
        expected = now if expected is None else keep * expected + (1 - keep) * now
    assert average.net.head_mean.weight.double() == pytest.approx(expected, abs=1e-4)
    twin = Average(net, longest)
    twin.load(average.state())
    assert same(twin.state(), average.state())


def test_arithmetic_that_would_go_wrong_is_refused():
    assert choose_arithmetic("cpu", "auto", 3).precision == "f32"
    assert "CPU" in str(choose_arithmetic("cpu", "f32", 2))
    with pytest.raises(TrainingError, match="precision f16 is for GPUs"):
        choose_arithmetic("cpu", "f16", 2)
    with pytest.raises(TrainingError, match="bf16 gives wrong gradients in 3D on a CPU"):
        choose_arithmetic("cpu", "bf16", 3)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match=r"no CUDA device can be used by torch .* use --device cpu"):
            choose_arithmetic("cuda", "auto", 2)


# --- the loop


class Made:
    """Batches made up: the target is the low image, halved."""

    def __init__(self, spoilt=(), once=False):
        self._spoilt, self._once = set(spoilt), once

    def draw(self, step):
        low = np.random.default_rng(step).random((4, 1, 16, 16), np.float32)
        target = low / 2
        if step in self._spoilt:
            target = target * np.float32(np.nan)
            self._spoilt -= {step} if self._once else set()
        return Batch(low, target)


def made_up():
    low = np.random.default_rng(99).random((32, 32), np.float32)
    return HeldOut([HeldOutImage("made", low, low / 2)])


def net_of(options):
    return build_start(options, options.fit.seed)


def test_the_best_weights_on_held_out_images_are_given():
    """A learning rate that is far too high: the last weights are not the best ones."""
    options = tiny(60, fit={"learning_rate": 0.3, "gradient_norm": 0.0, "ema": 0.0, "validation_share": 0.5})
    fitted = fit(net_of(options), Made(), made_up(), options.fit, Terms(arithmetic=CPU))
    losses = [entry.held_out_loss for entry in fitted.history]
    net = net_of(options)
    net.load_state_dict(fitted.weights)
    assert made_up().look(net, choose_loss("mae", False), CPU).loss == pytest.approx(min(losses), rel=1e-5)
    assert min(losses) < losses[-1]
    assert fitted.history[-1].step == fitted.steps == 60


def test_it_stops_early_when_it_gets_no_better():
    options, heard = (
        tiny(400, fit={"learning_rate": 0.5, "patience": 3, "gradient_norm": 0.0, "validation_share": 0.5}),
        Heard(),
    )
    fitted = fit(net_of(options), Made(), made_up(), options.fit, Terms(arithmetic=CPU, listener=heard))
    assert fitted.steps < 400
    assert "no better on held-out images for 3 looks" in heard.text()


def test_minutes_end_it_too():
    options = tiny().with_minutes(0.01)
    fitted = fit(net_of(options), Made(), made_up(), options.fit, Terms(arithmetic=CPU, seconds=0.6))
    assert fitted.history[-1].position == 1
    assert fitted.history[-1].rate < 1e-3 * options.fit.learning_rate


def test_a_loss_that_is_no_number_goes_back_and_on():
    options, heard = tiny(20), Heard()
    fitted = fit(net_of(options), Made({9}, once=True), made_up(), options.fit, Terms(arithmetic=CPU, listener=heard))
    assert "the loss became nan at step 9; going on from step" in heard.text()
    assert fitted.steps == 20
    assert fitted.history[-1].rate <= options.fit.learning_rate / 2
    assert np.isfinite([entry.held_out_loss for entry in fitted.history]).all()


def test_a_loss_that_stays_no_number_ends_it():
    options = tiny(20)
    with pytest.raises(TrainingError, match=r"became nan at step 9, after going back 2 times .* live-restore pairs check"):
        fit(net_of(options), Made({9}), made_up(), options.fit, Terms(arithmetic=CPU))


def test_held_out_images_that_become_no_number_at_the_very_end():
    """The weights are spoilt behind the last step: it goes back, and does the steps again."""
    options, heard = tiny(5, fit={"ema": 0.0}), Heard()
    net, calls = net_of(options), []

    class Spoiling(Made):
        def draw(self, step):
            if step == 4 and not calls:
                calls.append(step)
                low = np.full((4, 1, 16, 16), 1e38, np.float32)
                return Batch(low, low)
            return super().draw(step)

    fitted = fit(net, Spoiling(), made_up(), options.fit, Terms(arithmetic=CPU, listener=heard))
    assert fitted.steps == 5
    assert all(torch.isfinite(weights).all() for weights in fitted.weights.values())


def test_no_held_out_images():
    with pytest.raises(ValueError, match="there are no held-out images"):
        HeldOut([])


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


# --- interrupted, and going on


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import live_restore.training.fit as loop
from training_folders import Heard, run
loop.KEEP_S = 0.0

def wait_for_the_end():
    print("half way", flush=True)
    sys.stdin.read()

run(Path(sys.argv[1]), Path(sys.argv[2]), listener=Heard(2, wait_for_the_end))
"""


def test_killed_in_the_middle_it_ends_with_the_same_weights(trained, folder, tmp_path, request):
    output = tmp_path / "cells.bioimageio"
    words = [sys.executable, "-c", KILLED, str(folder), str(output), str(request.path.parent)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as child:
        try:
            assert child.stdout.readline() == "half way\n"
        finally:
            child.kill()
    kept = load_checkpoint(folder_of(output))
    assert 0 < kept.state["step"] < 40
    assert not output.exists()
    heard = Heard()
    package = run(folder, output, listener=heard, scored=False).package
    assert f"going on from step {kept.state['step']}" in heard.text()
    assert same(weights_of(package), weights_of(trained[0].package))
    assert not folder_of(output).exists()


@pytest.fixture
def interrupted(folder, tmp_path):
    """A training that was ended by Ctrl-C in its middle."""
    output = tmp_path / "cells.bioimageio"
    with pytest.raises(KeyboardInterrupt):
        run(folder, output, listener=Heard(2, ctrl_c))
    assert not output.exists()
    assert [path.name for path in folder_of(output).iterdir()] == ["checkpoint.pt"]
    return output


def test_after_ctrl_c_it_goes_on_or_starts_anew(trained, folder, interrupted):
    heard = Heard()
    package = run(folder, interrupted, listener=heard, fresh=True, scored=False).package
    assert "going on" not in heard.text()
    assert same(weights_of(package), weights_of(trained[0].package))
    with pytest.raises(ModelError, match=r"cells\.bioimageio"):
        run(folder, interrupted)
    assert run(folder, interrupted, tiny(2), overwrite=True, scored=False).history[-1].step == 2


def test_it_does_not_go_on_with_other_options_or_pairs(folder, interrupted, tmp_path):
    rate = r"begun with options\.fit\.learning_rate 0\.005, and is asked to go on with 0\.01; repeat .* anew with --fresh"
    with pytest.raises(TrainingError, match=rate):
        run(folder, interrupted, tiny(fit={"learning_rate": 0.01}))
    with pytest.raises(TrainingError, match=r"begun with pairs '.*, and is asked"):
        run(pairs_folder(tmp_path / "others", 3), interrupted)
    checkpoint = folder_of(interrupted) / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged .*; start anew with --fresh"):
        run(folder, interrupted)
    torch.save({"format": 0}, checkpoint)
    with pytest.raises(TrainingError, match="was written by another version of live_restore; start anew with --fresh"):
        run(folder, interrupted)
    torch.save({"format": 1, "state": {}}, checkpoint)
    with pytest.raises(TrainingError, match="lacks what training needs"):
        run(folder, interrupted)


def test_an_interrupted_ensemble_goes_on_with_its_second_network(folder, tmp_path):
    options = tiny(24, fit={"members": 2})
    run(folder, tmp_path / "whole", options, scored=False)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "halved", options, HeardSecond(1, ctrl_c))
    assert len(load_checkpoint(folder_of(tmp_path / "halved")).finished) == 1
    assert (
        run(folder, tmp_path / "halved", options, scored=False).package.onnx_sha256
        == open_package(tmp_path / "whole").onnx_sha256
    )


def test_without_room_for_a_checkpoint_training_goes_on(folder, tmp_path):
    output, heard = tmp_path / "cells", Heard()
    folder_of(output).write_bytes(b"in the way")
    assert run(folder, output, tiny(3), heard, scored=False).package.path == output
    assert heard.text().count("no checkpoint can be written") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_disk_that_refuses_leaves_nothing_half_written(folder, tmp_path, request):
    script = """
        import json, resource, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from training_folders import Heard, run, tiny
        folder, output = map(Path, sys.argv[1:3])

        def limit(most):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        class Late(Heard):
            def said(self, sentence):
                if sentence.startswith("scoring"):
                    limit(3000)

        try:
            run(folder, output, tiny(3), Late())
            said = ""
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        left = sorted(path.name for path in output.parent.iterdir())
        limit(resource.RLIM_INFINITY)
        heard = Heard()
        run(folder, output, tiny(3), heard, scored=False)
        then = sorted(path.name for path in output.parent.iterdir())
        print(json.dumps({"said": said, "left": left, "heard": heard.text(), "then": then}))
    """
    output = tmp_path / "models" / "net"
    said = run_alone(script, folder, output, request.path.parent)
    assert "net" in said["said"] or "File too large" in said["said"]
    assert said["left"] == ["net.training"]
    assert "going on from step 3" in said["heard"]
    assert said["then"] == ["net"]


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
    with pytest.raises(TrainingError, match="holds no weights"):
        build_start(tiny(net={"depth": 2}), 0, type("Begun", (), {"weights": {}, "package": "nothing"})())


@pytest.mark.realdata
def test_a_network_of_csbdeep_is_trained_further(shared_data, tmp_path, capsys):
    """On its own pairs: after five small steps it restores as well as before."""
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
    assert more.facts.scores["gain_db"] > 5


# --- the command line


def command(*words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--threads", "1"])
    said = capsys.readouterr()
    return ended.value.code, " ".join((said.out + said.err).split())


@pytest.fixture
def quick_toml(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(tiny(6, pairs={"check": True, "held_out": ()}).to_toml(), encoding="utf-8")
    return path


def test_the_command_trains_and_says_what_came_of_it(folder, tmp_path, quick_toml, capsys):
    code, said = command("train", folder, "-o", tmp_path / "net", "--options", quick_toml, capsys=capsys)
    assert code == 0, said
    for words in (
        "on held-out pairs raw restored",
        "dB over raw, mean of",
        "model package:",
        "report:",
        "try it: live-restore",
    ):
        assert words in said
    code, said = command("train", folder, "-o", tmp_path / "net", "--options", quick_toml, capsys=capsys)
    assert code == 1
    assert "net" in said


def test_high_light_alone(tmp_path, quick_toml, capsys):
    images = tmp_path / "stacks"
    images.mkdir()
    for place in range(4):
        tifffile.imwrite(images / f"p{place}.tif", pair(seed=place, field=cells(place, (64, 80)))[1])
    words = ("train", images, "-o", tmp_path / "net", "--options", quick_toml, "--high-light-only")
    code, said = command(*words, "--photons", "5,40", capsys=capsys)
    assert code == 0, said
    package = open_package(tmp_path / "net")
    assert package.facts.light_levels["trained_peak_photons_from"] == 5
    assert "images made dim by computation" in package.description
    code, said = command(*words, "--photons", "many", "--overwrite", capsys=capsys)
    assert code == 1
    assert "--photons 'many' is not FROM,TO" in said


def good(place):
    return pair(seed=place, field=cells(place, (64, 80)))


def bad_pairs():
    low, high = good(3)
    floats = low.astype(np.float32)
    floats[3, 4] = np.nan
    return {
        "q0": ((high, low), "low and high may be swapped"),
        "q1": ((low, high[:40]), "high has shape (40, 80) and low (64, 80)"),
        "q2": ((low, None), "'q2' is in low, but not in high"),
        "q3": ((floats, high.astype(np.float32)), "low has 1 pixels that are NaN"),
        "q4": ((low, np.roll(high, 20, 1)), "high lies 19.9 pixels from low (limit 5)"),
        "q5": ((low, (high >> 8).astype(np.uint8)), "high is uint8 and low uint16"),
        "q6": ((np.full_like(low, 100), high), "low is constant at 100 counts"),
        "q7": ((low, np.where(high > 200, 65535, high).astype(np.uint16)), "of high is saturated"),
    }


def test_bad_pairs_are_left_out_with_their_reasons(tmp_path, quick_toml, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    bad = bad_pairs()
    folder = write(
        tmp_path / "dish", {f"p{place}": good(place) for place in range(4)} | {name: one for name, (one, _) in bad.items()}
    )
    (folder / "low" / "q9.tif").write_bytes(b"no image")
    tifffile.imwrite(folder / "high" / "q9.tif", good(1)[1])
    code, said = command("train", folder, "-o", tmp_path / "net", "--options", quick_toml, capsys=capsys)
    assert code == 0, said
    for name, (_, words) in bad.items():
        assert f"left out: {name}: " in said
        assert words in said
    assert "left out: 1 more" in said
    assert "3 pairs to learn from, 1 held out" in said
    code, said = command("train", folder, "-o", tmp_path / "all", "--options", quick_toml, "--no-check", capsys=capsys)
    assert code == 1
    assert not (tmp_path / "all").exists()


def folders(tmp_path):
    """Folders that cannot be learned from: how each is made, and what is said of it."""
    fine = {f"p{place}": good(place) for place in range(3)}
    yield "swapped", {name: (high, low) for name, (low, high) in fine.items()}, "low and high look swapped in 3 of 3 pairs"
    yield "unequal", {name: (low, high[:40]) for name, (low, high) in fine.items()}, "high has shape (40, 80) and low (64, 80)"
    yield "lonely", {name: (low, None) for name, (low, _) in fine.items()}, "'p0' is in low, but not in high"
    yield "one", {"p0": fine["p0"]}, "were all taken at one position"
    yield "small", {name: (low[:24, :24], high[:24, :24]) for name, (low, high) in fine.items()}, ""


def test_folders_that_cannot_be_learned_from(tmp_path, quick_toml, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for name, images, words in folders(tmp_path):
        if not words:
            continue
        folder = write(tmp_path / name, images)
        code, said = command("train", folder, "-o", tmp_path / "made" / "net", "--options", quick_toml, capsys=capsys)
        assert code == 1, name
        assert words in said
        assert not (tmp_path / "made").exists(), name


WORDS = {
    "no folder": (("train", "nowhere", "-o", "x"), "nowhere is no folder"),
    "two options": (("train", "DISH", "-o", "x", "--options", "TOML", "--preset", "best"), "--options says which network"),
    "photons": (("train", "DISH", "-o", "x", "--photons", "3,4"), "--photons goes with --high-light-only"),
    "channel": (
        ("train", "DISH", "-o", "x", "--channel", "GFP", "--options", "TOML"),
        "no accepted pair has the channel 'GFP'",
    ),
    "positions": (("train", "DISH", "-o", "x", "--held-out", "z*", "--options", "TOML"), "no position is called z*"),
    "all held out": (("train", "DISH", "-o", "x", "--held-out", "p*", "--options", "TOML"), "all 6 positions are held out"),
    "rcan scale": (("train", "DISH", "-o", "x", "--network", "rcan", "--probabilistic"), "only care can be probabilistic"),
    "other network": (
        ("train", "DISH", "-o", "x", "--network", "rcan", "--from", "care2d_demo"),
        "is a care network; leave out",
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_that_do_not_go_together(case, folder, tmp_path, quick_toml, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    words, said = WORDS[case]
    places = {"DISH": folder, "TOML": quick_toml, "x": tmp_path / "net"}
    code, heard = command(*(places.get(word, word) for word in words), capsys=capsys)
    assert (code, said in heard) == (1, True), heard
    assert not (tmp_path / "net").exists()


def test_a_large_folder_is_looked_at_as_far_as_there_is_time(folder, tmp_path, capsys, monkeypatch):
    from live_restore.records.pairs import read_pairs
    from live_restore.training.checked import check_foreign

    heard = Heard()
    found = check_foreign(read_pairs(folder), preset("care", 2).with_minutes(1e-3).fit, heard.said)
    assert len(found.accepted) == 6
    assert "are not looked at for swaps, shifts and focus" in heard.text()


# --- several processes


def test_two_processes_train_what_one_trains(folder, tmp_path):
    """Gradients are summed in another order: equal to a few parts in a million of the largest weight."""
    toml = tmp_path / "tiny.toml"
    toml.write_text(tiny(8).to_toml(), encoding="utf-8")
    words = ["live_restore.cli", "train", str(folder), "--options", str(toml), "--threads", "1", "--device", "cpu", "-o"]
    alone = run(folder, tmp_path / "one", tiny(8), scored=False).package
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", *words]
    done = subprocess.run([*launch, str(tmp_path / "two")], capture_output=True, check=False, timeout=120, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    some, others = weights_of(alone), weights_of(open_package(tmp_path / "two"))
    largest = max(float(weights.abs().max()) for weights in some.values())
    assert max(float((some[name] - others[name]).abs().max()) for name in some) < 1e-5 * largest
    assert done.stdout.count("model package:") == 1
