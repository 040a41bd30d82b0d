"""The doctor looks at the microscope that a configuration describes: devices, camera, circular buffer.

Receives a situation; hands on findings. Device adapters are foreign machine code, so they are loaded in a process of their
own (`live_restore.doctor.devices`), whose crash or hang becomes a finding. Real devices, which may move, are started only
where that was asked for.
"""

import json
import socket
import subprocess
import sys
from typing import Any

from live_restore.config import HardwareConfig
from live_restore.doctor.findings import (
    BYTES_PER_PIXEL,
    CAMERA_FPS,
    CAMERA_MB_PER_S,
    CAMERA_SIDE_PX,
    Finding,
    Situation,
    ok,
    problem,
    warning,
)
from live_restore.doctor.software import installed

_PATIENCE_S = 90
# Seconds of frames that must find room while the acquisition engine is busy: saving, autofocus, a garbage collection.
BUFFER_S = 2.0


def microscope(situation: Situation) -> list[Finding]:
    """Look at the configured microscope; without a configuration, give the advice that fits any."""
    config = situation.config
    if config is None:
        mb = BUFFER_S * CAMERA_MB_PER_S
        found = f"{BUFFER_S:g} s of a {CAMERA_SIDE_PX}² camera at {CAMERA_FPS} frames/s are {mb:.0f} MB"
        return [ok("circular buffer", f"{found}; --config FILE looks at your own microscope", "")]
    if config.micromanager.backend == "java":
        return [_application(config.micromanager.port)]
    findings = _interface(config)
    if any(finding.level == "problem" for finding in findings):
        return findings
    if not config.micromanager.demo and not situation.devices:
        found = "not looked at: loading a configuration starts the devices, and they may move"
        return [*findings, ok("camera", found, "add --devices when nothing can be hurt")]
    return [*findings, *_camera(config)]


def _application(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return ok("Micro-Manager", f"the application answers at port {port}")
    cure = "start Micro-Manager and tick 'Run server on port 4827' under Tools, Options"
    return problem("Micro-Manager", f"nothing answers at port {port} of this machine", cure)


def _interface(config: HardwareConfig) -> list[Finding]:
    """Compare the device interface of the core with that of the adapters in Micro-Manager's folder."""
    core, folder = installed("pymmcore"), config.micromanager.app_path
    if not core:
        return [problem("devices", "pymmcore is not installed", 'pip install "live_restore[demo]"')]
    if config.micromanager.demo or folder is None:
        return []
    if not folder.is_dir():
        return [
            problem("devices", f"app_path is {folder}, which is not there", "name the folder Micro-Manager is installed in")
        ]
    ours, theirs = "".join(core.split(".")[3:4]), asked({"interface": str(folder)})
    if "error" in theirs:
        return [problem("devices", f"no device adapter in {folder} can be loaded: {theirs['error']}", "check app_path")]
    found = f"device interface {ours} (pymmcore {core}) and {theirs['interface']} ({folder})"
    if str(theirs["interface"]) != ours:
        return [problem("devices", f"{found} do not fit each other", f'pip install "pymmcore==*.*.*.{theirs["interface"]}.*"')]
    return [ok("devices", found)]


def _camera(config: HardwareConfig) -> list[Finding]:
    place = config.micromanager
    question = {"demo": True} if place.demo else {"folder": str(place.app_path or ""), "config_file": str(place.config_file)}
    seen = asked(question | {"camera": config.camera.device if config.camera else None})
    if "error" in seen:
        cure = "end other programs that use the devices, and load the same .cfg in Micro-Manager to see which device is meant"
        return [problem("camera", f"the devices do not start: {seen['error']}", cure)]
    return [judge_camera(seen, config), judge_buffer(seen, config)]


def judge_camera(seen: dict[str, Any], config: HardwareConfig) -> Finding:
    """Low light wants every count: 16 bit per pixel, and what the configuration says of it."""
    found = f"{seen['camera']}, {seen['width']} x {seen['height']} pixels, {seen['pixel_type']}{seen['bit_depth']} bit"
    if seen["bytes_per_pixel"] != BYTES_PER_PIXEL:
        cure = "set the camera's PixelType to 16bit in Micro-Manager and save that in the configuration (.cfg)"
        level = warning if seen["bytes_per_pixel"] == 1 else problem  # colour or float: the hook leaves such frames alone
        return level("camera", f"{found}: not the 16-bit grey values that low light needs", cure)
    stated = config.camera.bit_depth if config.camera else seen["bit_depth"]
    if stated != seen["bit_depth"]:
        found = f"{found}; the configuration says bit_depth = {stated}, by which saturation is recognised"
        return warning("camera", found, f"write bit_depth = {seen['bit_depth']} under [camera]")
    return ok("camera", found)


def judge_buffer(seen: dict[str, Any], config: HardwareConfig) -> Finding:
    """Frames wait there while the acquisition engine is busy; when it is full, the acquisition ends."""
    shortest_ms = min(channel.exposure_ms for channel in config.channels.values())
    frame_mb = seen["width"] * seen["height"] * seen["bytes_per_pixel"] / 1e6
    wanted_mb = BUFFER_S * frame_mb * 1000 / shortest_ms
    size_mb = config.micromanager.circular_buffer_mb or seen["buffer_mb"]
    found = (
        f"{size_mb:.0f} MB; {BUFFER_S:g} s of this camera at its shortest exposure, {shortest_ms:g} ms, are {wanted_mb:.0f} MB"
    )
    if size_mb < wanted_mb:
        cure = f"write circular_buffer_mb = {wanted_mb:.0f} under [micromanager]"
        return warning("circular buffer", f"{found}: a pause of the computer may end a fast series", cure)
    return ok("circular buffer", found)


def asked(question: dict[str, Any]) -> dict[str, Any]:
    """Ask the process that loads devices; whatever becomes of it, there is an answer."""
    command = [sys.executable, "-m", "live_restore.doctor.devices", json.dumps(question)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {_PATIENCE_S} s"}
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or ["and said nothing"]
        return {"error": f"the process ended with status {done.returncode}: {last[0]}"}
    return answer if isinstance(answer, dict) else {"error": f"a strange answer: {answer!r}"}
