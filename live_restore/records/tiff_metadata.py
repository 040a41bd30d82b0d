"""What a TIFF file says of its channels and sizes, in the dialects of OME, ImageJ, Micro-Manager and plain TIFF.

Receives an opened file and one of its series; hands on names and sizes. It does not read pixels, nor decide which
axis is which.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from live_restore.records import micromanager
from live_restore.records.units import to_s, to_um

if TYPE_CHECKING:
    import tifffile

# The resolution tag of a plain TIFF is often a print resolution (72 or 300 dots per inch). No camera pixel is so large.
_LARGEST_PIXEL_UM = 50.0
# Labels that ImageJ itself puts on slices say where they are, not which channel they show.
_PLACE_LABEL = re.compile(r"^[ctz]:\d+/\d+")


@dataclass(frozen=True, slots=True)
class TiffMetadata:
    """What a file says of one series.

    Attributes
    ----------
    channels : sequence of str or None
        Names along C, perhaps none, perhaps not as many as there are channels.
    pixel_size_um : tuple of float or None
        (z, y, x).
    frame_interval_s : float or None
    positions : sequence of str
        Names of the positions within the series; empty if the series is one position.
    planned_times : int
        Number of time points that were asked for; 0 if the file does not say.
    """

    channels: Sequence[str | None] = ()
    pixel_size_um: tuple[float | None, float | None, float | None] = (None, None, None)
    frame_interval_s: float | None = None
    positions: Sequence[str] = ()
    planned_times: int = 0


def read_metadata(tif: "tifffile.TiffFile", series: "tifffile.TiffPageSeries", index: int) -> TiffMetadata:
    """Read what the file says of its series number `index`."""
    if series.kind == "mmstack":
        return _from_micromanager(tif)
    if series.kind == "ome":
        return _from_ome(tif, series.name, index)
    if series.kind == "imagej":
        return _from_imagej(tif)
    size = _resolution_um(tif)
    return TiffMetadata(pixel_size_um=(None, *size))


def ome_file_names(description: str) -> set[str]:
    """Names of the files that an OME-XML says belong together."""
    return set(re.findall(r'\bFileName="([^"]+)"', description))


def ome_metadata_file(description: str) -> str | None:
    """Name of the file that describes this one, if this one only refers to it (OME's BinaryOnly)."""
    found = re.search(r'<(?:\w+:)?BinaryOnly\b[^>]*\bMetadataFile="([^"]+)"', description)
    return found[1] if found else None


def _from_micromanager(tif: "tifffile.TiffFile") -> TiffMetadata:
    summary = (tif.micromanager_metadata or {}).get("Summary", {})
    return TiffMetadata(
        micromanager.named_channels(summary),
        micromanager.pixel_size_um(summary),
        micromanager.frame_interval_s(summary),
        micromanager.named_positions(summary),
        micromanager.planned_times(summary),
    )


def _from_ome(tif: "tifffile.TiffFile", name: str, index: int) -> TiffMetadata:
    images = [e for e in ElementTree.fromstring(tif.ome_metadata or "<OME/>") if _tag(e) == "Image"]
    # images without pixels in the file are no series: then numbers do not match, but names do
    named = [image for image in images if image.get("Name") == name]
    image = images[index] if len(images) == len(tif.series) else named[0] if named else None
    pixels = next((e for e in image if _tag(e) == "Pixels"), None) if image is not None else None
    if pixels is None:
        return TiffMetadata()
    z, y, x = (to_um(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX")
    interval = to_s(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return TiffMetadata([e.get("Name") for e in pixels if _tag(e) == "Channel"], (z, y, x), interval)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _from_imagej(tif: "tifffile.TiffFile") -> TiffMetadata:
    said = tif.imagej_metadata or {}
    # the resolution tag counts pixels per unit; the unit is in ImageJ's own words
    tags = tif.pages.first.tags
    y, x = (to_um(_pixel_length(tags.valueof(f"{a}Resolution")), said.get("unit")) for a in "YX")
    z = to_um(str(said.get("spacing", "")).removeprefix("-"), said.get("unit"))
    interval = to_s(said.get("finterval"), said.get("tunit", "s"))
    return TiffMetadata(_imagej_channels(said), (z, y, x), interval)


def _imagej_channels(said: dict[str, object]) -> list[str]:
    """Channels named by the labels of the first slices; channels run fastest in ImageJ."""
    labels, count = said.get("Labels"), said.get("channels", 1)
    if not isinstance(labels, list) or not isinstance(count, int) or count < 2 or len(labels) < count:
        return []
    names = [str(label) for label in labels[:count]]
    return [] if any(_PLACE_LABEL.match(name) for name in names) else names


def _resolution_um(tif: "tifffile.TiffFile") -> tuple[float | None, float | None]:
    tags = tif.pages.first.tags
    unit = {3: "cm", 4: "mm", 5: "um"}.get(int(tags.valueof("ResolutionUnit", 1)), "none")
    y, x = (to_um(_pixel_length(tags.valueof(f"{a}Resolution")), unit) for a in "YX")
    if y is None or x is None or max(y, x) > _LARGEST_PIXEL_UM:
        return None, None
    return y, x


def _pixel_length(resolution: object) -> float | None:
    """Length of a pixel from the tag's rational number of pixels per unit."""
    if not isinstance(resolution, tuple) or len(resolution) != 2 or not resolution[0]:
        return None
    return float(resolution[1] / resolution[0])
