"""The user's folders: where a cache and where settings go on this operating system.

Receives the environment; hands on paths, without making them. It does not know what is kept there.
"""

import os
from pathlib import Path

import platformdirs

NAME = "live_restore"
CACHE_VARIABLE = "LIVE_RESTORE_CACHE"


def cache_folder() -> Path:
    """Where what can be made again is kept; the environment's ``LIVE_RESTORE_CACHE`` overrules the platform."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return platformdirs.user_cache_path(NAME, appauthor=False)


def config_folder() -> Path:
    """Where what belongs to the user of this machine is kept."""
    return platformdirs.user_config_path(NAME, appauthor=False, roaming=True)
