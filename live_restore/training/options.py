"""All that can be chosen about a training, in one TOML that is saved with the model: `TrainingOptions`.

Receives a TOML file, or the name of a preset; hands on frozen sections, checked once. It does not know pairs, nor torch:
whether a network can be built from its options is asked of `live_restore.models.nets`.

What is worth knowing about every number stands in the sections; what the presets are worth in ``docs/training.md``.
"""

from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from live_restore.config import NotNegative, Positive, Section, check, read_toml
from live_restore.training.toml_text import to_toml

Kind = Literal["care", "rcan"]
Loss = Literal["mae", "mse", "laplace", "charbonnier"]
Share = Annotated[float, Field(ge=0, le=1)]
AtLeastOne = Annotated[int, Field(ge=1)]
NetOption = bool | int | float | str

# What a network of each kind may be told, as in its class; n_dim has its own place, one image goes in and one comes out.
NET_OPTIONS = {
    "care": ("depth", "kernel", "first_filters", "residual", "last_activation", "probabilistic", "entry", "skip_kernel"),
    "rcan": ("channels", "blocks", "groups", "reduction", "residual_scaling"),
}


class Network(Section):
    """[network]: which network is trained.

    Attributes
    ----------
    kind : {"care", "rcan"}
    n_dim : {2, 3}
        2 for images, 3 for stacks.
    options : dict
        Of the network, see `live_restore.models.nets`; what is missing takes the network's default.
    """

    kind: Kind = "care"
    n_dim: Literal[2, 3] = 2
    options: dict[str, NetOption] = Field(default={})

    @model_validator(mode="after")
    def _options_exist(self) -> Self:
        names = NET_OPTIONS[self.kind]
        for word in self.options:
            if word not in names:
                near = get_close_matches(word.lower(), names, n=1, cutoff=0.5)
                cure = f"did you mean {near[0]}?" if near else f"its options are {', '.join(names)}"
                raise ValueError(f"a {self.kind} network has no option {word!r}; {cure}")
        return self

    @property
    def probabilistic(self) -> bool:
        """Whether it also predicts how sure it is."""
        return bool(self.options.get("probabilistic", False))

    @property
    def net_options(self) -> dict[str, NetOption]:
        """What `live_restore.models.nets.build_net` is given."""
        return {"n_dim": self.n_dim, **self.options}

    @property
    def divisible_by(self) -> int:
        """Sizes must be multiples of this, on every axis."""
        entry, depth = int(self.options.get("entry", 1)), int(self.options.get("depth", 2))
        return entry * 2**depth if self.kind == "care" else 1


class PairChoice(Section):
    """[pairs]: which pairs are learned from, and which are kept apart to judge by.

    Attributes
    ----------
    channel : str or None
        None: all channels, which one network then learns together.
    position : str or None
        A regular expression with one group that gives the position from a file's name, for folders without a pair log.
    held_out_fraction : float
        Of the positions, where no split was written down; never less than one.
    held_out : tuple of str
        Names of positions, instead of a fraction.
    check : bool
        Whether pairs of folders without a pair log are looked at first, and bad ones left out.
    """

    channel: str | None = None
    position: str | None = None
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    held_out: tuple[str, ...] = ()
    check: bool = True


class Sampling(Section):
    """[sampling]: how patches are cut.

    Attributes
    ----------
    patches : tuple of ([Z,] Y, X)
        Sizes, of which every batch draws one. In 3D give several depths, and take deeper stacks: a network that has only seen
        one depth knows every plane by its distance to the padding.
    batch : int
        Patches in a step, over all processes together.
    signal : float
        Share of the patches that lie on signal, dim or bright alike; the others lie anywhere.
    patches_per_image : int
        Cut from one image before the next is read: more where images are compressed and do not fit in memory.
    memory_mb : int
        For images that must be decoded before they can be cut; others stay on the disk.
    """

    patches: tuple[tuple[AtLeastOne, ...], ...] = Field(default=((96, 96),), min_length=1)
    batch: AtLeastOne = 8
    signal: Share = 0.5
    patches_per_image: AtLeastOne = 1
    memory_mb: AtLeastOne = 1024


class Augment(Section):
    """[augment]: what is done to a patch, to low and high alike; nothing interpolates.

    Attributes
    ----------
    flips, rotations : bool
        In Y and X, by multiples of 90°.
    flip_z : bool
        Only for optics that look the same from above and below; most do not.
    thinning : tuple of float, or None
        Smallest and largest part of its photons that a low image keeps (see `live_restore.training.thinning`): a network that
        has seen dimmer images than were taken. Only where the camera's offset and gain are known.
    """

    flips: bool = True
    rotations: bool = True
    flip_z: bool = False
    thinning: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _thinning_takes_away(self) -> Self:
        if self.thinning is not None and not 0 < self.thinning[0] <= self.thinning[1] <= 1:
            raise ValueError(f"thinning {list(self.thinning)} must be two parts above 0 and up to 1, the smaller first")
        return self


class Fit(Section):
    """[fit]: how the network is fitted.

    Attributes
    ----------
    loss : {"mae", "mse", "laplace", "charbonnier"}
        ``laplace`` for probabilistic networks, and only for them.
    learning_rate : float
        The highest; it rises for the part `warm_up` of the steps and falls as a cosine.
    beta2 : float
        How long AdamW remembers the size of gradients: about ``1 / (1 - beta2)`` steps.
    weight_decay : float
    warm_up : float
    gradient_norm : float
        Longer gradients are cut to this length; 0: never.
    minutes : float or None
        Wall time of the whole fit; the schedule fits itself to it.
    steps : int or None
        Instead of minutes, or as a second limit: what comes first ends it.
    precision : {"auto", "f32", "bf16", "f16"}
        ``auto``: the fastest that is safe on this device.
    ema : float
        Weights are averaged over about ``1 / (1 - ema)`` steps; 0: not at all.
    members : int
        Networks of an ensemble.
    seed : int
    patience : int
        Validations without an improvement after which it stops early; 0: it never does.
    validation_share : float
        Of the time, for looking at held-out positions.
    """

    loss: Loss = "mae"
    learning_rate: Positive = 1e-3
    beta2: float = Field(default=0.999, ge=0, lt=1)
    weight_decay: NotNegative = 0.0
    warm_up: Share = 0.03
    gradient_norm: NotNegative = 1.0
    minutes: Positive | None = None
    steps: AtLeastOne | None = None
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    ema: float = Field(default=0.999, ge=0, lt=1)
    members: AtLeastOne = 1
    seed: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    validation_share: float = Field(default=0.08, gt=0, le=0.5)

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("neither minutes nor steps is given; say one of them, or both: what comes first ends it")
        return self


class Simulate(Section):
    """[simulate]: low light made up from high-light images, for those who have no pairs.

    Attributes
    ----------
    photons : tuple of float
        Smallest and largest number of photons in the brightest pixels (percentile 99.9) of a low-light image.
    offset_adu, gain_adu_per_e, read_noise_e : float
        Of the camera that is to be simulated.
    quantum_efficiency : float
    pattern : bool
        Whether its pixels differ as those of a scientific CMOS camera do, hot pixels among them.
    background : float
        Up to this part of the peak is added as even light, as some specimens shine everywhere.
    blur_px : tuple of float
        Smallest and largest width (standard deviation in Y and X) by which the low-light image is blurred more than the high
        one, so that the network learns to undo that as well.
    blur_z_px : tuple of float
        The same along Z.
    high_offset_adu, high_gain_adu_per_e : float or None
        Of the camera that took the high-light images. Where given, low light is made by drawing lots for the electrons that
        were really there, and the target is what is left of them; otherwise the images are taken for free of noise.
    """

    photons: tuple[Positive, Positive] = (4.0, 100.0)
    offset_adu: NotNegative = 100.0
    gain_adu_per_e: Positive = 2.0
    read_noise_e: NotNegative = 1.2
    quantum_efficiency: float = Field(default=0.7, gt=0, le=1)
    pattern: bool = True
    background: Share = 0.2
    blur_px: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    blur_z_px: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    high_offset_adu: NotNegative | None = None
    high_gain_adu_per_e: Positive | None = None

    @model_validator(mode="after")
    def _ranges_and_halves(self) -> Self:
        for name in ("photons", "blur_px", "blur_z_px"):
            smallest, largest = getattr(self, name)
            if smallest > largest:
                raise ValueError(f"{name} {[smallest, largest]} must have the smaller first")
        if (self.high_offset_adu is None) != (self.high_gain_adu_per_e is None):
            raise ValueError("high_offset_adu and high_gain_adu_per_e are only of use together; give both, or neither")
        return self

    @property
    def blurs(self) -> bool:
        """Whether the low-light image is blurred at all."""
        return self.blur_px[1] > 0 or self.blur_z_px[1] > 0


class Scaling(Section):
    """[normalisation]: which counts the network sees as 0 and 1, and will see in use.

    Attributes
    ----------
    mode : {"volume", "frozen"}
        ``volume``: percentiles of every low image on its own. ``frozen``: those of all training images together, for ever.
    low_percentile, high_percentile : float
    """

    mode: Literal["volume", "frozen"] = "volume"
    low_percentile: float = Field(default=2.0, ge=0, le=100)
    high_percentile: float = Field(default=99.8, ge=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low_percentile < self.high_percentile:
            raise ValueError(f"low_percentile {self.low_percentile} must be below high_percentile {self.high_percentile}")
        return self


class TrainingOptions(Section):
    """All that can be chosen about a training; see the sections."""

    network: Network = Network()
    pairs: PairChoice = PairChoice()
    sampling: Sampling = Sampling()
    augment: Augment = Augment()
    fit: Fit
    normalisation: Scaling = Scaling()
    simulate: Simulate | None = None

    @model_validator(mode="after")
    def _patches_fit_the_network(self) -> Self:
        n_dim, step = self.network.n_dim, self.network.divisible_by
        for patch in self.sampling.patches:
            if len(patch) != n_dim:
                axes = "Y, X" if n_dim == 2 else "Z, Y, X"
                raise ValueError(f"patch {list(patch)} has {len(patch)} sizes; a {n_dim}D network needs {n_dim}: [{axes}]")
            if any(size % step for size in patch):
                fits = [max(step, round(size / step) * step) for size in patch]
                raise ValueError(f"patch {list(patch)} cannot be halved as often as the network does; use {fits}")
        return self

    @model_validator(mode="after")
    def _loss_fits_the_network(self) -> Self:
        if (self.fit.loss == "laplace") != self.network.probabilistic:
            cure = (
                'write probabilistic = true in [network.options], or loss = "mae"'
                if self.fit.loss == "laplace"
                else 'write loss = "laplace" in [fit], or probabilistic = false'
            )
            raise ValueError(
                f"loss {self.fit.loss!r} does not train this network: laplace needs, and alone trains, a scale; {cure}"
            )
        return self

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read options.

        Raises
        ------
        ConfigError
            If the file cannot be read, is no TOML, or says what cannot be.
        """
        return read_toml(path, cls)

    def to_toml(self) -> str:
        """Write them in full, such that `from_file` gives the same."""
        return to_toml(self.model_dump(mode="json", exclude_none=True))

    def changed(self, **sections: dict[str, Any]) -> Self:
        """Change some words, e.g. ``options.changed(fit={"minutes": 4, "steps": None})``.

        Raises
        ------
        ConfigError
            If that says what cannot be.
        """
        words = self.model_dump()
        for section, changes in sections.items():
            words[section] = {**(words.get(section) or {}), **changes}
        return check(words, type(self), "the options")

    def with_minutes(self, minutes: float) -> Self:
        """Take this much wall time, in place of what was said."""
        return self.changed(fit={"minutes": minutes, "steps": None})

    def with_steps(self, steps: int) -> Self:
        """Take this many steps, in place of what was said."""
        return self.changed(fit={"minutes": None, "steps": steps})

    @property
    def pixels_per_step(self) -> int:
        """Pixels of the largest batch."""
        return self.sampling.batch * max(prod(patch) for patch in self.sampling.patches)
