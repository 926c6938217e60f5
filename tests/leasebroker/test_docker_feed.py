"""What an engine tells, and one that takes questions and does not answer: nobody waits for it who wants to end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leasebroker import docker_feed
from leasebroker.broker import Broker
from leasebroker.source import Source
from tests.lab.service import REPOSITORY
from tests.leasebroker.things import LEG

QUESTIONS = 2
"""That a broker asks at once: the stream of events, and a look at everything."""

ASK_AND_END = """
import asyncio, sys
from leasebroker.docker_feed import Line
async def main():
    line = Line(sys.argv[1], "test")
    asked = asyncio.ensure_future(line.ask(lambda engine: engine.version()))
    await asyncio.to_thread(sys.stdin.readline)
    asked.cancel()
    line.close()
asyncio.run(main())
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of an engine that hangs."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "docker.sock"))
        listening.listen()
        listening.settimeout(20)
        yield listening


def test_a_process_ends_before_a_question_is_answered(hanging: socket.socket) -> None:
    command = [sys.executable, "-c", ASK_AND_END, hanging.getsockname()]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE) as process:
        asked, _ = hanging.accept()
        with asked:
            assert asked.recv(1 << 16)
            process.communicate(b"\n", timeout=docker_feed.CALL_SECONDS / 2)
        assert process.returncode == 0


def test_a_broker_ends_before_its_questions_are_answered_and_the_loop_goes_on(
    hanging: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_feed, "CLOSE_SECONDS", 1.0)

    async def end() -> tuple[float, float]:
        broker = Broker(hanging.getsockname(), tmp_path, Source(dict), tmp_path, lambda _: None, adopt=True)
        broker.start([LEG])
        broker._is_look_due.set()
        asked = [(await asyncio.to_thread(hanging.accept))[0] for _ in range(QUESTIONS)]
        began = last = time.monotonic()
        ending = asyncio.ensure_future(broker.close())
        longest = 0.0
        while not ending.done():
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        for one in asked:
            one.close()
        for thread in threading.enumerate():
            if thread.name.startswith("docker-"):
                await asyncio.to_thread(thread.join, 10)
        return last - began, longest

    lasted, longest = asyncio.run(end())
    assert lasted < docker_feed.CALL_SECONDS / 2
    assert longest < 0.9


@pytest.mark.parametrize(
    ("action", "is_news"),
    [
        *((one, True) for one in ("create", "start", "die", "destroy", "rename", "connect", "disconnect", "update")),
        *((one, False) for one in ("exec_create: true", "exec_start: true", "exec_die", "health_status: healthy")),
    ],
)
def test_a_health_check_is_no_news(action: str, is_news: bool) -> None:
    found = {"Type": "container", "Action": action, "Actor": {"ID": "id-web", "Attributes": {"name": "web"}}}
    event = docker_feed.read_event(found)
    assert event == (action, "id-web")
    assert event.is_news is is_news
