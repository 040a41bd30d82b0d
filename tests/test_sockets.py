"""Both ends of the wire, over real loopback sockets."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import zmq

from live_restore.errors import BadMessage, WireError
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.wire.address import read_address
from live_restore.wire.messages import Answer, Beat, Command, End, FrameSent, Hello, Receipt, View, Welcome
from live_restore.wire.pixels import LARGEST_FRAME
from live_restore.wire.sockets import Caller, Listener
from live_restore.wire.waker import Waker

ANYWHERE = "tcp://127.0.0.1:0"
PATIENCE_S = 20


def a_frame(side=64, sequence=0, dtype="u2"):
    pixels = (np.arange(side * side) % 251).astype(dtype).reshape(side, side)
    return FrameSent(Frame(pixels, FrameInfo("run_1", sequence, VolumeKey(time=sequence))))


def said(caller, message):
    """Say it as soon as it can go out."""
    end = time.monotonic() + PATIENCE_S
    while not caller.send(message):
        assert time.monotonic() < end, f"{message} did not go out"
        caller.receive(20)


def heard(listener, count=1):
    """Wait for so many messages, answering doors meanwhile."""
    found, end = [], time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} messages came"
        found += listener.receive(50)
    return found


def got(caller, count=1):
    found, end = [], time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} messages came"
        found += caller.receive(50)
    return found


def greeted(listener, caller):
    """Say hello until it is heard: what is said while the connection breaks is lost."""
    end = time.monotonic() + PATIENCE_S
    while not (found := listener.receive(20)):
        assert time.monotonic() < end, "nobody was heard"
        caller.send(Hello("hook"))
        caller.receive(20)
    return found[0][0]


@pytest.fixture
def listener():
    with Listener(ANYWHERE) as listener:
        yield listener


@pytest.fixture
def caller(listener):
    with Caller(listener.address) as caller:
        yield caller


def test_messages_go_both_ways(listener, caller):
    said(caller, Hello("hook", "test 1"))
    ((client, hello),) = heard(listener)
    assert hello == Hello("hook", "test 1")
    assert listener.send(client, Welcome("s", "test 2", 4))
    assert got(caller) == [Welcome("s", "test 2", 4)]


@pytest.mark.parametrize("side", [1, 3, 64, 300, 2048])
def test_pixels_arrive_as_they_were_and_read_only(listener, caller, side):
    sent = a_frame(side)
    said(caller, sent)
    ((_, message),) = heard(listener)
    frame = message.frame
    assert np.array_equal(frame.pixels, sent.frame.pixels)
    assert frame.info == sent.frame.info
    assert not frame.pixels.flags.writeable and not frame.pixels.flags.owndata


def test_many_frames_come_in_order_whoever_waits(listener, caller):
    received = []

    def listen():
        while len(received) < 300:
            received.extend(listener.receive(200))

    thread = threading.Thread(target=listen)
    thread.start()
    for sequence in range(300):
        said(caller, a_frame(64, sequence))
    thread.join(PATIENCE_S)
    assert [message.frame.info.sequence for _, message in received] == list(range(300))


def test_an_address_tells_the_real_port(listener):
    assert read_address(listener.address).port > 0


@pytest.mark.parametrize("address", ["tcp://localhost:0", "tcp://127.0.0.1:*", "tcp://127.0.0.1:0"])
def test_loopback_in_every_spelling(address):
    with Listener(address) as listener, Caller(listener.address) as caller:
        said(caller, End("run_1"))
        assert heard(listener)[0][1].run == "run_1"


def test_ipv6():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    with Listener("tcp://[::1]:0") as listener, Caller(listener.address) as caller:
        said(caller, End("run_1"))
        assert heard(listener)[0][1].run == "run_1"


@pytest.mark.skipif(not zmq.has("ipc"), reason="this ZeroMQ has no ipc")
def test_ipc(tmp_path):
    with Listener(f"ipc://{tmp_path}/s") as listener, Caller(listener.address) as caller:
        said(caller, End("run_1"))
        assert heard(listener)[0][1].run == "run_1"
        with pytest.raises(WireError, match="in use"):
            Listener(listener.address)


# --- nobody there, gone, back again ------------------------------------------------------------------------------------


def test_nobody_there_is_said_at_once_and_nothing_piles_up(unused_port):
    with Caller(f"tcp://127.0.0.1:{unused_port}") as caller:
        assert not any(caller.send(a_frame(64, n)) for n in range(50))
        with Listener(f"tcp://127.0.0.1:{unused_port}") as listener:
            said(caller, End("the only one"))
            assert [message.run for _, message in heard(listener)] == ["the only one"]
            assert listener.receive(100) == []


def test_a_new_process_hears_nothing_that_was_said_to_the_old_one(unused_port):
    address = f"tcp://127.0.0.1:{unused_port}"
    with Caller(address) as caller:
        with Listener(address) as old:
            said(caller, Hello("hook"))
            heard(old)
            sent = 0
            while caller.send(a_frame(1024, sent)):  # the old one has stopped reading
                sent += 1
            assert sent > 0
        with Listener(address) as new:
            said(caller, End("after"))
            assert [type(message) for _, message in heard(new)] == [End]


def test_after_a_restart_the_caller_is_back_in_a_second(unused_port):
    address = f"tcp://127.0.0.1:{unused_port}"
    with Caller(address) as caller:
        for _ in range(3):
            with Listener(address) as listener:
                client = greeted(listener, caller)
                assert listener.send(client, Beat(credit=3))
                assert got(caller)[0].credit == 3


def test_a_caller_whom_another_program_turned_away_finds_the_restore_process_later(unused_port):
    """ZeroMQ itself would give up for ever once the other side broke its protocol."""
    with Caller(f"tcp://127.0.0.1:{unused_port}") as caller:
        with socket.create_server(("127.0.0.1", unused_port)) as other:
            other.setblocking(False)
            end, turned_away = time.monotonic() + PATIENCE_S, 0
            while turned_away < 3:
                assert time.monotonic() < end, "it did not call again"
                caller.receive(20)
                with suppress(BlockingIOError):
                    connection, _ = other.accept()
                    connection.sendall(b"\xff" * 9 + b"\x7f" + b"\xff" * 100)
                    connection.close()
                    turned_away += 1
        with Listener(f"tcp://127.0.0.1:{unused_port}") as listener:
            assert listener.send(greeted(listener, caller), Beat(credit=7))
            assert got(caller)[0].credit == 7


def test_a_message_too_long_for_the_listener_costs_the_connection_and_no_more(listener, caller):
    """As after any broken protocol, ZeroMQ gives the address up; the caller does not."""
    client = greeted(listener, caller)
    caller._socket.send(bytes(LARGEST_FRAME + 1), copy=False)
    end, found = time.monotonic() + PATIENCE_S, []
    while Beat(credit=9) not in found:
        assert time.monotonic() < end
        caller.send(Beat(credit=9))
        caller.receive(20)
        found += [message for _, message in listener.receive(20)]
    assert listener.send(client, Beat())


def test_a_client_keeps_its_name_over_a_broken_connection(unused_port):
    address = f"tcp://127.0.0.1:{unused_port}"
    clients = []
    with Caller(address) as caller:
        for _ in range(2):
            with Listener(address) as listener:
                clients.append(greeted(listener, caller))
    assert clients[0] == clients[1]


def test_a_client_that_is_gone_is_known_to_be_gone(listener):
    with Caller(listener.address) as caller:
        said(caller, Hello("viewer"))
        client, _ = heard(listener)[0]
        assert listener.send(client, Beat())
    end = time.monotonic() + PATIENCE_S
    while listener.send(client, Beat()):
        assert time.monotonic() < end
        listener.receive(10)
    assert not listener.send(b"nobody", Beat())


def test_a_client_that_does_not_read_cannot_stop_the_listener(listener, caller):
    said(caller, Hello("viewer"))
    client, _ = heard(listener)[0]
    view = View(1, raw=np.zeros((1024, 1024), np.uint16))
    sent = 0
    while listener.send(client, view):
        sent += 1
        assert sent < 1000, "what is not read piles up"
    assert sent > 0
    with Caller(listener.address) as other:
        said(other, Hello("hook"))
        assert heard(listener)[0][1] == Hello("hook")


def test_a_frame_that_found_no_room_is_announced_when_there_is(listener, caller):
    said(caller, a_frame(1024))
    while caller.send(a_frame(1024)):
        pass
    stop = threading.Event()

    def drain():
        while not stop.is_set():
            listener.receive(20)

    thread = threading.Thread(target=drain)
    thread.start()
    begun = time.monotonic()
    assert caller.receive(PATIENCE_S * 1000) == []
    assert time.monotonic() - begun < PATIENCE_S / 2
    said(caller, a_frame(16))
    stop.set()
    thread.join(PATIENCE_S)


SERVER = """
import sys
from live_restore.wire.sockets import Listener
from live_restore.wire.messages import Welcome, Hello, Receipt, FrameSent
with Listener(sys.argv[1]) as listener:
    print(listener.address, flush=True)
    while True:
        for client, message in listener.receive(1000):
            if isinstance(message, Hello):
                listener.send(client, Welcome("a session"))
            if isinstance(message, FrameSent):
                listener.send(client, Receipt("run_1", (message.frame.info.sequence,), 1))
"""


def a_server(address):
    process = subprocess.Popen([sys.executable, "-c", SERVER, address], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_a_process_that_is_killed_is_noticed_and_its_successor_found():
    process, address = a_server(ANYWHERE)
    try:
        with Caller(address) as caller:
            assert caller.ask(Hello("hook"), PATIENCE_S) == Welcome("a session")
            assert caller.send(a_frame(2048, 7))
            assert got(caller)[0].sequences == (7,)
            process.kill()
            process.wait()
            end = time.monotonic() + PATIENCE_S
            while caller.send(Beat()):
                assert time.monotonic() < end
                caller.receive(20)
            process, _ = a_server(address)
            assert caller.ask(Hello("hook"), PATIENCE_S) == Welcome("a session")
            said(caller, a_frame(2048, 8))
            assert got(caller)[0].sequences == (8,)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# --- waking ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["caller", "listener"])
def test_wake_ends_the_waiting(listener, caller, which):
    end = {"caller": caller, "listener": listener}[which]
    timer = threading.Timer(0.05, end.wake)
    begun = time.monotonic()
    timer.start()
    assert end.receive(PATIENCE_S * 1000) == []
    assert time.monotonic() - begun < PATIENCE_S / 2
    timer.join()


def test_wakes_before_the_waiting_are_one_wake(listener):
    for _ in range(10_000):
        listener.wake()
    assert listener.receive(PATIENCE_S * 1000) == []
    begun = time.monotonic()
    assert listener.receive(50) == []
    assert time.monotonic() - begun > 0.04


def test_no_wake_is_lost_however_many_threads_ring():
    """Whoever rings after putting something down finds it taken: the bell is never silent with work left."""
    waker, put, taken = Waker(), [0] * 4, 0

    def ring(which):
        for _ in range(5000):
            put[which] += 1
            waker.ring()

    threads = [threading.Thread(target=ring, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    poller = zmq.Poller()
    poller.register(waker.fileno(), zmq.POLLIN)
    while taken < 20_000:
        assert poller.poll(PATIENCE_S * 1000), f"{sum(put)} were put down, {taken} seen, and no ring"
        waker.hear()
        taken = sum(put)
    for thread in threads:
        thread.join()
    waker.close()


def test_waking_and_closing_what_is_closed_does_nothing(listener):
    caller = Caller(listener.address)
    for _ in range(2):
        caller.close()
        caller.wake()
    for _ in range(2):
        listener.close()
        listener.wake()


# --- asking ------------------------------------------------------------------------------------------------------------


def answering(listener, answers, stop):
    while not stop.is_set():
        for client, message in listener.receive(20):
            for answer in answers(message):
                listener.send(client, answer)


@pytest.fixture
def answered(listener):
    """Make the listener answer as told."""
    stop, threads = threading.Event(), []

    def begin(answers):
        threads.append(threading.Thread(target=answering, args=(listener, answers, stop)))
        threads[0].start()

    yield begin
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)


def test_asking_gives_the_answer_and_keeps_the_rest(answered, caller):
    answered(lambda message: [Beat(credit=1), Answer({"pid": 7}), Beat(credit=2)])
    assert caller.ask(Command("status"), PATIENCE_S).said == {"pid": 7}
    assert [beat.credit for beat in got(caller, 2)] == [1, 2]


def test_the_answer_to_an_earlier_question_is_not_taken_for_this_ones(listener, caller):
    with pytest.raises(WireError, match=r"did not answer within 0\.2 s; it is busy, or no restore"):
        said(caller, Hello("command"))
        caller.ask(Command("status"), 0.2)
    (client, _), (_, late) = heard(listener, 2)
    assert late.name == "status"
    listener.send(client, Answer({"late": True}))
    stop = threading.Event()
    thread = threading.Thread(target=answering, args=(listener, lambda _: [Answer({"late": False})], stop))
    thread.start()
    assert caller.ask(Command("status"), PATIENCE_S).said == {"late": False}
    stop.set()
    thread.join()


def test_asking_where_nobody_is_says_so(unused_port):
    with Caller(f"tcp://127.0.0.1:{unused_port}") as caller:
        with pytest.raises(WireError, match=f"no restore process answers at tcp://127.0.0.1:{unused_port}; start one with"):
            caller.ask(Command("status"), 0.2)


def test_asking_where_something_else_listens_says_so():
    """A web server, say: it takes the connection, and does not speak ZeroMQ."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port, stop = other.getsockname()[1], threading.Event()
        other.settimeout(0.05)

        def rude():
            while not stop.is_set():
                try:
                    connection, _ = other.accept()
                except TimeoutError:
                    continue
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 4)
                connection.close()

        thread = threading.Thread(target=rude)
        thread.start()
        with Caller(f"tcp://127.0.0.1:{port}") as caller, pytest.raises(WireError, match="answer"):
            caller.ask(Command("status"), 1)
        stop.set()
        thread.join()


def test_a_process_that_goes_while_it_is_asked(unused_port):
    """Taken, and never answered."""
    address = f"tcp://127.0.0.1:{unused_port}"
    with Caller(address) as caller:
        listener = Listener(address)
        timer = threading.Timer(0.3, listener.receive, (0,))
        timer.start()
        with pytest.raises(WireError, match="did not answer within 1 s"):
            caller.ask(Command("status"), 1)
        timer.join()
        listener.close()


def test_what_is_not_answered_is_not_asked(caller):
    with pytest.raises(ValueError, match="Beat is not answered; ask with Hello, Ask, Command"):
        caller.ask(Beat(), 1)


# --- garbage -----------------------------------------------------------------------------------------------------------


def test_garbage_is_counted_and_the_next_message_read(listener):
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(listener.address)
        for parts in ([b"not json"], [b""], [b"{}"], [b"\xff" * 100], [b'{"v":1,"kind":"frame"}', b"x"], [b"x"] * 50):
            raw.send_multipart(parts)
        raw.send_multipart([b'{"v":1,"kind":"hello","role":"viewer"}'])
        messages = [message for _, message in heard(listener, 7)]
    assert messages.pop() == Hello("viewer")
    assert all(isinstance(message, BadMessage) for message in messages)
    assert listener.bad == 6


def test_garbage_from_the_server_is_counted():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as raw:
        raw.linger = 0
        port = raw.bind_to_random_port("tcp://127.0.0.1")
        with Caller(f"tcp://127.0.0.1:{port}") as caller:
            said(caller, Hello("hook"))
            client = raw.recv_multipart()[0]
            raw.send_multipart([client, b"garbage"])
            raw.send_multipart([client, b'{"v":1,"kind":"beat","credit":2}'])
            assert got(caller)[0].credit == 2
            assert caller.bad == 1


def test_what_is_no_zeromq_at_all_does_no_harm(listener, caller):
    host, port = listener.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        said(caller, Hello("hook"))
        found = []
        while Hello("hook") not in found:  # what the stranger said may count as bad messages of an early ZeroMQ
            found += [message for _, message in heard(listener)]
    assert listener.bad == len(found) - 1


def test_a_frame_too_large_for_the_wire_is_refused_by_its_sender(caller):
    huge = np.broadcast_to(np.uint16(0), (40_000, 40_000))
    with pytest.raises(ValueError, match="a frame of 3200000000 bytes is too large for the wire; 1073741824 are the limit"):
        caller.send(FrameSent(Frame(huge, FrameInfo("r", 0, VolumeKey()))))


# --- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:5757", "tcp://127.0.0.1", "tcp://:5757", "udp://127.0.0.1:1", "ipc://", "tcp://a b:1"]
)
def test_what_is_no_address(address):
    with pytest.raises(WireError, match="is no address; one looks like tcp:"):
        Caller(address)


def test_a_port_beyond_the_last():
    with pytest.raises(WireError, match="has the port 70000; ports end at 65535"):
        Listener("tcp://127.0.0.1:70000")


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.168.1.5:5757", "tcp://[::]:0", "tcp://gpu-box:5757"]
)
def test_beyond_this_machine_only_with_keys(address):
    with pytest.raises(WireError, match="let every machine of the network in: make keys with `live-restore keys FOLDER`"):
        Listener(address)
    with pytest.raises(WireError, match="unencrypted: make keys with `live-restore keys FOLDER`"):
        Caller(address)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://localhost:1", "ipc:///run/x"]
)
def test_what_is_loopback(address):
    assert read_address(address).loopback


def test_an_address_in_use(listener):
    port = read_address(listener.address).port
    with pytest.raises(WireError, match=f"port {port} of .* is in use, .*`live-restore status`.*--address"):
        Listener(listener.address)


def test_an_address_of_another_machine(tmp_path):
    from live_restore.wire.security import ServerKeys, make_keys

    make_keys(tmp_path)
    with pytest.raises(WireError, match="this machine cannot listen at tcp:"):
        Listener("tcp://192.0.2.1:5757", ServerKeys.read(tmp_path))


def test_a_listener_that_could_not_be_made_leaves_the_port_free(unused_port):
    address = f"tcp://127.0.0.1:{unused_port}"
    with Listener(address), pytest.raises(WireError, match="in use"):
        Listener(address)
    with Listener(address) as again:
        assert again.address == address


@pytest.fixture
def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_receipts_do_not_need_pixels(listener, caller):
    said(caller, Hello("hook"))
    client, _ = heard(listener)[0]
    listener.send(client, Receipt("run_1", tuple(range(1000)), 5, "no model"))
    (receipt,) = got(caller)
    assert (receipt.sequences, receipt.credit, receipt.refused) == (tuple(range(1000)), 5, "no model")
