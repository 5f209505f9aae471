"""Slack's own clients, made to follow no redirect.

A redirect turns a post into a GET, whose answer proves nothing, and takes the token along to another host. slack_sdk has no setting for it,
so the one method of each client that opens an address is replaced; test_slack_trouble.py sees that it still is the one.
"""

from http.client import HTTPResponse, InvalidURL
from typing import TYPE_CHECKING, Any
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from slack_sdk.web import WebClient
    from slack_sdk.webhook import WebhookClient, WebhookResponse


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the redirect itself is the answer."""


def keep_straight(client: "WebClient") -> None:
    """Let a client of the Web API go where it is told, and nowhere else."""

    def opened(url: str, req: Request) -> dict[str, Any]:
        with _open(client, req) as answer:
            return {"status": answer.status, "headers": answer.headers, "body": _text(answer)}

    client._perform_urllib_http_request_internal = opened  # type: ignore[method-assign]


def keep_hook_straight(client: "WebhookClient") -> None:
    """The same for an incoming webhook."""
    from slack_sdk.webhook import WebhookResponse

    def opened(url: str, req: Request) -> "WebhookResponse":
        with _open(client, req) as answer:
            return WebhookResponse(url=url, status_code=answer.status, body=_text(answer), headers=dict(answer.headers))

    client._perform_http_request_internal = opened  # type: ignore[method-assign]


def _open(client: "WebClient | WebhookClient", request: Request) -> HTTPResponse:
    if request.type not in ("http", "https"):  # urllib would open files, too
        raise InvalidURL
    proxies = [ProxyHandler({"http": client.proxy, "https": client.proxy})] if client.proxy else []
    opener = build_opener(_NoRedirects(), HTTPSHandler(context=client.ssl), *proxies)
    opened: HTTPResponse = opener.open(request, timeout=client.timeout)
    return opened


def _text(answer: HTTPResponse) -> str:
    return answer.read().decode(answer.headers.get_content_charset() or "utf-8")
