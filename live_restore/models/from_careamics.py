"""The importer of CAREamics models: Lightning checkpoints (``.ckpt``) and the bioimage.io packages that CAREamics exports.

Receives the path of a checkpoint, or the files of such a package; hands on an `Imported`. CARE, Noise2Noise, Noise2Void and
N2V2 are read, as CAREamics 0.0.12 to 0.3 write them. Nothing in them is executed. It does not know the network's layers, which
are `live_restore.models.nets.careamics_unet`'s, nor packages' graphs.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from live_restore.errors import ModelError
from live_restore.models.conv_weights import check_torch
from live_restore.models.facts import Architecture, FrozenRange, Normalisation
from live_restore.models.imported import Imported, sha256_of
from live_restore.models.package_files import FILE_LIMIT, PackageFiles, open_files

CONFIG_NAME = "careamics.yaml"

# What CAREamics adds to a spread before it divides by it.
_STD_EPS = 1e-6
_RANGE_EPS = 1e-8

_CITES = {
    "care": "Weigert et al. 2018, Content-aware image restoration, Nature Methods. doi:10.1038/s41592-018-0216-7",
    "n2n": "Lehtinen et al. 2018, Noise2Noise: Learning image restoration without clean data. doi:10.48550/arXiv.1803.04189",
    "n2v": "Krull et al. 2019, Noise2Void - Learning denoising from single noisy images, CVPR. doi:10.1109/cvpr.2019.00223",
}
_N2V2_CITE = "Höck et al. 2022, N2V2 - Fixing Noise2Void checkerboard artifacts, ECCV. doi:10.1007/978-3-031-25069-9_33"


def _listed(value: Any) -> Any:
    """One number for all channels is a list of one, no numbers are none."""
    if isinstance(value, int | float):
        return [value]
    return value or None


_Stats = Annotated[list[float] | None, BeforeValidator(_listed)]


class _Unet(BaseModel):
    """CAREamics' ``algorithm_config.model``, as far as it says which network it is."""

    architecture: Literal["UNet"]
    conv_dims: Literal[2, 3] = 2
    num_classes: int = 1
    in_channels: int = 1
    depth: Annotated[int, Field(ge=1, le=10)] = 2
    num_channels_init: Annotated[int, Field(ge=1, le=1024)] = 32
    final_activation: Literal["None"] = "None"
    residual: bool = False
    n2v2: bool = False
    independent_channels: bool = True
    use_batch_norm: bool = True

    def options(self) -> dict[str, Any]:
        """Give the arguments of `CareamicsUnet`."""
        return {
            "n_dim": self.conv_dims,
            "channels_in": self.in_channels,
            "channels_out": self.num_classes,
            "depth": self.depth,
            "first_filters": self.num_channels_init,
            "batch_norm": self.use_batch_norm,
            "residual": self.residual,
            "independent_channels": self.independent_channels,
            "n2v2": self.n2v2,
        }


class _Algorithm(BaseModel):
    """CAREamics' ``algorithm_config``."""

    algorithm: Literal["care", "n2n", "n2v"]
    model: _Unet


class _Scheme(BaseModel):
    """CAREamics' ``data_config.normalization`` with the statistics of the training images."""

    name: Literal["mean_std", "quantile", "min_max", "none"] = "mean_std"
    per_channel: bool = True
    skip_target: bool = False
    lower_quantiles: _Stats = None
    upper_quantiles: _Stats = None
    input_means: _Stats = None
    input_stds: _Stats = None
    target_means: _Stats = None
    target_stds: _Stats = None
    input_lower_quantile_values: _Stats = None
    input_upper_quantile_values: _Stats = None
    target_lower_quantile_values: _Stats = None
    target_upper_quantile_values: _Stats = None
    input_mins: _Stats = None
    input_maxes: _Stats = None
    target_mins: _Stats = None
    target_maxes: _Stats = None


class _Data(BaseModel):
    """CAREamics' ``data_config``; until 0.0.22 the statistics lay directly in it."""

    axes: str = ""
    channels: list[int] | None = None
    normalization: _Scheme | None = None
    image_means: _Stats = None
    image_stds: _Stats = None
    target_means: _Stats = None
    target_stds: _Stats = None

    def scheme(self) -> _Scheme:
        """Give the normalisation, wherever it lies."""
        if self.normalization is not None:
            return self.normalization
        return _Scheme(
            input_means=self.image_means,
            input_stds=self.image_stds,
            target_means=self.target_means,
            target_stds=self.target_stds,
        )


class _Configuration(BaseModel):
    """What CAREamics stores beside the weights."""

    experiment_name: str = ""
    version: str = "unknown"
    algorithm_config: _Algorithm
    data_config: _Data


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
        weights_name = str(description["weights"]["pytorch_state_dict"]["source"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{files.path.name} has no PyTorch weights; export it from CAREamics again") from error
    if config_name is None:
        raise ModelError(f"{files.path.name} has no {CONFIG_NAME}, so CAREamics did not export it; import another package")
    content = files.read(weights_name)
    config = _configuration(files.read_yaml(config_name), files.path.name)
    return _imported(
        config,
        weights=_load(content, f"{files.path.name}/{weights_name}"),
        source_format="careamics-bioimageio",
        source_name=files.path.name,
        source_sha256=sha256_of(content),
        written_by=f"CAREamics {description.get('version', config.version)}",
        name=str(description.get("name") or files.path.stem),
        licence=_text(description.get("license")),
        authors=tuple(str(author["name"]) for author in description.get("authors") or () if "name" in author),
    )


def _read_checkpoint(path: Path) -> Imported:
    if path.stat().st_size > FILE_LIMIT:
        raise ModelError(
            f"{path.name} has {path.stat().st_size} bytes, more than the {FILE_LIMIT} of any U-Net; is it the right file?"
        )
    content = path.read_bytes()
    checkpoint = _load(content, path.name)
    config = _configuration(_stored_configuration(checkpoint, path.name), path.name)
    return _imported(
        config,
        weights=checkpoint.get("state_dict", {}),
        source_format="careamics-ckpt",
        source_name=path.name,
        source_sha256=sha256_of(content),
        written_by=f"CAREamics, configuration {config.version}",
        name=config.experiment_name or path.stem,
    )


def _imported(config: _Configuration, *, weights: dict[str, Any], **origin: Any) -> Imported:
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


def _configuration(stored: Any, label: str) -> _Configuration:
    try:
        return _Configuration.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the configuration"
        raise ModelError(
            f"{label}: {where} is {str(first['input'])[:80]!r} ({first['msg']}); live_restore imports CAREamics' U-Nets of the "
            "algorithms care, n2n and n2v"
        ) from error


def normalisation(scheme: _Scheme, label: str) -> Normalisation:
    """Translate CAREamics' normalisation, which is measured once on the training images and stored.

    Returns
    -------
    Normalisation
        Frozen. The output goes back by the target's statistics where there are some, otherwise by the input's.
    """
    if scheme.name == "none":
        return Normalisation(measure="none", output="none")
    low, high, target_low, target_high = _ranges(scheme)
    frozen = _range(low, high, label)
    if frozen is None:
        raise ModelError(f"{label} was saved before its normalisation was measured; train it, then import it")
    target = _range(target_low, target_high, label)
    output: Literal["inverse", "frozen", "none"] = "none" if scheme.skip_target else "inverse" if target is None else "frozen"
    lower, upper = (scheme.lower_quantiles or [0.01])[0], (scheme.upper_quantiles or [0.99])[0]
    return Normalisation(
        measure="mean_std" if scheme.name == "mean_std" else "percentiles",
        low_percentile=100 * lower if scheme.name == "quantile" else 0,
        high_percentile=100 * upper if scheme.name == "quantile" else 100,
        per_channel=scheme.per_channel,
        mode="frozen",
        frozen=frozen,
        output=output,
        output_range=target if output == "frozen" else None,
    )


_Ranges = tuple[list[float] | None, list[float] | None, list[float] | None, list[float] | None]


def _ranges(scheme: _Scheme) -> _Ranges:
    """Give what becomes 0 and 1 in the input, and what 0 and 1 become in the output."""
    if scheme.name == "mean_std":
        means, stds, target_means, target_stds = scheme.input_means, scheme.input_stds, scheme.target_means, scheme.target_stds
        return means, _sum(means, stds, _STD_EPS), target_means, _sum(target_means, target_stds, _STD_EPS)
    if scheme.name == "quantile":
        high = _sum(scheme.input_upper_quantile_values, None, _RANGE_EPS)
        return (
            scheme.input_lower_quantile_values,
            high,
            scheme.target_lower_quantile_values,
            scheme.target_upper_quantile_values,
        )
    return scheme.input_mins, _sum(scheme.input_maxes, None, _RANGE_EPS), scheme.target_mins, scheme.target_maxes


def _sum(first: list[float] | None, second: list[float] | None, eps: float) -> list[float] | None:
    if first is None:
        return None
    return [a + b + eps for a, b in zip(first, second or [0.0] * len(first), strict=False)]


def _range(low: list[float] | None, high: list[float] | None, label: str) -> FrozenRange | None:
    if low is None or high is None:
        return None
    try:
        return FrozenRange(low=tuple(low), high=tuple(high))
    except ValidationError as error:
        raise ModelError(f"{label}: its normalisation is impossible ({error.errors()[0]['msg']}); train it again") from error


def _cites(algorithm: _Algorithm) -> tuple[str, ...]:
    return (_CITES[algorithm.algorithm], *([_N2V2_CITE] if algorithm.model.n2v2 else []))


def _notes(config: _Configuration) -> tuple[str, ...]:
    notes = [f"trained by CAREamics as '{config.algorithm_config.algorithm}'; statistics of its training images are frozen"]
    if config.data_config.channels:
        notes.append(
            f"it was trained on the channels {config.data_config.channels} of its images; give it these, in this order"
        )
    if "T" in config.data_config.axes:
        notes.append(f"the axes of its training images were {config.data_config.axes}")
    return tuple(notes)


def _config_file(description: dict[str, Any]) -> str | None:
    """Find CAREamics' configuration among the attachments, which are a list since format 0.5 and were a dictionary in 0.4."""
    attachments = description.get("attachments") or ()
    entries = attachments.get("files", ()) if isinstance(attachments, dict) else attachments
    names = (str(entry.get("source", "")) if isinstance(entry, dict) else str(entry) for entry in entries)
    return next((name for name in names if Path(name).name == CONFIG_NAME), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
