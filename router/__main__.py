"""The command line: ``lanward`` or ``python -m router``."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from router import NotRunningError, without_ssl
from router.advice import warnings
from router.config import ConfigError, load

DEFAULT_CONFIG = Path("/etc/lanward/lanward.toml")
DEFAULT_STATE = Path("/var/lib/lanward")
NO, BAD_USAGE, NOT_RUNNING = 1, 2, 3

_DESCRIPTION = """Addresses and routing for the VLANs of one edge machine: a DHCP server for each of them,
NAT to the internet, and isolation with the exceptions that the configuration names."""
_EXIT_CODES = "Exit codes: 0 fine, 1 the answer is no, 2 bad usage or configuration, 3 not running or not permitted."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except ConfigError as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return BAD_USAGE
    except NotRunningError as error:
        print(error, file=sys.stderr)
        return NOT_RUNNING
    except OSError as error:
        return _unwritten(error)
    return code


def _unwritten(error: OSError) -> int:
    """The answer cannot be written. A reader that is gone has all that it wanted; what else waits to be written goes
    nowhere, so that the interpreter's end does not fail on it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 0
    print(f"lanward: {error.strerror or error}", file=sys.stderr)
    return NOT_RUNNING


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lanward", description=_DESCRIPTION, epilog=_EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, call: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=_EXIT_CODES)
        made.set_defaults(command=call)
        return made

    run = command("run", _run, "serve the VLANs of a configuration until stopped")
    check = command("check-config", _check, "check a configuration file, all of it, without using it")
    rules = command("rules", _rules, "print the nftables ruleset of a configuration; needs no privilege")
    leases = command("leases", _leases, "list the leases of the running service")
    status = command("status", _status, "show the state of the running service")
    lease = command("lease", _lease, "print the address that a container of that name has, or will have")
    verify = command("verify", _verify, "measure who reaches whom, against what the configuration says")
    below = command("underlay", _underlay, "make what the router stands on: VLANs of the trunk, bridges, networks")
    below.add_argument("action", choices=("up", "down", "show"), help="make it, take it away, or say what up would do")
    lease.add_argument("vlan", metavar="VLAN", help="the VLAN's name in the configuration")
    lease.add_argument("name", metavar="NAME", help="the container's name")
    configuration = f"the configuration ({DEFAULT_CONFIG})"
    check.add_argument("file", type=Path, nargs="?", default=DEFAULT_CONFIG, metavar="FILE", help=configuration)
    for one in (run, rules, below):
        one.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=configuration)
    for one in (run, leases, status, lease, verify):
        folder = f"the folder of leases and control socket ({DEFAULT_STATE})"
        one.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help=folder)
    for one in (leases, status, verify):
        one.add_argument("--json", action="store_true", help="for programs")
    verify.add_argument(
        "--internet", type=IPv4Address, metavar="ADDRESS", help="what to ping there (the uplink's gateway)"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    gc.disable()  # until the leases are loaded: nothing before is garbage, and looking for it takes 30 ms
    without_ssl()
    import asyncio  # noqa: PLC0415 - the other commands start in half the time without it

    from dhcpd.link import LinkError  # noqa: PLC0415
    from dhcpd.store import StoreError  # noqa: PLC0415
    from router import capabilities  # noqa: PLC0415
    from router.app import App  # noqa: PLC0415
    from router.control import ControlError  # noqa: PLC0415
    from router.logs import log  # noqa: PLC0415

    app = App(options.config.absolute(), options.state.absolute(), log)
    try:
        asyncio.run(app.run())
    except LinkError as error:
        print(error, *capabilities.missing(capabilities.effective(), app.config), sep="; ", file=sys.stderr)
        return NOT_RUNNING
    except (StoreError, ControlError) as error:
        print(error, file=sys.stderr)
        return NOT_RUNNING
    return 0


def _check(options: argparse.Namespace) -> int:
    config = load(options.file)
    names = ", ".join(vlan.scope.name for vlan in config.vlans)
    number = len(config.vlans)
    print(f"{options.file}: fine: {number} {'VLAN' if number == 1 else 'VLANs'} ({names})")
    for warning in warnings(config):
        print(f"warning: {warning}", file=sys.stderr)
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


def _underlay(options: argparse.Namespace) -> int:
    from router import host  # noqa: PLC0415 - the libraries of the kernel and the engine

    config = load(options.config)
    if config.trunk is None:
        raise ConfigError(['trunk: is missing: write [trunk] and interface = "enp2s0", the one with the switch'])
    return host.run(options.action, config)


if __name__ == "__main__":
    sys.exit(main())
