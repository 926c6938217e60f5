"""Whether the service does its work, and whether it is ready to: for what starts and restarts it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.app import App

STALE_SECONDS = 10.0
"""Without a look at what time brings, of which there is one every second."""
DISK_SECONDS = 5.0


async def ailments(app: App) -> list[str]:
    """What keeps the service from being healthy, a line each: the loop turns, the disk takes leases (which is tried),
    and the kernel's rules are those of the configuration."""
    found = []
    if (age := time.monotonic() - app.turned_at) > STALE_SECONDS:
        found.append(f"nothing was looked at for {age:.0f} seconds")
    if (why := await _disk(app)) is not None:
        found.append(f"leases cannot be written: {why}")
    if app.forwarding.error:
        found.append(f"the rules are not as configured: {app.forwarding.error}")
    return found


def obstacles(app: App) -> list[str]:
    """What the service is still waiting for, a line each: sockets, rules, the first look at all containers."""
    found = [
        f"{name} is not served: its interface is away"
        for name, server in app.servers.items()
        if not server.is_serving()
    ]
    if not app.forwarding.is_applied:
        found.append(f"the rules are not applied: {app.forwarding.error or 'not yet'}")
    if any(vlan.network for vlan in app.config.vlans) and app.containers.looked_at is None:
        found.append("the containers were not looked at yet")
    return found


async def _disk(app: App) -> str | None:
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    app.store.touch(lambda error: None if done.done() else done.set_result(error))
    try:
        async with asyncio.timeout(DISK_SECONDS):
            error = await done
    except TimeoutError:
        return f"the disk did not answer within {DISK_SECONDS:.0f} seconds"
    return None if error is None else str(error)
