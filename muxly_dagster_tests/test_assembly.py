"""Assembly: every name in a project resolved, and every mistake found in one go."""

from pathlib import Path

import pytest

from muxly_dagster.assembly import Assembly, assemble, parents, select, upstream
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.load import load_project
from muxly_dagster_tests.project.shelf import DEALS, Box, Crm, Keep, Limit, Shelf, assembled, write

SHOP = """
sources:
  crm:
    connector: crm_api
    region: us
    auth: {kind: bearer, token: "${TOKEN}"}
    pulls:
      contacts: {contract: discard, key: [email], properties: [email]}
      sales: {stream: deals}
transforms:
  won: {from: customers, steps: [limit, keep: [id]], key: id}
  customers:
    key: [id]
    sql: with ids as (select id from CRM.Sales) select * from ids join crm.contacts using (id), range(3)
routes:
  big:
    from: crm.sales
    rules:
      - {name: huge, when: amount > 10, to: [box, {bin: {size: 9}}]}
      - {when: amount > 5, to: bin}
    otherwise: box
  out: {from: won, to: box}
destinations:
  box: {type: box, colour: blue}
  bin: {type: box, size: 2, colour: blue}
jobs:
  hourly: {select: [crm, +out], cron: "@hourly", timezone: Europe/Berlin}
"""


def problems(folder: Path, text: str, **environ: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        assembled(folder, text, **environ)
    return caught.value.problems


def problem(folder: Path, text: str, **environ: str) -> Problem:
    [found] = problems(folder, text, **environ)
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Assembly:
    return assembled(tmp_path, SHOP, TOKEN="t")


def test_sources_and_pulls_carry_what_the_project_says(shop: Assembly) -> None:
    crm = shop.sources["crm"]
    assert isinstance(crm, Crm)
    assert (crm.region, crm.pages) == ("us", 10)
    assert list(shop.pulls) == ["crm.contacts", "crm.sales"]
    contacts, sales = shop.pulls.values()
    assert contacts.connector is crm
    assert contacts.settings.model_dump()["properties"] == ["email"]
    assert (contacts.stream.name, contacts.stream.key, contacts.stream.contract) == ("contacts", ("email",), "discard")
    assert (sales.stream.name, sales.stream.key, sales.stream.schema) == ("deals", ("id",), DEALS.schema)


def test_transforms_know_the_tables_they_read_and_their_steps(shop: Assembly) -> None:
    assert list(shop.transforms) == ["won", "customers"]
    assert set(shop.transforms["customers"].inputs) == {"crm.sales", "crm.contacts"}
    won = shop.transforms["won"]
    assert (won.inputs, won.key, won.steps) == (("customers",), ("id",), (Limit(rows=10), Keep(columns=["id"])))


def test_a_route_has_one_target_for_each_destination_with_its_own_settings(shop: Assembly) -> None:
    assert list(shop.targets) == ["big.box", "big.bin", "out.box"]
    box, bin_, out = shop.targets.values()
    assert box.destination is shop.destinations["box"]
    assert isinstance(bin_.destination, Box)
    assert (bin_.destination.size, bin_.destination.colour) == (9, "blue")
    assert (bin_.table, bin_.key, bin_.connector_id, bin_.destination_name) == ("crm.sales", ("id",), "crm_api", "bin")
    assert [(rule.name, rule.when, rule.to) for rule in box.router.rules] == [
        ("huge", "amount > 10", ("box", "bin")),
        ("", "amount > 5", ("bin",)),
    ]
    assert (box.router.otherwise, box.router.match) == (("box",), "first")
    assert (out.table, out.key, out.connector_id) == ("won", ("id",), "transform")
    assert [(rule.when, rule.to) for rule in out.router.rules] == [(None, ("box",))]


def test_selections_follow_what_depends_on_what(shop: Assembly) -> None:
    assert select(shop, ["+out"]) == ["crm.contacts", "crm.sales", "customers", "won", "out.box"]
    assert select(shop, ["hourly"]) == ["crm.contacts", "crm.sales", "customers", "won", "out.box"]
    assert select(shop, ["big", "crm.sales"]) == ["crm.sales", "big.box", "big.bin"]
    assert select(shop, ["crm.sales+1"]) == ["crm.sales", "customers", "big.box", "big.bin"]
    assert upstream(shop, "won") == ["crm.contacts", "crm.sales", "customers"]
    assert upstream(shop, "crm.sales") == []
    assert (parents(shop, "out.box"), parents(shop, "crm.sales")) == (("won",), ())
    with pytest.raises(ConfigurationError, match=r"did you mean crm\.sales"):
        select(shop, ["crm.sale"])


def test_a_project_that_is_loaded_already_can_be_assembled(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, text=SHOP), {"TOKEN": "t"})
    assert assemble(project, Shelf()).project is project


def test_every_mistake_of_the_project_is_told_at_once_from_top_to_bottom(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        sources:
          crm:
            connector: crm_api
            regoin: eu
            region: asia
            auth: {kind: bearer, token: "${TOKEN}"}
            pulls:
              a: {pge: 5, page: many}
              b: {stream: nothing}
              c: {freshness: soon}
          web: {connector: crm_apy}
        transforms:
          t: {sql: "select * from crm.aa join webb.x using (id)"}
          u: {from: crm.a, steps: [limt: 3, limit: {rows: x}, keep: 5]}
        routes:
          r: {from: crm.b, to: [bux, box: {sise: 3}]}
          s: {from: crm.x, match: none, to: box}
        destinations:
          box: {type: box, size: big}
          bin: {type: bx}
        jobs:
          j: {select: [crm.q, r.box, "+u"], cron: "61 * * * *", timezone: Europe/Berln}
        surprise: 1
        """,
    )
    told = [(p.line, p.path) for p in found]
    assert told == sorted(told, key=lambda pair: pair[0])
    assert {path: line for line, path in told} == {
        "sources.crm.regoin": 4,
        "sources.crm.region": 5,
        "sources.crm.auth.token": 6,
        "sources.crm.pulls.a.pge": 8,
        "sources.crm.pulls.a.page": 8,
        "sources.crm.pulls.c.freshness": 10,
        "sources.web.connector": 11,
        "transforms.t.sql": 13,
        "transforms.u.steps.0": 14,
        "transforms.u.steps.1.limit.rows": 14,
        "transforms.u.steps.2.keep": 14,
        "routes.r.to.0": 16,
        "routes.s.match": 17,
        "destinations.box.size": 19,
        "destinations.bin.type": 20,
        "jobs.j.select.0": 22,
        "jobs.j.cron": 22,
        "jobs.j.timezone": 22,
        "surprise": 23,
    }
    do = {p.path: p.do for p in found}
    assert do["sources.crm.regoin"] == "did you mean region?"
    assert do["sources.web.connector"] == "did you mean crm_api?"
    assert do["sources.crm.pulls.a.pge"] == "did you mean page?"
    assert do["transforms.u.steps.0"] == "did you mean limit?"
    assert do["routes.r.to.0"] == "did you mean box?"
    assert do["destinations.bin.type"] == "did you mean box?"
    assert do["jobs.j.timezone"] == "did you mean Europe/Berlin?"
    assert any(p.path == "transforms.t.sql" and "crm.aa" in p.what for p in found)


def test_what_refers_to_a_broken_entry_is_not_to_blame(tmp_path: Path) -> None:
    text = """
    sources: {crm: {connector: crm_api, oops: 1, pulls: {a: {bad: 1}}}}
    transforms: {t: {sql: select * from crm.a, oops: 1}, u: {sql: select * from t}}
    routes: {r: {from: t, to: box}, s: {from: crm.a, to: box, oops: 1}}
    destinations: {box: {type: box, oops: 1}, bin: 5}
    jobs: {j: {select: [crm.a, t, r.box, s]}}
    """
    assert {p.path for p in problems(tmp_path, text)} == {
        "sources.crm.oops",
        "sources.crm.pulls.a.bad",
        "transforms.t.oops",
        "routes.s.oops",
        "destinations.box.oops",
        "destinations.bin",
    }


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("when: amount >", "amount >"),
        ("when: '(select 1)'", "subquery"),
        ("when: amount > 5; drop table x", "statements"),
        ("when: amuont > 5", "did you mean amount"),
        ("when: ''", "empty"),
    ],
)
def test_a_rule_that_is_not_one_condition_over_known_columns_is_refused(tmp_path: Path, rule: str, word: str) -> None:
    found = problem(
        tmp_path,
        f"""
sources: {{crm: {{connector: crm_api, pulls: [deals]}}}}
destinations: {{box: {{type: box}}}}
routes:
  r:
    from: crm.deals
    rules:
      - when: amount > 1
        to: box
      - {rule}
        to: box
""",
    )
    assert (found.path, found.line, found.column) == ("routes.r.rules.1.when", 9, 15)
    assert word in found.what


def test_columns_may_be_new_where_the_schema_evolves(tmp_path: Path) -> None:
    text = """
    sources: {crm: {connector: crm_api, pulls: {deals: {contract: evolve}}}}
    destinations: {box: {type: box}}
    routes: {r: {from: crm.deals, rules: [{when: stage = 'won', to: box}]}}
    """
    assert list(assembled(tmp_path, text).targets) == ["r.box"]


@pytest.mark.parametrize(
    ("route", "path", "word"),
    [
        ("rules: [{to: box}, {when: a, to: bin}]", "rules.1", "never reached"),
        ("rules: [{when: a, to: box}, {when: 'true', to: bin}], otherwise: box", "otherwise", "never used"),
        ("to: [box, box]", "to.1", "twice"),
        ("rules: [{when: a, to: {box: {size: 2}}}, {when: b, to: {box: {size: 3}}}]", "rules.1.to.box", "other settings"),
        ("rules: [{when: a, to: box}], otherwise: [bix]", "otherwise.0", "no destination bix"),
        ("to: {box: {size: huge}}", "to.box.size", "whole number"),
        ("to: {box: {sise: 2}}", "to.box.sise", "not known"),
    ],
)
def test_a_route_that_cannot_mean_what_it_says_is_refused(tmp_path: Path, route: str, path: str, word: str) -> None:
    text = f"""
    sources: {{crm: {{connector: crm_api, pulls: [contacts]}}}}
    destinations: {{box: {{type: box}}, bin: {{type: box}}}}
    routes: {{r: {{from: crm.contacts, {route}}}}}
    """
    found = problem(tmp_path, text)
    assert (found.path, found.line) == (f"routes.r.{path}", 3)
    assert word in found.what


def test_circles_of_transforms_are_named(tmp_path: Path) -> None:
    text = """
    transforms:
      a: {sql: select * from b}
      b: {sql: select * from c}
      c: {sql: select * from a}
      d: {sql: select * from d}
      e: {sql: select * from a}
    """
    first, second = problems(tmp_path, text)
    assert (first.path, first.what) == ("transforms.a", "needs its own result: a → c → b → a")
    assert (second.path, second.what) == ("transforms.d", "needs its own result: d → d")


@pytest.mark.parametrize("sql", ["selec 1", "delete from t", "select 1; select 2", "copy t to 'x'"])
def test_a_transform_is_one_select(tmp_path: Path, sql: str) -> None:
    assert problem(tmp_path, f'transforms: {{t: {{sql: "{sql}"}}}}').path == "transforms.t.sql"


def test_one_name_means_one_thing(tmp_path: Path) -> None:
    text = """
    sources: {a: {connector: crm_api, pulls: [x]}}
    transforms: {a: {sql: select * from a.x}, b: {sql: select 1}}
    routes: {b: {from: a.x, to: box}}
    destinations: {box: {type: box}}
    jobs: {a: {select: box.x}}
    """
    found = problems(tmp_path, text)
    assert [p.path for p in found] == ["transforms.a", "routes.b", "jobs.a", "jobs.a.select.0"]
    assert "one of the sources too" in found[0].what


@pytest.mark.parametrize(
    ("job", "path", "word"),
    [
        ("select: crm.contact", "select.0", "nothing called crm.contact"),
        ("select: [crm, other]", "select.1", "a job selects no other job"),
        ("select: empty", "select.0", "has no pulls"),
        ("select: crm, cron: hourly", "cron", "not a cron expression"),
        ("select: crm, cron: '* * * * * *'", "cron", "not a cron expression"),
        ("select: crm, timezone: Mars", "timezone", "no time zone Mars"),
        ("select: crm, timezone: ../etc", "timezone", "no time zone"),
        ("select: []", "select", "at least 1"),
    ],
)
def test_a_job_selects_what_there_is_when_there_is_time(tmp_path: Path, job: str, path: str, word: str) -> None:
    text = f"""
    sources: {{crm: {{connector: crm_api, pulls: [contacts]}}, empty: {{connector: crm_api}}}}
    jobs: {{other: {{select: crm}}, j: {{{job}}}}}
    """
    found = problem(tmp_path, text)
    assert found.path == f"jobs.j.{path}"
    assert word in found.what


def test_no_secret_is_ever_repeated(tmp_path: Path) -> None:
    text = """
    sources:
      a: {connector: crm_api, auth: {kind: bearer, token: [hunter2]}}
      b: {connector: crm_api, auth: {kind: hunter2}}
      c: {connector: crm_api, auth: hunter2}
      d: {connector: crm_api, auth: {kind: bearer, tokn: hunter2}}
      e: {connector: crm_api, password: letmein}
      f: {connector: crm_api, region: "${REGION}"}
      g: {connector: crm_api, auth: {token: hunter2}}
    destinations:
      box: {type: box, key: {deep: hunter2}}
    """
    found = problems(tmp_path, text, REGION="hunter2")
    told = "\n".join(map(str, found))
    assert "hunter2" not in told
    assert "letmein" not in told
    by_path = {p.path: p for p in found}
    assert by_path["sources.b.auth.kind"].do == "there are api_key, basic, bearer, custom, none, oauth2, service_account"
    assert by_path["sources.d.auth.tokn"].do == "did you mean token?"
    assert "sources.d.auth.token" not in by_path  # one slip, one problem
    assert by_path["sources.e"].what == "is not valid"
    assert "${REGION}" in by_path["sources.f.region"].what
    assert "must say its kind" in by_path["sources.g.auth"].what


def test_names_and_rules_from_the_environment_are_not_repeated_either(tmp_path: Path) -> None:
    text = """
    sources: {a: {connector: "${X}"}, b: {connector: crm_api, pulls: {n: {stream: nothing, description: "${X}"}}}}
    transforms: {t: {sql: "select * from ${X}"}}
    destinations: {box: {type: "${X}"}, bin: {type: box}}
    routes: {r: {from: b.n, rules: [{when: "a = '${X}' and", to: "${X}"}]}, s: {from: "${X}", to: bin}}
    jobs: {j: {select: "${X}", cron: "${X}", timezone: "${X}"}}
    """
    found = problems(tmp_path, text, X="hunter2")
    told = "\n".join(map(str, found))
    assert "hunter2" not in told
    assert len(found) == 10
    assert "there is no table ${X}" in told


def test_a_missing_manifest_is_named_where_the_source_names_it(tmp_path: Path) -> None:
    found = problem(tmp_path, "sources:\n  a:\n    connector: ./things.yaml\n")
    assert (found.path, found.line, found.column) == ("sources.a.connector", 3, 16)
    assert str(tmp_path / "things.yaml") in found.what
