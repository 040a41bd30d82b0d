"""pymmcore-plus: its frames reach the restore process, with the real demo devices and pymmcore-plus's own engine."""

from pathlib import Path

import pytest
from restore_peer import Peer, until

from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.live_run import LiveRun
from live_restore.acquire.mda import connect, place_of, promise_of
from live_restore.acquire.plan import Plan
from live_restore.frames import VolumeKey

useq = pytest.importorskip("useq", reason="pymmcore-plus is not installed")
pytestmark = pytest.mark.microscope


@pytest.fixture(scope="module")
def core():
    adapters = pytest.importorskip("mm_test_adapters", reason="the demo devices are not installed")
    from pymmcore_plus import CMMCorePlus

    folder = str(adapters.device_adapter_path())
    core = CMMCorePlus(adapter_paths=[folder])
    core.loadSystemConfiguration(f"{folder}/MMConfig_demo.cfg")
    core.setROI(0, 0, 64, 64)
    yield core
    core.unloadAllDevices()


@pytest.fixture
def live(core):
    """A peer, a hook that is attached to it, and its connection to the core."""
    with Peer() as peer, RestoreHook(peer.address) as hook:
        assert hook.wait_attached(5)
        frames = connect(hook, core)
        yield peer, hook, frames
        frames.disconnect()
        frames.disconnect()


def run(core, hook, events):
    core.mda.run(events)
    assert hook.run.settled.wait(10)


def test_a_sequence_is_known_before_its_first_frame(core, live):
    peer, hook, _ = live
    sequence = useq.MDASequence(
        channels=[{"config": "DAPI", "exposure": 5}, {"config": "FITC", "exposure": 7}],
        z_plan={"range": 2, "step": 1},
        time_plan={"interval": 0, "loops": 2},
        stage_positions=[{"x": 0, "y": 0, "name": "well"}, {"x": 10, "y": 0}],
        axis_order="tpcz",
    )
    run(core, hook, sequence)
    assert hook.ledger.counts()["receipted"] == 24 and hook.errors == 0 and hook.warnings == []
    plan = peer.begins[0].plan
    assert (plan["times"], plan["planes"], plan["frames"], plan["z_step_um"]) == (2, 3, 24, 1.0)
    assert plan["channels"] == ["DAPI", "FITC"] and plan["positions"] == ["well", "1"]
    info = peer.frames[3].info
    assert info.key == VolumeKey(0, "well", "FITC") and info.planes == 3 and info.z == 0
    assert info.exposure_ms == info.asked_exposure_ms == 7.0 and info.pixel_size_um == 1.0
    assert info.stage_um[2] == pytest.approx(-1.0, abs=0.01)
    until(lambda: peer.ends)


def test_light_comes_from_the_event(core, live):
    peer, hook, frames = live
    lights = ("low", "high")
    events = [
        useq.MDAEvent(index={"z": z, "l": i}, z_pos=z, exposure=2.0 + i, metadata={"light": light})
        for z in range(2)
        for i, light in enumerate(lights)
    ]
    run(core, hook, frames.watch(events))
    assert [f.info.key.light for f in peer.frames] == ["low", "high"] * 2
    assert [f.info.exposure_ms for f in peer.frames] == [2.0, 3.0] * 2


def test_events_that_are_drawn_and_hardware_sequences_work(core, live):
    peer, hook, frames = live
    run(core, hook, frames.watch(useq.MDAEvent(index={"t": t, "z": z}, exposure=2.0) for t in range(2) for z in range(3)))
    run(core, hook, useq.MDASequence(time_plan={"interval": 0, "loops": 5}))  # one camera sequence
    assert len(peer.frames) == 11 and {f.info.run for f in peer.frames[6:]} == {hook.run.name}
    assert [f.info.sequence for f in peer.frames[6:]] == list(range(5))
    assert len({begin.run for begin in peer.begins}) == 2


def test_a_hook_that_fails_is_not_noticed_by_the_engine(core, live):
    _, hook, frames = live
    frames.frame(None, None, None)
    frames.started(object())
    assert hook.errors == 2
    run(core, hook, [useq.MDAEvent()])
    assert hook.ledger["receipted"] == 1


def test_names_of_axes():
    event = useq.MDAEvent(index={"t": 2, "p": 1, "g": 4, "z": 3}, channel="Cy5", min_start_time=2.0, exposure=9.0, z_pos=1.5)
    assert place_of(event) == (VolumeKey(2, "1_g4", "Cy5"), 3)
    promise = promise_of(event)
    assert (promise.exposure_ms, promise.start_s, promise.z_um) == (9.0, 2.0, 1.5)
    assert place_of(useq.MDAEvent(index={"light": 1})) == (VolumeKey(), None)


def test_a_relative_raw_folder_means_ours_not_that_of_the_restore_process():
    assert LiveRun(None, Path("data"), Plan()).raw == Path("data").absolute()
