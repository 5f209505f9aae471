"""Commands that look and change nothing: preview, query, trace, dead letters."""

import json
from pathlib import Path

import pytest

from muxly_dagster_tests.cli.command import Muxly
from muxly_dagster_tests.cli.conftest import SECRETS


def test_a_query_answers_with_a_list_of_rows(ran: Muxly) -> None:
    done = ran("query", "select id, amount from Shop.Orders where amount > 100 order by id", "--json")

    assert done.code == 0
    assert done.json == [{"id": "1002", "amount": "250.00"}, {"id": "1003", "amount": "120.50"}]


def test_a_query_for_people_is_a_table(ran: Muxly) -> None:
    done = ran("query", "select customer, spent from customers order by spent desc")

    assert [line.split() for line in done.out.splitlines()] == [
        ["customer", "spent"],
        ["grace", "250.00"],
        ["ada", "140.40"],
        ["linus", "7.25"],
    ]
    assert done.err == "3 rows\n"


def test_columns_of_one_name_are_told_apart(ran: Muxly) -> None:
    assert ran("query", "select 1 as id, 2 as id", "--json").json == [{"id": 1, "id_2": 2}]


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("selec 1", 2, "is not one SELECT"),
        ("select nothing from shop.orders", 2, "nothing"),
        ("select * from shop.order", 2, "did you mean shop.orders?"),
        ("select * from broken.users", 1, "`muxly run broken.users` first"),
        ("select * from read_csv('/etc/passwd')", 2, "tables of the lake and nothing else"),
        ("select * from '/etc/passwd'", 2, "there is no table /etc/passwd"),
        ("copy customers to 'here.csv'", 2, "not a SELECT"),
        ("select cast(customer as integer) from customers", 1, "failed on the data"),
    ],
)
def test_sql_that_cannot_be_answered_says_why(ran: Muxly, sql: str, code: int, words: str) -> None:
    done = ran("query", sql)

    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "root:" not in done.err


def test_only_the_tables_that_a_query_names_are_opened(shop: Muxly) -> None:
    assert shop("run", "shop", "customers").code == 0
    log = shop.folder / ".muxly" / "lake" / "customers" / "_delta_log"
    for file in log.iterdir():
        file.write_text("not a log")

    assert shop("query", "select count(*) as n from shop.orders", "--json").json == [{"n": 4}]
    assert shop("query", "select * from customers").code == 1


def test_a_preview_shows_what_a_pull_would_read_and_stores_nothing(shop: Muxly) -> None:
    done = shop("preview", "api.things", "--limit", "1", "--json")

    assert done.json == [{"id": 1, "name": "a"}]
    assert not (shop.folder / ".muxly" / "lake").exists()


def test_a_preview_of_a_transform_shows_what_it_would_give(ran: Muxly) -> None:
    assert len(ran("preview", "customers", "--json").json) == 3


def test_a_preview_of_a_route_shows_where_each_record_would_go_and_why(ran: Muxly) -> None:
    rows = ran("preview", "big_orders", "--json").json

    assert [(row["key"], row["to"], row["because"]) for row in rows] == [
        ("1001", [], ["no rule matches"]),
        ("1002", ["files", "hook"], ["big"]),
        ("1003", ["files", "hook"], ["big"]),
        ("1004", [], ["no rule matches"]),
    ]
    shown = ran("preview", "big_orders.hook", "-n", "2").out
    assert "nowhere" in shown


def test_a_preview_of_something_unknown_names_the_nearest(ran: Muxly) -> None:
    done = ran("preview", "big_order")

    assert done.code == 2
    assert "did you mean big_orders?" in done.err


def test_a_record_is_traced_by_table_and_key(ran: Muxly) -> None:
    [story] = ran("trace", "shop.orders", "1002", "--json").json

    assert story["record"]["data"]["customer"] == "grace"
    files, hook = story["targets"]
    assert (files["outcome"], hook["outcome"]) == ("accepted", "accepted")
    [rule] = files["rules"]
    assert rule.pop("because") == [{"text": "amount > 100", "answer": True, "values": {"amount": "250.00"}}]
    assert rule == {"rule": "big", "when": "amount > 100", "answer": True, "sampled": True, "decided": True, "to": ["files", "hook"]}
    assert files["receipt"]["id"]


def test_a_record_is_traced_by_its_id_to_the_refusal(ran: Muxly) -> None:
    [letter] = ran("dead-letters", "list", "--json").json
    done = ran("trace", letter["record_id"])

    assert "big_orders.hook" in done.out
    assert "refused" in done.out
    assert f"dead letter {letter['id']} (open)" in done.out
    assert "when amount > 100 is true, decided → files, hook" in done.out


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (["shop.orders"], "names a table, but no record of it"),
        (["shop.order", "1"], "did you mean shop.orders?"),
        (["shop.orders", "9"], "never held a record with the key 9"),
        (["shop.orders:00000000:1"], "earlier life"),
        (["../../secrets/1"], "there is no table"),
        (["what"], "is no record"),
    ],
)
def test_a_record_that_is_not_there_says_how_to_find_one(ran: Muxly, record: list[str], words: str) -> None:
    done = ran("trace", *record)

    assert done.code == 2
    assert words in done.err


def test_dead_letters_are_listed_and_shown_with_their_reason(ran: Muxly) -> None:
    [letter] = ran("dead-letters", "list", "big_orders", "--json").json
    assert (letter["name"], letter["status"], letter["times"]) == ("big_orders.hook", "open", 1)
    assert "no such customer" in letter["reason"]

    listed = ran("dead-letters", "list")
    assert letter["id"] in listed.out
    shown = ran("dead-letters", "show", letter["id"][:8])
    assert shown.code == 0
    assert "no such customer" in shown.out
    assert '"1003"' in shown.out
    assert ran("dead-letters", "show", letter["id"], "--json").json["record_id"] == letter["record_id"]


def test_dead_letters_of_what_does_not_exist(ran: Muxly) -> None:
    assert ran("dead-letters", "list", "customers_out").err == "no dead letters\n"
    misspelt = ran("dead-letters", "list", "big_order")
    assert misspelt.code == 2
    assert "did you mean big_orders?" in misspelt.err
    for command in ("show", "replay"):
        done = ran("dead-letters", command, "zzzz")
        assert done.code == 2
        assert "dead-letters list" in done.err
    assert "no open dead letters" in ran("dead-letters", "replay", "customers_out").err


def test_a_dead_letter_is_replayed_and_counts_again_when_it_is_refused_again(shop: Muxly) -> None:
    assert shop("run", "everyday").code == 0
    again = shop("dead-letters", "replay", "big_orders", "--json")

    assert (again.code, again.json) == (1, {"replayed": 0, "superseded": 0, "refused": 1})
    [letter] = shop("dead-letters", "list", "--json").json
    assert letter["times"] == 2
    (shop.folder / "data" / "orders.csv").write_text("id,customer,amount\n1003,ada,300\n", "utf-8")
    assert shop("run", "shop", "big_orders.hook").code == 0
    assert "1 superseded" in shop("dead-letters", "replay", letter["id"]).err


def test_paths_in_the_project_begin_at_its_folder_wherever_the_command_is_run(ran: Muxly, tmp_path: Path) -> None:
    assert ran("-p", str(ran.folder), "preview", "shop.orders", folder=tmp_path).code == 0
    assert list(tmp_path.iterdir()) == []
    assert (ran.folder / "warehouse.db").is_file()
    delivered = [
        json.loads(line) for file in (ran.folder / "out" / "shop_orders").glob("*.ndjson") for line in file.read_text().splitlines()
    ]
    assert [record["key"] for record in delivered] == ["1002", "1003"]


def test_no_command_shows_a_secret(ran: Muxly) -> None:
    commands = [
        ["check", "--json"],
        ["check", "--offline"],
        ["run", "broken", "--json"],
        ["run", "broken"],
        ["preview", "broken.users"],
        ["trace", "shop.orders", "1003", "--json"],
        ["dead-letters", "list"],
        ["dead-letters", "list", "--json"],
        ["doctor", "--json"],
        ["schema"],
    ]
    for command in commands:
        ran(*command)
    ran("check", MUXLY__SOURCES__API__AUTH__TOKEN="s3cr3t-override", MUXLY__SOURCES__API__SURPRISE="s3cr3t-surprise")
    ran("check", MUXLY__DESTINATIONS__WAREHOUSE__URL="mysql://me:s3cr3t-mysql@host/x")
    ran("doctor", MUXLY_DATABASE_URL="postgresql://me:s3cr3t-state@127.0.0.1:1/x")

    said = "\n".join(ran.said)
    assert "no such customer" in said
    assert [secret for secret in [*SECRETS.values(), "s3cr3t"] if secret in said] == []
