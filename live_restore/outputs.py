"""The outputs: what the user asked for, and which file each image becomes, settled before anything is written.

Receives sources, an output path and options; hands on one path per position of every source. It does not know pixels
or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from live_restore.channels import Others
from live_restore.errors import ImageError
from live_restore.records.images import open_images

_FILES = (".tif", ".tiff", ".zarr")
# Suffixes of files that we do not write; a folder of such a name is nobody's wish.
_NO_FOLDERS = (".png", ".jpg", ".jpeg", ".npy", ".npz", ".h5", ".hdf5", ".mrc", ".czi", ".nd2", ".lif", ".bmp", ".gif")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose, apart from models.

    Attributes
    ----------
    others : {"keep", "leave-out"}
        What happens to channels without a model.
    dtype : {"float32", "uint16"}
        Of the restored file; uint16 is rounded and clipped.
    widths : bool
        Also write the Laplace scale that a probabilistic network predicts, as further channels.
    suffix : str
        Of the files written into a folder, ``.ome.tif`` or ``.ome.zarr``.
    axes : str or None
        Meaning of the axes, for TIFF files that do not say.
    sequence : {"T", "C", "Z"} or None
        The TIFF files of each input folder are the steps along this axis of one image.
    overwrite : bool
    samples : bool
        Keep a sample of every restored channel for a gallery.
    """

    others: Others = "keep"
    dtype: Literal["float32", "uint16"] = "float32"
    widths: bool = False
    suffix: str = ".ome.tif"
    axes: str | None = None
    sequence: str | None = None
    overwrite: bool = False
    samples: bool = False


@dataclass(frozen=True, slots=True)
class Outputs:
    """What becomes of the sources.

    Attributes
    ----------
    paths : dict of (Path, int) to Path
        The restored file, by source and number of the position.
    unreadable : dict of Path to ImageError
        Sources that cannot be opened.
    """

    paths: dict[tuple[Path, int], Path]
    unreadable: dict[Path, ImageError]


def plan_outputs(sources: Sequence[Path], output: Path, options: Options) -> Outputs:
    """Name the restored file of every position of every source.

    Parameters
    ----------
    sources : sequence of Path
    output : Path
        A file for a single image, else a folder.
    options : Options

    Raises
    ------
    ImageError
        If two images would become one file, or a file would replace or enter a raw image.
    """
    names: dict[tuple[Path, int], str] = {}
    unreadable: dict[Path, ImageError] = {}
    for source in sources:
        try:
            images = open_images(source, options.axes, options.sequence)
        except ImageError as error:
            unreadable[source] = error
            continue
        for place, image in enumerate(images):
            with image:
                names[source, place] = image.info.name
    is_file = output.name.lower().endswith(_FILES)
    if is_file and len(names) + len(unreadable) > 1:
        raise ImageError(f"'{output.name}' is one file, and these are {len(names)} images; give a folder to --output")
    if not is_file and output.suffix.lower() in _NO_FOLDERS:
        raise ImageError(f"cannot write '{output.name}': the name of a file must end in .ome.tif, .tif or .ome.zarr")
    paths = {key: output if is_file else output / f"{name}{options.suffix}" for key, name in names.items()}
    _check_apart(paths, sources)
    return Outputs(paths, unreadable)


def _check_apart(paths: dict[tuple[Path, int], Path], sources: Sequence[Path]) -> None:
    """Refuse outputs that meet each other or any source, readable or not."""
    raw = {source.resolve(): source for source in sources}
    taken: dict[str, Path] = {}
    for (source, _), path in paths.items():
        key = str(path).lower()  # on some systems, case does not tell files apart
        if key in taken:
            raise ImageError(f"{taken[key]} and {source} would both become {path}; restore them into two folders")
        taken[key] = source
        ours = path.resolve()
        for place in (ours, *ours.parents):
            if place in raw:
                raise ImageError(
                    f"{path} would replace or enter the raw image {raw[place]}; raw is never written to, "
                    "choose another --output"
                )
