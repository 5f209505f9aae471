"""A Slack workspace as an app with a bot token sees it, and a channel as an incoming webhook does."""

import http.client
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from muxly_dagster.destinations.slack.answers import Refused, read, unreachable
from muxly_dagster.destinations.slack.straight import keep_hook_straight, keep_straight
from muxly_dagster.errors import RetryLater
from muxly_dagster.messages import host_of

_SHORT = 30.0
"""Seconds: a wait that Slack asks for is waited out up to this long, then left to the next run."""

_WAITS = 3
_PAGE = 200
_MANY = 1_000
_PAGES = 25
_ID = re.compile(r"[CGD][A-Z0-9]{7,}")
_PERSON = re.compile(r"[UW][A-Z0-9]{7,}")
_T = TypeVar("_T")
_TROUBLE = (OSError, http.client.HTTPException, UnicodeDecodeError)

# The webhook client would tell the address, which is a secret, to whoever listens.
_SILENT = logging.Logger("muxly.slack", logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Made:
    """A message as it is sent: text, blocks where it has any, and whether its links are previewed."""

    text: str
    blocks: list[Any] | None = None
    unfurl: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """As chat.postMessage and webhooks take it."""
        return {"text": self.text, "blocks": self.blocks, "unfurl_links": self.unfurl, "unfurl_media": self.unfurl}


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a message stands: the channel's id and the message's `ts`; both empty for a webhook."""

    channel: str = ""
    ts: str = ""


@dataclass(slots=True)
class Known:
    """What was learnt about a workspace and stays true: who the app is and what it may do, the ids of channels by name."""

    me: Mapping[str, Any] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    ids: dict[str, str] = field(default_factory=dict)


class Workspace:
    """Slack's Web API. Every method raises Refused, SignInError, RetryLater, and ConfigurationError for a bad address.

    Short waits that Slack asks for are waited out, unless `stop` is set meanwhile.
    """

    def __init__(self, token: str, base_url: str, timeout: float, known: Known, stop: threading.Event) -> None:
        from dagster_slack import SlackResource

        self._client = SlackResource(token=token).get_client()
        self._client.base_url = base_url.rstrip("/") + "/"
        self._client.timeout = max(1, round(timeout))
        self._client.retry_handlers = []  # it would post again after a broken connection, without looking
        keep_straight(self._client)
        self._known, self._stop = known, stop
        self._listed = False
        self._unlisted: Refused | None = None

    def me(self) -> Mapping[str, Any]:
        """Who the token signs in: `team`, `user`, `user_id`, `bot_id`."""
        if not self._known.me:
            self._known.me, headers = self._ask(self._client.auth_test)
            said = next((value for name, value in headers.items() if name.lower() == "x-oauth-scopes"), "")
            self._known.scopes = frozenset(scope.strip() for scope in said.split(",") if scope.strip())
        return self._known.me

    def may(self, *scopes: str) -> bool | None:
        """Whether the token has one of these scopes; None where Slack does not say what it has."""
        self.me()
        return bool(self._known.scopes & {*scopes}) if self._known.scopes else None

    def channel_id(self, name: str) -> str | None:
        """The id of a channel, of a person's direct messages, or of a channel by its name; None where the app sees no such channel."""
        if _ID.fullmatch(name):
            return name
        if name not in self._known.ids:
            if _PERSON.fullmatch(name):
                opened, _ = self._ask(self._client.conversations_open, users=name)
                self._known.ids[name] = str(opened["channel"]["id"])
            else:
                self._learn_names()
        return self._known.ids.get(name)

    def _learn_names(self) -> None:
        """List the channels, once: names that nobody knows may be many, and Slack lets an app list some twenty times a minute."""
        if self._unlisted is not None:
            raise self._unlisted
        if self._listed:
            return
        try:
            found = self._channels()
        except Refused as refused:
            self._unlisted = refused
            raise
        self._listed = True
        for each in found:
            self._known.ids |= {str(each["name"]): str(each["id"]), f"#{each['name']}": str(each["id"])}

    def _channels(self) -> list[Mapping[str, Any]]:
        """The channels that the app sees: private ones only where it has the scope for them."""
        try:
            return list(self._pages(self._client.conversations_list, "channels", types="public_channel,private_channel", limit=_MANY))
        except Refused as refused:
            if refused.code != "missing_scope":
                raise
            return list(self._pages(self._client.conversations_list, "channels", types="public_channel", limit=_MANY))

    def channel(self, id_: str) -> Mapping[str, Any]:
        """What the app may know of a channel."""
        found, _ = self._ask(self._client.conversations_info, channel=id_)
        told: Mapping[str, Any] = found["channel"]
        return told

    def history(self, channel: str, oldest: float, thread: str = "", most: int = _PAGES) -> Iterator[Mapping[str, Any]]:
        """The app's own messages in a channel, the newest first, or in one of its threads; from `oldest` (seconds since 1970)."""
        me = self.me()
        ask = self._client.conversations_replies if thread else self._client.conversations_history
        given: dict[str, Any] = {"ts": thread} if thread else {}
        since = f"{oldest:.6f}"
        for message in self._pages(ask, "messages", most, channel=channel, oldest=since, limit=_PAGE, include_all_metadata=True, **given):
            # Metadata of somebody else's message could say that something was posted which was not.
            if (me.get("bot_id") and message.get("bot_id") == me["bot_id"]) or message.get("user") == me.get("user_id"):
                yield message

    def post(self, channel: str, made: Made, metadata: Mapping[str, Any], thread: str = "") -> Spot:
        """Post a message, or answer in a thread."""
        given = made.arguments | {"metadata": metadata} | ({"thread_ts": thread} if thread else {})
        said, _ = self._ask(self._client.chat_postMessage, channel=channel, **given)
        return Spot(str(said["channel"]), str(said["ts"]))

    def update(self, spot: Spot, made: Made, metadata: Mapping[str, Any]) -> None:
        """Put another text in the place of a message's own."""
        # Without blocks in the request, those that are there would stay.
        given = {"text": made.text, "blocks": made.blocks or [], "metadata": metadata}
        self._ask(self._client.chat_update, channel=spot.channel, ts=spot.ts, **given)

    def permalink(self, spot: Spot) -> str:
        """The address at which people see a message."""
        said, _ = self._ask(self._client.chat_getPermalink, channel=spot.channel, message_ts=spot.ts)
        return str(said.get("permalink", ""))

    def _pages(self, ask: Callable[..., Any], name: str, most: int = _PAGES, **given: Any) -> Iterator[Mapping[str, Any]]:
        cursor = ""
        for _ in range(most):
            page, _ = self._ask(ask, **given, **({"cursor": cursor} if cursor else {}))
            yield from page.get(name) or ()
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return

    def _ask(self, ask: Callable[..., Any], **given: Any) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Body and headers of an answer that is a success."""
        where = f"Slack {ask.__name__.replace('_', '.', 1)}"
        return _patiently(lambda: self._once(ask, where, given), self._stop)

    def _once(self, ask: Callable[..., Any], where: str, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            response = ask(**given)
        except SlackApiError as error:
            failed: Any = error.response
            body = failed.data if isinstance(failed.data, Mapping) else {}
            headers = {str(name).lower(): str(value) for name, value in failed.headers.items()}
            raise read(failed.status_code, str(body.get("error", "")), body, headers.get("retry-after", ""), where) from None
        except SlackClientError as error:
            raise unreachable(http.client.InvalidURL(str(error)), where) from None
        except _TROUBLE as error:
            raise unreachable(error, where) from None
        return response.data, response.headers


class Hook:
    """An incoming webhook: a channel to post to, of which nothing can be asked. Errors as of `Workspace`."""

    def __init__(self, url: str, timeout: float, stop: threading.Event) -> None:
        from slack_sdk.webhook import WebhookClient

        self.url = url
        self._where = host_of(url)
        self._client = WebhookClient(url, timeout=max(1, round(timeout)), logger=_SILENT, retry_handlers=[])
        keep_hook_straight(self._client)
        self._stop = stop

    def post(self, channel: str, made: Made, metadata: Mapping[str, Any], thread: str = "") -> Spot:
        """Post a message to the webhook's own channel."""
        _patiently(lambda: self._once(made.arguments | {"metadata": metadata}), self._stop)
        return Spot()

    def _once(self, body: dict[str, Any]) -> None:
        from slack_sdk.errors import SlackClientError

        try:
            response = self._client.send_dict(body)
        except SlackClientError as error:
            raise unreachable(http.client.InvalidURL(str(error)), self._where) from None
        except _TROUBLE as error:
            raise unreachable(error, self._where) from None
        said = response.body.strip()
        if response.status_code == 200 and said == "ok":
            return
        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
        raise read(response.status_code, said, {}, headers.get("retry-after", ""), self._where)


def _patiently(attempt: Callable[[], _T], stop: threading.Event) -> _T:
    """Attempt it again after the short waits that Slack asks for, as long as nobody wants to stop."""
    for _ in range(_WAITS):
        try:
            return attempt()
        except RetryLater as error:
            if error.after is None or error.after > _SHORT or stop.wait(error.after):
                raise
    return attempt()
