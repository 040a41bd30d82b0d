"""The structure of a CARE network, read off the names and shapes of its convolutions.

Receives convolutions in any order; hands on the options of `CareNet` or `ProjectionCareNet` and the same convolutions in
the network's order, every shape checked. It does not know files, nor what the weights do not tell (residual, last activation).
"""

import re
from collections.abc import Sequence
from typing import Any

from live_restore.errors import ModelError
from live_restore.models.foreign.conv_weights import ConvWeights, KernelShape, check_layers

FIRST_LAYER = "down_level_0_no_0"
_HEAD = re.compile(r"conv[23]d(?:_(\d+))?")

Options = dict[str, Any]


def is_projection(convolutions: Sequence[ConvWeights]) -> bool:
    """Whether there is a 3D part before a 2D network, as only ProjectionCARE has."""
    return {conv.n_dim for conv in convolutions} == {2, 3}


def unet_structure(convolutions: Sequence[ConvWeights]) -> tuple[Options, list[ConvWeights]]:
    """Read the structure of CSBDeep's U-Net.

    Returns
    -------
    options : dict
        n_dim, channels_in, channels_out, depth, kernel, first_filters, probabilistic: arguments of `CareNet`.
    convolutions : list of ConvWeights
        In the order of ``CareNet.convolutions()``.

    Raises
    ------
    ModelError
        If a layer is missing, is not CARE's, or has another shape than it would have.
    """
    by_name = _by_name(convolutions)
    if FIRST_LAYER not in by_name:
        raise ModelError(
            f"there is no layer '{FIRST_LAYER}' among {_some(by_name)}; these are not the weights of a CARE network"
        )
    first, heads = by_name[FIRST_LAYER], _numbered(convolutions)
    options = {
        "n_dim": first.n_dim,
        "channels_in": first.channels_in,
        "channels_out": heads[0].channels_out if heads else 0,
        "depth": sum(re.fullmatch(r"down_level_\d+_no_0", name) is not None for name in by_name),
        "kernel": _one_size(first),
        "first_filters": first.channels_out,
        "probabilistic": len(heads) == 2,
    }
    expected = _unet_layers(options)
    found = [*_in_order(by_name, [name for name, _ in expected], len(heads)), *heads]
    expected += _head_layers(options)
    check_layers(found, expected, f"CARE with depth {options['depth']} and {options['first_filters']} filters")
    return options, found


def projection_structure(
    convolutions: Sequence[ConvWeights], n_depth: int, pool: Sequence[int]
) -> tuple[Options, list[ConvWeights]]:
    """Read the structure of ProjectionCARE.

    Parameters
    ----------
    convolutions : sequence of ConvWeights
    n_depth : int
        Times the 3D part pools.
    pool : sequence of int
        By how much, along (Z, Y, X). Neither leaves a trace in the weights.

    Returns
    -------
    options : dict
        Arguments of `ProjectionCareNet`.
    convolutions : list of ConvWeights
        In the order of ``ProjectionCareNet.convolutions()``.
    """
    surface = _numbered([conv for conv in convolutions if conv.n_dim == 3])
    options, flat = unet_structure([conv for conv in convolutions if conv.n_dim == 2])
    per_depth, rest = divmod(len(surface) - 1, 2 * n_depth + 1)
    if rest or not per_depth:
        raise ModelError(
            f"the projection has {len(surface)} convolutions, which no number of them per level makes with depth {n_depth}"
        )
    first = surface[0]
    filters = [first.channels_out] * (len(surface) - 1)
    chain = zip([options["channels_in"], *filters], [*filters, 1], strict=True)
    expected = [(f"convolution {i} of the projection", (*first.size, *channels)) for i, channels in enumerate(chain)]
    check_layers(surface, expected, f"ProjectionCARE with depth {n_depth} and {first.channels_out} filters")
    projection = {"proj_n_depth": n_depth, "proj_n_filt": first.channels_out, "proj_n_conv_per_depth": per_depth}
    return options | projection | {"n_dim": 3, "proj_kern": list(first.size), "proj_pool": list(pool)}, surface + flat


def _by_name(convolutions: Sequence[ConvWeights]) -> dict[str, ConvWeights]:
    by_name = {conv.name: conv for conv in convolutions}
    if len(by_name) != len(convolutions):
        raise ModelError("two layers of the file have the same name; these are not the weights of a CARE network")
    return by_name


def _numbered(convolutions: Sequence[ConvWeights]) -> list[ConvWeights]:
    """Give the layers with automatic names (``conv2d``, ``conv2d_1``, ...) in the order in which they were made.

    Keras counts through a whole process, so only the order of the numbers means anything; of two heads, the first made
    is the mean, the second the scale.
    """
    numbers = {conv.name: match for conv in convolutions if (match := _HEAD.fullmatch(conv.name))}
    return sorted((conv for conv in convolutions if conv.name in numbers), key=lambda conv: int(numbers[conv.name][1] or 0))


def _one_size(conv: ConvWeights) -> int:
    if len(set(conv.size)) != 1:
        raise ModelError(f"layer '{conv.name}' has a kernel of {conv.size} pixels; CARE's are equally long along every axis")
    return conv.size[0]


def _unet_layers(options: Options) -> list[tuple[str, KernelShape]]:
    from live_restore.models.nets.care import unet_layers

    size = (options["kernel"],) * options["n_dim"]
    layers = unet_layers(options["channels_in"], options["depth"], options["first_filters"])
    return [(name, (*size, channels_in, channels_out)) for name, channels_in, channels_out in layers]


def _head_layers(options: Options) -> list[tuple[str, KernelShape]]:
    heads = ("head of the mean", "head of the scale") if options["probabilistic"] else ("head",)
    return [(head, (*(1,) * options["n_dim"], options["first_filters"], options["channels_out"])) for head in heads]


def _in_order(by_name: dict[str, ConvWeights], names: Sequence[str], heads: int) -> list[ConvWeights]:
    strange = [name for name in by_name if name not in names and not _HEAD.fullmatch(name)]
    missing = [name for name in names if name not in by_name]
    if strange or missing:
        what = f"layer {_some(strange)} is none of CARE's" if strange else f"layer {_some(missing)} of CARE is missing"
        raise ModelError(f"{what}; the file is incomplete, or holds another network")
    if heads not in (1, 2):
        raise ModelError(f"there are {heads} heads (conv2d..., conv3d...); CARE has one, or two if it is probabilistic")
    return [by_name[name] for name in names]


def _some(names: Sequence[str] | dict[str, ConvWeights]) -> str:
    shown = [f"'{name}'" for name in list(names)[:4]]
    return ", ".join(shown) + (", ..." if len(names) > 4 else "") if shown else "none at all"
