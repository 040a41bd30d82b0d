"""The live commands as their user meets them: processes, their output, their exit status; never a traceback."""

import json
import re
import subprocess
import sys

import numpy as np
import psutil
import pytest
from ndstorage import NDTiffDataset
from rich.console import Console
from tiny_packages import write_smoothing_package

from live_restore.acquire.hook import RestoreHook
from live_restore.commands import serving
from live_restore.launch import start_restore_process, stop_restore_process
from live_restore.server import ServeOptions, serve
from live_restore.serving.models import ModelChoice

PLAN = """
[acquisition]
name = "cells"
[time]
points = 2
[z]
planes = 3
step_um = 0.5
[[channels]]
name = "DAPI"
"""
RIG = """
[micromanager]
demo = true
[optics]
pixel_size_um = 0.1
[channels.DAPI]
exposure_ms = 5.0
reference_exposure_ms = 250.0
model = "PACKAGE"
[simulation]
sensor = [64, 64]
speed = 0.0
"""


def run(*words, cwd=None, timeout=180):
    """Run `live-restore` in a process of its own; no traceback, whatever happens."""
    command = [sys.executable, "-m", "live_restore.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=timeout, cwd=cwd, check=False)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def said(done):
    """What was printed, with line ends and padding taken out."""
    return re.sub(r"\s+", " ", done.stdout + " " + done.stderr)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    write_smoothing_package(folder / "package")
    child = start_restore_process([str(folder / "package")], "--records", str(folder / "records"))
    yield child
    assert stop_restore_process(child), list(child.said)


def test_nobody_listening_is_said_in_a_sentence():
    done = run("status", "--address", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert re.search(r"error: .*tcp://127\.0\.0\.1:9", said(done)), said(done)


def test_status_in_words_and_as_json(server):
    assert "smoothing" in said(run("status", "--address", server.where))
    done = run("status", "--address", server.where, "--json")
    assert json.loads(done.stdout)["models"][0]["state"] == "ready"


def test_a_model_is_swapped_and_a_wrong_one_refused(server, tmp_path):
    write_smoothing_package(tmp_path / "another")
    done = run("swap", tmp_path / "another", "--address", server.where)
    assert done.returncode == 0 and "is at work" in said(done), said(done)
    refused = run("swap", tmp_path / "absent", "--address", server.where)
    assert refused.returncode == 1 and "absent" in said(refused), said(refused)


def test_frames_through_a_served_model_are_in_the_status(server):
    with RestoreHook(server.where, results="float32") as hook:
        assert hook.wait_attached(20)
        hook.watch([{"axes": {"time": t}} for t in range(3)])
        for t in range(3):
            hook(np.full((32, 32), 100 + t, np.uint16), {"Axes": {"time": t}, "Exposure": 5.0})
        hook.end_run()
        assert len(list(hook.restored)) == 3
    told = said(run("status", "--address", server.where))
    assert "3 = 3 receipted" in told and "3 = 3 restored" in told, told


def test_acquire_restores_and_backfill_finds_nothing_left(tmp_path):
    write_smoothing_package(tmp_path / "package")
    (tmp_path / "rig.toml").write_text(RIG.replace("PACKAGE", "package"), encoding="utf-8")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    server = start_restore_process([], "--config", str(tmp_path / "rig.toml"))
    try:
        words = ("acquire", tmp_path / "plan.toml", "--config", tmp_path / "rig.toml", "-o", tmp_path / "data")
        done = run(*words, "--address", server.where)
        assert done.returncode == 0, said(done)
        assert "6 of 6 frames" in said(done) and "6: the restore process has it" in said(done), said(done)
    finally:
        assert stop_restore_process(server)
    filled = run("backfill", tmp_path / "data" / "cells_1_restored")
    assert filled.returncode == 0 and "every frame is accounted for" in said(filled), said(filled)
    assert re.search(r"6 restored live \(2 volumes\)", said(filled)), said(filled)


def test_acquire_without_a_restore_process_is_restored_afterwards(tmp_path):
    write_smoothing_package(tmp_path / "package")
    (tmp_path / "rig.toml").write_text(RIG.replace("PACKAGE", "package"), encoding="utf-8")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    words = ("acquire", tmp_path / "plan.toml", "--config", tmp_path / "rig.toml", "-o", tmp_path / "data")
    done = run(*words, "--address", "tcp://127.0.0.1:9")
    assert done.returncode == 0, said(done)
    assert "no restore process answers" in said(done) and "6 of 6 frames" in said(done)
    filled = run("backfill", tmp_path / "data" / "cells_1_restored", "--model", tmp_path / "package")
    assert filled.returncode == 0 and "restored 2 volume(s)" in said(filled), said(filled)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serve", "--address", "tcp://0.0.0.0:5757"), "live-restore keys"),
        (("serve", "--model", "nothing_here"), "nothing_here"),
        (("serve", "--config", "no.toml"), "cannot be read"),
        (("backfill", "no_run"), "no_run"),
        (("recover", "no_dataset"), "no_dataset"),
        (("acquire", "no.toml"), "cannot be read"),
        (("view", "--host", "0.0.0.0", "--no-browser"), "token"),
        (("swap", "x", "--address", "nonsense"), "nonsense"),
    ],
    ids=lambda case: case[0] if isinstance(case, tuple) else "",
)
def test_what_cannot_be_is_said_with_its_cure(words, message, tmp_path):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 1 and message in said(done), said(done)


def test_keys_are_made_once(tmp_path):
    done = run("keys", tmp_path / "keys", "--client", "scope")
    assert done.returncode == 0 and (tmp_path / "keys" / "scope.key_secret").exists(), said(done)
    again = run("keys", tmp_path / "keys", "--client", "scope")
    assert again.returncode == 1 and "never replaced" in said(again), said(again)


def test_recover_mends_a_dataset_without_its_index(tmp_path):
    dataset = NDTiffDataset(str(tmp_path), name="run", summary_metadata={}, writable=True)
    for time in range(4):
        dataset.put_image({"time": time}, np.full((16, 16), time, np.uint16), {"Axes": {"time": time}})
    dataset.finish()
    folder = next(tmp_path.glob("run_*"))
    (folder / "NDTiff.index").unlink()
    done = run("recover", folder)
    assert done.returncode == 0 and "4 frames" in said(done), said(done)


@pytest.mark.slow
@pytest.mark.microscope
@pytest.mark.parametrize("engine", ["pymmcore-plus", "pycromanager"])
def test_demo(tmp_path, engine):
    words = ("demo", "--seconds", 8, "--no-browser", "--engine", engine, "-o", tmp_path, "--record", tmp_path / "said.json")
    done = run(*words, timeout=400)
    assert done.returncode == 0, said(done)
    # pymmcore-plus turns the root logger up
    assert "DEBUG" not in done.stderr and "INFO" not in done.stderr, done.stderr[:2000]
    told = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert told["balanced"] and told["hook"]["taken"] == 32, told
    assert [score["channel"] for score in told["scores"]] == ["DAPI", "FITC"]
    assert all(score["restored_db"] - score["raw_db"] > 6 for score in told["scores"]), told["scores"]
    assert (tmp_path / "before_after.png").stat().st_size > 100_000


def test_children_end_when_their_parent_is_killed(tmp_path):
    script = (
        "import sys, time\n"
        "from live_restore.launch import start_restore_process, start_viewer\n"
        "server = start_restore_process([]); viewer = start_viewer(server.where, 0)\n"
        "print(server.process.pid, viewer.process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2 and all(child.is_running() for child in children)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no Ctrl-C to a process of its own")
def test_ctrl_c_while_a_child_starts_leaves_none_behind():
    script = (
        "import os, signal, subprocess, threading; from live_restore import launch\n"
        "made = []\n"
        "class Popen(subprocess.Popen):\n"
        "    def __init__(self, *words, **options): super().__init__(*words, **options); made.append(self)\n"
        "subprocess.Popen = Popen\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try: launch.Child(['serve', '--address', 'tcp://127.0.0.1:0'], 'never ready')\n"
        "except KeyboardInterrupt: print(made[0].poll())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "-9", done.stderr


def test_serve_says_by_what_every_model_is_served_and_why(tmp_path, monkeypatch, capsys):
    class Ready(Exception):
        """Clients can come: that is all that is wanted of it."""

    def ready(address):
        raise Ready

    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(serving, "err", Console(stderr=True, width=400))
    package = write_smoothing_package(tmp_path / "smoothing")
    choice = ModelChoice("*", package.path, engine="openvino", precision="f32")
    options = ServeOptions(address="tcp://127.0.0.1:0", models=(choice,), records=tmp_path)
    with pytest.raises(Ready):
        serve(options, ready=ready, loaded=serving._say_loaded)
    said = capsys.readouterr().err
    assert "model smoothing 3x3 for every other channel on openvino" in said and "f32" in said and "as asked for" in said
