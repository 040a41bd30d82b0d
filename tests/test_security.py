"""Keys: made, read, and a wire that lets in only those who have the right ones; with real sockets."""

import logging
import os
import re
import socket
import threading
import time

import numpy as np
import pytest
import zmq
import zmq.auth

from live_restore.errors import WireError
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.wire.messages import Answer, Command, FrameSent, Hello, Welcome
from live_restore.wire.security import ClientKeys, ServerKeys, admit, make_keys
from live_restore.wire.sockets import Caller, Listener

ANYWHERE = "tcp://127.0.0.1:0"
PATIENCE_S = 20


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder of keys for a server and two clients."""
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, ("client", "viewer"))
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Keys of another installation."""
    folder = tmp_path_factory.mktemp("foreign")
    make_keys(folder)
    return folder


def replace_server(keys, foreign):
    """Give a client's keys that trust another server."""
    ours, theirs = ClientKeys.read(keys, "client"), ClientKeys.read(foreign)
    return ClientKeys(ours.public, ours.secret, theirs.server)


def test_what_is_written(tmp_path):
    folder = tmp_path / "new" / "keys"
    written = make_keys(folder, ("rig",))
    assert sorted(str(path.relative_to(folder)) for path in written) == sorted(
        ["server.key", "server.key_secret", "rig.key", "rig.key_secret", os.path.join("authorized", "rig.key")]
    )
    assert all(path.is_file() for path in written)
    if os.name == "posix":
        assert all((path.stat().st_mode & 0o077 == 0) == (path.suffix == ".key_secret") for path in written)
    public, secret = zmq.auth.load_certificate(folder / "server.key_secret")
    assert zmq.curve_public(secret) == public == zmq.auth.load_certificate(folder / "server.key")[0]


def test_more_clients_keep_the_servers_keys(keys, tmp_path):
    make_keys(tmp_path)
    before = (tmp_path / "server.key_secret").read_bytes()
    make_keys(tmp_path, ("second",))
    assert (tmp_path / "server.key_secret").read_bytes() == before
    assert len(ServerKeys.read(tmp_path).authorized) == 2


def test_nothing_is_replaced_and_nothing_half_done(tmp_path):
    make_keys(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.key*")}
    with pytest.raises(WireError, match=r"client\.key is there already, and keys are never replaced; name another"):
        make_keys(tmp_path, ("new", "client"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.key*")} == before


@pytest.mark.parametrize("name", ["", "a/b", "..", "server", "a b"])
def test_names_that_no_client_may_have(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be the name of a client; use letters, digits and _"):
        make_keys(tmp_path, (name,))


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(WireError, match=r"keys cannot be written to .*; give a folder that you may write to"):
        make_keys(tmp_path / "file" / "keys")


def test_secrets_are_not_shown(keys):
    for read in (ServerKeys.read(keys), ClientKeys.read(keys)):
        assert read.secret.decode() not in repr(read)


def test_what_a_folder_may_lack(tmp_path):
    with pytest.raises(WireError, match=r"key file .*server\.key_secret cannot be read; make keys with `live-restore keys"):
        ServerKeys.read(tmp_path)
    make_keys(tmp_path)
    (tmp_path / "authorized" / "client.key").unlink()
    with pytest.raises(WireError, match=r"no client is let in: .*authorized holds no \.key file"):
        ServerKeys.read(tmp_path)
    (tmp_path / "server.key").unlink()
    with pytest.raises(WireError, match=r"server\.key cannot be read"):
        ClientKeys.read(tmp_path)


def test_files_that_hold_no_key(tmp_path):
    make_keys(tmp_path)
    card, hidden = tmp_path / "server.key", tmp_path / "client.key_secret"
    for text in ("", "public-key = 7", 'public-key = "' + "\x7f" * 40 + '"'):
        card.write_text(text, encoding="utf-8")
        with pytest.raises(WireError, match=r"server\.key holds no public key; make keys anew"):
            ClientKeys.read(tmp_path)
    hidden.write_text(re.sub("secret-key.*", "", hidden.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(WireError, match=r"client\.key_secret holds no secret key"):
        ClientKeys.read(tmp_path)


def test_which_client_is_meant(keys, tmp_path):
    assert ClientKeys.read(keys) == ClientKeys.read(keys, "client") != ClientKeys.read(keys, "viewer")
    make_keys(tmp_path, ("one",))
    assert ClientKeys.read(tmp_path) == ClientKeys.read(tmp_path, "one")
    make_keys(tmp_path, ("two",))
    with pytest.raises(WireError, match=r"holds the secrets of several clients, one, two; give a folder with server\.key"):
        ClientKeys.read(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX'")
def test_a_secret_that_others_can_read_is_warned_of(tmp_path, caplog):
    make_keys(tmp_path)
    (tmp_path / "client.key_secret").chmod(0o644)
    with caplog.at_level(logging.WARNING):
        ClientKeys.read(tmp_path)
    assert "others on this machine can read the secret key" in caplog.text


# --- who is let in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        [],
        [b"1.0"],
        [b"1.0", b"1", b"d", b"a", b"", b"NULL"],
        [b"1.0", b"1", b"d", b"a", b"", b"CURVE", b"k" * 31],
        [b"2.0", b"1", b"d", b"a", b"", b"CURVE", b"k" * 32],
        [b"1.0", b"1", b"d", b"a", b"", b"PLAIN", b"k" * 32],
        [b"1.0", b"1", b"d", b"a", b"", b"CURVE", b"l" * 32],
    ],
)
def test_the_door_is_shut(request_):
    reply, admitted = admit(request_, frozenset({b"k" * 32}))
    assert not admitted
    assert reply[2] == b"400" and len(reply) == 6


def test_the_door_opens():
    reply, admitted = admit([b"1.0", b"7", b"d", b"a", b"", b"CURVE", b"k" * 32], frozenset({b"k" * 32}))
    assert admitted
    assert reply[:4] == [b"1.0", b"7", b"200", b"OK"]


class Serving:
    """A listener in a thread, that answers and remembers everything it hears."""

    def __init__(self, keys, address=ANYWHERE):
        self.listener = Listener(address, keys)
        self.address, self.heard, self.ending = self.listener.address, [], False
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        while not self.ending:
            for client, message in self.listener.receive(20):
                self.heard.append(message)
                if isinstance(message, Hello):
                    self.listener.send(client, Welcome("a session"))
                if isinstance(message, Command):
                    self.listener.send(client, Answer({"pid": 1}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join()
        self.listener.close()


@pytest.mark.parametrize("name", ["client", "viewer"])
def test_the_right_key_is_let_in(keys, name):
    with Serving(ServerKeys.read(keys)) as serving, Caller(serving.address, ClientKeys.read(keys, name)) as caller:
        assert caller.ask(Hello("hook"), PATIENCE_S) == Welcome("a session")
        pixels = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
        assert caller.send(FrameSent(Frame(pixels, FrameInfo("r", 0, VolumeKey()))))
        assert caller.ask(Command("status"), PATIENCE_S).said == {"pid": 1}
        assert np.array_equal(serving.heard[1].frame.pixels, pixels)
        assert serving.listener.turned_away == 0


def test_a_key_that_is_not_authorized_gets_nothing(keys, foreign):
    stranger = ClientKeys.read(foreign)
    stranger = ClientKeys(stranger.public, stranger.secret, ServerKeys.read(keys).public)
    with Serving(ServerKeys.read(keys)) as serving, Caller(serving.address, stranger) as caller:
        with pytest.raises(WireError, match="turned us away: its keys and ours do not belong together"):
            caller.ask(Hello("hook"), 1)
        assert serving.listener.turned_away > 0
        assert serving.heard == [] and serving.listener.bad == 0
        assert not caller.send(Hello("hook"))


def test_no_key_gets_nothing(keys):
    with Serving(ServerKeys.read(keys)) as serving, Caller(serving.address) as caller:
        with pytest.raises(WireError, match=r"turned us away: .* only one side has some"):
            caller.ask(Hello("hook"), 1)
        assert serving.heard == [] and serving.listener.bad == 0


def test_a_server_with_another_key_gets_nothing(keys, foreign):
    """The client knows its restore process by its key: an impostor is told nothing."""
    with Serving(ServerKeys.read(keys)) as serving, Caller(serving.address, replace_server(keys, foreign)) as caller:
        with pytest.raises(WireError, match=r"answer|turned us away"):
            caller.ask(Hello("hook"), 1)
        assert serving.heard == [] and serving.listener.bad == 0


def test_keys_where_the_server_has_none_get_nothing(keys):
    with Serving(None) as serving, Caller(serving.address, ClientKeys.read(keys)) as caller:
        with pytest.raises(WireError, match="turned us away"):
            caller.ask(Hello("hook"), 1)
        assert serving.heard == []


def test_who_was_turned_away_is_let_in_once_the_server_has_its_keys(keys, foreign):
    """The hook need not be started anew when the restore process was started with the wrong folder."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with Caller(address, ClientKeys.read(keys)) as caller:
        for wrong in (None, ServerKeys.read(foreign)):
            with Serving(wrong, address), pytest.raises(WireError, match=r"turned us away|no restore process answers"):
                caller.ask(Hello("hook"), 0.7)
        with Serving(ServerKeys.read(keys), address):
            assert caller.ask(Hello("hook"), PATIENCE_S) == Welcome("a session")


@pytest.mark.parametrize("wrong", ["no keys", "other keys"])
def test_who_was_turned_away_is_let_in_without_asking(keys, foreign, wrong):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with Caller(address, ClientKeys.read(keys)) as caller:
        with Serving(None if wrong == "no keys" else ServerKeys.read(foreign), address):
            end = time.monotonic() + 0.7
            while time.monotonic() < end:
                assert not caller.send(Hello("hook"))
                assert caller.receive(50) == []
        with Serving(ServerKeys.read(keys), address):
            end = time.monotonic() + PATIENCE_S
            while not caller.send(Hello("hook")):
                assert time.monotonic() < end
                caller.receive(50)


def test_strangers_at_the_door_do_not_keep_friends_out(keys, foreign):
    stranger = ClientKeys.read(foreign)
    stranger = ClientKeys(stranger.public, stranger.secret, ServerKeys.read(keys).public)
    with Serving(ServerKeys.read(keys)) as serving:
        strangers = [Caller(serving.address, stranger) for _ in range(5)]
        with Caller(serving.address, ClientKeys.read(keys)) as caller:
            assert caller.ask(Hello("hook"), PATIENCE_S) == Welcome("a session")
        for one in strangers:
            one.close()


def test_waiting_times_out_in_spite_of_knocking(keys, foreign):
    stranger = ClientKeys.read(foreign)
    stranger = ClientKeys(stranger.public, stranger.secret, ServerKeys.read(keys).public)
    with Listener(ANYWHERE, ServerKeys.read(keys)) as listener, Caller(listener.address, stranger):
        begun = time.monotonic()
        assert listener.receive(300) == []
        assert time.monotonic() - begun < PATIENCE_S / 2


def test_every_network_card_with_keys(keys):
    """Beyond loopback with keys: bound to all cards, called by this machine's own name for itself."""
    with Listener("tcp://*:0", ServerKeys.read(keys)) as listener:
        port = int(listener.address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)):
            pass
        with Caller(f"tcp://127.0.0.1:{port}", ClientKeys.read(keys)) as caller:
            end, heard = time.monotonic() + PATIENCE_S, []
            while not heard and time.monotonic() < end:
                caller.send(Hello("hook"))
                heard = listener.receive(20)
            assert heard[0][1] == Hello("hook")


def test_what_goes_over_the_wire_is_encrypted(keys):
    """A relay in the middle sees none of what a plain connection shows."""
    word = "a run that nobody else shall know of"
    seen = {encrypted: _overheard(keys, encrypted, word) for encrypted in (False, True)}
    assert word.encode() in seen[False]
    assert word.encode() not in seen[True] and len(seen[True]) > len(word)


def _overheard(keys, encrypted, word):
    server, client = (ServerKeys.read(keys), ClientKeys.read(keys)) if encrypted else (None, None)
    with Serving(server) as serving, socket.create_server(("127.0.0.1", 0)) as relay:
        heard, ends = bytearray(), []

        def carry(source, target):
            try:
                while chunk := source.recv(65536):
                    heard.extend(chunk)
                    target.sendall(chunk)
            except OSError:
                pass

        def accept():
            inner, _ = relay.accept()
            host, port = serving.address.removeprefix("tcp://").split(":")
            outer = socket.create_connection((host, int(port)))
            ends.extend((inner, outer))
            threads = [threading.Thread(target=carry, args=pair) for pair in ((inner, outer), (outer, inner))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        thread = threading.Thread(target=accept)
        thread.start()
        with Caller(f"tcp://127.0.0.1:{relay.getsockname()[1]}", client) as caller:
            assert caller.ask(Hello("hook", word), PATIENCE_S) == Welcome("a session")
        for end in ends:
            end.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)
        for end in ends:
            end.close()
        return bytes(heard)
