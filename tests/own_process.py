"""Runs a piece of a test in a process of its own, with a hard time limit: an engine can hang, and one process has one."""

import json
import os
import subprocess
import sys
import textwrap

import pytest


def run_alone(script, *arguments, timeout_s=120):
    """Run a script; it prints one line of JSON last, which is given back. Ends without waiting for its threads."""
    ended = textwrap.dedent(script) + "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
    command = [sys.executable, "-c", ended, *map(str, arguments)]
    said = {"env": {**os.environ, "PYTHONIOENCODING": "utf-8"}, "encoding": "utf-8", "timeout": timeout_s}
    try:
        done = subprocess.run(command, capture_output=True, check=False, **said)
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"the acquisition hung for {timeout_s} s:\n{late.stdout}\n{late.stderr}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.strip().splitlines()[-1])
