"""Guarded clients: only addresses that everybody can reach, however they are written; the one that was checked is connected to."""

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.http import AddressGuard, Http, Request, Retries
from muxly_dagster.http.guard import Pins, is_public
from muxly_dagster_tests.http.server import Server, answer

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",  # shared by the customers of a carrier (RFC 6598)
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",  # the metadata service of clouds
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001:db8::1",
    "2001::1",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # the metadata service of EC2
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_that_only_some_can_reach_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ConfigurationError, match="not an address on the public internet") as caught:
        Pins(AddressGuard(), AddressGuard().plain(f"https://{host}:8443/hook")).current()
    assert "allow" in caught.value.problems[0].do


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    assert Pins(AddressGuard(), AddressGuard().plain(f"https://{host}/")).current() == str(ipaddress.ip_address(address))


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        assert not is_public(address) or (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "127.0.0.%31",
        "%31%32%37.0.0.1",
        "1\uff12\uff17.0.0.1x1",
        "a.0x7f",
        "foo.1",
        "[::1%25lo]",
        "a b",
        "a_b$",
        "-",
        "example..com",
    ],
)
def test_hosts_that_programs_read_in_different_ways_are_refused(host: str) -> None:
    with pytest.raises(ConfigurationError):
        Pins(AddressGuard(), AddressGuard().plain(f"http://{host}/hook")).current()


@pytest.mark.parametrize("host", ["\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021", "LOCALHOST"])
def test_other_spellings_of_this_machine_do_not_lead_to_it(host: str) -> None:
    with pytest.raises(ConfigurationError):
        Pins(AddressGuard(), AddressGuard().plain(f"http://{host}/hook")).current()


@given(st.ip_addresses(v=4), st.sampled_from(["d", "x", "o", "mixed"]))
def test_no_number_is_a_name(address: ipaddress.IPv4Address, form: str) -> None:
    number = int(address)
    host = {"d": str(number), "x": hex(number), "o": f"0{number:o}", "mixed": f"{number >> 24:#x}.{number & 0xFFFFFF}"}[form]
    with pytest.raises(ConfigurationError, match="more than one way"):
        AddressGuard().plain(f"http://{host}/")


def test_a_plain_url_keeps_everything_but_the_spelling_of_its_host() -> None:
    plain = AddressGuard().plain
    assert plain("https://user:p%40ss@Hook.Example.COM:8443/A/b?c=D#e") == "https://user:p%40ss@hook.example.com:8443/A/b?c=D#e"
    assert plain("https://müller.example/x") == "https://xn--mller-kva.example/x"
    assert plain("https://[2606:4700:4700:0::1111]/") == "https://[2606:4700:4700::1111]/"


# ---- what is allowed all the same ------------------------------------------------------------------------------------------------


class Resolver:
    """Gives one list of addresses after the other; the last one for ever."""

    def __init__(self, answers: list[list[str]]) -> None:
        self.answers, self.asked = answers, 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def to(*addresses: str) -> Resolver:
    return Resolver([list(addresses)])


def test_networks_addresses_and_names_can_be_allowed() -> None:
    guard = AddressGuard(["10.0.0.0/8", "fd00::/8", "192.168.1.7", "hook.internal", "*.svc.cluster.local"], to("172.16.0.9"))
    for address in ("10.1.2.3", "fd00:ec2::254", "192.168.1.7", "::ffff:10.1.2.3"):
        assert guard.addresses(address, 80) == (address,)
    for name in ("hook.internal", "hook.internal.", "a.b.svc.cluster.local"):
        assert guard.addresses(name, 80) == ("172.16.0.9",)
    for refused in ("192.168.1.8", "127.0.0.1", "other.internal", "svc.cluster.local"):
        with pytest.raises(ConfigurationError):
            guard.addresses(refused, 80)


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "", "http://hook.internal", "a b", "1.2.3", "*"])
def test_an_entry_that_is_neither_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="no network such as"):
        AddressGuard([entry])


def test_one_private_address_among_several_is_enough_to_refuse() -> None:
    with pytest.raises(ConfigurationError, match="which is 10.0.0.1"):
        AddressGuard(resolve=to("8.8.8.8", "10.0.0.1")).addresses("mixed.example", 443)


# ---- at the moment of connecting -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("over")
def test_the_address_that_was_checked_is_connected_to_whatever_the_name_means_a_moment_later() -> None:
    # The name is in no directory: only a pinned address can reach the server. The second look would lead elsewhere.
    resolver = Resolver([["127.0.0.1"], ["127.0.0.2"]])
    with Server(lambda asked: answer(200, asked.headers["host"])) as server:
        guard = AddressGuard(["127.0.0.1"], resolver)
        url = guard.plain(f"http://Rebound.Test:{server.port}/hook")
        with Http(url, guard=guard, retries=Retries(attempts=1)) as http:
            for _ in range(3):
                assert http.request(Request("POST", "", content=b"x")).content == f"rebound.test:{server.port}".encode()
    assert resolver.asked == 1


@pytest.mark.usefixtures("over")
def test_a_name_that_has_come_to_mean_a_private_address_is_refused_when_it_is_looked_up_again() -> None:
    resolver = Resolver([["127.0.0.1"], ["127.0.0.2"]])
    guard = AddressGuard(["127.0.0.1"], resolver)
    http = Http("http://rebound.test:1/hook", guard=guard, retries=Retries(attempts=3, base=0.001))  # nobody listens at port 1
    with http, pytest.raises(ConfigurationError, match="which is 127.0.0.2, is not"):
        http.request(Request("POST", "", content=b"x", idempotent=True))
    assert resolver.asked == 2


@pytest.mark.usefixtures("over")
def test_where_one_address_cannot_be_reached_the_next_attempt_goes_to_the_next() -> None:
    with Server(lambda asked: answer(200, "here")) as server:
        guard = AddressGuard(["127.0.0.0/8"], to("127.0.0.9", "127.0.0.1"))
        with Http(f"http://two.test:{server.port}/", guard=guard, retries=Retries(attempts=2, base=0.001)) as http:
            assert http.request(Request("POST", "", content=b"x")).content == b"here"


@pytest.mark.usefixtures("over")
def test_a_guarded_client_asks_no_other_host_and_follows_no_redirect_there() -> None:
    with Server(lambda asked: answer(302, Location="http://127.0.0.1:9/metadata")) as server:
        guard = AddressGuard(["127.0.0.1"])
        with Http(guard.plain(server.url), guard=guard) as http:
            assert http.request(Request("POST", "", content=b"x", expected=frozenset({302}))).status == 302
            with pytest.raises(Exception, match="only the base URL's own host"):
                http.get("http://169.254.169.254/latest/meta-data")


def test_a_name_that_nobody_knows_is_a_passing_trouble() -> None:
    guard = AddressGuard()
    http = Http("http://nobody.invalid/", guard=guard, retries=Retries(attempts=1))
    with http, pytest.raises(RetryLater, match="could not be looked up"):
        http.get("")


@pytest.mark.usefixtures("over")
def test_a_proxy_of_the_environment_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda asked: answer(200, f"for {asked.target}")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        guard = AddressGuard(resolve=to("10.0.0.1"))
        inside = Http("http://inside.test/hook", guard=guard, retries=Retries(attempts=1))
        with inside, pytest.raises(ConfigurationError, match="inside.test, which is 10.0.0.1"):
            inside.get("")
        with Http("http://outside.test/hook", guard=AddressGuard(resolve=to("8.8.8.8")), retries=Retries(attempts=1)) as http:
            assert http.get("").content.startswith(b"for http://")
        assert len(proxy.asked) == 1
        monkeypatch.setenv("no_proxy", "direct.test")
        direct = AddressGuard(["127.0.0.1"], to("127.0.0.1"))
        with Http(f"http://direct.test:{proxy.port}/hook", guard=direct, retries=Retries(attempts=1)) as http:
            assert http.get("").content == b"for /hook"
