"""The live benchmark measures what it says; its figures are not judged here, but raw frames and ledgers are."""

import json
import subprocess
import sys

import pytest

from live_restore.bench.live import PARTS, Table, measure_live


def bench(folder, *parts):
    """Run `live-restore bench live` for some parts; its figures."""
    only = [word for part in parts for word in ("--only", part)]
    command = [sys.executable, "-m", "live_restore.cli", "bench", "live", "--quick", *only, "-o", str(folder / "said.json")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "said.json").read_text(encoding="utf-8"))


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=f"no measurement 'speed'; choose from {', '.join(PARTS)}"):
        measure_live(quick=True, only=("speed",), say=print)


def test_a_table_is_markdown():
    table = Table("Title", "What it is.", ("a", "b"), (("1", "2"),))
    assert table.as_markdown() == "### Title\nWhat it is.\n\n| a | b |\n|---|---|\n| 1 | 2 |"


@pytest.mark.slow
def test_wire_and_latency_are_measured_with_their_conditions(tmp_path):
    printed, said = bench(tmp_path, "wire", "latency")
    assert set(said["measured"]) == {"wire", "latency"} and said["conditions"]["processor"]
    assert "512x512, encrypted (CURVE)" in printed and "512x512 at 30 Hz, trust check: none" in printed
    assert all(row["frames_per_s"] > 0 and row["round_trip_ms"] > 0 for row in said["measured"]["wire"])
    for job in said["measured"]["latency"].values():
        assert job["restored"] > 0 and 0 < job["latency_ms"]["median"] <= job["latency_ms"]["p99"]


@pytest.mark.slow
@pytest.mark.microscope
def test_every_raw_frame_is_saved_whatever_becomes_of_the_restore_process(tmp_path):
    _, said = bench(tmp_path, "raw")
    cases = said["measured"]["raw"]
    assert len(cases) == 5
    for name, case in cases.items():
        assert case["saved"] == case["frames"] == 400, name
        assert case["balanced"], (name, case["hook"])
    assert cases["alive (identity)"]["hook"]["receipted"] > 0
    assert cases["absent"]["hook"]["unattached"] == 400
    killed = cases["killed in the middle, and started again"]["hook"]
    # how many frames nobody waited for depends on how fast the new process was there; none may be missing from the account
    assert 0 < killed["receipted"] < 400, killed
