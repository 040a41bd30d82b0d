"""The frame of every program here: load, say so, and restore once for every line that comes.

Started as ``python turns.py PROGRAM OPTIONS``, in any environment that has numpy and what PROGRAM needs; live_restore itself
need not be there. PROGRAM is a module beside this file with ``prepare(options) -> (turn, facts)``: `turn` restores the image
and returns the result, `facts` say what is running. Lines that begin with ``turns`` are for whoever started it; whatever else
the runtimes print is none of them. It does not know what is compared.
"""

import gc
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Take turns until standard input closes."""
    program, options = sys.argv[1], json.loads(sys.argv[2])
    try:
        turn, facts = importlib.import_module(program).prepare(options)
        held = resident_mb()
        np.save(options["result"], turn())  # the first turn compiles and allocates; its result is what is compared
    except Exception as error:
        _say("cannot", {"error": type(error).__name__, "why": " ".join(str(error).split())[:500]})
        return
    gc.collect()
    gc.disable()
    _say("ready", {**facts, "resident_mb": held})
    for _ in sys.stdin:
        began = time.perf_counter()
        try:
            turn()
        except Exception as error:
            _say("cannot", {"error": type(error).__name__, "why": " ".join(str(error).split())[:500]})
            return
        _say("took", time.perf_counter() - began)
    _say("ended", {"peak_mb": peak_mb()})


def _say(what: str, said: Any) -> None:
    sys.stdout.write(f"\nturns {what} {json.dumps(said)}\n")
    sys.stdout.flush()


def resident_mb() -> float | None:
    """Resident memory of this process now, 10^6 bytes; None where the system does not tell without further packages."""
    return _of_linux("VmRSS:")


def peak_mb() -> float | None:
    """Largest resident memory of this process so far, 10^6 bytes."""
    if sys.platform == "win32":
        return None  # whoever started this asks the system
    # on Linux getrusage also counts what the parent held when it started this process
    listed = _of_linux("VmHWM:")
    if listed is None:
        import resource

        listed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return listed


def _of_linux(field: str) -> float | None:
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / 1e6
    return None


if __name__ == "__main__":
    main()
