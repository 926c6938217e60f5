"""The Docker engine: questions, the few changes that adoption and the underlay make, and the stream of events.

The only module that imports the Docker SDK. Calls block and raise `EngineError`; each `Engine` is for one thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from leasebroker.containers import Container, Network, Problem, read_containers, read_network

CALL_SECONDS = 30
"""After so long without an answer the engine counts as not there; it blocks some calls while a container starts."""
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to reach it; the last one is repeated."""

CLOSE_SECONDS = 2.0
"""For an engine that still has something to answer when nobody wants to know any more."""

_NEWS = frozenset(
    {"create", "start", "die", "destroy", "rename", "connect", "disconnect", "pause", "unpause", "update"}
)
_T = TypeVar("_T")


class EngineError(Exception):
    """The engine cannot be asked, or refuses; ``str()`` says why."""


class Event(NamedTuple):
    """What happened to a container: ``create``, ``start``, ``die``, ``destroy``, ``connect`` ..."""

    action: str
    container: str
    """Its id."""

    @property
    def is_news(self) -> bool:
        """Whether something may be to do. Each health check makes four events after which there is nothing."""
        return self.action in _NEWS


class Engine:
    """One connection to the engine behind a unix socket, opened when it is needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._client: Any = None

    def version(self) -> str:
        return str(self._ask(lambda client: client.version()["Version"]))

    def forgets_macs(self) -> bool:
        """Whether a container that is connected while it does not run loses the MAC that it was made with, even when
        that is asked for: since API 1.44."""
        version: str = self._ask(lambda client: client.api_version)
        return tuple(map(int, version.split("."))) >= (1, 44)

    def containers(self, **filters: str) -> list[Container]:
        """All containers, or those that the filters (``id``, ``name``) select, without those that cannot be read; does
        not wait for those that start."""
        return self.listing(**filters)[0]

    def listing(self, **filters: str) -> tuple[list[Container], dict[str, Problem]]:
        """`containers`, and what is wrong with those that cannot be read, by their names."""
        return read_containers(self._ask(lambda client: client.containers(all=True, filters=filters)))

    def network(self, name: str) -> Network | None:
        """None when there is none. Raises `RefusedError` when there are several, or it cannot be read."""
        try:
            return read_network(self._ask(lambda client: client.inspect_network(name)))
        except NotFoundError:
            return None
        except ValueError as error:
            raise RefusedError(str(error)) from None

    def create_network(self, name: str, driver: str, pool: Mapping[str, str], **settings: Mapping[str, str]) -> None:
        """``pool`` is the one entry of ``IPAM.Config``; ``settings`` are ``options`` and ``labels``."""
        ipam = {"Driver": "default", "Config": [dict(pool)]}
        self._ask(lambda client: client.create_network(name, driver, ipam=ipam, check_duplicate=True, **settings))

    def remove_network(self, name: str) -> None:
        self._ask(lambda client: client.remove_network(name))

    def inspect(self, id_: str) -> Any:
        """``GET /containers/ID/json``. Blocks while the container is being started."""
        return self._ask(lambda client: client.inspect_container(id_))

    def disconnect(self, network: str, id_: str) -> None:
        self._ask(lambda client: client.disconnect_container_from_network(id_, network))

    def connect(self, network: str, id_: str, settings: Any) -> None:
        """``settings`` are the ``EndpointConfig`` of ``POST /networks/ID/connect``, of which the SDK knows a part."""
        body = {"Container": id_, "EndpointConfig": settings}

        def post(client: Any) -> None:
            url = f"{client.base_url}/v{client.api_version}/networks/{network}/connect"
            client._raise_for_status(client.post(url, json=body, timeout=CALL_SECONDS))  # noqa: SLF001

        self._ask(post)

    def start(self, id_: str) -> None:
        self._ask(lambda client: client.start(id_))

    def events(self, since: str | None) -> Any:
        """The stream of events from then on, an iterator with ``close()``, which may be called by another thread."""
        kinds = {"type": ["container", "network"]}
        return self._ask(lambda client: client.events(decode=True, filters=kinds, since=since))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        with _explained(self._path):
            try:
                self._client = self._client or docker.APIClient(
                    base_url=f"unix://{self._path}", version="auto", timeout=CALL_SECONDS
                )
                return question(self._client)
            except requests.ConnectionError:
                self.close()
                raise


class Line:
    """An `Engine` with a thread of its own: a question that takes long holds up no other line's, nor the end of the
    process."""

    def __init__(self, path: str, name: str) -> None:
        self._engine = Engine(path)
        self._questions: SimpleQueue[tuple[Future[Any], Callable[[Engine], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"docker-{name}", daemon=True)
        self._thread.start()

    async def ask(self, question: Callable[[Engine], _T]) -> _T:
        """Raises `EngineError`, and what else the question raises."""
        answer: Future[_T] = Future()
        self._questions.put((answer, question))
        return await asyncio.wrap_future(answer)

    def close(self) -> None:
        """Blocks until the question that is being asked has its answer, but `CLOSE_SECONDS` at most: then the thread
        ends by itself when the engine answers."""
        self._questions.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while (asked := self._questions.get()) is not None:
            answer, question = asked
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(question(self._engine))
            except BaseException as error:  # noqa: BLE001 - it is whose who asked
                answer.set_exception(error)
        self._engine.close()


class RefusedError(EngineError):
    """The engine is there, but has no answer to this question, or none that can be used."""


class NotFoundError(RefusedError):
    """The engine knows no such container or network."""


_CURES = {
    "No such file": "there is no socket at {0}: start the engine, or mount its socket into the router",
    "Permission denied": "no permission for {0}: run the router as root, or in the socket's group",
    "Connection refused": "nobody listens at {0}: start the engine",
}


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise NotFoundError(str(error.explanation)) from None
    except APIError as error:
        raise RefusedError(f"the engine at {path}: {error.explanation or error}") from None
    except (DockerException, requests.RequestException, ValueError, OSError) as error:
        text = str(error)
        cure = next((cure.format(path) for sign, cure in _CURES.items() if sign in text), None)
        raise EngineError(cure or f"the engine at {path}: {text}") from None


class Feed:
    """The engine's events, from a thread of its own, for as long as it takes: the engine may come and go.

    ``tell`` gets a value at a time on that thread: an `Event`, None when the stream was (re)connected and something may
    have been missed, or an `EngineError` when the engine is not there.
    """

    def __init__(self, path: str, tell: Callable[[Event | EngineError | None], object]) -> None:
        self._engine = Engine(path)
        self._tell = tell
        self._stopped = threading.Event()
        self._stream: Any = None
        self._since: str | None = None
        self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended, or after `CLOSE_SECONDS` with a stream that cannot be closed."""
        self._stopped.set()
        if self._stream is not None:
            with suppress(Exception):
                self._stream.close()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                self._follow()
                failures = 0
            except EngineError as error:
                self._say(error)
                failures += 1
            self._stopped.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        self._engine.close()

    def _follow(self) -> None:
        """One stream until it is cut, or closed by `stop`. Events since the last one are asked for again: what is told
        twice does no harm."""
        self._stream = self._engine.events(self._since)
        self._say(None)
        with suppress(requests.RequestException, OSError, ValueError, AttributeError):
            for found in self._stream:
                self._since = _time(found) or self._since
                if (event := read_event(found)) is not None:
                    self._say(event)

    def _say(self, what: Event | EngineError | None) -> None:
        """Who has stopped this thread may be gone when a hanging engine lets it go on."""
        if not self._stopped.is_set():
            self._tell(what)


def read_event(found: Any) -> Event | None:
    """An event of a container, or of a network that it is on; None for all others."""
    if not isinstance(found, dict) or found.get("Type") not in ("container", "network"):
        return None
    actor = found.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    id_ = actor.get("ID") if found["Type"] == "container" else attributes.get("container")
    return Event(str(found.get("Action", "")), str(id_)) if id_ else None


def _time(found: Any) -> str | None:
    """The engine's own time of an event, as it wants it back: seconds and nanoseconds."""
    nanoseconds = found.get("timeNano") if isinstance(found, dict) else None
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09}" if isinstance(nanoseconds, int) else None
