"""Importing: what is this source, who can read it, and the package that comes of it.

Receives the path of a model that somebody else's software wrote; hands on a `ModelPackage`. It does not know how any
format is read, that is each importer's own, nor how a package is laid out.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from live_restore.models.package import ModelPackage


def import_model(
    source: Path,
    output: Path,
    *,
    name: str | None = None,
    procedure: Literal["direct", "upsampling", "isotropic"] = "direct",
    z_factor: float | None = None,
    low_percentile: float | None = None,
    high_percentile: float | None = None,
    overwrite: bool = False,
    weights: Path | None = None,
) -> "ModelPackage":
    """Read a model in a foreign format and write it as a package."""
    raise NotImplementedError
