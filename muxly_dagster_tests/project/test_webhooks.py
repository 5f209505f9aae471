"""A job's webhook as it is declared: by name or with settings, never without a secret, and no secret is ever shown."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from muxly_dagster import catalog
from muxly_dagster.assembly import load_assembly
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.load import load_project
from muxly_dagster.project.models import JobSpec
from muxly_dagster.project.webhooks import KINDS, Basic, Bearer, WebhookSpec
from muxly_dagster.settings import Settings
from muxly_dagster.signature import Hmac, Stripe
from muxly_dagster_tests.project.test_schema import mistakes

SECRET = "s3cret-0f-the-sender"
ENVIRON = {"SECRET": SECRET, "EMPTY": "", "BLANK": "  "}


def declared(folder: Path, webhook: str) -> JobSpec:
    (folder / "muxly.yaml").write_text(f"jobs:\n  on_deal:\n    select: [x]\n    webhook: {webhook}\n")
    return load_project(folder / "muxly.yaml", ENVIRON).jobs["on_deal"]


def hook(folder: Path, webhook: str) -> WebhookSpec:
    found = declared(folder, webhook).webhook
    assert found is not None
    return found


def problems(folder: Path, webhook: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as raised:
        declared(folder, webhook)
    assert SECRET not in str(raised.value)
    return raised.value.problems


def test_schemes_are_named_or_written_out(tmp_path: Path) -> None:
    assert hook(tmp_path, "{scheme: stripe, secret: '${SECRET}'}").scheme == Stripe()
    assert hook(tmp_path, "{scheme: {kind: stripe, tolerance: 600}, secret: '${SECRET}'}").scheme == Stripe(tolerance=600)
    assert hook(tmp_path, "{scheme: {header: X-Signed}, secret: '${SECRET}'}").scheme == Hmac(header="X-Signed")
    assert hook(tmp_path, "{scheme: bearer, secret: '${SECRET}'}").scheme == Bearer()
    assert hook(tmp_path, "{scheme: {kind: basic, user: me}, secret: '${SECRET}'}").scheme == Basic(user="me")
    assert {*KINDS} == {"standard_webhooks", "stripe", "slack", "hubspot", "github", "shopify", "hmac", "bearer", "basic"}


def test_one_secret_or_several(tmp_path: Path) -> None:
    assert hook(tmp_path, "{scheme: github, secret: '${SECRET}'}").secrets == (SECRET,)
    assert hook(tmp_path, "{scheme: github, secret: ['${SECRET}', next-one]}").secrets == (SECRET, "next-one")


@pytest.mark.parametrize(
    ("webhook", "path", "what", "do"),
    [
        ("{scheme: github}", "secret", "is missing", "add it: What the caller signs with"),
        ("{scheme: github, secret: }", "secret", "is empty", ""),
        ("{scheme: github, secret: []}", "secret", "is empty", ""),
        (
            "{scheme: github, secret: '${EMPTY}'}",
            "secret",
            "is empty: with no secret, anybody could start the job (its value comes from",
            "",
        ),
        ("{scheme: github, secret: '${BLANK}'}", "secret", "is empty", ""),
        ("{scheme: github, secret: ['${SECRET}', '${EMPTY}']}", "secret", "is empty", ""),
        ("{scheme: github, secret: '${UNSET}'}", "secret", "needs the environment variable UNSET, which is not set", "set UNSET"),
        ("{scheme: githb, secret: '${SECRET}'}", "scheme", "is not a scheme that webhooks are signed by; did you mean github?", ""),
        ("{scheme: [5], secret: '${SECRET}'}", "scheme", "is not a scheme that webhooks are signed by; there are", ""),
        ("{scheme: hmac, secret: '${SECRET}'}", "scheme", "hmac needs to know the header: write `{kind: hmac, header: X-Signature}`", ""),
        ("{scheme: {header: X, algorithm: md5}, secret: '${SECRET}'}", "scheme.algorithm", "must be one of sha1, sha256, sha512", ""),
        ("{scheme: {header: X, signed: x}, secret: '${SECRET}'}", "scheme", "`signed` has no {body}: anybody could change it", ""),
        ("{scheme: standard_webhooks, secret: '${SECRET}!'}", "", "the secret of a Standard Webhooks sender is not base64", ""),
        ("{scheme: github, secret: '${SECRET}', max_size: much}", "max_size", "is not a size such as 500kB", ""),
        ("{scheme: github, secret: '${SECRET}', shceme: x}", "shceme", "is not known here", "did you mean scheme?"),
        ("{secret: '${SECRET}'}", "scheme", "is missing", "add it"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_without_the_secret(tmp_path: Path, webhook: str, path: str, what: str, do: str) -> None:
    [problem] = problems(tmp_path, webhook)
    assert problem.path == ".".join(filter(None, ["jobs.on_deal.webhook", path]))
    assert what in problem.what and do in problem.do
    assert problem.line == 4 and problem.file.endswith("muxly.yaml")


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning")  # Dagster's own snapshot reads it
def test_no_secret_is_shown_by_anything(tmp_path: Path) -> None:
    job = declared(tmp_path, "{scheme: github, secret: ['${SECRET}']}")
    for shown in (repr(job), str(job), repr(job.model_dump()), job.model_dump_json()):
        assert SECRET not in shown
    (tmp_path / "muxly.yaml").write_text(
        "sources: {hooks: {connector: webhook, pulls: [on_deal]}}\n"
        "jobs: {on_deal: {select: [hooks], webhook: {scheme: github, secret: '${SECRET}'}}}\n"
    )
    definitions = assembly_definitions(load_assembly(tmp_path, ENVIRON), Settings.from_environ({}, tmp_path))
    snapshot = serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    assert "on_deal" in snapshot and SECRET not in snapshot


def test_editors_take_what_muxly_takes() -> None:
    schema = catalog.schema()

    def wrong(webhook: Any) -> list[str]:
        return mistakes({"jobs": {"a": {"select": "x", "webhook": webhook}}}, schema, schema)

    for good in (
        "{scheme: github, secret: x}",
        "{scheme: '${SCHEME}', secret: ['${A}', '${B}']}",
        "{scheme: {kind: stripe, tolerance: '600'}, secret: x, max_size: 5MB}",
        "{scheme: {header: X-Signed, encoding: base64}, secret: x}",
        "{scheme: {kind: bearer, header: X-Gitlab-Token}, secret: x, id_header: X-Id}",
    ):
        assert wrong(yaml.safe_load(good)) == [], good
    for bad in ("{scheme: github}", "{scheme: githb, secret: x}", "{scheme: hmac, secret: x}", "{scheme: github, secret: x, a: 1}", "yes"):
        assert wrong(yaml.safe_load(bad)), bad
