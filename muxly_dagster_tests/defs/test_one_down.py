"""A destination that is down costs the others of its run nothing but its own time: all of them deliver everything."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.assembly import load_assembly
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings

ORDERS = 2_000


@pytest.fixture(params=["refused", "black hole"])
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where nobody listens, and one that takes connections and never answers."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "black hole":
            listener.listen(128)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"


def test_all_other_targets_deliver_everything_in_the_same_run(away: str, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = project(tmp_path, away)
    declared = load_assembly(settings.project, {}, home=settings.home)
    job = assembly_definitions(declared, settings).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    with Runtime.of(settings, declared) as runtime:
        counts = {name: tuple(runtime.state.ledger.totals(name).values()) for name in declared.targets}
        lags = {name: runtime.lag(name) for name in declared.targets}
        waits = [wait.target for wait in runtime.state.waiting.all()]
        breakers = [(breaker.destination, breaker.failures) for breaker in runtime.state.breakers.all()]
    everything, nothing = (ORDERS, ORDERS, 0, 0), (0, 0, 0, 0)
    assert counts == {"out.hook": nothing, "out.first": everything, "out.last": everything, "more.first": everything, "more.hook": nothing}
    assert lags == {"out.hook": ORDERS, "out.first": 0, "out.last": 0, "more.first": 0, "more.hook": ORDERS}
    assert sorted(waits) == ["more.hook", "out.hook"]
    assert breakers == [("hook", 2)]


def project(folder: Path, away: str) -> Settings:
    """Orders that go to files before and behind a webhook that is away, and so do those of another route."""
    (folder / "data").mkdir()
    lines = "".join(f"{n},{n * 7}\n" for n in range(ORDERS))
    (folder / "data" / "orders.csv").write_text(f"id,amount\n{lines}")
    hook = {"type": "webhook", "url": away, "allow_private": True, "timeout": 0.2, "retries": {"attempts": 1}}
    written = {
        "sources": {"shop": {"connector": "files", "path": "./data", "pulls": {"orders": {"glob": "orders.csv", "key": ["id"]}}}},
        "routes": {
            "out": {"from": "shop.orders", "to": ["first", "hook", "last"]},
            "more": {"from": "shop.orders", "to": ["hook", "first"]},
        },
        "destinations": {
            "hook": hook,
            "first": {"type": "file", "path": "./first", "format": "ndjson"},
            "last": {"type": "database", "url": f"sqlite:///{folder}/last.db"},
        },
    }
    (folder / "muxly.yaml").write_text(json.dumps(written))
    return Settings(
        project=folder / "muxly.yaml", home=folder / "home", database_url=f"sqlite:///{folder}/state.db", lake_url=str(folder / "lake")
    )
