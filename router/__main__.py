"""The command line: ``lanward`` or ``python -m router``.

Exit codes: 0 fine, 1 the answer is no, 2 bad usage or configuration, 3 not running or not permitted.
"""

from __future__ import annotations

import argparse
import gc
import sys
from ipaddress import IPv4Address
from pathlib import Path

from router import NotRunningError
from router.config import ConfigError, load

DEFAULT_CONFIG = Path("/etc/lanward/lanward.toml")
DEFAULT_STATE = Path("/var/lib/lanward")
NO, BAD_USAGE, NOT_RUNNING = 1, 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except ConfigError as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return BAD_USAGE
    except NotRunningError as error:
        print(error, file=sys.stderr)
        return NOT_RUNNING
    except BrokenPipeError:
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lanward", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve the VLANs of a configuration until stopped")
    run.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    run.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="leases and control socket")
    run.set_defaults(command=_run)
    check = commands.add_parser("check-config", help="check a configuration file, all of it, without using it")
    check.add_argument("file", type=Path, nargs="?", default=DEFAULT_CONFIG, metavar="FILE")
    check.set_defaults(command=_check)
    rules = commands.add_parser("rules", help="print the nftables ruleset of a configuration; needs no privilege")
    rules.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    rules.set_defaults(command=_rules)
    for name, command, what in (
        ("leases", _leases, "the leases of the running service"),
        ("status", _status, "the state of the running service"),
    ):
        ask = commands.add_parser(name, help=what)
        ask.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR")
        ask.add_argument("--json", action="store_true", help="for programs")
        ask.set_defaults(command=command)
    lease = commands.add_parser("lease", help="print the address that a container of that name has, or will have")
    lease.add_argument("vlan", metavar="VLAN")
    lease.add_argument("name", metavar="NAME")
    lease.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR")
    lease.set_defaults(command=_lease)
    verify = commands.add_parser("verify", help="measure who reaches whom, against what the configuration says")
    verify.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR")
    verify.add_argument("--json", action="store_true", help="for programs")
    verify.add_argument(
        "--internet", type=IPv4Address, metavar="ADDRESS", help="what to ping there; the uplink's gateway if absent"
    )
    verify.set_defaults(command=_verify)
    return parser


def _run(options: argparse.Namespace) -> int:
    gc.disable()  # until the leases are loaded: nothing before is garbage, and looking for it takes 30 ms
    sys.modules["ssl"] = None  # type: ignore[assignment]  # all sockets are local: 4 MiB that nobody would use
    import asyncio  # noqa: PLC0415 - the other commands start in half the time without it

    from dhcpd.link import LinkError  # noqa: PLC0415
    from dhcpd.store import StoreError  # noqa: PLC0415
    from router.app import App  # noqa: PLC0415
    from router.control import ControlError  # noqa: PLC0415
    from router.logs import log  # noqa: PLC0415

    try:
        asyncio.run(App(options.config, options.state, log).run())
    except (LinkError, StoreError, ControlError) as error:
        print(error, file=sys.stderr)
        return NOT_RUNNING
    return 0


def _check(options: argparse.Namespace) -> int:
    config = load(options.file)
    names = ", ".join(vlan.scope.name for vlan in config.vlans)
    print(f"{options.file}: fine: {len(config.vlans)} VLANs ({names})")
    return 0


def _rules(options: argparse.Namespace) -> int:
    """Interfaces that only the running router knows are called like their VLANs."""
    from router.rules import ruleset  # noqa: PLC0415

    config = load(options.config)
    legs = {vlan.scope.name: vlan.interface or vlan.scope.name for vlan in config.vlans}
    wan = None if config.wan is None else config.wan.interface or "wan"
    print(ruleset(config, legs, wan, {}))
    return 0


def _leases(options: argparse.Namespace) -> int:
    from router import client  # noqa: PLC0415 - the service has no use for an HTTP client

    return client.show(options.state, "/leases", client.lease_table, as_json=options.json)


def _status(options: argparse.Namespace) -> int:
    from router import client  # noqa: PLC0415

    return client.show(options.state, "/status", client.status_table, as_json=options.json)


def _lease(options: argparse.Namespace) -> int:
    """Prints nothing but the address: it is for ``docker run --ip "$(lanward lease VLAN NAME)"``."""
    from router import client  # noqa: PLC0415

    status, answer = client.post(options.state, "/lease", {"vlan": options.vlan, "container": options.name})
    if status == 200:
        print(answer["address"])
        return 0
    print(answer["error"], file=sys.stderr)
    return NO if status == 409 else BAD_USAGE


def _verify(options: argparse.Namespace) -> int:
    from router.verify import verify  # noqa: PLC0415

    return verify(options.state, options.internet, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
