"""`muxly doctor`: looks at everything, says what to do, and shows no secret."""

import socket
import threading
from pathlib import Path

import pytest

from muxly_dagster.diagnosing import installation
from muxly_dagster.diagnosing.finding import Finding, all_of
from muxly_dagster.errors import RetryLater
from muxly_dagster_tests.cli.command import Done, Muxly
from muxly_dagster_tests.cli.conftest import SECRETS

ALWAYS = [
    *("python and packages", "project", "home", "state database", "lake", "secrets", "clock", "ports"),
    *("dagster home", "code location", "code server", "daemon", "sensors and schedules", "runs"),
    *("inbox", "starts of jobs", "breakers", "deliveries", "dead letters", "guard of the API"),
]


def status(done: Done, check: str) -> str:
    return next(found["status"] for found in done.json if found["check"] == check)


def do(done: Done, check: str) -> str:
    return next(found["do"] for found in done.json if found["check"] == check)


def test_everything_is_looked_at_and_what_is_wrong_says_what_to_do(ran: Muxly) -> None:
    (ran.folder / ".env").write_text("SHOP_TOKEN=x\n")
    (ran.folder / ".env").chmod(0o644)
    done = ran("doctor", "--json")

    assert done.code == 1
    names = [found["check"] for found in done.json]
    tried = ["source shop", "source api", "source broken", "destination files", "destination hook", "destination warehouse"]
    assert names == [*ALWAYS[:8], *tried, *ALWAYS[8:]]
    assert [name for name in names if status(done, name) == "failed"] == ["source broken"]
    assert {status(done, name) for name in ("project", "state database", "lake", "dagster home", "code location")} == {"ok"}
    assert (status(done, "daemon"), "muxly dev" in do(done, "daemon")) == ("warning", True)
    assert (status(done, "dead letters"), "dead-letters list" in do(done, "dead letters")) == ("warning", True)
    assert (status(done, "secrets"), "chmod 600" in do(done, "secrets")) == ("warning", True)
    assert all(found["do"] for found in done.json if found["status"] in ("failed", "warning"))
    assert not any(secret in done.all for secret in SECRETS.values())


def test_offline_leaves_sources_and_destinations_alone(shop: Muxly, api: object) -> None:
    asked_before = list(api.asked)  # type: ignore[attr-defined]
    done = shop("doctor", "--offline")

    assert done.code == 0
    assert "6 were not tried" in done.out
    assert api.asked == asked_before  # type: ignore[attr-defined]


def test_what_does_not_depend_on_what_is_broken_is_looked_at_all_the_same(shop: Muxly) -> None:
    urls = {"MUXLY_DATABASE_URL": "postgresql://me:s3cr3t-pw@127.0.0.1:1/x", "MUXLY_LAKE_URL": "/proc/self/lake"}
    ill = shop("doctor", "--offline", "--json", **urls)
    assert ill.code == 1
    assert [found["check"] for found in ill.json if found["status"] == "failed"] == ["state database", "lake"]
    assert (status(ill, "project"), status(ill, "home"), status(ill, "dagster home")) == ("ok", "ok", "ok")
    assert "MUXLY_DATABASE_URL" in do(ill, "state database")
    assert "MUXLY_LAKE_URL" in do(ill, "lake")
    assert "s3cr3t-pw" not in ill.all


def test_a_project_with_mistakes_is_told_and_the_rest_is_looked_at(shop: Muxly) -> None:
    shop.environ.pop("HOOK_KEY")
    unsound = shop("doctor", "--offline", "--json")

    assert unsound.code == 1
    assert [found["check"] for found in unsound.json if found["status"] == "failed"] == ["project", "secrets", "code location"]
    assert next(found["what"] for found in unsound.json if found["check"] == "secrets") == "not set: HOOK_KEY"
    assert "muxly.yaml:33:32: destinations.hook.auth.key" in next(found["what"] for found in unsound.json if found["check"] == "project")


def test_it_works_without_a_project(tmp_path: Path) -> None:
    done = Muxly(tmp_path)("doctor")

    assert done.code == 1
    assert "failed  project" in done.out
    assert "muxly init" in done.out


def test_a_port_that_something_else_has_is_told(shop: Muxly, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from muxly_dagster.diagnosing import Subject, orchestration
    from muxly_dagster.settings import Settings

    settings = Settings.from_environ({"MUXLY_PROJECT": str(shop.folder)})
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        accepting = threading.Thread(target=lambda: deaf.accept()[0].close() or deaf.accept()[0].close(), daemon=True)
        accepting.start()
        port = deaf.getsockname()[1]
        [found] = orchestration.ports(Subject(settings, {}, tmp_path, ports={"API": port}))
    assert (found.status, str(port) in found.what) == ("warning", True)


# ---- how checks are run


def test_a_check_that_hangs_or_breaks_holds_up_none_of_the_others() -> None:
    hangs = threading.Event()

    def hang() -> list[Finding]:
        hangs.wait()
        return []

    def breaks() -> list[Finding]:
        raise ZeroDivisionError("with a secret in it")

    def away() -> list[Finding]:
        raise RetryLater("it is away", do="wait")

    def disk() -> list[Finding]:
        raise PermissionError(13, "Permission denied", "/srv/x")

    fine = Finding("fine", "ok", "all well")
    jobs = {"hangs": hang, "breaks": breaks, "away": away, "disk": disk, "fine": lambda: [fine]}
    found = all_of({name: (job, 0.5 if name == "hangs" else 60.0) for name, job in jobs.items()})
    hangs.set()

    assert [(each.check, each.status) for each in found] == [
        ("hangs", "failed"),
        ("breaks", "failed"),
        ("away", "failed"),
        ("disk", "failed"),
        ("fine", "ok"),
    ]
    assert "no answer within 0.5 seconds" in found[0].what
    assert found[1].what == "the check itself failed: ZeroDivisionError"
    assert (found[2].what, found[2].do) == ("it is away", "wait")
    assert found[3].what == "/srv/x: permission denied"


def test_packages_that_do_not_belong_together_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.unmet(["nosuchpackage-of-muxly>=1"]) == ["nosuchpackage-of-muxly is not installed"]
    assert installation.unmet(['nosuchpackage-of-muxly>=1; extra == "dev"']) == []
    [wrong] = installation.unmet(["dagster>=99"])
    assert wrong.startswith("dagster is 1.") and ">=99 is needed" in wrong

    there = installation.version
    monkeypatch.setattr(installation, "version", lambda name: "1.0.0" if name == "dagster-webserver" else there(name))
    [found] = installation.look()
    assert found.status == "failed"
    assert "dagster-webserver is 1.0.0, and " in found.what
