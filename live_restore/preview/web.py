"""The web page's server: static files, and one WebSocket per viewer.

Receives an address of a restore process and where to listen; hands on the page, and to every viewer the newest view
whenever it says that it can take one. It never sends what was not asked for, so a slow or sleeping browser costs no
memory. It does not know how views are made.
"""

import asyncio
import json
import logging
import os
import socket
import webbrowser
from collections.abc import Callable, Mapping
from importlib import resources
from threading import Thread
from time import monotonic, time
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from live_restore import __version__
from live_restore.errors import WireError
from live_restore.ledger import HOOK_COLUMNS, RESTORE_COLUMNS
from live_restore.preview.conversation import Link, Seen, Wish
from live_restore.preview.door import Door
from live_restore.preview.pictures import as_json, picture
from live_restore.preview.source import Watch
from live_restore.preview.windows import LARGEST_BLOCK, Window
from live_restore.wire.security import ClientKeys

_log = logging.getLogger(__name__)

PORT = 8757
# If the port is taken, by another preview most likely, the next free one of this many is used.
_PORTS = 20
# Every viewer has a thread and a connection of its own.
MOST_VIEWERS = 32
_LONGEST_WISH = 4096
_POLICY = 1008
_TRY_LATER = 1013

# Written down here because Windows' registry may say otherwise, and a browser refuses scripts of another type.
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def run(
    address: str,
    keys: ClientKeys | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    open_browser: bool = True,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the preview until Ctrl-C.

    Parameters
    ----------
    address : str
        Of the restore process; it need not be there yet.
    keys : ClientKeys or None
        For a restore process that wants them.
    host : str
        Where to listen; anything but loopback wants a token.
    port : int
        0: any free one. If it is taken, one of the next twenty is used; `ready` is told which.
    token : str or None
        What a visitor must show; it is part of the address that `ready` is told.
    open_browser : bool
        Whether to open the page in the user's browser.
    ready : callable or None
        Called with the page's address, once it is served.

    Raises
    ------
    WireError
        If the host is not loopback and there is no token, or no port is free.
    """
    preview = Preview(address, keys, host, port, token)

    def announce(url: str) -> None:
        if ready:
            ready(url)
        if open_browser:
            webbrowser.open(url)

    preview.serve(announce)


class Preview:
    """The page's server, in this thread with `serve`, or beside it as a context manager.

    Attributes
    ----------
    url : str
        Address of the page, with the token if there is one.
    """

    def __init__(
        self,
        address: str,
        keys: ClientKeys | None = None,
        host: str = "127.0.0.1",
        port: int = PORT,
        token: str | None = None,
    ) -> None:
        door = Door(host, token)
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = _url(host, self.port, token)
        self._thread: Thread | None = None
        app = build_app(address, keys, door, f"live_restore_{self.port}")
        self._server = _Announcing(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws="websockets-sansio",
                ws_max_size=_LONGEST_WISH,
                ws_per_message_deflate=False,  # pixels of noise do not shrink, and trying costs more than sending them
                timeout_graceful_shutdown=1,
            )
        )

    def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until stopped; `ready` is called once with the address."""
        self._server.announce = lambda: ready(self.url)
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            _log.debug("stopped by Ctrl-C")
        finally:
            self._socket.close()

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        self._thread = Thread(target=self.serve, args=(lambda url: None,), name="preview", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._thread:
            self._thread.join(timeout=10)


class _Announcing(uvicorn.Server):
    """Tells when it has begun to listen."""

    announce: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await asyncio.to_thread(self.announce)


def _listen(host: str, port: int) -> socket.socket:
    """Open the port, or the next that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last: OSError | None = None
    for candidate in range(port, min(port + _PORTS, 65536)) if port else (0,):
        try:
            return _bind(family, host, candidate)
        except OSError as taken:
            last = taken
    raise WireError(f"the preview cannot listen on {host}, ports {port} to {port + _PORTS - 1} ({last}); name another --port")


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a restart finds its port again
        opened.bind((host, port))
        opened.listen(64)  # on some systems a port is refused here and not before
    except OSError:
        opened.close()
        raise
    return opened


def _url(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def build_app(address: str, keys: ClientKeys | None, door: Door, cookie: str = "live_restore") -> Starlette:
    """Make the application.

    Parameters
    ----------
    address : str
        Of the restore process.
    keys : ClientKeys or None
    door : Door
        Who may come in.
    cookie : str
        Where the browser keeps the token; one name per port, for cookies know no ports.
    """
    visitors = _Visitors(address, keys, door, cookie)
    return Starlette(
        routes=[
            Route("/", visitors.page),
            Route("/static/{name}", visitors.file),
            WebSocketRoute("/watch", visitors.watch),
        ]
    )


class _Visitors:
    """What is done with requests."""

    def __init__(self, address: str, keys: ClientKeys | None, door: Door, cookie: str) -> None:
        self._address, self._keys, self._door, self._cookie = address, keys, door, cookie
        self._files = _static_files()
        self._watching = 0

    async def page(self, request: Request) -> Response:
        """Serve the page; a token in its address becomes a cookie, so that it does not stay in the history."""
        shown = request.query_params.get("token")
        if not self._door.refusal(request.headers, websocket=False) and shown is not None and self._door.admits(shown):
            response = RedirectResponse("/", status_code=303, headers=_HEADERS)
            response.set_cookie(self._cookie, shown, httponly=True, samesite="lax")
            return response
        return self._serve(request, "index.html")

    async def file(self, request: Request) -> Response:
        """Serve a static file."""
        return self._serve(request, request.path_params["name"])

    def _serve(self, request: Request, name: str) -> Response:
        refusal = self._door.refusal(request.headers, websocket=False)
        if not refusal and not self._door.admits(request.cookies.get(self._cookie)):
            refusal = "this preview wants its token; open the whole address that 'live-restore view' printed"
        if refusal:
            return PlainTextResponse(refusal, status_code=403, headers=_HEADERS)
        if name not in self._files:
            return PlainTextResponse(f"the preview has no file {name!r}", status_code=404, headers=_HEADERS)
        return Response(self._files[name], media_type=_TYPES[f".{name.rpartition('.')[2]}"], headers=_HEADERS)

    async def watch(self, websocket: WebSocket) -> None:
        """Show one viewer the newest view, again and again."""
        refusal = self._door.refusal(websocket.headers, websocket=True)
        if refusal or not self._door.admits(websocket.cookies.get(self._cookie)):
            await websocket.close(_POLICY, refusal or "this preview wants its token")
            return
        await websocket.accept()
        if self._watching >= MOST_VIEWERS:
            await websocket.close(_TRY_LATER, f"{MOST_VIEWERS} viewers are watching already; close one")
            return
        self._watching += 1
        try:
            await _attend(websocket, self._address, self._keys)
        finally:
            self._watching -= 1


async def _attend(websocket: WebSocket, address: str, keys: ClientKeys | None) -> None:
    await websocket.send_text(as_json(_introduction(address)))
    newest, loop, words = _Newest(), asyncio.get_running_loop(), _Words()

    def deliver(what: Seen | Link) -> None:
        try:
            loop.call_soon_threadsafe(newest.put, words.of(what))
        except RuntimeError:  # the loop has ended, and with it the viewer
            _log.debug("a view came after the page's server had ended")

    watch = Watch(address, keys, deliver)
    try:
        await _both(_listen_to(websocket, watch), _send_to(websocket, newest))
    finally:
        await asyncio.to_thread(watch.close)


def _introduction(address: str) -> dict[str, Any]:
    return {
        "kind": "welcome",
        "software": f"live_restore {__version__}",
        "address": address,
        "columns": {"hook": HOOK_COLUMNS, "restore": RESTORE_COLUMNS},
    }


Said = dict[str, bytes | str]
# In this order they are sent: the status of a view is there before its pixels.
_KINDS = ("link", "status", "view")


class _Words:
    """Puts what one viewer is told into words: a status once, however many views it belongs to."""

    def __init__(self) -> None:
        self._status: Mapping[str, Any] = {}

    def of(self, what: Seen | Link) -> Said:
        """Give the messages, by kind."""
        if isinstance(what, Link):
            heard_s = time() - (monotonic() - what.heard_s) if what.session else None
            said = {"kind": "link", "state": what.state, "session": what.session, "heard_unix_s": heard_s, "why": what.why}
            return {"link": as_json(said)}
        if what.view.status is self._status:
            return {"view": picture(what)}
        self._status = what.view.status
        return {"status": as_json({"kind": "status", "status": dict(self._status)}), "view": picture(what)}


class _Newest:
    """Holds the newest message of each kind until it can be sent; older ones are forgotten."""

    def __init__(self) -> None:
        self._held: Said = {}
        self._came = asyncio.Event()

    def put(self, said: Said) -> None:
        self._held |= said
        self._came.set()

    async def take(self) -> list[bytes | str]:
        """Wait for something, and give what there is: the word on the link first."""
        await self._came.wait()
        self._came.clear()
        held, self._held = self._held, {}
        return [held[kind] for kind in _KINDS if kind in held]


async def _listen_to(websocket: WebSocket, watch: Watch) -> None:
    while True:
        try:
            watch.want(_wish(await websocket.receive_text()))
        except WebSocketDisconnect:
            return
        except (KeyError, TypeError, ValueError) as refused:
            await websocket.close(_POLICY, f"not a wish: {refused}"[:100])
            return


async def _send_to(websocket: WebSocket, newest: _Newest) -> None:
    while True:
        for what in await newest.take():
            await (websocket.send_text(what) if isinstance(what, str) else websocket.send_bytes(what))


async def _both(*tasks: Any) -> None:
    """Run until the first of them ends, and end the others."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect):
            _log.debug("a viewer's line ended: %r", error)


_WISH = {"serial": int, "position": str, "channel": str, "z": int, "trust": bool, "region": list, "block": int}


def _wish(text: str) -> Wish:
    """Read what the page asks for.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is no wish.
    """
    said = json.loads(text)
    for name, kind in _WISH.items():
        if type(said[name]) is not kind:
            raise ValueError(f"{name} must be {kind.__name__}, not {said[name]!r}")
    if not -1 <= said["z"] < 1 << 16 or not 0 <= said["serial"] < 1 << 53 or not 1 <= said["block"] <= LARGEST_BLOCK:
        raise ValueError("z, serial or block is out of range")
    window = Window(_region(said.pop("region")), said.pop("block"))
    return Wish(**{name: said[name] for name in _WISH if name in said}, window=window)


def _region(sides: list[Any]) -> tuple[int, int, int, int] | None:
    if not sides:
        return None
    if len(sides) != 4 or not all(type(side) is int and 0 <= side < 1 << 24 for side in sides):
        raise ValueError(f"region must be four sides, not {sides!r}")
    x0, y0, x1, y1 = sides
    return x0, y0, x1, y1


def _static_files() -> dict[str, bytes]:
    folder = resources.files("live_restore.preview") / "static"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if f".{entry.name.rpartition('.')[2]}" in _TYPES}
