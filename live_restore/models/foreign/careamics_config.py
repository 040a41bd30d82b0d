"""What CAREamics stores beside its weights: which network, and the statistics of the images it was trained on.

Receives the dictionary that lies in a checkpoint or in ``careamics.yaml``; hands on a checked `Configuration`, and the
normalisation in our words. Foreign names stop here. It does not know files, nor torch.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from live_restore.errors import ModelError
from live_restore.models.facts import FrozenRange, Normalisation

# What CAREamics adds to a spread before it divides by it.
_STD_EPS = 1e-6
_RANGE_EPS = 1e-8


def _listed(value: Any) -> Any:
    """One number for all channels is a list of one, no numbers are none."""
    if isinstance(value, int | float):
        return [value]
    return value or None


_Fractions = Annotated[list[Annotated[float, Field(ge=0, le=1)]], BeforeValidator(_listed), Field(min_length=1)]
_Stats = Annotated[list[float] | None, BeforeValidator(_listed)]


class Unet(BaseModel):
    """CAREamics' ``algorithm_config.model``, as far as it says which network it is."""

    architecture: Literal["UNet"]
    conv_dims: Literal[2, 3] = 2
    num_classes: Annotated[int, Field(ge=1, le=1024)] = 1
    in_channels: Annotated[int, Field(ge=1, le=1024)] = 1
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


class Algorithm(BaseModel):
    """CAREamics' ``algorithm_config``."""

    algorithm: Literal["care", "n2n", "n2v"]
    model: Unet


class Scheme(BaseModel):
    """CAREamics' ``data_config.normalization`` with the statistics of the training images."""

    name: Literal["mean_std", "quantile", "min_max", "none"] = "mean_std"
    per_channel: bool = True
    skip_target: bool = False
    lower_quantiles: _Fractions = [0.01]
    upper_quantiles: _Fractions = [0.99]
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

    def percentiles(self) -> tuple[float, float]:
        """Give the percentiles that were measured, of the first channel if they differ; 0 and 100 where none were."""
        if self.name != "quantile":
            return 0, 100
        low, high = 100 * self.lower_quantiles[0], 100 * self.upper_quantiles[0]
        return (low, high) if low < high else (0, 100)


class Data(BaseModel):
    """CAREamics' ``data_config``; until 0.0.22 the statistics lay directly in it."""

    axes: str = ""
    channels: list[int] | None = None
    normalization: Scheme | None = None
    image_means: _Stats = None
    image_stds: _Stats = None
    target_means: _Stats = None
    target_stds: _Stats = None

    def scheme(self) -> Scheme:
        """Give the normalisation, wherever it lies."""
        if self.normalization is not None:
            return self.normalization
        return Scheme(
            input_means=self.image_means,
            input_stds=self.image_stds,
            target_means=self.target_means,
            target_stds=self.target_stds,
        )


class Configuration(BaseModel):
    """What CAREamics stores beside the weights."""

    experiment_name: str = ""
    version: str = "unknown"
    algorithm_config: Algorithm
    data_config: Data


def check_configuration(stored: Any, label: str) -> Configuration:
    """Check a configuration.

    Raises
    ------
    ModelError
        If it lacks something, or describes what is no U-Net for restoration; names the field and its value.
    """
    try:
        return Configuration.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the configuration"
        raise ModelError(
            f"{label}: {where} is {str(first['input'])[:80]!r} ({first['msg']}); live_restore imports CAREamics' U-Nets of the "
            "algorithms care, n2n and n2v"
        ) from error


def normalisation(scheme: Scheme, label: str) -> Normalisation:
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
        raise ModelError(f"{label} was saved before its normalisation was measured; import a checkpoint of the training")
    target = _range(target_low, target_high, label)
    output: Literal["inverse", "frozen", "none"] = "none" if scheme.skip_target else "inverse" if target is None else "frozen"
    low_percentile, high_percentile = scheme.percentiles()
    return Normalisation(
        measure="mean_std" if scheme.name == "mean_std" else "percentiles",
        low_percentile=low_percentile,
        high_percentile=high_percentile,
        per_channel=scheme.per_channel,
        mode="frozen",
        frozen=frozen,
        output=output,
        output_range=target if output == "frozen" else None,
    )


_Stat = list[float] | None


def _ranges(scheme: Scheme) -> tuple[_Stat, _Stat, _Stat, _Stat]:
    """Give what becomes 0 and 1 in the input, and what 0 and 1 become in the output."""
    if scheme.name == "mean_std":
        high = _sum(scheme.input_means, scheme.input_stds)
        return scheme.input_means, high, scheme.target_means, _sum(scheme.target_means, scheme.target_stds)
    if scheme.name == "quantile":
        low, high = scheme.input_lower_quantile_values, scheme.input_upper_quantile_values
        return low, _raised(high), scheme.target_lower_quantile_values, scheme.target_upper_quantile_values
    return scheme.input_mins, _raised(scheme.input_maxes), scheme.target_mins, scheme.target_maxes


def _sum(means: _Stat, stds: _Stat) -> _Stat:
    return None if means is None or stds is None else [mean + std + _STD_EPS for mean, std in zip(means, stds, strict=False)]


def _raised(values: _Stat) -> _Stat:
    return None if values is None else [value + _RANGE_EPS for value in values]


def _range(low: list[float] | None, high: list[float] | None, label: str) -> FrozenRange | None:
    if low is None or high is None:
        return None
    try:
        return FrozenRange(low=tuple(low), high=tuple(high))
    except ValidationError as error:
        raise ModelError(f"{label}: its normalisation is impossible ({error.errors()[0]['msg']}); train it again") from error
