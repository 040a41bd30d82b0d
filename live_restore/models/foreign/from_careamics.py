"""The importer of CAREamics models: Lightning checkpoints (``.ckpt``) and the bioimage.io packages that CAREamics exports.

Receives the path of a checkpoint, or the files of such a package; hands on an `Imported`. CARE, Noise2Noise, Noise2Void and
N2V2 are read, as CAREamics 0.0.12 to 0.3 write them. Nothing in them is executed. It does not know the network's layers, which
are `live_restore.models.nets.careamics_unet`'s, nor packages' graphs.
"""

from pathlib import Path
from typing import Any

from live_restore.errors import ModelError
from live_restore.models.facts import Architecture
from live_restore.models.foreign.careamics_config import Algorithm, Configuration, check_configuration, normalisation
from live_restore.models.foreign.conv_weights import check_torch
from live_restore.models.foreign.foreign_tensors import entries, words
from live_restore.models.foreign.imported import Imported, sha256_of
from live_restore.models.package_files import FILE_LIMIT, PackageFiles, open_files

CONFIG_NAME = "careamics.yaml"

_CITES = {
    "care": "Weigert et al. 2018, Content-aware image restoration, Nature Methods. doi:10.1038/s41592-018-0216-7",
    "n2n": "Lehtinen et al. 2018, Noise2Noise: Learning image restoration without clean data. doi:10.48550/arXiv.1803.04189",
    "n2v": "Krull et al. 2019, Noise2Void - Learning denoising from single noisy images, CVPR. doi:10.1109/cvpr.2019.00223",
}
_N2V2_CITE = "Höck et al. 2022, N2V2 - Fixing Noise2Void checkerboard artifacts, ECCV. doi:10.1007/978-3-031-25069-9_33"


def read(source: Path) -> Imported:
    """Read a CAREamics model.

    Parameters
    ----------
    source : Path
        A ``.ckpt``, or a bioimage.io package that CAREamics exported.

    Raises
    ------
    ModelError
        If it is neither, is damaged, holds Python objects, or an algorithm that cannot be run; or torch is missing.
    """
    check_torch()
    if source.is_dir() or source.suffix in (".zip", ".yaml", ".yml"):
        return read_package(open_files(source))
    return _read_checkpoint(source)


def is_careamics(description: dict[str, Any]) -> bool:
    """Tell whether a bioimage.io description is one that CAREamics wrote, with weights that only its network can hold."""
    weights = description.get("weights")
    return isinstance(weights, dict) and "pytorch_state_dict" in weights and _config_file(description) is not None


def read_package(files: PackageFiles) -> Imported:
    """Read a bioimage.io package that CAREamics exported."""
    check_torch()
    description = files.read_description()
    config_name = _config_file(description)
    try:
        weights = description["weights"]["pytorch_state_dict"]
        weights_name, weights_sha256 = str(weights["source"]), str(weights.get("sha256") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{files.path.name} has no PyTorch weights; export it from CAREamics again") from error
    if config_name is None:
        raise ModelError(f"{files.path.name} has no {CONFIG_NAME}, so CAREamics did not export it; import another package")
    content = files.read_unchanged(weights_name, weights_sha256)
    config = check_configuration(files.read_yaml(config_name), files.path.name)
    return _imported(
        config,
        weights=_load(content, f"{files.path.name}/{weights_name}"),
        source_format="careamics-bioimageio",
        source_name=files.path.name,
        source_sha256=sha256_of(content),
        written_by=f"CAREamics {description.get('version', config.version)}",
        name=str(description.get("name") or files.path.stem),
        licence=_text(description.get("license")),
        authors=tuple(str(author["name"]) for author in entries(description.get("authors")) if "name" in author),
    )


def _read_checkpoint(path: Path) -> Imported:
    if path.stat().st_size > FILE_LIMIT:
        raise ModelError(
            f"{path.name} has {path.stat().st_size} bytes, more than the {FILE_LIMIT} of any U-Net; is it the right file?"
        )
    content = path.read_bytes()
    checkpoint = _load(content, path.name)
    config = check_configuration(_stored_configuration(checkpoint, path.name), path.name)
    return _imported(
        config,
        weights=_state_dict(checkpoint, path.name),
        source_format="careamics-ckpt",
        source_name=path.name,
        source_sha256=sha256_of(content),
        written_by=f"CAREamics, configuration {config.version}",
        name=config.experiment_name or path.stem,
    )


def _imported(config: Configuration, *, weights: dict[str, Any], **origin: Any) -> Imported:
    from live_restore.models.nets.careamics_unet import net_with_weights

    unet = config.algorithm_config.model
    net = net_with_weights(unet.options(), weights, origin["source_name"])
    return Imported(
        net=net,
        architecture=Architecture(
            kind="careamics_unet", options=net.options, parameters=sum(tensor.numel() for tensor in net.parameters())
        ),
        channels_in=unet.in_channels,
        channels_out=unet.num_classes,
        normalisation=normalisation(config.data_config.scheme(), origin["source_name"]),
        cite=_cites(config.algorithm_config),
        notes=_notes(config),
        **origin,
    )


def _load(content: bytes, label: str) -> dict[str, Any]:
    from live_restore.models.nets.careamics_unet import load_checkpoint

    loaded = load_checkpoint(content, label)
    if not isinstance(loaded, dict):
        raise ModelError(f"{label} holds a {type(loaded).__name__}, no checkpoint; import the .ckpt that CAREamics wrote")
    return loaded


def _state_dict(checkpoint: dict[str, Any], label: str) -> dict[str, Any]:
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict):
        raise ModelError(
            f"{label} holds no weights (state_dict); import a .ckpt of the training, from its folder 'checkpoints'"
        )
    return weights


def _stored_configuration(checkpoint: dict[str, Any], label: str) -> dict[str, Any]:
    """Gather the configuration: in one piece until CAREamics 0.0.22, in three since 0.1."""
    model = checkpoint.get("hyper_parameters")
    if not isinstance(model, dict) or "algorithm_config" not in model:
        raise ModelError(
            f"{label} holds weights but no CAREamics configuration, so the network is unknown; import a .ckpt of the training, "
            "from its folder 'checkpoints', or export the model from CAREamics as a bioimage.io package"
        )
    data, info = checkpoint.get("datamodule_hyper_parameters"), checkpoint.get("careamics_info")
    parts = [part for part in (model, data, info) if isinstance(part, dict)]
    stored = {key: value for part in parts for key, value in part.items()}
    if "data_config" not in stored:
        raise ModelError(
            f"{label} does not hold the normalisation of its training; save the model by CAREamist, which stores it"
        )
    return stored


def _cites(algorithm: Algorithm) -> tuple[str, ...]:
    return (_CITES[algorithm.algorithm], *([_N2V2_CITE] if algorithm.model.n2v2 else []))


def _notes(config: Configuration) -> tuple[str, ...]:
    notes = [f"trained by CAREamics as '{config.algorithm_config.algorithm}'; statistics of its training images are frozen"]
    if config.data_config.normalization is None and config.data_config.target_means is not None:
        notes.append(
            "CAREamics 0.0.x brought its predictions back by the statistics of the noisy images; here they go back by those of "
            "the clean images that the network was trained on, as its later versions do"
        )
    if config.data_config.channels:
        notes.append(
            f"it was trained on the channels {config.data_config.channels} of its images; give it these, in this order"
        )
    if "T" in config.data_config.axes:
        notes.append(f"the axes of its training images were {config.data_config.axes}")
    return tuple(notes)


def _config_file(description: dict[str, Any]) -> str | None:
    """Find CAREamics' configuration among the attachments, which are a list since format 0.5 and were a dictionary in 0.4."""
    attachments = description.get("attachments")
    if isinstance(attachments, dict):
        attachments = attachments.get("files")
    names = words(attachments) + [str(entry.get("source")) for entry in entries(attachments)]
    return next((name for name in names if Path(name).name == CONFIG_NAME), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
