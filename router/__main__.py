"""The command line: ``lanward`` or ``python -m router``."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from router import NO, NotRunningError, UsageError, kept, without_ssl
from router.advice import warnings
from router.config import Config, ConfigError, load
from router.nodes import node_name, vlan_name

DEFAULT_CONFIG = Path("/etc/lanward/lanward.toml")
DEFAULT_STATE = Path("/var/lib/lanward")
BAD_USAGE, NOT_RUNNING = 2, 3
_KEPT = ("leases.db", "history.db", kept.FILE)
"""In the state folder; what is set aside has longer names."""

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
    except UsageError as error:
        print(error, file=sys.stderr)
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
    shown = command("page", _page, "print how to open the page of the running service in a browser")
    watch = command("watch", _watch, "print what happens as it happens, until interrupted")
    who = command("who", _who, "show who had an address, or which addresses a node had, and when")
    who.add_argument("what", metavar="ADDRESS|NAME", help="an address, or a host name, container or MAC")
    who.add_argument("--at", metavar="TIME", help='the moment: ISO 8601, "22:00", "yesterday 22:00", "2h ago"')
    steering = _add_steering(command)
    why = command("explain", _explain, "show why a node has the address that it has")
    why.add_argument("node", metavar="NODE|ADDRESS", help='"vlan1/web", a name, an address or a MAC')
    wrong = command("warnings", _warnings, "show what is wrong at the moment, and what to do about it")
    health = command("health", _health, "say whether the service does its work: for HEALTHCHECK and the like")
    health.add_argument("--ready", action="store_true", help="whether it is ready to, instead")
    below = command("underlay", _underlay, "make what the router stands on: VLANs of the trunk, bridges, networks")
    below.add_argument("action", choices=("up", "down", "show"), help="make it, take it away, or say what up would do")
    lease.add_argument("vlan", metavar="VLAN", help="the VLAN's name in the configuration")
    lease.add_argument("name", metavar="NAME", help="the container's name")
    configuration = f"the configuration ({DEFAULT_CONFIG})"
    check.add_argument("file", type=Path, nargs="?", default=DEFAULT_CONFIG, metavar="FILE", help=configuration)
    for one in (run, rules, below):
        one.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=configuration)
    for one in (run, check, rules, leases, status, lease, verify, watch, who, why, wrong, health, shown, *steering):
        folder = f"the folder of leases and control socket ({DEFAULT_STATE})"
        one.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help=folder)
    for one in (leases, status, verify, watch, who, why, wrong):
        one.add_argument("--json", action="store_true", help="for programs")
    verify.add_argument(
        "--internet", type=IPv4Address, metavar="ADDRESS", help="what to ping there (the uplink's gateway)"
    )
    return parser


def _add_steering(command: Callable[..., argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """The commands that change what the running service keeps."""
    reserve = command("reserve", _reserve, "make a lease permanent, or reserve an address for a node")
    unreserve = command("unreserve", _unreserve, "take back what reserve did")
    drop = command("drop", _drop, "forget a lease: its address is free again")
    clear = command("clear", _clear, "end the quarantine of an address")
    reservations = command("reservations", _reservations, "list the reservations, those of the file too")
    config = command("config", _export, "print what reserve has made as TOML, to write it into the file")
    for one in (reserve, unreserve, drop, clear):
        one.add_argument("vlan", type=_is(vlan_name), metavar="VLAN", help="the VLAN's name in the configuration")
    lease = "whose lease: its address, or the holder's name"
    reserve.add_argument("node", type=_is(node_name), nargs="?", metavar="ADDRESS|NAME", help=lease)
    unreserve.add_argument("node", type=_is(node_name), metavar="ADDRESS|NAME", help="of the reservation")
    for one in (drop, clear):
        one.add_argument("node", type=IPv4Address, metavar="ADDRESS", help="the address")
    known = reserve.add_mutually_exclusive_group()
    known.add_argument("--mac", metavar="MAC", help="a device, by its MAC")
    known.add_argument("--client-id", metavar="ID", help="a device, by its client identifier: text, or hex:01:02")
    known.add_argument("--container", metavar="NAME", help="a container, by its name")
    reserve.add_argument("--name", metavar="NAME", help="what the node is called (its own name)")
    reserve.add_argument("--address", metavar="ADDRESS", help="without it a node is known, and has one of the pools")
    reservations.add_argument("--json", action="store_true", help="for programs")
    config.add_argument("action", choices=("export",), help="print it")
    return [reserve, unreserve, drop, clear, reservations, config]


def _is(read: Callable[[object], str]) -> Callable[[str], str]:
    """A reader of the configuration for an argument."""

    def argument(value: str) -> str:
        try:
            return read(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


def _run(options: argparse.Namespace) -> int:
    gc.disable()  # until the leases are loaded: nothing before is garbage, and looking for it takes 30 ms
    without_ssl()
    import signal  # noqa: PLC0415

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})  # the app unblocks them
    import asyncio  # noqa: PLC0415 - the other commands start in half the time without it

    from dhcpd.link import LinkError  # noqa: PLC0415
    from dhcpd.store import StoreError  # noqa: PLC0415
    from router.app import App  # noqa: PLC0415
    from router.control import ControlError  # noqa: PLC0415
    from router.logs import log  # noqa: PLC0415

    _keep_others_out(options.state)
    app = App(options.config.absolute(), options.state.absolute(), log)
    try:
        asyncio.run(app.run())
    except LinkError as error:
        from router import capabilities  # noqa: PLC0415

        print(error, *capabilities.missing(capabilities.effective(), app.config).values(), sep="; ", file=sys.stderr)
        return NOT_RUNNING
    except (StoreError, ControlError) as error:
        print(error, file=sys.stderr)
        return NOT_RUNNING
    return 0


def _keep_others_out(state: Path) -> None:
    """What the service keeps is for who may open its socket, what is there already too."""
    os.umask(0o027)
    for one in [one for name in _KEPT for one in state.glob(f"{name}*")]:
        with suppress(OSError):  # the start says what is wrong with the folder
            one.chmod(one.stat().st_mode & 0o770)


def _check(options: argparse.Namespace) -> int:
    config = _load(options.file, options.state)
    names = ", ".join(vlan.scope.name for vlan in config.vlans)
    number = len(config.vlans)
    print(f"{options.file}: fine: {number} {'VLAN' if number == 1 else 'VLANs'} ({names})")
    for warning in warnings(config):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _load(file: Path, state: Path) -> Config:
    """A configuration with what is kept beside it, as the service would have it; what is not in force is told."""
    entries, damage = kept.read(state)
    config = load(file, entries)
    for warning in [*([damage] if damage else []), *kept.problems(config.kept)]:
        print(f"warning: {warning}", file=sys.stderr)
    return config


def _rules(options: argparse.Namespace) -> int:
    """Interfaces that only the running router knows are called like their VLANs."""
    from router.rules import ruleset  # noqa: PLC0415

    config = _load(options.config, options.state)
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
    body = {"vlan": options.vlan, "container": options.name}
    return _tell(options, lambda answer: answer["address"], "POST", "/lease", body, missing=BAD_USAGE)


def _tell(
    options: argparse.Namespace,
    done: Callable[[dict[str, str]], str],
    method: str,
    target: str,
    body: dict[str, str | None] | None = None,
    *,
    missing: int = NO,
) -> int:
    """Ask for a change, print what is ``done`` by the answer or why it is not; the exit code."""
    from router import client  # noqa: PLC0415

    status, answer = client.tell(options.state, method, target, body)
    if status < 300:
        print(done(answer))
        return 0
    client.refused(answer)
    return {400: BAD_USAGE, 404: missing}.get(status, NO)


def _reserve(options: argparse.Namespace) -> int:
    known = {"mac": options.mac, "client_id": options.client_id, "container": options.container}
    is_known = any(one is not None for one in known.values())
    if is_known == (options.node is not None) or (options.node is not None and options.address is not None):
        print("lanward reserve: name the lease, or one of --mac, --client-id and --container", file=sys.stderr)
        return BAD_USAGE
    if options.node is not None:
        target = f"/leases/{options.vlan}/{options.node}/reserve"
        return _tell(options, _reserved, "POST", target, {"name": options.name})
    body = {"vlan": options.vlan, "name": options.name, "address": options.address, **known}
    return _tell(options, _reserved, "POST", "/reservations", body)


def _reserved(row: dict[str, str]) -> str:
    what = f"{row['address']} is reserved for" if row["address"] else "an address of the pools goes to"
    return f"{what} {row['vlan']}/{row['name']}"


def _unreserve(options: argparse.Namespace) -> int:
    target = f"/reservations/{options.vlan}/{options.node}"
    return _tell(
        options, lambda row: f"{row['vlan']}/{row['name'] or row['address']} is reserved no more", "DELETE", target
    )


def _drop(options: argparse.Namespace) -> int:
    target = f"/leases/{options.vlan}/{options.node}"
    return _tell(options, lambda row: f"{row['address']} in {row['vlan']} is nobody's any more", "DELETE", target)


def _clear(options: argparse.Namespace) -> int:
    target = f"/quarantine/{options.vlan}/{options.node}"
    return _tell(options, lambda row: f"{row['address']} in {row['vlan']} is in use again", "DELETE", target)


def _reservations(options: argparse.Namespace) -> int:
    from router import client  # noqa: PLC0415

    return client.show(options.state, "/reservations", client.reservation_table, as_json=options.json)


def _export(options: argparse.Namespace) -> int:
    from router import client  # noqa: PLC0415

    print(client.text(options.state, "/config/export")[1], end="")
    return 0


def _watch(options: argparse.Namespace) -> int:
    from router import ask  # noqa: PLC0415

    return ask.watch(options.state, as_json=options.json)


def _warnings(options: argparse.Namespace) -> int:
    from router import ask  # noqa: PLC0415

    return ask.warnings(options.state, as_json=options.json)


def _health(options: argparse.Namespace) -> int:
    from router import ask  # noqa: PLC0415

    return ask.health(options.state, is_ready=options.ready)


def _explain(options: argparse.Namespace) -> int:
    from router import ask  # noqa: PLC0415

    return ask.explain(options.state, options.node, as_json=options.json)


def _who(options: argparse.Namespace) -> int:
    from router import ask  # noqa: PLC0415

    return ask.who(options.state, options.what, options.at, as_json=options.json)


def _verify(options: argparse.Namespace) -> int:
    from router.verify import verify  # noqa: PLC0415

    return verify(options.state, options.internet, as_json=options.json)


def _page(options: argparse.Namespace) -> int:
    from router import client  # noqa: PLC0415

    print(*client.ways_in(client.get(options.state, "/status"), options.state.absolute()), sep="\n")
    return 0


def _underlay(options: argparse.Namespace) -> int:
    from router import host  # noqa: PLC0415 - the libraries of the kernel and the engine

    config = load(options.config)
    if config.trunk is None:
        raise ConfigError(['trunk: is missing: write [trunk] and interface = "enp2s0", the one with the switch'])
    return host.run(options.action, config)


if __name__ == "__main__":
    sys.exit(main())
