"""What Slack's answers mean: its error codes, sorted by what must be done next.

https://docs.slack.dev/reference/methods/chat.postMessage and https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import http.client
import math
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

from muxly_dagster.errors import ConfigurationError, GoneError, MuxlyError, RecordRefused, RetryLater, SignInError

_SIGN_IN = frozenset(
    [
        "not_authed",
        "invalid_auth",
        "account_inactive",
        "token_revoked",
        "token_expired",
        "not_allowed_token_type",
        "access_denied",
        "ekm_access_denied",
        "two_factor_setup_required",
        "org_login_required",
        "invalid_token",
        "no_permission",
    ]
)
_PASSING = frozenset(
    [
        "ratelimited",
        "rate_limited",
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
        "accesslimited",
        "external_channel_migrating",
        "rollup_error",
    ]
)
_CHANNEL = frozenset(
    [
        "channel_not_found",
        "is_archived",
        "channel_is_archived",
        "not_in_channel",
        "is_inactive",
        "user_not_found",
        "user_disabled",
        "cannot_dm_bot",
        "im_disabled",
        "messages_tab_disabled",
        "channel_type_not_supported",
        "restricted_action",
        "action_prohibited",
        "restricted_action_read_only_channel",
        "restricted_action_thread_only_channel",
        "restricted_action_non_threadable_channel",
        "posting_to_general_channel_denied",
        "no_channel",
        "invalid_channel",
    ]
)
_MESSAGE = frozenset(
    [
        "msg_too_long",
        "msg_blocks_too_long",
        "no_text",
        "invalid_blocks",
        "invalid_blocks_format",
        "block_mismatch",
        "invalid_arguments",
        "too_many_attachments",
        "invalid_attachments",
        "markdown_text_conflict",
        "metadata_too_large",
        "invalid_metadata_format",
        "invalid_metadata_schema",
        "invalid_payload",
        "missing_text_or_fallback_or_attachments",
    ]
)
LOST = frozenset(
    ["message_not_found", "thread_not_found", "cannot_reply_to_message", "invalid_thread_ts", "cant_update_message", "edit_window_closed"]
)
"""The message that was to be updated or answered is not there any more, or may not be changed."""

_GONE = frozenset(["no_service", "no_active_hooks", "no_team", "team_disabled"])

_DO = {
    "channel_not_found": "correct the channel, and invite the app to it with `/invite`: it does not see private channels that it is not in",
    "not_in_channel": "invite the app to the channel with `/invite`, or give it the scope chat:write.public",
    "is_archived": "unarchive the channel, or name another one",
    "channel_is_archived": "unarchive the channel, or make a webhook for another one",
}
_LONGEST_WAIT = 86_400.0
_CODE = re.compile(r"[a-z][a-z0-9_]*")


class Refused(Exception):
    """Slack said no by a code that means something else at another place; `said` are its words."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(code)
        self.code, self.said = code, said

    def error(self, where: str, *, fixed: bool) -> MuxlyError:
        """What it means for a message: about the record, about the channel, whoever named it, or about the app."""
        if self.code in _MESSAGE or (self.code in _CHANNEL and not fixed):
            return RecordRefused(f"Slack refuses the message: {self.said}", where=where)
        if self.code == "missing_scope":
            do = "give the app the scope in its settings (OAuth & Permissions), and install it again"
            return ConfigurationError(f"the app may not do this: {self.said}", do=do, where=where)
        do = _DO.get(self.code, "look the code up in Slack's documentation of chat.postMessage")
        return ConfigurationError(f"Slack does not take messages here: {self.said}", do=do, where=where)


def read(status: int, code: str, body: Mapping[str, Any], after: str, where: str) -> MuxlyError | Refused:
    """The error of an answer that is no success: HTTP status, Slack's code, the rest of the body, and the header Retry-After."""
    if status == 429 or code in ("ratelimited", "rate_limited"):
        do = "nothing: it goes on by itself; put several records into one message with `group` if it stays"
        return RetryLater("Slack's rate limit is used up", do=do, where=where, after=_seconds(after))
    if not _CODE.fullmatch(code) and status < 500:
        return RetryLater(f"the answer is not Slack's (HTTP {status})", do="look for a proxy in between, and at `base_url`", where=where)
    if status >= 500 or code in _PASSING:
        said = code if _CODE.fullmatch(code) else f"HTTP {status}"
        return RetryLater(f"Slack cannot answer now ({said})", do="try again later; see https://slack-status.com if it stays", where=where)
    said = _said(code, body)
    if code in _SIGN_IN:
        return SignInError(f"Slack refuses the token ({said})", do="set `token` to the app's Bot User OAuth Token (xoxb-...)", where=where)
    if code in _GONE:
        do = "make a new incoming webhook in the app's settings, and set `webhook_url` to it"
        return GoneError(f"the webhook is switched off or removed ({said})", do=do, where=where)
    return Refused(code, said)


def unreachable(error: Exception, where: str) -> MuxlyError:
    """The error when no whole answer came. The request may have been carried out all the same."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        do = "check the address; for a certificate authority of your own, name its file in SSL_CERT_FILE"
        return ConfigurationError(f"the server's certificate is not trusted ({cause.verify_message})", do=do, where=where)
    if isinstance(cause, http.client.InvalidURL):
        return ConfigurationError("the address cannot be read", do="correct `webhook_url` or `base_url`", where=where)
    kind = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
    return RetryLater(f"no whole answer came from Slack ({kind})", do="check the network, or try again later", where=where)


def _said(code: str, body: Mapping[str, Any]) -> str:
    """The code, with what Slack adds to it: the scope that is missing, the place in the blocks."""
    needed = body.get("needed")
    if needed:
        return f"{code}: it needs {needed}, and has {body.get('provided') or 'none'}"
    metadata = body.get("response_metadata")
    found = metadata.get("messages") if isinstance(metadata, Mapping) else None
    details = [str(message).removeprefix("[ERROR]").strip() for message in found] if isinstance(found, list) else []
    return ": ".join([code, "; ".join(details)[:500]]) if details else code


def _seconds(text: str) -> float | None:
    """A Retry-After as seconds, at most a day; None where it is no number."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_WAIT)
