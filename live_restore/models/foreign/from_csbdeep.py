"""The importer of CSBDeep's CARE models: model folders (``config.json`` and ``.h5``) and SavedModel exports.

Receives the path of a folder, of one of the files in it, or of an exported zip; hands on an `Imported`. The structure is
always read off the weights; what the configuration says beside must agree with it. It does not know packages or images.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from live_restore.errors import ModelError
from live_restore.models.facts import Architecture, Normalisation
from live_restore.models.foreign.care_layers import FIRST_LAYER, Options, is_projection, projection_structure, unet_structure
from live_restore.models.foreign.conv_weights import ConvWeights, built, check_torch, count
from live_restore.models.foreign.file_kind import kind_of
from live_restore.models.foreign.imported import Imported, sha256_of
from live_restore.models.foreign.keras_h5 import KerasFile, read_keras_h5
from live_restore.models.foreign.saved_model import is_saved_model, read_saved_model

CONFIG = "config.json"
EXPORT = "TF_SavedModel.zip"

# CSBDeep's word: ours. What both the configuration and the weights tell has to agree.
_TOLD_TWICE = {
    "n_dim": "n_dim",
    "n_channel_in": "channels_in",
    "n_channel_out": "channels_out",
    "unet_n_depth": "depth",
    "unet_kern_size": "kernel",
    "unet_n_first": "first_filters",
    "probabilistic": "probabilistic",
    "proj_n_filt": "proj_n_filt",
    "proj_n_conv_per_depth": "proj_n_conv_per_depth",
    "proj_kern": "proj_kern",
}
# Keys of configurations that look alike but are not CARE's.
_OTHERS = {"n_rays": "StarDist", "n2v_perc_pix": "Noise2Void"}
_PERCENTILES_ASSUMED = "CSBDeep does not store the percentiles of training; those of its own predict, 2 and 99.8, are taken"
_ADD_LAYER = re.compile(r"add(_\d+)?")


def recognises(names: Sequence[str]) -> bool:
    """Whether layer names are those of CARE; a projection has its layers within nested models."""
    nested = [name for name in names if re.fullmatch(r"(model|functional)(_\d+)?", name)]
    return FIRST_LAYER in names or len(nested) == 2


def read(source: Path, weights: Path | None = None) -> Imported:
    """Read a CARE model.

    Parameters
    ----------
    source : Path
        A model folder, the ``config.json`` or a ``.h5`` file in it, a ``TF_SavedModel.zip``, or that unpacked.
    weights : Path, optional
        Which weight file of a model folder: a name in it, or a path. Default, as in CSBDeep: the newest ``.h5`` whose name
        contains "best", else the newest ``.h5``. A folder without any is read from its ``TF_SavedModel.zip``.

    Raises
    ------
    ModelError
        If it is no such model, is incomplete or damaged, configuration and weights do not belong together, or torch is missing.
    """
    check_torch()
    if weights is None and source.suffix != ".json" and _is_export(source):
        return _read_export(source)
    folder = source if source.is_dir() else source.parent
    chosen = _chosen_weights(folder, source, weights)
    return _read_export(chosen) if _is_export(chosen) else _read_h5(folder, chosen)


def _is_export(path: Path) -> bool:
    return is_saved_model(path) if path.is_dir() or kind_of(path).name == "zip" else False


def _chosen_weights(folder: Path, source: Path, weights: Path | None) -> Path:
    if weights is not None:
        return folder / weights if (folder / weights).exists() else weights
    if source.is_file() and source.name != CONFIG:
        return source
    found = sorted((path for ending in ("*.h5", "*.hdf5") for path in folder.glob(ending)), key=_age)
    if best := [path for path in found if "best" in path.name] or found:
        return best[0]
    if (folder / EXPORT).is_file():
        return folder / EXPORT
    raise ModelError(f"the model folder {folder} holds no weights (*.h5, *.hdf5 or {EXPORT}); copy them there, or name a file")


def _age(path: Path) -> tuple[float, str]:
    return -path.stat().st_mtime, path.name


def _read_h5(folder: Path, path: Path) -> Imported:
    file = read_keras_h5(path)
    if (folder / CONFIG).is_file():
        config, notes = _read_config(folder / CONFIG), [_PERCENTILES_ASSUMED]
        _check_residual(config, file, path.name)
    else:
        config = {"unet_residual": _has_add_layer(file)}
        notes = [_PERCENTILES_ASSUMED, f"there is no {CONFIG} beside {path.name}: a linear last activation is assumed"]
    pool = _sizes(config, "proj_pool", (1, 2, 2))
    options, layers = _structure(file.convolutions, _whole(config, "proj_n_depth", 4), pool)
    options |= {"residual": bool(config["unet_residual"]), "last_activation": config.get("unet_last_activation", "linear")}
    _check_agreement(config, options, path.name)
    _check_axes(config, notes)
    told = {
        "source_name": path.name,
        "source_sha256": sha256_of(path),
        "written_by": file.written_by,
        "name": folder.resolve().name,
    }
    return _imported("csbdeep-h5", options, layers, notes, told)


def _read_export(path: Path) -> Imported:
    export = read_saved_model(path)
    notes = [_PERCENTILES_ASSUMED]
    pools = export.graph.pools or ((1, 2, 2),)
    options, layers = _structure(export.convolutions, len(export.graph.pools), pools[0])
    options |= {"residual": export.graph.residual, "last_activation": export.graph.last_activation}
    if export.graph.residual is None:
        options |= {"residual": options["channels_in"] == options["channels_out"], "last_activation": "linear"}
        notes.append(
            "the end of the exported graph is not understood: CSBDeep's defaults for residual and last activation are assumed"
        )
    if (kind := export.meta.get("type")) in ("UpsamplingCARE", "IsotropicCARE"):
        procedure = kind.removesuffix("CARE").lower()
        notes.append(f"it was exported from {kind}: import it with procedure '{procedure}' to use it as it was trained")
    name = path.resolve().parent.name if path.name == EXPORT else path.resolve().name.removesuffix(".zip")
    told = {"source_name": path.name, "source_sha256": export.sha256, "written_by": export.graph.written_by, "name": name}
    return _imported("csbdeep-savedmodel", options, layers, notes, told)


def _structure(
    convolutions: Sequence[ConvWeights], proj_n_depth: int, proj_pool: Sequence[int]
) -> tuple[Options, list[ConvWeights]]:
    if is_projection(convolutions):
        return projection_structure(convolutions, proj_n_depth, proj_pool)
    return unet_structure(convolutions)


def _imported(
    source_format: str, options: Options, layers: list[ConvWeights], notes: Sequence[str], told: Mapping[str, Any]
) -> Imported:
    kind: Literal["care", "projection_care"] = "projection_care" if "proj_n_depth" in options else "care"
    net = built(kind, options, layers)
    same_channels = options["channels_in"] == options["channels_out"]
    return Imported(
        net=net,
        architecture=Architecture(kind=kind, options=net.options, parameters=count(layers)),
        channels_in=options["channels_in"],
        channels_out=options["channels_out"],
        probabilistic=options["probabilistic"],
        normalisation=Normalisation(output="inverse" if same_channels else "none"),
        source_format=source_format,
        notes=tuple(notes),
        **told,
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); copy it again from the model's folder") from error
    if not isinstance(config, dict) or "unet_n_depth" not in config or "unet_residual" not in config:
        raise ModelError(
            f"{path} is no configuration of CSBDeep (it has no unet_n_depth or unet_residual); take that of the model's folder"
        )
    if other := next((_OTHERS[key] for key in _OTHERS if key in config), None):
        raise ModelError(f"{path} belongs to a {other} model; only CARE models of CSBDeep can be imported")
    return config


def _check_agreement(config: Mapping[str, Any], options: Options, weights_name: str) -> None:
    for theirs, ours in _TOLD_TWICE.items():
        if theirs in config and ours in options and config[theirs] != options[ours]:
            raise ModelError(
                f"{CONFIG} says {theirs} = {config[theirs]}, but {weights_name} has {options[ours]}: they do not belong "
                "together; import the weights of the configuration's own folder"
            )
    if any(key.startswith("proj_") for key in config) != ("proj_n_depth" in options):
        raise ModelError(
            f"{CONFIG} and {weights_name} do not agree on whether this is a ProjectionCARE; they do not belong together"
        )


def _check_residual(config: Mapping[str, Any], file: KerasFile, weights_name: str) -> None:
    """Compare with the layer ``add`` that residual networks have; in a projection it is hidden within a nested model."""
    if FIRST_LAYER in file.layer_names and bool(config["unet_residual"]) != _has_add_layer(file):
        raise ModelError(
            f"{CONFIG} says unet_residual = {config['unet_residual']}, but the layers of {weights_name} say "
            f"{_has_add_layer(file)}: they do not belong together; import the weights of the configuration's own folder"
        )


def _has_add_layer(file: KerasFile) -> bool:
    return any(_ADD_LAYER.fullmatch(name) for name in file.layer_names)


def _check_axes(config: Mapping[str, Any], notes: list[str]) -> None:
    axes = str(config.get("axes", "")).removesuffix("C")
    if config.get("proj_axis", "Z") != "Z" or ("proj_axis" in config and axes != "ZYX"):
        raise ModelError(f"this ProjectionCARE projects along {config['proj_axis']} of {axes}; only Z of ZYX can be imported")
    if axes and axes not in ("YX", "ZYX"):
        notes.append(f"it was trained on images with axes {axes}: give it images whose axes come in this order")


def _whole(config: Mapping[str, Any], key: str, default: int) -> int:
    number = config.get(key, default)
    if type(number) is not int or not 0 < number < 100:
        raise ModelError(
            f"{CONFIG} says {key} = {number!r}; it must be a small whole number, take the configuration of the model's folder"
        )
    return number


def _sizes(config: Mapping[str, Any], key: str, default: tuple[int, int, int]) -> list[int]:
    sizes = config.get(key, default)
    if not isinstance(sizes, list | tuple) or len(sizes) != 3:
        raise ModelError(f"{CONFIG} says {key} = {sizes!r}; it must be three whole numbers (Z, Y, X)")
    return [_whole({key: size}, key, 1) for size in sizes]
