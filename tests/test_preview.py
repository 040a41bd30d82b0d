"""The preview without a browser: the conversation, the pictures, the door, and the server on real sockets."""

import json
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import httpx
import numpy as np
import psutil
import pytest
from preview_server import Mood, StandIn, cells
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from live_restore.errors import WireError
from live_restore.frames import VolumeKey
from live_restore.launch import start_viewer
from live_restore.preview import web
from live_restore.preview.conversation import Conversation, Link, Seen, Wish
from live_restore.preview.door import Door, is_loopback
from live_restore.preview.pictures import as_json, picture, quantised
from live_restore.preview.source import Watch
from live_restore.preview.web import MOST_VIEWERS, Preview, run
from live_restore.preview.windows import Window, averaged, strongest
from live_restore.wire.messages import Ask, Hello, View, Welcome

TOKEN = "a-token-of-24-characters"


def until(condition, what, seconds=15):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come within {seconds} s")


@pytest.fixture(scope="module")
def movie():
    return cells(size=64, planes=3, times=3)


@pytest.fixture
def stand_in(movie):
    with StandIn(movie, mood=Mood(every_s=0.03)) as server:
        yield server


@pytest.fixture
def preview(stand_in):
    with Preview(stand_in.address, port=0) as served:
        yield served


def view(number, channel="GFP", z=-1, session="one", pixels=True):
    raw = np.full((4, 6), number, np.uint16) if pixels else None
    key = VolumeKey(number, "0", channel) if pixels else None
    return View(number, "run", key, z, 3, 0, raw, status={"server": {"session": session}})


# --- the conversation -------------------------------------------------------------------------------------------------


def talking(wish=None):
    """A conversation that has met the restore process and asked."""
    conversation = Conversation("test")
    assert conversation.next_message(0) == Hello("viewer", "test")
    conversation.sent(Hello("viewer"), 0)
    conversation.hear(Welcome("one"), 0.1)
    if wish:
        conversation.wish(wish)
        conversation.sent(conversation.next_message(0.2), 0.2)
    return conversation


def test_hello_is_said_again_until_it_is_answered():
    conversation = Conversation()
    conversation.sent(conversation.next_message(0), 0)
    assert conversation.next_message(0.4) is None
    assert isinstance(conversation.next_message(0.51), Hello)
    conversation.hear(Welcome("one"), 0.6)
    assert conversation.next_message(2) is None and conversation.link.state == "live"


def test_nothing_is_asked_before_the_viewer_can_take_it():
    conversation = talking()
    assert conversation.next_message(1) is None
    conversation.wish(Wish())
    assert conversation.next_message(1).after == 0


def test_one_wish_brings_one_view_and_the_next_question_is_for_something_newer():
    conversation = talking(Wish())
    assert conversation.next_message(0.3) is None, "one question at a time"
    assert conversation.hear(view(7), 0.3).view.number == 7
    assert conversation.hear(view(8), 0.3) is None, "nobody asked for it"
    assert conversation.next_message(0.4) is None
    conversation.wish(Wish())
    assert conversation.next_message(0.4).after == 7


def test_an_older_view_is_never_shown_after_a_newer_one():
    conversation = talking(Wish())
    conversation.hear(view(7), 0.3)
    conversation.wish(Wish())
    conversation.sent(conversation.next_message(0.4), 0.4)
    assert conversation.hear(view(6), 0.5) is None


def test_the_answer_to_an_earlier_wish_is_not_shown():
    conversation = talking(Wish(z=1))
    conversation.wish(Wish(serial=1, z=2))
    conversation.sent(conversation.next_message(0.3), 0.3)
    assert conversation.hear(view(7, z=1), 0.4) is None
    assert conversation.hear(view(7, z=2), 0.4).wish.serial == 1


def test_a_dragged_slider_does_not_flood_the_restore_process():
    conversation = talking(Wish(z=0))
    asked = 0
    for z in range(1, 50):
        conversation.wish(Wish(z=z))
        message = conversation.next_message(0.3)
        if message:
            conversation.sent(message, 0.3)
            asked += 1
    assert asked == 1, "one more than the one that is open"


def test_another_window_of_the_same_view_needs_no_question():
    conversation = talking(Wish())
    conversation.hear(view(7), 0.3)
    assert conversation.again() is None
    conversation.wish(Wish(window=Window((0, 0, 2, 2))))
    assert conversation.again().view.number == 7
    assert conversation.again() is None


def test_silence_after_a_question_means_gone_and_another_session_begins_anew():
    conversation = talking(Wish())
    conversation.hear(view(7), 0.3)
    conversation.wish(Wish())
    conversation.sent(conversation.next_message(0.4), 0.4)
    conversation.next_message(2.0)
    assert conversation.link.state == "live"
    assert isinstance(conversation.next_message(2.5), Hello)
    assert (conversation.link.state, conversation.link.heard_s) == ("gone", 0.3)
    conversation.hear(Welcome("two"), 3)
    assert conversation.link == Link("live", "two", 3)
    question = conversation.next_message(3)
    assert question.after == 0
    conversation.sent(question, 3)
    assert conversation.hear(view(1, session="two"), 3.1).view.number == 1


def test_a_viewer_that_asks_nothing_is_not_told_that_the_process_is_gone():
    conversation = talking(Wish())
    conversation.hear(view(7), 0.3)
    assert conversation.next_message(100) is None and conversation.link.state == "live"


def test_a_lost_answer_is_asked_for_again():
    conversation = talking(Wish(z=1))
    conversation.hear(view(3, z=5), 1.6)  # something is heard, but not the answer
    assert isinstance(conversation.next_message(1.8), Ask)


def test_what_cannot_be_said_is_tried_again_soon_and_not_taken_for_said():
    conversation = Conversation()
    conversation.unsent(10)
    assert conversation.next_message(10.05) is None
    assert isinstance(conversation.next_message(10.11), Hello)


def test_status_alone_is_handed_on():
    conversation = talking(Wish())
    assert conversation.hear(view(0, pixels=False), 0.7).view.raw is None


def test_a_status_belongs_to_the_views_that_follow_it():
    conversation = talking(Wish())
    status = conversation.hear(view(7), 0.3).view.status
    assert status["server"] == {"session": "one"}
    conversation.wish(Wish())
    message = conversation.next_message(0.4)
    assert message.sparing
    conversation.sent(message, 0.4)
    assert conversation.hear(replace(view(8), status={}), 0.5).view.status is status


def test_a_status_is_sent_to_the_page_once_and_before_its_view():
    words, first = web._Words(), view(7)
    said = words.of(Seen(first, Wish(), "one"))
    assert list(said) == ["status", "view"] and json.loads(said["status"])["status"]["server"] == {"session": "one"}
    assert list(words.of(Seen(replace(first, number=8), Wish(), "one"))) == ["view"]
    assert list(words.of(Seen(view(9), Wish(), "one"))) == ["status", "view"]
    assert list(words.of(Link("gone"))) == ["link"]


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_restored_counts_survive_sixteen_bits():
    counts = np.random.default_rng(1).normal(300, 80, (50, 60)).astype(np.float32)
    levels, step, offset = quantised(counts)
    assert levels.dtype == np.uint16
    assert np.abs(levels * step + offset - counts).max() <= step / 2 + 1e-4 and step < 0.02


@pytest.mark.parametrize("pixels", [[[0, 0]], [[-5, 70000]], [[np.nan, 4]], [[np.nan, np.inf]], [[7.5, 7.5]]])
def test_any_restored_pixels_can_be_sent(pixels):
    pixels = np.array(pixels, np.float32)
    levels, step, offset = quantised(pixels)
    finite = np.isfinite(pixels)
    assert np.abs(levels * step + offset - pixels)[finite].max(initial=0) <= step
    assert step > 0


def test_a_picture_holds_its_layers_where_the_header_says():
    raw = np.arange(15, dtype=np.uint16).reshape(3, 5)
    shown = View(
        4, "run", VolumeKey(2, "1", "GFP"), 1, 3, 2, raw, raw * np.float32(0.5), -raw.astype(np.int8), {"trust": {}}, {}
    )
    encoded = picture(Seen(shown, Wish(serial=9), "one"))
    length = int.from_bytes(encoded[:4], "little")
    header = json.loads(encoded[4 : 4 + length])
    assert (4 + length) % 8 == 0
    expected = {"number": 4, "serial": 9, "session": "one", "channel": "GFP", "time": 2, "slab": 2, "size": [5, 3], "block": 1}
    assert {name: header[name] for name in expected} == expected
    for name, want in (("raw", raw), ("restored", raw * 0.5), ("trust", -raw.astype(int))):
        layer = header["layers"][name]
        pixels = np.frombuffer(encoded, layer["dtype"], 15, 4 + length + layer["start"]).reshape(layer["shape"])
        assert np.allclose(pixels * layer.get("step", 1) + layer.get("offset", 0), want, atol=1e-3)


def test_numbers_that_are_none_become_null():
    assert json.loads(as_json({"a": [float("nan"), {"b": float("inf")}], "c": 1.5})) == {"a": [None, {"b": None}], "c": 1.5}


def test_blocks_are_averaged_and_doubts_are_kept():
    pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
    assert np.shares_memory(averaged(pixels, Window(), (6, 8)), pixels)
    means = averaged(pixels, Window(None, 2), (6, 8))
    assert np.allclose(means, pixels.reshape(3, 2, 4, 2).mean(axis=(1, 3)))
    trust = np.zeros((6, 8), np.int8)
    trust[3, 5], trust[2, 4] = -90, 40
    assert strongest(trust, Window(None, 2), (6, 8)).tolist() == [[0, 0, 0, 0], [0, 0, -90, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("region", [None, (0, 0, 3, 3), (7, 5, 90, 90), (50, 50, 20, 20), (0, 0, 0, 0)])
@pytest.mark.parametrize("block", [1, 2, 5, 64])
@pytest.mark.parametrize("finer", [1, 2])
def test_any_window_gives_pixels_of_the_region_it_names(region, block, finer):
    _, x = np.mgrid[: 6 * finer, : 8 * finer]
    window = Window(region, block)
    x0, y0, x1, y1 = window.of((6, 8))
    assert 0 <= x0 < x1 <= 8 and 0 <= y0 < y1 <= 6
    cut = averaged((x + 0.5) / finer, window, (6, 8))
    assert cut.size and x0 <= cut.min() and cut.max() <= x1
    assert strongest(np.zeros((6, 8), np.int8), window, (6, 8)).size


# --- the door ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("evil.example", False)],
)
def test_loopback_is_known(host, loopback):
    assert is_loopback(host) == loopback


def test_other_machines_need_a_token():
    with pytest.raises(WireError, match=r"'0\.0\.0\.0' could be opened from other machines; give it a token"):
        Door("0.0.0.0")
    with pytest.raises(WireError, match="token has 5 characters; it needs 16 to 128"):
        Door("0.0.0.0", "short")
    with pytest.raises(WireError, match="could be opened from other machines"):
        run("tcp://127.0.0.1:1", host="0.0.0.0", open_browser=False)


CASES = [
    ("127.0.0.1:8757", "http://127.0.0.1:8757", True),
    ("localhost:9000", "http://localhost:9000", True),
    ("[::1]:8757", "http://[::1]:8757", True),
    ("rebound.example:8757", "http://rebound.example:8757", False),
    ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example", False),
    ("127.0.0.1:8757", "http://evil.example", False),
    ("127.0.0.1:8757", "http://localhost:8757", False),
    ("127.0.0.1:8757", "null", False),
    ("127.0.0.1:8757", "", False),
    ("", "", False),
    ("[bad", "http://[bad", False),
]


@pytest.mark.parametrize(("host", "origin", "opens"), CASES)
def test_foreign_pages_may_not_look(host, origin, opens):
    refusal = Door("127.0.0.1").refusal({"host": host, "origin": origin}, websocket=True)
    assert (refusal == "") == opens


# --- the server -------------------------------------------------------------------------------------------------------


def watching(served, token=None, **headers):
    cookies = {"Cookie": f"live_restore_{served.port}={token}"} if token else {}
    origin = headers.pop("origin", f"http://127.0.0.1:{served.port}")
    url = f"ws://127.0.0.1:{served.port}/watch"
    return connect(url, origin=origin, additional_headers={**cookies, **headers}, max_size=None, compression=None)


def ask(socket, serial=1, channel="GFP", z=-1, trust=False, region=(), block=1):
    said = {
        "serial": serial,
        "position": "",
        "channel": channel,
        "z": z,
        "trust": trust,
        "region": list(region),
        "block": block,
    }
    socket.send(json.dumps(said))


def header_of(message):
    return json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])


def next_view(socket, seconds=10):
    deadline = time.monotonic() + seconds
    while True:
        message = socket.recv(timeout=max(0.01, deadline - time.monotonic()))
        if isinstance(message, bytes):
            return header_of(message)


def next_seen(socket, **wish):
    """Ask until a view with pixels comes."""
    for _ in range(20):
        ask(socket, **wish)
        header = next_view(socket)
        if header["layers"]:
            return header
    raise AssertionError("no view with pixels came")


def test_the_page_and_its_files_are_served_with_a_strict_policy(preview):
    with httpx.Client(base_url=preview.url) as client:
        page = client.get("/")
        assert page.status_code == 200 and "Raw is the record" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        script = client.get("/static/main.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert client.get("/static/../web.py").status_code == 404
        assert client.get("/static/absent.js").status_code == 404
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403


def test_a_viewer_gets_the_newest_each_time_it_asks(preview):
    with watching(preview) as socket:
        numbers = [next_seen(socket)["number"] for _ in range(10)]
    assert numbers == sorted(set(numbers))


def test_a_viewer_is_told_how_it_stands(preview):
    with watching(preview) as socket:
        welcome = json.loads(socket.recv(timeout=5))
        assert welcome["kind"] == "welcome" and "receipted" in welcome["columns"]["hook"]
        states = []
        while "live" not in states:
            states.append(json.loads(socket.recv(timeout=5))["state"])
        assert states == ["seeking", "live"]


def test_plane_channel_trust_and_window_are_as_asked(preview, movie):
    with watching(preview) as socket:
        header = next_seen(socket, serial=5, channel="DAPI", z=2, trust=True, region=(0, 0, 32, 16), block=2)
    assert (header["serial"], header["channel"], header["z"]) == (5, "DAPI", 2)
    assert header["region"] == [0, 0, 32, 16]
    shapes = {name: layer["shape"] for name, layer in header["layers"].items()}
    assert shapes == {"raw": [8, 16], "restored": [8, 16], "trust": [8, 16]}


def test_a_late_viewer_is_at_most_one_volume_behind(stand_in, preview):
    """Whatever came meanwhile is never sent: the answer to a question is the newest there is then."""
    with watching(preview) as socket:
        next_seen(socket)
        for _ in range(5):
            before = stand_in.number
            until(lambda: stand_in.number > before + 20, "20 views")  # noqa: B023
            newest = stand_in.shown["GFP"][0]
            assert next_seen(socket)["number"] >= newest


def test_several_viewers_see_what_each_of_them_wants(preview):
    with watching(preview) as one, watching(preview) as other:
        for _ in range(5):
            first, second = next_seen(one, channel="GFP", z=0), next_seen(other, channel="DAPI", z=2)
            assert (first["channel"], first["z"], second["channel"], second["z"]) == ("GFP", 0, "DAPI", 2)


def test_a_killed_process_is_noticed_and_taken_up_again(stand_in, preview):
    with watching(preview) as socket:
        session = next_seen(socket)["session"]
        stand_in.stop()
        ask(socket)
        gone = _next_link(socket, "gone")
        assert abs(gone["heard_unix_s"] - time.time()) < 30
        stand_in.start()
        assert _next_link(socket, "live")["session"] != session
        assert next_seen(socket)["session"] == stand_in.session


def _next_link(socket, state):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        message = socket.recv(timeout=15)
        if isinstance(message, bytes):
            ask(socket)
        elif json.loads(message).get("state") == state:
            return json.loads(message)
    raise AssertionError(f"the link did not become {state}")


@pytest.mark.parametrize("said", ["no json", "[]", "{}", '{"serial": -1}', b"bytes", "1" * 5000])
def test_what_is_no_wish_ends_the_line_and_nothing_else(preview, said):
    with watching(preview) as socket, pytest.raises(ConnectionClosed):
        socket.send(said)
        while True:
            socket.recv(timeout=10)
    with watching(preview) as socket:
        assert next_seen(socket)["number"]


def test_wishes_out_of_range_are_refused():
    good = {"serial": 1, "position": "", "channel": "", "z": -1, "trust": False, "region": [], "block": 1}
    assert web._wish(json.dumps(good)) == Wish(1)
    with pytest.raises(ValueError, match="z must be int, not '1'"):
        web._wish(json.dumps({**good, "z": "1"}))
    with pytest.raises(ValueError, match="out of range"):
        web._wish(json.dumps({**good, "z": -2}))
    with pytest.raises(ValueError, match="region must be four sides"):
        web._wish(json.dumps({**good, "region": [1, 2, 3]}))


def test_a_foreign_page_gets_no_line(preview):
    for origin in ("http://evil.example", None):
        with pytest.raises(InvalidStatus, match="403"):
            watching(preview, origin=origin).close()


def test_a_token_is_wanted_of_page_files_and_line(stand_in):
    with Preview(stand_in.address, host="0.0.0.0", port=0, token=TOKEN) as served:
        base = f"http://127.0.0.1:{served.port}"
        assert served.url.endswith(f":{served.port}/?token={TOKEN}")
        with httpx.Client(base_url=base) as client:
            for path in ("/", "/static/main.js", f"/?token={TOKEN[:-1]}", "/?token=é"):
                assert client.get(path).status_code == 403
            entered = client.get(f"/?token={TOKEN}")
            assert entered.status_code == 303 and entered.headers["location"] == "/"
            assert "httponly" in entered.headers["set-cookie"].lower()
            assert client.get("/").status_code == 200 and client.get("/static/main.js").status_code == 200
        for wrong in (None, TOKEN[:-1], "x" * 24):
            with pytest.raises(InvalidStatus, match="403"):
                watching(served, wrong).close()
        with watching(served, TOKEN) as socket:
            assert next_seen(socket)["number"]


def test_a_taken_port_gives_way_to_the_next(stand_in):
    with Preview(stand_in.address, port=0) as first, Preview(stand_in.address, port=first.port) as second:
        assert first.port < second.port < first.port + 20
        assert httpx.get(second.url).status_code == 200


def test_an_impossible_address_is_refused(stand_in):
    with pytest.raises(WireError, match=r"cannot listen on 203\.0\.113\.9"):
        Preview(stand_in.address, host="203.0.113.9", token=TOKEN)


def test_the_port_is_found_again_after_a_restart(stand_in):
    with Preview(stand_in.address, port=0) as first, watching(first) as socket:
        next_seen(socket)
        port = first.port
    with Preview(stand_in.address, port=port) as second:
        assert second.port == port


def test_run_announces_its_address_and_stops(stand_in, monkeypatch):
    announced = threading.Event()
    served = Preview(stand_in.address, port=0)
    thread = threading.Thread(target=served.serve, args=(lambda url: announced.set() if url == served.url else None,))
    thread.start()
    assert announced.wait(10)
    assert httpx.get(served.url).status_code == 200
    served.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_too_many_viewers_are_told_so(stand_in, preview, monkeypatch):
    monkeypatch.setattr(web, "MOST_VIEWERS", 1)
    assert MOST_VIEWERS > 1
    with watching(preview) as first:
        next_seen(first)
        with watching(preview) as second, pytest.raises(ConnectionClosed, match="1 viewers are watching already"):
            while True:
                second.recv(timeout=5)


def test_viewers_that_leave_leave_nothing_behind(preview):
    def threads():
        return sum(thread.name == "preview-watch" for thread in threading.enumerate())

    for _ in range(5):
        with watching(preview) as socket:
            next_seen(socket)
    until(lambda: threads() == 0, "the end of all watches")


def test_an_address_that_cannot_be_used_is_said():
    told = []
    with Watch("nonsense", None, told.append):
        until(lambda: told, "a word on the link")
    assert told[0].state == "failed" and told[0].why


def test_a_viewer_that_never_acknowledges_costs_no_memory():
    """Six viewers of large views, of which five ask once and never read; the sixth reads hundreds."""
    movie = cells(size=256, planes=1, times=2, channels={"GFP": "nuclei"})
    with StandIn(movie, mood=Mood(every_s=0.004)) as server, start_viewer(server.address, 0) as viewer:
        process = psutil.Process(viewer.process.pid)
        served = SimpleNamespace(url=viewer.where, port=int(viewer.where.rstrip("/").rpartition(":")[2]))
        asleep = [_silent_viewer(served) for _ in range(5)]
        with watching(served) as awake:
            for _ in range(50):
                next_seen(awake)
            before = process.memory_info().rss / 1e6
            for _ in range(400):
                next_seen(awake)
            grown = process.memory_info().rss / 1e6 - before
        for socket_ in asleep:
            socket_.close()
    # 400 views of 262 kB for each of five sleepers would be 500 MB
    assert grown < 40, f"memory grew by {grown:.0f} MB"


def _silent_viewer(served):
    """A plain socket that opens a line, asks a hundred times and never reads a byte."""
    plain = socket.create_connection(("127.0.0.1", served.port))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host = f"127.0.0.1:{served.port}"
    plain.sendall(
        f"GET /watch HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    said = {"serial": 1, "position": "", "channel": "GFP", "z": -1, "trust": False, "region": [], "block": 1}
    text = json.dumps(said).encode()
    frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text  # masked with zeros
    assert len(text) < 126
    plain.sendall(frame * 100)
    return plain
