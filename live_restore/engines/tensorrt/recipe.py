"""The recipe of a TensorRT plan: precisions, shape profiles, targets and tolerance, as a person writes them in TOML.

Receives a recipe's file, or a graph for which one is looked for; hands on frozen sections. It does not know TensorRT: shapes
are numbers, targets are compute capabilities.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from math import log, prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from live_restore.config import Section, read_toml
from live_restore.engines.cache.user_folders import config_folder
from live_restore.engines.certificates.certificate import USUAL, Tolerance
from live_restore.engines.graphs.onnx_file import OnnxFile, read_onnx
from live_restore.engines.graphs.pooling import MEANS, WEIGHTS
from live_restore.errors import EngineError

BuildPrecision = Literal["f16", "bf16", "f32"]
TargetName = Literal["this", "rtx20", "rtx30", "rtx40", "rtx50"]

# Compute capabilities by the generation of the card. TensorRT for RTX makes the code for the very card when it loads a plan.
CAPABILITIES: dict[str, tuple[int, int]] = {"rtx20": (7, 5), "rtx30": (8, 6), "rtx40": (8, 9), "rtx50": (12, 0)}

FOLDER = "tensorrt_engines"
_IMAGE_MEANS = ("GlobalAveragePool", "ReduceMean")
_AXES: dict[int, Literal["YX", "ZYX"]] = {4: "YX", 5: "ZYX"}

Size = Annotated[int, Field(ge=1, le=65536)]


class Profile(Section):
    """A range of shapes that one plan takes, and the one it is fastest at.

    Attributes
    ----------
    name : str
        ``frames``, ``tiles``, ``volumes``.
    min, opt, max : tuple of int
        (images at once, [Z,] Y, X); the channels are those of the network.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    min: tuple[Size, ...]
    opt: tuple[Size, ...]
    max: tuple[Size, ...]

    @model_validator(mode="after")
    def _sizes_rise(self) -> "Profile":
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(f"min, opt and max of {self.name!r} must have equally many sizes")
        if any(not low <= best <= high for low, best, high in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError(f"{self.name!r} needs min <= opt <= max in every axis; it has {self.min}, {self.opt}, {self.max}")
        return self

    def takes(self, batch: int, sizes: tuple[int, ...]) -> bool:
        """Whether a batch of so many images of these sizes, ([Z,] Y, X), is within the range."""
        shape = (batch, *sizes)
        if len(shape) != len(self.min):
            return False
        return all(low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True))

    def __str__(self) -> str:
        smallest, best, largest = ("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))
        return f"{self.name} {best}" if smallest == largest else f"{self.name} {smallest}..{largest}, best {best}"


class Accepted(Section):
    """What a plan may differ from float32; see `live_restore.engines.certificates.certificate.Tolerance`."""

    psnr_loss_db: float = Field(default=USUAL.psnr_loss_db, gt=0)
    relative_error: float = Field(default=USUAL.relative_error, gt=0)
    bias: float = Field(default=USUAL.bias, gt=0)
    relative_error_alone: float = Field(default=USUAL.relative_error_alone, gt=0)

    def limits(self) -> Tolerance:
        """Give them as the certificate takes them."""
        return Tolerance(**self.model_dump())


class Recipe(Section):
    """How the plans of one kind of network are built.

    Attributes
    ----------
    name : str
        That of its file.
    about : str
        One line for the screen.
    axes : {"YX", "ZYX"}
        Spatial axes of the networks it is for.
    attention : bool
        Whether it is for networks that take means over the whole image (RCAN) or for those that take none (CARE).
    precisions : tuple of {"f16", "bf16", "f32"}
        The first is the one that is built if none is asked for.
    targets : tuple of {"this", "rtx20", "rtx30", "rtx40", "rtx50"}
        What it has been thought through for.
    tf32 : bool
        Let f32 round the factors of its products to 10 bits (TF32), as TensorRT does unless told otherwise.
    tolerance : Accepted
    profiles : tuple of Profile
        One plan is built for each.
    """

    examples: ClassVar[str] = "tensorrt_engines"

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    about: str = ""
    axes: Literal["YX", "ZYX"]
    attention: bool
    precisions: tuple[BuildPrecision, ...] = Field(default=("f16", "f32"), min_length=1)
    targets: tuple[TargetName, ...] = Field(default=("this", "rtx30", "rtx40", "rtx50"), min_length=1)
    tf32: bool = False
    tolerance: Accepted = Accepted()
    profiles: tuple[Profile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _profiles_fit(self) -> "Recipe":
        names = [profile.name for profile in self.profiles]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two profiles are called {twice[0]!r}")
        for profile in self.profiles:
            if len(profile.min) != 1 + len(self.axes):
                raise ValueError(f"profile {profile.name!r} must give 1 + {len(self.axes)} sizes: images at once, {self.axes}")
        return self

    @property
    def sha256(self) -> str:
        """Hash of all that it says but its profiles, which are counted one by one."""
        return hashlib.sha256(self.model_dump_json(exclude={"profiles", "about"}).encode()).hexdigest()

    def profile_for(self, batch: int, sizes: tuple[int, ...]) -> Profile | None:
        """Give the profile for a batch of so many images of these sizes, ([Z,] Y, X).

        Returns
        -------
        Profile or None
            Of those that take it, the one whose best shape has the nearest number of pixels; None if none takes it.
        """
        taking = [profile for profile in self.profiles if profile.takes(batch, sizes)]
        pixels = prod((batch, *sizes))
        return min(taking, key=lambda profile: abs(log(prod(profile.opt) / pixels)), default=None)


def exactly(batch: int, sizes: tuple[int, ...]) -> Profile:
    """Make the profile of one shape and no other: faster, and for shapes that repeat."""
    shape = (batch, *sizes)
    return Profile(name="exact", min=shape, opt=shape, max=shape)


def recipes_folder() -> Path:
    """Where the recipes lie: in the installed package, or beside it in the repository.

    Raises
    ------
    EngineError
        If they are in neither place.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / FOLDER, package.parent / FOLDER):
        if any(folder.glob("*.toml")):
            return folder
    raise EngineError(
        f"the build recipes are not in {package / FOLDER}; install live_restore again, or give one: --recipe FILE"
    )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no TOML, or says what cannot be.
    """
    return read_toml(path, Recipe)


@cache
def shipped_recipes() -> tuple[Recipe, ...]:
    """Read the recipes that come with live_restore."""
    return tuple(read_recipe(path) for path in sorted(recipes_folder().glob("*.toml")))


def own_recipes_folder() -> Path:
    """Where a user's own recipes are looked for; they go before those that come with live_restore."""
    return config_folder() / FOLDER


def recipe_for(onnx_bytes: bytes) -> Recipe:
    """Choose the recipe for a graph: by its spatial axes, and by whether it takes means over the image.

    Parameters
    ----------
    onnx_bytes : bytes
        A plain network, or one made from it by `live_restore.engines.graphs.counts_graph` or
        `live_restore.engines.graphs.pooling`.

    Returns
    -------
    Recipe
        Of those that fit the user's own, if there is one.

    Raises
    ------
    ConfigError
        If one of the user's own is none.
    EngineError
        If there is no recipe for it.
    ModelError
        If the bytes are no graph.
    """
    file = read_onnx(onnx_bytes)
    axes, attention = _axes(file), _has_attention(file)
    own = (read_recipe(path) for path in sorted(own_recipes_folder().glob("*.toml")))
    for recipe in (*own, *shipped_recipes()):
        if recipe.axes == axes and recipe.attention == attention:
            return recipe
    raise EngineError(
        f"there is no build recipe for a network with {len(_sizes(file))} axes {'with' if attention else 'without'} attention "
        f"in {recipes_folder()}; write one, beginning from care2d.toml, and put it into {own_recipes_folder()}"
    )


def fits(recipe: Recipe, onnx_bytes: bytes) -> bool:
    """Whether a recipe is for networks with the axes of this one."""
    return recipe.axes == _axes(read_onnx(onnx_bytes))


def _sizes(file: OnnxFile) -> Sequence[Any]:
    sizes: Sequence[Any] = file.inputs[0].type.tensor_type.shape.dim
    return sizes


def _axes(file: OnnxFile) -> str | None:
    return _AXES.get(len(_sizes(file)))


def _has_attention(file: OnnxFile) -> bool:
    if {value.name for value in file.inputs} & {WEIGHTS, MEANS}:
        return True
    # the mean of the result, which a graph may give beside it, is no attention
    return any(node.op in _IMAGE_MEANS and not set(node.outputs) & set(file.output_names) for node in file.nodes)
