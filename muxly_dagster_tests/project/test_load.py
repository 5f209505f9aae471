"""Loading: formats, several files, and mistakes named at their line and column."""

from pathlib import Path

import pytest

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.load import load_project
from muxly_dagster_tests.project.shelf import write

YAML = """
    name: shop
    sources:
      crm: {connector: crm_api, pages: 3, pulls: {contacts: {}, deals: {page: 5}}}
    routes:
      big: {from: crm.deals, rules: [{when: amount > 5, to: [{box: {size: 2}}, other]}], otherwise: box}
    destinations: {box: {type: box}, other: {type: box}}
    jobs: {hourly: {select: crm, cron: "0 * * * *"}}
    """

JSON = """
    {"name": "shop",
     "sources": {"crm": {"connector": "crm_api", "pages": 3, "pulls": {"contacts": {}, "deals": {"page": 5}}}},
     "routes": {"big": {"from": "crm.deals", "rules": [{"when": "amount > 5", "to": [{"box": {"size": 2}}, "other"]}], "otherwise": "box"}},
     "destinations": {"box": {"type": "box"}, "other": {"type": "box"}},
     "jobs": {"hourly": {"select": "crm", "cron": "0 * * * *"}}}
    """

TOML = """
    name = "shop"
    [sources.crm]
    connector = "crm_api"
    pages = 3
    [sources.crm.pulls]
    contacts = {}
    deals.page = 5
    [routes.big]
    from = "crm.deals"
    otherwise = "box"
    [[routes.big.rules]]
    when = "amount > 5"
    to = [{box = {size = 2}}, "other"]
    [destinations]
    box = {type = "box"}
    other.type = "box"
    [jobs.hourly]
    select = "crm"
    cron = "0 * * * *"
    """


def mistakes(path: Path, **environ: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        load_project(path, environ)
    return caught.value.problems


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    projects = [load_project(write(tmp_path, f"muxly.{s}", text), {}) for s, text in (("yaml", YAML), ("json", JSON), ("toml", TOML))]
    assert projects[0].model_dump() == projects[1].model_dump() == projects[2].model_dump()
    assert projects[0].sources["crm"].config == projects[1].sources["crm"].config == projects[2].sources["crm"].config == {"pages": 3}
    route = projects[0].routes["big"]
    assert route.from_ == "crm.deals"
    assert [(t.destination, t.config) for t in route.rules[0].to] == [("box", {"size": 2}), ("other", {})]
    assert [t.destination for t in route.otherwise] == ["box"]
    assert projects[0].jobs["hourly"].select == ["crm"]


def test_an_empty_file_and_empty_sections_are_a_project(tmp_path: Path) -> None:
    assert load_project(write(tmp_path, text=""), {}).sources == {}
    assert load_project(write(tmp_path, text="sources:\nroutes: # none yet\n"), {}).routes == {}


def test_a_list_of_pulls_is_short_for_pulls_without_settings(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, text="sources: {crm: {connector: x, pulls: [contacts, deals]}}"), {})
    assert project.sources["crm"].pulls == {"contacts": {}, "deals": {}}


def test_words_that_older_yaml_takes_for_something_else_stay_text(tmp_path: Path) -> None:
    path = write(
        tmp_path, text="sources: {a: {connector: x, country: no, day: 2024-01-02, zip: 01234, ratio: 1e3, n: 0x1f, t: 12:30, v: 1.0}}"
    )
    config = load_project(path, {}).sources["a"].config
    assert config == {"country": "no", "day": "2024-01-02", "zip": "01234", "ratio": 1000.0, "n": 31, "t": "12:30", "v": 1.0}


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        text="""
        sources:
          a: &shared {connector: x, page: 1, size: 2}
          b: {<<: *shared, size: 3}
        """,
    )
    assert load_project(path, {}).sources["b"].config == {"page": 1, "size": 3}


@pytest.mark.parametrize("of_folder", [True, False])
def test_files_of_the_folder_beside_the_project_are_merged(tmp_path: Path, of_folder: bool) -> None:
    main = write(tmp_path, text="sources: {crm: {connector: x, pulls: [contacts]}}")
    write(tmp_path, "muxly.d/10-deals.toml", "[sources.crm.pulls.deals]\npage = 5\n")
    write(tmp_path, "muxly.d/20.json", '{"sources": {"web": {"connector": "y"}}, "retention_days": 3}')
    write(tmp_path, "muxly.d/notes.txt", "not a project file")
    project = load_project(tmp_path if of_folder else main, {})
    assert project.sources["crm"].pulls == {"contacts": {}, "deals": {"page": 5}}
    assert list(project.sources) == ["crm", "web"]
    assert (project.retention_days, project.folder, project.file) == (3, tmp_path, main)


def test_several_project_files_of_a_folder_are_merged(tmp_path: Path) -> None:
    write(tmp_path, "muxly.yaml", "sources: {a: {connector: x}}")
    write(tmp_path, "muxly.toml", "[sources.b]\nconnector = 'x'\n")
    assert set(load_project(tmp_path, {}).sources) == {"a", "b"}


def test_a_key_set_in_two_files_names_both_places(tmp_path: Path) -> None:
    main = write(tmp_path, text="name: a\nsources:\n  crm:\n    connector: x\n")
    other = write(tmp_path, "muxly.d/more.toml", "[sources.crm]\n  connector = 'y'\n")
    [problem] = mistakes(main)
    assert (problem.path, problem.file, problem.line, problem.column) == ("sources.crm.connector", str(other), 2, 3)
    assert f"first at {main}:4:5" in problem.what


@pytest.mark.parametrize(
    ("name", "text"), [("muxly.yaml", "sources: {}\nname: a\nname: b\n"), ("muxly.json", '{"sources": {},\n"name": "a",\n"name": "b"}')]
)
def test_a_key_set_twice_in_one_file_names_both_places(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path, name, text)
    [problem] = mistakes(path)
    assert (problem.path, problem.line, problem.column) == ("name", 3, 1)
    assert f"first at {path}:2:1" in problem.what


def test_every_mistake_is_found_at_once_and_at_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        text="""
        transfroms: {}
        sources:
          Bad-Name: {connector: x}
          crm:
            pulls: [contacts]
        transforms:
          both: {sql: select 1, python: "m:f", from: crm.contacts}
          late: {sql: select 1, freshness: soon}
        routes:
          big:
            from: crm.deals
            match: frist
            to: box
        jobs:
          nightly: {select: crm, enabled: perhaps}
        retention_days: 0
        """,
    )
    found = {p.path: p for p in mistakes(path)}
    places = {name: (p.line, p.column) for name, p in found.items()}
    assert places == {
        "transfroms": (1, 1),
        "sources.Bad-Name": (3, 3),
        "sources.crm.connector": (4, 3),
        "transforms.both": (7, 3),
        "transforms.late.freshness": (8, 36),
        "routes.big.match": (12, 12),
        "jobs.nightly.enabled": (15, 35),
        "retention_days": (16, 17),
    }
    assert found["transfroms"].do == "did you mean transforms?"
    assert found["routes.big.match"].do == "did you mean first?"
    assert "lower-case" in found["sources.Bad-Name"].what
    assert "is missing" in found["sources.crm.connector"].what
    assert "exactly one" in found["transforms.both"].what
    assert "such as 90s" in found["transforms.late.freshness"].what
    assert str(found["transfroms"]).startswith(f"{path}:1:1: transfroms: ")


def test_mistakes_in_toml_and_json_have_their_place_too(tmp_path: Path) -> None:
    toml = write(
        tmp_path / "t",
        "muxly.toml",
        '''
        # "a" = [1]
        [jobs.a]
        select = ["x", # one
          "y"]
        "cron" = """
        0 * * * *"""
        enabld = true
        [[routes.r.rules]]
        to = 'b'
        [[routes.r.rules]]
        wen = 'x'
        to = "b"
        ''',
    )
    assert {(p.path, p.line, p.column) for p in mistakes(toml)} == {
        ("jobs.a.enabld", 7, 1),
        ("routes.r.from", 8, 10),
        ("routes.r.rules.1.wen", 11, 1),
    }
    json = write(tmp_path / "j", "muxly.json", '{\n\t"jobs": {"a": {"select": ["x", 5],\n\t\t"enabld": 1}}}')
    assert {(p.path, p.line, p.column) for p in mistakes(json)} == {("jobs.a.enabld", 3, 3), ("jobs.a.select.1", 2, 33)}


@pytest.mark.parametrize(
    ("name", "text", "place", "hint"),
    [
        ("muxly.yaml", "a: 1\n\tb: 2\n", (2, 1), "spaces"),
        ("muxly.yaml", "name: a: b\n", (1, 8), "quotes"),
        ("muxly.yaml", "name: @home\n", (1, 7), "quotes"),
        ("muxly.yaml", "sources: [a, b\nname: x\n", None, "bracket"),
        ("muxly.yaml", 'name: "a\n', None, "close the quotes"),
        ("muxly.yaml", "a: 1\n---\nb: 1\n", (2, 1), "---"),
        ("muxly.json", '{"name": "a",}', None, "comma"),
        ("muxly.toml", "name = a\n", (1, 8), "quotes"),
        ("muxly.yaml", "- a\n- b\n", (1, 1), "sources:"),
        ("muxly.json", "[1]", (1, 1), "sources:"),
        ("muxly.yaml", "name: !!python/name:os.system x\n", (1, 7), "quotes"),
        ("muxly.yaml", "a: &a [*a]\n", (1, 4), "alias"),
    ],
)
def test_a_file_that_does_not_parse_says_where_and_what_to_do(
    tmp_path: Path, name: str, text: str, place: tuple[int, int] | None, hint: str
) -> None:
    [problem] = mistakes(write(tmp_path, name, text))
    assert hint in problem.do
    assert problem.file == str(tmp_path / name)
    if place is not None:
        assert (problem.line, problem.column) == place
    assert problem.line >= 1


@pytest.mark.parametrize("value", ["*hunter2", "!hunter2 x", "&hunter2 {", "%hunter2", "@hunter2", "'hunter2", "{hunter2", "a: hunter2"])
def test_a_secret_that_yaml_stumbles_over_is_not_repeated(tmp_path: Path, value: str) -> None:
    problems = mistakes(write(tmp_path, text=f"sources: {{a: {{connector: x}}}}\ntoken: {value}\n"))
    assert "hunter2" not in "\n".join(map(str, problems))


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))
    [problem] = mistakes(write(tmp_path, text=f"a0: &a0 [x]\n{levels}\n"))
    assert "too large" in problem.what


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("muxly.yaml", "a: " + "[" * 500 + "]" * 500),
        ("muxly.yaml", "a: " + "[" * 50_000 + "]" * 50_000),
        ("muxly.json", '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"),
        ("muxly.json", '{"a": ' + "[" * 500 + "]" * 500 + "}"),
        ("muxly.toml", "a = " + "[" * 300 + "]" * 300),
    ],
    ids=["yaml", "very deep yaml", "very deep json", "json", "toml"],
)
def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path, name: str, text: str) -> None:
    [problem] = mistakes(write(tmp_path, name, text))
    assert (problem.file, problem.line) == (str(tmp_path / name), 1)
    assert "deep" in problem.what


def test_text_that_is_not_utf8_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "muxly.yaml"
    path.write_bytes(b"name: x\nabc: \xff\n")
    [problem] = mistakes(path)
    assert (problem.line, problem.column, problem.what) == (2, 6, "is not UTF-8 text")


def test_all_files_that_do_not_parse_are_named(tmp_path: Path) -> None:
    write(tmp_path, text="a: [")
    write(tmp_path, "muxly.d/x.json", "{")
    assert [p.file for p in mistakes(tmp_path)] == [str(tmp_path / "muxly.yaml"), str(tmp_path / "muxly.d/x.json")]


def test_a_project_that_is_not_there_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="muxly init"):
            load_project(path, {})


def test_settings_of_destinations_do_not_show_when_a_project_is_printed(tmp_path: Path) -> None:
    project = load_project(
        write(tmp_path, text="destinations: {box: {type: box, key: hunter2}}\nroutes: {r: {from: a.b, to: {box: {key: hunter2}}}}"), {}
    )
    assert project.destinations["box"].config == {"key": "hunter2"}
    assert "hunter2" not in repr(project)


def test_a_slip_in_a_name_that_must_be_there_is_told_once_where_it_stands(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "muxly.yaml",
        """\
        sources:
          crm:
            connecter: shelf
        routes:
          big: {form: crm.books, to: box}
        """,
    )
    found = {p.path: (p.line, p.what, p.do) for p in mistakes(path)}
    assert found == {
        "sources.crm.connecter": (3, "is not known here", "did you mean connector?"),
        "routes.big.form": (5, "is not known here", "did you mean from?"),
    }
