"""What Micro-Manager writes beside the pixels: the only file that knows its keys.

Receives the summary of a dataset, as Micro-Manager and pycro-manager write it in OME-TIFF and NDTiff files; hands on
names and sizes. It does not know where the summary was found.
"""

import json
from collections.abc import Mapping
from typing import Any

from live_restore.records.units import to_s, to_um

Summary = Mapping[str, Any]


def named_channels(summary: Summary) -> list[str]:
    """Names of the channels in the order of their numbers; empty if the summary has none."""
    names = summary.get("ChNames")
    if isinstance(names, str):  # version 1.3 wrote JSON within JSON
        try:
            names = json.loads(names)
        except ValueError:
            return []
    return [str(name) for name in names] if isinstance(names, list) else []


def named_positions(summary: Summary) -> list[str]:
    """Labels of the stage positions in the order of their numbers; empty if the summary has none."""
    positions = summary.get("StagePositions") or summary.get("InitialPositionList") or []
    if not isinstance(positions, list):
        return []
    return [str(p.get("Label") or p.get("label") or "") if isinstance(p, dict) else "" for p in positions]


def pixel_size_um(summary: Summary) -> tuple[float | None, float | None, float | None]:
    """Pixel size (z, y, x); an uncalibrated objective is written as 0 and gives None."""
    size = to_um(summary.get("PixelSize_um"), "um")
    return z_step_um(summary.get("z-step_um")), size, size


def z_step_um(value: object) -> float | None:
    """Distance of two planes; stacks taken downwards have it negative."""
    return to_um(str(value).removeprefix("-"), "um")


def frame_interval_s(summary: Summary) -> float | None:
    """Seconds between two time points as planned; None when taken as fast as possible."""
    return to_s(summary.get("Interval_ms"), "ms")


def planned_times(summary: Summary) -> int:
    """Count the time points that were asked for; 0 if the summary does not say."""
    intended = summary.get("IntendedDimensions")
    planned = intended.get("time") if isinstance(intended, dict) else summary.get("Frames")
    return planned if isinstance(planned, int) else 0


def frame_channel(metadata: Summary) -> str | None:
    """Name of the channel in the metadata of one frame."""
    name = metadata.get("Channel")
    return str(name) if name else None


def frame_z_um(metadata: Summary) -> float | None:
    """Height at which a frame was meant to be taken, or None."""
    value = metadata.get("ZPosition_um_Intended")
    return float(value) if isinstance(value, (int, float)) else None


def frame_pixel_size_um(metadata: Summary) -> float | None:
    """Pixel size in the metadata of one frame."""
    return to_um(metadata.get("PixelSizeUm", metadata.get("PixelSize_um")), "um")
