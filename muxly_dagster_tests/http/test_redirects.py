"""Where the client goes, and what it shows to whom."""

from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from muxly_dagster.auth import ApiKey, Basic, Bearer
from muxly_dagster.errors import SourceError
from muxly_dagster.http import Http, Request
from muxly_dagster.http.hosts import Reach, same_place
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

pytestmark = pytest.mark.usefixtures("over")

TOKEN = "tok-4711-secret"


def refusal(base: str, url: str, *, hosts: tuple[str, ...] | None = None, came_from: str = "") -> str:
    return Reach(urlsplit(base) if base else None, hosts).refusal(urlsplit(url), urlsplit(came_from) if came_from else None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_host_is_followed_with_credentials(status: int) -> None:
    def reply(asked: Asked) -> bytes:
        return json_answer({"at": asked.target}) if asked.path == "/new/page" else answer(status, Location="/new/page?x=1#top")

    with Server(reply) as server, Http(server.url, auth=Bearer(token=SecretStr(TOKEN))) as http:
        response = http.get("/old")
    assert response.json() == {"at": "/new/page?x=1"}
    assert response.url == f"{server.url}/new/page?x=1"
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {TOKEN}"] * 2


def test_a_redirect_to_another_host_is_refused_by_name() -> None:
    def reply(asked: Asked) -> bytes:
        return answer(302, Location="http://evil.example.com/collect?x=1")

    with (
        Server(reply) as server,
        Http(server.url, auth=Bearer(token=SecretStr(TOKEN))) as http,
        pytest.raises(SourceError, match=r"evil\.example\.com.*not followed") as caught,
    ):
        http.get("/")
    assert "hosts" in caught.value.do


def test_a_redirect_to_a_listed_host_goes_without_credentials() -> None:
    with Server(lambda asked: json_answer({})) as other:

        def reply(asked: Asked) -> bytes:
            copied = dict(asked.query).get("key", "")
            return answer(302, Location=f"http://user:pw@127.0.0.1:{other.port}/file?key={copied}&part=1&again={copied}")

        with Server(reply) as server:
            hosts = [f"127.0.0.1:{other.port}"]
            for auth in (
                Bearer(token=SecretStr(TOKEN)),
                ApiKey(key=SecretStr(TOKEN), name="X-Own"),
                ApiKey(key=SecretStr(TOKEN), name="key", into="query"),
                Basic(username="me", password=SecretStr(TOKEN)),
            ):
                with Http(server.url, auth=auth, hosts=hosts, headers={"X-Team": "a", "X-Also": TOKEN, "Cookie": "c=1"}) as http:
                    assert http.get("/old").status == 200
    assert len(other.asked) == 4
    for asked in other.asked:
        assert asked.path == "/file"
        assert ("part", "1") in asked.query
        assert asked.headers["x-team"] == "a"
        assert TOKEN not in asked.target + str(asked.headers)
        assert not {"authorization", "cookie", "x-own", "x-also"} & set(asked.headers)


def test_a_redirect_in_circles_ends() -> None:
    with (
        Server(lambda asked: answer(302, Location="/again")) as server,
        Http(server.url) as http,
        pytest.raises(SourceError, match="more than 5 times"),
    ):
        http.get("/")
    assert len(server.asked) == 6


def test_a_post_is_never_redirected() -> None:
    with (
        Server(lambda asked: answer(307, Location="/new")) as server,
        Http(server.url) as http,
        pytest.raises(SourceError, match="redirects to /new"),
    ):
        http.request(Request("POST", "/", json={}))
    assert len(server.asked) == 1


def test_an_address_from_a_page_cannot_lead_credentials_elsewhere() -> None:
    with Server(lambda asked: json_answer({})) as other, Http("http://127.0.0.1:9", auth=Bearer(token=SecretStr(TOKEN))) as http:
        with pytest.raises(SourceError, match="only the base URL's own host"):
            http.get(f"{other.url}/next")
        with pytest.raises(SourceError, match="not an http"):
            http.get("http:///next")
    assert other.asked == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}\\@api.example.com/x", "http://127.0.0.1:{port}\\.example.com/x"])
def test_an_address_that_two_parsers_read_differently_is_refused(address: str) -> None:
    """Browsers and reqwest take a backslash for a slash (WHATWG URL, 4.4): the host would be another one than the one looked at."""
    with (
        Server(lambda asked: json_answer({})) as server,
        Http("http://api.example.com", auth=Bearer(token=SecretStr(TOKEN)), hosts=["*.example.com"]) as http,
    ):
        with pytest.raises(SourceError, match="backslash"):
            http.get(address.format(port=server.url.rpartition(":")[2]))
        assert server.asked == []


def test_a_listed_host_may_be_asked_with_credentials() -> None:
    with (
        Server(lambda asked: json_answer({})) as other,
        Http("http://127.0.0.1:9", auth=Bearer(token=SecretStr(TOKEN)), hosts=[f"127.0.0.1:{other.port}"]) as http,
    ):
        http.get(f"{other.url}/next")
    assert other.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_without_a_base_url_any_address_may_be_asked() -> None:
    with Server(lambda asked: json_answer({})) as server, Http() as http:
        assert http.get(f"{server.url}/hook").status == 200


def test_a_key_in_the_query_is_sent_but_never_part_of_the_answers_url() -> None:
    with (
        Server(lambda asked: json_answer({})) as server,
        Http(server.url, auth=ApiKey(key=SecretStr(TOKEN), name="k", into="query")) as http,
    ):
        response = http.get("/a", {"x": 1})
    assert server.asked[0].query == [("x", "1"), ("k", TOKEN)]
    assert response.url == f"{server.url}/a?x=1"


def test_user_and_password_of_the_base_url_sign_in() -> None:
    with Server(lambda asked: json_answer({})) as server, Http(server.url.replace("//", "//me:p%40ss@")) as http:
        response = http.get("/a")
    assert server.asked[0].headers["authorization"] == "Basic bWU6cEBzcw=="
    assert response.url == f"{server.url}/a"


def test_https_is_never_left_and_may_be_entered() -> None:
    assert "leave https" in refusal("https://a.com", "http://a.com/x")
    assert "leave https" in refusal("https://a.com", "http://b.com/x", hosts=("b.com",))
    assert "leave https" in refusal("", "http://a.com/", came_from="https://a.com/")
    assert refusal("http://a.com", "https://a.com/x") == ""
    assert same_place(urlsplit("http://a.com"), urlsplit("https://A.com:443"))
    assert not same_place(urlsplit("https://a.com"), urlsplit("http://a.com:443"))
    assert not same_place(urlsplit("http://a.com"), urlsplit("http://a.com:8080"))


def test_hosts_take_names_ports_and_patterns() -> None:
    hosts = ("api.b.com", "*.c.com", "d.com:8443")
    assert refusal("https://a.com", "https://API.b.com/x", hosts=hosts) == ""
    assert refusal("https://a.com", "https://x.c.com/", hosts=hosts) == ""
    assert refusal("https://a.com", "https://d.com:8443/", hosts=hosts) == ""
    assert refusal("https://a.com", "https://a.com/", hosts=hosts) == ""
    for url in ("https://c.com/", "https://b.com/", "https://d.com/", "https://a.com.evil.com/", "https://a.com:444/"):
        assert "hosts allows" in refusal("https://a.com", url, hosts=hosts)
