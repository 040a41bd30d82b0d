"""The napari layers: in a real viewer model, fed by a real watch."""

import sys
import time
from collections import deque

import numpy as np
import pytest
from preview_server import Mood, StandIn, cells

from live_restore.errors import LiveRestoreError
from live_restore.frames import VolumeKey
from live_restore.preview import napari_layers
from live_restore.preview.conversation import Link, Seen
from live_restore.preview.napari_layers import LiveLayers, caption, disagreement, show_arrived
from live_restore.preview.source import Watch
from live_restore.wire.messages import View


def view(**changed):
    raw = np.full((6, 8), 100, np.uint16)
    trust = np.zeros((6, 8), np.int8)
    trust[1, 1], trust[2, 2] = -60, 60
    known = {"run": "r", "key": VolumeKey(3, "0", "GFP"), "z": -1, "planes": 5, "raw": raw, "restored": raw * np.float32(1.1)}
    return View(7, **{**known, "trust": trust, "said": {"trust": {"trusted": True, "threshold": 4.2}}, **changed})


def test_doubts_become_labels():
    assert np.argwhere(disagreement(view()) == 1).tolist() == [[1, 1]]
    assert np.argwhere(disagreement(view()) == 2).tolist() == [[2, 2]]
    assert not disagreement(view(trust=None)).any()


def test_the_caption_says_what_it_is():
    assert caption(view()).startswith("time 3, position 0, GFP; maximum of 5 planes\nraw is the record")
    assert "provisional: 2 of 5 planes" in caption(view(slab=2))
    assert "DO NOT TRUST the restored image: too dim" in caption(view(said={"trust": {"trusted": False, "why": "too dim"}}))
    assert "look twice at the restored image: one" in caption(view(said={"trust": {"trusted": True, "doubts": ["one", "two"]}}))
    assert "not restored" in caption(view(restored=None))


def test_without_napari_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(LiveRestoreError, match=r"pip install 'live_restore\[napari\]'"):
        napari_layers.run("tcp://127.0.0.1:1")


def test_layers_follow_the_restore_process():
    components = pytest.importorskip("napari.components", reason="napari is not installed")
    viewer = components.ViewerModel()
    layers, arrived, numbers = LiveLayers(viewer), deque(), []
    text = napari_layers._text_of(viewer)
    with StandIn(cells(size=64, planes=3, times=3), mood=Mood(every_s=0.03)) as server:
        with Watch(server.address, None, arrived.append) as watch:
            watch.want(layers.wish)

            def show_until(condition):
                deadline = time.monotonic() + 20
                while not condition():
                    assert time.monotonic() < deadline
                    numbers.extend(what.view.number for what in arrived if isinstance(what, Seen))
                    show_arrived(arrived, layers, watch)
                    time.sleep(0.005)

            show_until(lambda: len(numbers) > 5)
            assert [layer.name.split(":")[0] for layer in viewer.layers] == ["raw", "restored", "trust"]
            raw, restored = viewer.layers[0], viewer.layers[1]
            assert tuple(raw.scale) == (0.1, 0.1) and tuple(raw.contrast_limits) == tuple(restored.contrast_limits)
            assert raw.data.dtype == np.uint16 and restored.data.dtype == np.float32
            layers.choose("DAPI", "", 1)
            watch.want(layers.wish)
            show_until(lambda: "DAPI; plane 2 of 3" in text.text)
            assert viewer.layers[0] is raw, "updated in place"
            assert "raw is the record" in text.text
            layers.tell(Link("gone"))
            assert "GONE" in text.text
