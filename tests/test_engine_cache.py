"""The cache of engines: what comes back, what is refused and why, and what a full disk or another process does to it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from live_restore.engines.cache.engine_cache import FILE, EngineCache, EngineKey
from live_restore.engines.cache.machine_secret import FILE as SECRET_FILE
from live_restore.engines.cache.machine_secret import machine_secret
from live_restore.engines.cache.user_folders import cache_folder, config_folder
from live_restore.engines.certificates.certificate import Certificate, Tolerance
from live_restore.errors import EngineError

KEY = EngineKey(
    onnx_sha256="ab" * 32,
    flavour="tensorrt_rtx",
    flavour_version="1.7.1.116",
    device="NVIDIA GeForce RTX 4070",
    capability="8.9",
    driver="13.0",
    precision="f16",
    profile="frames 1x16x16..1x4096x4096, best 1x2048x2048",
    recipe_sha256="cd" * 32,
)
ENGINE = bytes(range(256)) * 300 + b"\n{\n"
TENTHS = (1e-4, -2e-4) * 5
CERTIFICATE = Certificate("tensorrt, f16", 8, "8 held-out pairs", 3e-4, 0.001, 0.8, True, TENTHS, Tolerance(0.05, 1e-2))


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache", secret=b"s" * 32)


def test_what_was_stored_comes_back(cache):
    path = cache.store(KEY, ENGINE, CERTIFICATE, name="tubulin")
    assert cache.holds(KEY) and cache.load(KEY) == ENGINE and cache.certificate(KEY) == CERTIFICATE
    (entry,) = cache.entries()
    assert (entry.name, entry.key, entry.path, entry.engine_bytes) == ("tubulin", KEY, path, len(ENGINE)) and entry.sealed_here
    assert path == cache.path(KEY) and path.is_relative_to(cache.root / "tensorrt_rtx")


def test_a_certificate_needs_no_engine(cache):
    key = replace(KEY, flavour="openvino", precision="bf16")
    cache.store(key, b"", CERTIFICATE)
    assert cache.load(key) == b"" and cache.certificate(key) == CERTIFICATE


def test_a_certificate_comes_later(cache):
    cache.store(KEY, ENGINE, name="tubulin")
    assert cache.certificate(KEY) is None
    cache.certify(KEY, CERTIFICATE)
    assert cache.certificate(KEY) == CERTIFICATE and cache.load(KEY) == ENGINE and next(cache.entries()).name == "tubulin"


def test_a_second_engine_takes_the_place_of_the_first(cache):
    cache.store(KEY, ENGINE)
    cache.store(KEY, b"another")
    assert cache.load(KEY) == b"another" and [path.name for path in cache.path(KEY).parent.iterdir()] == [FILE]


def test_nothing_there_is_said(cache):
    assert not cache.holds(KEY) and cache.certificate(KEY) is None and list(cache.entries()) == []
    with pytest.raises(EngineError, match=r"no engine yet of this network for NVIDIA GeForce RTX 4070 \(8\.9\).*it is built$"):
        cache.load(KEY)


@pytest.mark.parametrize("field", [field.name for field in fields(EngineKey)])
def test_every_field_of_the_key_matters(cache, field):
    cache.store(KEY, ENGINE)
    other = replace(KEY, **{field: "other"})
    assert other.folder != KEY.folder and not cache.holds(other)
    with pytest.raises(EngineError, match="it is built"):
        cache.load(other)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("device", "NVIDIA GeForce RTX 3060", "another device"),
        ("driver", "12.8", "another driver"),
        ("flavour_version", "1.4", "another version"),
        ("capability", "8.6", "another compute capability"),
    ],
)
def test_an_engine_for_something_else_is_named(cache, field, value, word):
    cache.store(replace(KEY, **{field: value}), ENGINE)
    with pytest.raises(EngineError, match=rf"was built for .*{value}.*{word}\): it is built again"):
        cache.load(KEY)


def test_an_entry_of_another_key_in_its_place_is_refused(cache):
    elsewhere = cache.store(replace(KEY, device="NVIDIA GeForce RTX 3060"), ENGINE)
    cache.path(KEY).parent.mkdir(parents=True)
    cache.path(KEY).write_bytes(elsewhere.read_bytes())  # its folder was renamed, its seal is whole
    with pytest.raises(EngineError, match=r"built for NVIDIA GeForce RTX 3060 .*another device"):
        cache.load(KEY)


def test_an_engine_of_another_machine_is_refused_and_replaced(cache, tmp_path):
    there = EngineCache(tmp_path / "elsewhere", secret=b"t" * 32)
    carried = there.store(KEY, ENGINE, CERTIFICATE, "tubulin").read_bytes()
    cache.path(KEY).parent.mkdir(parents=True)
    cache.path(KEY).write_bytes(carried)
    with pytest.raises(
        EngineError, match=r"built on another machine, or changed since.*only what this machine built is loaded"
    ):
        cache.load(KEY)
    assert cache.certificate(KEY) is None and not next(cache.entries()).sealed_here
    cache.store(KEY, b"built here")
    assert cache.load(KEY) == b"built here"


def damages():
    return {
        "one bit of the engine": (lambda file: file[:-1] + bytes([file[-1] ^ 1]), "not what was stored there"),
        "the end is missing": (lambda file: file[:-100], "not what was stored there"),
        "something more": (lambda file: file + b"x", "not what was stored there"),
        "other words": (lambda file: file.replace(b"RTX 4070", b"RTX 4090", 1), "built on another machine, or changed since"),
        "another certificate": (lambda file: file.replace(b'"images":8', b'"images":9', 1), "changed since"),
        "no seal": (lambda file: file.replace(b'"seal"', b'"sead"', 1), "changed since"),
        "a seal that is no text": (lambda file: file.replace(b'"seal":"', b'"seal":["x"],"was":"', 1), "changed since"),
        "half a header": (lambda file: file[:40], "no entry of the engine cache, or a damaged one"),
        "nothing": (lambda file: b"", "no entry of the engine cache, or a damaged one"),
        "another format": (lambda file: file.replace(b'"format":1', b'"format":2', 1), "another version of live_restore"),
        "a list": (lambda file: b"[1]\n" + file, "another version of live_restore"),
        "no key": (lambda file: file.replace(b'"key"', b'"kez"', 1), "no entry of the engine cache"),
        "a key with less": (lambda file: file.replace(b'"driver"', b'"dribble"', 1), "no entry of the engine cache"),
        "deep nesting": (lambda file: b"[" * 200_000, "no entry of the engine cache, or a damaged one"),
    }


@pytest.mark.parametrize(("damage", "words"), damages().values(), ids=damages().keys())
def test_what_was_changed_is_refused(cache, damage, words):
    path = cache.store(KEY, ENGINE, CERTIFICATE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EngineError, match=words):
        cache.load(KEY)
    list(cache.entries())  # whoever lists the cache is not disturbed
    cache.store(KEY, ENGINE)
    assert cache.load(KEY) == ENGINE


def test_an_entry_that_cannot_be_read_is_said(cache):
    cache.path(KEY).mkdir(parents=True)
    with pytest.raises(EngineError, match=r"cannot be read .*it is built again"):
        cache.load(KEY)


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = EngineCache(tmp_path / "file" / "cache", secret=b"s" * 32)
    with pytest.raises(
        EngineError, match=r"cannot be kept in .*built again next time; make room there, or name another folder"
    ):
        cache.store(KEY, ENGINE)


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 1)() == 0, reason="this user may write everywhere")
def test_a_read_only_cache_is_still_read(cache):
    cache.store(KEY, ENGINE)
    folder = cache.path(KEY).parent
    folder.chmod(0o500)
    try:
        with pytest.raises(EngineError, match="cannot be kept"):
            cache.store(KEY, b"another")
        assert cache.load(KEY) == ENGINE
    finally:
        folder.chmod(0o700)


FULL_DISK = """
import resource
from pathlib import Path
from live_restore.engines.cache.engine_cache import EngineCache, EngineKey
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    EngineCache(Path({root!r}), b"s" * 32).store({key!r}, b"y" * 100_000)
except Exception as refused:
    print(type(refused).__name__, refused)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no limit to the size of a file")
def test_a_disk_that_is_full_leaves_what_was_there(cache):
    """A limit to the size of a file ends a write in the middle, as a full disk does."""
    cache.store(KEY, ENGINE)
    script = FULL_DISK.format(key=KEY, root=str(cache.root))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("EngineError the engine (0.1 MB) cannot be kept in")
    assert cache.load(KEY) == ENGINE and [path.name for path in cache.path(KEY).parent.iterdir()] == [FILE]


WRITER = """
import sys
from pathlib import Path
from live_restore.engines.cache.engine_cache import EngineCache, EngineKey
cache, key = EngineCache(Path(sys.argv[1]), b"s" * 32), {key!r}
for i in range(60):
    cache.store(key, sys.argv[2].encode() * 50_000, name=sys.argv[2])
    assert len(set(cache.load(key))) == 1
"""


def test_two_processes_store_the_same_engine(cache):
    """Each reads whole engines throughout, its own or the other's; in the end there is one, and nothing else."""
    command = [sys.executable, "-c", WRITER.format(key=KEY), str(cache.root)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "ab"]
    ended = [(writer.communicate(timeout=60)[1], writer.returncode) for writer in writers]
    assert [code for _, code in ended] == [0, 0], ended
    assert set(cache.load(KEY)) in ({ord("a")}, {ord("b")})
    assert [path.name for path in cache.path(KEY).parent.iterdir()] == [FILE]


def test_the_secret_is_made_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: machine_secret(tmp_path / "config"), range(40)))
    assert len(secrets) == 1 and len(secrets.pop()) == 32
    assert [path.name for path in (tmp_path / "config").iterdir()] == [SECRET_FILE]
    if os.name != "nt":
        assert (tmp_path / "config" / SECRET_FILE).stat().st_mode & 0o077 == 0


def test_another_folder_has_another_secret(tmp_path):
    assert machine_secret(tmp_path / "a") != machine_secret(tmp_path / "b")


@pytest.mark.parametrize("words", ["", "zz", "00" * 31, "ü" * 64])
def test_a_damaged_secret_is_said(tmp_path, words):
    (tmp_path / SECRET_FILE).write_text(words, encoding="utf-8")
    with pytest.raises(EngineError, match="does not hold a secret of 32 bytes; delete it, and all engines are built again"):
        machine_secret(tmp_path)


def test_a_secret_that_cannot_be_kept_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EngineError, match=r"cannot be kept in .*built anew at every start"):
        machine_secret(tmp_path / "file")


def test_the_secret_of_this_machine_seals(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_RESTORE_CONFIG", str(tmp_path / "one"))
    EngineCache(tmp_path / "cache").store(KEY, ENGINE)
    assert EngineCache(tmp_path / "cache").load(KEY) == ENGINE
    monkeypatch.setenv("LIVE_RESTORE_CONFIG", str(tmp_path / "other"))
    with pytest.raises(EngineError, match="built on another machine"):
        EngineCache(tmp_path / "cache").load(KEY)


def test_where_things_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path and EngineCache(secret=b"").root == tmp_path / "engines"
    monkeypatch.setenv("LIVE_RESTORE_CONFIG", str(tmp_path / "config"))
    assert config_folder() == tmp_path / "config"
    monkeypatch.delenv("LIVE_RESTORE_CACHE")
    monkeypatch.delenv("LIVE_RESTORE_CONFIG")
    assert cache_folder().is_absolute() and config_folder().is_absolute() and cache_folder() != config_folder()
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
        assert cache_folder() == Path.home() / ".cache" / "live_restore"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "live_restore"
