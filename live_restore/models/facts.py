"""What a model package says of itself under ``config.live_restore``: the facts a restoration needs.

Written by the importers and by training, read by `live_restore.models.package`, validated here and nowhere else.
It does not know where the package lies nor how its graph is run.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NonNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Architecture(_Facts):
    """Which network this is.

    Attributes
    ----------
    kind : str
        ``care``, ``projection_care``, ``rcan``, ``careamics_unet``, or ``onnx`` for a graph we only run.
    options : dict
        Constructor arguments of the network in `live_restore.models.nets` (empty for ``onnx``).
    parameters : int
        Number of trained numbers.
    """

    kind: Literal["care", "projection_care", "rcan", "careamics_unet", "onnx"]
    options: dict[str, bool | int | float | str | list[int] | None] = {}
    parameters: NonNegative = 0


class Geometry(_Facts):
    """How the graph treats space. Tuples have one entry per spatial axis, (Y, X) or (Z, Y, X).

    Attributes
    ----------
    halo : tuple of int
        Receptive-field radius in pixels: no output pixel depends on input further away.
    divisible_by : tuple of int
        Input sizes must be multiples of this.
    output_factor : tuple of int
        Output size over input size; 2 for a network that doubles. 0 for an axis that the network projects away.
    global_pooling : bool
        Whether pooled statistics of the whole image enter every pixel (channel attention): tiles then see less
        than the whole, whatever their halo.
    bytes_per_pixel : int
        Largest sum of float32 feature maps alive at once, per input pixel.
    flop_per_pixel : int
        Multiplications and additions per input pixel.
    """

    halo: tuple[NonNegative, ...]
    divisible_by: tuple[Positive, ...]
    output_factor: tuple[NonNegative, ...]
    global_pooling: bool = False
    bytes_per_pixel: Positive
    flop_per_pixel: NonNegative = 0

    @model_validator(mode="after")
    def _same_length(self) -> "Geometry":
        lengths = {len(self.halo), len(self.divisible_by), len(self.output_factor)}
        if lengths not in ({2}, {3}):
            raise ValueError(f"halo, divisible_by and output_factor need 2 or 3 entries each, alike; got {sorted(lengths)}")
        return self

    @property
    def n_dim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.halo)


class FrozenRange(_Facts):
    """The camera counts (or the author's units) that become 0 and 1, one entry per channel or one for all."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @model_validator(mode="after")
    def _ordered(self) -> "FrozenRange":
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"low has {len(self.low)} entries, high {len(self.high)}; they need equally many, at least one")
        if any(not low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"every high must exceed its low; got low={self.low}, high={self.high}")
        return self


class Normalisation(_Facts):
    """How camera counts become what the network was trained on, and back.

    Attributes
    ----------
    measure : {"percentiles", "mean_std", "none"}
        What is measured on an image when nothing is frozen.
    low_percentile, high_percentile : float
        For ``percentiles``: CSBDeep predicts with 2 and 99.8, 3D-RCAN with 2 and 99.9.
    per_channel : bool
        False: one range for all channels together (3D-RCAN).
    mode : {"frozen", "rolling", "volume"}
        ``frozen``: the range below, always. ``rolling``: measured per volume, followed slowly. ``volume``: measured
        on every volume on its own, as CSBDeep and 3D-RCAN do.
    frozen : FrozenRange or None
        The range measured at calibration.
    output : {"inverse", "frozen", "none"}
        How the network's output becomes counts: by the inverse of the input's range, by `output_range`, or not at
        all (an output that is no intensity, or other channels than came in).
    output_range : FrozenRange or None
        For ``output="frozen"``.
    """

    measure: Literal["percentiles", "mean_std", "none"] = "percentiles"
    low_percentile: Percent = 2.0
    high_percentile: Percent = 99.8
    per_channel: bool = True
    mode: Literal["frozen", "rolling", "volume"] = "volume"
    frozen: FrozenRange | None = None
    output: Literal["inverse", "frozen", "none"] = "inverse"
    output_range: FrozenRange | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Normalisation":
        if not self.low_percentile < self.high_percentile:
            raise ValueError(f"low_percentile {self.low_percentile} must be below high_percentile {self.high_percentile}")
        if self.mode == "frozen" and self.frozen is None:
            raise ValueError("mode 'frozen' needs the field 'frozen' with low and high")
        if self.output == "frozen" and self.output_range is None:
            raise ValueError("output 'frozen' needs the field 'output_range' with low and high")
        return self


class Provenance(_Facts):
    """Where the weights came from.

    Attributes
    ----------
    source_format : str
        e.g. ``csbdeep-h5``, ``csbdeep-savedmodel``, ``3d-rcan-hdf5``, ``careamics-ckpt``, ``bioimageio-onnx``, ``trained``.
    source_name : str
        File or folder name, without its path.
    source_sha256 : str
        Hash of the weight file as it was found.
    written_by : str
        Software and version recorded in the file (e.g. ``keras 2.8.0``), or ``unknown``.
    imported_by : str
        ``live_restore`` and its version.
    notes : tuple of str
        What the importer had to assume, in plain words.
    """

    source_format: str
    source_name: str
    source_sha256: str
    written_by: str = "unknown"
    imported_by: str
    notes: tuple[str, ...] = ()


class ModelFacts(_Facts):
    """Everything under ``config.live_restore`` of a model package.

    Attributes
    ----------
    format : 1
        Version of this schema.
    channels_in, channels_out : int
        Channels of the image that goes in and of the image that comes out. A probabilistic network's graph
        gives ``2 * channels_out``: first the means, then the Laplace scales.
    procedure : {"direct", "upsampling", "isotropic"}
        ``upsampling``: Z is interpolated by `z_factor` before the network. ``isotropic``: a 2D network over XZ and
        YZ planes of the volume interpolated along Z.
    """

    format: Literal[1] = 1
    architecture: Architecture
    geometry: Geometry
    channels_in: Positive = 1
    channels_out: Positive = 1
    probabilistic: bool = False
    procedure: Literal["direct", "upsampling", "isotropic"] = "direct"
    z_factor: Annotated[float, Field(ge=1)] | None = None
    normalisation: Normalisation = Normalisation()
    provenance: Provenance
    pixel_size_um: tuple[float, ...] | None = None
    channel: str | None = None
    light_levels: dict[str, float] = {}
    scores: dict[str, float] = {}
    limits: dict[str, float] = {}
    training_pairs_sha256: str | None = None

    @model_validator(mode="after")
    def _procedure_fits(self) -> "ModelFacts":
        n_dim = self.geometry.n_dim
        if self.procedure == "isotropic" and n_dim != 2:
            raise ValueError(f"procedure 'isotropic' needs a 2D network; this one has {n_dim} spatial axes")
        if self.procedure == "isotropic" and set(self.geometry.output_factor) != {1}:
            raise ValueError(f"procedure 'isotropic' needs a network that keeps sizes; got {self.geometry.output_factor}")
        if self.procedure == "upsampling" and n_dim != 3:
            raise ValueError(f"procedure 'upsampling' needs a 3D network; this one has {n_dim} spatial axes")
        return self

    @model_validator(mode="after")
    def _ranges_fit(self) -> "ModelFacts":
        rule = self.normalisation
        if rule.output == "inverse" and rule.per_channel and self.channels_in != self.channels_out:
            raise ValueError(
                f"output 'inverse' needs as many channels out as in; the model has {self.channels_in} in and "
                f"{self.channels_out} out: say 'none' or 'frozen'"
            )
        for name, found, channels in (
            ("frozen", rule.frozen, self.channels_in),
            ("output_range", rule.output_range, self.channels_out),
        ):
            if found and len(found.low) not in (1, channels):
                raise ValueError(f"normalisation.{name} has {len(found.low)} channels; give one, or the model's {channels}")
        return self
