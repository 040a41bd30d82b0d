import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import j0

from live_restore.acquire.simulate.camera import Camera, build_camera
from live_restore.acquire.simulate.cells import Cell, Specimen, Spots, grow_specimen
from live_restore.acquire.simulate.optics import Optics
from live_restore.acquire.simulate.specimen import KINDS, example_field, render

# ------------------------------------------------------------------ camera


def test_noise_is_what_the_camera_says():
    """Standardised residuals over 100 exposures of a ramp from dark to 200 photons: mean 0, standard deviation 1."""
    camera = build_camera(1, (128, 128))
    photons = np.broadcast_to(np.linspace(0, 200, 128), (128, 128))
    frames = camera.expose(np.broadcast_to(photons, (100, 128, 128)), np.random.default_rng(2))
    residuals = (frames - camera.mean_adu(photons)) / camera.sd_adu(photons)
    assert residuals.mean() == pytest.approx(0, abs=4 / np.sqrt(residuals.size))
    assert residuals.std() == pytest.approx(1, abs=0.01)
    by_light = residuals.std(axis=(0, 1))  # one figure per column, hence per light level
    np.testing.assert_allclose(by_light, 1, atol=0.05)


def test_noise_is_white():
    camera = build_camera(3, (256, 256))
    photons = np.full((256, 256), 10.0)
    residuals = (camera.expose(photons, np.random.default_rng(4)) - camera.mean_adu(photons)) / camera.sd_adu(photons)
    for axis in (0, 1):
        assert np.mean(residuals * np.roll(residuals, 1, axis)) == pytest.approx(0, abs=4 / 256)


def test_maps_are_as_measured_on_real_sensors():
    camera = build_camera(0, (512, 512))
    assert np.median(camera.gain_adu_per_e) == pytest.approx(2.18, abs=0.01)
    assert np.percentile(camera.read_noise_e, [1, 50, 75, 95, 99]) == pytest.approx([0.83, 0.99, 1.18, 2.74, 5.4], rel=0.1)
    assert 94 < np.median(camera.offset_adu) < 100


def test_camera_comes_from_its_seed():
    one, same, other = (build_camera(seed, (32, 48)) for seed in (5, 5, 6))
    photons = np.full((32, 48), 20.0)
    first, second, third = (camera.expose(photons, np.random.default_rng(0)) for camera in (one, same, other))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def ideal_camera(shape):
    ones = np.ones(shape, np.float32)
    return Camera(quantum_efficiency=1.0, offset_adu=100 * ones, gain_adu_per_e=2 * ones, read_noise_e=0 * ones)


@pytest.mark.parametrize(
    ("photons", "counts"), [(0.0, 100), (1e6, 60100), (1e15, 60100)], ids=["dark", "saturated", "far beyond"]
)
def test_dark_and_full(photons, counts):
    frame = ideal_camera((8, 8)).expose(np.full((8, 8), photons), np.random.default_rng(0))
    assert frame.dtype == np.uint16
    np.testing.assert_array_equal(frame, counts)


@pytest.mark.parametrize(
    ("photons", "message"),
    [
        (np.zeros((8, 9)), r"photons have shape \(8, 9\), the sensor \(8, 8\)"),
        (np.full((8, 8), -1.0), "photons go down to -1"),
        (np.full((8, 8), np.nan), "photons go down to nan"),
    ],
    ids=["shape", "negative", "nan"],
)
def test_exposure_refuses(photons, message):
    with pytest.raises(ValueError, match=message):
        ideal_camera((8, 8)).expose(photons, np.random.default_rng(0))


@pytest.mark.parametrize("efficiency", [0.0, 1.5])
def test_camera_refuses_an_impossible_efficiency(efficiency):
    with pytest.raises(ValueError, match=f"quantum_efficiency {efficiency} must be"):
        build_camera(0, (8, 8), efficiency)


# ------------------------------------------------------------------ optics


def debye_intensity(optics, r_um, z_um):
    """Scalar, non-paraxial intensity near the focus by numerical integration over the aperture."""
    angles = np.linspace(0, np.arcsin(optics.na / optics.refractive_index), 4001)
    k = 2 * np.pi * optics.refractive_index / optics.wavelength_um
    wave = np.sqrt(np.cos(angles)) * np.sin(angles) * j0(k * r_um * np.sin(angles)) * np.exp(1j * k * z_um * np.cos(angles))
    return abs(np.trapezoid(wave, angles)) ** 2


@pytest.mark.parametrize(
    ("na", "index"), [(0.3, 1.0), (0.8, 1.0), (1.2, 1.33), (1.4, 1.515)], ids=["air", "dry", "water", "oil"]
)
def test_blur_is_as_wide_as_the_diffraction_integral(na, index):
    """The Gaussians are those that agree with the diffraction integral about the focus."""
    optics = Optics(na=na, refractive_index=index, wavelength_um=0.52)
    near = 1e-3
    peak = debye_intensity(optics, 0, 0)
    lateral = near / np.sqrt(-2 * np.log(debye_intensity(optics, near, 0) / peak))
    axial = near / np.sqrt(-2 * np.log(debye_intensity(optics, 0, near) / peak))
    assert optics.lateral_sigma_um == pytest.approx(lateral, rel=1e-3)
    assert optics.axial_sigma_um == pytest.approx(axial, rel=1e-3)


def test_optics_refuses_an_impossible_aperture():
    with pytest.raises(ValueError, match=r"na 1\.4 must be above 0 and below the refractive index 1\.33"):
        Optics(na=1.4)


# ------------------------------------------------------------------ cells


@given(seed=st.integers(0, 2**31), side=st.floats(3, 60))
@settings(max_examples=15, deadline=None)
def test_cells_hold_what_they_should(seed, side):
    specimen = grow_specimen(seed, (side, 40.0))
    assert specimen.cells
    for cell in specimen.cells:
        spots = cell.mitochondria.as_spots(0.1)
        assert np.all(np.isfinite(spots.centres_um))
        assert np.all(cell.outline.depth_um(spots.centres_um[:, 1:]) > 0), "mitochondria lie inside the cell"
        assert np.all(cell.vesicles.centres_um[:, 0] > 0), "nothing below the coverslip"


def test_mitochondria_stay_out_of_the_nucleus():
    for cell in grow_specimen(8, (60.0, 60.0)).cells:
        at = cell.mitochondria.points_um.reshape(-1, 3).copy()
        at[:, 0] = cell.nucleus.centre_um[0]
        assert np.linalg.norm(cell.nucleus.within(at), axis=-1).min() > 1


@pytest.mark.parametrize("coverage", [0, 1.2])
def test_coverage_refused(coverage):
    with pytest.raises(ValueError, match=f"coverage {coverage} must be"):
        grow_specimen(0, (10.0, 10.0), coverage)


# ------------------------------------------------------------------ fields


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(96, 120), (5, 64, 80)], ids=["plane", "stack"])
def test_field(kind, shape):
    photons = example_field(11, shape, kind, peak_photons=50.0)
    assert photons.shape == shape
    assert photons.dtype == np.float32
    assert np.percentile(photons, 99.9) == pytest.approx(50, rel=1e-3)
    assert 0.9 < photons.min() < 10, "a dim background, never nothing"
    np.testing.assert_array_equal(photons, example_field(11, shape, kind, peak_photons=50.0))
    assert not np.array_equal(photons, example_field(12, shape, kind, peak_photons=50.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"kind": "golgi"}, "kind 'golgi' is not rendered; choose from nuclei"), ({"shape": (9,)}, r"shape \(9,\) must be")],
    ids=["kind", "shape"],
)
def test_field_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        example_field(0, **arguments)


def single_point(z_um):
    """A specimen with one vesicle in the middle of a 12.8 µm field and, far outside, the cell it belongs to."""
    cell = grow_specimen(0, (1.0, 1.0)).cells[0]
    point = Spots(np.array([[z_um, 6.4, 6.4]]), np.array([0.01]), np.array([1.0]))
    far = cell.outline.__class__(np.array([-900.0, -900.0]), 1.0, np.zeros(0), np.zeros(0))
    return Specimen((Cell(far, cell.nucleus, cell.mitochondria, cell.filaments, point),))


@pytest.mark.parametrize("pixel_size_um", [0.05, 0.1])
def test_a_point_is_seen_as_the_point_spread_function(pixel_size_um):
    """One unit of dye, imaged in three dimensions: unit volume, and the widths that the optics promise."""
    optics = Optics(haze=0.0)
    side = round(12.8 / pixel_size_um)
    heights = 1.0 + 0.05 * np.arange(-40, 41)
    stack = render(single_point(1.0), "vesicles", (side, side), pixel_size_um, heights, optics).astype(np.float64)
    assert stack.sum() * pixel_size_um**2 * 0.05 == pytest.approx(1, rel=1e-3)
    at = (np.arange(side) + 0.5) * pixel_size_um - 6.4
    lateral = np.sqrt(np.average(at**2, weights=stack.sum(axis=(0, 1))))
    axial = np.sqrt(np.average((heights - 1) ** 2, weights=stack.sum(axis=(1, 2))))
    # a point is shared between two pixels at most, which adds a quarter of a pixel's square
    assert lateral == pytest.approx(np.hypot(optics.lateral_sigma_um, 0.5 * pixel_size_um), rel=0.02)
    assert axial == pytest.approx(optics.axial_sigma_um, rel=0.01)


def test_a_finer_camera_sees_the_same_specimen():
    specimen = grow_specimen(4, (12.8, 12.8))
    fine, coarse = (
        render(specimen, "mitochondria", (side, side), 12.8 / side, np.array([1.2]), Optics())[0] for side in (256, 128)
    )
    binned = fine.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    assert np.corrcoef(binned.ravel(), coarse.ravel())[0, 1] > 0.99
    assert binned.mean() == pytest.approx(coarse.mean(), rel=0.01)


def test_out_of_focus_light_is_spread_and_not_lost():
    heights = np.array([1.0, 9.0])
    focused, defocused = render(single_point(1.0), "vesicles", (128, 128), 0.1, heights, Optics(haze=0.1))
    assert focused.max() > 50 * defocused.max() > 0
