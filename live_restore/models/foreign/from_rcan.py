"""The importer of 3D-RCAN's weight files (``weights_<epoch>_<loss>.hdf5``), for images and volumes.

Receives the path of such a file or of the folder of a training; hands on an `Imported`. A file holds layers whose names mean
nothing, so the network is read off the sequence of its kernels. The layers' code in the file is never looked at. It does not
know packages or images.
"""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from live_restore.errors import ModelError
from live_restore.models.facts import Architecture, Normalisation
from live_restore.models.foreign.conv_weights import ConvWeights, KernelShape, built, check_layers, check_torch, count
from live_restore.models.foreign.imported import Imported, sha256_of
from live_restore.models.foreign.keras_h5 import KerasFile, read_keras_h5

# e.g. weights_087_0.03305121.hdf5: epoch, validation loss
CHECKPOINT = re.compile(r"weights_(\d+)_(\d+(?:\.\d+)?)\.hdf5")

_KERNEL = 3
# Two convolutions and an attention of two 1-pixel ones.
_BLOCK = [3, 3, 1, 1]
_PERCENTILES_ASSUMED = "3D-RCAN does not store its percentiles; its defaults 2 and 99.9, all channels together, are taken"
_NOT_RCAN = "these are not the weights of a 3D-RCAN"

Options = dict[str, Any]


def read(source: Path, weights: Path | None = None) -> Imported:
    """Read a 3D-RCAN model.

    Parameters
    ----------
    source : Path
        A weight file, or the folder of a training. Of a folder, the checkpoint with the smallest loss in its name is read,
        as 3D-RCAN does.
    weights : Path, optional
        Which weight file of the folder: a name in it, or a path.

    Raises
    ------
    ModelError
        If it is no such file, is damaged, its layers are not those of the network, or torch is missing.
    """
    check_torch()
    path = _chosen_weights(source, weights)
    file = read_keras_h5(path)
    options = structure(file.convolutions)
    net = built("rcan", options, file.convolutions)
    same_channels = options["channels_in"] == options["channels_out"]
    return Imported(
        net=net,
        architecture=Architecture(kind="rcan", options=net.options, parameters=count(file.convolutions)),
        channels_in=options["channels_in"],
        channels_out=options["channels_out"],
        normalisation=Normalisation(high_percentile=99.9, per_channel=False, output="inverse" if same_channels else "none"),
        source_format="3d-rcan-hdf5",
        source_name=path.name,
        source_sha256=sha256_of(path),
        written_by=file.written_by,
        notes=_notes(file),
        name=path.resolve().parent.name if CHECKPOINT.fullmatch(path.name) else path.stem,
    )


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a training, the smallest loss first; of equal losses the latest epoch first."""
    found = {path: match for path in folder.glob("*.hdf5") if (match := CHECKPOINT.fullmatch(path.name))}
    return sorted(found, key=lambda path: (float(found[path][2]), -int(found[path][1])))


def structure(convolutions: Sequence[ConvWeights]) -> Options:
    """Read the structure of the network off its convolutions, which lie in the order of the network.

    Returns
    -------
    dict
        Arguments of `RcanNet`.

    Raises
    ------
    ModelError
        If no RCAN has such convolutions.
    """
    sizes = [_one_size(conv) for conv in convolutions]
    blocks, tail = _groups(sizes)
    first, last = convolutions[0], convolutions[-1]
    attention = convolutions[1 + _BLOCK.index(1)]
    options = {
        "n_dim": first.n_dim,
        "channels_in": first.channels_in,
        "channels_out": last.channels_out,
        "channels": first.channels_out,
        "blocks": blocks[0],
        "groups": len(blocks),
        "reduction": first.channels_out // max(attention.channels_out, 1),
        "upscale": _upscale(convolutions[len(convolutions) - tail : -1], first.channels_out),
    }
    network = f"an RCAN of {len(blocks)} groups of {blocks[0]} blocks with {first.channels_out} channels"
    check_layers(convolutions, _expected(options), network)
    return options


def _chosen_weights(source: Path, weights: Path | None) -> Path:
    if weights is not None:
        return source / weights if (source / weights).exists() else weights
    if not source.is_dir():
        return source
    if found := checkpoints(source):
        return found[0]
    raise ModelError(
        f"the folder {source} holds no checkpoint of 3D-RCAN (weights_<epoch>_<loss>.hdf5); name the weight file itself"
    )


def _one_size(conv: ConvWeights) -> int:
    if conv.size not in ((_KERNEL,) * conv.n_dim, (1,) * conv.n_dim):
        raise ModelError(
            f"layer '{conv.name}' has a kernel of {conv.size} pixels, RCAN's have 3 or 1 along every axis; {_NOT_RCAN}"
        )
    return conv.size[0]


def _groups(sizes: list[int]) -> tuple[list[int], int]:
    """Cut the sequence of kernel sizes into groups.

    Returns
    -------
    blocks : list of int
        Blocks in every group; all alike.
    tail : int
        How many convolutions follow the body.
    """
    place, blocks = 1, []  # the first convolution is the head
    while _BLOCK[2] in sizes[place:]:
        blocks.append(_blocks(sizes[place:]))
        place += len(_BLOCK) * blocks[-1]
        if 1 in sizes[place:] or len(blocks) > 1:
            place += 1  # the convolution that closes a group; a single group has none
    if not blocks or 0 in blocks or len(set(blocks)) > 1 or sizes[0] != _KERNEL:
        raise ModelError(
            f"the {len(sizes)} convolutions do not form groups of equally many blocks (found {blocks}); {_NOT_RCAN}"
        )
    if (tail := len(sizes) - place - 1) < 1:
        raise ModelError(
            f"after the {len(blocks)} groups there are too few convolutions; the file is incomplete, or {_NOT_RCAN}"
        )
    return blocks, tail


def _blocks(sizes: list[int]) -> int:
    whole = [sizes[i : i + len(_BLOCK)] for i in range(0, len(sizes), len(_BLOCK))]
    return len(list(takewhile(_BLOCK.__eq__, whole)))


def _upscale(convolutions: Sequence[ConvWeights], channels: int) -> int:
    """Product of the sub-pixel steps between body and tail; a step by f gives f**n_dim times the channels."""
    upscale = 1
    for conv in convolutions:
        factor = round((conv.channels_out / channels) ** (1 / conv.n_dim))
        if factor < 2 or factor**conv.n_dim * channels != conv.channels_out:
            raise ModelError(
                f"layer '{conv.name}' between body and tail turns {channels} channels into {conv.channels_out}, which no "
                f"upscaling by a whole factor does; {_NOT_RCAN}"
            )
        upscale *= factor
    return upscale


def _expected(options: Options) -> list[tuple[str, KernelShape]]:
    """List every convolution of the network with the shape of its kernel."""
    from live_restore.models.nets.rcan import upscale_steps

    n_dim, c, squeezed = options["n_dim"], options["channels"], options["channels"] // options["reduction"]
    wide, narrow = (_KERNEL,) * n_dim, (1,) * n_dim
    same = (*wide, c, c)
    block = [("first", same), ("second", same), ("squeeze", (*narrow, c, squeezed)), ("excite", (*narrow, squeezed, c))]
    closing = [("closing of the group", same)] if options["groups"] > 1 else []
    steps = [("upscaling", (*wide, c, c * factor**n_dim)) for factor in upscale_steps(options["upscale"])]
    return [
        ("head", (*wide, options["channels_in"], c)),
        *(block * options["blocks"] + closing) * options["groups"],
        ("body", same),
        *steps,
        ("tail", (*wide, c, options["channels_out"])),
    ]


def _notes(file: KerasFile) -> tuple[str, ...]:
    lambdas = [name for name in file.layer_names if "lambda" in name.lower()]
    code = f"; the code of its layers {', '.join(lambdas[:4])} was not looked at" if lambdas else ""
    fixed = f"a residual scaling of 1.0 and 3D-RCAN's fixed scaling at both ends (2x - 1, y/2 + 1/2) are assumed{code}"
    sizes = " x ".join(map(str, file.trained_on or ()))
    return (_PERCENTILES_ASSUMED, fixed, *([f"the file says it was trained on blocks of {sizes} pixels"] if sizes else []))
