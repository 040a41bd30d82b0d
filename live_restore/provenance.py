"""The provenance: what a restored file says of how it came about.

Receives a source, the channel plan with its restorers, and options; hands on words in JSON that are the same for the
same job, and a fingerprint of them. It does not know pixels, nor where the words are kept.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from live_restore import __version__
from live_restore.channels import Part
from live_restore.outputs import Options
from live_restore.records.images import ImageInfo
from live_restore.restorer import Restorer

# A source is told from another by its file names and sizes and by the beginnings of its largest files.
_SAMPLED_FILES = 16
_SAMPLED_BYTES = 1 << 20


def describe_job(
    info: ImageInfo, source: Path, sample_sha256: str, parts: Sequence[Part[Restorer]], options: Options
) -> dict[str, object]:
    """Say how a restored file comes about; the same input, models and options give the same words and fingerprint.

    Parameters
    ----------
    info : ImageInfo
        Of the raw image.
    source : Path
    sample_sha256 : str
        From `sample`.
    parts : sequence of Part
    options : Options
    """
    raw = {"name": source.name, "image": info.name, "sample_sha256": sample_sha256, "dtype": str(info.dtype)}
    chosen = ("dtype", "others", "widths", "axes", "sequence")
    made: dict[str, object] = {
        "software": f"live_restore {__version__}",
        "note": "restored pixels are a prediction; the raw image is the record",
        "source": raw,
        "channels": [_describe_part(part) for part in parts],
        "options": {name: getattr(options, name) for name in chosen},
    }
    made["fingerprint"] = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    # measured, so it is not part of what tells one job from another
    made["certificates"] = [part.restorer.choice.figures if part.restorer else {} for part in parts]
    return made


def _describe_part(part: Part[Restorer]) -> dict[str, object]:
    if part.restorer is None:
        return {"names": list(part.names), "raw_channels": list(part.channels), "model": None}
    restorer = part.restorer
    return {
        "names": list(part.names),
        "raw_channels": list(part.channels),
        "model": restorer.package.name,
        "model_sha256": restorer.package.onnx_sha256,
        "engine": restorer.engine.kind,
        "precision": restorer.engine.precision,
        "normalisation": restorer.normalisation.model_dump(mode="json"),
        "procedure": restorer.facts.procedure,
        "z_factor": restorer.z_factor,
    }


def sample(source: Path) -> str:
    """Hash names, sizes and samples of a file or dataset: tells it from another of the same name, without reading it all."""
    files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
    sizes = [file.stat().st_size for file in files]
    digest = hashlib.sha256()
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{file.relative_to(source) if source.is_dir() else file.name}:{size};".encode())
    largest = sorted(range(len(files)), key=lambda n: (-sizes[n], n))[:_SAMPLED_FILES]
    for number in largest:
        with files[number].open("rb") as opened:
            digest.update(opened.read(_SAMPLED_BYTES))
    return digest.hexdigest()
