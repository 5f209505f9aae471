"""Code servers come and go: what is said meanwhile, and that a run is never left "starting"."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.workspace.context import WorkspaceProcessContext

from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.orchestrator import LOCATION, Orchestrator, dagster_private
from muxly_dagster.serving import processes
from muxly_dagster_tests.orchestrator.conftest import finished
from muxly_dagster_tests.peers.dagster import Shop, until

pytestmark = pytest.mark.xdist_group("code server")


def _new() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opened."""
    with ExitStack() as stack:
        yield stack


def _jobs(workspace: WorkspaceProcessContext) -> set[str]:
    """The jobs that Dagster's web server and daemon see, which hold the code in this way."""
    [location] = workspace.create_request_context().code_locations
    return {job.name for repository in location.get_repositories().values() for job in repository.get_all_jobs()}


def test_who_serves_the_project_and_who_asks_for_runs_call_its_location_the_same() -> None:
    assert LOCATION == processes.LOCATION


def test_the_project_is_loaded_anew_and_every_process_notices(orchestrator: Orchestrator, shop: Shop, stack: ExitStack) -> None:
    project = (shop.folder / "muxly.yaml").read_text()
    other = Orchestrator(shop.home, shop.address)
    theirs = stack.enter_context(WorkspaceProcessContext(orchestrator._instance(), dagster_private._target(shop.address, None)))
    assert "evening" not in _jobs(theirs)
    with pytest.raises(ConfigurationError, match="no job evening"):
        other.submit("evening", _new(), {})
    (shop.folder / "muxly.yaml").write_text(project + "  evening: {select: [shop.orders]}\n")
    orchestrator.reload()
    run_id = _new()
    other.submit("evening", run_id, {})
    assert finished(other, run_id).status == "success"
    until(lambda: _jobs(theirs) >= {"day", "evening"})

    (shop.folder / "muxly.yaml").write_text(project + "  evening: {select: [shop.nothing]}\n")
    with pytest.raises(ConfigurationError, match=r"muxly\.yaml:\d+:\d+: jobs\.evening\.select.*shop\.nothing") as wrong:
        orchestrator.reload()
    assert "Traceback" not in str(wrong.value) and "dagster" not in str(wrong.value).lower().replace(str(shop.folder).lower(), "")
    with pytest.raises(RetryLater, match=r"could not load the project: .*shop\.nothing"):
        other.submit("day", _new(), {})
    assert other.run(run_id) is not None  # history needs no code

    (shop.folder / "muxly.yaml").write_text(project)
    orchestrator.reload()
    assert other._find("day", ())[1] is not None
    other.close()


def test_a_code_server_that_is_killed_loses_nothing_that_was_not_begun(orchestrator: Orchestrator, shop: Shop) -> None:
    shop.counter.hold("/stock")
    caught = _new()
    orchestrator.submit("stocktaking", caught, {})
    assert shop.counter.reached["/stock"].wait(90)
    instance, late = orchestrator._instance(), _new()
    code, selector = orchestrator._find("day", ())
    dagster_private.create(instance, code, selector, late, {})
    shop.kill()

    asked = _new()
    for _ in range(2):
        with pytest.raises(RetryLater, match="code server cannot be reached"):
            orchestrator.submit("day", asked, {})
    assert orchestrator.run(asked) is None
    with pytest.raises(RetryLater, match="cannot be reached"):
        orchestrator.reload()

    with pytest.raises(DagsterUserCodeUnreachableError):
        dagster_private.launch(instance, code, late)  # it was killed between writing a run and launching it
    assert orchestrator.run(late).status == "failure"  # type: ignore[union-attr]
    assert [line.level for line in orchestrator.events(late)].count("error") >= 1

    with pytest.raises(RetryLater, match="nobody told it to end"):
        orchestrator.cancel(caught)
    assert orchestrator.run(caught).status == "canceling"  # type: ignore[union-attr]
    orchestrator.cancel(caught)  # asked twice
    assert orchestrator.run(caught).status == "canceled"  # type: ignore[union-attr]

    del shop.counter.held["/stock"]
    shop.start()
    orchestrator.submit("day", asked, {})
    assert finished(orchestrator, asked).status == "success"
    assert finished(orchestrator, orchestrator.retry(late)).assets == ("shop.orders", "shop.returns")


def test_without_an_address_it_serves_the_project_itself(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in shop.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(shop.folder)
    own = Orchestrator(shop.home)
    run_id = _new()
    own.submit("day", run_id, {}, ("shop.orders",))
    assert finished(own, run_id).status == "success"
    assert own._server is not None and own._server._registry is not None
    [process] = own._server._registry._all_processes
    own.close()
    until(lambda: process.server_process.poll() is not None)


def test_a_storage_that_is_away_is_waited_for(tmp_path: Path) -> None:
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{url}'}}}}\ntelemetry: {{enabled: false}}\n")
    orchestrator = Orchestrator(tmp_path, "127.0.0.1:1")
    with pytest.raises(RetryLater, match="storage cannot be reached") as away:
        orchestrator.runs()
    assert "secret" not in str(away.value)
    orchestrator.close()


def test_the_daemon_says_that_it_lives(orchestrator: Orchestrator) -> None:
    from dagster._daemon.types import DaemonHeartbeat

    assert orchestrator.heartbeats() == {}
    orchestrator._instance().add_daemon_heartbeat(DaemonHeartbeat(1_700_000_000.0, "SENSOR", "a", []))
    assert {kind: at.isoformat() for kind, at in orchestrator.heartbeats().items()} == {"SENSOR": "2023-11-14T22:13:20+00:00"}


@pytest.mark.parametrize(
    ("address", "host", "port", "socket"),
    [
        ("127.0.0.1:4266", "127.0.0.1", 4266, None),
        ("[::1]:4266", "::1", 4266, None),
        ("code.example.com:80", "code.example.com", 80, None),
        ("/run/muxly/code.sock", "localhost", None, "/run/muxly/code.sock"),
        ("unix:/run/muxly/code.sock", "localhost", None, "/run/muxly/code.sock"),
    ],
)
def test_addresses_are_hosts_or_sockets(address: str, host: str, port: int | None, socket: str | None) -> None:
    [origin] = dagster_private._target(address, None).create_origins()
    assert (origin.location_name, origin.host, origin.port, origin.socket) == ("muxly", host, port, socket)  # type: ignore[attr-defined]


def test_a_workspace_file_names_the_code(tmp_path: Path) -> None:
    file = tmp_path / "workspace.yaml"
    file.write_text("load_from: [{python_module: {module_name: muxly_dagster.definitions, location_name: mine}}]")
    [origin] = dagster_private._target("", file).create_origins()
    assert origin.location_name == "mine"
