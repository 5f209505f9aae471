"""A workflow of Power Automate that posts what its webhook is sent into a Teams channel."""

import json
from types import TracebackType
from typing import Any, Self

from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

PATH = "/powerautomate/automations/direct/workflows/86ffea6392fe4f3f/triggers/manual/paths/invoke"
SIGNATURE = "s3cret-signature-of-the-flow"
_MOST = 28 * 1024


class Workflow:
    """The workflow. `posted` are the cards by the key of their request, `arrived` all of them; `answers` come before it does its work."""

    def __init__(self) -> None:
        self.posted: dict[str, dict[str, Any]] = {}
        self.arrived: list[dict[str, Any]] = []
        self.answers: list[bytes] = []
        self.after: list[bytes] = []
        self._server = Server(self._reply)

    @property
    def url(self) -> str:
        """The address with its signature."""
        return self.signed(SIGNATURE)

    def signed(self, signature: str) -> str:
        """The address with another signature."""
        return f"{self._server.url}{PATH}?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={signature}"

    @property
    def asked(self) -> list[Asked]:
        return self._server.asked

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.__exit__(kind, error, trace)

    def refuse(self, status: int, code: str, times: int = 1) -> None:
        """Answer the next requests with an error as Power Automate words it."""
        self.answers += [json_answer({"error": {"code": code, "message": "The request was refused."}}, status)] * times

    def _reply(self, asked: Asked) -> bytes | list[bytes]:
        if asked.method == "OPTIONS":
            return answer(404)
        if self.answers:
            return [self.answers.pop(0), Server.cut]
        if asked.path != PATH:
            return json_answer({"error": {"code": "WorkflowNotFound", "message": "The workflow could not be found."}}, 404)
        if dict(asked.query).get("sig") != SIGNATURE:
            return json_answer({"error": {"code": "DirectApiAuthorizationRequired", "message": "The signature is not valid."}}, 401)
        if len(asked.body) > _MOST:
            return answer(413, "RequestEntityTooLarge")
        try:
            message = json.loads(asked.body)
            (attachment,) = message["attachments"]
            card = attachment["content"]
            assert (message["type"], card["type"], card["version"]) == ("message", "AdaptiveCard", "1.5")
            assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
            assert "charset=utf-8" in asked.headers["content-type"]
            assert card["body"]
        except (ValueError, KeyError, AssertionError):
            return json_answer({"error": {"code": "TriggerInputSchemaMismatch", "message": "The input body does not match."}}, 400)
        self.arrived.append(card)
        self.posted[asked.headers["idempotency-key"]] = card
        return [self.after.pop(0), Server.cut] if self.after else answer(202)
