"""Small parts of the restore process: lanes, timings, and a run's own words; and the whole process, ended from outside."""

import json
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from threading import Event, Semaphore

import numpy as np
import pytest
from bare_clients import PACKAGE, BareHook, image, options, settled, status, until

from live_restore.frames import FrameInfo, Volume, VolumeKey
from live_restore.ledger import RESTORE_COLUMNS, Ledger, balanced
from live_restore.records.runs import RunFolder, read_journal
from live_restore.records.sidecar import Sidecar
from live_restore.restore.scheduler import Scheduler
from live_restore.restore.volumes import Assembly
from live_restore.server import ModelChoice, Server, serve
from live_restore.serving.check_pace import CheckPace
from live_restore.serving.checking import Checking, Checks, said_of
from live_restore.serving.comparing import Comparing
from live_restore.serving.hooks import Hooks
from live_restore.serving.lane import Lane
from live_restore.serving.models import Models
from live_restore.serving.recording import Recording
from live_restore.serving.restoring import Outcome, Restoring
from live_restore.serving.run import Run, Runs
from live_restore.serving.run_files import RunFiles
from live_restore.serving.timings import Rate, Timings
from live_restore.serving.views import Views
from live_restore.wire.messages import Beat, Begin
from live_restore.wire.sockets import Caller, Listener

S = 1_000_000_000


def test_a_lane_does_one_thing_after_another_and_survives_what_fails():
    lane, done = Lane("test"), []
    lane.start()
    lane.put(lambda: done.append(1))
    lane.put(lambda: 1 / 0)
    lane.add(lambda: done.append(2))
    lane.stop()
    assert lane.join(10) and done == [1, 2] and lane.waiting == 0 and lane.nbytes == 0


def test_a_lane_in_a_hurry_does_what_must_be_done():
    lane, go, done = Lane("test"), Event(), []
    lane.start()
    lane.put(lambda: go.wait(10))
    until(lambda: lane.waiting == 0)
    lane.put(lambda: done.append("work"), lambda: done.append("instead"), nbytes=8)
    lane.note(lambda: done.append("note"))
    assert (lane.waiting, lane.nbytes) == (1, 8)
    lane.hurry()
    lane.stop()
    go.set()
    assert lane.join(10) and done == ["instead", "note"]


def test_notes_do_not_fill_the_memory():
    lane, done = Lane("test"), []
    for number in range(5000):
        lane.note(lambda number=number: done.append(number))
    lane.start()
    lane.stop()
    assert lane.join(10) and len(done) == 1000


def test_percentiles_are_of_the_last_volumes():
    timings = Timings(window=100)
    for ms in range(1000):
        timings.add({"restore": ms})
    timings.add({"write": 5.0})
    assert timings.percentiles() == {
        "restore": {"p50": 949.5, "p95": 994.05, "p99": 998.01},
        "write": {"p50": 5.0, "p95": 5.0, "p99": 5.0},
    }


def test_rates_are_of_the_last_seconds():
    rate = Rate(window_s=10)
    assert rate.per_s(0) == 0
    for second in range(100):
        rate.add(second * S)
    assert rate.per_s(99 * S) == pytest.approx(1, rel=0.01)
    assert rate.per_s(200 * S) == 0


def a_run(name="run", **said):
    return Run(Begin(name, **said), b"client", Ledger(RESTORE_COLUMNS), Assembly(), 0)


def test_warnings_are_said_once_the_newest_last_and_can_be_taken_back():
    run = a_run()
    assert run.warn("a", "first") and run.warn("b", "second") and not run.warn("a", "first") and run.warn("a", "third")
    assert run.status(0)["warnings"] == ["second", "third"]
    run.unwarn("b")
    for number in range(50):
        run.warn(str(number), f"no. {number}")
    assert len(run.status(0)["warnings"]) == 20 and run.status(0)["warnings"][-1] == "no. 49"


def test_the_pace_is_judged_by_what_the_hook_left_out_lately():
    run = a_run()
    run.beat({"taken": 0, "skipped": 0}, 0)
    run.beat({"taken": 50, "skipped": 20}, 5 * S)
    assert "40% are left for backfill" in run.status(5 * S)["warnings"][0]
    run.beat({"taken": 100, "skipped": 20}, 20 * S)
    assert run.status(20 * S)["warnings"] == []


def test_a_run_is_silent_ended_or_running():
    run = a_run()
    assert [run.state(0), run.state(6 * S)] == ["running", "silent"]
    run.end({"taken": 3})
    assert run.state(6 * S) == "ended" and run.status(0)["hook"] == {"taken": 3}
    run.begin(Begin("run", "/raw"), b"other", 7 * S)
    assert run.state(8 * S) == "running" and run.client == b"other"


def test_runs_that_are_closed_are_forgotten_and_open_ones_stay():
    runs = Runs(most=3)
    each = [a_run(str(number)) for number in range(6)]
    forgotten = []
    for number, run in enumerate(each):
        run.closed = number in (0, 2)
        forgotten += runs.add(run)
    assert [run.name for run in forgotten] == ["0", "2"] and [run.name for run in runs.all()] == ["1", "3", "4", "5"]
    assert runs.get("0") is None and runs.get("5") is each[5]


def test_receipts_that_do_not_go_out_are_said_again_for_a_while():
    with Listener("tcp://127.0.0.1:0") as listener:
        hooks = Hooks(listener, "session")
        hooks.receipt(b"a client that is not there", "run", 0, "")
        hooks.say_receipts(1, 0)
        hooks.receipt(b"a client that is not there", "run", 1, "")
        hooks.say_receipts(1, 9 * S)
        assert hooks.owed
        hooks.say_receipts(1, 11 * S)
        assert not hooks.owed


def test_hooks_are_met_told_and_forgotten():
    with Listener("tcp://127.0.0.1:0") as listener, Caller(listener.address) as caller:
        hooks = Hooks(listener, "session")
        until(lambda: caller.send(Beat("run")))
        (client, _), *_ = until(lambda: listener.receive(100))
        hooks.introduce(client, 3, 10 * S)
        hooks.introduce(client, 3, 10 * S + 1)  # it was told just now
        hooks.beat(2)
        for number in (5, 6):
            hooks.receipt(client, "run", number, "")
        assert not hooks.held_back
        hooks.say_receipts(0, 11 * S)
        assert hooks.held_back
        heard = []
        until(lambda: heard.extend(caller.receive(100)) or len(heard) == 3)
        assert [type(message).__name__ for message in heard] == ["Welcome", "Beat", "Receipt"]
        assert (heard[0].session, heard[1].credit, heard[2].sequences) == ("session", 2, (5, 6))
        for number in range(2000):
            hooks.meet(str(number).encode())
        hooks.beat(1)  # nobody of them is there


def a_volume(time=0, run="run"):
    key = VolumeKey(time)
    return Volume(run, key, image()[None], (FrameInfo(run, time, key, 0, 1),), 1)


def test_a_channel_whose_model_is_gone_and_a_listener_that_fails_end_nothing():
    told, models = [], Models([ModelChoice("GFP", PACKAGE, "identity")])

    def restored(outcome):
        told.append(outcome.volume.key.channel)
        raise RuntimeError("a fault in whoever was told")

    restoring = Restoring(models, Scheduler(), restored, lambda volume, why: told.append(why))
    restoring.start()
    for channel in ("GFP", "none", "GFP"):
        volume = replace(a_volume(), key=VolumeKey(channel=channel))
        restoring.ledger("run").take()
        restoring.offer(volume, 0)
    restoring.stop()
    assert restoring.join(20)
    assert told == ["GFP", "channel 'none' has no model any more", "GFP"]
    assert restoring.ledger("run")["restored"] == 2 and "settled 3" in repr(restoring)


def recorded(tmp_path, free, volumes=3, raw_elsewhere=False, **plan):
    """Record volumes of one plane, (1, 32, 40), one by one, on a disk with so many bytes free; gives the run and its folder."""
    raw = tmp_path / "cells_1"
    raw.mkdir()
    asked = Semaphore(0)

    def told(place):
        asked.release()
        return free(place)

    recording, run = Recording(tmp_path / "records", dict, told), a_run(raw=None if raw_elsewhere else str(raw), plan=plan)
    recording.start()
    run.ledger.take(volumes)
    for time in range(volumes):
        recording.write(run, a_volume(time), image(time)[None].astype(np.float32), {})
        assert asked.acquire(timeout=20)  # it is being written: those to come are not written together with it
    recording.finish(run)
    recording.stop()
    assert recording.join(20)
    return run, run.folder


RAW, RESTORED = 32 * 40 * 2, 32 * 40 * 4  # bytes


def test_volumes_that_come_quickly_are_written_together(tmp_path, monkeypatch):
    go, asked, together, write = Event(), Semaphore(0), [], RunFiles.write
    monkeypatch.setattr(RunFiles, "write", lambda files, entries: together.append(len(entries)) or write(files, entries))

    def slow(place):
        asked.release()
        assert go.wait(20)
        return 1 << 40

    recording, run = Recording(tmp_path / "records", dict, slow), a_run()
    other = a_run("other")
    recording.start()
    for time in range(9):
        recording.write(run if time != 4 else other, a_volume(time), image(time)[None].astype(np.float32), {})
        if not time:
            assert asked.acquire(timeout=20)  # the first is being written, and the others wait
    go.set()
    for each in (run, other):
        each.ledger.take()
        recording.finish(each)
    recording.stop()
    assert recording.join(20) and recording.nbytes == 0
    assert {key.time for key in read_journal(run.folder)} == {0, 1, 2, 3, 5, 6, 7, 8}
    assert [key.time for key in read_journal(other.folder)] == [4]
    assert together == [1, 7, 1] and "write" in run.timings.percentiles()


def test_what_waits_to_be_written_in_a_hurry_is_named(tmp_path):
    go, asked = Event(), Semaphore(0)

    def slow(place):
        asked.release()
        assert go.wait(20)
        return 1 << 40

    recording, run = Recording(tmp_path / "records", dict, slow), a_run()
    recording.start()
    for time in range(4):
        recording.write(run, a_volume(time), image(time)[None].astype(np.float32), {})
        if not time:
            assert asked.acquire(timeout=20)
    recording.hurry()
    go.set()
    run.ledger.take()
    recording.finish(run)
    recording.stop()
    assert recording.join(20)
    left = [event["time"] for event in RunFolder.open(run.folder).events() if event["event"] == "not_recorded"]
    assert [key.time for key in read_journal(run.folder)] == [0] and left == [1, 2, 3]


def test_checks_take_a_tenth_of_the_time_where_volumes_wait():
    pace = CheckPace(0.1)
    assert pace.due(0, behind=True)  # the first
    pace.checked(0, 10)
    assert [pace.due(now, behind=True) for now in (10, 99, 100)] == [False, False, True]
    assert pace.due(11, behind=False)
    checks = now = 0
    while now < 10_000:  # volumes every 7 units, each check takes 10
        if pace.due(now, behind=True):
            pace.checked(now, now + 10)
            checks += 1
        now += 7
    assert 90 <= checks <= 101
    with pytest.raises(ValueError, match="checks cannot take the share 0 of the time; give more than 0, and 1 at most"):
        CheckPace(0)


def outcomes(number):
    """Volumes that were restored, by a network that changes nothing."""
    models = Models([ModelChoice("*", PACKAGE, "identity", "f32")])
    served = models.of("GFP")
    for time in range(number):
        volume = a_volume(time)
        pixels = served.restorer.restore(volume.pixels[None]).pixels[0]
        yield Outcome(volume, pixels, served, {**served.provenance(), "guarded": False}, 0.0, 1.0, 1, 1, 1, slab=False)
    models.close()


@pytest.mark.parametrize("behind", [True, False])
def test_what_goes_unchecked_is_counted_and_shown_with_the_last_check(tmp_path, behind):
    recording, run, views, shown = Recording(tmp_path / "records", dict), a_run(), Views(), []
    checking = Checking(
        Checks(None),
        views,
        recording,
        Comparing(recording),
        leave_out="paced",
        behind=lambda: behind,
        looking=lambda: True,
        shown=lambda: shown.append(views.find("", "", 0)),
    )
    recording.start()
    checking.start()
    for number, outcome in enumerate(outcomes(6)):
        checking.take(run, outcome, said_of(outcome))
        if not behind or not number:  # else the others come at once
            until(lambda number=number: len(shown) > number)
    checking.stop()
    assert checking.join(20)
    recording.finish(run)
    recording.stop()
    assert recording.join(20)
    assert len(shown) == 6 and checking.waiting == 0
    unchecked = [view for view in shown if not view.said["trust"]]
    assert run.status(0)["volumes"].get("unchecked", 0) == len(unchecked)
    assert bool(unchecked) == behind and shown[0].said["trust"]
    for view in unchecked:
        checked = max(before.volume.key.time for before in shown if before.said["trust"] and before.number < view.number)
        assert view.said["checked"]["time"] == checked and "snr" in view.said["checked"]["trust"] and view.trust is None
    journal = read_journal(run.folder)
    assert len(journal) == 6 and not any("checked" in line["said"] for line in journal.values())
    assert sum(bool(line["said"]["trust"]) for line in journal.values()) == 6 - len(unchecked)


def test_a_full_disk_is_kept_for_the_raw_frames_that_the_plan_announces(tmp_path):
    free = iter([RESTORED + 110 * RAW, RESTORED + 109 * RAW, RESTORED + 109 * RAW]).__next__
    run, folder = recorded(tmp_path, lambda place: free(), frames=103)  # 100 of them are still to come, and 1.1 as much room
    assert [key.time for key in read_journal(folder)] == [0]
    left = [event for event in RunFolder.open(folder).events() if event["event"] == "not_recorded"]
    assert [event["time"] for event in left] == [1, 2]
    assert left[0]["why"] == "0.3 MB are free, and 0.3 MB are kept for raw frames; the volume takes 0.0 MB"
    warnings = run.status(0)["warnings"]
    assert sum("the disk is kept for the raw frames" in warning for warning in warnings) == 1


@pytest.mark.parametrize(
    ("plan", "elsewhere"), [({}, False), ({"frames": 3}, False), ({"frames": 0}, False), ({"frames": 1000}, True)]
)
def test_some_room_is_kept_where_no_plan_tells_what_comes(tmp_path, plan, elsewhere):
    free = iter([RESTORED + 10 * RAW, RESTORED + 10 * RAW - 1, RESTORED + 10 * RAW]).__next__
    _, folder = recorded(tmp_path, lambda place: free(), raw_elsewhere=elsewhere, **plan)
    assert [key.time for key in read_journal(folder)] == [0, 2]  # when there is room again, it goes on


def test_a_disk_that_tells_nothing_is_tried(tmp_path):
    def silent(folder):
        raise OSError("no such call")

    _, folder = recorded(tmp_path, silent, frames=10**12)
    assert len(read_journal(folder)) == 3


def test_the_frames_to_come_are_those_that_neither_side_has_taken():
    run = a_run(plan={"frames": 100})
    run.ledger.take(10)
    assert run.to_come == 90
    run.beat({"taken": 30}, 0)  # some were left out
    assert run.to_come == 70
    run.end({"taken": 40})
    assert run.to_come == 0  # stopped by its user


def test_models_are_warm_before_the_first_volume():
    models = Models([ModelChoice("*", PACKAGE, "identity"), ModelChoice("GFP", PACKAGE, "identity")])
    models.expect((1, 32, 40))
    assert [models.of(channel).warmed for channel in ("GFP", "DAPI")] == [{(1, 32, 40)}] * 2
    models.swap(ModelChoice("GFP", PACKAGE, "identity"))
    assert models.of("GFP").warmed == {(1, 32, 40)}
    models.seen("GFP", (1, 48, 48))
    models.swap(ModelChoice("GFP", PACKAGE, "identity"))
    assert models.of("GFP").warmed == {(1, 48, 48)}  # what comes counts, not what was expected
    with pytest.raises(ValueError, match=r"volumes of shape \(0, 32, 40\) cannot be expected; give planes, rows and columns"):
        models.expect((0, 32, 40))
    models.close()


@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_names_that_are_none_for_a_folder_are_not_recorded(tmp_path, name):
    recording, run = Recording(tmp_path / "records", dict), a_run(name)
    recording.start()
    recording.write(run, a_volume(), image()[None].astype(np.float32), {})
    recording.finish(run)
    recording.stop()
    assert recording.join(20) and "is no name for a folder" in run.status(0)["warnings"][0]
    assert not (tmp_path / "records").exists()


def _serve(pipe, chosen):
    serve(chosen, pipe.send)


class _Process:
    """The restore process, in a process of its own."""

    def __init__(self, chosen):
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, chosen), daemon=True)
        self.process.start()
        assert ours.poll(60)
        self.address = ours.recv()


def test_what_was_written_can_be_read_after_a_kill(tmp_path):
    chosen = options(tmp_path, trust="none")
    first = _Process(chosen)
    with BareHook(first.address) as hook:
        for time in range(30):
            hook.frame(image(time), time_point=time)
            hook.receipted(time + 1)
        until(lambda: status(first.address, "run")["latency_ms"].get("write"))
    first.process.kill()
    first.process.join(20)
    folder = tmp_path / "records" / "run"
    written = sorted(key.time for key in read_journal(folder))
    assert written
    with Sidecar(folder) as sidecar:
        for time in written:
            np.testing.assert_allclose(sidecar.read(VolumeKey(time, "0", "GFP"))[0], image(time), rtol=1e-4)
    with Server(chosen) as second, BareHook(second.address) as hook:
        hook.frame(image(30), time_point=30)
        settled(second.address, restored=1)
    assert sorted(key.time for key in read_journal(folder)) == [*written, 30]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM for others")
def test_a_signal_lets_it_finish(tmp_path):
    serving = _Process(options(tmp_path))
    with BareHook(serving.address) as hook:
        hook.frame(image())
        hook.receipted(1)
        os.kill(serving.process.pid, signal.SIGTERM)
        serving.process.join(20)
    assert serving.process.exitcode == 0
    ledger = json.loads((tmp_path / "records" / "run" / "restore.json").read_text("utf-8"))["ledger"]
    assert ledger["restored"] == 1 and balanced(ledger)
