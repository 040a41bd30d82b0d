"""The networks: equal to a second implementation in numpy, to CSBDeep's own output, and strict about what cannot be."""

import json
import subprocess
import sys
from math import lcm

import h5py
import numpy as np
import pytest
import reference_forward as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from live_restore.models.nets import NETS, build_net
from live_restore.models.nets.layers import Net, PixelShuffle, max_pool, upsample_nearest
from live_restore.models.nets.rcan import upscale_steps
from live_restore.models.onnx_export import run_net

# (kind, options, image size), by name
CONFIGURATIONS = {
    "care2d-default": ("care", {"n_dim": 2}, (24, 20)),
    "care2d-kernel3-narrow": ("care", {"n_dim": 2, "kernel": 3, "first_filters": 6}, (20, 24)),
    "care2d-depth1-kernel7": ("care", {"n_dim": 2, "depth": 1, "kernel": 7, "first_filters": 5}, (14, 18)),
    "care2d-depth3": ("care", {"n_dim": 2, "depth": 3, "kernel": 3, "first_filters": 4}, (24, 16)),
    "care2d-probabilistic": ("care", {"n_dim": 2, "probabilistic": True, "first_filters": 8}, (16, 24)),
    "care2d-two-channels": ("care", {"n_dim": 2, "channels_in": 2, "channels_out": 2, "first_filters": 8}, (16, 20)),
    "care2d-two-to-one": ("care", {"n_dim": 2, "channels_in": 2, "first_filters": 8}, (16, 20)),
    "care2d-one-to-two-probabilistic": ("care", {"n_dim": 2, "channels_out": 2, "probabilistic": True, "kernel": 3}, (12, 12)),
    "care2d-relu": ("care", {"n_dim": 2, "last_activation": "relu", "kernel": 3, "first_filters": 8}, (16, 16)),
    "care2d-not-residual": ("care", {"n_dim": 2, "residual": False, "kernel": 3, "first_filters": 8}, (16, 16)),
    "care2d-folded": ("care", {"n_dim": 2, "kernel": 3, "first_filters": 6, "entry": 2, "skip_kernel": 7}, (24, 16)),
    "care2d-folded-everything": (
        "care",
        {
            "n_dim": 2,
            "channels_in": 2,
            "channels_out": 2,
            "depth": 1,
            "first_filters": 4,
            "probabilistic": True,
            "last_activation": "relu",
            "entry": 3,
            "skip_kernel": 3,
        },
        (12, 18),
    ),
    "care2d-folded-not-residual": (
        "care",
        {"n_dim": 2, "kernel": 3, "first_filters": 6, "entry": 2, "residual": False},
        (16, 8),
    ),
    "care2d-filtered-skip": ("care", {"n_dim": 2, "kernel": 3, "first_filters": 6, "skip_kernel": 5}, (12, 16)),
    "care3d-folded": ("care", {"n_dim": 3, "depth": 1, "first_filters": 4, "entry": 2, "skip_kernel": 3}, (4, 8, 12)),
    "care3d-default": ("care", {"n_dim": 3}, (8, 12, 16)),
    "care3d-everything": (
        "care",
        {
            "n_dim": 3,
            "channels_in": 2,
            "channels_out": 2,
            "depth": 1,
            "kernel": 5,
            "first_filters": 4,
            "last_activation": "relu",
            "probabilistic": True,
        },
        (6, 8, 10),
    ),
    "projection-default": ("projection_care", {"n_dim": 3}, (5, 16, 32)),
    "projection-everything": (
        "projection_care",
        {
            "n_dim": 3,
            "channels_in": 2,
            "channels_out": 2,
            "depth": 1,
            "kernel": 5,
            "first_filters": 4,
            "last_activation": "relu",
            "probabilistic": True,
            "proj_n_depth": 2,
            "proj_n_filt": 3,
            "proj_n_conv_per_depth": 2,
            "proj_kern": [1, 3, 5],
            "proj_pool": [2, 3, 2],
        },
        (8, 18, 12),
    ),
    "rcan2d-default": ("rcan", {"n_dim": 2}, (13, 17)),
    "rcan2d-two-channels": (
        "rcan",
        {"n_dim": 2, "channels_in": 2, "channels_out": 2, "channels": 8, "reduction": 4, "groups": 2, "blocks": 2},
        (11, 14),
    ),
    "rcan2d-two-to-three": ("rcan", {"n_dim": 2, "channels_in": 2, "channels_out": 3, "channels": 8, "groups": 2}, (9, 10)),
    "rcan2d-half-scaling": (
        "rcan",
        {"n_dim": 2, "residual_scaling": 0.5, "channels": 8, "reduction": 2, "groups": 2, "blocks": 2},
        (12, 9),
    ),
    "rcan2d-one-group": ("rcan", {"n_dim": 2, "groups": 1, "blocks": 2, "channels": 8}, (12, 9)),
    "rcan2d-up2": ("rcan", {"n_dim": 2, "groups": 2, "blocks": 1, "channels": 8, "upscale": 2}, (8, 9)),
    "rcan2d-up3": ("rcan", {"n_dim": 2, "groups": 1, "blocks": 1, "channels": 8, "upscale": 3}, (8, 9)),
    "rcan2d-up4": ("rcan", {"n_dim": 2, "groups": 1, "blocks": 1, "channels": 8, "upscale": 4}, (8, 9)),
    "rcan3d": ("rcan", {"n_dim": 3, "groups": 3, "blocks": 2, "channels": 16}, (5, 9, 8)),
    "rcan3d-one-group": ("rcan", {"n_dim": 3, "groups": 1, "blocks": 3, "channels": 8, "reduction": 4}, (5, 9, 8)),
    "rcan3d-up2": ("rcan", {"n_dim": 3, "groups": 2, "blocks": 1, "channels": 8, "upscale": 2}, (4, 5, 6)),
}


@pytest.fixture(params=CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def configuration(request):
    return request.param


def with_biases(net: Net, seed: int = 1) -> Net:
    """Fresh biases are zero and would hide a mistake in their place."""
    dice = torch.Generator().manual_seed(seed)
    for _, layer in net.convolutions():
        torch.nn.init.uniform_(layer.bias, -0.2, 0.2, generator=dice)
    return net


def image_for(net: Net, size: tuple[int, ...], batch: int = 1) -> np.ndarray:
    """An image in network units, a bit outside of 0..1 as real ones are; (N, C, [Z,] Y, X) float32."""
    return np.random.default_rng(5).uniform(-0.2, 1.3, (batch, net.options["channels_in"], *size)).astype(np.float32)


def keras_layers(net: Net) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The weights as a Keras file holds them: kernel (k..., in, out), bias (out,)."""
    layers = {}
    for name, layer in net.convolutions():
        kernel = layer.weight.detach().numpy()  # (out, in, k...)
        layers[name] = np.moveaxis(kernel, (1, 0), (-2, -1)), layer.bias.detach().numpy()
    return layers


def reference_output(kind: str, net: Net, image: np.ndarray) -> np.ndarray:
    """One image (..., C) through the numpy network that `net` describes."""
    options, layers = net.options, keras_layers(net)
    if kind == "rcan":
        named = ("blocks", "groups", "residual_scaling", "upscale")
        return reference.rcan(image, list(layers.values()), **{name: options[name] for name in named})
    if kind == "projection_care":
        flattening = [layer for name, layer in layers.items() if name.startswith("projection.")]
        image = reference.surface_projection(
            image, flattening, options["proj_n_depth"], options["proj_n_conv_per_depth"], options["proj_pool"]
        )
        layers = {name.removeprefix("unet."): layer for name, layer in layers.items()}
    named = ("depth", "residual", "last_activation", "probabilistic", "entry", "skip_kernel")
    return reference.care(image, layers, **{name: options[name] for name in named if name in options})


def test_same_as_the_numpy_reference(configuration):
    kind, options, size = configuration
    net = with_biases(build_net(kind, options, seed=3))
    batch = image_for(net, size, batch=2)
    restored = run_net(net, batch)
    for image, got in zip(batch, restored, strict=True):
        expected = np.moveaxis(reference_output(kind, net, np.moveaxis(image, 0, -1).astype(np.float64)), -1, 0)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-5 * np.ptp(expected)


@pytest.mark.realdata
def test_same_as_csbdeep_on_a_real_model(shared_data):
    folder = shared_data / "models" / "care2d"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    net = build_net(
        "care",
        {
            "n_dim": config["n_dim"],
            "channels_in": config["n_channel_in"],
            "channels_out": config["n_channel_out"],
            "depth": config["unet_n_depth"],
            "kernel": config["unet_kern_size"],
            "first_filters": config["unet_n_first"],
            "residual": config["unet_residual"],
            "last_activation": config["unet_last_activation"],
            "probabilistic": config["probabilistic"],
        },
    )
    with h5py.File(folder / "weights_best.h5") as file:
        load_csbdeep(net, file)
    known = np.load(folder / "REFERENCE_csbdeep0.8.2_care2d.npz")
    image, expected = known["x"].squeeze(), known["y"].squeeze()  # (256, 256)
    restored = run_net(net, image[None, None])
    assert restored.shape == (1, 1, *expected.shape)
    assert np.abs(restored[0, 0] - expected).max() <= 1e-4


def load_csbdeep(net: Net, file: h5py.File) -> None:
    names = [name.decode() if isinstance(name, bytes) else name for name in file.attrs["layer_names"]]
    stored = {name: file[name][name] for name in names if len(file[name])}
    for name, layer in net.convolutions():
        weights = stored.pop(name) if name in stored else stored.pop(next(n for n in stored if n.startswith("conv")))
        kernel, bias = weights["kernel:0"][()], weights["bias:0"][()]
        layer.weight.data = torch.from_numpy(np.moveaxis(kernel, (-2, -1), (1, 0)).copy())
        layer.bias.data = torch.from_numpy(bias)
    assert not stored


PARAMETERS = {
    "care2d": ("care", {"n_dim": 2}, 922_977),
    "care2d-kernel3": ("care", {"n_dim": 2, "kernel": 3}, 332_641),
    "care2d-kernel3-16": ("care", {"n_dim": 2, "kernel": 3, "first_filters": 16}, 83_377),
    "care2d-probabilistic": ("care", {"n_dim": 2, "probabilistic": True}, 923_010),
    "care2d-folded": ("care", {"n_dim": 2, "kernel": 3, "entry": 2, "skip_kernel": 7}, 341_878),
    "care3d": ("care", {"n_dim": 3}, 996_769),
    "projection": ("projection_care", {"n_dim": 3}, 346_970),
    "rcan3d-5x3": ("rcan", {"n_dim": 3}, 1_002_621),
    "rcan3d-3x3": ("rcan", {"n_dim": 3, "groups": 3}, 613_349),
    "rcan3d-5x5": ("rcan", {"n_dim": 3, "blocks": 5}, 1_559_141),
    "rcan2d-5x3": ("rcan", {"n_dim": 2}, 337_917),
}


@pytest.mark.parametrize(("kind", "options", "count"), PARAMETERS.values(), ids=PARAMETERS.keys())
def test_parameter_counts(kind, options, count):
    assert sum(p.numel() for p in build_net(kind, options).parameters()) == count


def test_options_rebuild_the_network(configuration):
    kind, options, _ = configuration
    net = build_net(kind, options)
    again = build_net(kind, json.loads(json.dumps(net.options)))
    assert options.items() <= net.options.items()
    assert again.options == net.options
    again.load_state_dict(net.state_dict())


def test_convolutions_hold_every_weight_once(configuration):
    kind, options, _ = configuration
    net = build_net(kind, options)
    listed = [id(p) for _, layer in net.convolutions() for p in layer.parameters()]
    assert sorted(listed) == sorted(id(p) for p in net.parameters())
    assert all(net.get_submodule(name) is layer for name, layer in net.convolutions())


ORDERS = {
    "care": (
        "care",
        {"n_dim": 2, "depth": 1, "probabilistic": True},
        "down_level_0_no_0 down_level_0_no_1 middle_0 middle_2 up_level_0_no_0 up_level_0_no_2 head_mean head_scale",
    ),
    "care-depth2": (
        "care",
        {"n_dim": 3},
        "down_level_0_no_0 down_level_0_no_1 down_level_1_no_0 down_level_1_no_1 middle_0 middle_2 "
        "up_level_1_no_0 up_level_1_no_2 up_level_0_no_0 up_level_0_no_2 head_mean",
    ),
    "care-folded": (
        "care",
        {"n_dim": 2, "depth": 1, "entry": 2, "skip_kernel": 3},
        "fold down_level_0_no_0 down_level_0_no_1 middle_0 middle_2 up_level_0_no_0 up_level_0_no_2 head_mean skip",
    ),
    "projection": (
        "projection_care",
        {"n_dim": 3, "depth": 1, "proj_n_depth": 1},
        "projection.features.0 projection.features.1 projection.features.2 projection.surface unet.down_level_0_no_0 "
        "unet.down_level_0_no_1 unet.middle_0 unet.middle_2 unet.up_level_0_no_0 unet.up_level_0_no_2 unet.head_mean",
    ),
}


@pytest.mark.parametrize(("kind", "options", "names"), ORDERS.values(), ids=ORDERS.keys())
def test_care_layers_have_csbdeeps_names_and_order(kind, options, names):
    assert [name for name, _ in build_net(kind, options).convolutions()] == names.split()


@pytest.mark.parametrize(
    ("groups", "upscale", "sizes"),
    [
        (2, 1, "3 3311 3311 3 3311 3311 3 3 3"),
        (1, 1, "3 3311 3311 3 3"),
        (1, 4, "3 3311 3311 3 33 3"),
        (1, 6, "3 3311 3311 3 3 3"),
    ],
    ids=["two-groups", "one-group", "one-group-up4", "one-group-up6"],
)
def test_rcan_layers_have_the_files_order(groups, upscale, sizes):
    net = build_net("rcan", {"n_dim": 2, "groups": groups, "blocks": 2, "channels": 8, "upscale": upscale})
    assert [layer.kernel_size[0] for _, layer in net.convolutions()] == [int(k) for k in sizes.replace(" ", "")]


def test_weights_start_as_in_keras():
    net = build_net("care", {"n_dim": 2}, seed=0)
    for _, layer in net.convolutions():
        out, inward, *kernel = layer.weight.shape
        limit = np.sqrt(6 / ((out + inward) * np.prod(kernel)))
        largest = layer.weight.abs().max().item()
        assert largest <= limit
        assert layer.weight.numel() < 1000 or largest > 0.98 * limit
        assert not layer.bias.any()


@pytest.mark.parametrize("n_dim", [2, 3])
def test_the_filter_of_the_skip_starts_by_smoothing_every_channel_alone(n_dim):
    net = build_net("care", {"n_dim": n_dim, "channels_in": 2, "channels_out": 2, "skip_kernel": 7}, seed=0)
    kernel = net.skip.weight.detach().numpy()  # (2, 2, [7,] 7, 7)
    assert not kernel[0, 1].any()
    assert not kernel[1, 0].any()
    assert not net.skip.bias.any()
    for own in (kernel[0, 0], kernel[1, 1]):
        assert own.sum() == pytest.approx(1, abs=1e-5)
        lines = own.sum(tuple(range(1, n_dim)))
        assert np.sqrt(lines @ np.arange(-3, 4) ** 2) == pytest.approx(1, abs=0.02)


def test_what_csbdeep_has_is_described_as_ever():
    assert not {"entry", "skip_kernel"} & set(build_net("care", {"n_dim": 2}).options)


@pytest.mark.parametrize("kind", NETS)
def test_seeds_repeat(kind):
    first, same, other = (build_net(kind, {"n_dim": 3}, seed=seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_seed_leaves_torchs_random_state_to_its_owner():
    torch.manual_seed(0)
    unseeded = build_net("care", {"n_dim": 2}).state_dict()
    torch.manual_seed(0)
    again = build_net("care", {"n_dim": 2}).state_dict()
    assert all(torch.equal(unseeded[name], again[name]) for name in unseeded)


IMPOSSIBLE = {
    "unknown-kind": ("gan", {"n_dim": 2}, r"no network of kind 'gan'; the kinds are care, projection_care, rcan"),
    "unknown-option": ("care", {"n_dim": 2, "filters": 3}, r"a care network has no option filters; its options are n_dim"),
    "no-n_dim": ("rcan", {}, r"a rcan network needs the option n_dim"),
    "care-n_dim": ("care", {"n_dim": 4}, r"n_dim 4 is not possible here; use 2 or 3"),
    "care-even-kernel": ("care", {"n_dim": 2, "kernel": 4}, r"kernel 4 is even.* use 3 or 5"),
    "care-kernel-0": ("care", {"n_dim": 2, "kernel": 0}, r"kernel 0 is not possible; .* 1 or more"),
    "care-depth": ("care", {"n_dim": 2, "depth": 0}, r"depth 0 is not possible; .* 1 or more"),
    "care-filters": ("care", {"n_dim": 2, "first_filters": 2.5}, r"first_filters 2\.5 is not possible; .* whole number"),
    "care-channels": ("care", {"n_dim": 2, "channels_in": 0}, r"channels_in 0 is not possible"),
    "care-residual": (
        "care",
        {"n_dim": 2, "channels_in": 2, "residual": True},
        r"2 channels in cannot become 1 channels out; use equal numbers, or residual=False",
    ),
    "care-activation": (
        "care",
        {"n_dim": 2, "last_activation": "tanh"},
        r"last_activation 'tanh' is unknown; use linear or relu",
    ),
    "care-entry": ("care", {"n_dim": 2, "entry": 0}, r"entry 0 is not possible; .* 1 or more"),
    "care-skip-even": ("care", {"n_dim": 2, "skip_kernel": 6}, r"skip_kernel 6 is even.* use 5 or 7"),
    "care-skip-fraction": ("care", {"n_dim": 2, "skip_kernel": 2.5}, r"skip_kernel 2\.5 is not possible; .* whole number"),
    "care-skip-of-nothing": (
        "care",
        {"n_dim": 2, "residual": False, "skip_kernel": 7},
        r"skip_kernel 7 filters what a residual network adds; use residual=True, or skip_kernel=0",
    ),
    "projection-n_dim": ("projection_care", {"n_dim": 2}, r"n_dim 2 is not possible here; use 3"),
    "projection-axis": ("projection_care", {"n_dim": 3, "proj_axis": 1}, r"proj_axis 1 \(Y\) cannot be projected away; only 0"),
    "projection-no-axis": (
        "projection_care",
        {"n_dim": 3, "proj_axis": 5},
        r"proj_axis 5 \(no axis\) cannot be projected away",
    ),
    "projection-channels": ("projection_care", {"n_dim": 3, "channels_in": 0}, r"channels_in 0 is not possible"),
    "projection-depth": ("projection_care", {"n_dim": 3, "proj_n_depth": 0}, r"proj_n_depth 0 is not possible"),
    "projection-kern": ("projection_care", {"n_dim": 3, "proj_kern": [3, 4, 3]}, r"proj_kern along Y 4 is even"),
    "projection-kern-2d": (
        "projection_care",
        {"n_dim": 3, "proj_kern": [3, 3]},
        r"proj_kern \[3, 3\] has 2 entries; it needs 3",
    ),
    "projection-pool": ("projection_care", {"n_dim": 3, "proj_pool": [0, 2, 2]}, r"proj_pool along Z 0 is not possible"),
    "projection-pool-2d": (
        "projection_care",
        {"n_dim": 3, "proj_pool": [2, 2]},
        r"proj_pool \[2, 2\] has 2 entries; it needs 3",
    ),
    "projection-residual": (
        "projection_care",
        {"n_dim": 3, "channels_out": 2, "residual": True},
        r"1 channels in cannot become 2 channels out",
    ),
    "rcan-n_dim": ("rcan", {"n_dim": 1}, r"n_dim 1 is not possible here; use 2 or 3"),
    "rcan-reduction": (
        "rcan",
        {"n_dim": 2, "reduction": 5},
        r"reduction 5 does not divide the 32 channels; use a divisor of 32",
    ),
    "rcan-groups": ("rcan", {"n_dim": 2, "groups": 0}, r"groups 0 is not possible"),
    "rcan-upscale": ("rcan", {"n_dim": 2, "upscale": 0}, r"upscale 0 is not possible; it must be a whole number, 1 or more"),
    "rcan-upscale-fraction": ("rcan", {"n_dim": 2, "upscale": 1.5}, r"upscale 1\.5 is not possible; it must be a whole number"),
    "rcan-scaling": ("rcan", {"n_dim": 2, "residual_scaling": float("nan")}, r"residual_scaling nan is not a finite number"),
}


@pytest.mark.parametrize(("kind", "options", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_options_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        build_net(kind, options)


def run_without_torch(code: str) -> subprocess.CompletedProcess:
    """Run in a fresh interpreter where torch cannot be imported."""
    code = f"import sys; sys.modules['torch'] = None; {code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_torch_the_cure_is_told():
    ended = run_without_torch("from live_restore.models.nets import build_net; build_net('care', {'n_dim': 2})")
    assert "ModelError: building a network needs torch, which is not installed: pip install live_restore[train]" in ended.stderr


@pytest.mark.parametrize(
    ("upscale", "steps"), [(1, []), (2, [2]), (3, [3]), (4, [2, 2]), (6, [6]), (8, [2, 2, 2])], ids=lambda value: f"{value}"
)
def test_powers_of_two_are_upscaled_in_steps(upscale, steps):
    assert upscale_steps(upscale) == steps


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_in_2d_is_torchs_own_with_channels_innermost(factor):
    channels, pixels = 3, factor**2
    image = torch.rand(2, pixels * channels, 5, 4)
    outermost = image.reshape(2, pixels, channels, 5, 4).transpose(1, 2).reshape(image.shape)
    assert torch.equal(PixelShuffle(2, channels, factor)(image), torch.pixel_shuffle(outermost, factor))


@settings(max_examples=25, deadline=None)
@given(n_dim=st.sampled_from([2, 3]), factor=st.integers(1, 3), channels=st.integers(1, 3), data=st.data())
def test_pixel_shuffle_only_moves_pixels(n_dim, factor, channels, data):
    size = data.draw(st.lists(st.integers(1, 4), min_size=n_dim, max_size=n_dim))
    image = np.random.default_rng(0).random((*size, channels * factor**n_dim), np.float32)
    shuffled = PixelShuffle(n_dim, channels, factor)(torch.from_numpy(np.moveaxis(image, -1, 0)[None].copy()))
    assert np.array_equal(np.moveaxis(shuffled[0].numpy(), 0, -1), reference.depth_to_space(image, factor))


@settings(max_examples=50, deadline=None)
@given(size=st.lists(st.integers(1, 70), min_size=2, max_size=3), data=st.data())
def test_upsampling_repeats_exactly_and_pooling_undoes_it(size, data):
    pool = data.draw(st.lists(st.integers(1, 7), min_size=len(size), max_size=len(size)))
    size = [min(s, 12) if len(size) == 3 else s for s in size]
    image = np.random.default_rng(0).random((1, 2, *size), np.float32)
    enlarged = upsample_nearest(torch.from_numpy(image), pool)
    expected = image
    for axis, factor in enumerate(pool):
        expected = expected.repeat(factor, axis=2 + axis)
    assert np.array_equal(enlarged.numpy(), expected)
    assert np.array_equal(max_pool(enlarged, pool).numpy(), image)


def test_divisible_by():
    assert build_net("care", {"n_dim": 3, "depth": 3}).divisible_by == (8, 8, 8)
    assert build_net("care", {"n_dim": 2, "depth": 2, "entry": 3}).divisible_by == (12, 12)
    assert build_net("projection_care", {"n_dim": 3}).divisible_by == (1, 16, 16)
    mixed = build_net("projection_care", {"n_dim": 3, "proj_n_depth": 2, "proj_pool": [2, 3, 2]})
    assert mixed.divisible_by == (4, lcm(9, 4), 4)
    assert build_net("rcan", {"n_dim": 2}).divisible_by == (1, 1)
