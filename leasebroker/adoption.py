"""Writing a lease into Docker's own record of a container that is not running.

Docker keeps no address for a container at rest unless it was told one (``--ip``), and takes one only with a connection:
the container is disconnected and connected again. What that needs is on disk before, so that a container is not left
without its network when the router dies in between. Everything here blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from leasebroker.containers import AT_REST
from leasebroker.docker_feed import Engine, EngineError, NotFoundError
from leasebroker.files import replace

RESTARTING = frozenset({"always", "unless-stopped", "on-failure"})
"""The restart policies by which a container whose start failed should be running."""
_OF_A_PORT = re.compile(r"\b(bind|listen|ports?)\b", re.IGNORECASE)


class Journal:
    """The connections that are to be restored: (container id, network) -> ``EndpointConfig``, in a file of its own."""

    def __init__(self, path: Path) -> None:
        """A file that cannot be read is an empty journal, and is kept beside the new one."""
        self._path = path
        self._entries: dict[tuple[str, str], Any] = {}
        try:
            self._entries = {
                (one["container"], one["network"]): one["settings"] for one in json.loads(path.read_text())
            }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            path.rename(path.with_suffix(".bad"))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __iter__(self) -> Iterator[tuple[str, str, Any]]:
        return iter([(*key, settings) for key, settings in self._entries.items()])

    def put(self, container: str, network: str, settings: Any) -> None:
        """On disk when this returns. Raises OSError, and then it is not in the journal."""
        self._write({**self._entries, (container, network): settings})

    def remove(self, container: str, network: str) -> None:
        """Raises OSError, and then it is still in the journal."""
        self._write({key: settings for key, settings in self._entries.items() if key != (container, network)})

    def _write(self, entries: dict[tuple[str, str], Any]) -> None:
        found = [{"container": id_, "network": network, "settings": one} for (id_, network), one in entries.items()]
        replace(self._path, json.dumps(found))
        self._entries = entries


def adopt(engine: Engine, journal: Journal, container: str, network: str, address: int) -> bool:
    """Make ``address`` the one that Docker gives the container at its next start; False when the container is not at
    rest, or is not to be kept (``--rm``), or has the address already, or would lose its MAC. Raises `EngineError`, also
    while Docker has given the address to another container, or OSError."""
    found = engine.inspect(container)
    settings = found["NetworkSettings"]["Networks"].get(network)
    if settings is None or found["State"]["Status"] not in AT_REST or found["HostConfig"].get("AutoRemove"):
        return False
    wanted = endpoint_settings(settings, container, address)
    if (settings.get("IPAMConfig") or {}).get("IPv4Address") == wanted["IPAMConfig"]["IPv4Address"]:
        return False
    if (settings.get("MacAddress") or found["Config"].get("MacAddress")) and engine.forgets_macs():
        return False
    if (holder := _holder(engine, network, address)) is not None:
        raise EngineError(f"Docker has given {IPv4Address(address)} to {holder}; it is done when that is stopped")
    _reconnect(engine, journal, container, network, wanted)
    return True


def _holder(engine: Engine, network: str, address: int) -> str | None:
    """The name of the running container that Docker has given an address to: another's start with it is refused."""
    found = engine.network(network)
    members = () if found is None else found.members
    return next((one.name for one in members if one.address == address), None)


def heal(engine: Engine, journal: Journal, container: str, network: str) -> bool:
    """Start a container again that could not be started because another has the address that Docker was told for it:
    without that address. False when that is not what is wrong with it. Raises `EngineError` or OSError."""
    found = engine.inspect(container)
    state, policy = found["State"], (found["HostConfig"].get("RestartPolicy") or {}).get("Name")
    settings = found["NetworkSettings"]["Networks"].get(network)
    has_address = bool(((settings or {}).get("IPAMConfig") or {}).get("IPv4Address"))
    is_refused = has_address and _is_about_address(str(state.get("Error", "")))
    if not is_refused or state["Status"] not in AT_REST or policy not in RESTARTING:
        return False
    _reconnect(engine, journal, container, network, endpoint_settings(settings, container, None))
    engine.start(container)
    return True


def _is_about_address(error: str) -> bool:
    """Whether a start was refused for the container's address. For a port of the host's the words are the same."""
    return "address already in use" in error.lower() and _OF_A_PORT.search(error) is None


def endpoint_settings(settings: Any, container: str, address: int | None) -> dict[str, Any]:
    """The ``EndpointConfig`` that connects a container again as it was (``settings`` are its inspection's), with
    another address. Docker adds the alias that is the container's short id by itself."""
    ipam = {key: value for key, value in (settings.get("IPAMConfig") or {}).items() if key != "IPv4Address"}
    if address is not None:
        ipam["IPv4Address"] = str(IPv4Address(address))
    kept = {key: settings[key] for key in ("Links", "DriverOpts", "MacAddress", "GwPriority") if settings.get(key)}
    aliases = [alias for alias in settings.get("Aliases") or [] if alias != container[:12]]
    return {**kept, "Aliases": aliases, "IPAMConfig": ipam}


def _reconnect(engine: Engine, journal: Journal, container: str, network: str, settings: Any) -> None:
    journal.put(container, network, settings)
    engine.disconnect(network, container)
    _connect(engine, container, network, settings)
    journal.remove(container, network)


def _connect(engine: Engine, container: str, network: str, settings: Any) -> None:
    """With another address rather than not at all."""
    try:
        engine.connect(network, container, settings)
    except NotFoundError:
        raise
    except EngineError:
        engine.connect(network, container, {**settings, "IPAMConfig": {}})


class Repaired(NamedTuple):
    """The names of the containers that have their network again, and why others have not."""

    names: list[str]
    failures: list[str]


def repair(engine: Engine, journal: Journal) -> Repaired:
    """Connect again what was disconnected when the router died. What the engine refuses stays in the journal for the
    next time. Raises OSError, and then goes on next time."""
    repaired = Repaired([], [])
    done = []
    for container, network, settings in journal:
        name = container[:12]
        try:
            found = engine.inspect(container)
            name = found["Name"].lstrip("/")
            if network not in found["NetworkSettings"]["Networks"]:
                _connect(engine, container, network, settings)
                repaired.names.append(name)
        except NotFoundError:
            pass
        except EngineError as error:
            repaired.failures.append(f"container {name} could not be connected to {network} again: {error}")
            continue
        done.append((container, network))
    for container, network in done:
        journal.remove(container, network)
    return repaired
