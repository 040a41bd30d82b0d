"""The command line as its user meets it: a process, its output, its exit status; never a traceback."""

import json
import pickle
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from keras_files import rcan_layers, write_care, write_model
from reference_forward import rcan
from tiny_packages import write_smoothing_package

from live_restore.intensity import measure_percentiles
from live_restore.records.images import open_images


def run(*words, cwd=None):
    """Run `live-restore` in a process of its own; no traceback, whatever happens."""
    command = [sys.executable, "-m", "live_restore.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, cwd=cwd, check=False)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def said(done):
    """What was printed, with line ends and padding taken out."""
    return re.sub(r"\s+", " ", done.stdout + " " + done.stderr)


@pytest.fixture
def noisy(tmp_path):
    path = tmp_path / "noisy.tif"
    tifffile.imwrite(path, np.random.default_rng(0).poisson(200, (40, 48)).astype(np.uint16))
    return path


def test_help_teaches():
    for words in (["--help"], ["restore", "--help"], ["import", "--help"], ["score", "--help"]):
        done = run(*words)
        assert done.returncode == 0 and "Usage" in done.stdout


def test_version():
    assert re.match(r"live_restore \d+\.\d+\.\d+", run("--version").stdout)


def test_import_restore_score(tmp_path, noisy):
    write_care(tmp_path / "model", first=4)
    done = run("import", tmp_path / "model", "-o", tmp_path / "package")
    assert done.returncode == 0 and "CARE 2D" in done.stdout, done.stderr
    done = run(
        "restore", noisy, "-o", tmp_path / "out.ome.tif", "--model", tmp_path / "package", "--gallery", tmp_path / "g.png"
    )
    assert done.returncode == 0 and "restored 1 volume(s)" in said(done), done.stderr
    assert (tmp_path / "g.png").stat().st_size > 10_000
    words = ("score", tmp_path / "out.ome.tif", "--reference", noisy, "--raw", noisy, "--json", tmp_path / "s.json")
    done = run(*words, "--figure", tmp_path / "s.png")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["fields"]) == 1
    assert (tmp_path / "s.png").stat().st_size > 10_000


@pytest.mark.parametrize(("n_dim", "shape"), [(2, (5, 40, 44)), (3, (9, 30, 34))], ids=["2D", "3D"])
def test_rcan_weights_in_the_keras_layout_restore_through_the_same_command(tmp_path, n_dim, shape):
    layers = rcan_layers(n_dim, groups=2, blocks=2, channels=8, reduction=4)
    write_model(tmp_path / "weights_003_0.01.hdf5", layers)
    assert run("import", tmp_path / "weights_003_0.01.hdf5", "-o", tmp_path / "rcan").returncode == 0
    stack = np.random.default_rng(0).poisson(300, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, metadata={"axes": "ZYX"})
    done = run("restore", tmp_path / "stack.tif", "-o", tmp_path / "out.ome.tif", "--model", tmp_path / "rcan")
    assert done.returncode == 0, done.stderr
    measured = measure_percentiles(stack[None], 2, 99.9, per_channel=False)
    scaled = measured.scale(stack[None])  # (1, Z, Y, X)
    weights = [(kernel, bias) for _, kernel, bias in layers]
    volumes = [scaled] if n_dim == 3 else [scaled[:, z] for z in range(shape[0])]
    expected = [rcan(np.moveaxis(v, 0, -1), weights, 2, 2, 1.0, 1)[..., 0] for v in volumes]
    expected = measured.unscale((expected[0] if n_dim == 3 else np.stack(expected))[None].astype(np.float32))[0]
    (image,) = open_images(tmp_path / "out.ome.tif")
    with image:
        assert np.abs(image.volume(0, 0) - expected).max() <= 1e-4 * np.ptp(expected)


def test_models_and_engines_are_shown(tmp_path):
    write_smoothing_package(tmp_path / "mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "rdf.yaml").write_text("type: model", encoding="utf-8")
    listed = said(run("models", tmp_path))
    assert "mine" in listed and "broken:" in listed
    sheet = said(run("models", tmp_path / "mine"))
    assert "receptive field ±1 pixels" in sheet and "percentiles 2 and 99.8 of each volume" in sheet
    engines = said(run("engines", "--model", tmp_path / "mine"))
    assert "openvino" in engines and "auto, for model 'smoothing 3x3': openvino" in engines and "because" in engines


def test_a_second_run_skips_and_an_exotic_name_works(tmp_path):
    folder = tmp_path / "ein Ordner = µm"
    folder.mkdir()
    tifffile.imwrite(folder / "bild 1.tif", np.random.default_rng(0).poisson(200, (30, 30)).astype(np.uint16))
    write_smoothing_package(folder / "mo=del")
    words = ("restore", folder, "-o", tmp_path / "out", "--model", folder / "mo=del")
    assert "restored 1 volume(s)" in said(run(*words))
    assert "1 by an earlier run" in said(run(*words))


def _truncated(path):
    write_care(path, first=4)
    file = next(path.glob("*.h5"))
    file.write_bytes(file.read_bytes()[:2000])
    return path


def _pickle(path):
    path = path.with_suffix(".h5")
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    return path


def _misfit(path):
    write_care(path, first=4, config={"unet_n_depth": 3}.items())
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "there is nothing at"),
        (_pickle, "pickle"),
        (_truncated, "truncated|damaged|not a whole"),
        (_misfit, "unet_n_depth|depth"),
    ],
    ids=["missing", "pickle", "truncated", "misfit"],
)
def test_what_cannot_be_imported_is_said_in_a_sentence(tmp_path, make, message):
    done = run("import", make(tmp_path / "source"), "-o", tmp_path / "package")
    assert done.returncode == 1 and re.search(message, said(done)), said(done)
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "nowhere"}, "there is no model package at nowhere"),
        ({"--memory": "lots"}, "--memory 'lots' is no size; write for example 4GB"),
        ({"--engine": "abacus"}, "there is no engine 'abacus'"),
        ({"--normalisation": "frozen"}, "has no frozen percentiles"),
        ({"--z-factor": "2"}, "this model restores directly"),
        ({"--axes": "QYX"}, "QYX"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be(tmp_path, noisy, change, message):
    write_smoothing_package(tmp_path / "package")
    options = {"-o": tmp_path / "out.tif", "--model": tmp_path / "package", **change}
    done = run("restore", noisy, *(word for pair in options.items() for word in pair))
    assert done.returncode == 1 and re.search(message, said(done)), said(done)


def test_the_raw_image_is_never_overwritten(tmp_path, noisy):
    write_smoothing_package(tmp_path / "package")
    before = noisy.read_bytes()
    done = run("restore", noisy, "-o", noisy, "--model", tmp_path / "package", "--overwrite")
    assert done.returncode == 1 and "never written to" in said(done)
    assert noisy.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows delivers Ctrl-C to whole consoles, not to one process")
def test_ctrl_c_says_how_to_go_on_and_the_same_command_goes_on(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", np.random.default_rng(0).poisson(200, (400, 64, 64)).astype(np.uint16))
    write_smoothing_package(tmp_path / "package")
    words = ["restore", "movie.tif", "-o", "out.ome.tif", "--model", "package", "--axes", "TYX"]
    command = [sys.executable, "-m", "live_restore.cli", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    journal = tmp_path / "out.ome.tif.partial.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_bytes().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on from here" in told
    assert not (tmp_path / "out.ome.tif").exists()
    assert "by an earlier run" in said(run(*words, cwd=tmp_path))
