"""Reference volumes of a run that goes on: raw and restored scored against them, told, shown, and kept as pairs."""

from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from bare_clients import BareHook, image, options, order, settled, status, until
from ndstorage import NDTiffDataset
from tiny_packages import write_smoothing_package

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.errors import ImageError
from live_restore.frames import FrameInfo, Volume, VolumeKey
from live_restore.ledger import balanced
from live_restore.records.pairs import read_pairs
from live_restore.records.runs import RunFolder
from live_restore.restore.procedures import interpolate_z
from live_restore.server import Server
from live_restore.serving.reference import MOST_PIXELS, Low, Match, References, compare


def a_volume(time=0, light="low", position="0", channel="GFP", pixels=None, run="run"):
    key = VolumeKey(time, position, channel, light)
    pixels = image(time)[None] if pixels is None else pixels  # (Z, Y, X)
    infos = tuple(FrameInfo(run, z, key, z, len(pixels)) for z in range(len(pixels)))
    return Volume(run, key, pixels, infos, len(pixels))


def cells(planes=1, size=96, seed=3, peak_photons=15.0):
    """A field at low light and at a hundred times as much, (Z, Y, X) each."""
    camera, rng = build_camera(seed, (size, size)), np.random.default_rng(seed)
    photons = example_field(seed, (planes, size, size), "mitochondria", 0.1, peak_photons)
    return camera.expose(photons, rng), camera.expose(100 * photons, rng)


# --- which belong together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["low", "high"])
def test_the_two_meet_in_either_order(first):
    references, low, high = References(), Low(a_volume(4)), a_volume(4, "high")
    one, other = (
        (references.low, references.high)[:: 1 if first == "low" else -1],
        (low, high)[:: 1 if first == "low" else -1],
    )
    assert one[0](other[0]) is None
    match = one[1](other[1])
    assert match.low is low and match.high is high
    assert match.nbytes == low.nbytes + high.pixels.nbytes


@pytest.mark.parametrize("other", [{"time": 5}, {"position": "1"}, {"channel": "DAPI"}, {"run": "another"}])
def test_others_do_not(other):
    references = References()
    assert references.low(Low(a_volume(4))) is None
    assert references.high(a_volume(**{"time": 4, "light": "high", **other})) is None


def test_of_every_place_the_newest_low_volume_is_kept_and_every_reference_until_the_end():
    references = References()
    for time in range(3):
        references.low(Low(a_volume(time)))
        references.low(Low(a_volume(time, position="1")))
        references.high(a_volume(time + 10, "high"))
    held = a_volume().pixels.nbytes
    assert references.nbytes == 5 * held
    assert references.high(a_volume(2, "high", position="1")) and not references.high(a_volume(1, "high"))
    assert references.low(Low(a_volume(11))) is not None
    assert [volume.key.time for volume in references.end("run")] == [10, 12, 1]
    assert references.nbytes == 0 and references.end("run") == []


def test_what_waits_takes_no_more_memory_than_it_may():
    held = a_volume().pixels.nbytes
    references = References(max_bytes=3 * held)
    for time in range(9):
        references.low(Low(a_volume(position=str(time))))
        references.high(a_volume(time + 50, "high"))
        assert references.nbytes <= 3 * held
    assert references.high(a_volume(58, "high")) is None, "taken anew, it is held once"
    assert references.nbytes <= 3 * held


def test_references_for_which_there_is_no_memory_are_named_once():
    held = a_volume().pixels.nbytes
    references = References(max_bytes=2 * held)
    for time in range(4):
        references.high(a_volume(time, "high"))
    assert [key.time for key in references.dropped("run")] == [0, 1]
    assert references.dropped("run") == references.dropped("another") == []
    assert [volume.key.time for volume in references.end("run")] == [2, 3]


# --- how they compare ------------------------------------------------------------------------------------------------


def test_restored_and_raw_are_scored_after_the_affine_fit():
    low, high = cells()
    restored = (7 + 0.5 * high).astype(np.float32)
    figures = compare(Match(Low(a_volume(pixels=low), restored, "care", "ab12"), a_volume(light="high", pixels=high)))
    assert figures["psnr_db"] > 60 and 10 < figures["raw_psnr_db"] < 30
    assert figures["gain_db"] == pytest.approx(figures["psnr_db"] - figures["raw_psnr_db"], abs=0.002)
    assert figures["ssim"] > 0.999 > figures["raw_ssim"] and (figures["model"], figures["sha256"]) == ("care", "ab12")


def test_what_was_not_restored_is_scored_raw():
    low, high = cells()
    figures = compare(Match(Low(a_volume(pixels=low)), a_volume(light="high", pixels=high)))
    assert figures["raw_psnr_db"] > 10
    assert all(figures[name] is None for name in ("psnr_db", "ssim", "gain_db", "model", "sha256"))


def test_finer_planes_are_compared_where_raw_ones_lie_and_finer_pixels_not_at_all():
    low, high = cells(planes=3, size=64)
    finer = np.repeat(high, 2, axis=0).astype(np.float32)
    match = Match(Low(a_volume(pixels=low), finer), a_volume(light="high", pixels=high))
    assert compare(match)["psnr_db"] > 100 and compare(match)["ssim"] == 1
    doubled = np.ones((3, 128, 128), np.float32)
    assert compare(Match(replace(match.low, restored=doubled), match.high))["psnr_db"] is None


@pytest.mark.parametrize(("planes", "factor"), [(3, 3), (4, 2.5)])
def test_of_planes_made_finer_before_the_network_both_ends_stay_where_they_are(planes, factor):
    low, high = cells(planes=planes, size=64)
    finer = interpolate_z(high[None], factor)[0]
    match = Match(Low(a_volume(pixels=low), finer, interpolated=True), a_volume(light="high", pixels=high))
    assert compare(match)["psnr_db"] > 100


def test_a_large_volume_takes_no_longer_than_a_million_pixels():
    low = np.broadcast_to(np.arange(1300, dtype=np.uint16), (9, 1500, 1300))
    high = np.ones_like(low)
    high[4, 238:-238, 138:-138] = low[4, 238:-238, 138:-138]  # only the middle of the middle plane shows something
    assert high[4, 238:-238, 138:-138].size == MOST_PIXELS
    assert compare(Match(Low(a_volume(pixels=low)), a_volume(light="high", pixels=high)))["raw_ssim"] == 1


@pytest.mark.parametrize(
    ("high", "words"),
    [(np.ones((2, 32, 40), np.uint16), "the reference"), (np.ones((1, 32, 40), np.uint16), "the reference is constant")],
)
def test_what_cannot_be_compared_says_why(high, words):
    with pytest.raises(ImageError, match=words):
        compare(Match(Low(a_volume()), a_volume(light="high", pixels=high)))


# --- in the restore process ------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    with Server(options(tmp_path, deadline_s=1.0)) as serving:
        yield serving


def compared(address, number, run="run"):
    return until(lambda: (r := status(address, run)) and len(r["references"]) == number and r)


def events(run, name):
    return [event for event in RunFolder.open(Path(run["folder"])).events() if event["event"] == name]


@pytest.mark.parametrize("first", ["low", "high"])
def test_a_reference_is_scored_told_and_noted(server, first):
    low, high = cells(planes=2)
    with BareHook(server.address) as hook:
        for light in (first, "high" if first == "low" else "low"):
            hook.volume(low if light == "low" else high, 5, light=light)
        hook.volume(low, 6)
        run = compared(server.address, 1)
        settled(server.address, restored=4, reference=2, waiting=0)
        (said,) = run["references"]
        assert (said["time"], said["position"], said["channel"]) == (5, "0", "GFP") and said["model"] == "CARE 2D demo"
        assert said["psnr_db"] == pytest.approx(said["raw_psnr_db"], abs=0.1), "the engine gives back what it got"
        points = until(lambda: (p := status(server.address, "run")["timeline"]) and len(p) == 2 and p)
        assert points[0]["reference"] == {name: said[name] for name in ("psnr_db", "raw_psnr_db", "gain_db")}
        assert points[0]["unix_s"] == said["unix_s"] and "reference" not in points[1]
        hook.end()
        ledger = status(server.address, "run")["ledger"]
        assert balanced(ledger) and ledger["taken"] == 6
    (event,) = until(lambda: events(status(server.address, "run"), "reference"))
    assert event["psnr_db"] == said["psnr_db"] and event["time"] == 5 and "light" not in event


def test_without_a_model_raw_is_scored(tmp_path):
    low, high = cells()
    with Server(options(tmp_path, channel="DAPI")) as server, BareHook(server.address) as hook:
        hook.volume(low)
        hook.volume(high, light="high")
        (said,) = compared(server.address, 1)["references"]
        settled(server.address, without_model=1, reference=1, waiting=0)
    assert said["psnr_db"] is None and said["raw_psnr_db"] > 10


def test_a_reference_that_cannot_be_compared_is_said_and_taken_back(server):
    low, high = cells()
    with BareHook(server.address) as hook:
        hook.volume(low)
        hook.volume(np.ones_like(high), light="high")
        warned = until(lambda: [w for w in status(server.address, "run")["warnings"] if "was not compared" in w])
        assert "the reference is constant" in warned[0]
        hook.volume(low, 1)
        hook.volume(high, 1, light="high")
        run = compared(server.address, 1)
        assert not any("was not compared" in warning for warning in run["warnings"])
        hook.volume(high, 2, light="high")  # its low-light volume was left out by the hook
        hook.end()
    left = until(lambda: (e := events(status(server.address, "run"), "not_compared")) and len(e) == 2 and e)
    assert "constant" in left[0]["why"] and left[1]["why"] == "its low-light volume was not sent here"
    assert (left[1]["time"], left[1]["light"]) == (2, "high")


# --- the pairs -------------------------------------------------------------------------------------------------------


def test_pairs_are_kept_to_train_on(tmp_path):
    raw = tmp_path / "cells_1"
    raw.mkdir()
    taken = {(time, position): cells(2, 64, seed=3 * time + int(position)) for time in (0, 5) for position in "01"}
    plan = {"z_step_um": -0.3, "channels": ["GFP"]}
    with Server(options(tmp_path)) as server:
        with BareHook(server.address, raw=raw, plan=plan) as hook:
            for (time, position), (low, high) in taken.items():
                hook.volume(low, time, position=position, stage_um=(1.0, 2.0, 3.0))
                hook.volume(high, time, position=position, light="high", exposure_ms=1000.0)
            said = compared(server.address, 4)["references"]
            hook.end()
            until(lambda: status(server.address, "run")["state"] == "ended")
    assert all(each["accepted"] for each in said)
    pairs = read_pairs(tmp_path / "cells_1_restored" / "pairs")
    assert [pair.name for pair in pairs.pairs] == sorted(each["pair"] for each in said)
    assert {pair.split for pair in pairs.pairs} == {"train", "held-out"} and pairs.card["finished"] is True
    for pair in pairs.pairs:
        low, high = pair.read()
        expected = taken[pair.said["repeat"], pair.position]
        np.testing.assert_array_equal(low, expected[0])
        np.testing.assert_array_equal(high, expected[1])
        assert pair.channel == "GFP" and pair.said["pixel_size_um"] == [0.3, 0.1, 0.1]
        assert pair.said["said"]["high"]["exposure_ms"] == 1000 and pair.said["said"]["low"]["stage_um"] == [1, 2, 3]


def test_what_the_hook_left_out_is_scored_raw_when_the_run_has_ended(tmp_path):
    low, high = cells(2, 64)
    axes = [{"time": t, "light": light, "z": z} for t in range(3) for light in ("low", "high") for z in range(2)]
    dataset = NDTiffDataset(str(tmp_path), name="raw", writable=True)
    dataset.initialize({})
    for each in axes[:-3]:  # of time 2, half of the low-light volume is missing
        dataset.put_image(each, (low if each["light"] == "low" else high)[each["z"]], {"Axes": each})
    dataset.finish()
    dataset.close()
    with Server(options(tmp_path)) as server:
        with BareHook(server.address, raw=tmp_path / "raw_1", plan={"planes": 2}) as hook:
            hook.volume(low, 0, channel="Default")
            for time in range(3):
                hook.volume(high, time, light="high", channel="Default")
            compared(server.address, 1)
            hook.end()
            first, second = compared(server.address, 2)["references"]
    assert first["psnr_db"] is not None and second["psnr_db"] is None
    assert (second["time"], second["raw_psnr_db"]) == (1, first["raw_psnr_db"])
    folder = tmp_path / "raw_1_restored"
    (left,) = [event for event in RunFolder.open(folder).events() if event["event"] == "not_compared"]
    assert left["time"] == 2 and left["why"] == "its low-light volume was not sent here"
    assert len(read_pairs(folder / "pairs").pairs) == 2


def test_planes_are_kept_as_planes_and_what_was_not_restored_as_well(tmp_path):
    low, high = cells()
    with Server(options(tmp_path, channel="DAPI")) as server, BareHook(server.address) as hook:
        hook.volume(low)
        hook.volume(high, light="high")
        compared(server.address, 1)
    (pair,) = read_pairs(tmp_path / "records" / "run" / "pairs").pairs
    assert [image.shape for image in pair.read()] == [(96, 96), (96, 96)]


def test_a_pair_of_one_name_is_kept_once(server):
    low, high = cells()
    with BareHook(server.address) as hook:
        hook.volume(low)
        hook.volume(high, light="high")
        compared(server.address, 1)
        hook.volume(high, light="high")
        run = compared(server.address, 2)
        assert "pair" not in run["references"][1]
        assert any("'0_GFP-r0' in" in warning for warning in run["warnings"])
        hook.volume(low, 1)
        hook.volume(high, 1, light="high")
        assert compared(server.address, 3)["references"][2]["pair"] == "0_GFP-r1"


def test_a_full_disk_ends_the_keeping_of_pairs_and_nothing_else(tmp_path):
    low, high = cells()
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook:
        hook.volume(low)
        hook.volume(high, light="high")
        folder = Path(compared(server.address, 1)["folder"])
        room = server._recording._free
        server._recording._files["run"]._free = lambda place: 0
        for time in (1, 2):
            hook.volume(low, time)
            hook.volume(high, time, light="high")
        run = compared(server.address, 3)
        (warning,) = [warning for warning in run["warnings"] if "was not kept" in warning]
        assert "0.0 MB are free" in warning and "no further pairs of this run are kept" in warning
        settled(server.address, restored=3, reference=3, waiting=0)
        server._recording._files["run"]._free = room
    assert [pair.name for pair in read_pairs(folder / "pairs").pairs] == ["0_GFP-r0"]


def test_another_model_is_named_from_its_first_volume_on(tmp_path):
    low, high = cells(size=64)
    other = write_smoothing_package(tmp_path / "smoothing", 2).path
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook:
        hook.volume(low)
        hook.volume(high, light="high")
        compared(server.address, 1)
        assert not order(server.address, "swap", channel="*", package=str(other), engine="openvino").refused
        hook.volume(low, 1)
        hook.volume(high, 1, light="high")
        first, second = compared(server.address, 2)["references"]
    assert first["model"] == "CARE 2D demo" and second["model"] != first["model"] and second["sha256"] != first["sha256"]
    assert second["gain_db"] > 1, "a network that smooths is nearer to high light than raw is"


def test_more_references_than_can_be_compared_are_left_out_and_counted(tmp_path):
    low, high = cells()
    with Server(options(tmp_path, max_waiting=60)) as server, BareHook(server.address) as hook:
        comparing, go = server._comparing, Event()
        comparing._lane.put(lambda: go.wait(20))
        until(lambda: comparing._lane.waiting == 0)
        for time in range(10):
            hook.volume(low, time)
            hook.volume(high, time, light="high")
        settled(server.address, restored=10, reference=10, waiting=0)
        until(lambda: any("references come faster" in w for w in status(server.address, "run")["warnings"]))
        go.set()
        compared(server.address, 8)
        assert len(until(lambda: (e := events(status(server.address, "run"), "not_compared")) and len(e) == 2 and e)) == 2


def test_references_that_found_no_memory_are_noted(tmp_path):
    _, high = cells()
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook:
        server._comparing._references = References(max_bytes=2 * high.nbytes)
        for time in range(4):
            hook.volume(high, time, light="high")
        settled(server.address, reference=4)
        hook.end()
    noted = RunFolder.open(tmp_path / "records" / "run").events()
    left = [(event["time"], event["why"]) for event in noted if event["event"] == "not_compared"]
    assert [time for time, _ in left] == [0, 1, 2, 3] and "no memory left" in left[1][1]
    assert left[2][1] == "its low-light volume was not sent here"


def test_a_stop_at_once_says_what_was_not_compared(tmp_path):
    low, high = cells()
    with Server(options(tmp_path)) as server:
        go = Event()
        server._comparing._lane.put(lambda: go.wait(20))
        with BareHook(server.address) as hook:
            hook.volume(low)
            hook.volume(high, light="high")
            settled(server.address, restored=1, reference=1)
            until(lambda: server._comparing._lane.waiting == 1)
            server.stop()
            server.stop()
            until(lambda: server._draining == 2)
            go.set()
            assert server.wait(20)
    (event,) = [e for e in RunFolder.open(tmp_path / "records" / "run").events() if e["event"] == "not_compared"]
    assert event["why"] == "the restore process was stopped"
