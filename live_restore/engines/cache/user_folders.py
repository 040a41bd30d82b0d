"""The user's folders: where a cache and where settings go on this operating system.

Receives the environment; hands on paths, without making them. It does not know what is kept there.
"""

import os
from pathlib import Path

import platformdirs

NAME = "live_restore"
CACHE_VARIABLE = "LIVE_RESTORE_CACHE"
CONFIG_VARIABLE = "LIVE_RESTORE_CONFIG"


def cache_folder() -> Path:
    """Where what can be made again is kept; the environment's ``LIVE_RESTORE_CACHE`` overrules the platform."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return platformdirs.user_cache_path(NAME, appauthor=False)


def config_folder() -> Path:
    """Where what belongs to the user of this machine is kept; ``LIVE_RESTORE_CONFIG`` overrules the platform.

    On Windows not in the profile that roams: the secret of a machine must not follow its user to another one.
    """
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named).expanduser()
    return platformdirs.user_config_path(NAME, appauthor=False)
