"""Calibrations from beginning to end, through both engines, on the demo microscope: each in a process of its own."""

import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from own_process import run_alone

pytest.importorskip("pymmcore_plus")
pytest.importorskip("mm_test_adapters")

from live_restore.acquire.asked_and_read import FrameReader
from live_restore.acquire.calibrate import calibrate, estimate, rejections
from live_restore.acquire.calibration import read_calibration
from live_restore.acquire.course import Course
from live_restore.acquire.pair_queue import PairQueue
from live_restore.acquire.put_back import PutBack
from live_restore.acquire.simulate.microscope import demo_config, demo_core
from live_restore.cli import main
from live_restore.config import HardwareConfig
from live_restore.errors import AcquisitionError, ConfigError, PairError
from live_restore.records.json_lines import read_lines
from live_restore.records.pairs import Pair, read_pairs

pytestmark = pytest.mark.microscope

ENGINES = ["pymmcore-plus", "pycromanager"]
RIG = """
[micromanager]
demo = true
[camera]
offset_adu = 97.0
gain_adu_per_e = 2.18
read_noise_e = 1.3
[optics]
pixel_size_um = 0.1
[light]
device = "Laser"
property = "Power"
low = 2.0
high = 100.0
[channels.tubulin]
preset = "FITC"
exposure_ms = 10.0
[channels.DAPI]
exposure_ms = 5.0
[simulation]
sensor = [128, 128]
speed = 0
"""
PLAN = """
[calibration]
name = "cells"
sandwich = true
[[positions]]
label = "A"
x_um = 0.0
y_um = 0.0
[[positions]]
label = "B"
x_um = 30.0
y_um = 10.0
[[channels]]
name = "tubulin"
[[channels]]
name = "DAPI"
high = { exposure_ms = 50.0, power = 20.0 }
"""
BEGIN = """
import json, sys, threading, _thread
from pathlib import Path
from live_restore.acquire.calibrate import calibrate
from live_restore.acquire.calibration import read_calibration
from live_restore.acquire.simulate.microscope import demo_core
from live_restore.config import HardwareConfig
from live_restore.configured import camera_noise
from live_restore.errors import LiveRestoreError
folder, engine = Path(sys.argv[1]), sys.argv[2]
config = HardwareConfig.from_file(folder / "rig.toml")
plan = read_calibration(folder / "plan.toml", config)

def seen(core):
    return [(s.kind, *s.stage_um, s.exposure_ms, s.power) for s in core.sim_camera.seen]

def stands(core):
    x, y = core.getXYPosition()
    return [x, y, core.getPosition(), core.getExposure(), float(core.getProperty("Laser", "Power")), core.getAutoShutter()]
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
def test_a_calibration(folder, engine):
    """Every frame was exposed as asked, every pair is on the disk, and the microscope stands as it stood."""
    place = folder()
    told = alone(
        """
        core = demo_core(config)
        core.setXYPosition(1.0, 2.0)
        core.setPosition(0.5)
        core.setExposure(33.0)
        core.waitForSystem()
        told = []
        done = calibrate(plan, config, noise=camera_noise(config.camera), engine=engine, core=core, progress=told.append)
        last = told[-1]
        print(json.dumps([done.planned, done.stopped, str(done.pairs.folder), done.warnings, len(told),
                          [last.done, last.total, last.accepted + last.rejected, last.waiting, last.measuring],
                          seen(core), stands(core)]))
        """,
        place,
        engine,
    )
    planned, stopped, where, warnings, times, last, seen, stands = told
    assert (planned, stopped, times, last) == (4, False, 5, [4, 4, 4, False, True])
    assert not [sentence for sentence in warnings if "put back" in sentence or "waits" in sentence]
    np.testing.assert_allclose(stands[:5], [1.0, 2.0, 0.5, 33.0, 2.0], atol=0.02)
    assert stands[5] is True
    asked = [
        (kind, x, y, 0.5, exposure, power)
        for x, y in ((0, 0), (30, 10))
        for kind, low_ms, high in (("filaments", 10, (10, 100)), ("nuclei", 5, (50, 20)))
        for exposure, power in ((low_ms, 2), high, (low_ms, 2))
    ]
    assert [row[0] for row in seen] == [row[0] for row in asked]
    np.testing.assert_allclose([row[1:] for row in seen], [row[1:] for row in asked], atol=0.02)
    check_folder(Path(where), engine)


def check_folder(where, engine):
    assert where.name == "cells"
    found = read_pairs(where)
    assert [pair.name for pair in found.pairs] == [f"{p}_{c}-r0" for p in "AB" for c in ("DAPI", "tubulin")]
    card = found.card
    assert (card["ended"], card["pairs"], card["planned"], card["instrument"]["engine"]) == ("complete", 4, 4, engine)
    assert card["light_levels"]["DAPI"]["dose_ratio"] == pytest.approx(100)
    for pair in found.pairs:
        low, high = pair.read()
        assert low.shape == high.shape == (128, 128)
        assert low.dtype == high.dtype == np.uint16
        # the offset differs by a count or two from what the configuration says
        assert (high - 97.0).mean() / (low - 97.0).mean() == pytest.approx(pair.said["dose_ratio"], rel=0.35)
        read = pair.said["said"]["read"]
        assert [read[light]["light"]["Laser-Power"] for light in ("low", "low again")] == [["2.0"], ["2.0"]]
        exposure, power = ([50.0], ["20.0"]) if pair.channel == "DAPI" else ([10.0], ["100.0"])
        assert (read["high"]["exposure_ms"], read["high"]["light"]["Laser-Power"]) == (exposure, power)
        x, y, z = read["high"]["stage_um"][0]
        assert (x, y, z) == pytest.approx((0, 0, 0.5) if pair.position == "A" else (30, 10, 0.5), abs=0.02)
        assert read["low"]["read_unix_ns"] < read["high"]["read_unix_ns"] < read["low again"]["read_unix_ns"]


STACKS = PLAN.replace('name = "cells"', 'name = "cells"\norder = "plane by plane"\nrepeats = 2').replace("sandwich = true", "")


@pytest.mark.parametrize("engine", ENGINES)
def test_stacks_plane_by_plane_and_the_next_folder(folder, engine):
    place = folder(STACKS + "\n[z]\nplanes = 3\nstep_um = 0.5\n")
    (place / "elsewhere" / "cells").mkdir(parents=True)
    said = alone(
        """
        core = demo_core(config)
        done = calibrate(plan, config, engine=engine, core=core, directory=folder / "elsewhere")
        print(json.dumps([str(done.pairs.folder), seen(core)]))
        """,
        place,
        engine,
    )
    where, seen = Path(said[0]), said[1]
    assert where.name == "cells_2", "what is there is never written over"
    found = read_pairs(where)
    assert len(found.pairs) == 8
    assert [(row[3], row[5]) for row in seen[:6]] == [(z, power) for z in (-0.5, 0.0, 0.5) for power in (2.0, 100.0)]
    low, high = found.pairs[0].read()
    assert low.shape == high.shape == (3, 128, 128)
    assert found.pairs[0].said["pixel_size_um"] == [0.5, 0.1, 0.1]
    read = found.pairs[0].said["said"]["read"]
    assert [z for _, _, z in read["low"]["stage_um"]] == pytest.approx([-0.5, 0.0, 0.5], abs=0.02)


MOVING = RIG.replace("speed = 0", "bleaching_per_s = 0.5\ndrift_um_per_min = [60.0, 0.0, 0.0]\ntick_s = 0.01").replace(
    "128", "192"
)
SANDWICH = """
[calibration]
sandwich = true
[around]
count = 3
[limits]
bleaching = 0.9
[[channels]]
name = "tubulin"
low = { exposure_ms = 20.0, power = 20.0 }
high = { exposure_ms = 200.0, power = 100.0 }
"""


def test_bleaching_and_drift_are_measured(folder):
    """The high and the second low image tell what the simulation did: so much less light, and so far away."""
    said = alone(
        """
        core = demo_core(config)

        class EveryExposure:  # however busy the machine is: a tenth of a second from one exposure to the next
            def now_s(self):
                return 0.1 * len(core.sim_camera.seen) + 0.005

        core.sim_camera.clock = EveryExposure()
        done = calibrate(plan, config, noise=camera_noise(config.camera), core=core)
        facts = [[pair.said["facts"], list(pair.shift_px), pair.reason] for pair in done.pairs.pairs]
        print(json.dumps([facts, [s.unbleached for s in core.sim_camera.seen]]))
        """,
        folder(SANDWICH, MOVING),
        "pymmcore-plus",
    )
    for k, (facts, shift, reason) in enumerate(said[0]):
        shone, _, shines = said[1][3 * k : 3 * k + 3]
        assert not reason
        assert facts["bleaching"] == pytest.approx(1 - shines / shone, abs=0.04)
        # the camera looks a pixel farther to the right each time, so what it sees lies a pixel farther to the left
        assert shift == pytest.approx([0.0, -1.0], abs=0.15)
        assert facts["drift_px"] == pytest.approx([0.0, -2.0], abs=0.25)


# ------------------------------------------------------------------ what may go wrong


@pytest.mark.parametrize(
    ("light", "reason"),
    [
        (
            'device = "Lasr"\nproperty = "Power"\nlow = { power = 2.0 }\nhigh = { power = 9.0 }',
            "the microscope has no device 'Lasr'; did you mean Laser?",
        ),
        (
            'device = "Laser"\nproperty = "Powr"\nlow = { power = 2.0 }\nhigh = { power = 9.0 }',
            "device 'Laser' has no property 'Powr'; did you mean Power?",
        ),
        ('low = { power = "two" }', "Laser-Power = two is asked for and it takes 0 to 100"),
    ],
)
def test_a_light_that_does_not_exist_is_found_before_anything_moves(folder, light, reason):
    place = folder(PLAN.replace('name = "tubulin"', f'name = "tubulin"\n{light}'))
    config = HardwareConfig.from_file(place / "rig.toml")
    with pytest.raises(ConfigError, match=re.escape(reason)):
        estimate(read_calibration(place / "plan.toml", config), config, demo_core(config))


def test_a_light_that_was_not_applied_ends_it(folder):
    """pymmcore-plus only logs what a device refuses."""
    said = alone(
        """
        text, told = (folder / "plan.toml").read_text(), []
        for light in ("high = { power = 150.0 }", "high = { exposure_ms = 70000.0 }"):
            (folder / "plan.toml").write_text(text.replace('name = "tubulin"', f'name = "tubulin"\\n{light}'))
            core = demo_core(config)
            try:
                calibrate(read_calibration(folder / "plan.toml", config), config, core=core)
            except LiveRestoreError as error:
                told.append([str(error), stands(core)[4]])
        print(json.dumps(told))
        """,
        folder(),
        "pymmcore-plus",
    )
    where = "was asked for position A, channel tubulin, high light and"
    ended = "the calibration ended after 0 of 4 pairs: "
    assert said[0][0] == "Laser-Power = 150.0 is asked for and it takes 0 to 100; choose one of these"
    assert said[1][0].startswith(f"{ended}an exposure of 70000 ms {where} the camera stands at 10 ms; it was not applied")
    assert [power for _, power in said] == [2.0, 2.0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stage_that_cannot_go_there_ends_it_and_keeps_what_was_taken(folder, engine):
    plan = PLAN.replace("x_um = 30.0", "x_um = 30.0\nz_um = 900.0")
    said = alone(
        """
        core = demo_core(config)
        core.setXYPosition(5.0, 5.0)
        core.waitForSystem()
        try:
            calibrate(plan, config, engine=engine, core=core)
        except LiveRestoreError as error:
            print(json.dumps([str(error), stands(core)]))
        """,
        folder(plan),
        engine,
    )
    assert "the calibration ended after 2 of 4 pairs, which are in" in said[0]
    np.testing.assert_allclose(said[1][:3], [5.0, 5.0, 0.0], atol=0.02)
    found = read_pairs(folder() / "pairs" / "cells")
    assert ([pair.position for pair in found.pairs], found.card["ended"]) == (["A", "A"], "failed")


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_ends_it_and_keeps_what_was_taken(folder, engine):
    plan = PLAN.replace('name = "cells"', 'name = "cells"\nrepeats = 500')
    said = alone(
        """
        core = demo_core(config)
        def press(now):
            if now.done == 6 and not now.stopping:
                _thread.interrupt_main()
        done = calibrate(plan, config, engine=engine, core=core, progress=press)
        print(json.dumps([done.planned, done.stopped, len(done.pairs.pairs), stands(core), dict(done.pairs.card)]))
        """,
        folder(plan),
        engine,
    )
    planned, stopped, pairs, stands, card = said
    assert (planned, stopped, card["ended"], card["finished"]) == (2000, True, "stopped", True)
    assert 6 <= pairs < 200
    assert stands[4] == 2.0
    found = read_pairs(folder() / "pairs" / "cells")
    assert len(found.pairs) == pairs
    assert not found.notes, "no file without a line"
    for pair in (found.pairs[0], found.pairs[-1]):
        pair.read()


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_after_the_last_frame_writes_what_was_taken(folder, presses):
    """Frames come faster than pairs are checked; a second Ctrl-C gives up those that wait, and says how many."""
    plan = PLAN.replace('name = "cells"', 'name = "cells"\nrepeats = 5')
    said = alone(
        f"""
        core, told = demo_core(config), []
        def press(now):
            told.append(now.stopping)
            if now.done == 1 and not now.stopping:  # told by the thread that writes, which so waits for the microscope
                while any(thread.name == "calibration" for thread in threading.enumerate()):
                    threading.Event().wait(0.05)
            if told.count(True) < {presses} and now.done:
                _thread.interrupt_main()
        try:
            done = calibrate(plan, config, engine=engine, core=core, progress=press)
            print(json.dumps([done.stopped, len(done.pairs.pairs), any(told), done.pairs.card["ended"], stands(core)[4]]))
        except LiveRestoreError as error:
            print(json.dumps(str(error)))
        """,
        folder(plan),
        "pymmcore-plus",
    )
    if presses == 1:
        assert said == [True, 20, True, "stopped", 2.0]
    else:
        assert "complete pairs were not yet checked and written, and are lost; let it finish after Ctrl-C" in said
        assert read_pairs(folder() / "pairs" / "cells").card["ended"] == "stopped"


def test_a_kill_loses_the_pair_in_flight_at_most(folder):
    plan = PLAN.replace('name = "cells"', 'name = "cells"\nrepeats = 500')
    script = BEGIN + "calibrate(plan, config, engine=engine, progress=lambda now: print(now.done, flush=True))"
    place = folder(plan)
    with subprocess.Popen([sys.executable, "-c", script, place, "pymmcore-plus"], stdout=subprocess.PIPE, text=True) as child:
        rescue = threading.Timer(60, child.kill)
        rescue.start()
        for line in child.stdout:
            if line.strip() == "9":
                break
        child.kill()
        rescue.cancel()
    found = read_pairs(place / "pairs" / "cells")
    assert len(found.pairs) >= 9, "whatever was reported is safe"
    lines = read_lines(place / "pairs" / "cells" / "pairs.jsonl")
    assert len(lines) == len(found.pairs)
    for pair in found.pairs:
        low, high = pair.read()
        assert low.shape == high.shape == (128, 128)
    files = len(list((place / "pairs" / "cells" / "low").glob("*.tif"))) + len(
        list((place / "pairs" / "cells").glob("rejected/low/*.tif"))
    )
    assert len(found.pairs) <= files <= len(found.pairs) + 1
    assert found.card["finished"] is False


def test_a_disk_that_refuses_ends_it_and_keeps_what_was_written(folder):
    said = alone(
        """
        def spoil(now):
            if now.done == 2 and not now.measuring:
                for side in ("low", "rejected/low"):
                    where = plan.directory / "cells" / side
                    where.rename(where.with_name("moved")) if where.exists() else where.parent.mkdir(exist_ok=True)
                    where.write_text("in the way", encoding="utf-8")
        try:
            calibrate(plan, config, core=demo_core(config), progress=spoil)
        except LiveRestoreError as error:
            print(json.dumps(str(error)))
        """,
        folder(),
        "pymmcore-plus",
    )
    assert "ended after 2 of 4 pairs, which are in" in said
    assert "cannot be written" in said
    assert len(read_lines(folder() / "pairs" / "cells" / "pairs.jsonl")) == 2


# ------------------------------------------------------------------ before anything moves

UNFIT = [
    (PLAN.replace('name = "tubulin"', 'name = "other"'), "group 'Channel' has no preset 'FITZ'; did you mean FITC"),
    (PLAN.replace("x_um = 30.0", "x_um = 3.0"), "overlap"),
    (
        PLAN.replace(
            'name = "tubulin"', 'name = "tubulin"\ngroup = "Light"\nlow = { power = "low" }\nhigh = { power = "hihg" }'
        ),
        "group 'Light' has no preset 'hihg'; did you mean high",
    ),
]


@pytest.mark.parametrize(("plan", "says"), UNFIT, ids=["preset", "overlap", "light"])
def test_what_does_not_fit_the_microscope_is_said_before_anything_moves(folder, plan, says):
    place = folder(plan, RIG + '[channels.other]\npreset = "FITZ"\nexposure_ms = 5\n')
    config = HardwareConfig.from_file(place / "rig.toml")
    asked = read_calibration(place / "plan.toml", config)
    core = demo_core(config)
    for attempt in (estimate, lambda *given: calibrate(*given[:2], core=given[2])):
        with pytest.raises(ConfigError, match=says):
            attempt(asked, config, core)
    assert not core.sim_camera.seen
    assert not (place / "pairs" / "cells").exists()


def test_the_estimate_knows_the_sensor(folder):
    config = HardwareConfig.from_file(folder() / "rig.toml")
    dose = estimate(read_calibration(folder() / "plan.toml", config), config, demo_core(config))
    assert dose.bytes == 12 * 128 * 128 * 2


def test_java_wants_the_other_engine(folder):
    config = HardwareConfig.from_file(folder() / "rig.toml")
    plan = read_calibration(folder() / "plan.toml", config)
    java = config.model_copy(update={"micromanager": config.micromanager.model_copy(update={"backend": "java"})})
    with pytest.raises(ConfigError, match='backend "java" is driven by pycro-manager'):
        calibrate(plan, java, engine="pymmcore-plus")


# ------------------------------------------------------------------ the queue


def test_the_queue_keeps_order_and_counts_bytes():
    written, gate = [], threading.Event()

    def write(number):
        gate.wait(10)
        written.append(number)

    queue = PairQueue(write, 100, 10.0, lambda _: None)
    for number in range(2):
        queue.wait_for_room(50, lambda: False)
        queue.put(number, 50)
    threading.Timer(0.2, gate.set).start()
    queue.wait_for_room(50, lambda: False)
    assert gate.is_set(), "there was no room before"
    queue.put(2, 50)
    assert queue.close()
    assert queue.close()
    assert written == [0, 1, 2]
    assert not queue.warnings


def test_a_pair_that_is_larger_than_the_limit_still_passes():
    written = []
    queue = PairQueue(written.append, 10, 10.0, lambda _: None)
    for number in range(3):
        queue.wait_for_room(1000, lambda: False)
        queue.put(number, 1000)
    assert queue.close()
    assert written == [0, 1, 2]


def test_waiting_is_said_and_has_an_end():
    gate, told = threading.Event(), []
    queue = PairQueue(lambda _: gate.wait(30), 10, 1.3, told.append)
    queue.put("a", 10_000_000)
    with pytest.raises(AcquisitionError, match=r"waited 1.3 s for the disk, with 1 pair \(10 MB\).*larger wait_s or memory_mb"):
        queue.wait_for_room(10, lambda: False)
    assert told == [True, False]
    assert queue.warnings == ["the acquisition waits for the disk: there are 1 pair (10 MB) to be checked and written"]
    assert not queue.close(), "it is not written yet"
    gate.set()
    assert queue.close()


def test_who_waits_can_be_stopped():
    gate, stopped = threading.Event(), threading.Event()
    queue = PairQueue(lambda _: gate.wait(30), 10, 30.0, lambda _: None)
    queue.put("a", 10)
    threading.Timer(0.1, stopped.set).start()
    queue.wait_for_room(10, stopped.is_set)
    assert stopped.is_set()
    gate.set()
    queue.close()


def test_what_writing_raises_is_kept():
    def write(_):
        raise PairError("the disk is full")

    queue = PairQueue(write, 10, 5.0, lambda _: None)
    queue.put("a", 10)
    assert not queue.close()
    assert "full" in str(queue.failure)


# ------------------------------------------------------------------ the course


class Devices:
    """What a core says, as a person might leave it."""

    def __init__(self):
        self.exposure_ms, self.light, self.at_um = 10.0, "2.0", [0.0, 0.0, 0.0]

    def getExposure(self):
        return self.exposure_ms

    def getProperty(self, _device, name):
        if name == "broken":
            raise RuntimeError("no answer")
        return self.light

    def getXPosition(self):
        return self.at_um[0]

    def getYPosition(self):
        return self.at_um[1]

    def getPosition(self):
        return self.at_um[2]


@pytest.fixture
def course(folder):
    def begin(queue, devices, plan=PLAN, property_="Power", patience_s=0.0):
        place = folder(plan)
        config = HardwareConfig.from_file(place / "rig.toml")
        asked = read_calibration(place / "plan.toml", config)
        pairs = list(asked.pairs((0.0, 0.0, 0.0), (12.8, 12.8)))
        reader = FrameReader(devices, asked.head.tolerance_percent)
        return Course(
            pairs, lambda _, frame: [("Laser", property_, frame.power)], reader, queue, 2 * 4 * 4, (None, 0.1, 0.1), patience_s
        )

    return begin


def carry_out(course, devices, change=lambda _: None, pixels=np.uint16):
    for frame, settings in course.frames():
        devices.exposure_ms, devices.light = frame.exposure_ms, str(settings[0][2])
        devices.at_um = [frame.x_um, frame.y_um, frame.z_um]
        change(frame)
        course.read()
        course.image(frame.axes, np.full((4, 4), 100, pixels))


def test_a_course_makes_pairs(course):
    taken, devices = [], Devices()
    queue = PairQueue(taken.append, 10**6, 5.0, lambda _: None)
    carried = course(queue, devices)
    carry_out(carried, devices)
    assert queue.close()
    assert (carried.taken, carried.failure, len(taken)) == (4, None, 4)
    assert taken[0].low_again.shape == taken[0].low.shape == (4, 4)
    assert taken[0].said["axes"] == {"position": "A", "channel": "tubulin", "repeat": 0}


WRONG = [
    (lambda d: setattr(d, "exposure_ms", 11.0), "an exposure of 10 ms was asked for .* and the camera stands at 11 ms"),
    (lambda d: setattr(d, "light", "2.1"), "Laser-Power = 2.0 was asked for position A, channel tubulin, low light"),
    (lambda d: setattr(d, "light", "off"), "it stands at off; it was not applied"),
    (lambda d: d.at_um.__setitem__(1, 7.0), "sent to y = 0 µm for position A, channel tubulin, low light and stands at 7 µm"),
]


@pytest.mark.parametrize(("change", "says"), WRONG, ids=["exposure", "power", "word", "stage"])
def test_what_was_read_is_compared(course, change, says):
    devices = Devices()
    queue = PairQueue(lambda _: None, 10**6, 5.0, lambda _: None)
    carried = course(queue, devices)
    carry_out(carried, devices, lambda _: change(devices))
    with pytest.raises(AcquisitionError, match=says):
        raise carried.failure
    assert carried.taken == 0
    queue.close()


def test_what_rounds_is_the_same(course):
    devices = Devices()
    queue = PairQueue(lambda _: None, 10**6, 5.0, lambda _: None)
    carried = course(queue, devices)
    carry_out(carried, devices, lambda _: setattr(devices, "exposure_ms", devices.exposure_ms + 0.04))
    assert (carried.taken, carried.failure) == (4, None)
    queue.close()


def test_a_light_that_cannot_be_read_back_ends_it(course):
    devices = Devices()
    queue = PairQueue(lambda _: None, 10**6, 5.0, lambda _: None)
    carried = course(queue, devices, property_="broken")
    carry_out(carried, devices)
    assert "Laser-broken makes the light, and cannot be read back: no answer" in str(carried.failure)
    queue.close()


def test_an_image_that_nobody_asked_for_ends_it(course):
    queue, devices = PairQueue(lambda _: None, 10**6, 5.0, lambda _: None), Devices()
    carried = course(queue, devices)
    frames = carried.frames()
    next(frames)
    carried.image({"position": "Z"}, np.zeros((4, 4), np.uint16))
    assert next(frames, None) is None
    assert "came while that of" in str(carried.failure)
    queue.close()


def test_an_image_of_8_bit_ends_it(course):
    queue, devices = PairQueue(lambda _: None, 10**6, 5.0, lambda _: None), Devices()
    carried = course(queue, devices)
    carry_out(carried, devices, pixels=np.uint8)
    assert "an image is uint8 of shape (4, 4)" in str(carried.failure)
    queue.close()


def test_an_image_that_never_comes_ends_it(course):
    queue, devices = PairQueue(lambda _: None, 10**6, 5.0, lambda _: None), Devices()
    carried = course(queue, devices, patience_s=0.1)
    assert len(list(carried.frames())) == 1
    assert "no image came for {'position': 'A'" in str(carried.failure)
    queue.close()


def test_a_full_queue_stops_the_course_between_two_pairs(course):
    gate, devices, told = threading.Event(), Devices(), []
    queue = PairQueue(lambda _: gate.wait(30), 100, 1.2, told.append)
    carried = course(queue, devices)
    carry_out(carried, devices)
    assert "waited 1.2 s for the disk" in str(carried.failure)
    assert (carried.taken, told) == (1, [True, False])
    gate.set()
    assert queue.close(), "what was taken is written"


# ------------------------------------------------------------------ after


def test_what_cannot_be_put_back_is_said():
    core = demo_core(demo_config())
    put_back = PutBack(core, [("Nobody", "Power", 2.0), ("Laser", "Power", 2.0)])
    core.setProperty("Laser", "Power", 100.0)
    put_back.now()
    assert float(core.getProperty("Laser", "Power")) == 2.0, "the others are"
    assert "Nobody-Power could not be put back, look after it yourself" in put_back.problems[0]


def test_rejections_are_counted_by_kind():
    reasons = ["moved by 2.0 px (limit 1)", "", "dark", "moved by 7 px (limit 1)"]
    pairs = [Pair(str(k), Path(), Path(), accepted=not reason, reason=reason) for k, reason in enumerate(reasons)]
    assert rejections(pairs) == [(2, "moved by 2.0 px (limit 1)"), (1, "dark")]


# ------------------------------------------------------------------ the command


def command(place, *more, **options):
    words = [sys.executable, "-m", "live_restore.cli", "calibrate", "plan.toml", "--config", "rig.toml", *more]
    said = {"env": {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}, "encoding": "utf-8", "timeout": 120}
    return subprocess.run(words, cwd=place, capture_output=True, check=False, **(said | options))


def test_nothing_moves_where_nobody_can_be_asked(folder):
    place = folder()
    done = command(place, "-o", "pairs", input="n\n")
    assert done.returncode == 1
    assert "say --yes" in done.stderr and not (place / "pairs").exists()


def test_the_command(folder):
    place = folder()
    done = command(place, "-o", "pairs", "--yes", "--engine", "pycromanager")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 pairs at 2 positions, 12 frames" in done.stdout
    assert "tubulin: low 10 ms at 2, high 10 ms at 100, and low again" in done.stdout
    assert "4 of 4 pairs in" in done.stdout
    assert "live-restore train" in done.stdout
    assert len(read_pairs(place / "pairs" / "cells").pairs) == 4


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal is POSIX")
def test_the_command_asks_who_sits_there(folder):
    import pty

    place = folder()
    leader, follower = pty.openpty()
    os.write(leader, b"n\n")
    done = command(place, stdin=follower)
    os.close(leader)
    os.close(follower)
    assert done.returncode == 1
    assert "Begin?" in done.stdout
    assert not (place / "pairs" / "cells").exists()


def test_the_command_names_what_is_wrong(folder, capsys):
    place = folder(PLAN.replace("sandwich", "sandwitch"))
    with pytest.raises(SystemExit):
        main(["calibrate", str(place / "plan.toml"), "--config", str(place / "rig.toml")])
    assert "did you mean sandwich?" in " ".join(capsys.readouterr().err.split())
