"""The `slack` destination: messages in Slack channels, by a bot token or an incoming webhook.

With a token, every message carries the records it shows in its metadata, so that a repetition finds it in the channel and posts none twice.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator

from muxly_dagster.destination import Delivery, Destination, Message, Receipt
from muxly_dagster.destinations.slack.answers import Refused
from muxly_dagster.destinations.slack.checking import SCOPES, check_workspace
from muxly_dagster.destinations.slack.notes import Note, compose, key_of, shown, target_of
from muxly_dagster.destinations.slack.posting import AT_ONCE, Pace, Posting, Way
from muxly_dagster.destinations.slack.recalling import Recall, look_back
from muxly_dagster.destinations.slack.workspace import Hook, Known, Made, Spot, Workspace
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater
from muxly_dagster.measures import Duration, parse_duration
from muxly_dagster.messages import (
    Group,
    Letter,
    PostingAddress,
    Settled,
    TemplateText,
    TemplateTree,
    check_address,
    check_templates,
    deleted,
    host_of,
    letters,
    require_columns,
)
from muxly_dagster.resource import CheckResult

Columns = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class Slack(Destination):
    """Slack channels."""

    type: ClassVar[str] = "slack"
    title: ClassVar[str] = "Slack"
    batch_rows: ClassVar[int] = 2_000
    templates: ClassVar[tuple[str, ...]] = ("text", "blocks")
    example: ClassVar[Mapping[str, Any]] = {"token": None, "channel": "C0123456789", "text": "New: {{ key }}"}

    # The address of an incoming webhook is its password: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    token: SecretStr | None = Field(None, description="The app's bot token (`xoxb-...`). This, or `webhook_url`.")
    webhook_url: PostingAddress | None = Field(None, description="The address of an incoming webhook, which posts to one channel.")
    channel: str = Field("", description="With a token: the channel, by id (better) or name, or a person's id.", examples=["C0123456789"])
    channel_by: str = Field("", description="With a token: the column that names each record's channel.", examples=["owner_channel"])
    text: TemplateText = Field(description="The message: a template in Slack's mrkdwn. Beside `blocks`, what notifications show.")
    blocks: TemplateTree = Field(
        None,
        description="Block Kit, as a list of blocks whose texts are templates.",
        examples=[[{"type": "section", "text": {"type": "mrkdwn", "text": "*{{ name }}*"}}]],
    )
    thread_by: Columns = Field(
        (),
        description="Records that are alike in these columns (`key`: the record's key) go into one thread.",
        examples=["key"],
    )
    update_by: Columns = Field(
        (), description="A record replaces the message of the record before it that is alike in these columns.", examples=["key"]
    )
    group: Group | None = Field(None, description="Many records in one message.", examples=[{"by": ["owner"], "most": 50}])
    deletes: bool = Field(False, description="Whether a deleted record is a message too; the template sees `op`.")
    lookback: Duration = Field("30d", min_length=1, description="How far back earlier messages are looked for.")
    unfurl: bool = Field(False, description="Whether Slack shows previews of the links in a message.")
    pace: float = Field(1.0, ge=0, le=60, description="Least seconds between two messages to a channel; Slack asks for one.")
    concurrency: int = Field(4, ge=1, le=20, description="Channels that are posted to side by side.")
    timeout: float = Field(30.0, ge=1, description="Seconds to wait for an answer.")
    base_url: str = Field("https://slack.com/api/", description="The Web API's address; https://slack-gov.com/api/ for GovSlack.")

    _known: Known = PrivateAttr(default_factory=Known)
    _recalls: dict[tuple[str, str], Recall] = PrivateAttr(default_factory=dict)
    _pace: Pace = PrivateAttr(default_factory=Pace)

    @field_validator("blocks")
    @classmethod
    def _a_list(cls, blocks: Any) -> Any:
        if blocks is not None and not (isinstance(blocks, list) and all(isinstance(block, Mapping) for block in blocks)):
            raise ValueError("is a list of blocks, each with its `type`")
        return blocks

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.token is None) == (self.webhook_url is None):
            raise ValueError("say either `token` or `webhook_url`")
        if self.token is not None and bool(self.channel) == bool(self.channel_by):
            raise ValueError("with a token, say either `channel` or `channel_by`")
        if self.webhook_url is not None and (self.channel or self.channel_by or self.thread_by or self.update_by):
            raise ValueError("a webhook posts to its own channel and cannot find a message again: use a `token` for the rest")
        if self.thread_by and self.update_by:
            raise ValueError("say either `thread_by` or `update_by`")
        if self.group is not None and "key" in (*self.thread_by, *self.update_by):
            raise ValueError("a grouped message has many keys: name columns in `thread_by` or `update_by`")
        return self

    def deliver(self, delivery: Delivery) -> Receipt:
        """Post messages, up to 100 to a channel at a time; answers for those that stand there, and for those that were there before.

        A passing trouble confirms what is posted. A record that Slack refuses, or whose channel it does not know, is refused.
        """
        self._check_columns(delivery)
        recall = self._recalls.setdefault((target_of(delivery), delivery.table_id), Recall())
        recall.begin(delivery)
        settled, stop = Settled(delivery), threading.Event()
        silent = frozenset() if self.deletes else deleted(delivery)
        found = self._letters(delivery, silent)
        wall = self._wall(stop)
        ids, unread, later = self._look_back(delivery, found, recall, wall) if isinstance(wall, Workspace) else ({}, {}, None)
        seen = recall.seen(found, delivery, self.update_by)
        settled.accept(silent | seen)
        waiting = self._beyond(found, {*ids, *unread}) if later is not None else frozenset()
        queues = self._queues(self._letters(delivery, silent | seen | waiting) if seen or waiting else found, settled, unread)
        way = Way(ids, not self.channel_by, bool(self.update_by), self.pace, self.concurrency)
        posting = Posting(wall, delivery, settled, recall, stop)
        posting.run(queues, lambda note: self._made(delivery, note.letter), way, self._pace)
        tally = posting.tally
        detail: dict[str, Any] = {"messages": tally.posted, "channels": sorted({queue[0].channel for queue in queues if queue[0].channel})}
        detail |= {"updated": tally.updated} if self.update_by else {}
        detail |= {"already_there": len(seen)} if seen else {}
        detail |= {"not_looked_through": unread} if unread else {}
        detail |= {"last": tally.last.ts} | self._link(wall, tally.last) if tally.last.ts else {}
        error = posting.error or later
        receipt = settled.receipt(detail, error)
        if error is None:
            recall.end(delivery.upto if receipt.upto is None else receipt.upto)
        return receipt

    def render(self, delivery: Delivery) -> Sequence[Message]:
        """The messages as people would read them, with the channel where records name it."""
        self._check_columns(delivery)
        found = []
        for letter in self._letters(delivery, frozenset() if self.deletes else deleted(delivery)):
            try:
                text = shown(*compose(delivery, letter, self.text, self.blocks))
            except RecordRefused as refused:
                text = f"(refused: {refused.what})"
            channel = self._channel_of(letter)
            found.append(Message(letter.seqs, f"{channel}: {text}" if self.channel_by else text))
        return found

    def check(self) -> CheckResult:
        """Sign in and look the channel up. An incoming webhook can only be reached: trying it would post."""
        wall = self._wall(threading.Event())
        if isinstance(wall, Workspace):
            return check_workspace(wall, self.channel, keyed=bool(self.thread_by or self.update_by))
        return check_address(wall.url, self.timeout)

    def public_name(self, table: str) -> str:
        """The channel, where it is the same for all records."""
        if self.webhook_url is not None:
            return host_of(self.webhook_url.get_secret_value())
        return self.channel or f"the channel in {self.channel_by}"

    # ---- messages and where they go ------------------------------------------------------------------------------------

    def _check_columns(self, delivery: Delivery) -> None:
        check_templates(delivery, {"text": self.text, "blocks": self.blocks})
        require_columns([self.channel_by] if self.channel_by else [], delivery, "channel_by")
        for setting, names in (("thread_by", self.thread_by), ("update_by", self.update_by)):
            require_columns([name for name in names if name != "key"], delivery, setting)

    def _letters(self, delivery: Delivery, without: frozenset[int]) -> list[Letter]:
        """Records of different channels, threads or messages to update never share a message."""
        group = self.group
        if group is not None:
            apart = (*((self.channel_by,) if self.channel_by else ()), *self.thread_by, *self.update_by)
            group = group.model_copy(update={"by": tuple(dict.fromkeys((*group.by, *apart)))})
        return letters(delivery, group, without)

    def _channel_of(self, letter: Letter) -> str:
        if not self.channel_by:
            return self.channel
        value = letter.records[-1]["data"].get(self.channel_by)
        return "" if value is None else str(value).strip()

    def _made(self, delivery: Delivery, letter: Letter) -> Made:
        return Made(*compose(delivery, letter, self.text, self.blocks), self.unfurl)

    def _queues(self, found: Sequence[Letter], settled: Settled, unread: Mapping[str, str]) -> list[list[Note]]:
        """What goes to each channel now. Of several states of one message only the newest is sent."""
        queues: dict[str, dict[str | int, Note]] = {}
        keyed = self.thread_by or self.update_by
        for letter in found:
            channel = self._channel_of(letter)
            if self.channel_by and not channel:
                settled.refuse(letter.seqs, f"the record names no channel: {self.channel_by} is empty")
                continue
            if keyed and channel in unread:
                settled.refuse(letter.seqs, f"earlier messages in {channel} cannot be found: {unread[channel]}")
                continue
            queue, key = queues.setdefault(channel, {}), key_of(letter, keyed)
            earlier = queue.pop(key, None) if self.update_by else None
            seqs = tuple(sorted((*(earlier.seqs if earlier else ()), *letter.seqs)))
            queue[key if self.update_by else letter.seqs[-1]] = Note(letter, channel, key, seqs)
        first = settled.first_open
        # The message with the first change is always among them, so that every delivery confirms something.
        return [[note for at, note in enumerate(queue.values()) if at < AT_ONCE or first in note.seqs] for queue in queues.values()]

    def _look_back(
        self, delivery: Delivery, found: Sequence[Letter], recall: Recall, workspace: Workspace
    ) -> tuple[dict[str, str], dict[str, str], RetryLater | None]:
        """Read what stands in the channels of these messages, where it is not known: the channels' ids by name, why which could not be
        read, and the passing trouble that keeps the rest of them for later. Raises ConfigurationError where that is in the way of every
        record."""
        ids: dict[str, str] = {}
        unread: dict[str, str] = {}
        keyed, lookback = bool(self.thread_by or self.update_by), parse_duration(self.lookback).total_seconds()
        for name in dict.fromkeys(channel for letter in found if (channel := self._channel_of(letter))):
            try:
                id_ = workspace.channel_id(name)
                if id_ is None:
                    raise Refused("channel_not_found", "channel_not_found: the app sees no channel of this name")
                refused = look_back(recall, workspace, delivery, id_, keyed=keyed, lookback=lookback)
                ids[name] = id_
            except Refused as unknown:
                refused = unknown
            except RetryLater as later:
                return ids, unread, later
            if refused is not None and keyed and (not self.channel_by or refused.code == "missing_scope"):
                what = f"earlier messages cannot be found, as `thread_by` and `update_by` need: {refused.said}"
                raise ConfigurationError(what, do=SCOPES, where=name)
            if refused is not None:
                unread[name] = refused.said
        return ids, unread, None

    def _beyond(self, found: Sequence[Letter], reached: Collection[str]) -> frozenset[int]:
        """The changes whose channels were not come to."""
        channels = ((self._channel_of(letter), letter) for letter in found)
        return frozenset(seq for channel, letter in channels if channel and channel not in reached for seq in letter.seqs)

    # ---- Slack -----------------------------------------------------------------------------------------------------------

    def _wall(self, stop: threading.Event) -> Workspace | Hook:
        if self.token is not None:
            return Workspace(self.token.get_secret_value(), self.base_url, self.timeout, self._known, stop)
        return Hook(self.webhook_url.get_secret_value() if self.webhook_url else "", self.timeout, stop)

    @staticmethod
    def _link(wall: Workspace | Hook, spot: Spot) -> dict[str, str]:
        """The last message's address, which is a convenience: a receipt does not fail for the want of it."""
        try:
            return {"permalink": wall.permalink(spot)} if isinstance(wall, Workspace) else {}
        except (Refused, MuxlyError):
            return {}
