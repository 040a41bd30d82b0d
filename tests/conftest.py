"""Fixtures that every test may use."""

import signal
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def ctrl_c_means_what_it_does_at_a_terminal():
    """Give every test Python's own Ctrl-C, whatever the test before or the one who started us left behind."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def engines_are_cached_apart(tmp_path_factory):
    """Keep certificates and engines of tests, and the secret that seals them, out of the user's folders."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LIVE_RESTORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("LIVE_RESTORE_CONFIG", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and models, which is no part of the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real images and models are not on this machine (looked in {folder})")
    return folder
