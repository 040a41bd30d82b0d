"""What viewers see: the newest of every position and channel, raw where nothing is restored, slabs while a stack comes in."""

from threading import Event, Thread

import numpy as np
import pytest
from bare_clients import PACKAGE, BareHook, image, options, settled, status, until
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.frames import FrameInfo, Volume, VolumeKey
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.restorer import Restorer
from live_restore.server import ModelChoice, Server
from live_restore.serving.views import Shown, Viewers, Views
from live_restore.wire.messages import Ask
from live_restore.wire.sockets import Caller

S = 1_000_000_000


def volume(time=0, channel="GFP", position="0", light="low", planes=3, run="run"):
    key = VolumeKey(time, position, channel, light)
    pixels = np.arange(planes * 20, dtype=np.uint16).reshape(planes, 4, 5) + 100 * time
    return Volume(run, key, pixels, tuple(FrameInfo(run, z, key, z, planes) for z in range(planes)), planes)


def restored(time=0, since_s=0, waited_s=0, slab=0, **said):
    raw = volume(time, **said)
    return Shown(0, raw, raw.pixels * np.float32(2), None, {"time": time}, slab, since_s * S, waited_s * S)


def seen(viewers, now_s=0.0):
    """What one viewer is sent at a time: raw time point, and whether with a restoration."""
    return [(v.key and v.key.time, v.restored is not None) for _, v in viewers.answers(int(now_s * S))]


def test_raw_is_shown_until_something_is_restored():
    views = Views()
    viewers = Viewers(views)
    viewers.ask(b"a", Ask(), 0)
    assert seen(viewers) == []
    views.show_raw(volume(0), 0)
    assert seen(viewers) == [(0, False)]
    views.show_restored(restored(0))
    viewers.ask(b"a", Ask(after=1), 0)
    assert seen(viewers) == [(0, True)]


def test_raw_waits_for_its_restoration_unless_that_does_not_come():
    views = Views()
    viewers = Viewers(views)
    views.show_raw(volume(0), 0)
    views.show_restored(restored(0, since_s=1, waited_s=1))
    views.show_raw(volume(1), 2 * S)
    viewers.ask(b"a", Ask(after=0, wait_ms=60_000), 2 * S)
    assert seen(viewers, 2) == [(0, True)]
    viewers.ask(b"a", Ask(after=1, wait_ms=60_000), 2 * S)
    assert seen(viewers, 4.9) == []
    assert seen(viewers, 5.1) == [(1, False)]
    views.show_restored(restored(1, since_s=9))
    viewers.ask(b"a", Ask(after=2), 9 * S)
    assert seen(viewers, 9) == [(1, True)]


def test_a_viewer_that_has_seen_everything_waits_and_then_hears_the_status_alone():
    views = Views()
    viewers = Viewers(views)
    views.show_restored(restored(0))
    viewers.ask(b"a", Ask(wait_ms=500), 0)
    assert seen(viewers) == [(0, True)]
    viewers.ask(b"a", Ask(after=1, wait_ms=500), 0)
    assert viewers.next_ns() == S // 2 and seen(viewers, 0.4) == []
    ((_, empty),) = viewers.answers(S // 2)
    assert (empty.number, empty.key, empty.raw) == (1, None, None)
    assert viewers.next_ns() is None


@pytest.mark.parametrize("other", [{"z": 1}, {"channel": "GFP"}, {"position": "0"}, {"trust": True}], ids=str)
def test_another_wish_is_answered_at_once(other):
    views = Views()
    viewers = Viewers(views)
    views.show_restored(restored(0))
    viewers.ask(b"a", Ask(), 0)
    seen(viewers)
    viewers.ask(b"a", Ask(after=1, **other), 0)
    assert seen(viewers) == [(0, True)]


def test_a_number_from_an_earlier_process_is_behind_us():
    views = Views()
    viewers = Viewers(views)
    views.show_restored(restored(0))
    viewers.ask(b"a", Ask(), 0)
    seen(viewers)
    viewers.ask(b"a", Ask(after=500), 0)
    assert seen(viewers) == [(0, True)]


def test_newest_wins_and_several_viewers_see_it():
    views = Views()
    viewers = Viewers(views)
    for time in range(5):
        views.show_restored(restored(time))
    for client in (b"a", b"b"):
        viewers.ask(client, Ask(), 0)
    assert seen(viewers) == [(4, True)] * 2 and viewers.looking(0) and not viewers.looking(11 * S)


def test_channels_and_positions_are_chosen_by_name():
    views = Views()
    viewers = Viewers(views)
    views.show_restored(restored(1, channel="DAPI", position="B"))
    views.show_restored(restored(2))
    for wish, time in (({"channel": "DAPI"}, 1), ({"position": "B"}, 1), ({}, 2), ({"channel": "GFP", "position": "B"}, None)):
        viewers.ask(b"a", Ask(wait_ms=0, **wish), 0)
        assert [view.key and view.key.time for _, view in viewers.answers(0)] == [time]


def test_planes_are_views_and_projections_are_made_once():
    shown = restored(0)
    raw, whole, trust = shown.images(1)
    assert np.shares_memory(raw, shown.volume.pixels) and np.shares_memory(whole, shown.restored) and trust is None
    np.testing.assert_array_equal(shown.images(7)[0], shown.volume.pixels[2])
    first = shown.images(-1)
    np.testing.assert_array_equal(first[0], shown.volume.pixels.max(0))
    assert shown.images(-1)[1] is first[1]


def test_the_projection_of_trust_keeps_the_largest_deviation_with_its_sign():
    trust = np.array([[[-50, 3, 0]], [[40, 4, 0]]], np.int8)
    shown = Shown(1, volume(planes=2), None, trust)
    assert shown.project()[2].tolist() == [[-50, 4, 0]]


def test_finer_planes_are_found_by_their_place():
    shown = Shown(1, volume(planes=3), np.arange(9, dtype=np.float32).reshape(9, 1, 1))
    assert [float(shown.images(z)[1][0, 0]) for z in range(3)] == [1, 4, 7]


def test_references_are_shown_where_there_is_nothing_else():
    views = Views()
    views.show_raw(volume(0, light="high"), 0)
    assert views.find("", "", 0).volume.key.light == "high"
    views.show_raw(volume(0), 0)
    assert views.find("", "", 0).volume.key.light == "low"


def test_the_oldest_place_makes_room_for_the_newest():
    views = Views(max_bytes=1000)
    for number in range(6):
        views.show_restored(restored(0, since_s=number, position=str(number)))
    assert views.find("0", "", 0) is None and views.find("5", "", 0) is not None


def test_viewers_that_ask_too_much_lose_the_oldest():
    viewers = Viewers(Views())
    for number in range(100):
        viewers.ask(b"a", Ask(wait_ms=number), 0)
    assert len(viewers.answers(S)) == 8
    for number in range(100):
        viewers.ask(bytes([number]), Ask(wait_ms=0), number)
    assert len(viewers.answers(S)) == 64


def test_a_viewer_over_the_wire(tmp_path):
    stack = np.stack([image(z) for z in range(3)])
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook, Caller(server.address) as viewer:
        assert viewer.ask(Ask(wait_ms=0), 10).number == 0
        hook.volume(stack)
        view = until(lambda: (v := viewer.ask(Ask(trust=True, wait_ms=1000), 10)).restored is not None and v)
        np.testing.assert_array_equal(view.raw, stack.max(0))
        np.testing.assert_allclose(view.restored, stack.max(0), rtol=1e-4)
        assert view.trust.shape == (32, 40) and view.planes == 3 and view.said["trust"]["snr"] >= 0
        assert view.said["provenance"]["model"] == "CARE 2D demo" and view.status["server"]["state"] == "serving"
        plane = viewer.ask(Ask(after=view.number, z=2), 10)
        np.testing.assert_array_equal(plane.raw, stack[2])
        assert plane.z == 2 and plane.number == view.number and plane.trust is None


def test_a_sparing_viewer_is_told_a_status_once(tmp_path):
    with Server(options(tmp_path)) as server, BareHook(server.address) as hook, Caller(server.address) as viewer:
        hook.volume(image()[None])
        settled(server.address, restored=1)
        told = [viewer.ask(Ask(z=z, wait_ms=5000, sparing=True), 10).status for z in (0, -1) * 20]
        assert told[0]["server"]["state"] == "serving" and {} in told
        assert all(viewer.ask(Ask(z=z, wait_ms=5000), 10).status for z in (0, -1) * 5)


def test_a_status_that_did_not_go_out_is_told_again():
    viewers, status = Viewers(Views()), {"server": {}}
    viewers.ask(b"a", Ask(sparing=True), 0)
    assert viewers.waiting and viewers.news(b"a", status) is status and viewers.news(b"a", status) == {}
    viewers.unheard(b"a")
    assert viewers.news(b"a", status) is status
    viewers.ask(b"a", Ask(sparing=False), 0)
    assert viewers.news(b"a", status) is status


def test_whether_a_viewer_waits_is_said_to_other_threads_as_viewers_come_and_go():
    """Whoever restored a volume asks it of many viewers while the network thread adds one: that must not fail."""
    viewers, wrong, over = Viewers(Views()), [], Event()

    def ask_on() -> None:
        try:
            while not over.is_set():
                assert viewers.waiting in {True, False}
        except Exception as failed:
            wrong.append(failed)

    asking = Thread(target=ask_on)
    asking.start()
    for number in range(3000):
        viewers.ask(b"%d" % number, Ask(wait_ms=0), 0)
        assert viewers.waiting
        if number % 3 == 0:
            viewers.answers(1)
            assert not viewers.waiting
    over.set()
    asking.join(20)
    assert not wrong


def test_a_channel_without_a_model_is_shown_as_it_is(tmp_path):
    with Server(options(tmp_path, channel="GFP")) as server, BareHook(server.address) as hook, Caller(server.address) as viewer:
        hook.frame(image(), channel="DAPI")
        view = viewer.ask(Ask(wait_ms=10_000), 20)
        assert view.key.channel == "DAPI" and view.restored is None
        np.testing.assert_array_equal(view.raw, image())


@pytest.mark.parametrize("frozen", [True, False])
def test_slabs_are_shown_while_the_stack_comes_in_where_planes_stand_alone(tmp_path, frozen):
    rule = Normalisation(mode="frozen", frozen=FrozenRange(low=(100,), high=(500,))) if frozen else Normalisation()
    package = write_smoothing_package(tmp_path / "smooth", 2, facts=smoothing_facts(normalisation=rule))
    stack = np.stack([image(z) for z in range(4)])
    models = (ModelChoice("*", package.path, "openvino", "f32"),)
    with Server(options(tmp_path, models=models)) as server, BareHook(server.address) as hook, Caller(server.address) as viewer:
        viewer.ask(Ask(wait_ms=0), 10)  # somebody looks
        for z in range(3):
            hook.frame(stack[z], z, planes=4)
        view = viewer.ask(Ask(z=0, wait_ms=3000 if frozen else 300), 10)
        assert (view.slab > 0) == frozen
        if frozen:
            view = until(lambda: (v := viewer.ask(Ask(z=1, wait_ms=1000), 10)).slab == 3 and v)
            assert view.planes == 4
            with Restorer(package, engine="openvino", precision="f32") as restorer:
                np.testing.assert_array_equal(view.restored, restorer.restore(stack[None]).pixels[0, 1])
        hook.frame(stack[3], 3, planes=4)
        until(lambda: (v := viewer.ask(Ask(z=0), 10)).restored is not None and v.slab == 0)
        settled(server.address, restored=4)
        assert status(server.address, "run")["volumes"] == {"restored": 1, "skipped": 0}


def test_views_do_not_need_a_model(tmp_path):
    with Server(options(tmp_path, models=())) as server, BareHook(server.address) as hook, Caller(server.address) as viewer:
        hook.frame(image())
        assert viewer.ask(Ask(wait_ms=10_000), 20).raw is not None
    assert PACKAGE.is_dir()
