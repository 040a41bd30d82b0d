"""The hook: gives back what it was given, loses nothing silently, and never gets in the way."""

import json
import logging
import os
import subprocess
import sys
import time
from inspect import signature

import numpy as np
import pytest
from restore_peer import Peer, until

from live_restore.acquire.hook import RestoreHook
from live_restore.errors import WireError
from live_restore.frames import VolumeKey
from live_restore.ledger import balanced
from live_restore.records.runs import RunFolder, run_folder
from live_restore.wire.sockets import Listener

NOBODY = "tcp://127.0.0.1:9"
IMAGE = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
HEAVY = ("pydantic", "scipy", "pycromanager", "mmpycorex", "typer", "tifffile", "psutil", "rich", "yaml", "starlette", "torch")


def stack(times, planes, **more):
    return [{"axes": {"time": t, "z": z, **more}, "exposure": 10.0} for t in range(times) for z in range(planes)]


def show(hook, events, image=IMAGE, after=None):
    """Give the hook what pycro-manager would, and see that it comes back."""
    for event in events:
        metadata = {"Axes": dict(event["axes"]), "Exposure": 10.0, "PixelSize_um": 0.5}
        said = json.dumps(metadata)
        back = hook(image, metadata)
        assert back[0] is image and back[1] is metadata and json.dumps(metadata) == said
        if after is not None:
            after(event)


@pytest.fixture
def peer():
    with Peer() as running:
        yield running


@pytest.fixture
def hook(peer):
    with RestoreHook(peer.address) as running:
        running.drain_s = 2.0
        assert running.wait_attached(5)
        yield running


class StandingCore:
    """A core whose devices stand where they stand, in the words of either kind of core."""

    def __init__(self, exposure_ms=10.0):
        self.exposure_ms, self.asked = exposure_ms, 0

    def getExposure(self):
        return self.exposure_ms

    def get_position(self):
        self.asked += 1
        return 3.0

    def getXPosition(self):
        return 1.0

    def getYPosition(self):
        raise RuntimeError("no such device")


def test_importing_the_hook_loads_nothing_heavy():
    script = f"import sys, live_restore.acquire.hook; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pycromanager_counts_two_parameters(hook):
    assert len(signature(hook).parameters) == len(signature(hook.saved).parameters) == 2
    assert len(signature(hook.readback).parameters) == 1


def test_a_thousand_frames_with_nobody_there():
    with RestoreHook(NOBODY) as hook:
        show(hook, hook.watch(stack(100, 10)))
        assert hook.ledger["unattached"] == 1000 and hook.errors == 0
    assert balanced(hook.ledger.counts())
    assert "1000: there was no restore process when its volume began." in str(hook.summary())


def test_frames_arrive_as_they_were_taken(hook, peer):
    events = stack(2, 3, channel="GFP", position=4)
    assert hook.watch(events) is events
    show(hook, events)
    hook.end_run()
    assert [f.info.key for f in peer.frames] == [VolumeKey(t, "4", "GFP") for t in (0, 0, 0, 1, 1, 1)]
    assert [(f.info.sequence, f.info.z, f.info.planes) for f in peer.frames] == [(n, n % 3, 3) for n in range(6)]
    assert all(np.array_equal(f.pixels, IMAGE) for f in peer.frames)
    info = peer.frames[0].info
    assert info.exposure_ms is None and info.asked_exposure_ms == 10.0 and info.pixel_size_um == 0.5
    assert abs(info.unix_ns - time.time_ns()) < 60e9
    assert peer.begins[0].plan["frames"] == 6 and peer.begins[0].plan["planes"] == 3
    until(lambda: peer.ends)
    assert peer.ends[0].ledger == hook.ledger.counts() and hook.ledger["receipted"] == 6


def test_a_view_that_is_not_contiguous_is_sent_too(hook, peer):
    show(hook, stack(1, 1), IMAGE[:, ::2])
    hook.end_run()
    assert np.array_equal(peer.frames[0].pixels, IMAGE[:, ::2])


@pytest.mark.parametrize("image", [IMAGE.astype(np.float32), IMAGE[None], [[1]], None], ids=["float", "3D", "list", "None"])
def test_what_is_no_camera_image_comes_back_untouched_and_is_counted(image, caplog):
    with RestoreHook(NOBODY) as hook:
        metadata = {"Axes": {}}
        for _ in range(3):
            assert hook(image, metadata) == (image, metadata) if image is None else hook(image, metadata)[0] is image
        assert hook.errors == 3 and hook.ledger["taken"] == 0
        assert "live_restore takes (Y, X) images of uint8 or uint16" in str(hook.failure)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1


def test_nonsense_metadata_do_not_reach_the_acquisition():
    with RestoreHook(NOBODY, core=StandingCore()) as hook:
        assert hook(IMAGE, None) == (IMAGE, None)
        assert hook.readback(5) == 5 and hook.readback(None) is None and hook.readback([{"axes": 3}]) == [{"axes": 3}]
        hook.saved(None, None)
        hook.take(IMAGE, "no key")
        assert hook.errors >= 3 and balanced(hook.ledger.counts())


def test_the_stage_and_exposure_that_were_read_back_go_with_the_frame(peer):
    core = StandingCore()
    with RestoreHook(peer.address, core=core) as hook:
        hook.wait_attached(5)
        for event in stack(1, 2):
            assert hook.readback(event) is event
        show(hook, stack(1, 2))
        hook.end_run()
        assert peer.frames[1].info.exposure_ms == 10.0 and peer.frames[1].info.stage_um == (1.0, None, 3.0)
        assert core.asked == 1  # it was not asked to move
        assert hook.warnings == ["get_y_position() of the core failed, and is not asked again: no such device"]


def test_an_exposure_that_was_not_applied_is_warned_of():
    with RestoreHook(NOBODY, core=StandingCore(exposure_ms=50.0)) as hook:
        hook.readback({"axes": {"time": 0}, "exposure": 7.0})
        assert "7 ms was asked for and the camera stands at 50 ms" in hook.warnings[0]


def test_a_sequence_of_exposures_cannot_be_read_back(peer):
    with RestoreHook(peer.address, core=StandingCore()) as hook:
        hook.wait_attached(5)
        sequence = [{"axes": {"time": 0, "z": z}, "exposure": 10.0 + z, "z": float(z)} for z in range(2)]
        assert hook.readback(sequence) is sequence
        show(hook, stack(1, 2))
        hook.end_run()
        info = peer.frames[1].info
        assert info.exposure_ms is None and info.asked_exposure_ms == 11.0 and info.stage_um == (1.0, None, None)


def test_an_iterator_is_drawn_one_by_one_and_ends_before_what_would_hang():
    drawn = []

    def events():
        for z in (0, 1, 0.5, 2):
            drawn.append(z)
            yield {"axes": {"z": z}}

    with RestoreHook(NOBODY) as hook:
        watched = hook.watch(events())
        assert drawn == [] and next(watched) == {"axes": {"z": 0}} and drawn == [0]
        assert list(watched) == [{"axes": {"z": 1}}]
        assert "axis 'z' of event 2 is 0.5" in str(hook.failure) and "ends before an event" in hook.warnings[0]
        with pytest.raises(ValueError, match=r"axis 'z' of event 0 is 0\.5"):
            hook.watch([{"axes": {"z": 0.5}}])
        with pytest.raises(ValueError, match="event 0 has no 'axes'"):
            hook.watch({"z": 0.5})


def test_volumes_beyond_the_credit_are_left_for_later_whole(peer, tmp_path):
    peer.credit = 0
    with RestoreHook(peer.address, raw=tmp_path / "mitosis_1", run="r") as hook:
        hook.wait_attached(5)
        show(hook, hook.watch(stack(3, 2)))
        show(hook, hook.watch(stack(1, 2, light="high")))
        hook.end_run()
        assert hook.ledger["skipped"] == 6 and hook.ledger["receipted"] == 2
        assert hook.summary().folder == run_folder(tmp_path / "mitosis_1")
        assert "live-restore backfill" in str(hook.summary())
    with RunFolder.open(run_folder(tmp_path / "mitosis_1")) as folder:
        assert [key.time for key, *_ in folder.backlog()] == [0, 1, 2]
        said = folder.described("hook.json")
    assert said["ledger"] == hook.ledger.counts() and said["ended"] is True


def test_frames_of_a_restore_process_that_dies_are_lost_and_the_next_takes_over(tmp_path):
    peer = Peer(receipts=False)
    with RestoreHook(peer.address, raw=tmp_path / "raw", run="r") as hook:
        assert hook.wait_attached(5)
        show(hook, hook.watch(stack(2, 2)))
        until(lambda: len(peer.frames) == 4)
        show(hook, stack(1, 1, position=1))
        peer.mute = True
        until(lambda: not hook._sender.session, 6, "silence")
        address = peer.address
        peer.close()
        show(hook, [{"axes": {"time": 0, "z": 1, "position": 1}}])  # the rest of a half-sent volume
        assert hook.ledger["lost"] == 6
        show(hook, stack(1, 1, position=2))
        with Peer(address) as second:
            started_s = time.monotonic()
            assert hook.wait_attached(5)
            assert time.monotonic() - started_s < 4  # 2 s are promised; this machine may be busy
            show(hook, stack(3, 2))
            hook.end_run()
            assert second.begins[0].run == "r" and len(second.frames) == 2  # times 0 and 1 were lost, 2 is whole
        assert hook.ledger.counts() == {
            "taken": 13, "waiting": 0, "receipted": 2, "skipped": 0, "unattached": 1, "lost": 10, "refused": 0
        }  # fmt: skip
        assert "went away" in hook.warnings[0]


def test_a_new_session_is_noticed_without_silence(peer, hook):
    show(hook, hook.watch(stack(1, 2)))
    until(lambda: hook.ledger["receipted"] == 2)
    peer.session = "another"
    hook._sender._hear(__import__("live_restore.wire.messages", fromlist=["Welcome"]).Welcome("another", credit=5))
    assert any("another one answers" in warning for warning in hook.warnings)
    assert hook._sender.session == "another"


def test_garbage_is_passed_over():
    with Listener("tcp://127.0.0.1:0") as listener, RestoreHook(listener.address) as hook:
        heard = []
        until(lambda: heard.extend(listener.receive(10)) or heard)
        listener._socket.send_multipart([heard[0][0], b"\xff garbage", b"x" * 100])
        until(lambda: hook._sender._caller.bad == 1)
        show(hook, stack(2, 2))
        assert hook.ledger["unattached"] == 4 and hook.errors == 0


def test_refused_frames_are_counted_and_said(peer):
    peer.refuse = "the frames are too large"
    with RestoreHook(peer.address) as hook:
        hook.wait_attached(5)
        show(hook, stack(1, 1))
        hook.end_run()
        assert hook.ledger["refused"] == 1 and "the frames are too large" in hook.warnings[0]


def test_restored_volumes_come_back_to_iterator_and_callback(peer):
    with RestoreHook(peer.address, results="uint16") as hook:
        hook.wait_attached(5)
        called, failing = [], []
        hook.restored.callback(called.append)
        hook.restored.callback(lambda volume: failing.append(1 / 0))
        show(hook, hook.watch(stack(3, 2)), after=lambda event: time.sleep(0.01))
        hook.end_run(0)
        volumes = list(hook.restored)
        assert [v.key.time for v in volumes] == [0, 1, 2] and volumes[0].pixels.shape == (2, 64, 48)
        assert np.array_equal(volumes[0].pixels[1], IMAGE) and volumes[0].trust == {"trusted": True}
        assert 0 < volumes[0].latency_ms < 5000
        until(lambda: len(called) == 3 and hook.restored.failures == 3)
        assert peer.begins[0].results == "uint16" and hook.summary().returned == 3


def test_volumes_are_asked_for_once_somebody_wants_them(peer, hook):
    show(hook, stack(1, 1))
    assert hook.restored.next(0.01) is None
    until(lambda: [b.results for b in peer.begins][-1:] == ["float32"])
    show(hook, [{"axes": {"time": 5}}])
    assert hook.restored.next(5).pixels.dtype == np.float32


def test_of_volumes_that_nobody_takes_the_newest_stay(peer):
    with RestoreHook(peer.address, results="uint16") as hook:
        hook.wait_attached(5)
        show(hook, hook.watch(stack(20, 2)))
        hook.end_run(0)
        until(lambda: hook.restored.complete, 15)
        assert [v.key.time for v in hook.restored] == list(range(12, 20)) and hook.restored.dropped == 12


def test_iterating_ends_with_a_restore_process_that_does_not_say_how_far_it_is(peer):
    peer.answers = False
    with RestoreHook(peer.address, results="uint16") as hook:
        hook.wait_attached(5)
        show(hook, hook.watch(stack(1, 2)))
        hook.end_run(0)
        assert len(list(hook.restored)) == 1


def test_one_hook_serves_several_acquisitions(peer, tmp_path):
    with RestoreHook(peer.address, run="day", raw=tmp_path / "raw") as hook:
        hook.wait_attached(5)
        for name in ("day", "day-2"):
            hook.begin_run()
            show(hook, hook.watch(stack(1, 2)))
            hook.end_run()
            assert hook.run.name == name and hook.ledger["receipted"] == 2
        until(lambda: len(peer.ends) == 2)
    assert [frame.info.sequence for frame in peer.frames] == [0, 1, 0, 1]


def test_closing_twice_and_using_afterwards_is_harmless(peer):
    hook = RestoreHook(peer.address)
    hook.close()
    hook.close()
    show(hook, stack(1, 1))
    assert str(hook.summary())


def test_a_wrong_address_is_refused_at_once():
    with pytest.raises(WireError, match="is no address"):
        RestoreHook("nonsense")


def test_a_run_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("x")
    with RestoreHook(NOBODY, raw=tmp_path / "file" / "raw") as hook:
        show(hook, stack(1, 1))
        hook.end_run()
        assert "cannot write into the run folder" in hook.warnings[0] and hook.ledger["unattached"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_ends_at_once_and_leaves_the_records_alone(tmp_path):
    script = (
        "import os, sys, time; import numpy as np; from live_restore.acquire.hook import RestoreHook\n"
        f"hook = RestoreHook({NOBODY!r}, raw={str(tmp_path / 'raw')!r})\n"
        "hook(np.zeros((8, 8), np.uint16), {'Axes': {'light': 'high'}}); began = time.monotonic()\n"
        "if os.fork() == 0: sys.exit(0)\n"
        "os.wait(); print(time.monotonic() - began < 1.0); hook.close()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "True" and "Traceback" not in done.stderr
    assert len((tmp_path / "raw_restored" / "backlog.jsonl").read_text().splitlines()) == 1


def test_a_script_that_forgets_to_close_ends():
    script = (
        "import numpy as np; from live_restore.acquire.hook import RestoreHook\n"
        f"hook = RestoreHook({NOBODY!r}); hook(np.zeros((8, 8), np.uint16), {{'Axes': {{'light': 'high'}}}}); print('end')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "end" and "Traceback" not in done.stderr
