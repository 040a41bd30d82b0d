"""The pipeline: tiled equals whole, for every network; counts in, counts out."""

from dataclasses import dataclass

import numpy as np
import pytest

from live_restore.engines.network_engines import NetworkEngines
from live_restore.intensity import IntensityRange, measure_percentiles
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx
from live_restore.restore.pipeline import Network, NoNumbers, restore
from live_restore.restore.tiling import Space


def network(kind, options, max_pixels, probabilistic=False, channels_out=1):
    onnx = to_onnx(build_net(kind, options, seed=3))
    g = measure_geometry(onnx)
    space = Space(g.halo, g.divisible_by, g.output_factor, g.global_pooling)
    return Network(NetworkEngines(onnx, "openvino", "f32"), space, channels_out, probabilistic, max_pixels)


def counts(shape, seed=0):
    """Blobs and noise, as uint16 counts."""
    rng = np.random.default_rng(seed)
    smooth = rng.random(shape)
    for axis in range(1, len(shape)):
        smooth = sum(np.roll(smooth, shift, axis) for shift in range(-3, 4)) / 7
    return rng.poisson(100 + 4000 * (smooth - smooth.min())).astype(np.uint16)


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    options: dict
    shape: tuple
    max_pixels: int
    probabilistic: bool = False
    channels_out: int = 1


CARE = {"first_filters": 4}
# depth, kernel, pixels in memory: every tile holds two receptive fields and little more
DEPTHS_AND_KERNELS = [
    (1, 3, 70**2),
    (1, 5, 80**2),
    (1, 7, 90**2),
    (2, 3, 90**2),
    (2, 5, 120**2),
    (2, 7, 150**2),
    (3, 3, 130**2),
    (3, 5, 210**2),
    (4, 3, 240**2),
]
CASES = [
    *(
        Case(f"CARE 2D depth {d} kernel {k}", "care", {"n_dim": 2, "depth": d, "kernel": k, **CARE}, (1, 250, 333), n)
        for d, k, n in DEPTHS_AND_KERNELS
    ),
    Case("CARE 3D", "care", {"n_dim": 3, **CARE}, (1, 21, 90, 101), 24 * 64 * 64),
    Case("CARE 3D depth 1", "care", {"n_dim": 3, "depth": 1, **CARE}, (1, 40, 50, 61), 28 * 32 * 32),
    Case("probabilistic", "care", {"n_dim": 2, "probabilistic": True, **CARE}, (1, 200, 230), 120**2, True),
    Case(
        "two channels", "care", {"n_dim": 2, "channels_in": 2, "channels_out": 2, **CARE}, (2, 200, 230), 120**2, channels_out=2
    ),
    Case("projection", "projection_care", {"n_dim": 3, "first_filters": 4}, (1, 6, 260, 250), 6 * 240 * 240),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_care_tiled_equals_care_whole(case):
    pixels = counts(case.shape)
    intensity = measure_percentiles(pixels)
    tiled_net = network(case.kind, case.options, case.max_pixels, case.probabilistic, case.channels_out)
    whole_net = Network(tiled_net.graphs, tiled_net.space, case.channels_out, case.probabilistic, 10**9)
    tiled = restore(pixels, tiled_net, intensity, None)
    whole = restore(pixels, whole_net, intensity, None)
    assert whole.tiles == 1 and tiled.tiles >= 3
    assert np.abs(tiled.pixels - whole.pixels).max() <= 1e-5 * np.ptp(whole.pixels)
    if case.probabilistic:
        assert np.abs(tiled.widths - whole.widths).max() <= 1e-5 * np.ptp(whole.widths)


@pytest.mark.parametrize(
    ("options", "shape", "max_pixels"),
    [
        ({"n_dim": 2, "channels": 8, "blocks": 2, "groups": 2}, (1, 180, 170), 80**2),
        ({"n_dim": 3, "channels": 8, "blocks": 1, "groups": 2}, (1, 12, 60, 66), 12 * 48 * 48),
        ({"n_dim": 2, "channels": 8, "blocks": 1, "groups": 2, "upscale": 2}, (1, 180, 170), 80**2),
    ],
    ids=["2D", "3D", "2D upscaling"],
)
def test_rcan_tiled_is_close_to_rcan_whole(options, shape, max_pixels):
    """Random attention is stronger than trained; tests/test_pooling.py holds a trained one to 1e-3."""
    pixels = counts(shape)
    intensity = measure_percentiles(pixels, 2, 99.9)
    tiled_net = network("rcan", options, max_pixels)
    whole_net = Network(tiled_net.graphs, tiled_net.space, 1, False, 10**9)
    tiled, whole = restore(pixels, tiled_net, intensity, None), restore(pixels, whole_net, intensity, None)
    assert whole.tiles == 1 and tiled.tiles >= 3
    assert np.abs(tiled.pixels - whole.pixels).max() <= 1e-3 * np.ptp(whole.pixels)


def test_an_upscaling_network_gives_larger_images():
    net = network("rcan", {"n_dim": 2, "channels": 8, "blocks": 1, "groups": 1, "upscale": 2}, 10**9)
    assert restore(counts((1, 30, 41)), net, measure_percentiles(counts((1, 30, 41))), None).pixels.shape == (1, 60, 82)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 50), (1, 3, 2), (1, 17, 23), (1, 64, 64)], ids=str)
def test_any_size(shape):
    pixels = counts(shape)
    net = network("care", {"n_dim": 2, **CARE}, 10**9)
    assert restore(pixels, net, IntensityRange(np.array([0.0]), np.array([100.0])), None).pixels.shape == shape


def test_a_2d_network_takes_a_stack_plane_by_plane():
    pixels = counts((1, 3, 40, 44))
    intensity = measure_percentiles(pixels)
    net = network("care", {"n_dim": 2, **CARE}, 10**9)
    stack = restore(pixels, net, intensity, intensity)
    for z in range(3):
        np.testing.assert_array_equal(stack.pixels[:, z], restore(pixels[:, z], net, intensity, intensity).pixels)


def test_output_comes_back_in_counts():
    pixels = counts((1, 40, 44))
    intensity = measure_percentiles(pixels)
    net = network("care", {"n_dim": 2, "probabilistic": True, **CARE}, 10**9, probabilistic=True)
    units, back = restore(pixels, net, intensity, None), restore(pixels, net, intensity, intensity)
    span = intensity.high[0] - intensity.low[0]
    np.testing.assert_allclose(back.pixels, units.pixels * span + intensity.low[0], rtol=1e-5)
    np.testing.assert_allclose(back.widths, units.widths * span, rtol=1e-5)


def test_progress_counts_every_window_and_both_passes():
    seen = []
    pixels = counts((1, 180, 170))
    net = network("rcan", {"n_dim": 2, "channels": 8, "blocks": 1, "groups": 2}, 80**2)
    result = restore(pixels, net, measure_percentiles(pixels), None, lambda done, total: seen.append((done, total)))
    assert seen == [(n + 1, 2 * result.tiles) for n in range(2 * result.tiles)]


def test_counts_of_every_dtype_come_out_alike():
    pixels = counts((1, 40, 44))
    pixels -= pixels.min()
    pixels //= 8  # an 8-bit camera's
    intensity = measure_percentiles(pixels)
    net = network("care", {"n_dim": 2, **CARE}, 10**9)
    expected = restore(pixels, net, intensity, intensity).pixels
    for dtype in (np.uint8, ">u2", np.int16, np.uint32, np.float32, np.float64):
        found = restore(pixels.astype(dtype), net, intensity, intensity).pixels
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("max_pixels", [10**9, 120**2], ids=["whole", "tiled"])
@pytest.mark.parametrize("probabilistic", [False, True])
def test_whole_counts_are_the_rounded_ones(max_pixels, probabilistic):
    pixels = counts((1, 2, 190, 210))
    intensity = measure_percentiles(pixels)
    net = network("care", {"n_dim": 2, "probabilistic": probabilistic, **CARE}, max_pixels, probabilistic)
    exact = restore(pixels, net, intensity, intensity)
    whole = restore(pixels, net, intensity, intensity, rounded=True)
    assert (whole.pixels.dtype, whole.pixels.shape, whole.tiles) == (np.uint16, exact.pixels.shape, exact.tiles)
    assert np.abs(whole.pixels - np.clip(exact.pixels, 0, 65535)).max() <= 0.5 + 1e-2
    if probabilistic:
        np.testing.assert_array_equal(whole.widths, exact.widths)


def test_a_stack_of_pooled_tiles_is_its_planes():
    pixels = counts((1, 2, 130, 150))
    intensity = measure_percentiles(pixels)
    net = network("rcan", {"n_dim": 2, "channels": 8, "blocks": 1, "groups": 1}, 90**2)
    seen = []
    stack = restore(pixels, net, intensity, intensity, lambda done, total: seen.append((done, total)))
    planes = [restore(pixels[:, z], net, intensity, intensity) for z in range(2)]
    assert stack.tiles == sum(plane.tiles for plane in planes) > 2
    np.testing.assert_allclose(stack.pixels, np.stack([plane.pixels for plane in planes], 1), rtol=1e-5)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_frame_that_fits_is_not_copied_nor_is_its_result():
    """What goes through the network whole is read where the camera put it, and stays where the engine wrote it."""
    frame = counts((1, 64, 64))
    frame.flags.writeable = False
    intensity = measure_percentiles(frame)
    net = network("care", {"n_dim": 2, **CARE}, 10**9)
    seen = []

    class Watched:
        def whole(self, image, rounded=False):
            engine = net.graphs.whole(image, rounded)

            class Engine:
                def infer(self, *inputs):
                    outputs = engine.infer(*inputs)
                    seen.append((inputs[0], outputs[-1]))
                    return outputs

            return Engine()

    restored = restore(frame, Network(Watched(), net.space, 1, False, 10**9), intensity, intensity)
    given, result = seen[0]
    assert np.shares_memory(given, frame)
    assert np.shares_memory(restored.pixels, result)


def test_what_is_no_number_is_refused():
    pixels = counts((1, 2, 40, 44))
    net = network("care", {"n_dim": 2, **CARE}, 10**9)
    for low in (np.nan, np.inf):
        output = IntensityRange(np.array([low]), np.array([1.0]))
        for volume in (pixels, pixels[:, 0]):
            for rounded in (False, True):
                with pytest.raises(NoNumbers, match="pixels that are not numbers"):
                    restore(volume, net, measure_percentiles(pixels), output, rounded=rounded)


def test_numbers_whose_sum_is_none_are_numbers():
    pixels = counts((1, 40, 44))
    largest = float(np.finfo(np.float32).max)
    net = network("care", {"n_dim": 2, **CARE}, 10**9)
    output = IntensityRange(np.array([largest / 2]), np.array([largest / 2 + 1e32]))
    assert np.isfinite(restore(pixels, net, measure_percentiles(pixels), output).pixels).all()


def test_stopping_halfway_leaves_the_engine_usable():
    pixels = counts((1, 5, 40, 44))
    intensity = measure_percentiles(pixels)
    net = network("care", {"n_dim": 2, **CARE}, 10**9)
    expected = restore(pixels, net, intensity, intensity).pixels

    def stop(done, total):
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            restore(pixels, net, intensity, intensity, stop)
    np.testing.assert_array_equal(restore(pixels, net, intensity, intensity).pixels, expected)
