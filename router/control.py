"""The control socket: there from the start, answered by the HTTP server that the first question loads."""

from __future__ import annotations

import asyncio
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from router.api import Api
    from router.app import App

_IP_FREEBIND = 15
IMPORT_SLICE = 0.0002
"""Seconds for which a thread that imports keeps the interpreter when the loop waits for it; Python's own are 5 ms."""


class ControlError(Exception):
    """The socket cannot be opened; ``str()`` is one sentence for the operator."""


class Control:
    """A unix socket of mode 0660 in the state folder, and the TCP address of ``[api]`` when that is configured.

    aiohttp takes 14 MiB and 0.2 s to load. A machine that nobody asks does not pay for it, and one that is asked loads
    it on another thread, while devices are served.
    """

    def __init__(self, app: App, path: Path) -> None:
        """Listen; a socket that a killed service left behind is replaced. Raises `ControlError`."""
        self._app = app
        self._path = path
        self._sockets: list[socket.socket] = []
        self._opening: asyncio.Task[Api] | None = None
        try:
            path.unlink(missing_ok=True)
            self._listen(socket.AF_UNIX, str(path))
            path.chmod(0o660)
            if app.config.api is not None:
                self._listen(socket.AF_INET, (app.config.api.host, app.config.api.port))
        except OSError as error:
            self._close_sockets()
            raise ControlError(f"cannot open the control socket {error}: use another state folder or port") from None
        for one in self._sockets:
            asyncio.get_running_loop().add_reader(one, self._asked)

    def _listen(self, family: socket.AddressFamily, place: str | tuple[str, int]) -> None:
        one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._sockets.append(one)
        if family == socket.AF_INET:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # the address may come later, from the WAN's DHCP server
        try:
            one.bind(place)
        except OSError as error:
            written = place if isinstance(place, str) else "{}:{}".format(*place)
            raise OSError(f"{written} ({error.strerror or error})") from None
        one.listen()

    def _asked(self) -> None:
        self._ignore()
        self._opening = asyncio.create_task(self._open())

    def _ignore(self) -> None:
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one)

    async def _open(self) -> Api:
        api: Api = (await _loaded("router.api")).Api(self._app)
        await api.start(self._sockets)
        return api

    async def close(self) -> None:
        if self._opening is not None:
            await (await self._opening).stop()
        else:
            self._ignore()
        self._close_sockets()
        self._path.unlink(missing_ok=True)

    def _close_sockets(self) -> None:
        for one in self._sockets:
            one.close()


async def _loaded(name: str) -> ModuleType:
    """A module, imported on another thread."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(IMPORT_SLICE)
    try:
        return await asyncio.to_thread(import_module, name)
    finally:
        sys.setswitchinterval(before)
