"""What a source shows of its credentials: in Dagster's snapshot, where everybody who sees the UI reads it, and in its repr."""

from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.manifest.connector import load_manifest

SECRET = "hunter2-4711"

MANIFEST = """
muxly: 1
id: crm
version: "1"
title: A CRM
hosts: [crm.example.com]
base_url: https://crm.example.com
auth:
  app: {kind: oauth2, token_url: "https://crm.example.com/token"}
  key: {kind: basic}
streams: {deals: {request: {path: /deals}, key: [id]}}
"""


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        pytest.param({"auth": {"kind": "basic", "username": SECRET}}, "basic", id="a key sent as the user name"),
        pytest.param({"auth": {"kind": "basic", "username": "ada", "password": SECRET}}, "ada", id="a password"),
        pytest.param(
            {"auth": {"kind": "oauth2", "client_id": "app", "token_params": {"password": SECRET}}}, "app", id="a field of the token request"
        ),
        pytest.param(
            {"auth": {"kind": "oauth2", "client_id": "app"}, "base_url": f"https://ada:{SECRET}@crm.example.com/v2"},
            "crm.example.com/v2",
            id="an address with a password",
        ),
    ],
)
def test_no_secret_is_shown_whichever_way_it_is_said(settings: dict[str, Any], seen: str, tmp_path: Path) -> None:
    (tmp_path / "crm.yaml").write_text(MANIFEST, "utf-8")
    source = load_manifest(tmp_path / "crm.yaml")(**settings)
    shown = str(source._state__internal__.resolved_config_dict)
    for text in (shown, repr(source), str(source), repr(source.auth), source.auth.model_dump_json()):  # type: ignore[attr-defined]
        assert SECRET not in text
    assert seen in shown
