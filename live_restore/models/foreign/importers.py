"""The importers: one for each foreign format, and who of them can read a source.

Receives the path of a model that somebody else's software wrote; hands on an `Imported`. Tells formats apart by what lies in
files and folders, never by their names alone. It does not know how a format is read, nor what becomes of the model.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from live_restore.errors import ModelError
from live_restore.models.foreign.file_kind import kind_of
from live_restore.models.foreign.imported import Imported


@dataclass(frozen=True, slots=True)
class Importer:
    """One format: its name for the user, the module whose ``read(source)`` reads it, whether ``weights`` may be chosen."""

    name: str
    module: str
    chooses_weights: bool = False


CSBDEEP = Importer(
    "a CSBDeep model folder, .h5 or TF_SavedModel.zip", "live_restore.models.foreign.from_csbdeep", chooses_weights=True
)
RCAN = Importer("a 3D-RCAN .hdf5 or its folder", "live_restore.models.foreign.from_rcan", chooses_weights=True)
CAREAMICS = Importer("a CAREamics .ckpt", "live_restore.models.foreign.from_careamics")
BIOIMAGEIO = Importer("a bioimage.io package", "live_restore.models.foreign.from_bioimageio")
IMPORTERS = (CSBDEEP, RCAN, CAREAMICS, BIOIMAGEIO)

# Files by which a folder or a zip is recognised; the first that is there decides.
_TELLING_FILES = (
    ("rdf.yaml", BIOIMAGEIO),
    ("bioimageio.yaml", BIOIMAGEIO),
    ("saved_model.pb", CSBDEEP),
    ("data.pkl", CAREAMICS),
)


def read_source(source: Path, weights: Path | None = None) -> Imported:
    """Find the importer for a source and let it read."""
    importer = importer_of(source)
    if weights is not None and not importer.chooses_weights:
        raise ModelError(
            f"{source.name} is {importer.name}, which has one set of weights; leave out the choice of {weights.name}"
        )
    read = import_module(importer.module).read
    imported: Imported = read(source, weights) if importer.chooses_weights else read(source)
    return imported


def importer_of(source: Path) -> Importer:
    """Tell who can read a source: by what lies in it, never by its name alone.

    Raises
    ------
    ModelError
        If nobody can, with what it is.
    """
    if not source.exists():
        raise ModelError(f"there is nothing at {source}; check the path")
    return _importer_of_folder(source) if source.is_dir() else _importer_of_file(source)


def _importer_of_folder(folder: Path) -> Importer:
    from live_restore.models.foreign.from_csbdeep import CONFIG, EXPORT
    from live_restore.models.foreign.from_rcan import checkpoints

    names = sorted(path.name for path in folder.iterdir())
    if telling := _telling(names):
        return telling
    if checkpoints(folder):
        return RCAN
    if CONFIG in names or EXPORT in names:
        return CSBDEEP
    for path in sorted(folder.glob("*.h5")) + sorted(folder.glob("*.hdf5")):
        return _importer_of_hdf5(path)
    raise ModelError(f"the folder {folder} holds no model that is known ({_shown(names)}); {_readable()}")


def _importer_of_file(path: Path) -> Importer:
    kind = kind_of(path)
    if kind.name == "hdf5":
        return _importer_of_hdf5(path)
    if kind.name == "zip":
        return _importer_of_zip(path)
    if path.suffix == ".json" and kind.name == "json":
        return CSBDEEP
    if path.suffix in (".yaml", ".yml"):
        return BIOIMAGEIO
    if path.suffix == ".onnx":
        raise ModelError(
            f"{path.name} is a bare graph that does not say how to normalise; import a bioimage.io package that holds it"
        )
    raise ModelError(f"{path.name} is {kind.description}: {kind.cure}. {_readable()}")


def _importer_of_hdf5(path: Path) -> Importer:
    from live_restore.models.foreign.from_csbdeep import recognises
    from live_restore.models.foreign.keras_h5 import read_layer_names

    names = read_layer_names(path)
    if recognises(names):
        return CSBDEEP
    if any(name.startswith(("conv2d", "conv3d")) for name in names):
        return RCAN
    raise ModelError(
        f"{path.name} has the layers {_shown(list(names))}, which are those of neither CARE nor 3D-RCAN; {_readable()}"
    )


def _importer_of_zip(path: Path) -> Importer:
    from live_restore.models.foreign.saved_model import zip_names

    names = zip_names(path)
    if telling := _telling([name.rpartition("/")[2] for name in names]):
        return telling
    if "model.weights.h5" in names:
        raise ModelError(
            f"{path.name} is in Keras 3's own format (.keras), which does not keep the layers' names; load it with the "
            "software that wrote it and save its weights: model.keras_model.save_weights('weights_best.h5')"
        )
    raise ModelError(f"the zip {path.name} holds no model that is known ({_shown(names)}); {_readable()}")


def _telling(names: list[str]) -> Importer | None:
    return next((importer for file, importer in _TELLING_FILES if file in names), None)


def _shown(names: list[str]) -> str:
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "it is empty"


def _readable() -> str:
    return "what can be imported: " + "; ".join(importer.name for importer in IMPORTERS)
