"""What stands before the page: which names it answers to, how much it holds at once, headers.

In: every request, as ASGI has it. Out: the page's own answer with headers that keep a browser
strict, or a refusal in one sentence. ``/healthz`` says that the page stands, and what it holds.
"""

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

MAX_UPLOADS_MIB = 1024
"""Of all visitors together, in memory until a visitor chooses another photo or goes."""
_DIGITS = 15
"""Of a length at most: Python itself refuses to make a number of thousands of them."""
HEALTH = "/healthz"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    # Streamlit's page has a script and styles of its own within it.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
}
_KEPT_BY_BROWSERS = "/static/"
"""The page's own scripts; nothing else, a reading least of all, stays in a browser's cache."""
_UPLOADS = "/_stcore/upload_file/"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def names_of(host: str, further: Iterable[str] = ()) -> frozenset[str]:
    """Return the names that a page which listens on ``host`` is called by, in small letters.

    Parameters
    ----------
    host : str
        Address or name it listens on; ``0.0.0.0`` and ``::`` are all of this machine's.
    further : iterable of str
        Said by the user, such as the name that a proxy passes on.
    """
    names = {"localhost", host, *further}
    if not _is_loopback(host):
        names.add(socket.gethostname())
    return frozenset(name.lower().strip("[]").rstrip(".") for name in names)


def answers_to(header: str, names: frozenset[str], *, loopback_alone: bool) -> bool:
    """Return whether a ``Host`` header means this page.

    A foreign name that its owner has pointed at this machine (DNS rebinding) does not; an address
    in figures cannot be pointed elsewhere.

    Parameters
    ----------
    header : str
        Such as ``localhost:8501`` or ``[::1]:8501``.
    names : frozenset of str
        Of :func:`names_of`.
    loopback_alone : bool
        Whether the page listens on this machine's own address alone.
    """
    name = header.strip().lower()
    name = name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
    name = name.rstrip(".")
    if name in names:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not loopback_alone


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """An ASGI application around the page's.

    Parameters
    ----------
    app : callable
        The page's ASGI application.
    host : str
        As :func:`names_of`.
    further : iterable of str
    held_bytes : callable
        Returns the bytes of all uploads that are kept now.
    state : callable
        Returns what :data:`HEALTH` tells beside that, such as the readings that wait.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        host: str,
        further: Iterable[str],
        held_bytes: Callable[[], int],
        state: Callable[[], dict[str, int]],
    ) -> None:
        self._app, self._held_bytes, self._state = app, held_bytes, state
        self._names, self._loopback_alone = names_of(host, further), _is_loopback(host)
        self._arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse or pass on a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        if scope["type"] == "http" and scope["path"] == HEALTH:
            await self._tell_health(scope, send)
        elif not answers_to(
            headers.get("host", ""), self._names, loopback_alone=self._loopback_alone
        ):
            await _refuse(
                scope, send, 421, "this page is not called so: say --also-called NAME to serve.py"
            )
        elif (
            scope["type"] == "http"
            and scope["path"].startswith(_UPLOADS)
            and scope["method"] == "PUT"
        ):
            await self._take_upload(scope, headers, receive, send)
        else:
            await self._app(scope, receive, _with_headers(scope, send))

    async def _tell_health(self, scope: Scope, send: Send) -> None:
        held = {"uploads_mib": self._held_bytes() // 2**20, **self._state()}
        await _answer(scope, send, 200, json.dumps({"status": "ok", **held}), "application/json")

    async def _take_upload(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        length = headers.get("content-length", "")
        if not length.isdecimal():
            await _refuse(scope, send, 411, "an upload says how long it is")
            return
        if len(length) > _DIGITS or int(length) > MAX_UPLOADS_MIB * 2**20:
            await _refuse(scope, send, 413, "this is larger than any photo: choose another file")
            return
        size = int(length)
        if self._held_bytes() + self._arriving + size > MAX_UPLOADS_MIB * 2**20:
            await _refuse(
                scope, send, 503, "too many photos are open here at once: try again in a minute, "
                "or close pages that are not used"
            )  # fmt: skip
            return
        self._arriving += size
        try:
            await self._app(scope, receive, _with_headers(scope, send))
        finally:
            self._arriving -= size


def _with_headers(scope: Scope, send: Send) -> Send:
    if scope["type"] != "http":
        return send
    extra = _HEADERS | (
        {} if scope["path"].startswith(_KEPT_BY_BROWSERS) else {"cache-control": "no-store"}
    )

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if pair[0].decode().lower() not in extra]
            message["headers"] = [*kept, *((k.encode(), v.encode()) for k, v in extra.items())]
        await send(message)

    return send_with


async def _refuse(scope: Scope, send: Send, code: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    await _answer(scope, send, code, why, "text/plain; charset=utf-8")


async def _answer(scope: Scope, send: Send, code: int, text: str, kind: str) -> None:
    body = text.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    send = _with_headers(scope, send)
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
