"""Who may ask by HTTP, decided on values: names, origins, the token, and the sessions of browsers.

The unix socket is open to who may open it by its mode. On TCP the token is asked for (RFC 6750 section 2.1), or the
cookie of a session that was opened with it. A page from elsewhere in the operator's browser gets nothing on either: not
under a name of its own that it points here (DNS rebinding), nor by a request that it has the browser send.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from router.settings import Api

COOKIE = "lanward"
SESSION_SECONDS = 30 * 86400
MAX_SESSIONS = 64
"""At one more the oldest ends."""
TRY_SECONDS, TRIES_AT_ONCE = 3.0, 5
"""A peer may try five wrong tokens at once, and then one every three seconds."""
MAX_PEERS = 256
"""Peers whose wrong tokens are remembered; at one more the one that tried longest ago is forgotten."""

_OWN_NAMES = {"", "localhost", "lanward"}
"""On the unix socket. Browsers say ``localhost`` by a forwarded port, the command line says ``lanward``."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer carries, unless it says otherwise."""


class Ask(NamedTuple):
    """What a request says of who sends it; header fields that are absent are empty."""

    method: str
    host: str
    origin: str
    authorization: str
    cookie: str
    """The session's, not the whole field."""
    peer: str
    """The address it comes from, empty on the unix socket."""
    here: str
    """The address it came to, empty on the unix socket."""
    is_open: bool
    """Whether what is asked for is for everybody: the page itself, and the way to log in."""


class Refusal(NamedTuple):
    """An HTTP status, and one sentence for who asks; with 429 the seconds to wait."""

    status: int
    why: str
    wait: int = 0


class Access:
    """The sessions and wrong tokens of one service. ``now``: seconds of a clock that only runs forward."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._due: OrderedDict[str, float] = OrderedDict()

    def refusal(self, ask: Ask, api: Api | None, now: float) -> Refusal | None:
        """Why the request is not answered; None when it is. ``api`` is the TCP side as it is configured now."""
        if not _is_own_name(ask, api):
            what = f"Lanward does not go by the name {ask.host!r}" if ask.host else "the header Host is missing"
            return Refusal(403, f"{what}: use its address, or add the name to hosts in [api]")
        if ask.method not in ("GET", "HEAD") and ask.origin and not _is_own_origin(ask):
            return Refusal(403, "a page from elsewhere changes nothing here")
        if not ask.here or ask.is_open:
            return None
        if api is None:
            return Refusal(401, "there is no [api] any more")
        if ask.authorization:
            scheme, _, token = ask.authorization.partition(" ")
            return self.wrong(token if scheme.lower() == "bearer" else "", ask.peer, api, now)
        if not self._is_session(ask.cookie, api, now):
            return Refusal(401, "log in, or send the token of [api]: Authorization: Bearer TOKEN")
        if ask.method not in ("GET", "HEAD") and not ask.origin:
            return Refusal(403, "with a session a change needs the header Origin")
        return None

    def wrong(self, token: str, peer: str, api: Api, now: float) -> Refusal | None:
        """None when it is the token. Who has tried too often is not even told that."""
        if (wait := self._due.get(peer, 0.0) - now - TRY_SECONDS * (TRIES_AT_ONCE - 1)) > 0:
            return Refusal(429, f"too many wrong tokens: wait {wait + 1:.0f} s", int(wait) + 1)
        if compare_digest(_bytes(api.token), _bytes(token)):
            return None
        self._due[peer] = max(self._due.pop(peer, 0.0), now) + TRY_SECONDS
        if len(self._due) > MAX_PEERS:
            self._due.popitem(last=False)
        return Refusal(401, "this is not the token of [api]")

    def open(self, api: Api, now: float) -> str:
        """The cookie of a new session. It ends with `SESSION_SECONDS`, with the service, and with another token."""
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = (api.token, now + SESSION_SECONDS)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie

    def close(self, cookie: str) -> None:
        self._sessions.pop(_digest(cookie), None)

    def _is_session(self, cookie: str, api: Api, now: float) -> bool:
        token, end = self._sessions.get(_digest(cookie), ("", 0.0))
        return now < end and token == api.token


def _is_own_name(ask: Ask, api: Api | None) -> bool:
    """On TCP the address of the connection and the configured names. On the unix socket, which a forwarded port may
    lead to, beside the configured names only what nobody else can be: on many networks anybody may answer for a name
    without a dot (LLMNR)."""
    try:
        name = urlsplit(f"//{ask.host}").hostname or ""
    except ValueError:
        return False
    if api is not None and name in api.hosts:
        return True
    if ask.here:
        return name == ask.here or (name == "localhost" and _is_loopback(ask.here))
    return name in _OWN_NAMES or _is_loopback(name)


def _is_own_origin(ask: Ask) -> bool:
    scheme, _, place = ask.origin.partition("://")
    return scheme in ("http", "https") and place.lower() == ask.host.lower()


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _digest(cookie: str) -> bytes:
    """How long a look-up takes tells nothing about a cookie."""
    return sha256(_bytes(cookie)).digest()
