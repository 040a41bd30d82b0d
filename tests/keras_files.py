"""Writes weight files as Keras lays them out, with random weights: what the importers of CARE and RCAN are tested on.

Written from the description of the files, with h5py alone. A layer is (name, kernel (k..., in, out), bias (out,)), float32.
"""

import json

import h5py
import numpy as np


def random_layer(name, shape, dice, gain=1.5):
    """A layer whose outputs neither vanish nor grow from one to the next; where skips add up, with a smaller gain."""
    kernel = dice.normal(0, np.sqrt(gain / np.prod(shape[:-1])), shape).astype(np.float32)
    return name, kernel, dice.normal(0, 0.1, shape[-1]).astype(np.float32)


def care_layers(n_dim=2, channels_in=1, channels_out=1, depth=2, kernel=3, first=4, probabilistic=False, head=0, seed=0):
    """The convolutions of CSBDeep's U-Net in its order; `head` is the number that Keras' counter had reached."""
    dice, size = np.random.default_rng(seed), (kernel,) * n_dim
    filters = [first * 2**level for level in range(depth + 1)]
    shapes, before = [], channels_in
    for level in range(depth):
        shapes += [
            (f"down_level_{level}_no_0", before, filters[level]),
            (f"down_level_{level}_no_1", filters[level], filters[level]),
        ]
        before = filters[level]
    shapes += [("middle_0", before, filters[depth]), ("middle_2", filters[depth], before)]
    for level in reversed(range(depth)):
        below = filters[max(0, level - 1)]
        shapes += [
            (f"up_level_{level}_no_0", 2 * filters[level], filters[level]),
            (f"up_level_{level}_no_2", filters[level], below),
        ]
    layers = [random_layer(name, (*size, *channels), dice) for name, *channels in shapes]
    for number in range(head, head + 1 + probabilistic):
        name = f"conv{n_dim}d" + (f"_{number}" if number else "")
        layers.append(random_layer(name, (*(1,) * n_dim, first, channels_out), dice))
    return layers


def rcan_layers(
    n_dim=2, channels_in=1, channels_out=1, channels=8, blocks=2, groups=2, reduction=4, steps=(), start=218, seed=0
):
    """The convolutions of 3D-RCAN in its order, numbered from `start` as Keras' counter does."""
    dice, wide, narrow = np.random.default_rng(seed), (3,) * n_dim, (1,) * n_dim
    same, squeezed = (*wide, channels, channels), channels // reduction
    shapes = [(*wide, channels_in, channels)]
    for _ in range(groups):
        for _ in range(blocks):
            shapes += [same, same, (*narrow, channels, squeezed), (*narrow, squeezed, channels)]
        shapes += [same] if groups > 1 else []
    shapes += [same, *((*wide, channels, channels * factor**n_dim) for factor in steps), (*wide, channels, channels_out)]
    return [random_layer(f"conv{n_dim}d_{start + i}", shape, dice, gain=0.5) for i, shape in enumerate(shapes)]


def projection_layers(channels=1, filters=4, n_depth=2, per_depth=1, kernel=(3, 3, 3), seed=1):
    """The convolutions of the 3D half of ProjectionCARE in its order, with a counter that gains a digit on the way."""
    dice, count = np.random.default_rng(seed), (2 * n_depth + 1) * per_depth
    ends = zip([channels] + [filters] * count, [filters] * count + [1], strict=True)
    return [random_layer(f"conv3d_{8 + i}", (*kernel, *end), dice) for i, end in enumerate(ends)]


def write_layers(group, layers, names=None, keras=2):
    """Write a group of layers; `names` lists all layers in order, those without weights too."""
    names = names or [name for name, *_ in layers]
    group.attrs["layer_names"] = [name.encode() for name in names]
    by_name = {name: [(name, *arrays)] for name, *arrays in layers}
    for name in names:
        write_layer(group.create_group(name), by_name.get(name, []), keras)


def write_layer(group, layers, keras=2):
    """Write the weights of one layer, or of the layers of a nested model."""
    suffix = ":0" if keras == 2 else ""
    weights = {
        f"{name}/{part}{suffix}": array
        for name, *arrays in layers
        for part, array in zip(("kernel", "bias"), arrays, strict=True)
    }
    group.attrs["weight_names"] = [name.encode() for name in weights]
    for name, array in weights.items():
        group.create_dataset(name, data=array)


def write_weights(path, layers, names=None, keras=2):
    """A file of weights alone, as CSBDeep keeps it."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.8.0" if keras == 2 else "3.15.1"
        write_layers(file, layers, names, keras)
    return path


def write_model(path, layers, names=None, keras=2, block=None):
    """A file of a whole model, as 3D-RCAN keeps it; Lambda layers carry code, here a text that must never be decoded."""
    n_dim = layers[0][1].ndim - 2
    shape = [None, *(block or (16,) * n_dim), layers[0][1].shape[-2]]
    config = {
        "class_name": "Model",
        "config": {"layers": [{"config": {"batch_input_shape": shape}}, {"function": ["4wEAAAA=", None]}]},
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = b"2.2.4"
        write_layers(file.create_group("model_weights"), layers, names, keras)
        file.create_group("optimizer_weights").create_dataset("Adam/iterations:0", data=7)
    return path


def write_care(folder, keras=2, residual=True, last_activation="linear", config=(), **options):
    """A model folder of CSBDeep; returns its layers."""
    layers = care_layers(**options)
    names = ["input", *(name for name, *_ in layers), *(["add_3"] if residual else []), "activation"]
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / "weights_best.h5", layers, names, keras)
    write_config(folder, residual, last_activation, config, **options)
    return layers


def write_projection(
    folder, keras=2, residual=True, last_activation="linear", n_depth=2, per_depth=1, kernel=(3, 3, 3), **options
):
    """A model folder of CSBDeep's ProjectionCARE: two nested models; returns the layers of both."""
    surface = projection_layers(options.get("channels_in", 1), 4, n_depth, per_depth, kernel)
    flat = care_layers(**options)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "weights_best.h5", "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"model_12", b"model_13"]
        for name, layers in (("input_1", []), ("model_12", surface), ("model_13", flat)):
            write_layer(file.create_group(name), layers, keras)
    proj = {
        "n_depth": n_depth,
        "n_filt": 4,
        "n_conv_per_depth": per_depth,
        "kern": list(kernel),
        "pool": [1, 2, 2],
        "axis": "Z",
    }
    more = {"n_dim": 3, "axes": "ZYXC", **{f"proj_{key}": value for key, value in proj.items()}}
    write_config(folder, residual, last_activation, more, **options)
    return surface, flat


def write_config(
    folder, residual, last_activation, more, n_dim=2, channels_in=1, channels_out=1, depth=2, kernel=3, first=4, **rest
):
    config = {
        "n_dim": n_dim,
        "axes": "ZYXC"[-n_dim - 1 :],
        "n_channel_in": channels_in,
        "n_channel_out": channels_out,
        "probabilistic": rest.get("probabilistic", False),
        "unet_residual": residual,
        "unet_n_depth": depth,
        "unet_kern_size": kernel,
        "unet_n_first": first,
        "unet_last_activation": last_activation,
        "unet_input_shape": [None] * n_dim + [channels_in],
        "train_loss": "mae",
    }
    (folder / "config.json").write_text(json.dumps(config | dict(more)), encoding="utf-8")
