"""The shift between low and high light: right to a tenth of a pixel where there is light, and unknown where there is none."""

import numpy as np
import pytest
from pair_folders import RATIO, camera, cells, moved
from skimage.registration import phase_cross_correlation

from live_restore.pairs.shift import Shift, busiest, flatten, measure_motion, measure_shift, overlap

SHIFTS = [(0.0, 0.0), (0.3, -0.4), (2.6, -1.3), (-12.2, 5.7)]


def taken(peak, px, kind="filaments", seed=0):
    """One field at low light, and at high light where it has moved by so many pixels."""
    field = cells(3, (224, 224), kind)
    inside = slice(16, -16)
    return camera((peak * field)[inside, inside], seed), camera((RATIO * peak * moved(field, *px))[inside, inside], seed + 1)


@pytest.mark.parametrize(
    ("kind", "px"),
    [*(("filaments", px) for px in SHIFTS), *((kind, SHIFTS[2]) for kind in ("mitochondria", "vesicles", "nuclei"))],
)
def test_ten_photons_tell_the_shift_to_a_tenth_of_a_pixel(kind, px):
    shift = measure_shift(*taken(20, px, kind))
    assert shift.px == pytest.approx(px, abs=0.1)
    assert max(shift.error_px) < 0.1


def test_its_error_is_what_it_says():
    """Over many noises the deviations are as large as the errors say, within a factor of two."""
    found = [measure_shift(*taken(4, (0.3, -0.4), seed=2 * seed)) for seed in range(12)]
    off = np.array([np.array(shift.px) - (0.3, -0.4) for shift in found])
    said = np.mean([shift.error_px for shift in found])
    assert 0.5 < np.sqrt(np.mean(off**2)) / said < 2


@pytest.mark.parametrize("peak", [0.1, 0.3])
def test_with_too_little_light_it_is_unknown(peak):
    shift = measure_shift(*taken(peak, (3.0, 4.0), "vesicles"))
    assert not shift
    assert shift.px == ()


def test_another_field_has_no_shift():
    assert not measure_shift(camera(20 * cells(3)), camera(600 * cells(8)))


def test_hot_pixels_do_not_hold_the_image_in_place():
    low, high = taken(5, (2.6, -1.3))
    places = np.random.default_rng(0).integers(0, low.shape[0], (60, 2))
    low[tuple(places.T)], high[tuple(places.T)] = 900, 1500
    assert measure_shift(low, high).px == pytest.approx((2.6, -1.3), abs=0.15)


def test_it_agrees_with_scikit_image_where_there_is_no_noise():
    field = cells(3, (256, 256)).astype(np.float64)
    high = moved(field, 1.7, -2.4)
    theirs, _, _ = phase_cross_correlation(high, field, upsample_factor=50, normalization=None)
    assert measure_shift(field, high).px == pytest.approx(tuple(theirs), abs=0.05)


@pytest.mark.parametrize("dz", [0.0, 1.0, -5 / 3])
def test_a_stack_is_measured_in_z(dz):
    fine = cells(3, (37, 128, 128), "mitochondria", 0.1)
    places = 5 + 3 * np.arange(9)
    low, high = camera(15 * fine[places]), camera(450 * moved(fine, 0.0, 0.6, -0.3)[places - round(3 * dz)], 1)
    shift = measure_shift(low, high)
    assert shift.px[0] == pytest.approx(dz, abs=0.15)
    assert shift.px[1:] == pytest.approx((0.6, -0.3), abs=0.1)


@pytest.mark.parametrize("planes", [2, 3])
def test_a_few_planes_tell_nothing_of_z(planes):
    fine = cells(3, (planes, 128, 128), "mitochondria")
    shift = measure_shift(camera(40 * fine), camera(1200 * fine, 1))
    assert shift.px[0] == 0
    assert shift.error_px[0] == np.inf


def test_parts_that_moved_are_found():
    field = cells(3, (256, 256))
    parted = field.copy()
    parted[:, 128:] = np.roll(field, 5, 0)[:, 128:]
    low = camera(20 * field)
    still, gone = camera(600 * field, 1), camera(600 * parted, 1)
    assert measure_motion(low, still, measure_shift(low, still)) == 0
    assert measure_motion(low, gone, measure_shift(low, gone)) == pytest.approx(5, abs=1)
    assert measure_motion(low, still, Shift()) is None


def test_the_busiest_part_is_where_the_cells_are():
    image = np.full((3, 300, 500), 100.0)
    image[:, 200:260, 400:460] += camera(50 * cells(3, (60, 60)))
    part = busiest(image, 120)
    assert image[part].shape == (3, 120, 120)
    assert np.ptp(image[part]) == np.ptp(image)
    assert busiest(image[0], 512) == (slice(0, 300), slice(0, 500))


def test_overlap_cuts_what_both_show():
    image = np.arange(12 * 10).reshape(12, 10)
    low, high = overlap(image[2:], image[:-2], Shift((2.0, 0.0)))
    np.testing.assert_array_equal(low, high)
    assert [part.shape for part in overlap(image, image, Shift())] == [(12, 10)] * 2


def test_what_is_too_small_or_flat_is_unknown():
    assert not measure_shift(np.ones((8, 8)), np.ones((8, 8)))
    assert not measure_shift(np.ones((64, 64)), np.ones((64, 64)))
    assert flatten(np.ones((2, 16, 16))).shape == (16, 16)


@pytest.mark.parametrize("other", [(16, 17), (2, 16, 16), (1, 1, 16, 16)])
def test_unequal_shapes_are_refused(other):
    with pytest.raises(ValueError, match="both must be the same"):
        measure_shift(np.ones((16, 16)) if len(other) < 4 else np.ones(other), np.ones(other))
