"""Runs a few lines of an acquisition script in a process of its own with a hard time limit: pycro-manager can hang for ever,
and has one engine per process. The devices are the real demo devices of Micro-Manager.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

PREAMBLE = """
import json, os, signal, sys, threading, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
from mm_test_adapters import device_adapter_path
from pycromanager import Core, start_headless
from live_restore.acquire.hook import RestoreHook
from live_restore.errors import AcquisitionError
from live_restore.ledger import balanced

out, nobody = Path({out!r}), "tcp://127.0.0.1:9"
start_headless(str(device_adapter_path()), "MMConfig_demo.cfg", python_backend=True, buffer_size_mb={buffer_mb})
core = Core()
told = {{}}

def event(time, **more):
    return {{"axes": {{"time": time}}, "exposure": 2.0, **more}}

def attempt(hook, name, events, **options):
    # one acquisition; tells how it ended
    try:
        with hook.acquisition(out, name, **options) as acquisition:
            acquisition.acquire(events)
        ended = ["", ""]
    except BaseException as error:
        ended = [type(error).__name__, str(error)]
    counts = hook.ledger.counts()
    assert balanced(counts) and counts["waiting"] == 0, counts
    told[name] = [*ended, counts["taken"], saved(name), list(hook.warnings)]
    hook.warnings.clear()

def saved(name):
    # frames that the dataset's index names
    import tifffile
    index = out / f"{{name}}_1" / "NDTiff.index"
    return len(list(tifffile.read_ndtiff_index(index))) if index.exists() else 0

def press_ctrl_c(when, times=1):
    # as soon as something is true, and again half a second later
    def press():
        while not when():
            time.sleep(0.02)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT) if os.name == "posix" else signal.raise_signal(signal.SIGINT)
            time.sleep(0.5)
    threading.Thread(target=press, daemon=True).start()
"""


def acquire(script, out: Path, timeout_s=60, buffer_mb=512):
    """Run a script; gives what it put into ``told``.

    Raises
    ------
    subprocess.TimeoutExpired
        If it hangs: then it is killed.
    """
    head = PREAMBLE.format(tests=str(Path(__file__).parent), out=str(out), buffer_mb=buffer_mb)
    whole = head + textwrap.dedent(script) + "\nprint('TOLD ' + json.dumps(told))\n"
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=timeout_s, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert done.returncode == 0 and lines, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(lines[-1].removeprefix("TOLD "))
