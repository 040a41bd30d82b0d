"""The live benchmark measures what it says; its figures are not judged here, but raw frames and ledgers are."""

import json
import subprocess
import sys

import pytest

from live_restore.bench.frame_rate import _add_up, frame_rate
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


@pytest.mark.slow
def test_frames_are_counted_from_hook_to_preview(tmp_path):
    """How many a second is not judged here; that none is lost unsaid is."""
    figures = frame_rate(tmp_path, None, 2.0, "none", print)
    assert figures["balanced"] and figures["hook"]["taken"] == 360 == sum(figures["hook"].values()) - 360
    assert figures["hook"]["receipted"] == figures["restore"]["restored"] > 0
    assert 0 < figures["previewed_per_s"] <= figures["restored_per_s"] + 1
    assert set(figures["processor_ms"]) == {"camera", "restore", "preview", "page"} and figures["engine"].startswith("identity")
    assert 0 < figures["latency_ms"]["median"] and 0 < figures["preview_ms"]["median"] <= figures["preview_ms"]["p99"]


def test_a_frame_that_ends_in_no_column_is_noticed():
    hook = {"taken": 9, "waiting": 0, "receipted": 5, "skipped": 4}
    restore = {"taken": 5, "waiting": 0, "restored": 5}
    assert _add_up(hook, restore)
    assert not _add_up({**hook, "taken": 10}, restore)
    assert not _add_up(hook, {**restore, "taken": 6, "restored": 6})
    assert not _add_up(hook, {**restore, "waiting": 1, "restored": 4})
