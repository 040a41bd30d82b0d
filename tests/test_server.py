"""The restore process, with real sockets, threads and files: every frame accounted for, whatever clients do."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import zmq
from bare_clients import PACKAGE, BareHook, image, options, order, settled, status, until
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.errors import EngineUnavailable, ImageError, ModelError, WireError
from live_restore.frames import VolumeKey
from live_restore.ledger import balanced
from live_restore.models.package import open_package
from live_restore.records.runs import RunFolder, read_journal, run_folder
from live_restore.records.sidecar import Sidecar
from live_restore.restorer import Restorer
from live_restore.server import ModelChoice, ServeOptions, Server, serve
from live_restore.wire.messages import Abandon, Ask, Beat, Command, Hello, Welcome
from live_restore.wire.sockets import Caller


@pytest.fixture
def server(tmp_path):
    with Server(options(tmp_path, deadline_s=1.0, quiet_s=0.3)) as serving:
        yield serving


def raw_folder(tmp_path, name="cells_1"):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_frames_go_in_and_restored_volumes_come_back(server):
    stack = np.stack([image(z) for z in range(3)])
    with BareHook(server.address, results="float32") as hook:
        hook.volume(stack)
        (restored,) = hook.back(1)
        assert hook.welcome.credit == 3
        assert [n for r in hook.receipts for n in r.sequences] == [0, 1, 2] and not any(r.refused for r in hook.receipts)
    assert restored.key == VolumeKey(0, "0", "GFP") and restored.pixels.shape == (3, 32, 40)
    np.testing.assert_allclose(restored.pixels, stack, rtol=1e-4)
    assert restored.provenance["model"] == "CARE 2D demo" and restored.provenance["engine"].startswith("identity")
    assert {"low", "high", "guarded", "tiles", "sha256", "precision", "normalisation"} <= set(restored.provenance)
    assert {"wire", "assemble", "queue", "restore"} == set(restored.stages_ms)
    settled(server.address, restored=3, waiting=0)


def test_results_in_whole_counts(server):
    with BareHook(server.address, results="uint16") as hook:
        hook.frame(image())
        (restored,) = hook.back(1)
    assert restored.pixels.dtype == np.uint16
    np.testing.assert_array_equal(restored.pixels[0], image())


def test_live_gives_the_same_pixels_as_offline(tmp_path):
    stack = np.stack([image(z, (64, 72)) for z in range(2)])
    with Server(options(tmp_path, engine="openvino")) as server, BareHook(server.address, results="float32") as hook:
        hook.volume(stack)
        live = hook.back(1)[0].pixels
    with Restorer(open_package(PACKAGE), engine="openvino", precision="f32") as restorer:
        np.testing.assert_array_equal(live, restorer.restore(stack[None]).pixels[0])


def test_a_rolling_range_follows_each_movie_as_offline(tmp_path):
    movies = {channel: [image(t, mean=m * (t + 1)) for t in range(3)] for channel, m in (("DAPI", 100), ("GFP", 400))}
    models = (ModelChoice("*", PACKAGE, "identity", "f32", "rolling"),)
    with Server(options(tmp_path, models=models)) as server, BareHook(server.address, results="float32") as hook:
        for t in range(3):
            for channel, frames in movies.items():
                hook.frame(frames[t], time_point=t, channel=channel)
        live = {(r.key.channel, r.key.time): r.provenance["high"] for r in hook.back(6)}
    with Restorer(open_package(PACKAGE), engine="identity", mode="rolling") as restorer:
        for channel, frames in movies.items():
            for t, frame in enumerate(frames):
                assert restorer.restore(frame[None, None], movie=channel).intensity.high[0] == live[channel, t]


def test_every_end_that_a_frame_can_come_to(tmp_path):
    with (
        Server(options(tmp_path, channel="GFP", deadline_s=0.5)) as server,
        BareHook(server.address) as hook,
    ):
        hook.volume(np.stack([image(), image(1)]))
        hook.frame(image(), channel="DAPI")
        hook.frame(image(), light="high")
        hook.frame(image(), 0, 1, planes=3)  # its rest never comes
        ends = settled(server.address, restored=2, without_model=1, reference=1, incomplete=1, waiting=0)
        assert balanced(ends["ledger"]) and ends["ledger"]["taken"] == 5
        assert ends["volumes"] == {"restored": 1, "without_model": 1, "reference": 1, "incomplete": 1, "skipped": 0}
        hook.end()
        folder = until(lambda: status(server.address, "run")["folder"])
    noted = {event["event"]: event for event in RunFolder.open(Path(folder)).events()}
    assert noted["incomplete"]["time"] == 1 and (noted["incomplete"]["planes"], noted["incomplete"]["expected"]) == (1, 3)


def test_a_volume_that_fails_says_why_and_the_next_one_is_restored(tmp_path):
    package = write_smoothing_package(tmp_path / "smooth3d", 3).path
    with Server(options(tmp_path, package=package)) as server, BareHook(server.address) as hook:
        hook.frame(image())  # a 3D model cannot restore a single plane
        failed = settled(server.address, failed=1)
        assert "restores z-stacks" in failed["warnings"][-1]
        hook.volume(np.stack([image(z) for z in range(8)]), 1)
        settled(server.address, restored=8)
        hook.end()
        until(lambda: status(server.address, "run")["folder"])
    (event,) = [e for e in RunFolder.open(tmp_path / "records" / "run").events() if e["event"] == "failed"]
    assert "restores z-stacks" in event["why"]


def test_abandoned_volumes_are_incomplete_at_once(server):
    with BareHook(server.address) as hook:
        info = hook.frame(image(), planes=5)
        hook.say(Abandon("run", info.key))
        settled(server.address, incomplete=1, waiting=0)


def test_unknown_numbers_of_planes(server):
    with BareHook(server.address) as hook:
        for z in range(2):
            hook.frame(image(z), z, planes=0)
        settled(server.address, restored=2)


def test_receipts_carry_credit_and_refusals_a_reason(server):
    with BareHook(server.address) as hook:
        hook.frame(image(), planes=2)
        hook.frame(image(shape=(8, 8)), 1, planes=2)
        receipts = hook.receipted(2)
        assert [len(r.sequences) for r in receipts if not r.refused] == [1]
        assert "must be alike" in next(r.refused for r in receipts if r.refused)
        hook.run = "never-begun"
        hook.frame(image())
        assert "has not begun here" in hook.receipted(3)[-1].refused
        assert status(server.address, "run")["ledger"]["taken"] == 1


def test_who_speaks_of_an_unknown_run_learns_that_the_process_is_another(server):
    with Caller(server.address) as caller:
        until(lambda: caller.send(Beat("earlier", {"taken": 3})))
        heard = until(lambda: [m for m in caller.receive(100) if isinstance(m, Welcome)])
    assert heard[0].session


def test_beats_with_credit_come_to_every_hook(server):
    with BareHook(server.address) as first, BareHook(server.address, "second") as second:
        for hook in (first, second):
            before = len(hook.beats)
            until(lambda hook=hook, before=before: hook.hear() or len(hook.beats) > before + 1)
            assert hook.beats[-1].credit > 0


def test_who_was_held_back_hears_when_there_is_room(tmp_path):
    large = image(shape=(512, 512))
    with Server(options(tmp_path, engine="openvino", max_waiting=1)) as server, BareHook(server.address) as hook:
        for time in range(4):
            hook.frame(large, time_point=time)
        assert hook.receipted(4)[-1].credit == 0
        until(lambda: hook.hear() or (hook.beats and hook.beats[-1].credit > 0))
        settled(server.address, restored=4)


def test_two_runs_at_once_share_the_credit_and_keep_their_tables(server):
    with BareHook(server.address, "a", results="uint16") as a, BareHook(server.address, "b", results="uint16") as b:
        for time in range(4):
            a.frame(image(1), time_point=time)
            b.frame(image(2), time_point=time)
        assert {r.run for r in a.back(4)} == {"a"} and {r.run for r in b.back(4)} == {"b"}
        settled(server.address, "a", restored=4)
        settled(server.address, "b", restored=4)
        assert a.receipted(4)[-1].credit <= 3


def test_bad_messages_are_counted_and_end_nothing(server):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(server.address)
        for parts in ([b""], [b"{}"], [b"\xff" * 100, b"x"], [b'{"v":1,"kind":"frame"}'], [b"[1]"] * 9):
            socket.send_multipart(parts)
        until(lambda: status(server.address)["bad_messages"] == 5)
    with Caller(server.address) as caller:
        until(lambda: caller.send(Welcome("I am no restore process")))
        until(lambda: status(server.address)["bad_messages"] == 6)


def test_a_run_goes_on_in_a_new_process_in_the_same_folder(tmp_path):
    raw = raw_folder(tmp_path)
    for time in range(2):
        with Server(options(tmp_path)) as server, BareHook(server.address, "cells_1-abc", raw) as hook:
            hook.frame(image(time), time_point=time)
            settled(server.address, "cells_1-abc", restored=1)
    folder = run_folder(raw)
    assert sorted(key.time for key in read_journal(folder)) == [0, 1]
    kept = json.loads((folder / "restore.json").read_text("utf-8"))
    assert kept["ledger"]["restored"] == 1 and balanced(kept["ledger"])
    with Sidecar(folder) as sidecar:
        np.testing.assert_allclose(sidecar.read(VolumeKey(1, "0", "GFP"))[0], image(1), rtol=1e-4)


def test_the_journal_says_what_restored_a_volume(tmp_path):
    raw = raw_folder(tmp_path)
    plan = {"planes": 2, "z_step_um": 0.5, "interval_s": 3.0, "channels": ["GFP"], "positions": ["0"]}
    with Server(options(tmp_path)) as server, BareHook(server.address, raw=raw, plan=plan) as hook:
        hook.volume(np.stack([image(), image(1)]))
        hook.end(taken=2)
        run = settled(server.address, restored=2)
        assert run["state"] == "ended" and run["hook"] == {"taken": 2}
        until(lambda: "write" in status(server.address, "run")["latency_ms"])
    folder = run_folder(raw)
    (line,) = read_journal(folder).values()
    said = line["said"]
    assert (said["frames"], said["live"], said["provenance"]["model"]) == (2, True, "CARE 2D demo")
    assert said["trust"]["trusted"] in (True, False) and said["latency_ms"] > 0
    assert {"wire", "assemble", "queue", "restore", "trust"} == set(said["stages_ms"])
    opened = RunFolder.open(folder)
    described = opened.described("run.json")
    assert described["models"][0]["model"] == "CARE 2D demo" and described["plan"] == plan
    assert [event["event"] for event in opened.events()] == ["begun", "ended", "closed"]


def test_trust_can_travel_with_the_restored_volume(tmp_path):
    with Server(options(tmp_path, trust="before")) as server, BareHook(server.address, results="uint16") as hook:
        hook.frame(image(shape=(64, 64)))
        assert "snr" in hook.back(1)[0].trust


@pytest.mark.parametrize("trust", ["none", "newest"])
def test_trust_can_be_left_out(tmp_path, trust):
    with Server(options(tmp_path, trust=trust)) as server, BareHook(server.address) as hook:
        for time in range(4):
            hook.frame(image(shape=(64, 64)), time_point=time)
        settled(server.address, restored=4)
        points = until(lambda: [p for p in [status(server.address, "run")["timeline"]] if len(p) == 4])[0]
    assert (points[-1]["snr"] is None) == (trust == "none")


@pytest.mark.parametrize("obstacle", ["file", "folder", "other run", "link"])
def test_nothing_of_others_is_entered(tmp_path, obstacle):
    raw, records = raw_folder(tmp_path), tmp_path / "elsewhere"
    records.mkdir()
    taken = run_folder(raw)
    if obstacle == "file":
        taken.write_text("notes")
    elif obstacle == "folder":
        (taken / "mine").mkdir(parents=True)
    elif obstacle == "other run":
        RunFolder.begin(taken, "another", raw).close()
    else:
        taken.symlink_to(records, target_is_directory=True)
    before = sorted(path.name for path in taken.iterdir()) if taken.is_dir() else taken.read_text()
    with Server(options(tmp_path)) as server, BareHook(server.address, raw=raw) as hook:
        hook.frame(image())
        run = settled(server.address, restored=1)
        if obstacle == "link":
            until(lambda: "is a link" in " ".join(status(server.address, "run")["warnings"]))
        else:
            until(lambda: status(server.address, "run")["folder"] == f"{taken}_2")
    assert run["raw"] == str(raw)
    assert before == (sorted(path.name for path in taken.iterdir()) if taken.is_dir() else taken.read_text())


def test_a_run_without_a_dataset_here_is_recorded_among_the_records(tmp_path):
    with (
        Server(options(tmp_path)) as server,
        BareHook(server.address, "a", raw="/nowhere/to/be/found") as a,
        BareHook(server.address, "b", raw="relative") as b,
        BareHook(server.address, "idle"),
    ):
        a.frame(image())
        b.frame(image())
        for run in "ab":
            settled(server.address, run, restored=1)
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == ["a", "b"]


def test_the_folder_waits_for_the_raw_dataset(tmp_path):
    raw = tmp_path / "later_1"
    with Server(options(tmp_path)) as server, BareHook(server.address, raw=raw) as hook:
        until(lambda: hook.hear() or hook.beats)
        assert status(server.address, "run")["folder"] is None
        raw.mkdir()
        hook.frame(image())
        until(lambda: status(server.address, "run")["folder"] == str(run_folder(raw)))
    assert {"begun", "closed"} <= {event["event"] for event in RunFolder.open(run_folder(raw)).events()}


def test_finer_planes_are_sent_back_recorded_and_shown(tmp_path):
    package = write_smoothing_package(tmp_path / "finer", 3, facts=smoothing_facts(3, procedure="upsampling", z_factor=3)).path
    stack, plan = np.stack([image(z) for z in range(5)]), {"planes": 5, "z_step_um": 0.7}
    with (
        Server(options(tmp_path, package=package, engine="openvino")) as server,
        BareHook(server.address, plan=plan, results="float32") as hook,
        Caller(server.address) as viewer,
    ):
        hook.volume(stack)
        (restored,) = hook.back(1)
        assert restored.pixels.shape == (15, 32, 40)
        view = until(lambda: (v := viewer.ask(Ask(z=4), 10)).restored is not None and v)
        np.testing.assert_array_equal(view.raw, stack[4])
        np.testing.assert_array_equal(view.restored, restored.pixels[13])
        hook.end()
        until(lambda: "write" in status(server.address, "run")["latency_ms"])
    said = json.loads((tmp_path / "records" / "run" / "restored.ome.zarr" / "zarr.json").read_text("utf-8"))
    scale = said["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[-3:] == pytest.approx([0.2, 0.1, 0.1])


def test_the_dose_is_compared_with_the_exposure_that_was_named(tmp_path):
    with Server(options(tmp_path, references_ms={"GFP": 100.0})) as server, BareHook(server.address) as hook:
        hook.frame(image())
        settled(server.address, restored=1)
        assert status(server.address, "run")["exposure_ms"]["GFP"] == {"frames": 1, "low_ms": 10.0, "reference_ms": 100.0}


def test_what_cannot_be_written_is_said_and_restored_all_the_same(tmp_path):
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook:
        hook.frame(image(), time_point=0)
        hook.frame(image(shape=(16, 16)), time_point=1)  # of another size: the sidecar refuses it
        settled(server.address, restored=2)
        until(lambda: "not recorded: time 1" in " ".join(status(server.address, "run")["warnings"]))
        hook.frame(image(), time_point=2)
        settled(server.address, restored=3)
    folder = tmp_path / "records" / "run"
    assert sorted(key.time for key in read_journal(folder)) == [0, 2]
    assert "not_recorded" in {event["event"] for event in RunFolder.open(Path(folder)).events()}


def test_flat_images_and_untrusted_ones_are_warned_of(tmp_path):
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook:
        hook.frame(np.full((32, 32), 100, np.uint16))
        until(lambda: "is flat or nearly empty" in " ".join(status(server.address, "run")["warnings"]))
        hook.frame(image(shape=(32, 32)), time_point=1)
        until(lambda: "is flat" not in " ".join(status(server.address, "run")["warnings"]))


def test_falling_behind_is_said_in_words(server):
    with BareHook(server.address) as hook:
        for beat in ({"taken": 100, "skipped": 0}, {"taken": 200, "skipped": 40}):
            hook.say(Beat("run", beat))
        warning = until(lambda: status(server.address, "run")["warnings"])[0]
        assert warning == "falling behind: nothing was restored in the last seconds; 40% are left for backfill"
        assert status(server.address, "run")["volumes"]["skipped"] == 40


def test_the_status_tells_everything(server):
    with BareHook(server.address, plan={"channels": ["GFP"]}) as hook:
        hook.frame(image(), light="high", exposure_ms=100.0)
        for time in range(3):
            hook.frame(image(time), time_point=time)
        settled(server.address, restored=3)
        run = until(
            lambda: (r := status(server.address, "run")) and len(r["timeline"]) == 3 and "write" in r["latency_ms"] and r
        )
        said = status(server.address)
    assert said["server"]["state"] == "serving" and said["server"]["address"] == server.address
    assert {"network", "restore", "check", "compare", "record"} <= set(said["server"]["threads"])
    (model,) = said["models"]
    assert (model["channel"], model["model"], model["state"], model["precision"]) == ("*", "CARE 2D demo", "ready", "f32")
    assert run["exposure_ms"] == {"GFP": {"frames": 3, "low_ms": 30.0, "reference_ms": 300.0}}
    point = {"time", "position", "channel", "snr", "raised", "unix_s", "latency_ms"}
    assert point == set(run["timeline"][1]) == set(run["timeline"][0]) - {"reference"}
    assert set(run["latency_ms"]) == {"wire", "assemble", "queue", "restore", "trust", "write", "total"}
    assert set(run["latency_ms"]["total"]) == {"p50", "p95", "p99"}
    assert run["bytes_free"] > 0 and run["state"] == "running" and run["frames_per_s"] > 0


def test_a_stop_finishes_what_was_accepted(tmp_path):
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook:
        for time in range(5):
            hook.frame(image(time, (256, 256)), time_point=time)
        hook.frame(image(), time_point=5, planes=2)
        hook.receipted(6)
        assert order(server.address, "stop").said == {"state": "draining"}
        assert server.wait(20)
    folder = tmp_path / "records" / "run"
    ledger = json.loads((folder / "restore.json").read_text("utf-8"))["ledger"]
    assert (ledger["restored"], ledger["incomplete"], ledger["waiting"]) == (5, 1, 0) and balanced(ledger)
    assert len(read_journal(folder)) == 5


def test_a_second_stop_ends_at_once(tmp_path):
    large = image(shape=(768, 768))
    with Server(options(tmp_path, engine="openvino", max_waiting=20)) as server, BareHook(server.address) as hook:
        for time in range(20):
            hook.frame(large, time_point=time)
        hook.receipted(20)
        server.stop()
        server.stop()
        assert server.wait(20)
    ledger = json.loads((tmp_path / "records" / "run" / "restore.json").read_text("utf-8"))["ledger"]
    assert ledger["failed"] > 0 and ledger["waiting"] == 0 and balanced(ledger)
    reasons = {e.get("why") for e in RunFolder.open(tmp_path / "records" / "run").events() if e["event"] == "failed"}
    assert reasons == {"the restore process was stopped"}


def test_serve_tells_its_address_and_ends_when_told(tmp_path):
    found, told = [], threading.Event()

    def ready(address):
        found.append(address)
        told.set()

    thread = threading.Thread(target=serve, args=(options(tmp_path), ready))
    thread.start()
    assert told.wait(20)
    assert order(found[0], "stop").said["state"] == "draining"
    thread.join(20)
    assert not thread.is_alive()


def test_models_are_warm_when_clients_can_come(tmp_path):
    with Server(options(tmp_path, expected=(1, 32, 40))) as server, BareHook(server.address, results="float32") as hook:
        assert server._models.of("GFP").warmed == {(1, 32, 40)}
        hook.frame(image())
        hook.back(1)


def test_a_model_that_cannot_restore_what_is_expected_is_found_out_before_clients_come(tmp_path):
    package = write_smoothing_package(tmp_path / "smooth3d", 3).path
    ready = []
    with pytest.raises(ImageError, match="restores z-stacks"):
        serve(options(tmp_path, package=package, expected=(1, 32, 40)), ready.append)
    assert not ready


def test_a_silent_hook_is_called_so(server):
    hook = BareHook(server.address)
    hook.frame(image(), planes=2)
    hook.receipted(1)
    hook.close()
    settled(server.address, incomplete=1)  # by the deadline
    until(lambda: status(server.address, "run")["state"] == "silent")


def test_the_unfinished_volumes_of_many_runs_take_no_more_than_those_of_one(tmp_path):
    with Server(options(tmp_path, max_waiting_bytes=100_000)) as server:
        hooks = [BareHook(server.address, run=f"run{number}") for number in range(4)]
        refused = []
        for hook in hooks:  # one after the other, for frames of different hooks may arrive in any order
            hook.frame(image(shape=(100, 100)), planes=4)  # 80 kB each when whole, and 200 kB is the limit
            refused += [receipt.refused for receipt in hook.receipted(1)]
        for hook in hooks:
            hook.close()
    assert [bool(why) for why in refused] == [False, False, True, True]
    assert "the unfinished volumes of all runs take 0.0002 GB already" in refused[2]


def test_nobody_prepares_for_volumes_that_would_be_refused(tmp_path):
    absurd = {"shape": [32768, 32768], "planes": 60_000, "channels": [f"c{n}" for n in range(1000)]}
    with Server(options(tmp_path)) as server, BareHook(server.address, plan=absurd) as hook:
        hook.frame(image())
        settled(server.address, restored=1)


def test_restored_volumes_that_nobody_takes_do_not_fill_the_memory(tmp_path):
    large = image(shape=(512, 512))
    with (
        Server(options(tmp_path, max_waiting_bytes=1_500_000, trust="none")) as server,
        BareHook(server.address, results="float32") as hook,
    ):
        for time in range(150):  # 64 are kept at our end; nothing is read here
            hook.frame(large, time_point=time)
            until(lambda expected=time + 1: status(server.address, "run")["ledger"]["restored"] == expected)
        assert status(server.address, "run")["volumes"]["not_sent_back"] > 0


def test_volumes_sent_without_credit_are_refused_at_last(tmp_path):
    large = image(shape=(512, 512))
    with (
        Server(options(tmp_path, engine="openvino", max_waiting_bytes=1_000_000)) as server,
        BareHook(server.address) as hook,
    ):
        for time in range(40):
            hook.frame(large, time_point=time)
        receipts = hook.receipted(40)
        refused = sum(len(r.sequences) for r in receipts if r.refused)
        assert all("credit" in r.refused for r in receipts if r.refused)
        settled(server.address, taken=40 - refused, waiting=0)
        assert refused


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ([ModelChoice("GFP", PACKAGE), ModelChoice("GFP", PACKAGE)], ModelError, "two models are given for channel 'GFP'"),
        ([ModelChoice("*", PACKAGE, engine="abacus")], EngineUnavailable, "there is no engine 'abacus'"),
    ],
    ids=["two", "engine"],
)
def test_models_that_cannot_be_served(models, error, message):
    with pytest.raises(error, match=message):
        Server(ServeOptions(address="tcp://127.0.0.1:0", models=tuple(models)))


def test_a_model_of_several_channels_is_refused(tmp_path):
    package = write_smoothing_package(tmp_path / "two", 2, 2, smoothing_facts(2, 2)).path
    with pytest.raises(ModelError, match=r"takes 2 channel\(s\) and gives 2; live, every channel is restored on its own"):
        Server(options(tmp_path, package=package))


def test_an_address_that_is_taken(server, tmp_path):
    with pytest.raises(WireError, match="in use"):
        Server(options(tmp_path, address=server.address))


def test_hello_is_answered_by_whoever_asks(server):
    with Caller(server.address) as caller:
        first, second = (caller.ask(Hello(role), 10) for role in ("viewer", "command"))
    assert first.session == second.session and "live_restore" in first.software


def test_viewers_and_orders_that_make_no_sense_end_nothing(server):
    with Caller(server.address) as caller:
        assert caller.ask(Ask(position="nowhere", wait_ms=10), 10).number == 0
        assert "no package was named" in caller.ask(Command("swap", {}), 10).refused
        assert "is no text" in caller.ask(Command("swap", {"package": 5}), 10).refused
        assert "no normalisation 'x'" in caller.ask(Command("swap", {"package": "p", "mode": "x"}), 10).refused
