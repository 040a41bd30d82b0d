"""The doctor looks at the software: Python, the libraries whose versions matter, engines, bundled models.

Receives a situation; hands on findings. Libraries are imported by the check that looks at them.
"""

import math
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from live_restore.doctor.findings import Finding, Situation, ok, problem, warning

if TYPE_CHECKING:
    from live_restore.models.package import ModelPackage

OLDEST_PYTHON = (3, 11)
# pycro-manager is joined by its private interface, which is that of these versions.
EXACTLY = {"pycromanager": "1.0.2", "mmpycorex": "0.3.16"}
# What the project's own metadata asks of them, as prefixes.
SERIES = {"pymmcore-plus": "0.18."}
_ACQUIRE = 'pip install "live_restore[acquire]"'
_GPU_QUERY = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


def python(_: Situation) -> list[Finding]:
    """Python itself."""
    found = f"Python {platform.python_version()}, {platform.machine()}, {platform.system()} {platform.release()}"
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        return [problem("python", f"{found}; {oldest} is the oldest that works", f"install Python {oldest} or newer")]
    if sys.maxsize < 2**32:
        return [problem("python", f"{found}, 32 bit: images do not fit", "install 64-bit Python")]
    return [ok("python", found)]


def installed(package: str) -> str:
    """Version of a package, or an empty text."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def libraries(_: Situation) -> list[Finding]:
    """Libraries that work in one version and not in the next."""
    findings = [judge_version(name, wanted, exactly=True) for name, wanted in EXACTLY.items()]
    return findings + [judge_version(name, wanted, exactly=False) for name, wanted in SERIES.items()]


def judge_version(package: str, wanted: str, exactly: bool) -> Finding:
    """Compare the installed version with the one, or the beginning of the ones, that is known to work."""
    found = installed(package)
    if not found:
        return ok(package, "not installed; only the microscope's own machine needs it", _ACQUIRE)
    if found == wanted or (not exactly and found.startswith(wanted)):
        return ok(package, found)
    release = wanted if exactly else f"{wanted}*"
    found = f"{found}; live_restore is tested with {release}, and relies on what other versions may do otherwise"
    return problem(package, found, f'pip install "{package}=={release}"')


def device_interface(_: Situation) -> list[Finding]:
    """Micro-Manager's core and its device adapters must speak the same version of their interface."""
    core, adapters = installed("pymmcore"), installed("mm-test-adapters")
    if not core or not adapters:
        missing = " and ".join(name for name, there in (("pymmcore", core), ("mm-test-adapters", adapters)) if not there)
        cure = 'pip install "live_restore[demo]"'
        return [ok("demo devices", f"{missing} not installed; only acquisitions without a microscope need them", cure)]
    ours, theirs = core.split(".")[3:4], adapters.split(".")[:1]
    found = f"pymmcore {core} (device interface {''.join(ours)}), mm-test-adapters {adapters}"
    if ours != theirs:
        cure = f'pip install "mm-test-adapters=={"".join(ours)}.*"'
        return [problem("demo devices", f"{found}: the core will not load them", cure)]
    return [ok("demo devices", found)]


def engines(_: Situation) -> list[Finding]:
    """Every engine: whether it runs here, on what."""
    from live_restore.engines.engine import engine_status

    findings = []
    for status in engine_status():
        name = f"engine {status.kind.name}"
        if status.offer is None:
            findings.append(ok(name, f"not here: {status.why_not}"))
        else:
            offer = status.offer
            missing = f" ({offer.why_not})" if offer.why_not else ""
            findings.append(ok(name, f"{offer.version} on {offer.device}: {', '.join(offer.precisions)}{missing}"))
    if all(finding.found.startswith("not here") for finding in findings if finding.name != "engine identity"):
        findings.append(problem("engines", "no engine can run a network here", "pip install openvino"))
    return findings


def graphics_card(_: Situation) -> list[Finding]:
    """Ask the driver for an NVIDIA card."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [ok("graphics card", "no NVIDIA driver here: networks run on the processor")]
    asked = subprocess.run([tool, *_GPU_QUERY], capture_output=True, text=True, timeout=20, check=False)
    return [judge_driver(asked.returncode, asked.stdout, asked.stderr)]


def judge_driver(status: int, said: str, complained: str) -> Finding:
    """Say what the driver's answer means: a card a line, or a complaint."""
    cards = [line.strip() for line in said.splitlines() if line.strip()]
    if status or not cards:
        reason = next(iter((said + complained).strip().splitlines()), f"status {status}")
        found = f"the NVIDIA driver is installed and does not answer: {reason}"
        return warning("graphics card", found, "install the driver anew and restart the machine")
    return ok("graphics card", "; ".join(cards))


def models(_: Situation) -> list[Finding]:
    """Open every bundled package, and let the engine that "auto" takes restore its test image."""
    from live_restore.models.registry import bundled_folder, find_packages

    findings = []
    for found in find_packages([bundled_folder()]):
        name = f"model {found.path.name}"
        if found.package is None:
            cure = "install live_restore anew: pip install --force-reinstall live_restore"
            findings.append(problem(name, found.error, cure))
        else:
            findings.append(_tried(name, found.package))
    return findings or [problem("models", f"{bundled_folder()} is empty", "install live_restore anew")]


def _tried(name: str, package: "ModelPackage") -> Finding:
    from live_restore.certified import choose_for
    from live_restore.engines.certificates.comparison import compare
    from live_restore.engines.engine import open_engine

    choice = choose_for(package)
    with open_engine(choice.kind, package.onnx(), choice.precision) as engine:
        compared = compare(engine.infer(package.test_input())[-1], package.test_output())
        error = max((row.error for row in compared), default=math.nan)
        found = f"auto takes {engine.spec}; its test image comes out within {error:.1e} of the stored one ({choice.why})"
    if not error < 1e-2:
        cure = "try another engine with --engine; see live-restore engines"
        return problem(name, found, cure)
    return ok(name, found)
