"""The hook under pycro-manager's Java backend, as far as that can be seen without a JVM: pycro-manager's own image loop against
a stand-in of the Java side, and datasets as Java writes them.
"""

import numpy as np
import pytest
from restore_peer import Peer, until

from live_restore.acquire.callbacks import Callbacks
from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.pycromanager_frames import axes_key
from live_restore.frames import VolumeKey

pytest.importorskip("pycromanager", reason="pycro-manager is not installed")
pytest.importorskip("ndstorage", reason="ndstorage is not installed")

SHAPE = (48, 64)


def java_metadata(axes, kind="GRAY16"):
    """Metadata as AcqEngJ gives them: numbers that are whole are ints, the state of all devices are strings."""
    return {
        "Axes": dict(axes),
        "PixelType": kind,
        "Width": SHAPE[1],
        "Height": SHAPE[0],
        "BitDepth": 16,
        "Exposure": 10,
        "PixelSizeUm": 1,
        "Channel": "DAPI",
        "FrameIndex": 0,
        "Z-Position": "0.0000",
        "Camera-Gain": "0",
        "ZPosition_um_Intended": 2 * axes.get("z", 0),
    }


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint16, "GRAY16"), (np.uint8, "GRAY8")])
def test_identical_frames_go_back_to_java(dtype, kind):
    from java_peer import exchange

    random = np.random.default_rng(0)
    places = [{"time": t, "z": z} for t in range(5) for z in range(4)]
    images = [random.integers(0, 200, SHAPE).astype(dtype) for _ in places]
    said = [java_metadata(axes, kind) for axes in places]
    with Peer() as peer, RestoreHook(peer.address, planes=4) as hook:
        assert hook.wait_attached(5)
        back, errors = exchange(hook, images, said)
        hook.end_run()
        assert errors == [] and hook.errors == 0
        assert [metadata for metadata, _ in back] == said  # nothing was added, so there is no "@" that was not there
        assert [pixels for _, pixels in back] == [image.tobytes() for image in images]
        assert all(np.array_equal(frame.pixels, image) for frame, image in zip(peer.frames, images, strict=True))
        info = peer.frames[5].info
        assert info.key == VolumeKey(1) and (info.z, info.planes) == (1, 4)
        assert (info.asked_exposure_ms, info.pixel_size_um, info.stage_um) == (10.0, 1.0, (None, None, 2.0))


def test_frames_go_back_to_java_when_the_hook_cannot_use_them():
    from java_peer import exchange

    images = [np.zeros((*SHAPE, 4), np.uint8) for _ in range(3)]  # colour
    with RestoreHook("tcp://127.0.0.1:9") as hook:
        back, errors = exchange(hook, images, [java_metadata({"time": t}, "RGB32") for t in range(3)])
        assert len(back) == 3 and errors == [] and hook.errors == 3


@pytest.fixture
def dataset(tmp_path):
    """A dataset on disk, opened as the Java backend opens the one that Java writes."""
    from ndstorage.ndtiff_dataset import NDTiffDataset

    written = NDTiffDataset(str(tmp_path), name="java", writable=True)
    written.initialize({"PixelType": "GRAY16"})
    places = [{"time": t, "z": z, "channel": "DAPI"} for t in range(3) for z in range(2)]
    for number, axes in enumerate(places):
        written.put_image(axes, np.full(SHAPE, number, np.uint16), java_metadata(axes))
    written.finish()
    return NDTiffDataset(written.path), places


def test_saved_reads_from_the_dataset_what_is_sent(dataset):
    reader, places = dataset
    with Peer() as peer, RestoreHook(peer.address, planes=2) as hook:
        assert hook.wait_attached(5)
        for axes in places:
            assert hook.saved(axes, reader) is None
        hook.end_run()
        assert [int(frame.pixels[0, 0]) for frame in peer.frames] == list(range(6))
        assert peer.frames[5].info.key == VolumeKey(2, "0", "DAPI") and peer.frames[5].info.asked_exposure_ms == 10.0
        assert hook.ledger["receipted"] == 6 and hook.errors == 0
        until(lambda: peer.begins)
        assert peer.begins[-1].raw is not None and peer.begins[-1].raw.rstrip("/").endswith("java_1")


class CountingDataset:
    """Counts what is read; fails on demand."""

    def __init__(self, reader, fails=False):
        self.reader, self.fails, self.reads = reader, fails, 0

    def read_metadata(self, **axes):
        return self.reader.read_metadata(**axes)

    def read_image(self, **axes):
        self.reads += 1
        if self.fails:
            raise OSError("the disk is gone")
        return self.reader.read_image(**axes)


def test_saved_does_not_read_what_is_not_sent(dataset):
    reader, places = dataset
    counting = CountingDataset(reader)
    with Peer(credit=0) as peer, RestoreHook(peer.address, planes=2) as hook:
        for axes in places[:2]:
            hook.saved(axes, counting)
        assert hook.wait_attached(5)
        for axes in places[2:]:
            hook.saved(axes, counting)
        assert counting.reads == 0 and hook.ledger["taken"] == 6 and hook.ledger["skipped"] >= 4


def test_a_frame_that_cannot_be_read_is_lost_with_its_volume_and_nothing_is_raised(dataset):
    reader, places = dataset
    failing = CountingDataset(reader, fails=True)
    with Peer() as peer, RestoreHook(peer.address, planes=2) as hook:
        assert hook.wait_attached(5)
        for axes in places:
            hook.saved(axes, failing)
        assert hook.ledger["lost"] == 6 and hook.errors == 3 and failing.reads == 3
        assert "the disk is gone" in str(hook.failure)


def test_a_frame_that_came_as_processor_is_not_taken_again_when_it_is_saved(dataset):
    reader, places = dataset
    with RestoreHook("tcp://127.0.0.1:9") as hook:
        for axes in places:
            hook(np.zeros(SHAPE, np.uint16), java_metadata(axes))
            hook.saved(axes, reader)
        assert hook.ledger["taken"] == 6 and hook.run.raw is not None


def test_a_frame_is_due_until_the_hook_has_had_it():
    """Word that a frame was saved may come first, in another thread; a run that then ended would lose the frame."""
    with RestoreHook("tcp://127.0.0.1:9") as hook:
        callbacks = Callbacks(hook, {"image_process_fn": lambda image, metadata: None}, False, lambda: None)
        seen = []
        hook.saved = lambda axes, dataset: seen.append(dict(callbacks.due))
        options = callbacks.options()
        callbacks.due = {axes_key({"time": 0}): None, axes_key({"time": 1}): None}
        options["image_saved_fn"]({"time": 0}, None)
        assert len(seen[0]) == 2 and list(callbacks.due) == [axes_key({"time": 1})]
        options["image_process_fn"](np.zeros((4, 4), np.uint16), {"Axes": {"time": 1}})  # which is kept from saving
        assert not callbacks.due and callbacks.diverted == 1
