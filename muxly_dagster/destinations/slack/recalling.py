"""What of a target's messages stands in the channels already, so that none is posted twice and answers find their thread.

Slack itself remembers it: every message carries in its metadata which records it shows. Nothing is kept on this side but what was read.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.destinations.slack.answers import Refused
from muxly_dagster.destinations.slack.notes import Posted, key_of, target_of
from muxly_dagster.destinations.slack.workspace import Workspace
from muxly_dagster.messages import Letter

_SKEW = 300.0
"""Seconds that the clocks of this machine and of Slack may differ."""


@dataclass(slots=True)
class Recall:
    """What is known of one target's messages. `upto` is the seq up to which all was answered for; `doubtful` whether an attempt ended
    in a way that leaves open what was posted."""

    upto: int | None = None
    doubtful: bool = True
    posted: dict[tuple[str, str], Posted] = field(default_factory=dict)
    looked: set[str] = field(default_factory=set)

    def begin(self, delivery: Delivery) -> None:
        """Before a delivery: whether what is known still holds. Another process may have come in between."""
        if self.doubtful or self.upto != delivery.after:
            self.looked.clear()
        self.doubtful = True

    def end(self, upto: int) -> None:
        """After a delivery of which every message is answered for, or certainly not sent. What is behind is forgotten, but for the
        message that each thread begins with."""
        roots = sorted((each for each in self.posted.values() if each.key and each.thread == each.ts), key=lambda each: each.ts)
        newest = set({(each.channel, each.key): (each.channel, each.ts) for each in roots}.values())
        self.posted = {name: each for name, each in self.posted.items() if each.last > upto or name in newest}
        self.upto, self.doubtful = upto, False

    def add(self, posted: Posted) -> None:
        """A message stands there now."""
        self.posted[(posted.channel, posted.ts)] = posted

    def forget(self, posted: Posted) -> None:
        """A message is not there any more."""
        self.posted.pop((posted.channel, posted.ts), None)

    def root(self, channel: str, key: str) -> Posted | None:
        """The newest message of a key that others may stand under, or take the place of."""
        found = [each for each in self.posted.values() if each.channel == channel and each.key == key and each.thread == each.ts]
        return max(found, key=lambda each: each.ts, default=None)

    def seen(self, letters: Sequence[Letter], delivery: Delivery, update_by: Sequence[str]) -> frozenset[int]:
        """The changes of these messages that are in a channel already.

        A message shows the records of its group from its first to its last, and so many of them: with another number of them between
        the two it is not the same one. Where a newer record replaces an older one's message, everything older is dealt with.
        """
        mine = [each for each in self.posted.values() if each.table_id == delivery.table_id]
        alone = {each.first for each in mine if not each.alike}
        together: dict[str, list[Posted]] = {}
        for each in mine:
            together.setdefault(each.alike, []).append(each)
        groups: dict[str, list[int]] = {}
        found: set[int] = set()
        for letter in letters:
            if letter.alike:
                groups.setdefault(letter.alike, []).extend(letter.seqs)
            else:
                found.update(alone.intersection(letter.seqs))
        for alike, seqs in groups.items():
            for each in together.get(alike, ()):
                shown = [seq for seq in seqs if each.first <= seq <= each.last]
                whole = each.first > delivery.after and each.last <= delivery.upto
                if len(shown) == each.count or (not whole and len(shown) < each.count):
                    found.update(shown)
        if update_by:
            newest = {each.key: each.last for each in sorted(mine, key=lambda each: each.last)}
            old = (letter for letter in letters if letter.seqs[-1] <= newest.get(key_of(letter, update_by), 0))
            found.update(seq for letter in old for seq in letter.seqs)
        return frozenset(found)


def look_back(recall: Recall, workspace: Workspace, delivery: Delivery, channel: str, *, keyed: bool, lookback: float) -> Refused | None:
    """Read a channel's own messages: at most `lookback` seconds of them; not further than the records are old unless they are `keyed`.

    Answers why it may not be read, where that is so.
    """
    if channel in recall.looked:
        return None
    now, target, threads = time.time(), target_of(delivery), []
    # No message is older than the reading of its record.
    since = max(pc.min(delivery.rows[records.AT]).as_py().timestamp() - _SKEW, now - lookback)
    try:
        for message in workspace.history(channel, now - lookback if keyed else since):
            posted = Posted.read(channel, message)
            if posted is not None and posted.target == target:
                recall.add(posted)
                if float(message.get("latest_reply") or 0) >= since:
                    threads.append(posted.ts)
        for thread in threads:
            answers = (Posted.read(channel, message) for message in workspace.history(channel, since, thread))
            for answer in answers:
                if answer is not None and answer.target == target:
                    recall.add(answer)
    except Refused as refused:
        return refused
    recall.looked.add(channel)
    return None
