"""Guarding addresses: requests to places that others name must not reach what only this machine can see.

A name may mean another address a moment later (DNS rebinding), so the addresses that were checked are the ones connected to: they are
pinned, and the name is kept for the Host header and for TLS. What counts as reachable for everybody follows the IANA registries of
special-purpose addresses (RFC 6890).
"""

import ipaddress
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from muxly_dagster.errors import ConfigurationError, RetryLater

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z][a-z0-9-]{0,62}\.?")
"""A host name whose last part no program takes for a number: `2130706433`, `0x7f.1` and `127.0.0.%31` are addresses to many."""

_PORTS = {"http": 80, "https": 443}
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOBODYS = (ipaddress.IPv6Network("3fff::/20"), ipaddress.IPv4Network("192.88.99.0/24"), ipaddress.IPv4Network("192.0.0.0/24"))
"""For documentation (RFC 9637), given back (RFC 7526), for protocols (RFC 6890): not, or not wholly, in the tables that Python brings."""

_ALLOW = "if it is meant, list its host or network under `allow`, or set `allow_private: true`"


class AddressGuard:
    """What may be connected to: addresses everybody can reach, and what `allow` lists.

    `allow` holds networks (`10.0.0.0/8`), addresses and host names (`hook.internal`, `*.internal`); raises ValueError for an entry that
    is none. `resolve` gives the addresses of a name.
    """

    def __init__(self, allow: Sequence[str] = (), resolve: Resolve | None = None) -> None:
        self._networks, self._names = _allowed(allow)
        self._resolve = resolve or _resolved

    def plain(self, url: str) -> str:
        """The URL with its host written the one way that every program reads alike. Raises ConfigurationError where there is none."""
        parts = urlsplit(url)
        host = _plain(parts)
        login, at, _ = parts.netloc.rpartition("@")
        shown = f"[{host}]" if ":" in host else host
        return parts._replace(netloc=f"{login}{at}{shown}" + (f":{parts.port}" if parts.port else "")).geturl()

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses to connect to. Raises ConfigurationError when one of them may not be, RetryLater when the name has none."""
        literal = _literal(host)
        found = (host,) if literal else tuple(self._resolve(host, port))
        if not literal and self._named(host):
            return found
        for text in found:
            address = _literal(text)
            if address is None or not self._may_be_reached(address):
                shown = text if literal else f"{host}, which is {text},"
                raise ConfigurationError(f"{shown} is not an address on the public internet; nothing was sent there", do=_ALLOW)
        return found

    def _named(self, host: str) -> bool:
        name = host.rstrip(".")
        return any(fnmatchcase(name, pattern) for pattern in self._names)

    def _may_be_reached(self, address: Address) -> bool:
        inner = _inner(address)
        if any(each in network for network in self._networks for each in (address, inner) if each.version == network.version):
            return True
        return is_public(address)


def is_public(address: Address) -> bool:
    """Whether everybody on the internet can reach it: no private, local, shared, reserved or multicast one, however it is wrapped."""
    inner = _inner(address)
    if inner != address:
        return is_public(inner)
    if address.version == 6 and address not in _UNICAST:
        return False
    known = address.is_global and not address.is_multicast and not address.is_reserved
    return known and not any(address in network for network in _NOBODYS if network.version == address.version)


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to: mapped (RFC 4291), by 6to4 (RFC 3056), by NAT64 (RFC 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Pins:
    """The checked addresses of one host: the one to connect to now, and the next where that one cannot be reached."""

    def __init__(self, guard: AddressGuard, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = (parts.hostname or ""), parts.port or _PORTS[parts.scheme]
        self.proxied = _proxied(parts)
        """Whether a proxy of the environment connects, and looks the name up itself: what it may reach is for its own rules."""

        self._guard = guard
        self._addresses: list[str] = []
        self._lock = threading.Lock()

    def current(self) -> str | None:
        """The address to connect to; None for a name that only a proxy knows.

        Raises ConfigurationError when the host has an address that may not be connected to, RetryLater when it has none.
        """
        with self._lock:
            if not self._addresses:
                try:
                    self._addresses = list(self._guard.addresses(self.host, self.port))
                except RetryLater:
                    if not self.proxied:
                        raise
                    return None
            return self._addresses[0]

    def failed(self, address: str | None) -> None:
        """Leave an address that could not be connected to; after the last one, the name is looked up and checked anew."""
        with self._lock:
            if self._addresses and self._addresses[0] == address:
                del self._addresses[0]


def _allowed(entries: Sequence[str]) -> tuple[list[Network], list[str]]:
    networks: list[Network] = []
    names: list[str] = []
    for entry in entries:
        text = entry.strip().lower()
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            if not _NAME.fullmatch(text.removeprefix("*.")):
                raise ValueError(f"{entry!r} is no network such as 10.0.0.0/8 and no host such as hook.internal") from None
            names.append(text.rstrip("."))
    return networks, names


def _plain(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if (address := _literal(host)) is not None:
        return str(address)
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "the host of the address can be read in more than one way",
            do="write it as a name, as four decimal numbers (203.0.113.7) or as an IPv6 address in brackets",
        )
    return name


def _literal(text: str) -> Address | None:
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _resolved(host: str, port: int) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RetryLater(f"the name {host} could not be looked up ({error})", do="check the address and the network") from None
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def _proxied(parts: SplitResult) -> bool:
    """Whether a proxy of the environment stands between: then it is the proxy that connects."""
    proxies = urllib.request.getproxies_environment()
    if not (proxies.get(parts.scheme) or proxies.get("all")):
        return False
    return not urllib.request.proxy_bypass(parts.hostname or "")
