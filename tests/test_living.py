"""Living cells: a function of seed and time, in which a biologist finds what she expects; and the scene they make."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_restore.acquire.simulate.cells import Outline
from live_restore.acquire.simulate.dish import Dish
from live_restore.acquire.simulate.living import LivingCell, Lobe, Points, Pose
from live_restore.acquire.simulate.mitosis import BEGINS_S, ENDS_S, stage
from live_restore.acquire.simulate.optics import Optics
from live_restore.acquire.simulate.scene import Scene
from live_restore.acquire.simulate.specimen import KINDS

DIVIDES_S = 100.0
SHAPE = (128, 160)


@pytest.fixture(scope="module")
def cell():
    return LivingCell((3, 1, 4), np.array([20.0, -10.0]), DIVIDES_S, 0.7)


@pytest.fixture(scope="module")
def scene():
    return Scene(Dish(2), SHAPE, 0.1, Optics())


# ------------------------------------------------------------------ division


def test_stages_come_in_order_and_stay_within_bounds():
    times = np.linspace(BEGINS_S - 10, ENDS_S + 10, 400)
    course = {field.name: np.array([getattr(stage(t), field.name) for t in times]) for field in fields(stage(0.0))}
    for name, values in course.items():
        assert values.min() >= 0 and values.max() <= 1, name
        assert abs(np.diff(values)).max() < 0.15, f"{name} jumps"
    order = ("condensed", "congressed", "apart", "split", "reformed", "spread")
    for name in order:
        assert np.all(np.diff(course[name]) >= 0), f"{name} goes back"
    half = [
        times[np.argmax(course[name] > 0.5)] for name in ("condensed", "congressed", "apart", "split", "reformed", "spread")
    ]
    assert half == sorted(half)


@pytest.mark.parametrize(
    ("since_s", "nuclei", "lobes"),
    [(-50, 1, 1), (5, 0, 1), (16, 0, 1), (29, 0, 2), (70, 2, 2), (500, 2, 2)],
    ids=["interphase", "plate", "anaphase", "cytokinesis", "telophase", "daughters"],
)
def test_a_cell_divides(cell, since_s, nuclei, lobes):
    pose = cell.pose(DIVIDES_S + since_s)
    assert len(cell.nuclei(pose)) == nuclei
    assert len(pose.lobes) == lobes


def test_the_plate_is_a_plate_and_its_halves_move_apart(cell):
    def along_and_across(since_s):
        at = cell.points("nuclei", cell.pose(DIVIDES_S + since_s)).at_um[:, 1:]
        spread = np.linalg.svd(at - at.mean(axis=0), compute_uv=False) / np.sqrt(len(at))
        return spread[1], spread[0]

    thin, long = along_and_across(8)
    assert thin < 0.4 * long
    first, second = np.split(cell.points("nuclei", cell.pose(DIVIDES_S + 28)).at_um[:, 1:], 2)
    assert np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)) > 8


def test_no_dna_is_lost(cell):
    def dna(since_s):
        pose = cell.pose(DIVIDES_S + since_s)
        shown = cell.nuclei(pose)
        volumes = [n.weight * n.grown.brightness * 4 / 3 * np.pi * np.prod(n.grown.radii_um) for n in shown]
        return 1.1 * sum(volumes) + cell.points("nuclei", pose).amounts.sum()

    before = dna(-60)
    # both daughters' nuclei together are as large as the mother's, to a fifth
    assert [dna(since_s) / before for since_s in (-22, -5, 10, 20, 40, 60, 200)] == pytest.approx([1] * 7, rel=0.2)


def test_daughters_part_and_share_what_there_is(cell):
    lobes = cell.pose(DIVIDES_S + 400).lobes
    apart = np.linalg.norm(lobes[0].outline.centre_um - lobes[1].outline.centre_um)
    assert apart > 0.9 * (lobes[0].outline.radius_um + lobes[1].outline.radius_um)
    at = cell.points("mitochondria", cell.pose(DIVIDES_S + 400)).at_um[:, 1:]
    nearer = np.array([np.linalg.norm(at - lobe.outline.centre_um, axis=1) for lobe in lobes]).argmin(axis=0)
    assert 0.2 < nearer.mean() < 0.8


# ------------------------------------------------------------------ life


@pytest.mark.parametrize("kind", KINDS)
def test_life_is_a_function_of_seed_and_time(kind):
    def at(seed, times):
        cell = LivingCell((seed,), np.zeros(2), 30.0, 0.0)
        return {t: cell.points(kind, cell.pose(t)).at_um for t in times}

    forwards, backwards, other = at(1, (0.0, 40.0, 90.0)), at(1, (90.0, 40.0, 0.0)), at(2, (40.0,))
    for time_s, points in forwards.items():
        np.testing.assert_array_equal(points, backwards[time_s])
    assert not np.array_equal(forwards[40.0], other[40.0])


@pytest.mark.parametrize("kind", ["mitochondria", "filaments"])
def test_nothing_jumps(cell, kind):
    """Half a second apart, also while the cell divides; spindle fibres come and go, so the last points are left out."""
    times = np.arange(DIVIDES_S - 40, DIVIDES_S + 130, 0.5)
    before = cell.points(kind, cell.pose(times[0])).at_um
    for time_s in times[1:]:
        after = cell.points(kind, cell.pose(time_s)).at_um
        number = min(len(before), len(after))
        assert np.linalg.norm(after[:number] - before[:number], axis=1).max() < 2.0
        before = after


def test_vesicles_run_and_rest(cell):
    ways = np.diff([cell.points("vesicles", cell.pose(t)).at_um for t in np.arange(0.0, 20, 0.5)], axis=0)
    speeds = np.linalg.norm(ways, axis=-1) / 0.5  # µm per second
    assert 0.3 < np.percentile(speeds, 95) < 2.0
    assert np.percentile(speeds, 10) < 0.1


@given(seed=st.integers(0, 10**6), time_s=st.floats(0, 1e5))
@settings(max_examples=15, deadline=None)
def test_everything_stays_about_its_place(seed, time_s):
    cell = LivingCell((seed,), np.zeros(2), 500.0, 1.0)
    pose = cell.pose(time_s)
    for kind in KINDS:
        at = cell.points(kind, pose).at_um
        assert np.all(np.isfinite(at))
        assert np.all(np.linalg.norm(at[:, 1:], axis=1) < 45)
        assert np.all(at[:, 0] > -1.0) and np.all(at[:, 0] < 12)


def test_mitochondria_stay_out_of_the_nucleus(cell):
    for since_s in (-60.0, 300.0):
        pose = cell.pose(DIVIDES_S + since_s)
        at = cell.points("mitochondria", pose).at_um[:, 1:]
        for lobe in pose.lobes:
            assert np.linalg.norm(at - lobe.core_um, axis=1).min() > 0.85 * lobe.core_radius_um


# ------------------------------------------------------------------ the dish


def test_the_dish_is_endless_and_the_same_from_everywhere():
    dish = Dish(5, 0.6)
    there = list(dish.cells_in(np.array([9000.0, -9000.0]), np.array([9040.0, -8960.0])))
    beside = list(dish.cells_in(np.array([9010.0, -9000.0]), np.array([9050.0, -8960.0])))
    assert len(there) > 4
    assert set(map(id, there)) & set(map(id, beside))
    again = list(Dish(5, 0.6).cells_in(np.array([9000.0, -9000.0]), np.array([9040.0, -8960.0])))
    np.testing.assert_array_equal([c.home_um for c in there], [c.home_um for c in again])


def test_coverage_fills_the_dish():
    def number(coverage):
        return len(list(Dish(1, coverage).cells_in(np.zeros(2), np.full(2, 200.0))))

    assert number(0.2) < number(0.5) < number(0.9)


@pytest.mark.parametrize("coverage", [0, 1.5])
def test_coverage_refused(coverage):
    with pytest.raises(ValueError, match=f"coverage {coverage} must be above 0"):
        Dish(1, coverage)


def test_cells_divide_sooner_or_later_and_one_in_the_middle_soon():
    cells = list(Dish(1).cells_in(np.full(2, -300.0), np.full(2, 300.0)))
    times = np.array([c.divides_at_s for c in cells])
    assert 0.05 < np.mean(times < 0) < 0.3
    nearest = min(cells, key=lambda c: np.linalg.norm(c.home_um))
    assert 0 < nearest.divides_at_s < 60


# ------------------------------------------------------------------ the scene


class OnePoint:
    """A dish with one point of dye in it, and a cell far away that it belongs to."""

    def __init__(self, at_um):
        self.at_um = np.array([at_um])

    def cells_in(self, low_um, high_um):
        return [self]

    def pose(self, time_s):
        lobe = Lobe(Outline(self.at_um[0, 1:], 1e-6, np.zeros(0), np.zeros(0)), 0.0, np.zeros(2), 1.0)
        return Pose(time_s, -1.0, stage(-100.0), np.zeros(2), 0.0, 0.0, (lobe,))

    def points(self, kind, pose):
        return Points(self.at_um, np.ones(1))

    def nuclei(self, pose):
        return []


@pytest.mark.parametrize("pixel_size_um", [0.05, 0.108])
def test_a_point_is_seen_as_the_point_spread_function(pixel_size_um):
    optics = Optics(haze=0.0)
    side = 2 * round(6.4 / pixel_size_um)  # even: the point lies between four pixels
    scene = Scene(OnePoint((1.0, 0.0, 0.0)), (side, side), pixel_size_um, optics)
    heights = 1.0 + 0.05 * np.arange(-40, 41)
    stack = np.stack([scene.dye("vesicles", (0.0, 0.0, z), 0.0) for z in heights]).astype(np.float64)
    seen = Optics(haze=0.0, wavelength_um=0.668)
    assert stack.sum() * pixel_size_um**2 * 0.05 == pytest.approx(1, rel=3e-3)
    at = (np.arange(side) + 0.5) * pixel_size_um - side * pixel_size_um / 2
    lateral = np.sqrt(np.average(at**2, weights=stack.sum(axis=(0, 1))))
    axial = np.sqrt(np.average((heights - 1) ** 2, weights=stack.sum(axis=(1, 2))))
    assert lateral == pytest.approx(np.hypot(seen.lateral_sigma_um, 0.5 * pixel_size_um), rel=0.03)
    assert axial == pytest.approx(seen.axial_sigma_um, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_stage_moves_is_the_picture(scene, kind):
    """A stage that moves by whole coarse pixels shows the same dye elsewhere; x to the right, y down."""
    here = scene.dye(kind, (0.0, 0.0, 2.0), 10.0)
    there = scene.dye(kind, (1.6, 0.8, 2.0), 10.0)
    both = np.stack([here[8:, 16:], there[:-8, :-16]])
    assert np.corrcoef(both.reshape(2, -1))[0, 1] > 0.999
    assert abs(both[0] - both[1]).max() < 0.03 * here.max()
    assert np.corrcoef(np.stack([here, there]).reshape(2, -1))[0, 1] < 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_does_not_depend_on_what_was_seen_before(scene, kind):
    alone = Scene(Dish(2), SHAPE, 0.1, Optics()).dye(kind, (5.0, -3.0, 1.5), 33.0)
    scene.dye(kind, (5.0, -3.0, 4.0), 33.0)
    np.testing.assert_array_equal(scene.dye(kind, (5.0, -3.0, 1.5), 33.0), alone)
    assert alone.dtype == np.float32 and alone.shape == SHAPE and alone.min() >= 0
    with pytest.raises(ValueError, match="read-only"):
        alone[0, 0] = 1


def test_what_is_not_in_focus_is_not_lost():
    """The dye of a nucleus, summed over a deep stack, does not depend on how it is cut."""
    scene = Scene(Dish(2), (120, 120), 0.2, Optics(haze=0.0))
    fine = sum(scene.dye("nuclei", (0.0, 0.0, z), 0.0).sum() for z in np.arange(-1.0, 9.0, 0.2)) * 0.2
    coarse = sum(scene.dye("nuclei", (0.0, 0.0, z), 0.0).sum() for z in np.arange(-1.1, 9.0, 0.3)) * 0.3
    assert fine == pytest.approx(coarse, rel=0.01)


def test_life_is_seen(scene):
    pictures = np.stack([scene.dye("vesicles", (0.0, 0.0, 1.5), float(t)) for t in (0, 1, 30)])
    likeness = np.corrcoef(pictures.reshape(3, -1))
    assert likeness[0, 1] > likeness[0, 2]
    assert likeness[0, 2] < 0.9
