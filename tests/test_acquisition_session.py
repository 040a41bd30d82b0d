"""Acquisitions by pycro-manager with the demo devices: each ends, keeps its raw frames, and says what went wrong."""

import os
import subprocess
import sys
import time

import pytest
from demo_acquisition import PREAMBLE, acquire

pytestmark = [pytest.mark.microscope, pytest.mark.slow]

ENDS = """
def fails(one, other):
    raise ValueError("my callback")

def fails_at(event):
    raise ValueError("my callback")

def cancels_first(event):
    return event if event["axes"]["time"] else None

def generator():
    yield event(0)
    yield event(1)
    raise KeyError("my generator")

with RestoreHook(nobody) as hook:
    attempt(hook, "list", [event(t) for t in range(5)])
    attempt(hook, "generator", (event(t) for t in range(5)))
    attempt(hook, "property", [event(0, properties=[["Camera", "NoSuch", "1"]])])
    attempt(hook, "preset", [event(0, config_group=["Channel", "Nope"])])
    attempt(hook, "range", [event(0, z=0.0), event(1, z=1e6)])
    attempt(hook, "float", [{"axes": {"z": 0.5}}])
    attempt(hook, "float drawn", iter([event(0), {"axes": {"z": 0.5}}, event(1)]))
    attempt(hook, "tags", [event(0, tags={"a": "b"})])
    attempt(hook, "generator fails", generator())
    attempt(hook, "processor", [event(t) for t in range(5)], image_process_fn=fails)
    attempt(hook, "processor float", [event(t) for t in range(5)], image_process_fn=lambda i, m: (i.astype("f4"), m))
    attempt(hook, "processor list", [event(t) for t in range(5)], image_process_fn=lambda i, m: [(i, m)])
    attempt(hook, "processor none", [event(t) for t in range(5)], image_process_fn=lambda i, m, queue: None)
    attempt(hook, "saved", [event(t) for t in range(150)], image_saved_fn=fails)
    attempt(hook, "notified", [event(t) for t in range(150)], notification_callback_fn=fails_at)
    attempt(hook, "before", iter([event(t) for t in range(5)]), pre_hardware_hook_fn=fails_at)
    attempt(hook, "cancels", iter([event(t) for t in range(5)]), pre_hardware_hook_fn=cancels_first)
    core.set_exposure(50.0)  # pycro-manager believes it is still at 2 ms, and would not set it
    attempt(hook, "stale", [event(0)])
    told["stale exposure"] = core.get_exposure()
    core.set_timeout_ms(200)
    attempt(hook, "xy", [event(t, x=x, y=0.0) for t, x in enumerate((0.0, 50_000.0, 0.0))])
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    return acquire(ENDS, tmp_path_factory.mktemp("ends"), timeout_s=120)


@pytest.mark.parametrize("name", ["list", "generator"])
def test_a_good_run_ends_without_a_word(ends, name):
    assert ends[name] == ["", "", 5, 5, []]


ERRORS = [
    ("property", "1 are missing, the first is {'time': 0}", 0),
    ("property", 'the device said: Error in device "Camera": Invalid property name encountered: NoSuch', 0),
    ("preset", 'the device said: Preset "Nope" of configuration group "Channel" does not exist', 0),
    ("range", "Position out of range", 1),
    ("float drawn", "axis 'z' of event 1 is 0.5, a float", 1),
    ("generator fails", "the cause: 'my generator'", 2),
    ("processor", "the cause: my callback", 5),
    ("processor float", "image_process_fn returned an image of float32 and shape (512, 512)", 5),
    ("processor list", "image_process_fn returned a list", 5),
    ("saved", "the cause: my callback", 150),
    ("notified", "the cause: my callback", 150),
    ("before", "the cause: my callback", 0),
    ("xy", 'the device said: Wait for device "XY" timed out after 200ms', 1),
]


@pytest.mark.parametrize(("name", "sentence", "kept"), ERRORS, ids=[f"{case[0]}: {case[1][:20]}" for case in ERRORS])
def test_an_error_is_raised_and_the_frames_before_it_are_kept(ends, name, sentence, kept):
    kind, said, taken, saved, _ = ends[name]
    assert kind == "AcquisitionError" and sentence in said
    assert taken == saved == kept


@pytest.mark.parametrize(("name", "sentence"), [("float", "axis 'z' of event 0"), ("tags", "event 0 has 'tags'")])
def test_what_would_hang_is_refused_before_it_starts(ends, name, sentence):
    assert ends[name][0] == "ValueError" and sentence in ends[name][1] and ends[name][2] == 0


def test_frames_that_a_script_diverts_or_cancels_are_not_missed(ends):
    assert ends["processor none"][:4] == ["", "", 5, 0]
    assert ends["cancels"][:4] == ["", "", 4, 4] and "returned None, which cancels the event" in ends["cancels"][4][0]


def test_an_exposure_that_pycromanager_would_not_set_again_is_set(ends):
    assert ends["stale"] == ["", "", 1, 1, []] and ends["stale exposure"] == 2.0


def test_a_full_camera_buffer_is_an_error_and_the_next_run_works(tmp_path):
    told = acquire(
        """
        def slow(image, metadata):
            time.sleep(0.05)
            return image, metadata
        with RestoreHook(nobody) as hook:
            attempt(hook, "full", [event(t) for t in range(200)], image_process_fn=slow)
            attempt(hook, "next", [event(t) for t in range(5)])
        """,
        tmp_path,
        buffer_mb=16,
    )
    kind, said, taken, saved, _ = told["full"]
    assert kind == "AcquisitionError" and "Sequence buffer overflow" in said and "are missing" in said
    assert 30 <= taken == saved < 200
    assert told["next"] == ["", "", 5, 5, []]


def test_ctrl_c_ends_an_acquisition_and_keeps_its_frames(tmp_path):
    told = acquire(
        """
        def waits():
            yield event(0)
            threading.Event().wait()
        def loops(hook, name):
            try:
                with hook.acquisition(out, name) as acquisition:
                    acquisition.acquire([event(t, exposure=10.0) for t in range(3000)])
                    for volume in hook.restored:
                        pass
            except KeyboardInterrupt:
                told[name] = [hook.ledger["taken"], saved(name)]
        reached = threading.Event()
        def stuck(event):
            reached.set()
            threading.Event().wait()
        handler = signal.getsignal(signal.SIGINT)
        with RestoreHook(nobody) as hook:
            def taking(name, frames):
                return lambda: hook.run and hook.run.raw and hook.run.raw.name == f"{name}_1" and hook.ledger["taken"] >= frames
            press_ctrl_c(taking("leaving", 10))
            attempt(hook, "leaving", [event(t, exposure=10.0) for t in range(3000)])
            press_ctrl_c(taking("body", 10))
            loops(hook, "body")
            press_ctrl_c(taking("interval", 1))
            attempt(hook, "interval", [event(t, min_start_time=60.0 * t) for t in range(3)])
            press_ctrl_c(taking("generator", 1))
            attempt(hook, "generator", waits())
            press_ctrl_c(reached.is_set, times=2)
            attempt(hook, "twice", [event(0)], pre_hardware_hook_fn=stuck)
            attempt(hook, "next", [event(t) for t in range(5)])
        assert signal.getsignal(signal.SIGINT) is handler
        """,
        tmp_path,
    )
    for name in ("leaving", "interval", "generator", "twice"):
        assert told[name][0] == "KeyboardInterrupt" and told[name][2] == told[name][3]
    assert 0 < told["leaving"][2] < 3000 and told["interval"][2] == told["generator"][2] == 1
    assert 0 < told["body"][0] == told["body"][1] < 3000
    assert told["next"][:4] == ["", "", 5, 5]


def test_an_acquisition_in_which_nothing_happens_is_given_up(tmp_path):
    told = acquire(
        """
        def stuck(event):
            threading.Event().wait()
        def loops(hook):
            try:
                with hook.acquisition(out, "body", pre_hardware_hook_fn=stuck, stall_s=1) as acquisition:
                    acquisition.acquire([event(0)])
                    threading.Event().wait()  # the script waits for what never comes
            except AcquisitionError as error:
                told["body"] = str(error)
        with RestoreHook(nobody) as hook:
            attempt(hook, "leaving", [event(0)], pre_hardware_hook_fn=stuck, stall_s=1)
            loops(hook)
            attempt(hook, "next", [event(t) for t in range(5)])
        """,
        tmp_path,
    )
    assert told["leaving"][0] == "AcquisitionError" and "nothing has happened for 1 s" in told["leaving"][1]
    assert "in stuck" in told["leaving"][1] and "nothing has happened for 1 s" in told["body"]
    assert told["next"][:4] == ["", "", 5, 5]


def test_the_restore_process_may_come_and_go_during_an_acquisition(tmp_path):
    told = acquire(
        """
        import subprocess
        def restore_process():
            command = [sys.executable, sys.path[0] + "/restore_peer.py", "0"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            return process, process.stdout.readline().split()[1]
        def stacks(times):
            return [{"axes": {"time": t, "z": z}, "exposure": 2.0} for t in times for z in range(10)]
        process, address = restore_process()
        def kill(image, metadata):
            if metadata["Axes"]["time"] == 50:
                process.kill()
            return image, metadata
        with RestoreHook(address) as hook:
            hook.drain_s = 3
            attempt(hook, "alive", stacks(range(10)))
            told["alive ledger"] = hook.ledger.counts()
            attempt(hook, "killed", stacks(range(100)), image_process_fn=kill)
            told["killed ledger"] = hook.ledger.counts()
        """,
        tmp_path,
        timeout_s=90,
    )
    assert told["alive"][:4] == ["", "", 100, 100] and told["alive ledger"]["receipted"] == 100
    assert told["killed"][:4] == ["", "", 1000, 1000]
    ledger = told["killed ledger"]
    assert ledger["receipted"] >= 400 and ledger["lost"] + ledger["unattached"] >= 400


def test_a_killed_script_loses_a_second_of_the_index_at_most(tmp_path):
    script = PREAMBLE.format(tests=os.path.dirname(__file__), out=str(tmp_path), buffer_mb=512) + (
        "with RestoreHook(nobody) as hook:\n"
        "    with hook.acquisition(out, 'killed') as acquisition:\n"
        "        acquisition.acquire(iter([event(t, exposure=20.0) for t in range(1000)]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    index, deadline_s = tmp_path / "killed_1" / "NDTiff.index", time.monotonic() + 40
    while not (index.exists() and index.stat().st_size):  # less than the 8 KiB that would be written by itself
        assert time.monotonic() < deadline_s and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait(10)
    assert 0 < index.stat().st_size < 8192
