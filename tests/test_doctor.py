"""The doctor: every check finds what is wrong, says what to do, and never fails itself."""

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from live_restore.config import HardwareConfig
from live_restore.doctor import machine, microscope, software, wire
from live_restore.doctor.examine import CHECKS, Finding, examine
from live_restore.doctor.findings import Situation
from live_restore.wire.messages import Answer
from live_restore.wire.security import make_keys
from live_restore.wire.sockets import Listener

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "hardware_configs" / "demo.toml"
GIB = 2**30
ANYWHERE = "tcp://127.0.0.1:0"


def by_name(*names):
    """Give the rows of the table that have these names."""
    return tuple(row for row in CHECKS if row[0] in names)


def situation(folder, address=ANYWHERE, **said):
    return Situation(folder, address, **said)


def rig(**micromanager):
    return HardwareConfig.model_validate(
        {"micromanager": micromanager, "optics": {"pixel_size_um": 0.1}, "channels": {"GFP": {"exposure_ms": 10.0}}}
    )


@pytest.mark.slow
def test_everything_is_looked_at_and_this_machine_can_run_the_demo(tmp_path):
    told = []
    findings = examine(tmp_path, ANYWHERE, DEMO, tell=told.append)
    assert told == findings
    names = {finding.name for finding in findings}
    assert {
        "python",
        "pycromanager",
        "memory",
        "engine openvino",
        "model care2d_demo",
        "disk speed",
        "address",
        "camera",
    } <= names
    assert {finding.level for finding in findings} <= {"ok", "warning", "problem"}
    assert all(finding.cure for finding in findings if finding.level != "ok")
    assert [finding.found for finding in findings if "this check itself failed" in finding.found] == []
    camera = next(finding for finding in findings if finding.name == "camera")
    assert camera.level == "ok" and "512 x 512 pixels" in camera.found and "16 bit" in camera.found
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_fails_is_a_finding(tmp_path):
    def broken(_):
        raise RuntimeError("no such luck")

    (finding,) = examine(tmp_path, checks=(("luck", broken),))
    assert (finding.name, finding.level) == ("luck", "warning")
    assert finding.found == "this check itself failed: RuntimeError: no such luck"


def test_a_configuration_with_a_typo(tmp_path):
    path = tmp_path / "rig.toml"
    path.write_text(DEMO.read_text(encoding="utf-8").replace("max_waiting", "max_wating"), encoding="utf-8")
    finding, *rest = examine(tmp_path, config=path, checks=by_name("python"))
    assert (finding.name, finding.level) == ("configuration", "problem")
    assert "max_waiting" in finding.found
    assert [one.name for one in rest] == ["python"]


# --- judgements: a table, from healthy to hopeless -----------------------------------------------------------------------

JUDGEMENTS = {
    "plenty of memory": (machine.judge_memory(16 * GIB, 32 * GIB), "ok", r"16\.0 GiB free of 32\.0"),
    "some memory": (machine.judge_memory(2 * GIB, 8 * GIB), "warning", "want 4 GiB"),
    "hardly any memory": (machine.judge_memory(GIB // 2, 8 * GIB), "problem", "takes about 1 GiB"),
    "a large disk": (machine.judge_space(2000 * GIB), "ok", "427 min of a 2048² camera at 10 frames/s"),
    "a small disk": (machine.judge_space(6 * GIB), "warning", "every file of an NDTiff dataset reserves 4 GiB"),
    "a full disk": (machine.judge_space(GIB), "problem", "every file of an NDTiff dataset reserves 4 GiB"),
    "a solid-state disk": (machine.judge_speed(1500), "ok", "1500 MB/s, flushed: 179 frames/s of 2048² uint16"),
    "a hard disk": (machine.judge_speed(150), "warning", "10 frames/s want 84 MB/s"),
    "a memory card": (machine.judge_speed(20), "problem", "20 MB/s"),
    "a fine clock": (machine.judge_step(1e-7), "ok", r"steps of 0\.1 µs"),
    "an old Windows clock": (
        machine.judge_step(15.6e-3),
        "warning",
        r"steps of 1\.56e\+04 µs: latencies are that coarse",
    ),
    "an empty battery": (*machine.judge_date(0), "problem", "the clock says 1970-01-01"),
    "a slow network drive": (*machine.judge_file_clock(90), "warning", "dated 90 s behind this machine's clock"),
    "a fast network drive": (*machine.judge_file_clock(-90), "warning", "dated 90 s ahead of this machine's clock"),
    "OneDrive": (*machine.judge_path(Path("/home/x/OneDrive - Lab/runs"), False), "warning", "seems to be synchronized"),
    "a long path": (*machine.judge_path(Path("D:/" + "x" * 200), True), "warning", "may pass Windows' 260"),
    "two cards": (
        software.judge_driver(0, "RTX 4090, 550.1, 24564 MiB\nRTX 4090, 550.1, 24564 MiB\n", ""),
        "ok",
        "RTX 4090, .*; RTX 4090",
    ),
    "a driver without a card": (
        software.judge_driver(9, "", "No devices were found\n"),
        "warning",
        "No devices were found",
    ),
    "a silent driver": (software.judge_driver(15, "", ""), "warning", "does not answer: status 15"),
    "another version": (software.judge_version("numpy", "0.1", exactly=True), "problem", r"is tested with 0\.1,"),
    "another series": (software.judge_version("numpy", "0.1.", exactly=False), "problem", r"is tested with 0\.1\.\*"),
    "not installed": (
        software.judge_version("no-such-package", "1", exactly=True),
        "ok",
        "not installed; only the micro",
    ),
    "a quick wire": (wire.judge_trips([0.1] * 99 + [3.0]), "ok", r"take 0\.10 ms \(p50\), 3\.00 ms \(p99\)"),
    "a watched wire": (wire.judge_trips([5.0] * 100), "warning", "less than 1 ms is usual"),
}


@pytest.mark.parametrize("case", JUDGEMENTS)
def test_judgements(case):
    finding, level, found = JUDGEMENTS[case]
    assert finding.level == level
    assert re.search(found, finding.found), finding.found
    assert bool(finding.cure) or level == "ok"


def test_healthy_clocks_and_paths_are_not_spoken_of():
    assert machine.judge_date(1_800_000_000) == []
    assert machine.judge_file_clock(0.3) == []
    assert machine.judge_path(Path("D:/" + "x" * 200), on_windows=False) == []


# --- the disk ------------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there(tmp_path):
    (finding,) = examine(tmp_path / "no", checks=by_name("folder", "disk space", "disk speed"))
    assert finding.level == "problem" and "is not there" in finding.found


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="modes are POSIX', and root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    (finding,) = machine.disk_speed(situation(tmp_path))
    tmp_path.chmod(0o700)
    assert finding.level == "problem" and "cannot be written to" in finding.found


def test_measuring_the_disk_leaves_nothing_behind(tmp_path):
    finding, *_ = machine.disk_speed(situation(tmp_path))
    assert finding.name == "disk speed" and "MB/s" in finding.found
    assert list(tmp_path.iterdir()) == []


# --- the wire ------------------------------------------------------------------------------------------------------------


def test_a_free_address(tmp_path):
    (finding,) = wire.address(situation(tmp_path))
    assert finding == Finding("address", "ok", f"{ANYWHERE} is free for a restore process")


def test_an_address_where_a_restore_process_answers(tmp_path):
    stop = threading.Event()
    with Listener(ANYWHERE) as listener:

        def answer():
            while not stop.is_set():
                for client, _ in listener.receive(50):
                    listener.send(client, Answer({"server": {"pid": 7, "software": "live_restore 9", "state": "serving"}}))

        thread = threading.Thread(target=answer)
        thread.start()
        (finding,) = wire.address(situation(tmp_path, listener.address))
        stop.set()
        thread.join()
    assert finding.level == "ok"
    assert "already answers at" in finding.found and "pid 7, software live_restore 9, state serving" in finding.found


def test_an_address_that_something_else_has_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        (finding,) = wire.address(situation(tmp_path, f"tcp://127.0.0.1:{other.getsockname()[1]}"))
    assert finding.level == "problem"
    assert "is taken by a program that does not answer" in finding.found and "another address" in finding.cure


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5757", "5757", "tcp://127.0.0.1:99999"])
def test_an_address_that_cannot_be(tmp_path, address):
    (finding,) = wire.address(situation(tmp_path, address))
    assert finding.level == "problem" and finding.cure


def test_keys(tmp_path):
    (finding,) = wire.encryption(situation(tmp_path, keys=tmp_path))
    assert finding.level == "problem" and "cannot be read" in finding.found and "live-restore keys" in finding.cure
    make_keys(tmp_path, ("one", "two"))
    (finding,) = wire.encryption(situation(tmp_path, keys=tmp_path))
    assert finding.level == "ok" and "lets 2 client(s) in" in finding.found
    assert wire.encryption(situation(tmp_path))[0].level == "ok"


def test_the_page(tmp_path):
    (finding,) = wire.page(situation(tmp_path))
    assert str(wire.PAGE_PORT) in finding.found


def test_round_trips_are_measured():
    trips = wire.measured_trips_s(20)
    assert len(trips) == 20 and all(trip > 0 for trip in trips)


def test_the_doctors_ports_are_those_of_the_page():
    from live_restore.preview.web import PORT

    assert wire.PAGE_PORT == PORT


# --- the microscope ------------------------------------------------------------------------------------------------------

SEEN = {
    "camera": "Cam",
    "width": 2048,
    "height": 2048,
    "bytes_per_pixel": 2,
    "bit_depth": 16,
    "pixel_type": "16bit, ",
    "buffer_mb": 2000,
}


def camera(**said):
    return microscope.judge_camera({**SEEN, **said}, rig(demo=True))


def test_cameras():
    assert camera().level == "ok"
    assert camera(bytes_per_pixel=1, bit_depth=8, pixel_type="8bit, ").level == "warning"
    assert "PixelType to 16bit" in camera(bytes_per_pixel=4, pixel_type="32bitRGB, ").cure
    assert camera(bytes_per_pixel=4).level == "problem"
    stated = HardwareConfig.from_file(DEMO)
    finding = microscope.judge_camera({**SEEN, "bit_depth": 12}, stated)
    assert (
        finding.level == "warning"
        and "bit_depth = 16" in finding.found
        and finding.cure == "write bit_depth = 12 under [camera]"
    )


def test_circular_buffers():
    finding = microscope.judge_buffer(SEEN, rig(demo=True))
    assert finding.level == "ok" and "2 s of this camera at its shortest exposure, 10 ms, are 1678 MB" in finding.found
    finding = microscope.judge_buffer({**SEEN, "buffer_mb": 250}, rig(demo=True))
    assert finding.level == "warning" and finding.cure == "write circular_buffer_mb = 1678 under [micromanager]"
    assert microscope.judge_buffer({**SEEN, "buffer_mb": 250}, rig(demo=True, circular_buffer_mb=4000)).level == "ok"


def test_without_a_configuration_there_is_advice(tmp_path):
    (finding,) = microscope.microscope(situation(tmp_path))
    assert "2 s of a 2048² camera at 10 frames/s are 168 MB" in finding.found


def test_a_java_application_that_does_not_run(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (finding,) = microscope.microscope(situation(tmp_path, config=rig(backend="java", port=port)))
        assert finding.level == "ok"
    (finding,) = microscope.microscope(situation(tmp_path, config=rig(backend="java", port=port)))
    assert finding.level == "problem" and "Run server on port 4827" in finding.cure


@pytest.mark.microscope
def test_real_devices_are_started_only_when_that_is_asked_for(tmp_path):
    adapters = pytest.importorskip("mm_test_adapters").device_adapter_path()
    config = rig(app_path=str(adapters), config_file=str(Path(adapters) / "MMConfig_demo.cfg"))
    interface, asleep = microscope.microscope(situation(tmp_path, config=config))
    assert interface.level == "ok" and "device interface 75 (pymmcore" in interface.found
    assert asleep.level == "ok" and "they may move" in asleep.found and "--devices" in asleep.cure
    _, found, buffer = microscope.microscope(situation(tmp_path, config=config, devices=True))
    assert found.level == "ok" and "Camera, 512 x 512 pixels, 16bit, 16 bit" in found.found
    assert buffer.level == "ok" and "52" not in buffer.cure


@pytest.mark.microscope
def test_adapters_that_are_none(tmp_path):
    pytest.importorskip("pymmcore")
    (tmp_path / "libmmgr_dal_Broken.so.0").write_bytes(b"no library")
    for folder, found in ((tmp_path / "no", "which is not there"), (tmp_path, "can be loaded")):
        (finding,) = microscope.microscope(situation(tmp_path, config=rig(app_path=str(folder), config_file="x.cfg")))
        assert finding.level == "problem" and found in finding.found


@pytest.mark.microscope
def test_a_configuration_that_does_not_load(tmp_path):
    adapters = pytest.importorskip("mm_test_adapters").device_adapter_path()
    broken = tmp_path / "broken.cfg"
    broken.write_text("Device,Camera,NoSuchAdapter,DCam\n", encoding="utf-8")
    config = rig(app_path=str(adapters), config_file=str(broken))
    *_, finding = microscope.microscope(situation(tmp_path, config=config, devices=True))
    assert finding.level == "problem" and "the devices do not start" in finding.found and "NoSuchAdapter" in finding.found


def test_a_process_that_crashes_is_an_answer():
    assert "error" in microscope.asked({"demo": False})


def test_importing_the_doctor_starts_nothing_heavy():
    heavy = ("torch", "openvino", "pymmcore_plus", "pycromanager", "matplotlib")
    script = f"import sys, live_restore.doctor; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
