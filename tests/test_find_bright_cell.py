"""The example of event-driven microscopy, with the demo microscope, pycro-manager, and the real restore process."""

import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from bare_clients import options

from live_restore.server import Server

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "find_bright_cell.py"

pytestmark = [pytest.mark.microscope, pytest.mark.slow]


def test_the_brightest_cell_is_found_and_imaged_again(tmp_path):
    with Server(options(tmp_path)) as server:
        command = [sys.executable, str(SCRIPT), "--address", server.address, "--directory", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    counts = {line.split()[1].rstrip(":"): float(line.split()[2]) for line in lines if line.startswith("position ")}
    assert len(counts) == 4
    brightest = max(counts, key=counts.get)
    assert f"brightest: position {brightest}" in lines
    frames = [axes for axes, *_ in tifffile.read_ndtiff_index(tmp_path / "bright_cell_1" / "NDTiff.index")]
    assert len(frames) == 25
    assert frames[20:] == [{"position": int(brightest), "z": z, "light": "high"} for z in range(5)]
    assert "25: the restore process has it." in done.stdout


def test_without_a_restore_process_it_says_so(tmp_path):
    text = SCRIPT.read_text(encoding="utf-8").replace("timeout_s=30", "timeout_s=1")
    command = [sys.executable, "-c", text, "--address", "tcp://127.0.0.1:9", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "is a restore process running at tcp://127.0.0.1:9?" in done.stderr
