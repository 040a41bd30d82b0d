"""The conditions of a measurement: which machine, which versions, how busy it was.

Receives nothing; hands on words and numbers for beside the figures. It does not know what was measured.
"""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_PACKAGES = ("live_restore", "numpy", "pyzmq", "openvino", "pycromanager", "pymmcore", "pymmcore-plus", "zarr")


def conditions() -> dict[str, str]:
    """Describe the machine and what runs on it, now."""
    memory = psutil.virtual_memory()
    return {
        "processor": f"{processor()}, {psutil.cpu_count(logical=True)} logical cores",
        "memory": f"{memory.total / 2**30:.0f} GiB, {memory.available / 2**30:.0f} GiB free",
        "system": f"{platform.system()} {platform.release()}, Python {sys.version.split()[0]}",
        "versions": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
        "load before": load(),
    }


def processor() -> str:
    """Name of the CPU, as the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def load() -> str:
    """How busy the machine is, whoever keeps it so: figures of a busy machine are only good for ratios."""
    busy = psutil.cpu_percent(interval=0.5)
    minute = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{busy:.0f} % of all cores busy{minute}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
