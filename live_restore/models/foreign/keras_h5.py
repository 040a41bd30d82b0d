"""The reader of Keras' HDF5 weight files: the numbers in them, and nothing that could run.

Receives the path of a ``.h5`` or ``.hdf5`` file, weights alone or a whole model, of Keras 2 (``kernel:0``) or 3 (``kernel``);
hands on its convolutions in the file's order. Layer code (Lambda layers are marshalled Python) is never looked at, and no
link out of the file is followed. The HDF5 library itself is trusted: a file made to confuse it can hang or end the process
(bytes changed at random did so twice in a thousand times), which is why importing is a command of its own. It does not know
CARE or RCAN.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ModelError
from live_restore.models.foreign.conv_weights import LARGEST_WEIGHTS, ConvWeights, checked_conv
from live_restore.models.foreign.file_kind import check_kind


@dataclass(frozen=True, slots=True, eq=False)
class KerasFile:
    """What a weight file holds.

    Attributes
    ----------
    layer_names : tuple of str
        All layers in the order of the network, those without weights too (``add``, ``activation``, ``lambda``).
    convolutions : tuple of ConvWeights
        In the same order; those of a nested model in its place.
    written_by : str
        e.g. ``keras 2.8.0``.
    trained_on : tuple of int or None
        Input sizes ([Z,] Y, X) that a whole-model file names. For information: nothing guarantees that they are true.
    """

    layer_names: tuple[str, ...]
    convolutions: tuple[ConvWeights, ...]
    written_by: str
    trained_on: tuple[int, ...] | None


def read_keras_h5(path: Path) -> KerasFile:
    """Read all convolutions of a weight file.

    Raises
    ------
    ModelError
        If it is no such file, is damaged, holds anything but convolutions, or refers to other files.
    """
    with _opened(path) as file:
        group = _weights_group(file, path.name)
        names = _names(group, "layer_names")
        convolutions = _convolutions(group, names)
        return KerasFile(names, convolutions, _written_by(file, group), _input_sizes(file))


def read_layer_names(path: Path) -> tuple[str, ...]:
    """Read the names of all layers and no weights: enough to tell one network from another."""
    with _opened(path) as file:
        return _names(_weights_group(file, path.name), "layer_names")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    check_kind(path, "hdf5")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{path.name} is damaged or cut short ({error}); copy or download it again") from error


def _weights_group(file: Any, file_name: str) -> Any:
    """Find the group with the layers: the root of a weights file, ``model_weights`` of a whole model."""
    for group in (file, _linked(file, "model_weights") if _holds(file, "model_weights") else file):
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            return group
    if file_name.endswith(".weights.h5") or _holds(file, "layers") or _holds(file, "_layer_checkpoint_dependencies"):
        raise ModelError(
            f"{file_name} is in Keras 3's new format (.weights.h5), which does not keep the layers' names; load it with the "
            "software that wrote it and save it as plain .h5: model.keras_model.save_weights('weights_best.h5')"
        )
    raise ModelError(
        f"{file_name} is an HDF5 file without Keras layers (no 'layer_names'); give a weight file of CSBDeep or 3D-RCAN"
    )


def _holds(group: Any, name: str) -> bool:
    return group.get(name, getlink=True) is not None  # `name in group` would follow the link


def _names(group: Any, attribute: str) -> tuple[str, ...]:
    """Read a list of names; Keras spreads a list beyond 64 kB over ``layer_names0``, ``layer_names1``, ..."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        parts = [group.attrs[f"{attribute}{i}"] for i in range(len(group.attrs)) if f"{attribute}{i}" in group.attrs]
    return tuple(_text(name) for part in parts for name in np.ravel(part))


def _text(word: Any) -> str:
    if isinstance(word, bytes):
        return word.decode("utf-8", errors="replace")
    if isinstance(word, str):
        return word
    raise ModelError(f"a name in the file is no text but {type(word).__name__}; this is no weight file of Keras")


def _convolutions(group: Any, layer_names: tuple[str, ...]) -> tuple[ConvWeights, ...]:
    room = LARGEST_WEIGHTS
    found = []
    for layer_name in layer_names:
        for name, datasets in _datasets_by_layer(_linked(group, layer_name), layer_name).items():
            room -= sum(_checked_size(dataset) for dataset in datasets.values())
            if room < 0:
                raise ModelError(
                    f"the file claims more than {LARGEST_WEIGHTS:,} weights (at layer '{name}'); no network here is so large"
                )
            found.append(checked_conv(name, {part: _read(dataset) for part, dataset in datasets.items()}))
    return tuple(found)


def _datasets_by_layer(layer: Any, layer_name: str) -> dict[str, dict[str, Any]]:
    """Sort the datasets of a layer by the layer they belong to: itself, or those of the model that is nested in it."""
    by_scope: dict[str, dict[str, Any]] = {}
    for weight_name in _names(layer, "weight_names"):
        scope, _, part = weight_name.rpartition("/")
        by_scope.setdefault(scope, {})[part.partition(":")[0]] = _linked(layer, weight_name)
    if len(by_scope) == 1:
        return {layer_name: next(iter(by_scope.values()))}
    return {scope.rpartition("/")[2]: datasets for scope, datasets in by_scope.items()}


def _linked(group: Any, name: str) -> Any:
    """Open ``a/b/c`` step by step, and only through hard links: soft and external ones may lead anywhere."""
    import h5py

    for step in name.split("/"):
        link = group.get(step, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise ModelError(f"the file names '{name}' but holds no '{step}'; it is incomplete, copy or download it again")
        if not isinstance(link, h5py.HardLink):
            raise ModelError(
                f"'{name}' is a {type(link).__name__} to elsewhere, not followed; weights must lie in the file itself"
            )
        group = group[step]
    return group


def _checked_size(dataset: Any) -> int:
    """Count the elements, once it is sure that they are plain numbers that lie in the file."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ModelError(f"'{dataset.name}' should be an array of weights but is a group; the file is damaged")
    if dataset.is_virtual or dataset.external:
        raise ModelError(
            f"'{dataset.name}' refers to data in other files; weights must lie in the file itself, it is not followed"
        )
    if dataset.dtype.kind != "f":
        raise ModelError(
            f"'{dataset.name}' has dtype {dataset.dtype}; weights are floating-point numbers, nothing else is read"
        )
    if dataset.id.get_create_plist().get_nfilters():
        raise ModelError(
            f"'{dataset.name}' is compressed, which Keras never does; unpack it with: h5repack -f NONE in.h5 out.h5"
        )
    if dataset.id.get_storage_size() < dataset.nbytes:
        raise ModelError(
            f"'{dataset.name}' claims shape {dataset.shape} but the file does not hold so many numbers; it is incomplete"
        )
    return int(dataset.size)


def _read(dataset: Any) -> NDArray[np.float32]:
    return np.asarray(dataset[()], dtype=np.float32)


def _written_by(file: Any, group: Any) -> str:
    version = group.attrs.get("keras_version", file.attrs.get("keras_version"))
    return f"keras {_text(version)}" if isinstance(version, str | bytes) else "unknown"


def _input_sizes(file: Any) -> tuple[int, ...] | None:
    """Look up the input sizes in the JSON text of a whole model; anything unexpected there means: unknown."""
    try:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        first = layers[0]["config"]
        shape = first.get("batch_input_shape") or first["batch_shape"]
        sizes = tuple(shape[1:-1])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError):
        return None
    return sizes if sizes and all(type(size) is int and 0 < size < 1 << 20 for size in sizes) else None
