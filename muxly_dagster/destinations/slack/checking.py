"""Trying a Slack destination without posting."""

from muxly_dagster.destinations.slack.answers import Refused
from muxly_dagster.destinations.slack.workspace import Workspace
from muxly_dagster.errors import MuxlyError
from muxly_dagster.resource import CheckResult

_MAY_POST_ANYWHERE = "chat:write.public"
SCOPES = "give the app the scopes channels:read and channels:history (groups: for private channels), and invite it to the channel"


def check_workspace(workspace: Workspace, channel: str, *, keyed: bool) -> CheckResult:
    """Sign in, look the channel up and look into it. A scope that is missing for looking is no obstacle to posting, unless messages
    have to be found again (`keyed`)."""
    tried = "auth.test"
    try:
        me = workspace.me()
        who = f"signed in as {me.get('user')} at {me.get('team')}"
        if workspace.may("chat:write") is False:
            raise Refused("missing_scope", "missing_scope: it needs chat:write")
        if not channel:
            return CheckResult("ok", tried, f"{who}; each record names its channel; no message was posted")
        tried = "auth.test, conversations.info"
        unseen = _look_up(workspace, channel)
        if unseen:
            return CheckResult("failed" if keyed else "ok", tried, f"{who}; {unseen}", SCOPES if keyed else "")
        tried = "auth.test, conversations.info, conversations.history"
        unread = _look_into(workspace, channel)
        if unread:
            return CheckResult("failed" if keyed else "ok", tried, f"{who}; {unread}", SCOPES if keyed else "")
    except Refused as refused:
        return CheckResult.failed(tried, refused.error(channel, fixed=True))
    except MuxlyError as error:
        return CheckResult.failed(tried, error)
    return CheckResult("ok", tried, f"{who}; {channel} is there, and what was posted is recognised; no message was posted")


def _look_up(workspace: Workspace, channel: str) -> str:
    """Why the channel could not be looked up, if so. Raises Refused where it cannot be posted to."""
    try:
        id_ = workspace.channel_id(channel)
        if id_ is None:
            raise Refused("channel_not_found", "channel_not_found")
        found = workspace.channel(id_)
    except Refused as refused:
        if refused.code != "missing_scope":
            raise
        return f"{channel} could not be looked up ({refused.said}); no message was posted"
    if found.get("is_archived"):
        raise Refused("is_archived", "is_archived")
    if found.get("is_member") is False and not workspace.may(_MAY_POST_ANYWHERE):
        raise Refused("not_in_channel", "not_in_channel")
    return ""


def _look_into(workspace: Workspace, channel: str) -> str:
    """Why the channel's messages cannot be read, if so."""
    try:
        next(workspace.history(workspace.channel_id(channel) or channel, 0, most=1), None)
    except Refused as refused:
        return f"messages that stood in {channel} before a crash are not recognised ({refused.said}); no message was posted"
    return ""
