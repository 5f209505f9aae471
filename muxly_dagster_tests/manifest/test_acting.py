"""Actions: inputs are checked, the request says them, and the answer comes back as values, a text or a file."""

import base64
import json
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater, SourceError
from muxly_dagster.http import Http, Retries
from muxly_dagster.manifest.acting import act, input_schema
from muxly_dagster.manifest.asking.judging import judge
from muxly_dagster.manifest.language.expressions import render
from muxly_dagster.manifest.language.mail import mime
from muxly_dagster.manifest.schema import ActionSpec, ErrorRule
from muxly_dagster.services import Services
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

OK = json_answer({"id": "1", "state": {"name": "sent"}})
CREATE = {
    "title": "Create",
    "request": {"method": "POST", "path": "/things/${input.folder}", "json": {"name": "${input.name}", "tags": "${input.tags}"}},
    "input": {
        "name": {"type": "string", "required": True, "title": "Name"},
        "folder": {"type": "string", "default": "root"},
        "tags": {"type": "list"},
        "count": {"type": "integer"},
        "wait": {"type": "duration"},
    },
}


def do(reply: Any, spec: dict[str, Any], inputs: dict[str, Any], services: Services | None = None) -> tuple[Any, list[Asked]]:
    rules = judge([ErrorRule.model_validate({"status": 409, "do": "skip"})])
    made = ActionSpec.model_validate(spec)
    with Server(reply) as server, Http(server.url, judge=rules, retries=Retries(attempts=3, base=0)) as http:
        return act(http, made, "create", inputs, {"config": {}}, services or Services()), server.asked


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_fill_the_request_and_what_is_not_given_is_left_out() -> None:
    found, (asked,) = do(lambda _: OK, CREATE, {"name": "a"})
    assert (asked.method, asked.path, json.loads(asked.body)) == ("POST", "/things/root", {"name": "a"})
    assert found == {"id": "1", "state": {"name": "sent"}}
    _, (asked,) = do(lambda _: OK, CREATE, {"name": "a", "folder": "x/y", "tags": ["b", "c"]})
    assert (asked.path, json.loads(asked.body)) == ("/things/x%2Fy", {"name": "a", "tags": ["b", "c"]})


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "needs the input `name`"),
        ({"name": None}, "needs the input `name`"),
        ({"name": "a", "tag": []}, r"no input 'tag'; did you mean `tags`\?"),
        ({"name": 1}, "takes a string as `name`, not int"),
        ({"name": "a", "count": 1.5}, "takes a whole number as `count`"),
        ({"name": "a", "count": True}, "takes a whole number as `count`"),
        ({"name": "a", "tags": "b"}, "takes a list as `tags`"),
        ({"name": "a", "wait": "soon"}, "takes a length of time as `wait`"),
        ({"name": "a", "idempotency_key": "k"}, "no input 'idempotency_key'"),
    ],
)
def test_wrong_inputs_are_named_and_nothing_is_sent(inputs: dict[str, Any], says: str) -> None:
    with Server(lambda _: OK) as server, Http(server.url) as http:
        with pytest.raises(ConfigurationError, match=says):
            act(http, ActionSpec.model_validate(CREATE), "create", inputs, {}, Services())
        assert server.asked == []


def test_the_inputs_are_told_as_a_json_schema() -> None:
    schema = input_schema(ActionSpec.model_validate({**CREATE, "idempotency": "Idempotency-Key"}))
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["name"] == {"type": "string", "title": "Name"}
    assert schema["properties"]["folder"]["default"] == "root"
    assert set(schema["properties"]) == {*CREATE["input"], "idempotency_key"}  # type: ignore[misc]


def test_an_address_without_its_value_is_not_asked() -> None:
    spec = {"request": {"path": "/things/${input.id}"}, "input": {"id": {"type": "string"}}}
    with pytest.raises(ConfigurationError, match="no value for its address"):
        do(lambda _: OK, spec, {})


# ---- files -----------------------------------------------------------------------------------------------------------

UPLOAD = {
    "request": {"method": "PUT", "path": "/content", "content": "${input.file}", "headers": {"Content-Type": "image/png"}},
    "input": {"file": {"type": "file", "required": True}},
}


def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    content = bytes(range(256))
    (tmp_path / "a.png").write_bytes(content)
    _, (asked,) = do(lambda _: OK, UPLOAD, {"file": str(tmp_path / "a.png")})
    assert (asked.body, asked.headers["content-type"]) == (content, "image/png")


def test_a_file_that_is_not_there_or_too_large_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        do(lambda _: OK, UPLOAD, {"file": str(tmp_path / "none")})
    with (tmp_path / "large").open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(ConfigurationError, match="314,572,800 bytes"):
        do(lambda _: OK, UPLOAD, {"file": str(tmp_path / "large")})


def test_bytes_come_as_they_are_or_in_base64() -> None:
    spec = {**UPLOAD, "input": {"file": {"type": "bytes"}}}
    assert do(lambda _: OK, spec, {"file": b"\0\xff"})[1][0].body == b"\0\xff"
    assert do(lambda _: OK, spec, {"file": "AP8="})[1][0].body == b"\0\xff"
    with pytest.raises(ConfigurationError, match="base64"):
        do(lambda _: OK, spec, {"file": "not base64!"})


def test_a_file_can_stand_in_json_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\xff")
    spec = {**UPLOAD, "request": {"method": "POST", "path": "/c", "json": {"data": "${input.file|base64}"}}}
    assert json.loads(do(lambda _: OK, spec, {"file": str(tmp_path / "a")})[1][0].body) == {"data": "AP8="}


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_part_of_an_answer_a_text_or_nothing() -> None:
    assert do(lambda _: OK, {**CREATE, "output": "$.state.name"}, {"name": "a"})[0] == "sent"
    assert do(lambda _: answer(200, "grüße"), {**CREATE, "response": "text"}, {"name": "a"})[0] == "grüße"
    assert do(lambda _: answer(204), CREATE, {"name": "a"})[0] is None
    assert do(lambda _: answer(200, "whatever"), {**CREATE, "response": "none"}, {"name": "a"})[0] is None
    with pytest.raises(SourceError, match="no UTF-8"):
        do(lambda _: answer(200, b"\xff"), {**CREATE, "response": "text"}, {"name": "a"})


def test_a_file_that_is_answered_is_kept() -> None:
    services = Services()
    reply = answer(200, b"\0pdf", Content_Type="application/pdf; x=y")
    found, _ = do(lambda _: reply, {**CREATE, "response": "binary"}, {"name": "a"}, services)
    assert (found["size"], found["media_type"]) == (4, "application/pdf")
    assert Path(found["url"]).read_bytes() == b"\0pdf"
    assert services.files.find(found["sha256"]) == found["url"]


@pytest.mark.parametrize("status", [400, 404, 409])
def test_a_refusal_is_an_error_that_names_the_action_even_where_a_pull_would_skip_it(status: int) -> None:
    with pytest.raises(SourceError, match=f"create: .*{status}"):
        do(lambda _: json_answer({"message": "no"}, status), CREATE, {"name": "a"})


def test_a_secret_input_is_not_told_when_the_answer_quotes_it() -> None:
    spec = {
        "request": {"method": "POST", "path": "/things", "json": {"password": "${input.password}"}},
        "input": {"password": {"type": "string", "secret": True}},
    }
    with pytest.raises(SourceError, match=r"no such user") as caught:
        do(lambda a: json_answer({"message": f"no such user {a.body.decode()}"}, 400), spec, {"password": "s3cr3t-w0rd"})
    assert "s3cr3t-w0rd" not in str(caught.value)


@pytest.mark.parametrize("step", ["..", "."])
def test_an_input_does_not_lead_out_of_its_place_in_the_address(step: str) -> None:
    spec = {"request": {"method": "DELETE", "path": "/things/${input.id}"}, "input": {"id": {"type": "string"}}}
    asked: list[Asked] = []
    with pytest.raises(ConfigurationError, match="would lead out of its place"):
        do(lambda a: asked.append(a) or OK, spec, {"id": step})  # type: ignore[func-returns-value]
    assert asked == []
    _, (sent,) = do(lambda _: OK, spec, {"id": "../x?y#z"})
    assert sent.target == "/things/..%2Fx%3Fy%23z"


def test_a_filter_that_refuses_a_secret_does_not_tell_it() -> None:
    spec = {
        "request": {"method": "POST", "path": "/things", "json": {"since": "${input.pin|date}"}},
        "input": {"pin": {"type": "string", "secret": True}},
    }
    with pytest.raises(ConfigurationError, match="cannot be sent") as caught:
        do(lambda _: OK, spec, {"pin": "s3cr3t-w0rd"})
    assert "s3cr3t-w0rd" not in str(caught.value)


def test_a_line_break_begins_no_other_header_of_the_request() -> None:
    spec = {
        "request": {"method": "POST", "path": "/things", "headers": {"X-Kind": "${input.kind}"}},
        "input": {"kind": {"type": "string"}},
    }
    asked: list[Asked] = []
    with pytest.raises(ConfigurationError):
        do(lambda a: asked.append(a) or OK, spec, {"kind": "a\r\nX-Admin: yes"})  # type: ignore[func-returns-value]
    assert asked == []


# ---- once and not twice ----------------------------------------------------------------------------------------------


def test_a_post_that_may_have_been_carried_out_is_not_repeated_in_silence() -> None:
    calls = []

    def reply(asked: Asked) -> bytes:
        calls.append(asked)
        return answer(502)

    with pytest.raises(RetryLater, match="not sent again"):
        do(reply, CREATE, {"name": "a"})
    assert len(calls) == 1


@pytest.mark.parametrize("given", [{}, {"idempotency_key": "mine"}])
def test_with_an_idempotency_key_it_is_repeated_with_the_same_one(given: dict[str, Any]) -> None:
    spec = {**CREATE, "idempotency": "X-Request-Key"}
    found, asked = do(lambda a: OK if a.number == 3 else answer(502), spec, {"name": "a", **given})
    keys = {each.headers["x-request-key"] for each in asked}
    assert (len(asked), len(keys), found["id"]) == (3, 1, "1")
    assert keys == {"mine"} if given else len(keys.pop()) == 36


# ---- mail ------------------------------------------------------------------------------------------------------------

MAIL = {
    "to": ["Ann <ann@shop.example>", "bob@shop.example"],
    "bcc": "carl@shop.example",
    "subject": "Grüße",
    "text": "plain ü",
    "html": "<b>rich</b>",
    "attachments": [{"name": "ä.pdf", "content": "AP8=", "media_type": "application/pdf"}],
}


def test_a_message_is_made_of_an_action_s_inputs() -> None:
    raw = render("${input|mime|base64url}", {"input": MAIL})
    message = message_from_bytes(base64.urlsafe_b64decode(raw + "=="), policy=policy.default)
    assert message["To"] == "Ann <ann@shop.example>, bob@shop.example"
    assert (message["Bcc"], message["Subject"]) == ("carl@shop.example", "Grüße")
    assert message.get_body(("plain",)).get_content().strip() == "plain ü"  # type: ignore[union-attr]
    assert message.get_body(("html",)).get_content().strip() == "<b>rich</b>"  # type: ignore[union-attr]
    (attached,) = message.iter_attachments()
    assert (attached.get_filename(), attached.get_content_type(), attached.get_content()) == ("ä.pdf", "application/pdf", b"\0\xff")
    assert b"\n" not in mime({"to": "a@b.example", "text": "x"}).replace(b"\r\n", b"")


def test_a_message_has_the_one_body_it_is_given() -> None:
    assert b"Content-Type: text/html" in mime({"to": "a@b.example", "html": "<b>x</b>"})
    assert b"Content-Type: text/plain" in mime({"to": "a@b.example"})


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0"])
@pytest.mark.parametrize("header", ["to", "cc", "subject", "reply_to"])
def test_a_line_break_begins_no_header(header: str, end: str) -> None:
    spec = {
        "request": {"method": "POST", "path": "/send", "json": {"raw": "${input|mime|base64url}"}},
        "input": {name: {"type": "string"} for name in ("to", "cc", "subject", "reply_to")},
    }
    with pytest.raises(ConfigurationError, match=f"`{header}` holds a line break"):
        do(lambda _: OK, spec, {"to": "a@b.example", header: f"x{end}Bcc: everybody@shop.example"})


@pytest.mark.parametrize(
    ("attachment", "says"),
    [
        ("x", "an object with `name` and `content`"),
        ({"content": "AP8="}, "an object with `name` and `content`"),
        ({"name": "a", "content": "!!"}, "no base64"),
        ({"name": "a", "content": "AP8=", "media_type": "pdf"}, "no proper name or media type"),
        ({"name": "a\r\nX: y", "content": "AP8="}, "no proper name or media type"),
    ],
)
def test_what_cannot_be_attached_is_refused(attachment: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mime({"to": "a@b.example", "attachments": [attachment]})
