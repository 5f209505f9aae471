"""Commands about deliveries: plan, resync, deliveries, resume, run past the guard, rules test, dead letters edited and skipped."""

import json
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster_tests.cli.command import Done, Muxly, MuxlyHere
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

PROJECT = """
sources:
  shop:
    connector: files
    path: ./data
    pulls: {orders: {glob: "orders.csv", key: [id], types: {amount: "decimal(12,2)", count: integer}}}
routes:
  big_orders:
    from: shop.orders
    rules:
      - {name: huge, when: "amount > 1000 and customer <> 'test'", to: [sales, hook], template: {text: "HUGE {{ id }}"}}
      - {name: big, when: amount > 100, to: [sales, hook, files]}
  mirrored: {from: shop.orders, to: warehouse}
destinations:
  sales: {type: slack, webhook_url: "https://hooks.slack.com/services/T/B/x", text: "Order {{ id }}: {{ amount }}"}
  hook: {type: webhook, url: "${HOOK_URL}/hook", allow: [127.0.0.1], retries: {attempts: 1}, breaker: {failures: 1}}
  files: {type: file, path: ./out, format: ndjson}
  warehouse: {type: database, url: "sqlite:///warehouse.db", mode: mirror, guard: {at_least: 2}}
"""

ORDERS = "id,customer,amount,count\n1001,ada,19.90,1\n1002,grace,250.00,2\n1003,ada,1200.50,3\n1004,linus,7.25,4\n"


class Hook:
    """A receiver that refuses the orders named in `refused`, and everything while `status` is set."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.status = 0
        self.taken: list[dict[str, Any]] = []

    def reply(self, asked: Asked) -> bytes:
        if self.status:
            return answer(self.status, "not today")
        record = json.loads(asked.body)
        if record["key"] in self.refused:
            return json_answer({"message": self.refused[record["key"]]}, 422)
        self.taken.append(record)
        return json_answer({})


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
def shop(tmp_path: Path, hook: Hook) -> Iterator[Muxly]:
    """The command in a project whose orders were pulled, and that delivered nothing yet."""
    (tmp_path / "shop" / "data").mkdir(parents=True)
    (tmp_path / "shop" / "muxly.yaml").write_text(PROJECT, "utf-8")
    with Server(hook.reply) as server:
        muxly = MuxlyHere(tmp_path / "shop", {"HOOK_URL": server.url})
        pulled(muxly, ORDERS)
        yield muxly
    assert "Traceback" not in "".join(muxly.said)


def pulled(muxly: Muxly, orders: str) -> None:
    (muxly.folder / "data" / "orders.csv").write_text(orders, "utf-8")
    environ = muxly.environ | {"MUXLY_PROJECT": str(muxly.folder)}
    with Runtime.open(Settings.from_environ(environ), environ) as runtime:  # without Dagster, which costs seconds
        runtime.run("shop.orders")


def ran(muxly: Muxly, *names: str) -> dict[str, tuple[int, int, int]]:
    """Accepted, refused, unrouted."""
    return {each["asset"]: (each["accepted"], each["refused"], each["unrouted"]) for each in muxly("run", *names, "--json").json}


def table(done: Done) -> list[list[str]]:
    return [line.split() for line in done.out.splitlines() if line]


def warehouse(muxly: Muxly) -> list[tuple[Any, ...]]:
    with sqlite3.connect(muxly.folder / "warehouse.db") as connection:
        found = connection.execute("select id, customer from shop_orders order by id").fetchall()
    connection.close()
    return found


# ---- plan -----------------------------------------------------------------------------------------------------------------


def test_a_plan_is_a_table_of_what_would_happen_and_changes_nothing(shop: Muxly) -> None:
    done = shop("plan", "mirrored")
    assert done.code == 0
    assert table(done) == [
        ["delivery", "waiting", "would", "send", "inserted", "updated", "deleted", "refused", "destination"],
        ["mirrored.warehouse", "4", "4", "4", "0", "0", "0", "shop_orders"],
    ]
    assert "mirrored.warehouse: created the table" in done.err
    assert not (shop.folder / "warehouse.db").exists()
    files = shop("plan", "big_orders.files", "--json").json
    assert [(each["target"], each["waiting"], each["sent"], each["plan"]["inserted"]) for each in files] == [("big_orders.files", 4, 1, 1)]
    assert not (shop.folder / "out").exists()


def test_a_plan_that_a_guard_would_stop_says_so_and_ends_with_1(shop: Muxly) -> None:
    assert ran(shop, "mirrored") == {"mirrored.warehouse": (4, 0, 0)}
    pulled(shop, ORDERS.splitlines()[0] + "\n" + ORDERS.splitlines()[1] + "\n")
    done = shop("plan", "mirrored")
    assert done.code == 1
    assert "mirrored.warehouse: it would delete 3 of 4 rows (75%); the guard allows 50%" in done.err
    assert shop("plan", "mirrored", "--json").json[0]["plan"]["deleted"] == 3

    stopped = shop("run", "mirrored")
    assert stopped.code == 1
    assert "`muxly plan mirrored.warehouse`" in stopped.err and "--past-guard" in stopped.err
    assert len(warehouse(shop)) == 4
    assert shop("run", "mirrored", "--past-guard", "--json").json[0]["accepted"] == 3
    assert warehouse(shop) == [("1001", "ada")]


@pytest.mark.parametrize("command", [["plan"], ["resync"], ["deliveries"]])
def test_a_delivery_that_is_not_there_is_answered_with_the_nearest(shop: Muxly, command: list[str]) -> None:
    done = shop(*command, "big_order")
    assert (done.code, done.out) == (2, "")
    assert "there is no route or delivery named big_order" in done.err and "did you mean big_orders?" in done.err


# ---- resync ---------------------------------------------------------------------------------------------------------------


def test_a_resync_puts_right_what_people_changed_at_the_destination(shop: Muxly) -> None:
    ran(shop, "mirrored")
    with sqlite3.connect(shop.folder / "warehouse.db") as connection:
        connection.execute("update shop_orders set customer = 'nobody'")
        connection.execute("delete from shop_orders where id = '1004'")
    connection.close()
    done = shop("resync", "mirrored", "--json")
    assert done.code == 0
    assert [(each["asset"], each["read"], each["accepted"]) for each in done.json] == [("mirrored.warehouse", 4, 4)]
    assert warehouse(shop) == [("1001", "ada"), ("1002", "grace"), ("1003", "ada"), ("1004", "linus")]
    assert shop("resync", "mirrored").code == 0


# ---- deliveries -----------------------------------------------------------------------------------------------------------


def test_deliveries_tell_where_each_stands(shop: Muxly, hook: Hook) -> None:
    hook.status = 503
    assert shop("run", "big_orders.hook", "mirrored").code == 1
    found = {each["target"]: each for each in shop("deliveries", "--json").json}
    assert list(found) == ["big_orders.sales", "big_orders.hook", "big_orders.files", "mirrored.warehouse"]
    waiting, done = found["big_orders.hook"], found["mirrored.warehouse"]
    assert (waiting["lag"], waiting["breaker"]["status"], done["lag"], done["breaker"]["status"]) == (4, "open", 0, "closed")
    assert "503" in waiting["wait"]["why"] and waiting["wait"]["failures"] == 1
    assert done["last"]["accepted"] == 4 and done["last"]["id"]

    shown = shop("deliveries", "big_orders.hook")
    assert shown.code == 0
    assert shown.out.splitlines()[0].split("  ")[0] == "delivery"
    assert "open" in shown.out and "503" in shown.out and "until" in shown.out


def test_a_destination_that_is_left_alone_is_resumed(shop: Muxly, hook: Hook) -> None:
    hook.status = 410
    assert shop("run", "big_orders.hook").code == 1
    hook.status = 0
    again = shop("run", "big_orders.hook")
    assert again.code == 1
    assert "was switched off" in again.err and "`muxly destinations resume hook`" in again.err
    done = shop("destinations", "resume", "hook")
    assert (done.code, "hook was disabled" in done.err) == (0, True)
    assert ran(shop, "big_orders.hook") == {"big_orders.hook": (2, 0, 2)}
    assert shop("destinations", "resume", "hook").err == "hook was not held up\n"
    assert shop("destinations", "resume", "hook", "--json").json == {"destination": "hook", "was": "closed", "reason": ""}
    wrong = shop("destinations", "resume", "hok")
    assert wrong.code == 2 and "did you mean hook?" in wrong.err


# ---- rules test -----------------------------------------------------------------------------------------------------------


def test_new_rules_are_tried_on_what_has_happened(shop: Muxly) -> None:
    ran(shop, "big_orders.hook", "big_orders.files")
    same = shop("rules", "test", "big_orders")
    assert same.code == 0 and "the rules would have sent everything where it went" in same.err

    project = shop.folder / "muxly.yaml"
    project.write_text(PROJECT.replace("{name: big, when: amount > 100", "{name: big, when: amount > 10"), "utf-8")
    done = shop("rules", "test", "big_orders", "--since", "1d")
    assert done.code == 0
    rows = {row[0]: row[1:] for row in table(done) if len(row) == 6}
    assert rows["hook"] == ["2", "3", "1", "0", "0"]
    assert rows["sales"] == ["0", "0", "0", "0", "3"]
    assert "(key '1001'): would go there, by big" in done.out and '"customer":"ada"' in done.out
    found = {each["destination"]: each for each in shop("rules", "test", "big_orders", "--json").json}
    assert (found["files"]["added"], found["files"]["examples"][0]["now"]) == (1, "big")
    assert ran(shop, "big_orders.hook") == {"big_orders.hook": (0, 0, 0)}, "nothing was sent"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["big_ordrs"], "did you mean big_orders?"),
        (["big_orders", "--since", "yesterday"], "--since yesterday"),
    ],
)
def test_a_test_of_rules_that_cannot_be_says_why(shop: Muxly, arguments: list[str], words: str) -> None:
    done = shop("rules", "test", *arguments)
    assert (done.code, done.out) == (2, "") and words in done.err


# ---- preview and trace ----------------------------------------------------------------------------------------------------


def test_a_preview_shows_the_messages_as_they_would_be_read(shop: Muxly, hook: Hook) -> None:
    rows = {row["key"]: row for row in shop("preview", "big_orders", "--json").json}
    assert rows["1003"]["messages"]["sales"] == "HUGE 1003"
    assert rows["1002"]["messages"]["sales"] == "Order 1002: 250.00"
    assert (rows["1001"]["to"], rows["1001"]["messages"]) == ([], {})
    shown = shop("preview", "big_orders.sales")
    assert "→ sales\n  HUGE 1003" in shown.out
    assert hook.taken == []


def test_a_trace_names_the_parts_of_a_condition_that_decided(shop: Muxly) -> None:
    ran(shop, "big_orders.hook")
    [story] = shop("trace", "shop.orders", "1002", "--json").json
    target = next(each for each in story["targets"] if each["target"] == "big_orders.hook")
    huge, big = target["rules"]
    assert (huge["answer"], huge["because"]) == (False, [{"text": "amount > 1000", "answer": False, "values": {"amount": "250.00"}}])
    assert (big["answer"], big["decided"]) == (True, True)
    told = shop("trace", "shop.orders", "1002").out
    assert "huge: when amount > 1000 and customer <> 'test' is false" in told
    assert 'amount > 1000 is false, amount is "250.00"' in told
    assert "big_orders.sales" in told and "waiting" in told


# ---- dead letters ---------------------------------------------------------------------------------------------------------


def letter(muxly: Muxly) -> dict[str, Any]:
    [found] = muxly("dead-letters", "list", "--json").json
    assert isinstance(found, dict)
    return found


@pytest.fixture
def refused(shop: Muxly, hook: Hook) -> Muxly:
    """The same, with one order that the receiver refused."""
    hook.refused["1002"] = "no such customer \x1b[2J"
    assert ran(shop, "big_orders.hook") == {"big_orders.hook": (1, 1, 2)}
    hook.refused.clear()
    return shop


def test_what_a_receiver_said_cannot_steer_the_terminal(refused: Muxly) -> None:
    id_ = letter(refused)["id"]
    for command in (["dead-letters", "list"], ["dead-letters", "show", id_], ["trace", "shop.orders", "1002"]):
        done = refused(*command)
        assert "no such customer" in done.out and "\x1b" not in done.out


def test_a_dead_letter_is_corrected_by_its_fields_and_replayed(refused: Muxly, hook: Hook) -> None:
    id_ = letter(refused)["id"]
    done = refused("dead-letters", "edit", id_[:6], "--set", "customer=Ada L.", "--set", "amount=99999999.99")
    assert done.code == 0 and f"now `muxly dead-letters replay {id_}`" in done.err
    assert refused("dead-letters", "edit", id_, "--set", "count=7", "--json").json["edited"] == (
        '{"id":"1002","customer":"Ada L.","amount":"99999999.99","count":7}'
    )
    assert refused("dead-letters", "replay", id_, "--json").json == {"replayed": 1, "superseded": 0, "refused": 0}
    assert hook.taken[-1]["data"] == {"id": "1002", "customer": "Ada L.", "amount": "99999999.99", "count": 7}
    assert refused("dead-letters", "list").err == "no dead letters\n"


def test_a_correction_is_taken_back(refused: Muxly, hook: Hook) -> None:
    id_ = letter(refused)["id"]
    refused("dead-letters", "edit", id_, "--set", "customer=null")
    assert json.loads(letter(refused)["edited"])["customer"] is None
    assert "as it was" in refused("dead-letters", "edit", id_, "--undo").err
    assert "1 replayed" in refused("dead-letters", "replay", "*").err
    assert hook.taken[-1]["data"]["customer"] == "grace"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["custmer=x"], "did you mean customer?"),
        (["amount=much"], "amount: 'much' is not decimal"),
        (["count=1.5"], "count: 1.5 is not int64"),
        (["nothing"], "an argument is not written NAME=VALUE"),
    ],
)
def test_a_correction_that_cannot_be_says_why(refused: Muxly, fields: list[str], words: str) -> None:
    arguments = [argument for each in fields for argument in ("--set", each)]
    done = refused("dead-letters", "edit", letter(refused)["id"], *arguments)
    assert (done.code, done.out) == (2, "") and words in done.err


def editor(folder: Path, code: str) -> str:
    """An editor that does this to the text of its file."""
    script = folder / "editor"
    begins = f"#!{sys.executable}\nimport pathlib, sys\nfile = pathlib.Path(sys.argv[1])\ntext = file.read_text()\n"
    script.write_text(f"{begins}{code}\nfile.write_text(text)\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_a_dead_letter_is_corrected_in_the_editor(refused: Muxly, hook: Hook, tmp_path: Path) -> None:
    id_ = letter(refused)["id"]
    written = editor(
        tmp_path, "assert '\"amount\": \"250.00\"' in text\ntext = text.replace('250.00', '251.00').replace('grace', 'Grace H.')"
    )
    assert refused("dead-letters", "edit", id_, EDITOR=written).code == 0
    assert "1 replayed" in refused("dead-letters", "replay", "big_orders").err
    assert hook.taken[-1]["data"] == {"id": "1002", "customer": "Grace H.", "amount": "251.00", "count": 2}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit", "the record was left as it was"),
        ("text = text.replace('}', '')", "what was saved is not JSON"),
        ("text = '[1]'", "what was saved is not a record"),
        ("text = text.replace('250.00', '2.5.0')", "amount: '2.5.0' is not decimal"),
        ("text = text.replace('customer', 'buyer')", "buyer"),
    ],
)
def test_what_an_editor_leaves_that_is_no_record_is_refused(refused: Muxly, tmp_path: Path, code: str, words: str) -> None:
    done = refused("dead-letters", "edit", letter(refused)["id"], EDITOR=editor(tmp_path, code))
    assert done.code == 2 and words in done.err
    assert letter(refused)["edited"] is None


def test_an_editor_that_is_not_there_is_told(refused: Muxly) -> None:
    done = refused("dead-letters", "edit", letter(refused)["id"], EDITOR="/nowhere/editor")
    assert done.code == 2 and "the editor failed: /nowhere/editor" in done.err and "--set NAME=VALUE" in done.err


def test_a_dead_letter_is_passed_over(refused: Muxly, hook: Hook) -> None:
    assert refused("dead-letters", "skip", "big_orders").err == "1 skipped\n"
    assert refused("dead-letters", "skip", "big_orders", "--json").json == {"skipped": 0}
    assert "no open dead letters" in refused("dead-letters", "replay", "big_orders").err
    assert [record["key"] for record in hook.taken] == ["1003"]
    [closed] = refused("dead-letters", "list", "--all", "--json").json
    assert closed["status"] == "skipped"
    assert "`muxly dead-letters list --all`" in refused("dead-letters", "skip", "zzzz").err


def test_all_dead_letters_are_replayed_and_one_that_is_refused_again_ends_with_1(refused: Muxly, hook: Hook) -> None:
    hook.refused["1002"] = "still no such customer"
    done = refused("dead-letters", "replay", "*", "--json")
    assert (done.code, done.json) == (1, {"replayed": 0, "superseded": 0, "refused": 1})
    assert letter(refused)["times"] == 2
    hook.refused.clear()
    assert refused("dead-letters", "replay", "*", "--json").json["replayed"] == 1
    assert refused("dead-letters", "replay", "*").err == "*: no open dead letters\n"
