"""The benchmark measures real networks beside real peers; what cannot run is a row with its reason. Speed is not judged."""

import json
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_packages import write_smoothing_package
from typer.testing import CliRunner

from live_restore.bench.figure import benchmark_figure, plain_ticks, scaling_figure
from live_restore.bench.growth import expected_work, explained, fixed_cost_ms
from live_restore.bench.networks import bench_networks
from live_restore.bench.peak import peak_gflop_per_s
from live_restore.bench.peers import TurnProcess
from live_restore.bench.scaling import FORMAT, Scaling, ScalingAsked, measure_scaling
from live_restore.bench.side_by_side import Asked, contestants, measure_side_by_side
from live_restore.bench.table import Benchmark, Row, times_faster
from live_restore.bench.timing import Turns, alternate, spread, timed
from live_restore.bench.work import parse_size, peer_options, why_peer_cannot
from live_restore.cli import app
from live_restore.errors import EngineError, LiveRestoreError, ModelError
from live_restore.models.facts import Geometry
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder

CARE = bundled_folder() / "care2d_demo"
FEW = Turns(warm_up=0, least=2, most=2)
COLUMNS = {
    *("network", "size", "engine", "precision", "peer", "runs_on", "median_ms", "p95_ms", "turns", "images_per_s"),
    *("mpx_per_s", "gflop_per_s", "of_peak", "memory_mb", "error", "certificate", "why_not", "note"),
}


# ------------------------------------------------------------------ turns


def test_everyone_has_equally_many_turns_and_every_second_round_runs_backwards():
    order = []

    def taker(name):
        return lambda: order.append(name) or 0.001 * len(order)

    found = alternate({"a": taker("a"), "b": taker("b")}, Turns(warm_up=1, least=3, most=3))
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found["a"].turns == found["b"].turns == 3 and found["a"].median_ms == 5.0


def test_who_fails_is_out_with_the_reason_and_the_others_go_on():
    def fails():
        raise LiveRestoreError("it is broken")

    found = alternate({"broken": fails, "well": timed(lambda: None)}, FEW)
    assert found["broken"] == "it is broken" and found["well"].turns == 2


def test_the_budget_ends_the_rounds_but_not_before_the_least():
    found = alternate({"a": lambda: 1.0}, Turns(warm_up=0, least=2, most=50, budget_s=0.0))
    assert found["a"].turns == 2
    with pytest.raises(ValueError, match="3 to 2 that count are not possible; at least one turn counts"):
        Turns(least=3, most=2)


def test_a_spread_is_the_median_and_the_95th_percentile():
    found = spread([0.001 * k for k in range(1, 102)])
    assert (found.median_ms, found.p95_ms, found.least_ms) == pytest.approx((51.0, 96.0, 1.0))


# ------------------------------------------------------------------ the table


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    broken = tmp_path_factory.mktemp("packages") / "broken.zip"
    broken.write_bytes(b"no archive")
    asked = Asked(
        packages=(str(CARE), str(broken)),
        engines=("openvino", "warp"),
        precisions=("f32",),
        sizes=((64, 64),),
        peers=("onnxruntime", "torch", "csbdeep"),
        pythons={"csbdeep": "no/such/python"},
        turns=FEW,
    )
    steps = []
    return measure_side_by_side(asked, lambda *step: steps.append(step)), steps


def test_ours_and_the_peers_restore_the_same_image_to_the_same_counts(measured):
    rows = {(row.network, row.engine): row for row in measured[0].rows}
    ours, ort, torch = (rows["care2d_demo", name] for name in ("openvino", "onnxruntime", "torch"))
    assert ours.error == 0 and ort.error < 1e-5 and torch.error < 1e-5
    assert ort.peer and torch.peer and not ours.peer
    for row in (ours, ort, torch):
        assert row.turns == 2 and 0 < row.median_ms <= row.p95_ms and row.images_per_s == pytest.approx(1e3 / row.median_ms)
        assert row.mpx_per_s == pytest.approx(64 * 64 / row.median_ms / 1e3)
        assert row.gflop_per_s == pytest.approx(41792 * 64 * 64 / row.median_ms / 1e6) and row.of_peak > 0
        assert row.runs_on and (row.memory_mb is None or 20 < row.memory_mb < 5000)


def test_what_cannot_run_is_a_row_with_the_reason(measured):
    rows = {(row.network, row.engine): row for row in measured[0].rows}
    assert "there is no engine 'warp'" in rows["care2d_demo", "warp"].why_not
    assert "no/such/python cannot be started" in rows["care2d_demo", "csbdeep"].why_not
    assert rows["broken.zip", "openvino"].why_not
    assert all((row.median_ms is None) == bool(row.why_not) for row in rows.values())


def test_it_is_written_as_json_and_as_a_page_and_drawn(measured, tmp_path):
    found, steps = measured
    said = json.loads(json.dumps(found.as_json()))
    assert said["format"] == "live_restore.bench/1" and said["conditions"]["processor"] and said["copy_gb_per_s"] > 0
    assert said["peak_gflop_per_s"]["openvino f32"] > 0
    assert all(set(row) == COLUMNS for row in said["rows"])
    page = found.as_markdown()
    assert "| care2d_demo | 64x64 | openvino | f32 |" in page and "not measured: there is no engine 'warp'" in page
    benchmark_figure(found, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert {unit for *_, unit in steps} >= {"limits", "loaded", "turns"}


def test_a_comparison_is_said_in_a_sentence():
    ours = Row(network="n", size="8x8", engine="openvino", precision="bf16", median_ms=10.0)
    peer = Row(network="n", size="8x8", engine="csbdeep", precision="f32", peer=True, median_ms=45.0)
    assert times_faster([ours, peer]) == ["n at 8x8, times as fast as csbdeep (45 ms): openvino bf16 4.5"]


def test_a_figure_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a figure of no measured row"):
        benchmark_figure(Benchmark({}), tmp_path / "bench.png")
    with pytest.raises(ValueError, match="a figure of no measured point"):
        scaling_figure(Scaling({}, []), tmp_path / "scaling.png")


def test_all_engines_of_this_machine_are_taken_at_what_they_offer():
    found = {(each.engine, each.precision) for each in contestants((), ())}
    assert ("openvino", "f32") in found and not any(engine == "identity" or precision == "int8" for engine, precision in found)
    assert [each.precision for each in contestants(("auto",), ())] == ["f32", "auto"]


def test_an_unknown_peer_is_named():
    with pytest.raises(ValueError, match="there is no peer 'matlab'; the peers are csbdeep"):
        Asked(peers=("matlab",))


# ------------------------------------------------------------------ peers that misbehave


def program(folder, monkeypatch, name, text):
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return {"result": str(folder / "result.npy")}


def test_a_peer_that_hangs_is_ended(tmp_path, monkeypatch):
    options = program(tmp_path, monkeypatch, "sleepy_peer", "import time\ntime.sleep(600)\n")
    with pytest.raises(LiveRestoreError, match="sleepy_peer hung for 2 s and was ended"):
        TurnProcess("sleepy_peer", options, patience_s=2.0)


def test_a_peer_that_dies_leaves_its_last_words(tmp_path, monkeypatch):
    options = program(tmp_path, monkeypatch, "dying_peer", "import os\nprint('out of luck', flush=True)\nos._exit(3)\n")
    with pytest.raises(LiveRestoreError, match="dying_peer died with exit code 3; its last words: out of luck"):
        TurnProcess("dying_peer", options)


def test_a_peer_that_dies_in_its_turn_is_out(tmp_path, monkeypatch):
    text = (
        "import os\ncalls = []\n"
        "def turn():\n    calls.append(1)\n    os._exit(4) if len(calls) > 2 else None\n    return [0.0]\n"
        "def prepare(options):\n    return turn, {'kind': 'frail'}\n"
    )
    with TurnProcess("frail_peer", program(tmp_path, monkeypatch, "frail_peer", text)) as process:
        assert process.said["kind"] == "frail" and process.turn() >= 0
        with pytest.raises(LiveRestoreError, match="frail_peer died with exit code 4"):
            process.turn()
        assert process.finish()["peak_mb"] is None or sys.platform == "win32"


def test_a_peer_says_why_it_cannot(tmp_path, monkeypatch):
    text = "def turn():\n    raise RuntimeError('no more paper')\ndef prepare(options):\n    return turn, {}\n"
    options = program(tmp_path, monkeypatch, "refusing_peer", text)
    with pytest.raises(LiveRestoreError, match="RuntimeError: no more paper"):
        TurnProcess("refusing_peer", options)


def test_a_peer_that_is_not_installed_says_what_to_give(tmp_path):
    package = open_package(CARE)
    image = np.full((1, 1, 64, 64), 100, np.uint16)
    np.save(tmp_path / "image.npy", image)
    files = {"image": str(tmp_path / "image.npy"), "result": str(tmp_path / "result.npy")}
    with pytest.raises(LiveRestoreError, match="give --csbdeep-python, the python of an environment that has csbdeep"):
        TurnProcess("csbdeep_peer", {**peer_options(package, image, tmp_path), **files})


def test_a_runtime_that_dies_is_a_row_of_the_table(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "onnxruntime", "import os\nos._exit(5)\n")
    package = write_smoothing_package(tmp_path / "smooth")
    asked = Asked((str(package.path),), ("identity",), ("f32",), ((32, 32),), ("onnxruntime",), turns=FEW)
    identity, peer = measure_side_by_side(asked).rows
    assert identity.median_ms > 0 and peer.why_not == "onnxruntime_peer died with exit code 5; its last words: none"


# ------------------------------------------------------------------ the work


def test_sizes_are_written_with_an_x():
    assert parse_size("512x256") == (512, 256) and parse_size("16X64x64") == (16, 64, 64)
    with pytest.raises(ValueError, match="'512' is no size; write rows x columns"):
        parse_size("512")


def test_what_a_peer_cannot_do_is_said_before_it_is_started():
    care, rcan = (open_package(bundled_folder() / name).facts for name in ("care2d_demo", "rcan3d_demo"))
    assert why_peer_cannot("csbdeep", care, (64, 64)) == ""
    assert "CSBDeep cannot build a network of kind 'rcan'" in why_peer_cannot("csbdeep", rcan, (8, 32, 32))
    assert "CAREamics has no network of kind 'rcan'" in why_peer_cannot("careamics", rcan, (8, 32, 32))
    assert "62x64 is not a multiple of 4x4" in why_peer_cannot("onnxruntime", care, (62, 64))
    folded = care.architecture.model_copy(update={"options": {**care.architecture.options, "entry": 2}})
    assert "a CARE with entry" in why_peer_cannot("csbdeep", care.model_copy(update={"architecture": folded}), (64, 64))
    frozen = care.normalisation.model_copy(update={"mode": "rolling"})
    assert "measures percentiles" in why_peer_cannot("csbdeep", care.model_copy(update={"normalisation": frozen}), (64, 64))
    graph = care.architecture.model_copy(update={"kind": "onnx"})
    assert "a graph only" in why_peer_cannot("torch", care.model_copy(update={"architecture": graph}), (64, 64))
    finer = care.model_copy(update={"procedure": "isotropic"})
    assert "restore directly" in why_peer_cannot("torch", finer, (64, 64))
    assert "covers one channel" in why_peer_cannot("careamics", care.model_copy(update={"channels_in": 2}), (64, 64))


def test_the_default_networks_are_those_of_their_authors(tmp_path):
    (care,) = bench_networks(("care2d",), tmp_path)
    assert care.package.facts.architecture.parameters == 922_977 and care.n_dim == 2
    assert {network.name for network in bench_networks((), tmp_path)} >= {"care2d_demo", "care3d_demo", "rcan3d_demo"}


def test_a_peak_that_cannot_be_measured_says_why():
    with pytest.raises(EngineError, match="there is no engine 'warp'"):
        peak_gflop_per_s("warp", "f32")


# ------------------------------------------------------------------ growth


def test_halos_of_tiles_are_expected_from_the_windows():
    geometry = Geometry(halo=(23, 23), divisible_by=(4, 4), output_factor=(1, 1), bytes_per_pixel=8)
    assert expected_work(geometry, (1, 1024, 1024), 1) == 1.0
    assert expected_work(geometry, (1, 1024, 1024), 4) == pytest.approx(1.096, abs=0.01)
    assert expected_work(geometry, (3, 1024, 1024), 12) == expected_work(geometry, (1, 1024, 1024), 4)
    pooled = geometry.model_copy(update={"global_pooling": True})
    assert expected_work(pooled, (1, 1024, 1024), 4) == 2 * expected_work(geometry, (1, 1024, 1024), 4)


def test_growth_is_linear_or_explained():
    assert fixed_cost_ms([(100, 12.0), (200, 14.0), (400, 18.0)]) == pytest.approx(10.0)
    assert fixed_cost_ms([(100, 12.0)]) == 0.0
    assert explained(1.06, 0.0, "", 1) == "linear"
    assert explained(2.0, 0.5, "10 ms of every image", 1) == "explained: 10 ms of every image do not grow with it"
    assert explained(0.5, 0.0, "", 2_000_000).startswith("less: nearer to the caches (feature maps of the whole: 2 MB")
    assert explained(2.0, 0.1, "", 1).startswith("not explained")


def test_every_sweep_is_measured_and_written(tmp_path):
    package, folder = write_smoothing_package(tmp_path / "smooth"), tmp_path / "out"
    words = ["bench", str(package.path), "--scaling", "--turns", "1", "--largest", "256", "--engine", "openvino"]
    done = CliRunner().invoke(app, [*words, "-o", str(folder)])
    assert done.exit_code == 0, done.output
    said = json.loads((folder / "scaling.json").read_text(encoding="utf-8"))
    assert said["format"] == FORMAT and said["conditions"]["processor"]
    by_sweep = {name: [point for point in said["points"] if point["sweep"] == name] for name in ("pixels", "channels", "tiles")}
    assert [len(points) for points in by_sweep.values()] == [1, 3, 4]
    assert all(point["median_ms"] > 0 and point["words"] for point in said["points"]), said["points"]
    tiles = [point["tiles"] for point in by_sweep["tiles"]]
    assert tiles[0] == 1 and tiles == sorted(tiles) and tiles[-1] >= 8
    assert [point["expected"] for point in by_sweep["channels"]] == [0.25, 0.5, 1.0]
    assert "| channels | 2 channels of 256x256 | 1 |" in (folder / "scaling.md").read_text(encoding="utf-8")
    assert (folder / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_of_a_package_that_is_not_there_is_refused():
    with pytest.raises(LiveRestoreError, match="no_such_package"):
        measure_scaling(ScalingAsked(("no_such_package",)))


# ------------------------------------------------------------------ the command


def test_the_command_writes_table_json_and_figure(tmp_path):
    words = ["bench", str(CARE), "--engine", "identity", "--precision", "f32", "--size", "32x32", "--turns", "1"]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bench.json", "bench.md", "bench.png"}
    assert "identity" in done.output and "care2d_demo" in done.output
    narrow = next(line for line in done.output.splitlines() if line.startswith("not shown in 80 columns"))
    assert "p95" in narrow and "median" not in narrow


def test_a_size_that_is_none_for_a_network_is_a_row_with_the_reason():
    found = measure_side_by_side(
        Asked(packages=(str(CARE),), engines=("openvino",), precisions=("f32",), sizes=((16, 64, 64),))
    )
    (row,) = found.rows
    assert (row.size, row.median_ms) == ("16x64x64", None) and found.peaks == {}
    assert row.why_not == "16x64x64 is no size for this network, which takes images, rows x columns: --size 512x512"


def test_a_name_that_nobody_knows_is_refused_at_once():
    steps = []
    with pytest.raises(ModelError, match=r"there is no model package 'care4d': .* \(.*care2d_demo.*\), or care2d, care2d-k3"):
        measure_side_by_side(Asked(packages=(str(CARE), "care4d")), lambda *step: steps.append(step))
    assert {unit for *_, unit in steps} == {"networks"}  # no peak was measured


def test_where_nothing_ran_the_command_has_failed():
    words = ["bench", str(CARE), "--engine", "identity", "--precision", "f32", "--size", "4x32x32", "--turns", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "is no size for this network" in " ".join(done.output.split())


@pytest.mark.parametrize(("low", "high"), [(3.1, 2600), (201, 230), (0.8, 1.9), (61, 610), (1e-3, 1e5)])
def test_logarithmic_axes_have_plain_numbers(low, high):
    axes = Figure().subplots()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    plain_ticks(axes.yaxis, low, high)
    ticks = axes.get_yticks()
    words = [label.get_text() for label in axes.get_yticklabels()]
    assert 2 <= len(ticks) <= 7 and all(low <= tick <= high for tick in ticks) and len(set(words)) == len(ticks)
    assert not any("10^" in word or "e" in word for word in words) and not len(axes.yaxis.get_minorticklocs())


def test_bench_live_is_still_a_command_and_help_is_that_of_bench():
    runner = CliRunner()
    assert "Measure the live path" in runner.invoke(app, ["bench", "live", "--help"]).output
    said = runner.invoke(app, ["bench", "--help"], env={"COLUMNS": "160"}).output
    assert "--against" in said and " bench " in said and "bench networks" not in said
