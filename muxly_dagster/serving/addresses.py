"""Addresses to listen on: taken before anything starts, and told to people as they open them."""

import contextlib
import ipaddress
import socket
import urllib.error
import urllib.request

from muxly_dagster.errors import ConfigurationError

BACKLOG = 2048
_SECONDS_TO_ANSWER = 2.0


def listening(host: str, port: int, *, do: str) -> socket.socket:
    """A socket that listens; any free port for 0. Raises ConfigurationError where somebody else has it, with what to do."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise _refused(host, port, error, do) from None


def free_port(host: str, port: int, *, do: str, apart_from: tuple[int, ...] = ()) -> int:
    """The port, or any free one for 0, for a program that listens by itself. Raises ConfigurationError where it is taken."""
    for _ in range(20):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise _refused(host, port, error, do) from None
            number: int = probe.getsockname()[1]
        if number not in apart_from:
            return number
        if port:
            break
    raise ConfigurationError(f"port {port} is asked for twice", do=do)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener at this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_guarded(host: str, *, guarded: bool) -> None:
    """Raise ConfigurationError for an address that others reach where nothing says who may use the API."""
    if guarded or is_loopback(host):
        return
    raise ConfigurationError(
        f"there is neither an admin token nor a write key, so the API listens on this machine only, and not on {host}",
        do="set MUXLY_ADMIN_TOKEN to a long random value (such as what `openssl rand -hex 32` prints), or leave --host out",
    )


def url(host: str, port: int) -> str:
    """How a browser on this machine opens it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reachable}:{port}"


def split(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of `host:port`. Raises ConfigurationError for what is none."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return address, default_port
    if not port.isdecimal() or not 0 < int(port) < 65536 or not host:
        raise ConfigurationError(f"{address!r} is not an address", do="write it as host:port, such as 127.0.0.1:4000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def connects(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER):
        return True
    return False


def answers(address: str) -> bool:
    """Whether a web server answers at this URL, whatever it says."""
    try:
        # Never by way of a proxy that the environment names: these are our own addresses.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=_SECONDS_TO_ANSWER):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except (OSError, ValueError):
        return False


def _refused(host: str, port: int, error: OSError, do: str) -> ConfigurationError:
    reason = str(error.strerror or error).lower()
    return ConfigurationError(f"cannot listen on {host}:{port}: {reason}", do=do)
