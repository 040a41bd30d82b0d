"""Who may see the preview: the address it listens on, the Host and Origin of a request, and the token.

Receives a host name, a token and the headers of a request; hands on a refusal in words, or none. Pure.

A web page that somebody opens elsewhere must not be able to watch the microscope: its requests carry a foreign Origin
(cross-site WebSocket hijacking) or, where its name was made to point here, a foreign Host (DNS rebinding). A page that
other machines may open wants a token as well.
"""

import hmac
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from live_restore.errors import WireError

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,128}")


class Door:
    """Decides on requests.

    Parameters
    ----------
    host : str
        The address that the page is served on.
    token : str or None
        What a visitor must show; None: nothing.

    Raises
    ------
    WireError
        If the host is not loopback and there is no token, or the token is short or has characters that an address cannot hold.
    """

    def __init__(self, host: str, token: str | None = None) -> None:
        if token is None and not is_loopback(host):
            raise WireError(
                f"the preview on {host!r} could be opened from other machines; give it a token of at least 16 letters and "
                "digits, or serve it on 127.0.0.1"
            )
        if token is not None and not _TOKEN.fullmatch(token):
            raise WireError(
                f"the preview's token has {len(token)} characters; it needs 16 to 128 letters, digits or any of . _ ~ -"
            )
        self._loopback_only = is_loopback(host)
        self._token = token

    def refusal(self, headers: Mapping[str, str], *, websocket: bool) -> str:
        """Say why a request is turned away at the door whatever its token; empty if it is not."""
        host = headers.get("host", "")
        if self._loopback_only and not is_loopback(_name_of(host)):
            return f"this preview is served to this machine only, and {host!r} is not its name; open it as localhost"
        origin = headers.get("origin", "")
        if (origin or websocket) and urlsplit(origin).netloc.lower() != host.lower():
            return f"a page of {origin or 'nowhere'!r} may not look into the preview"
        return ""

    def admits(self, shown: str | None) -> bool:
        """Whether this token opens the door; takes as long for a wrong one as for the right one."""
        return self._token is None or hmac.compare_digest((shown or "").encode(), self._token.encode())


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and no other can reach it."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """Take the port off a Host header."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
