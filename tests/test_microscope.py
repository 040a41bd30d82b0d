"""The demo microscope: it sees what its devices stand at, and what it says of its noise is exact."""

import time
from pathlib import Path

import numpy as np
import pytest
from own_process import run_alone

pytest.importorskip("pymmcore_plus")
pytest.importorskip("mm_test_adapters")

from live_restore.acquire.simulate.microscope import CHANNELS, demo_config, demo_core, pycromanager_core
from live_restore.acquire.simulate.sim_camera import SpecimenClock
from live_restore.config import HardwareConfig, Simulation
from live_restore.errors import AcquisitionError

pytestmark = pytest.mark.microscope

SMALL = Simulation(sensor=(96, 128), seed=4)


def build(**changes):
    simulation = SMALL.model_copy(update=changes)
    return demo_core(demo_config().model_copy(update={"simulation": simulation}))


@pytest.fixture(scope="module")
def opened():
    core = build()
    core.clock.set(0.0)
    return core


@pytest.fixture
def core(opened):
    """The microscope as it is when it is opened."""
    opened.setXYPosition(0, 0)
    opened.setPosition(0)
    opened.waitForSystem()
    opened.setConfig("Channel", "FITC")
    opened.setConfig("Light", "low")
    opened.setExposure(1.0)
    opened.setAutoShutter(True)
    opened.clearROI()
    opened.clock.set(0.0)
    return opened


# ------------------------------------------------------------------ noise


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("light", [(1.0, "low"), (20.0, "low"), (20.0, "high")], ids=["hardly any", "low", "high"])
def test_noise_is_exact(core, channel, light):
    """Standardised residuals have mean 0 and sd 1.00 ± 0.01, at every light."""
    core.setConfig("Channel", channel)
    core.setExposure(light[0])
    core.setConfig("Light", light[1])
    camera = core.sim_camera.sensor
    residuals = []
    for _ in range(16):
        counts = core.snap().astype(np.float64)
        photons = core.sim_camera.truth()
        assert photons.max() * camera.quantum_efficiency < 0.8 * camera.full_well_e, "nothing saturates here"
        residuals.append((counts - camera.mean_adu(photons)) / camera.sd_adu(photons))
    assert np.std(residuals) == pytest.approx(1, abs=0.01)
    assert np.mean(residuals) == pytest.approx(0, abs=0.01)


def test_photons_are_in_proportion_to_power_and_exposure(core):
    core.setExposure(2.0)
    core.snap()
    low = core.sim_camera.truth()
    core.setConfig("Light", "high")
    core.setExposure(4.0)
    core.snap()
    np.testing.assert_allclose(core.sim_camera.truth(), 100 * low, rtol=1e-5)


@pytest.mark.parametrize("channel", CHANNELS)
def test_low_light_is_low(channel):
    core = build(sensor=(512, 512), speed=0)
    core.setConfig("Channel", channel)
    core.setExposure(20.0)
    core.snap()
    brightest = max(np.percentile(core.sim_camera.truth(stage_um=(0, 0, z)), 99.9) for z in (-1.0, 0.0, 1.0))
    assert 9 < brightest < 35


def test_too_much_light_saturates():
    core = build(full_well_e=500.0)
    core.setConfig("Light", "high")
    core.setExposure(50.0)
    counts = core.snap()
    camera = core.sim_camera.sensor
    full = core.sim_camera.truth() * camera.quantum_efficiency > 700
    assert 0.01 < full.mean() < 0.9
    ceiling = camera.offset_adu + camera.gain_adu_per_e * 500
    assert np.all(abs(counts - ceiling)[full] < 8 * camera.gain_adu_per_e[full] * camera.read_noise_e[full] + 2)


# ------------------------------------------------------------------ what it reads


def test_it_sees_what_the_devices_stand_at(core):
    core.setXYPosition(30.0, -12.0)
    core.setPosition(1.5)
    core.waitForSystem()
    core.setConfig("Channel", "Rhodamine")
    core.setExposure(3.0)
    core.setProperty("Laser", "Power", 7)
    core.snap()
    seen = core.sim_camera.seen[-1]
    assert seen.stage_um == pytest.approx((30.0, -12.0, 1.5), abs=0.02)
    assert (seen.kind, seen.exposure_ms, seen.power, seen.time_s) == ("mitochondria", 3.0, 7.0, 0.0)


@pytest.mark.parametrize(("channel", "kind"), CHANNELS.items())
def test_filters_decide_what_is_seen(core, channel, kind):
    core.setConfig("Channel", channel)
    assert core.sim_camera.look().kind == kind
    core.setConfig("Channel-Multiband", channel)
    assert core.sim_camera.look().kind == kind
    core.setProperty("Dichroic", "State", 7)
    assert core.sim_camera.look().kind is None
    core.snap()
    assert np.ptp(core.sim_camera.truth()) == 0, "nothing but glass and medium"


def test_a_closed_shutter_is_dark(core):
    core.setAutoShutter(False)
    core.setShutterOpen(False)
    core.snap()
    assert core.sim_camera.truth().max() == 0
    core.setShutterOpen(True)
    core.snap()
    assert core.sim_camera.truth().max() > 0


def test_the_stage_moves_the_picture(core):
    core.setConfig("Light", "high")
    core.setExposure(20.0)
    here = core.snap().astype(float)
    core.setXYPosition(1.2, 0.0)
    core.waitForSystem()
    there = core.snap().astype(float)
    assert np.corrcoef(here[:, 12:].ravel(), there[:, :-12].ravel())[0, 1] > 0.95
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] < 0.9


def test_truth_of_another_frame(core):
    core.snap()
    here = core.sim_camera.truth()
    np.testing.assert_array_equal(core.sim_camera.truth(stage_um=(0.0, 0.0, 0.0)), here)
    assert not np.array_equal(core.sim_camera.truth(stage_um=(0.0, 0.0, 2.0)), here)
    assert not np.array_equal(core.sim_camera.truth(time_s=60.0), here)
    assert not np.array_equal(core.sim_camera.truth(kind="nuclei"), here)
    np.testing.assert_allclose(core.sim_camera.truth(exposure_ms=3.0), 3 * here, rtol=1e-5)


def test_a_frame_before_any(core):
    with pytest.raises(RuntimeError, match="there is no last frame: take one before asking for its truth"):
        build().sim_camera.truth()


def test_the_exposure_is_waited_for(core):
    core.setExposure(150.0)
    began_s = time.perf_counter()
    core.snap()
    assert time.perf_counter() - began_s >= 0.15


def test_region_of_interest_and_what_is_refused(core):
    core.setConfig("Light", "high")
    core.setROI(16, 8, 64, 32)
    counts = core.snap()
    assert counts.shape == core.sim_camera.truth().shape == (32, 64)
    assert np.corrcoef(counts.ravel(), core.sim_camera.truth().ravel())[0, 1] > 0.5
    with pytest.raises(ValueError, match="Property 'Binning' is read-only"):
        core.setProperty("SimCamera", "Binning", 2)
    with pytest.raises(ValueError, match=r"exposure 0(\.0)? ms must be above 0"):
        core.setExposure(0)
    with pytest.raises(ValueError, match="exceeds sensor bounds"):
        core.setROI(100, 0, 64, 64)


def test_what_the_engines_are_told(core):
    assert core.getPixelSizeUm() == pytest.approx(0.1)
    assert core.getBytesPerPixel() == 2
    assert core.getImageBitDepth() == 16
    assert (core.getImageHeight(), core.getImageWidth()) == (96, 128)
    assert "Camera" not in core.getAvailableConfigGroups(), "its presets are about another camera"


# ------------------------------------------------------------------ time


def test_the_specimens_time_comes_in_ticks():
    core = build(tick_s=2.0)
    core.clock.set(5.9)
    core.snap()
    assert core.sim_camera.seen[-1].time_s == 4.0
    before = core.sim_camera.truth()
    core.clock.set(4.1)
    core.snap()
    np.testing.assert_array_equal(core.sim_camera.truth(), before)


def test_the_clock_runs_from_the_first_look_and_can_be_set():
    clock = SpecimenClock(speed=1e6)
    assert clock.now_s() < 1e5, "it begins when it is asked for"
    deadline_s = time.monotonic() + 10
    while clock.now_s() < 1e4:
        assert time.monotonic() < deadline_s
    clock.set(12.5)
    assert clock.now_s() == 12.5
    with pytest.raises(ValueError, match="the specimen's time -1 must not be negative"):
        clock.set(-1)


def test_dye_bleaches_where_there_was_light():
    core = build(bleaching_per_s=0.5, speed=0)
    core.setConfig("Light", "high")
    core.setExposure(100.0)
    for _ in range(6):
        core.snap()
    parts = [seen.unbleached for seen in core.sim_camera.seen]
    assert parts == pytest.approx([0.5 ** (0.1 * k) for k in range(6)])
    first, last = core.sim_camera.expected(core.sim_camera.seen[0]), core.sim_camera.truth()
    assert last.max() == pytest.approx(first.max() * 0.5**0.5, rel=0.02)
    core.setXYPosition(40.0, 0.0)
    core.waitForSystem()
    assert core.sim_camera.look().unbleached == 1.0
    core.setConfig("Channel", "DAPI")
    assert core.sim_camera.look().unbleached == 1.0


def test_the_specimen_drifts():
    core = build(drift_um_per_min=(1.2, 0.0, 0.0), tick_s=60.0)
    core.clock.set(60.0)
    core.snap()
    still = build(tick_s=60.0)
    still.clock.set(60.0)
    still.setXYPosition(1.2, 0.0)
    still.waitForSystem()
    still.snap()
    np.testing.assert_allclose(core.sim_camera.truth(), still.sim_camera.truth(), rtol=1e-3, atol=1e-4)


def test_seeds():
    frames = []
    for seed in (4, 4, 5):
        core = build(seed=seed, speed=0)
        frames.append((core.snap(), core.sim_camera.truth()))
    np.testing.assert_array_equal(frames[0][0], frames[1][0])
    assert not np.array_equal(frames[0][1], frames[2][1])


def test_the_plain_demo_is_that_of_the_file():
    path = Path(__file__).resolve().parents[1] / "hardware_configs" / "demo.toml"
    written = HardwareConfig.from_file(path)
    channels = {name: channel.model_copy(update={"model": "none"}) for name, channel in written.channels.items()}
    plain = demo_config()
    # folders lie beside the file, and the plain demo has none
    assert (written.learn.models, written.learn.pairs) == (path.parent / "models", path.parent / "pairs")
    assert written.model_copy(update={"channels": channels, "learn": plain.learn}) == plain


# ------------------------------------------------------------------ both engines


def test_both_engines_drive_it(tmp_path):
    """One core, first by pycro-manager's Python backend, then by pymmcore-plus's engine: each frame is what was asked for."""
    said = run_alone(
        """
        import json, sys
        import numpy as np, useq
        from pycromanager import Acquisition
        from live_restore.acquire.simulate.microscope import demo_config, demo_core, pycromanager_core
        from live_restore.config import Simulation
        from live_restore.errors import AcquisitionError

        core = demo_core(demo_config().model_copy(update={"simulation": Simulation(sensor=(64, 96), speed=0)}))
        pycromanager_core(core)
        try:
            pycromanager_core(core)
        except AcquisitionError as error:
            second = str(error)
        taken = []
        def process(image, metadata):
            taken.append((dict(metadata["Axes"]), image.shape, str(image.dtype)))
            return image, metadata
        events = ({"axes": {"channel": c, "z": z}, "z": float(z), "exposure": 2.0 + z, "config_group": ["Channel", c],
                   "properties": [["Laser", "Power", str(10 + z)]]} for c in ("DAPI", "Cy5") for z in range(3))
        with Acquisition(directory=sys.argv[1], name="demo", image_process_fn=process) as acquisition:
            acquisition.acquire(events)
        by_pycromanager = [(s.kind, s.stage_um[2], s.exposure_ms, s.power) for s in core.sim_camera.seen]
        core.sim_camera.seen.clear()
        frames = []
        core.mda.events.frameReady.connect(lambda image, event, meta: frames.append((image.shape, meta["exposure_ms"])))
        core.mda.run(useq.MDASequence(axis_order="tpcz", channels=[{"config": c, "exposure": 4} for c in ("FITC", "Cy5")],
                                      z_plan={"range": 2, "step": 1}, stage_positions=[(10, 20, 5)]))
        by_mda = [(s.kind, *s.stage_um, s.exposure_ms) for s in core.sim_camera.seen]
        core.sim_camera.seen.clear()
        core.mda.run(useq.MDASequence(time_plan={"interval": 0, "loops": 12}, channels=[{"config": "FITC", "exposure": 1}]))
        print(json.dumps([taken, by_pycromanager, second, frames, by_mda, len(core.sim_camera.seen)]))
        """,
        tmp_path,
    )
    taken, by_pycromanager, second, frames, by_mda, streamed = said
    assert [(axes["channel"], axes["z"]) for axes, _, _ in taken] == [(c, z) for c in ("DAPI", "Cy5") for z in range(3)]
    assert all(shape == [64, 96] and dtype == "uint16" for _, shape, dtype in taken)
    assert by_pycromanager == [[k, float(z), 2.0 + z, 10.0 + z] for k in ("nuclei", "vesicles") for z in range(3)]
    assert "pycro-manager has a core in this process already" in second
    assert [meta for _, meta in frames[:6]] == [4.0] * 6
    assert [row[0] for row in by_mda] == ["filaments"] * 3 + ["vesicles"] * 3
    np.testing.assert_allclose([row[1:] for row in by_mda], [(10, 20, z, 4) for z in (4, 5, 6)] * 2, atol=0.02)
    assert streamed == 12


def test_other_versions_of_pycromanager_are_refused(opened):
    with pytest.raises(AcquisitionError, match=r"pycromanager 1\.0\.2 is installed, but .* for 9\.9\.9 only: pip install"):
        pycromanager_core(opened, {"pycromanager": "9.9.9"})
    with pytest.raises(AcquisitionError, match=r"pycro-mangler is not installed: pip install pycro-mangler==1"):
        pycromanager_core(opened, {"pycro-mangler": "1"})
