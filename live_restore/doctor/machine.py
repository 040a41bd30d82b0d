"""The doctor looks at the machine: processor, memory, clocks, and the disk that images are saved to.

Receives a situation; hands on findings. It does not know microscopes, engines or wires.
"""

import os
import shutil
import time
import uuid
from pathlib import Path

import psutil

from live_restore.doctor.findings import (
    CAMERA_FPS,
    CAMERA_MB,
    CAMERA_MB_PER_S,
    CAMERA_SIDE_PX,
    Finding,
    Situation,
    ok,
    problem,
    warning,
)

GIB = 2**30
# pycro-manager reserves every file of an NDTiff dataset in full before it writes into it.
NDTIFF_FILE_GIB = 4
_PROBE_MB, _PIECE_MB = 64, 8
_SYNCED = ("onedrive", "dropbox", "google drive", "googledrive", "nextcloud", "icloud")
# Windows' limit is 260 characters, of which the names of a dataset and of a chunk of the restored volumes take some hundred.
_LONGEST_PATH = 150
# No file of this release is older.
_EARLIEST_UNIX_S = 1_735_689_600  # 2025


def processor(_: Situation) -> list[Finding]:
    """Cores, for the acquisition, the restoration and the viewer at once."""
    cores, threads = psutil.cpu_count(logical=False) or 1, psutil.cpu_count() or 1
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    found = f"{cores} cores, {threads} threads" + (f", {ours} of them for this process" if ours != threads else "")
    if ours < 4:
        cure = "on few cores restore with a small network, or run the restore process on another machine (live-restore keys)"
        return [warning("processor", f"{found}: acquisition, restoration and viewer share them", cure)]
    return [ok("processor", found)]


def memory(_: Situation) -> list[Finding]:
    """Memory that is free now."""
    seen = psutil.virtual_memory()
    return [judge_memory(seen.available, seen.total)]


def judge_memory(free: int, total: int) -> Finding:
    """Say whether so many bytes are enough."""
    found = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < GIB:
        return problem("memory", f"{found}; a restore process alone takes about 1 GiB", "close other programs")
    if free < 4 * GIB:
        cure = "close other programs, or run the restore process on another machine (live-restore keys)"
        return warning("memory", f"{found}; stacks of {CAMERA_SIDE_PX}² pixels want 4 GiB", cure)
    return ok("memory", found)


def clocks(_: Situation) -> list[Finding]:
    """Look at the clock that times every stage, and at that on the wall, which goes into the record."""
    return [judge_step(finest_step_s()), *judge_date(time.time())]


def judge_step(step_s: float) -> Finding:
    """Say whether the clock of the latencies is fine enough."""
    found = f"clock of the latencies in steps of {step_s * 1e6:.3g} µs"
    if step_s > 1e-3:
        return warning("clock", f"{found}: latencies are that coarse", "use Python 3.13 or newer")
    return ok("clock", found)


def judge_date(unix_s: float) -> list[Finding]:
    """Say if this date cannot be."""
    if unix_s >= _EARLIEST_UNIX_S:
        return []
    told = time.strftime("%Y-%m-%d", time.gmtime(unix_s))
    return [problem("date", f"the clock says {told}; the records would say so too", "set the clock of this machine")]


def finest_step_s() -> float:
    """Measure the smallest step that the clock of the latencies really makes, in s."""
    finest = float("inf")
    for _ in range(50):
        begun = time.perf_counter_ns()
        while (now := time.perf_counter_ns()) == begun:
            pass
        finest = min(finest, now - begun)
    return finest / 1e9


def folder(situation: Situation) -> list[Finding]:
    """Where images are saved: there, not carried away by a synchronizing program, of modest length."""
    path = situation.folder
    if not path.is_dir():
        return [problem("folder", f"{path} is not there", "make it, or name another with --folder")]
    return judge_path(path.resolve(), on_windows=os.name == "nt") or [ok("folder", str(path.resolve()))]


def judge_path(path: Path, on_windows: bool) -> list[Finding]:
    """Say what may become of files that are written there."""
    findings = []
    if any(word in str(path).lower() for word in _SYNCED):
        cure = "save to a folder that no program synchronizes; copy the dataset when it is complete"
        findings.append(
            warning("folder", f"{path} seems to be synchronized; such programs lock files that are being written", cure)
        )
    if on_windows and len(str(path)) > _LONGEST_PATH:
        found = f"the path of {path} has {len(str(path))} characters; with a dataset's names it may pass Windows' 260"
        findings.append(warning("folder", found, "save to a folder with a shorter path"))
    return findings


def disk_space(situation: Situation) -> list[Finding]:
    """Room for images."""
    if not situation.folder.is_dir():
        return []
    return [judge_space(shutil.disk_usage(situation.folder).free)]


def judge_space(free: int) -> Finding:
    """Say whether so many bytes are enough."""
    minutes = free / 1e6 / CAMERA_MB_PER_S / 60
    found = f"{free / GIB:.1f} GiB free: {minutes:.0f} min of a {CAMERA_SIDE_PX}² camera at {CAMERA_FPS} frames/s"
    if free >= 2 * NDTIFF_FILE_GIB * GIB:
        return ok("disk space", found)
    level = problem if free < NDTIFF_FILE_GIB * GIB else warning
    found = f"{found}; every file of an NDTiff dataset reserves {NDTIFF_FILE_GIB} GiB, and restored volumes come on top"
    return level("disk space", found, "delete what is not needed, or save to another disk with --folder")


def disk_speed(situation: Situation) -> list[Finding]:
    """Write and flush a little, as a dataset would; compare with what a camera gives. Looks at the disk's clock in passing."""
    if not situation.folder.is_dir():
        return []
    if shutil.disk_usage(situation.folder).free < 4 * _PROBE_MB * 1e6:
        return [warning("disk speed", f"not measured: there is no room for {_PROBE_MB} MB", "delete what is not needed")]
    probe = situation.folder / f".live_restore_{uuid.uuid4().hex}.tmp"
    try:
        seconds = _written_s(probe)
        lag_s = time.time() - probe.stat().st_mtime
    except OSError as refused:
        cure = "save to a folder that you may write to: --folder"
        return [problem("disk speed", f"{situation.folder} cannot be written to: {refused.strerror}", cure)]
    finally:
        probe.unlink(missing_ok=True)
    return [judge_speed(_PROBE_MB / seconds), *judge_file_clock(lag_s)]


def _written_s(path: Path) -> float:
    """Write the probe; gives how long it took until it was on the disk, in s. It cannot be compressed away."""
    piece = os.urandom(_PIECE_MB * 10**6)
    begun = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(_PROBE_MB // _PIECE_MB):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begun


def judge_speed(mb_per_s: float) -> Finding:
    """Say which camera so fast a disk keeps up with."""
    found = (
        f"{mb_per_s:.0f} MB/s, flushed: {mb_per_s / CAMERA_MB:.0f} frames/s of {CAMERA_SIDE_PX}² uint16; "
        f"{CAMERA_FPS} frames/s want {CAMERA_MB_PER_S:.0f} MB/s, and restored volumes up to three times as much in all"
    )
    cure = "save to a local solid-state disk; exclude the folder from the virus scanner"
    if mb_per_s < CAMERA_MB_PER_S:
        return problem("disk speed", found, cure)
    return warning("disk speed", found, cure) if mb_per_s < 3 * CAMERA_MB_PER_S else ok("disk speed", found)


def judge_file_clock(lag_s: float) -> list[Finding]:
    """Judge the clock of the disk, which is another machine's for a network drive."""
    if abs(lag_s) < 5:
        return []
    found = f"files of this folder are dated {abs(lag_s):.0f} s {'behind' if lag_s > 0 else 'ahead of'} this machine's clock"
    return [warning("date", found, "let both machines take their time from the network")]
