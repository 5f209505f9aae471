"""`muxly run`: what is selected, what is told, how it ends, and that Dagster remembers it."""

import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster_tests.cli.command import COMMAND, Muxly, clean_environ
from muxly_dagster_tests.http.server import Asked, Server, json_answer

FIELDS = ["asset", "read", "changed", "accepted", "refused", "unrouted", "seconds", "status"]


def test_a_job_runs_and_says_what_it_did(shop: Muxly) -> None:
    done = shop("run", "everyday", "--json")

    assert done.code == 0
    assert [list(report) for report in done.json] == [FIELDS] * 5
    counts = {report["asset"]: [report[field] for field in FIELDS[1:6]] for report in done.json}
    assert counts == {
        "shop.orders": [4, 4, 0, 0, 0],
        "customers": [3, 3, 0, 0, 0],
        "big_orders.files": [4, 2, 2, 0, 2],
        "big_orders.hook": [4, 1, 1, 1, 2],
        "customers_out.warehouse": [3, 3, 3, 0, 0],
    }
    again = shop("run", "everyday", "--json").json
    assert sum(report["changed"] + report["refused"] for report in again) == 0
    from_start = {report["asset"]: report for report in shop("run", "customers_out", "big_orders.files", "--from-start", "--json").json}
    assert from_start["big_orders.files"]["accepted"] == 2
    assert from_start["customers_out.warehouse"]["accepted"] == 3
    with sqlite3.connect(shop.folder / "warehouse.db") as connection:
        assert connection.execute("select count(*) from customers").fetchone() == (3,)
    connection.close()


@pytest.mark.parametrize(
    ("names", "assets"),
    [
        (["shop.orders"], ["shop.orders"]),
        (["shop/orders"], ["shop.orders"]),
        (["shop"], ["shop.orders"]),
        (["big_orders"], ["big_orders.files", "big_orders.hook"]),
        (["big_orders.files", "customers"], ["customers", "big_orders.files"]),
        (["+customers_out"], ["shop.orders", "customers", "customers_out.warehouse"]),
        (["customers+"], ["customers", "customers_out.warehouse"]),
        (["everyday"], ["shop.orders", "customers", "big_orders.files", "big_orders.hook", "customers_out.warehouse"]),
    ],
)
def test_a_name_selects_assets_and_a_plus_those_before_or_behind(ran: Muxly, names: list[str], assets: list[str]) -> None:
    assert [report["asset"] for report in ran("run", *names, "--json").json] == assets


def test_an_asset_that_fails_stops_only_those_behind_it(shop: Muxly) -> None:
    done = shop("run", "+active_users", "+customers", "--json")

    assert done.code == 1
    status = {report["asset"]: report["status"] for report in done.json}
    assert status == {"shop.orders": "ok", "broken.users": "failed", "customers": "ok", "active_users": "skipped"}
    [error] = [report["error"] for report in done.json if "error" in report]
    assert "127.0.0.1" in error
    told = shop("run", "+active_users")
    assert told.code == 1
    assert "broken.users failed: " in told.err
    assert "skipped, because something before them failed: active_users" in told.err


def test_a_name_that_is_not_there_is_answered_with_the_nearest_one(ran: Muxly) -> None:
    done = ran("run", "shop", "everday", "--json")

    assert (done.code, done.out) == (2, "")
    assert "did you mean everyday?" in done.err


def test_without_a_name_it_says_which_there_are(ran: Muxly) -> None:
    done = ran("run")

    assert done.code == 2
    assert "jobs everyday; sources shop, api, broken; transforms customers, active_users; routes big_orders" in done.err


def test_without_a_terminal_there_are_plain_lines_and_nothing_else(ran: Muxly) -> None:
    done = ran("run", "everyday")

    assert done.out.splitlines()[0].split() == FIELDS
    assert len(done.out.splitlines()) == 6
    assert done.err == ""
    assert "\x1b" not in done.all


def test_the_run_is_in_dagsters_history(ran: Muxly) -> None:
    home = ran.folder / ".muxly" / "dagster"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs()
        assert any(run.tags.get("muxly/run") == "everyday api things_out" and run.is_success for run in runs)
        event = instance.get_latest_materialization_event(dg.AssetKey(["shop", "orders"]))
        assert event is not None


def test_ctrl_c_ends_a_run_in_words(shop: Muxly) -> None:
    asked, gone = threading.Event(), threading.Event()

    def reply(_: Asked) -> bytes:
        asked.set()
        gone.wait(60)
        return json_answer({"data": []})

    with Server(reply) as slow:
        environ = clean_environ() | shop.environ | {"API_URL": slow.url}
        command = [*COMMAND, "run", "api", "things_out"]
        with subprocess.Popen(
            command, cwd=shop.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        gone.set()
    assert process.returncode == 1
    assert "api.things failed: it was interrupted" in said
    assert "Traceback" not in said


def on_terminal(muxly: Muxly, *arguments: str, columns: int = 80, **environ: str) -> str:
    """What the command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    settings = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"} | environ
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=muxly.folder,
        env=clean_environ() | muxly.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        read = b""
        while select.select([ours], [], [], 120)[0]:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            read += part
    os.close(ours)
    assert process.returncode == 0, read.decode()
    return read.decode().replace("\r\n", "\n")


def plain(shown: str) -> str:
    """The text without colours and the cursor's moves."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_on_a_terminal_a_bar_shows_how_far_the_run_has_come(ran: Muxly) -> None:
    shown = on_terminal(ran, "run", "+customers_out")

    assert "of 3 assets" in shown
    assert "records" in shown
    table = shown[shown.rindex("asset") :]
    assert "\x1b[32mok" in table
    assert "customers_out.warehouse" in [line.split()[0] for line in plain(table).splitlines()]


def test_a_terminal_of_80_columns_is_not_overflown(ran: Muxly) -> None:
    shown = on_terminal(ran, "run", "customers_out", NO_COLOR="1")

    lines = plain(shown[shown.rindex("asset") :]).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert [line.split()[0] for line in lines] == ["asset", "customers_out.warehouse"]
    assert "\x1b[32m" not in shown


def test_a_record_that_is_too_wide_for_the_terminal_is_shown_as_a_list(ran: Muxly) -> None:
    shown = on_terminal(ran, "preview", "big_orders", "-n", "1", NO_COLOR="1")

    lines = [line.split() for line in plain(shown).splitlines()]
    assert ["record", "1"] in lines
    assert ["to", "nowhere"] in lines


def test_a_file_that_is_not_there_is_an_error_of_one_line_and_a_next_step(shop: Muxly, tmp_path: Path) -> None:
    (shop.folder / "data" / "orders.csv").unlink()
    done = shop("run", "shop")

    assert done.code == 1
    assert "no file in" in done.err
    assert "orders*.csv" in done.err
