"""A process of its own that loads device adapters, says in JSON what it saw, and ends.

Receives a question as its argument, ``python -m live_restore.doctor.devices '{"demo": true}'``; hands on one line of JSON.
Adapters are foreign machine code: what crashes or hangs here does so alone. It judges nothing.
"""

import ctypes
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer the question on the command line."""
    try:
        answer = answer_to(json.loads(sys.argv[1]))
    except Exception as error:  # whatever foreign code does becomes the answer
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer), flush=True)


def answer_to(question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer: the device interface of a folder of adapters, or what the camera of a configuration is."""
    if "interface" in question:
        return {"interface": interface_of(Path(question["interface"]))}
    core = _demo() if question.get("demo") else _loaded(question["folder"], question["config_file"])
    return seen_by(core, question.get("camera"))


def interface_of(folder: Path) -> int:
    """Ask the first adapter of a folder that can be loaded for the version of its device interface.

    Raises
    ------
    OSError
        If there is none.
    """
    reason = "it holds no mmgr_dal library"
    for path in sorted(folder.glob("*mmgr_dal*")):
        try:
            ask = ctypes.CDLL(str(path)).GetDeviceInterfaceVersion
        except (OSError, AttributeError) as refused:  # an adapter whose vendor's driver is not installed, or no adapter
            reason = str(refused)
        else:
            ask.restype, ask.argtypes = ctypes.c_long, []
            return int(ask())
    raise OSError(f"{folder}: {reason}")


def _demo() -> Any:
    from live_restore.acquire.simulate.microscope import demo_core

    return demo_core()


def _loaded(folder: str, config_file: str) -> Any:
    from pymmcore_plus import CMMCorePlus

    core = CMMCorePlus(mm_path=folder or None)
    core.loadSystemConfiguration(config_file)
    return core


def seen_by(core: Any, camera: str | None) -> dict[str, Any]:
    """Look at the camera, without taking a picture."""
    if camera:
        core.setCameraDevice(camera)
    name = core.getCameraDevice()
    if not name:
        raise RuntimeError("the configuration has no camera")
    return {
        "camera": name,
        "width": core.getImageWidth(),
        "height": core.getImageHeight(),
        "bytes_per_pixel": core.getBytesPerPixel(),
        "bit_depth": core.getImageBitDepth(),
        "pixel_type": f"{core.getProperty(name, 'PixelType')}, " if core.hasProperty(name, "PixelType") else "",
        "buffer_mb": core.getCircularBufferMemoryFootprint(),
    }


if __name__ == "__main__":
    main()
