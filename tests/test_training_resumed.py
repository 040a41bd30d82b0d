"""Training that is interrupted, killed, refused by the disk, or shared by two processes ends with the same weights."""

import signal
import subprocess
import sys

import pytest
import torch
from own_process import run_alone
from training_folders import Heard, HeardSecond, ctrl_c, pairs_folder, run, same, tiny, weights_of

from live_restore.errors import ModelError, TrainingError
from live_restore.models.package import open_package
from live_restore.training.arithmetic import set_threads
from live_restore.training.checkpoint import folder_of, load_checkpoint
from live_restore.training.interrupts import noted_interrupts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    set_threads(1)
    return pairs_folder(tmp_path_factory.mktemp("pairs") / "dish")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A whole training, uninterrupted: what came of it, and what was heard."""
    heard = Heard()
    outcome = run(folder, tmp_path_factory.mktemp("trained") / "cells.bioimageio", listener=heard, scored=False)
    return outcome, heard


# --- interrupted, and going on


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import live_restore.training.fit as loop
from training_folders import Heard, HeardSecond, ctrl_c, pairs_folder, run, same, tiny, weights_of
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console, not to one process")
def test_ctrl_c_at_the_command_keeps_the_state_and_says_so(folder, tmp_path):
    toml, output = tmp_path / "tiny.toml", tmp_path / "net"
    toml.write_text(tiny().with_minutes(5).to_toml(), encoding="utf-8")
    words = [sys.executable, "-m", "live_restore.cli", "train", folder, "-o", output, "--options", toml, "--threads", "1"]
    with subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE, encoding="utf-8") as child:
        try:
            while "learning rate" not in child.stderr.readline():
                assert child.poll() is None
            child.send_signal(signal.SIGINT)
            said = child.stderr.read()
            assert child.wait(30) == 130
        finally:
            child.kill()
    assert "stopped; the same command goes on from here" in said
    assert load_checkpoint(folder_of(output)).state["step"] > 0
    assert not output.exists()


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
        from training_folders import Heard, HeardSecond, ctrl_c, pairs_folder, run, same, tiny, weights_of
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


# --- several processes


def test_two_processes_train_what_one_trains(folder, tmp_path):
    """Gradients are summed in another order: equal to a few parts in a million of the largest weight."""
    toml = tmp_path / "tiny.toml"
    options = tiny(8, net={"entry": 2, "skip_kernel": 3})
    toml.write_text(options.to_toml(), encoding="utf-8")
    words = ["live_restore.cli", "train", str(folder), "--options", str(toml), "--threads", "1", "--device", "cpu", "-o"]
    alone = run(folder, tmp_path / "one", options, scored=False).package
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", *words]
    done = subprocess.run([*launch, str(tmp_path / "two")], capture_output=True, check=False, timeout=120, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    some, others = weights_of(alone), weights_of(open_package(tmp_path / "two"))
    largest = max(float(weights.abs().max()) for weights in some.values())
    assert max(float((some[name] - others[name]).abs().max()) for name in some) < 1e-5 * largest
    assert done.stdout.count("model package:") == 1


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_DFL])
def test_a_second_ctrl_c_is_an_error_and_no_sudden_end(before):
    signal.signal(signal.SIGINT, before)
    with noted_interrupts() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_ctrl_c_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with noted_interrupts() as interrupted:
        signal.raise_signal(signal.SIGINT)
    assert not interrupted.is_set() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
