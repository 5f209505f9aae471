"""The page on webhooks: its project is called as HubSpot calls, and its Python sees the calls."""

import json
import time
from pathlib import Path

import dagster as dg

from muxly_dagster.assembly import load_assembly
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.settings import Settings
from muxly_dagster.signature import HubspotV3, sign
from muxly_dagster.state import START
from muxly_dagster_tests.api.called import PUBLIC, Recorder, called, post
from muxly_dagster_tests.docs.test_docs import ROOT, examples

SECRET = "what-hubspot-signs-with"


def block(info: str, holding: str) -> str:
    [found] = [each.text for each in examples(info) if each.page == ROOT / "docs" / "webhooks.md" and holding in each.text]
    return found


def test_the_project_of_the_page_is_called_and_runs(tmp_path: Path) -> None:
    (tmp_path / "deals.py").write_text(block("python", "def changed"), "utf-8")
    recorder = Recorder()
    with called(tmp_path, recorder, block("yaml muxly", "on_deal"), HUBSPOT_SECRET=SECRET) as api:
        for number in (7, 9, 7):
            body = json.dumps([{"eventId": number, "objectId": number, "propertyName": "amount"}]).encode()
            headers = sign(HubspotV3(), [SECRET], "POST", f"{PUBLIC}/v1/hooks/on_deal", body, time.time())
            assert post(api, "/v1/hooks/on_deal", body, headers).status_code in (200, 202)
        api.service.starting.close()
    [(job, run_id, tags)] = recorder.asked
    settings = Settings.from_environ({}, tmp_path)
    definitions = assembly_definitions(load_assembly(tmp_path, {"HUBSPOT_SECRET": SECRET}), settings)
    own: dict[str, dg.AssetsDefinition] = {}
    exec(block("python", "def greetings"), own)
    with dg.DagsterInstance.ephemeral() as instance:
        run = definitions.resolve_job_def(job).execute_in_process(instance=instance, run_id=run_id, tags=dict(tags))
        assert run.success
        muxly = dict(definitions.resources or {})["muxly"]
        greeted = dg.materialize([own["greetings"]], instance=instance, resources={"muxly": muxly}, tags={START: run_id})
        lines = [entry.user_message for entry in instance.all_logs(greeted.run_id) if " bytes" in entry.user_message]
    out = [json.loads(line) for file in sorted((tmp_path / "out").rglob("*.ndjson")) for line in file.read_text().splitlines()]
    assert sorted(line["data"]["objectId"] if "data" in line else line["objectId"] for line in out) == [7, 9]
    assert len(lines) == 2
