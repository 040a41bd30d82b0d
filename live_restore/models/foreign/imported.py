"""What an importer read from somebody else's model, before it becomes a package.

Made by the `from_...` importers, received by `live_restore.models.foreign.importing`, which adds what can be measured on the
network itself (graph, geometry, test images) and writes the package. It does not know how the source was read.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.models.facts import Architecture, Normalisation

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Imported:
    """A model as its source describes it. Exactly one of `net` and `onnx` is given.

    Attributes
    ----------
    net : torch.nn.Module or None
        A network of `live_restore.models.nets` with the source's weights in it.
    onnx : bytes or None
        The graph itself, for sources that bring one. Input ``input`` (N, C, [Z,] Y, X), output ``output``, float32.
    architecture : Architecture
        Its kind, its constructor arguments, its number of trained numbers.
    channels_in, channels_out : int
        As in `ModelFacts`: a probabilistic network's graph gives ``2 * channels_out``.
    probabilistic : bool
    normalisation : Normalisation
    source_format : str
        e.g. ``csbdeep-h5``, ``csbdeep-savedmodel``, ``3d-rcan-hdf5``, ``careamics-ckpt``, ``bioimageio-onnx``.
    source_name : str
        Name of the file or folder that the model was read from, without its path.
    source_sha256 : str
        Hash of the weight file as it was found, see `sha256_of`.
    written_by : str
        Software and version recorded in the source, e.g. ``keras 2.8.0``.
    notes : tuple of str
        What the importer had to assume, in plain words; shown to the user and kept in the package.
    name : str
        The name to give the package unless the user chooses one.
    description : str
        One sentence; empty: made from the architecture.
    licence : str or None
        SPDX identifier, if the source states one.
    authors, cite : tuple of str
        Names and references, if the source states them.
    test_input, test_output : ndarray, (N, C, [Z,] Y, X), float32, or None
        In network units, if the source brings them; rendered and computed otherwise.
    """

    net: Any = None
    onnx: bytes | None = None
    architecture: Architecture
    channels_in: int = 1
    channels_out: int = 1
    probabilistic: bool = False
    normalisation: Normalisation
    source_format: str
    source_name: str
    source_sha256: str
    written_by: str = "unknown"
    notes: tuple[str, ...] = ()
    name: str
    description: str = ""
    licence: str | None = None
    authors: tuple[str, ...] = ()
    cite: tuple[str, ...] = ()
    test_input: FloatArray | None = None
    test_output: FloatArray | None = None

    def __post_init__(self) -> None:
        if (self.net is None) == (self.onnx is None):
            raise ValueError(
                f"give exactly one of net and onnx for '{self.name}'; got {'neither' if self.net is None else 'both'}"
            )


def sha256_of(source: Path | bytes) -> str:
    """Hash of a weight file, read in pieces, or of bytes already at hand; hexadecimal."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
