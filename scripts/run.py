"""Set up and run: the two commands of the README, on a machine that has nothing but Python 3.11 or newer.

    python scripts/run.py demo     a simulated microscope films cells at low light; watch them being restored, live
    python scripts/run.py test     every check: style, types, import rules, tests

Both make a virtual environment in .venv (or where LIVE_RESTORE_VENV points), install live_restore there with the
versions pinned in constraints.txt (torch as a CPU build), and say what they do. A second run starts at once. What
follows the command is passed on: `python scripts/run.py test -k tiling`, `python scripts/run.py demo --learn`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = Path(os.environ.get("LIVE_RESTORE_VENV", ROOT / ".venv"))
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
COMMANDS = {"demo": "[demo]", "test": "[dev]"}


def main(arguments: list[str]) -> int:
    """Run one command; its exit status."""
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    if sys.version_info < (3, 11):  # noqa: UP036  (this very file may be run by an older one)
        print(f"live_restore needs Python 3.11 or newer; this is {sys.version.split()[0]}. Install one from python.org.")
        return 2
    command, rest = arguments[0], arguments[1:]
    learns = command == "demo" and "--learn" in rest  # which needs torch
    set_up("[demo,train]" if learns else COMMANDS[command])
    return run_demo(rest) if command == "demo" else run_checks(rest)


def set_up(extra: str) -> None:
    """Make the virtual environment and install into it, unless an earlier run did just that."""
    wanted = fingerprint()
    if any(stamp.exists() and stamp.read_text(encoding="utf-8") == wanted for stamp in map(stamp_of, (extra, "[dev]"))):
        return
    say(f"making a virtual environment in {VENV} and installing live_restore{extra} (a few minutes the first time)")
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    subprocess.run([*pip, "-e", f".{extra}"], check=True, cwd=ROOT)
    stamp_of(extra).write_text(wanted, encoding="utf-8")


def stamp_of(extra: str) -> Path:
    """Name the file that tells what was installed; [dev] holds all that the others do."""
    return VENV / f"installed-{extra.strip('[]').replace(',', '-') or 'plain'}.txt"


def fingerprint() -> str:
    """Hash what an installation depends on: these files and this Python."""
    files = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    contents = b"".join(file.read_bytes() for file in files) + sys.version.encode()
    return hashlib.sha256(contents).hexdigest()


def run_demo(rest: list[str]) -> int:
    """Microscope, restore process and preview."""
    return subprocess.run([str(PYTHON), "-m", "live_restore.cli", "demo", *rest], cwd=ROOT, check=False).returncode


def run_checks(rest: list[str]) -> int:
    """Every check, cheapest first; all are run, and any failure fails the whole."""
    checks = {
        "style": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "types": ["mypy"],
        "import rules": ["lint-imports"],
        "tests": ["pytest", *rest],
    }
    failed = []
    for name, (tool, *words) in checks.items():
        say(f"{name}: {' '.join((tool, *words))}")
        began = time.perf_counter()
        code = subprocess.run([find(tool), *words], cwd=ROOT, check=False).returncode
        say(f"{name}: {'ok' if code == 0 else 'FAILED'} in {time.perf_counter() - began:.0f} s")
        failed += [name] if code else []
    say(f"failed: {', '.join(failed)}" if failed else "every check passed")
    return 1 if failed else 0


def find(tool: str) -> str:
    """Path of a tool in the virtual environment, whatever its suffix."""
    return shutil.which(tool, path=str(PYTHON.parent)) or tool


def say(sentence: str) -> None:
    """Tell the user what happens."""
    print(f"[run] {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
