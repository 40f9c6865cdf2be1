"""Who may ask: the browser's own pages only, by a name of this machine.

A page of another site can send requests to this server too, and a name of its own can lead here (DNS rebinding). So the
Host has to be one of ours, whatever changes something has to come from our own origin, and no answer may be framed.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
_READING = {"GET", "HEAD"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


class Guard:
    """Refuses what does not come from here, before anything is read; adds the headers that browsers heed."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._problem(scope["method"], Headers(scope=scope))
        app = PlainTextResponse(problem, 403) if problem else self.app
        await app(scope, receive, with_headers)

    def _problem(self, method: str, headers: Headers) -> str:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_own_name(hosts[0], self.host):
            return "This server does not answer to that name. Open it by the address that mt3 serve printed."
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "Requests from other sites are not answered."
        origin = headers.get("origin")
        if origin is not None and method not in _READING and urlsplit(origin).netloc != hosts[0]:
            return "Requests from other sites are not answered."
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to this host."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_own_name(given: str, host: str) -> bool:
    """Whether a Host header names a server bound to `host`; any port, because it may be forwarded.

    A server for others may be called by any number, which no other site can have made lead here, by the machine's own
    name, and by the name it was given.
    """
    try:
        name = (urlsplit(f"//{given}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in _LOOPBACK_NAMES or is_loopback(name):
        return True
    if is_loopback(host):
        return False
    own = socket.gethostname().lower()
    if name in {host.lower(), own, own.split(".")[0], f"{own.split('.')[0]}.local"}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
