"""The product as a process: run in the router's namespace, asked by its own command line, read by its log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.netns import wait_until

COMMAND = (sys.executable, "-m", "router")
REPOSITORY = Path(__file__).resolve().parents[2]


class Service:
    """`lanward run` behind the command prefix `enter`, with its configuration, state and log below `home`."""

    def __init__(self, enter: Sequence[str], home: Path) -> None:
        self._enter = list(enter)
        self.config = home / "lanward.toml"
        self.state = home / "state"
        self.log = home / "lanward.log"
        self.state.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self, config: str | None = None, timeout: float = 20.0) -> None:
        """Run the service, with a new configuration if given, and return when it has logged `ready`.

        Raise RuntimeError with the end of the log when it ends or stays silent instead.
        """
        if config is not None:
            self.config.write_text(config)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [*self._enter, *COMMAND, "run", "--config", str(self.config), "--state", str(self.state)],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(lambda: self.events("ready") or self._ended(), timeout, "the service to be ready")
        except TimeoutError:
            self.kill9()
        if self.process is None or self._ended():
            raise RuntimeError(f"the service did not become ready:\n{self.log.read_text()[-2000:]}")

    def stop(self, timeout: float = 10.0) -> int:
        """End the service in order and return its exit code."""
        return self._end(signal.SIGTERM, timeout)

    def kill9(self) -> None:
        """End the service as a power cut would."""
        self._end(signal.SIGKILL, 10)

    def reload(self, config: str) -> None:
        """Write a new configuration and tell the service to read it."""
        self.config.write_text(config)
        if self.process is None:
            raise RuntimeError("the service is not running")
        self.process.send_signal(signal.SIGHUP)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log lines since the last start as objects, or those whose event is `name`."""
        text = self.log.read_bytes()[self._log_start :].decode()
        lines = [
            json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and line[-1] == "\n"
        ]
        return [line for line in lines if name in {None, line.get("event")}]

    def leases(self) -> list[dict[str, Any]]:
        """Return what `lanward leases --json` prints."""
        found: list[dict[str, Any]] = json.loads(self.ask("leases", "--json"))
        return found

    def ask(self, verb: str, *options: str) -> str:
        """Return what a verb of the command line prints about the running service; raise when it fails."""
        command = [*COMMAND, verb, *options, "--state", str(self.state)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"lanward {verb} exits {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _end(self, number: signal.Signals, timeout: float) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(timeout)
        self.process = None
        return code
