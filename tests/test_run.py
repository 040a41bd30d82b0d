"""Acquisitions from beginning to end, through both engines, on the demo microscope: each in a process of its own."""

import json
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from own_process import run_alone

pytest.importorskip("pymmcore_plus")
pytest.importorskip("mm_test_adapters")

from mm_test_adapters import device_adapter_path
from pymmcore_plus import CMMCorePlus

from live_restore.acquire.acquisition import read_acquisition
from live_restore.acquire.raw_dataset import RawDataset
from live_restore.acquire.rig import check_camera, check_presets, check_settings, light_settings, open_core
from live_restore.acquire.run import check_space, run
from live_restore.acquire.simulate.microscope import demo_config, demo_core
from live_restore.config import HardwareConfig, Light
from live_restore.errors import AcquisitionError, ConfigError
from live_restore.frames import VolumeKey
from live_restore.records.raw_volumes import open_raw

pytestmark = pytest.mark.microscope

ENGINES = ["pymmcore-plus", "pycromanager"]
RIG = """
[micromanager]
demo = true
[optics]
pixel_size_um = 0.1
[light]
device = "Laser"
property = "Power"
low = 2.0
high = 100.0
[channels.tubulin]
preset = "FITC"
exposure_ms = 3.0
[channels.DAPI]
exposure_ms = 5.0
[simulation]
sensor = [48, 64]
speed = 0
"""
PLAN = """
[acquisition]
name = "cells"
reference_every = 2
[time]
points = 3
interval_s = 0.1
[z]
planes = 3
step_um = 0.5
[[channels]]
name = "tubulin"
[[channels]]
name = "DAPI"
[[positions]]
label = "A"
x_um = 0.0
y_um = 0.0
[[positions]]
label = "B"
x_um = 30.0
y_um = 10.0
"""
FRAMES = 2 * 2 * 3 * (3 + 2)  # positions, channels, planes; three time points and two references
BEGIN = """
import json, sys, _thread
from pathlib import Path
from live_restore.acquire.acquisition import read_acquisition
from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.run import run
from live_restore.acquire.simulate.microscope import demo_core
from live_restore.config import HardwareConfig
from live_restore.errors import AcquisitionError
folder, engine = Path(sys.argv[1]), sys.argv[2]
config = HardwareConfig.from_file(folder / "rig.toml")
plan = read_acquisition(folder / "plan.toml", config)
"""


@pytest.fixture
def folder(tmp_path):
    def write(plan=PLAN, rig=RIG):
        (tmp_path / "rig.toml").write_text(rig, encoding="utf-8")
        (tmp_path / "plan.toml").write_text(plan, encoding="utf-8")
        return tmp_path

    return write


def alone(script, *arguments, **options):
    return run_alone(BEGIN + textwrap.dedent(script), *arguments, **options)


# ------------------------------------------------------------------ what is asked for is taken


@pytest.mark.parametrize("engine", ENGINES)
def test_an_acquisition(folder, engine):
    """Every frame is saved as it was asked for, shown to the hook under the same name, and read back as whole volumes."""
    place = folder()
    said = alone(
        """
        core = demo_core(config)
        core.setPosition(4.0)
        told = []
        with RestoreHook("tcp://127.0.0.1:9") as hook:
            done = run(plan, config, hook, engine=engine, progress=lambda *now: told.append(now), core=core)
            planned, counts, warnings = hook.run.plan.as_mapping(), hook.ledger.counts(), hook.warnings
        seen = [(s.kind, *s.stage_um, s.exposure_ms, s.power) for s in core.sim_camera.seen]
        print(json.dumps([done.frames, done.planned, str(done.raw), done.stopped, told[-1], planned, counts, seen,
                          core.getPosition(), core.getCircularBufferMemoryFootprint(), warnings]))
        """,
        place,
        engine,
    )
    frames, planned, raw, stopped, told, promise, counts, seen, z_um, buffer_mb, warnings = said
    assert (frames, planned, stopped, told) == (FRAMES, FRAMES, False, [FRAMES, FRAMES])
    assert counts["taken"] == counts["unattached"] + counts["waiting"] == FRAMES, "nobody is there"
    assert (promise["planes"], promise["positions"], promise["channels"]) == (3, ["A", "B"], ["tubulin", "DAPI"])
    config = HardwareConfig.from_file(place / "rig.toml")
    plan = read_acquisition(place / "plan.toml", config)
    asked = [(f.preset, f.x_um, f.y_um, f.z_um, f.exposure_ms, f.power) for f in plan.frames((0.0, 0.0, 4.0))]
    kinds = {"FITC": "filaments", "DAPI": "nuclei"}
    assert [row[0] for row in seen] == [kinds[row[0]] for row in asked]
    np.testing.assert_allclose([row[1:] for row in seen], [row[1:] for row in asked], atol=0.02)
    assert z_um == pytest.approx(4.0, abs=0.02), "the focus is back where it was"
    assert buffer_mb >= 16
    assert not [sentence for sentence in warnings if "exposure" in sentence]
    check_dataset(Path(raw))


def check_dataset(raw):
    assert raw.name == "cells_1"
    with open_raw(raw, {"planes": 3}) as run:
        assert run.pixel_size_um == pytest.approx((0.5, 0.1, 0.1))
        assert all(volume.whole and volume.planes == 3 for volume in run.volumes.values())
        assert len(run.volumes) == FRAMES / 3
        low = run.volumes[VolumeKey(0, "B", "tubulin", "low")].read().astype(float)
        high = run.volumes[VolumeKey(0, "B", "tubulin", "high")].read().astype(float)
        assert low.shape == (3, 48, 64)
        assert (high - 97).mean() / (low - 97).mean() == pytest.approx(50, rel=0.35), "fifty times the light"
        assert VolumeKey(1, "B", "tubulin", "high") not in run.volumes


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_hook(folder, engine):
    plan = '[[channels]]\nname = "DAPI"\n[time]\npoints = 5\n'
    said = alone(
        """
        done = run(plan, config, engine=engine, directory=folder / "elsewhere")
        print(json.dumps([done.frames, str(done.raw)]))
        """,
        folder(plan),
        engine,
    )
    assert said[0] == 5
    with open_raw(Path(said[1]), {}) as run_:
        assert [volume.planes for volume in run_.volumes.values()] == [1] * 5


# ------------------------------------------------------------------ what may go wrong


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_ends_it_and_keeps_what_was_taken(folder, engine):
    plan = '[[channels]]\nname = "DAPI"\n[time]\npoints = 2000\n'
    said = alone(
        """
        def press(done, of):
            global pressed
            if done >= 20 and not pressed:
                pressed = True
                _thread.interrupt_main()
        pressed = False
        with RestoreHook("tcp://127.0.0.1:9") as hook:
            done = run(plan, config, hook, engine=engine, progress=press)
        print(json.dumps([done.frames, done.planned, done.stopped, str(done.raw)]))
        """,
        folder(plan),
        engine,
    )
    frames, planned, stopped, raw = said
    assert stopped and 10 <= frames < planned
    with open_raw(Path(raw), {}) as run_:
        assert len(run_.volumes) == frames


def test_what_was_saved_survives_a_kill(folder):
    """Killed without warning, at any moment: every frame that was reported as saved is read, index and all."""
    place = folder('[[channels]]\nname = "DAPI"\n[time]\npoints = 2000\n')
    script = BEGIN + "run(plan, config, engine=engine, progress=lambda done, of: print(done, flush=True))\n"
    process = subprocess.Popen([sys.executable, "-c", script, place, "pymmcore-plus"], stdout=subprocess.PIPE, text=True)
    guard = threading.Timer(90, process.kill)
    guard.start()
    reported = 0
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit():
            reported = int(line)
        if reported >= 40:
            break
    process.kill()
    process.communicate()
    guard.cancel()
    assert reported >= 40, "it never came so far"
    with open_raw(place / "acquisition_1", {}) as run_:
        assert len(run_.volumes) >= reported


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stage_that_cannot_go_there(folder, engine):
    plan = '[[channels]]\nname = "DAPI"\n[[positions]]\nz_um = 10\n[[positions]]\nz_um = 5000\n'
    said = alone(
        """
        try:
            run(plan, config, engine=engine)
        except AcquisitionError as error:
            print(json.dumps(str(error)))
        """,
        folder(plan),
        engine,
    )
    assert "1 of 2 frames" in said


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is POSIX's")
def test_a_disk_that_fills_up(folder):
    plan = '[[channels]]\nname = "DAPI"\n[time]\npoints = 500\n'
    said = alone(
        """
        import resource
        from live_restore.acquire.raw_dataset import RawDataset
        write = RawDataset.write
        def until_full(self, *frame):
            if self.frames == 20:
                end = self._whole[1]
                resource.setrlimit(resource.RLIMIT_FSIZE, (end, end))
            return write(self, *frame)
        RawDataset.write = until_full
        try:
            run(plan, config, engine=engine)
        except AcquisitionError as error:
            print(json.dumps([str(error), str(folder / "acquisition_1")]))
        """,
        folder(plan),
        "pymmcore-plus",
    )
    error, raw = said
    assert "the acquisition ended after 20 of 500 frames, which are in" in error
    assert "File too large" in error
    with open_raw(Path(raw), {}) as run_:
        assert len(run_.volumes) == 20
    (file,) = Path(raw).glob("*.tif")
    assert file.stat().st_size < 1e6, "cut to its length"
    assert len(tifffile.TiffFile(file).pages) == 20


def test_space_is_looked_at_before_anything_moves(tmp_path):
    check_space(tmp_path / "new", 1000)
    with pytest.raises(AcquisitionError, match=r"needs 1100000000\.0 GB and .* GB free; make room, or choose another"):
        check_space(tmp_path, 10**18)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AcquisitionError, match=r"nothing can be saved in .*; choose another directory"):
        check_space(tmp_path / "file", 1)


# ------------------------------------------------------------------ what does not fit


@pytest.fixture(scope="module")
def core():
    return demo_core()


def test_presets_and_powers_that_do_not_exist(core):
    check_presets([("Channel", "DAPI"), ("Channel", "FITC")], core)
    with pytest.raises(ConfigError, match=r"no configuration group 'Chanel'; did you mean Channel\?"):
        check_presets([("Chanel", "DAPI")], core)
    with pytest.raises(ConfigError, match=r"group 'Channel' has no preset 'FTIC'; did you mean FITC\?"):
        check_presets([("Channel", "FTIC")], core)
    with pytest.raises(ConfigError, match=r"group 'Light' has no preset 'zzz'; it has high, low"):
        light_settings(Light(group="Light", low="low", high="high"), "zzz", core)


def test_devices_properties_and_values_that_do_not_exist(core):
    check_settings([("Laser", "Power", 2.0), ("Laser", "Power", "100")], core)
    with pytest.raises(ConfigError, match=r"no device 'Lasr'; did you mean Laser\?"):
        check_settings([("Lasr", "Power", 2.0)], core)
    with pytest.raises(ConfigError, match=r"'Laser' has no property 'Powr'; did you mean Power\?"):
        check_settings([("Laser", "Powr", 2.0)], core)
    with pytest.raises(ConfigError, match=r"Laser-Power = 101 is asked for and it takes 0 to 100"):
        check_settings([("Laser", "Power", 101)], core)


def test_what_makes_the_light(core):
    by_group = Light(group="Light", low="low", high="high")
    assert [(d, p, float(v)) for d, p, v in light_settings(by_group, "high", core)] == [("Laser", "Power", 100.0)]
    by_property = Light(device="Laser", property="Power", low=2.0, high=100.0)
    assert light_settings(by_property, 7.0, core) == [("Laser", "Power", 7.0)]
    assert light_settings(None, 7.0, core) == light_settings(by_property, None, core) == []


def test_cameras_of_8_bit_are_refused():
    core = CMMCorePlus(str(device_adapter_path()))
    core.loadSystemConfiguration(str(Path(device_adapter_path()) / "MMConfig_demo.cfg"))
    core.setProperty("Camera", "PixelType", "8bit")
    with pytest.raises(AcquisitionError, match=r"the camera gives 1 byte\(s\) per pixel; set it to 16 bit"):
        check_camera(core)


def test_a_microscope_that_cannot_be_opened(tmp_path, folder):
    rig = RIG.partition("[simulation]")[0].replace("demo = true", 'config_file = "absent.cfg"')
    config = HardwareConfig.from_file(folder(rig=rig) / "rig.toml")
    with pytest.raises(AcquisitionError, match=r"the microscope cannot be opened: .*; live-restore doctor looks for"):
        open_core(config)


def test_the_java_backend_wants_pycromanager(folder):
    rig = RIG.partition("[simulation]")[0].replace("demo = true", 'backend = "java"')
    place = folder(rig=rig)
    config = HardwareConfig.from_file(place / "rig.toml")
    plan = read_acquisition(place / "plan.toml", config)
    with pytest.raises(ConfigError, match='backend "java" is driven by pycro-manager; use the engine pycromanager'):
        run(plan, config, engine="pymmcore-plus")


def test_frames_that_never_came_are_missed(folder, core):
    """An engine that ends early without a word."""
    place = folder('[[channels]]\nname = "DAPI"\n[time]\npoints = 50\n')
    plan = read_acquisition(place / "plan.toml", demo_config())

    def cancel(done, of):
        if done >= 3:
            core.mda.cancel()

    with pytest.raises(AcquisitionError, match=r"\d+ of 50 frames were saved in .*; the others never came"):
        run(plan, demo_config(), progress=cancel, core=core, directory=place)


def test_a_dataset_closes_twice(tmp_path):
    with RawDataset(tmp_path, "raw", {}) as raw:
        raw.write({"time": 0}, np.zeros((4, 5), np.uint16), {})
        raw.close()
    assert raw.path.name == "raw_1"
    assert json.loads((raw.path / "NDTiff.index").read_bytes()[4:15]) == {"time": 0}
