"""The measurement for CUDA machines: what it says without one, and its parts, which run anywhere."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "bench_cuda.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import bench_cuda

    return bench_cuda


def run(*words):
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False, timeout=120)


def test_without_a_card_it_says_that_nothing_was_measured():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = run()
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "no CUDA device: nothing was measured. Run this on a machine with an NVIDIA card, and torch with CUDA"
    )
    assert done.stdout == ""


def test_help_says_what_is_measured(bench, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_cuda.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for words in ("512² to 2304²", "16 x 512² and 32 x 1024²", "of peak", "x eager", "nothing is measured, and it ends with 1"):
        assert words in said


def test_every_engine_and_precision_that_is_here_takes_part(bench):
    from small_graphs import net_graph

    from live_restore.engines.graphs.counts_graph import from_counts

    plain = net_graph("care", n_dim=2, first_filters=4)
    opened, refused = bench.open_all(from_counts(plain), ["openvino", "torch-compiled"])
    batch = np.random.default_rng(0).poisson(200, (1, 1, 32, 32)).astype(np.uint16), *bench.RANGES
    turns = bench.Turns(warm_up=0, least=1, most=1)
    for (_, precision), engine in opened.items():
        with engine:
            found = bench.alternate({"in turn": bench.in_turn(engine, batch)}, turns)["in turn"]
            assert found.median_ms > 0
            error = bench.error_of(engine, plain, batch)
            assert error < 1e-6 if precision == "f32" else error < 0.05
    assert ("openvino", "f32") in opened
    if not torch.cuda.is_available():
        why_not = "torch finds no CUDA device, which torch-compiled is for; use --engine torch"
        assert refused["torch-compiled", "-"] == why_not


def test_a_row_has_the_fraction_of_the_peak_and_the_gain(bench):
    alone, turn = bench.Spread(12.0, 15.0, 11.0, 9), bench.Spread(10.0, 11.0, 9.0, 9)
    row = bench.row_of("care2d", (2048, 2048), ("torch", "f16"), alone, turn, flop=2e12, peak=8e14, eager_ms=40.0)
    assert bench.line(row) == "| care2d | 2048x2048 | torch | f16 | 12.00 | 15.00 | 10.00 | 25% | 4.0 | - |"


def test_what_failed_says_why(bench):
    row = bench.row_of("care3d", (32, 1024, 1024), ("torch", "f32"), "use smaller tiles", "use smaller tiles", 1.0, 1.0, None)
    assert bench.line(row) == "| care3d | 32x1024x1024 | torch | f32 | not measured: use smaller tiles | | | | | |"


@pytest.mark.gpu
def test_on_a_card_it_measures(bench, capsys, monkeypatch, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device on this machine")
    monkeypatch.setattr(bench, "SIZES", {"care2d": [(256, 256)]})
    found = tmp_path / "found.json"
    words = ["bench_cuda.py", "--networks", "care2d", "--engines", "torch", "--seconds", "1", "--json", str(found)]
    monkeypatch.setattr(sys, "argv", words)
    assert bench.main() == 0
    assert "| care2d | 256x256 | torch | f16 |" in capsys.readouterr().out
    assert found.exists()
