"""``live-restore build``: real packages, a real TensorRT, a cache of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from live_restore.build import build, plans_for
from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.tensorrt.recipe import read_recipe, shipped_recipes
from live_restore.engines.tensorrt.targets import target_named
from live_restore.errors import EngineError
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder

CARE = bundled_folder() / "care2d_demo"
RCAN = bundled_folder() / "rcan3d_demo"
SMALL = """
name = "small"
axes = "YX"
attention = false
precisions = ["f32"]

[[profiles]]
name = "frames"
min = [1, 64, 64]
opt = [1, 64, 64]
max = [1, 64, 64]
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
    return tmp_path / "small.toml"


@pytest.fixture
def command(tmp_path):
    """Run the command line in a process of its own, with its own cache and its own secret."""

    def run(*words, prelude=""):
        own = {"LIVE_RESTORE_CONFIG": str(tmp_path / "config"), "LIVE_RESTORE_CACHE": str(tmp_path / "cache")}
        environment = os.environ | own | {"COLUMNS": "200"}
        script = f"{prelude}\nfrom live_restore.cli import main\nmain()"
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, words)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            env=environment,
            check=False,
        )

    return run


WITHOUT_TENSORRT = "import sys; sys.modules['tensorrt'] = sys.modules['tensorrt_rtx'] = None"


def test_where_no_tensorrt_is_installed_the_cure_is_said(command):
    done = command("build", CARE, "--for", "rtx40", prelude=WITHOUT_TENSORRT)
    assert done.returncode == 1 and "TensorRT is not installed" in done.stderr and "Traceback" not in done.stderr
    assert 'pip install "live_restore[rtx]" for a GeForce or RTX card' in " ".join(done.stderr.split())


def test_help_teaches(command):
    done = command("build", "--help", prelude=WITHOUT_TENSORRT)
    words = " ".join(done.stdout.split())
    assert done.returncode == 0 and 'pip install "live_restore[rtx]"' in words
    assert "live-restore build tubulin.bioimageio care2d_demo --for rtx30 --for rtx40" in words


def test_nothing_to_build_is_said(command):
    done = command("build")
    assert done.returncode == 1 and "say what to build: live-restore build PACKAGE" in done.stderr
    done = command("build", CARE, "--precision", "f64")
    assert done.returncode == 1 and "there is no precision 'f64'; the precisions are f32, bf16, f16, int8" in done.stderr
    done = command("build", "--list")
    assert done.returncode == 0 and "no engine in" in done.stdout and "build one: live-restore build PACKAGE" in done.stdout


def test_refusals(command, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    for words, said in {
        ("build", CARE, "--for", "rtx60"): "there is no target 'rtx60'; the targets are this, rtx20",
        ("build", tmp_path / "nothing", "--for", "rtx40"): "there is no model package at",
        ("build", CARE, "--for", "rtx40", "--recipe", tmp_path / "no.toml"): "examples are in tensorrt_engines/",
    }.items():
        done = command(*words)
        assert done.returncode == 1 and said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_built_listed_and_not_built_twice(command, recipe):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    words = ("build", "care2d_demo", "--for", "rtx30", "--for", "rtx40", "--recipe", recipe)
    first = command(*words)
    assert first.returncode == 0, first.stderr
    assert "CARE 2D demo" in first.stdout and "rtx30 (8.6)" in first.stdout and "rtx40 (8.9)" in first.stdout
    assert "to use these plans when restoring, put the recipe into" in first.stdout
    assert "2 plan(s) in" in first.stdout and "layers" in first.stdout and "f32" in first.stdout
    again = command(*words)
    assert again.returncode == 0 and again.stdout.count("in the cache") == 2
    assert command(*words, "--fresh").stdout.count("in the cache") == 0
    listed = command("build", "--list").stdout
    assert listed.count("CARE 2D demo") == 2 and "not built on this machine" not in listed


def test_every_precision_that_is_named_is_built(command, recipe):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace('["f32"]', '["f32", "f16"]'), encoding="utf-8")
    done = command("build", CARE, "--for", "rtx40", "--recipe", recipe, "--precision", "f32", "--precision", "f16")
    assert done.returncode == 0 and "2 plan(s) in" in done.stdout, done.stderr
    assert "f32" in done.stdout and "f16" in done.stdout


def test_a_cache_of_another_machine_is_listed_refused_and_built_again(command, recipe, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    words = ("build", CARE, "--for", "rtx40", "--recipe", recipe)
    assert command(*words).returncode == 0
    for secret in (tmp_path / "config").rglob("engine_cache.secret"):
        secret.unlink()  # what this machine has now is another secret, as if the cache had been carried here
    assert "not built on this machine: not loaded" in command("build", "--list").stdout
    again = command(*words)
    assert again.returncode == 0 and "in the cache" not in again.stdout
    assert "not built on this machine" not in command("build", "--list").stdout


def test_without_a_card_this_is_refused(command, recipe):
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    if not int(runtime.cudaGetDeviceCount()[0]):
        pytest.skip("there is a CUDA device here")
    done = command("build", CARE, "--recipe", recipe)
    assert done.returncode == 1 and "say for which card to build: --for rtx20" in " ".join(done.stderr.split())
    assert "--engine" not in done.stderr


def test_what_serves_a_package():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    care, rcan = (plans_for(open_package(path), target_named("rtx40")) for path in (CARE, RCAN))
    assert [(one.name, one.request.profile.name) for one in care] == [("CARE 2D demo", "frames"), ("CARE 2D demo", "tiles")]
    assert [(one.graph, one.request.profile.name, one.request.precision) for one in rcan] == [
        ("whole", "volumes", "f16"),
        ("whole", "tiles", "f16"),
        ("tiles, first pass", "tiles", "f16"),
        ("tiles, second pass", "tiles", "f16"),
    ]


def test_a_recipe_for_volumes_does_not_fit_frames():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    care3d = next(recipe for recipe in shipped_recipes() if recipe.name == "care3d")
    with pytest.raises(EngineError, match="the recipe care3d is for images with axes ZYX"):
        plans_for(open_package(CARE), target_named("rtx40"), recipe=care3d)


def test_whoever_listens_is_told(recipe, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    planned = plans_for(open_package(CARE), target_named("rtx40"), "f16", read_recipe(recipe))
    told = []

    class Listener:
        def plan(self, name, number, total):
            told.append((name, number, total))

        def progress(self, done):
            told.append(done)

    cache = EngineCache(tmp_path / "cache", b"s" * 32)
    (built,) = build(planned, cache, Listener())
    assert told[0] == ("CARE 2D demo", 1, 1) and told[-1] == 1.0 and built.plan is not None
    assert cache.load(planned[0].request.key) == built.plan.plan and built.path == cache.path(planned[0].request.key)
    (again,) = build(planned, cache)
    assert again.plan is None
    (fresh,) = build(planned, cache, fresh=True)
    assert fresh.plan is not None


INTERRUPTED = """
import _thread, threading
from pathlib import Path
from live_restore.build import build, plans_for
from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.tensorrt.targets import target_named
from live_restore.models.package import open_package


class Impatient:
    def plan(self, name, number, total):
        pass

    def progress(self, done):
        if not hasattr(self, "was"):
            self.was = done
            _thread.interrupt_main()


planned = plans_for(open_package(Path({package!r})), target_named("rtx40"))
try:
    list(build(planned, EngineCache(Path({cache!r}), b"s" * 32), Impatient()))
except KeyboardInterrupt:
    print("interrupted, threads left:", threading.active_count() - 1)
"""


def test_ctrl_c_ends_a_build(tmp_path):
    """It comes to the thread that waits; the builder stops at its next step, and nothing is stored."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    script = INTERRUPTED.format(package=str(RCAN), cache=str(tmp_path / "cache"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "interrupted, threads left: 0"
    assert not list(Path(tmp_path / "cache").glob("*/*/*"))
