"""What training reads: targets without bias, noise that is not interpolated, patches that are fair, and what is refused."""

import tracemalloc

import numpy as np
import pytest
import tifffile

from live_restore.errors import PairError
from live_restore.intensity import IntensityRange, measure_percentiles
from live_restore.pairs.moved import cut_moved, overlap_window
from live_restore.records.pairs import Pair, read_pairs
from live_restore.restore.noise import CameraNoise
from live_restore.training.fields import choose_pairs
from live_restore.training.inputs import camera_in, high_images, open_source, read_folder
from live_restore.training.options import Augment, Sampling, Scaling, Simulate
from live_restore.training.patches import PatchSampler, fit_patches, turn
from live_restore.training.presets import preset
from live_restore.training.range_table import RangeTable
from live_restore.training.signal_map import map_signal
from live_restore.training.simulated import SimulatedSource
from live_restore.training.sources import PairSource, whole
from live_restore.training.streamed import StreamedImages
from live_restore.training.targets import fit_counts, fit_doses, network_pair, pool_range
from live_restore.training.thinning import thin
from live_restore.training.turns import Turns

OFFSET, GAIN, READ = 100.0, 2.0, 1.5
CAMERA = CameraNoise(OFFSET, GAIN, READ)


def scene(shape, seed=0, shift=(0.0, 0.0)):
    """A smooth scene that can be had at any place, 0..1: cells on a dark ground."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.arange(side, dtype=float) for side in shape), indexing="ij")
    light = np.full(shape, 0.02)
    for _ in range(12):
        middle, width = [rng.uniform(0, side) for side in shape], rng.uniform(3, 6)
        distance = sum((grid - at - move) ** 2 for grid, at, move in zip(grids, middle, shift, strict=True))
        light += rng.uniform(0.1, 1) * np.exp(-distance / (2 * width**2))
    return light / 1.2


def expose(light, photons, rng):
    """Counts of an exposure, uint16."""
    electrons = rng.poisson(photons * light) + READ * rng.standard_normal(light.shape)
    return np.clip(np.rint(OFFSET + GAIN * electrons), 0, 65535).astype(np.uint16)


def write_folder(folder, images, **how):
    """A folder of pairs; images by name, (low, high)."""
    for side, number in (("low", 0), ("high", 1)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        for name, pair in images.items():
            tifffile.imwrite(folder / side / f"{name}.tif", pair[number], **how)
    return read_pairs(folder).accepted


@pytest.fixture
def pairs(tmp_path):
    """Four positions, the first with two channels."""
    rng = np.random.default_rng(1)
    names = ("a_1", "a_2", "b_1", "c_1", "d_1")
    lights = [scene((120, 144), seed) for seed in range(5)]
    images = {name: (expose(light, 15, rng), expose(light, 800, rng)) for name, light in zip(names, lights, strict=True)}
    return write_folder(tmp_path / "pairs", images)


# --- targets


def test_the_target_has_the_counts_of_the_low_image_without_bias():
    light, rng = scene((256, 256)), np.random.default_rng(0)
    low, high = expose(light, 12, rng), expose(light, 2000, rng)
    pair = network_pair(low, high)
    counts = pair.range.unscale(pair.target[None])[0]
    expected = OFFSET + GAIN * 12 * light
    slope, offset = np.polyfit(expected.ravel(), counts.ravel(), 1)
    assert slope == pytest.approx(1, abs=0.01)
    assert slope * 120 + offset == pytest.approx(120, abs=0.25)
    assert np.array_equal(pair.low, measure_percentiles(low[None]).scale(low[None])[0])


def test_noise_of_the_low_image_leaves_the_fit_where_it_is():
    high = 1000 * scene((256, 256))
    rng = np.random.default_rng(0)
    fits = [fit_counts(0.1 * high + 50 + rng.normal(0, 200, high.shape), high) for _ in range(20)]
    assert np.mean([fit.slope for fit in fits]) == pytest.approx(0.1, abs=0.004)
    fit = fits[0]
    assert fit.dimmed(0.5, 50).offset == pytest.approx(50 + 0.5 * (fit.offset - 50))


@pytest.mark.parametrize("shift", [(0.4, -2.6), (-3.25, 1.0), (5.0, -4.0)])
def test_only_the_high_image_is_moved(shift, tmp_path):
    low, high = 4000 * scene((96, 112)) + 200, 9000 * scene((96, 112), shift=shift) + 100
    low = np.rint(low).astype(np.uint16)
    write_folder(tmp_path, {"a": (low, high.astype(np.float32)), "b": (low, high.astype(np.float32))})
    pair = Pair("a", tmp_path / "low" / "a.tif", tmp_path / "high" / "a.tif", shift_px=shift)
    source = PairSource([pair])
    kept = overlap_window(low.shape, shift)
    assert source.fields[0].shape == low[kept].shape
    scaled, target = whole(source, 0)
    counts = measure_percentiles(low[None]).unscale(scaled[None])[0]
    assert np.abs(counts - low[kept]).max() < 0.01  # not one pixel of low was touched
    inside = (slice(4, -4), slice(4, -4))  # a spline does not know what is beyond the edge
    assert np.abs(target - scaled)[inside].max() < 2e-3
    assert np.abs(target - scaled).max() < 0.02
    window = (slice(20, 52), slice(30, 70))
    assert np.abs(source.cut(0, window, np.random.default_rng(0))[1] - target[window]).max() < 1e-5


def test_whole_pixels_are_not_interpolated():
    high = np.random.default_rng(0).integers(0, 60000, (30, 30)).astype(np.uint16)
    moved = cut_moved(high, (slice(5, 9), slice(5, 9)), (2.0, -3.005))
    assert moved.dtype == np.uint16
    assert np.array_equal(moved, high[7:11, 2:6])


def test_a_line_from_the_doses():
    fit = fit_doses(0.1, 100.0)
    assert fit.apply(np.array([100, 1100])) == pytest.approx([100, 200])
    with pytest.raises(ValueError, match="dose_ratio 2 must be above 0 and at most 1"):
        fit_doses(2.0, 100.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_frozen_range_is_that_of_all_images_together(dtype):
    rng = np.random.default_rng(0)
    images = [(rng.gamma(3, 10, (2, 40, 50)) + 20 * number).clip(0, 255).astype(dtype) for number in range(3)]
    pooled = pool_range(iter(images), 2.0, 99.8, sum(image.size for image in images))
    expected = np.percentile(np.stack(images), (2, 99.8))
    assert (pooled.low[0], pooled.high[0]) == pytest.approx(expected, abs=1)


# --- less light


@pytest.mark.parametrize("photons", [0.0, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_a_thinned_image_has_the_mean_and_variance_of_one_taken_at_less_light(photons, kept):
    rng = np.random.default_rng(0)
    shape = (600, 600)
    low = expose(np.ones(shape), photons, rng)
    thinned = (thin(low, kept, CAMERA, rng).astype(np.float64) - OFFSET) / GAIN
    assert thinned.mean() == pytest.approx(kept * photons, abs=0.01 * kept * photons + 0.02)
    assert thinned.var() == pytest.approx(kept * photons + READ**2 + 1 / (12 * GAIN**2), rel=0.04)


def test_all_light_changes_nothing_and_more_is_refused():
    low = expose(scene((40, 40)), 9, np.random.default_rng(0))
    assert np.array_equal(thin(low, 1.0, CAMERA, np.random.default_rng(0)), low)
    with pytest.raises(ValueError, match=r"kept 1\.5 must be above 0 and at most 1"):
        thin(low, 1.5, CAMERA, np.random.default_rng(0))


def test_thinned_patches_keep_their_target_and_their_scale(tmp_path):
    """Low and target of many thinned cuts agree in the mean, and the range is the one that the thinned image has."""
    rng = np.random.default_rng(0)
    light = scene((160, 160))
    low = expose(light, 40, rng)
    (pair,) = write_folder(tmp_path, {"a": (low, expose(light, 3000, rng))})
    source = PairSource([pair], camera=CAMERA, thinning=(0.25, 0.25))
    cuts = [source.cut(0, (slice(0, 160),) * 2, np.random.default_rng(seed)) for seed in range(30)]
    thinned = [(a, b) for a, b in cuts if not np.isclose(b.std(), whole(PairSource([pair]), 0)[1].std(), rtol=0.01)]
    assert 5 < len(thinned) < 25
    lows, targets = (np.mean([cut[number] for cut in thinned], 0) for number in (0, 1))
    fit = np.polyfit(targets.ravel(), lows.ravel(), 1)
    assert fit == pytest.approx([1, 0], abs=0.03)
    for one, _ in thinned:
        assert np.percentile(one, (2, 99.8)) == pytest.approx([0, 1], abs=0.08)
    assert np.allclose(whole(PairSource([pair], camera=CAMERA), 0)[0], whole(PairSource([pair]), 0)[0])


def test_without_a_camera_nothing_is_thinned(pairs):
    source = PairSource(pairs, thinning=(0.2, 0.3))
    window = (slice(0, 64), slice(0, 64))
    assert np.array_equal(*(source.cut(0, window, np.random.default_rng(seed))[0] for seed in (1, 2)))


def test_maps_of_a_camera_are_cut_like_the_image(tmp_path):
    rng = np.random.default_rng(0)
    offset = rng.normal(300, 40, (96, 96)).astype(np.float32)
    light = scene((96, 96))
    low = np.rint(offset + GAIN * rng.poisson(30 * light)).astype(np.uint16)
    (pair,) = write_folder(tmp_path, {"a": (low, (5000 * light + 100).astype(np.uint16))})
    source = PairSource([pair], camera=CameraNoise(offset, GAIN, 0.5), thinning=(0.5, 0.5))
    window = (slice(30, 80), slice(10, 60))
    seeds = [seed for seed in range(20) if np.random.default_rng(seed).random() < 0.5]
    cuts = [source.cut(0, window, np.random.default_rng(seed))[0] for seed in seeds]
    # the fixed pattern is not thinned: it is as strong as before
    assert np.corrcoef(np.mean(cuts, 0).ravel(), offset[window].ravel())[0, 1] > 0.8


# --- fair patches


def test_dim_structures_are_drawn_as_often_as_bright_ones_and_empty_ground_too():
    image = np.random.default_rng(0).normal(100, 2, (512, 512))
    image[64:128, 64:128] += 2000  # bright
    image[64:128, 384:448] += 100  # dim: a twentieth of it
    signal = map_signal(image)
    rng = np.random.default_rng(1)
    corners = np.array([signal.corner((32, 32), 0.5, rng) for _ in range(4000)])
    holds = [
        np.mean(((corners + 32 > low) & (corners < high)).all(1))
        for low, high in (((64, 64), (128, 128)), ((64, 384), (128, 448)))
    ]
    assert holds[1] == pytest.approx(holds[0], rel=0.15)
    assert holds[0] > 0.25  # a 64th of the area
    assert (corners[:, 0] > 160).mean() > 0.25
    assert corners.min() == 0
    assert corners.max() == 480
    assert signal.share == pytest.approx(2 * 64**2 / 512**2, rel=0.1)


def test_brightness_does_not_choose_within_the_signal():
    """Of cells of all brightnesses, each is drawn as often as any other."""
    rng = np.random.default_rng(0)
    image = rng.normal(50, 1, (320, 320))
    brightness = np.geomspace(30, 3000, 16)
    for number, counts in enumerate(brightness):
        y, x = 80 * (number // 4) + 24, 80 * (number % 4) + 24
        image[y : y + 32, x : x + 32] += counts
    signal = map_signal(image)
    places = np.array([signal.corner((1, 1), 1.0, rng) for _ in range(8000)]) // 80
    drawn = np.bincount(4 * places[:, 0] + places[:, 1], minlength=16)
    # the dimmest have a hundredth of the brightest: below 3 % they are left to the draws that lie anywhere
    seen = brightness > 0.04 * brightness.max()
    assert drawn[seen].min() > 0.7 * drawn[seen].max()


@pytest.mark.parametrize("shape", [(5, 40, 48), (1, 16, 16), (7, 9)])
def test_corners_lie_within_images_of_any_size(shape):
    signal = map_signal(np.random.default_rng(0).random(shape))
    patch = tuple(max(1, side - 2) for side in shape)
    rng = np.random.default_rng(0)
    for corner in (signal.corner(patch, 0.5, rng) for _ in range(50)):
        assert all(0 <= start <= side - size for start, side, size in zip(corner, shape, patch, strict=True))


def test_every_channel_position_and_image_has_its_turn_equally_often():
    places = [("red", "a"), ("red", "a"), ("red", "b"), ("green", "a")]
    turns = Turns(places, 3)
    counted = np.bincount([turns.at(number) for number in range(80)])
    assert counted.tolist() == [10, 10, 20, 40]
    assert [Turns(places, 3).at(number) for number in range(20)] == [turns.at(number) for number in range(20)]
    assert [Turns(places, 4).at(number) for number in range(20)] != [turns.at(number) for number in range(20)]


def test_low_and_target_are_turned_together(tmp_path):
    light = np.random.default_rng(0).integers(100, 4000, (64, 96)).astype(np.uint16)
    source = PairSource(write_folder(tmp_path, {"a": (light, 3 * light + 5)}))
    sampler = PatchSampler(source, Sampling(patches=((32, 32),), batch=16))
    batch = sampler.draw(0)
    assert batch.low.shape == batch.target.shape == (16, 1, 32, 32)
    assert batch.low.dtype == np.float32
    assert batch.low.flags.c_contiguous
    assert np.abs(batch.low - batch.target).max() < 1e-4
    upright = PatchSampler(source, Sampling(patches=((32, 32),), batch=16), Augment(flips=False, rotations=False)).draw(0)
    turned = [not np.array_equal(a, b) for a, b in zip(batch.low, upright.low, strict=True)]
    assert 8 < sum(turned) <= 16
    assert np.allclose(np.sort(batch.low, axis=None), np.sort(upright.low, axis=None))


@pytest.mark.parametrize(
    ("square", "augment", "number"),
    [
        (True, Augment(), 8),
        (False, Augment(), 4),
        (True, Augment(rotations=False), 4),
        (True, Augment(flips=False), 4),
        (True, Augment(flips=False, rotations=False), 1),
        (True, Augment(flip_z=True), 16),
    ],
)
def test_only_turns_that_physics_allows(square, augment, number):
    patch = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    rng = np.random.default_rng(0)
    seen = {turn(patch, augment, square, rng).tobytes() for _ in range(300)}
    assert len(seen) == number


def test_pixels_that_are_not_square_are_not_rotated(tmp_path):
    light = np.random.default_rng(0).integers(100, 4000, (64, 64)).astype(np.uint16)
    (pair,) = write_folder(tmp_path, {"a": (light, light)})
    for size, square in (((None, 0.1, 0.1), True), ((None, 0.2, 0.1), False), ((None, None, None), True)):
        said = Pair("a", pair.low, pair.high, said={"pixel_size_um": list(size)})
        assert PairSource([said]).fields[0].square == square


# --- the same again


def test_a_batch_is_the_same_whenever_it_is_drawn(pairs):
    def sampler(seed=5):
        source = PairSource(pairs, camera=CAMERA, thinning=(0.4, 1.0))
        return PatchSampler(source, Sampling(patches=((32, 32), (48, 48)), batch=6), seed=seed)

    first = sampler()
    forward = [first.draw(step) for step in range(6)]
    back = sampler()
    for step in reversed(range(6)):
        again = back.draw(step)
        assert np.array_equal(again.low, forward[step].low)
        assert np.array_equal(again.target, forward[step].target)
    assert {batch.low.shape[-1] for batch in forward} == {32, 48}
    assert not np.array_equal(sampler(6).draw(0).low[0, 0, :8, :8], forward[0].low[0, 0, :8, :8])


def test_processes_see_together_what_one_sees(pairs):
    sampling = Sampling(patches=((32, 32), (40, 40)), batch=6)
    source = PairSource(pairs, camera=CAMERA, thinning=(0.4, 1.0))
    alone = PatchSampler(source, sampling, seed=2)
    crew = [PatchSampler(source, sampling, seed=2, rank=rank, world=3) for rank in range(3)]
    for step in (0, 7):
        shares = [each.draw(step) for each in crew]
        assert np.array_equal(np.concatenate([share.low for share in shares]), alone.draw(step).low)
        assert np.array_equal(np.concatenate([share.target for share in shares]), alone.draw(step).target)
    with pytest.raises(ValueError, match="batch of 6 cannot be shared by process 0 of 4"):
        PatchSampler(source, sampling, world=4)


# --- streamed from the disk


def test_uncompressed_images_stay_on_the_disk_and_others_within_the_limit(tmp_path):
    rng = np.random.default_rng(0)
    images = {f"p{number}": rng.integers(0, 4000, (512, 1024)).astype(np.uint16) for number in range(12)}  # a megabyte each
    for name, image in images.items():
        tifffile.imwrite(tmp_path / f"{name}_plain.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_packed.tif", image, compression="zlib")
    streamed = StreamedImages(3 << 20)
    for kind, held in (("plain", 0), ("packed", 3 << 20)):
        for _ in range(2):
            for name, image in images.items():
                assert np.array_equal(streamed.open(tmp_path / f"{name}_{kind}.tif")[100:110], image[100:110])
        assert streamed.held_bytes == held


def test_training_from_a_folder_that_is_larger_than_the_memory(tmp_path):
    """Sixteen pairs, 32 MB, through 2 MB: the peak is the limit and the few images at hand."""
    light = scene((512, 1024))
    rng = np.random.default_rng(0)
    images = {f"p{n}": (rng.poisson(20 * light + 90), rng.poisson(900 * light + 90)) for n in range(16)}
    images = {name: tuple(side.astype(np.uint16) for side in pair) for name, pair in images.items()}
    pairs = write_folder(tmp_path, images, compression="zlib")
    del images
    tracemalloc.start()
    try:
        source = PairSource(pairs, memory_mb=2)
        looked, _ = tracemalloc.get_traced_memory()
        sampler = PatchSampler(source, Sampling(patches=((96, 96),), batch=8, patches_per_image=4))
        tracemalloc.reset_peak()
        for step in range(6):
            sampler.draw(step)
        _, drawing = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert looked < 1 << 20  # nothing of 32 MB stays
    assert drawing < 8 << 20


# --- stacks


def stacks(tmp_path, planes=(14, 14)):
    rng = np.random.default_rng(0)
    images = {}
    for name, number in zip(("a", "b"), planes, strict=True):
        light = np.stack([scene((48, 56), seed) for seed in range(number)])
        images[name] = expose(light, 20, rng), expose(light, 900, rng)
    return write_folder(tmp_path, images, photometric="minisblack", metadata={"axes": "ZYX"})


def test_stacks_for_networks_of_both_kinds(tmp_path):
    pairs = stacks(tmp_path)
    deep = PatchSampler(
        PairSource(pairs, n_dim=3), Sampling(patches=((8, 32, 32), (12, 32, 32)), batch=2), Augment(flip_z=True)
    )
    assert {deep.draw(step).low.shape[2:] for step in range(8)} == {(8, 32, 32), (12, 32, 32)}
    flat = PatchSampler(PairSource(pairs, n_dim=2), Sampling(patches=((32, 32),), batch=2))
    assert flat.draw(0).target.shape == (2, 1, 32, 32)


def test_patches_are_shortened_to_what_there_is(tmp_path):
    source = PairSource(stacks(tmp_path, (14, 10)), n_dim=3)
    assert fit_patches(((8, 64, 64), (12, 64, 64), (16, 64, 64)), source.fields, 4) == ((8, 48, 56),)
    assert fit_patches(((8, 64, 64), (16, 64, 64)), source.fields, 1) == ((8, 48, 56), (10, 48, 56))
    with pytest.raises(PairError, match=r"pair 'b' is \[10, 48, 56\] large; the network halves images, so every side needs 16"):
        fit_patches(((16, 64, 64),), source.fields, 16)


def test_a_frozen_range_scales_training_and_held_out_images_alike(pairs):
    scaling = Scaling(mode="frozen")
    source = PairSource(pairs[:3], scaling)
    lows = np.stack([pair.read()[0] for pair in pairs[:3]])
    assert (source.frozen.low[0], source.frozen.high[0]) == pytest.approx(np.percentile(lows, (2, 99.8)), abs=1)
    judged = PairSource(pairs[3:], scaling, frozen=source.frozen)
    low = pairs[3].read()[0]
    assert np.allclose(whole(judged, 0)[0], source.frozen.scale(low[None])[0])


# --- no pairs at all


def clean_images(tmp_path, gain=1.0, photons=3000):
    rng = np.random.default_rng(0)
    (tmp_path / "high").mkdir(parents=True)
    for name in ("a_1", "b_1"):
        image = OFFSET + gain * rng.poisson(photons * scene((160, 176), ord(name[0])))
        tifffile.imwrite(tmp_path / "high" / f"{name}.tif", np.rint(image).astype(np.uint16))
    return high_images(tmp_path).pairs


@pytest.mark.parametrize(
    "simulate",
    [
        Simulate(pattern=False),
        Simulate(),
        Simulate(blur_px=(1.0, 1.0), background=0.0),
        Simulate(high_offset_adu=OFFSET, high_gain_adu_per_e=1.0),
    ],
    ids=["assumed", "pattern", "blur", "electrons"],
)
def test_simulated_low_light_has_its_target_as_its_mean(simulate, tmp_path):
    source = SimulatedSource(clean_images(tmp_path), simulate.model_copy(update={"photons": (10.0, 10.0)}))
    window = (slice(16, 144), slice(16, 144))
    cuts = [source.cut(0, window, np.random.default_rng(seed)) for seed in range(60)]
    lows, targets = (np.mean([cut[number] for cut in cuts], 0) for number in (0, 1))
    slope, offset = np.polyfit(targets.ravel(), lows.ravel(), 1)
    # what was blurred has less contrast than its target, and that is what is to be learned
    assert slope == pytest.approx(1, abs=0.03) or (simulate.blurs and 0.8 < slope < 0.99)
    assert offset == pytest.approx(0, abs=0.02) or simulate.blurs
    again = source.cut(0, window, np.random.default_rng(5))
    assert np.array_equal(again[0], cuts[5][0])
    assert not np.array_equal(cuts[6][0], cuts[5][0])
    for one in (whole(source, 0)[0], whole(source, 1)[0]):
        assert np.percentile(one, (2, 99.8)) == pytest.approx([0, 1], abs=0.1)


def test_divided_electrons_share_no_noise(tmp_path):
    """A noisy high image: what low got by chance, the target must not have as well."""
    simulate = Simulate(photons=(20.0, 20.0), quantum_efficiency=1.0, pattern=False, read_noise_e=0.1)
    images = clean_images(tmp_path, photons=100)
    truth = 100 * scene((160, 176), ord("a"))
    window = (slice(0, 160), slice(0, 176))

    def shared(chosen):
        low, target = SimulatedSource(images, chosen).cut(0, window, np.random.default_rng(0))
        noise = [image - np.polyval(np.polyfit(truth.ravel(), image.ravel(), 1), truth) for image in (low, target)]
        return np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]

    divided = simulate.model_copy(update={"high_offset_adu": OFFSET, "high_gain_adu_per_e": 1.0})
    assert abs(shared(divided)) < 0.03
    assert shared(simulate.model_copy(update={"background": 0.0})) > 0.2


def test_a_range_between_nodes_lies_on_the_line_between_them():
    def measure(light, blur):
        return IntensityRange(np.array([2 * light - blur]), np.array([5 * light + 3 * blur + 1]))

    table = RangeTable([np.linspace(1, 9, 3), np.array([0.0])], measure)
    assert (table.at(4.0, 0.0).low[0], table.at(4.0, 7.0).high[0]) == pytest.approx((8, 21))
    assert table.at(20.0, 0.0).low[0] == pytest.approx(18)
    table = RangeTable([np.linspace(1, 9, 3), np.linspace(0, 2, 2)], measure)
    assert (table.at(8.0, 0.5).low[0], table.at(2.5, 1.7).high[0]) == pytest.approx((15.5, 18.6))


def test_patches_of_any_light_level_are_scaled_as_the_whole_image_would_be(tmp_path):
    simulate = Simulate(photons=(3.0, 80.0), blur_px=(0.0, 2.0), read_noise_e=1.0)
    source = SimulatedSource(clean_images(tmp_path), simulate)
    window = (slice(0, 160), slice(0, 176))
    ends = [np.percentile(source.cut(0, window, np.random.default_rng(seed))[0], (2, 99.8)) for seed in range(40)]
    assert np.abs(np.array(ends) - (0, 1)).max() < 0.12
    assert np.mean(ends, 0) == pytest.approx([0, 1], abs=0.03)


def test_options_choose_the_source(pairs, tmp_path):
    options = preset("care", 2)
    assert isinstance(open_source(pairs, options, CAMERA), PairSource)
    clean_images(tmp_path / "clean")
    simulated = options.changed(simulate={}, normalisation={"mode": "frozen"})
    found = read_folder(tmp_path / "clean", simulated)
    assert [pair.position for pair in found.pairs] == ["a_1", "b_1"]
    source = open_source(found.pairs, simulated)
    assert source.frozen is not None
    assert open_source(found.pairs[:1], simulated, frozen=source.frozen).frozen is source.frozen
    assert PatchSampler(source, options.sampling).draw(0).low.shape == (8, 1, *options.sampling.patches[0])
    window = (slice(0, 64), slice(0, 64))
    judged = open_source(pairs, options, CAMERA, held_out=True)
    assert np.array_equal(*(judged.cut(0, window, np.random.default_rng(seed))[0] for seed in (1, 2)))


def test_the_camera_of_a_card():
    said = {"offset_adu": 100.0, "gain_adu_per_e": 0.5, "read_noise_e": 1.2, "bit_depth": 16}
    assert camera_in({"camera": said}).gain_adu_per_e == 0.5
    assert camera_in({"camera": None, "camera_measured": said}).read_noise_e == 1.2
    assert camera_in({"camera": {"offset_adu": 3}}) is None
    measured = {name: {"value": value, "error": 0.01} for name, value in said.items()} | {"certain": True}
    assert camera_in({"camera": None, "camera_measured": measured}).gain_adu_per_e == 0.5
    assert camera_in({"camera_measured": measured | {"certain": False}}) is None, "what is uncertain is not built on"
    assert camera_in({}) is None


# --- what is refused


def test_pairs_that_cannot_be_chosen(pairs):
    named = [Pair(pair.name, pair.low, pair.high, channel="GFP") for pair in pairs]
    assert choose_pairs(named, "GFP") == tuple(named)
    with pytest.raises(PairError, match="no accepted pair has the channel 'GPF'; did you mean GFP"):
        choose_pairs(named, "GPF")
    with pytest.raises(PairError, match="channel 'DAPI'; there are none with a name"):
        choose_pairs(pairs, "DAPI")
    bad = [Pair("a", pair.low, pair.high, accepted=False, reason="it moved") for pair in pairs]
    with pytest.raises(PairError, match=r"none of 5 pairs was accepted \(it moved\)"):
        choose_pairs(bad)
    with pytest.raises(PairError, match="there is no image to learn from"):
        PairSource([])


GOOD = np.random.default_rng(0).integers(100, 4000, (64, 64)).astype(np.uint16)
NAN = np.where(GOOD == GOOD[3, 3], np.nan, GOOD).astype(np.float32)
OTHER = np.random.default_rng(1).integers(100, 4000, (64, 64)).astype(np.uint16)
BROKEN = {
    "unequal": ((GOOD, GOOD[:60]), r"pair 'a': low is \[64, 64\] large, high \[60, 64\]"),
    "nan": ((GOOD, NAN), r"the high image of pair 'a' has \d+ pixels that are no numbers"),
    "constant": ((np.full_like(GOOD, 7), GOOD), "the low image of pair 'a' has the same count in every pixel"),
    "unrelated": ((GOOD, OTHER), "pair 'a': the low image does not follow the high one"),
    "negative": ((4100 - GOOD, GOOD), "the low image does not follow the high one: it changes by -1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pairs(case, tmp_path):
    images, words = BROKEN[case]
    with pytest.raises(PairError, match=words):
        PairSource(write_folder(tmp_path, {"a": images}))


def test_shifts_that_cannot_be(tmp_path):
    (pair,) = write_folder(tmp_path, {"a": (GOOD, GOOD)})
    with pytest.raises(PairError, match=r"pair 'a': low and high lie .* pixels apart, .* nothing is on both"):
        PairSource([Pair("a", pair.low, pair.high, shift_px=(64.0, 0.0))])
    with pytest.raises(PairError, match="has 3 numbers, the images 2 axes"):
        PairSource([Pair("a", pair.low, pair.high, shift_px=(0.0, 1.0, 0.0))])


def test_images_that_are_too_small_for_the_patch(pairs):
    with pytest.raises(PairError, match=r"pair 'a_1' is \[120, 144\] large, smaller than the patch \[128, 128\]"):
        PatchSampler(PairSource(pairs), Sampling(patches=((128, 128),)))


def test_images_that_do_not_go_together(pairs, tmp_path):
    deep = stacks(tmp_path / "stacks")
    with pytest.raises(PairError, match=r"5 pairs are single images \(a_1, a_2, b_1 and 2 more\), 2 are stacks"):
        PairSource([*pairs, *deep])
    with pytest.raises(PairError, match=r"a 3D network needs stacks, and a_1, .* are single images; set n_dim = 2"):
        PairSource(pairs, n_dim=3)
    sizes = [
        Pair(pair.name, pair.low, pair.high, said={"pixel_size_um": [None, size, size]})
        for pair, size in zip(pairs, (0.100, 0.104, 0.11), strict=False)
    ]
    assert PairSource(sizes[:2]).fields[1].pixel_size_um == (None, 0.104, 0.104)
    with pytest.raises(PairError, match=r"pixels in y are 0\.1 µm in a_1 and 0\.11 µm in b_1"):
        PairSource(sizes)


def test_high_images_that_are_none(tmp_path):
    with pytest.raises(PairError, match="is no folder"):
        high_images(tmp_path / "nothing")
    with pytest.raises(PairError, match="holds no TIFF file"):
        high_images(tmp_path)
    images = clean_images(tmp_path / "clean", photons=20)
    known = {"high_offset_adu": OFFSET, "high_gain_adu_per_e": 1.0}
    with pytest.raises(PairError, match="photons in its brightest pixels, too few to simulate 50 from"):
        SimulatedSource(images, Simulate(photons=(50.0, 90.0), **known))
    with pytest.raises(PairError, match="the image 'a_1' has no light"):
        SimulatedSource(images, Simulate(**{**known, "high_offset_adu": 5000.0}))
