"""The network namespaces of the engine's containers: opened as they appear, followed until they go.

For the event loop's thread; what enters a namespace runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from leasebroker.netns import Folder, GoneError, Space, apply, look
from leasebroker.plan import Operation, View
from leasebroker.repairs import Repairs

_T = TypeVar("_T")

MOUNT_SECONDS, MOUNT_PAUSE = 5.0, 0.002
"""The engine makes the file first and mounts the namespace on it then, which no event tells."""


class Tracked:
    """One namespace, with what `leasebroker.pinner` keeps of it.

    ``is_visited``: what was seen at the last visit is right. ``is_settled``: and the container runs. ``is_waiting``: it
    was changed too often, and is looked into later.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.is_visited = self.is_settled = self.is_busy = self.is_changed = self.is_waiting = False
        self.repairs = Repairs()
        self.members: dict[tuple[int, bytes], str] = {}
        """(ifindex, MAC) of a link -> the id of its container."""
        self.guessed: set[tuple[int, bytes]] = set()
        """The links whose container is not certain yet."""


class Spaces:
    """``appeared`` is called with a namespace that is new, ``changed`` when something in one may have changed."""

    def __init__(self, path: Path, appeared: Callable[[Tracked], None], changed: Callable[[Tracked], None]) -> None:
        """Raises OSError when there is no such folder."""
        self._loop = asyncio.get_running_loop()
        self._folder, self._inode = _watch(path)
        self._appeared, self._changed = appeared, changed
        self._tracked: dict[str, Tracked] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._thread = ThreadPoolExecutor(1, "netns")
        self._own = Path("/proc/self/ns/net").stat()
        self._loop.add_reader(self._folder.events, self._listed)
        self._follow(self._folder.names())

    def refresh(self) -> None:
        """Find what no event told of: a namespace that was mounted late, a folder that was made anew."""
        if not self._is_watched():
            try:
                folder, inode = _watch(self._folder.path)
            except OSError:
                pass  # it is gone, and may come back
            else:
                self._unwatch()
                self._folder, self._inode = folder, inode
                self._loop.add_reader(folder.events, self._listed)
        self._follow(self._folder.names())

    def _is_watched(self) -> bool:
        """Whether the folder is the one that is watched. That is held open: its number is not given to another."""
        try:
            return os.path.samestat(self._folder.path.stat(), os.fstat(self._inode))
        except OSError:
            return False

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._folder.events)
        self._folder.close()
        os.close(self._inode)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(list(self._tracked.values()))

    def is_there(self, one: Tracked) -> bool:
        return self._tracked.get(one.space.name) is one

    async def look(self, one: Tracked) -> View:
        """What the kernel shows. Raises `GoneError`."""
        return await self._run(one, look, one.space.descriptor)

    async def apply(self, one: Tracked, operations: Iterable[Operation]) -> None:
        """Raises `GoneError`."""
        await self._run(one, apply, one.space.descriptor, operations)

    async def _run(self, one: Tracked, call: Callable[..., _T], *arguments: object) -> _T:
        if self.is_there(one) and not self._is_mounted(one):
            self._follow(self._folder.names())
        if not self.is_there(one):
            raise GoneError(one.space.name)
        return await self._loop.run_in_executor(self._thread, call, *arguments)

    def _listed(self) -> None:
        self._folder.drain()
        self._follow(self._folder.names())

    def _follow(self, names: set[str]) -> None:
        gone = [name for name, one in self._tracked.items() if name not in names or not self._is_mounted(one)]
        for name in gone:
            self._forget(self._tracked.pop(name))
        for name in names - self._tracked.keys() - self._opening.keys():
            self._opening[name] = self._loop.create_task(self._open(name))

    async def _open(self, name: str) -> None:
        try:
            space = await self._mounted(self._folder.path / name)
        finally:
            del self._opening[name]
        if space is not None and os.path.samestat(os.fstat(space.descriptor), self._own):
            space.close()  # the router's: it has its addresses from elsewhere
        elif space is not None:
            tracked = self._tracked[name] = Tracked(space)
            self._loop.add_reader(space.changes, self._noticed, tracked)
            self._appeared(tracked)
            self._changed(tracked)

    async def _mounted(self, path: Path) -> Space | None:
        """The namespace, None when the file is none, and was not new when it was found either."""
        until = self._loop.time() + (MOUNT_SECONDS if _is_new(path) else 0)
        while True:
            try:
                return Space(path)
            except GoneError:
                if self._loop.time() >= until or not _is_there(path):
                    return None
            await asyncio.sleep(MOUNT_PAUSE)

    def _is_mounted(self, one: Tracked) -> bool:
        """Docker 20.10 leaves the file behind for a while, and a name may have come back with another namespace."""
        try:
            return os.path.samestat((self._folder.path / one.space.name).stat(), os.fstat(one.space.descriptor))
        except OSError:
            return False

    def _noticed(self, one: Tracked) -> None:
        one.space.drain()
        self._changed(one)

    def _forget(self, one: Tracked) -> None:
        """The descriptor may be in use on the other thread: it is closed there, after that."""
        self._loop.remove_reader(one.space.changes)
        self._thread.submit(one.space.close)

    def close(self) -> None:
        for task in list(self._opening.values()):
            task.cancel()
        for one in self._tracked.values():
            self._forget(one)
        self._tracked.clear()
        self._thread.shutdown()
        self._unwatch()


def _watch(path: Path) -> tuple[Folder, int]:
    """The folder and a descriptor of it. Raises OSError."""
    folder = Folder(path)
    try:
        return folder, os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        folder.close()
        raise


def _is_there(path: Path) -> bool:
    return path.exists()


def _is_new(path: Path) -> bool:
    try:
        return abs(time.time() - path.stat().st_ctime) < MOUNT_SECONDS
    except OSError:
        return False
