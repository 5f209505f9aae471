"""What the environment does to a project: `${NAME}` and `MUXLY__...`."""

from pathlib import Path

import pytest

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.load import load_project
from muxly_dagster_tests.project.shelf import write

CRM = """
    sources:
      crm:
        connector: crm_api
        auth: {kind: bearer, token: "${CRM_TOKEN}"}
        pulls: [contacts]
    """


def config(folder: Path, value: str, **environ: str) -> object:
    path = write(folder, text=f"sources: {{crm: {{connector: x, field: {value}}}}}")
    return load_project(path, environ).sources["crm"].config["field"]


def mistakes(path: Path, **environ: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        load_project(path, environ)
    return caught.value.problems


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('"${A}"', "one"),
        ('"http://${A}:${B}/"', "http://one:two/"),
        ('"${MISSING:-else}"', "else"),
        ('"${MISSING:-}"', ""),
        ('"${EMPTY:-else}"', "else"),
        ('"${EMPTY}"', ""),
        ('"${A:-else}"', "one"),
        ('"$${A}"', "${A}"),
        ('"$${${A}}"', "${one}"),
        ('"$A {{ $x }}"', "$A {{ $x }}"),
        ('"${TRICK}"', "${A}"),
    ],
)
def test_variables_are_filled_in(tmp_path: Path, said: str, meant: str) -> None:
    assert config(tmp_path, said, A="one", B="two", EMPTY="", TRICK="${A}") == meant


def test_a_variable_stands_for_a_number_or_a_truth_where_one_is_wanted(tmp_path: Path) -> None:
    path = write(tmp_path, text='retention_days: "${DAYS}"\njobs: {a: {select: x, enabled: "${ON}"}}')
    project = load_project(path, {"DAYS": "7", "ON": "false"})
    assert (project.retention_days, project.jobs["a"].enabled) == (7, False)


def test_every_missing_variable_is_named_where_it_is_used(tmp_path: Path) -> None:
    path = write(tmp_path, text='name: "${A}"\nretention_days: "${DAYS}"\n')
    first, second = mistakes(path, DAYZ="3")
    assert (first.path, first.line, first.column) == ("name", 1, 7)
    assert "variable A" in first.what
    assert (second.path, second.line) == ("retention_days", 2)
    assert "did you mean DAYZ?" in second.what
    assert "${DAYS:-...}" in second.do


@pytest.mark.parametrize("wrong", ["${", "${}", "${a b}", "${config.url}"])
def test_a_reference_that_names_no_variable_is_explained(tmp_path: Path, wrong: str) -> None:
    [problem] = mistakes(write(tmp_path, text=f'name: "{wrong}"'))
    assert "$${" in problem.do


def test_any_value_can_be_overridden(tmp_path: Path) -> None:
    path = write(tmp_path, text=CRM)
    project = load_project(path, {"MUXLY__SOURCES__CRM__AUTH__TOKEN": "12345", "MUXLY__RETENTION_DAYS": "9"})
    assert project.sources["crm"].config["auth"] == {"kind": "bearer", "token": "12345"}
    assert project.retention_days == 9


def test_an_override_makes_what_is_not_there_yet(tmp_path: Path) -> None:
    path = write(tmp_path, text=CRM)
    environ = {
        "CRM_TOKEN": "t",
        "MUXLY__SOURCES__CRM__PULLS__DEALS__PAGE": "5",
        "MUXLY__DESTINATIONS__BOX": '{"type": "box", "size": 3}',
        "muxly__jobs__hourly__select": "[crm, box]",
        "MUXLY__SOURCES__CRM__TEXT": "[draft] {{ name }}",
    }
    project = load_project(path, environ)
    assert project.sources["crm"].pulls == {"contacts": {}, "deals": {"page": "5"}}
    assert project.sources["crm"].config["text"] == "[draft] {{ name }}"
    assert project.destinations["box"].config == {"size": 3}
    assert project.jobs["hourly"].select == ["crm", "box"]


def test_an_override_keeps_the_type_of_what_it_replaces(tmp_path: Path) -> None:
    path = write(tmp_path, text="sources: {crm: {connector: x, pages: 3, on: true, zip: '1', List: [a, {deep: 1}]}}")
    environ = {
        f"MUXLY__SOURCES__CRM__{name}": value for name, value in (("PAGES", "4"), ("ON", "false"), ("ZIP", "2"), ("LIST__1__DEEP", "7"))
    }
    assert load_project(path, environ).sources["crm"].config == {"pages": 4, "on": False, "zip": "2", "List": ["a", {"deep": 7}]}


def test_names_with_two_underscores_are_found(tmp_path: Path) -> None:
    path = write(tmp_path, text="sources: {my__crm: {connector: x, api__key: a}}")
    assert load_project(path, {"MUXLY__SOURCES__MY__CRM__API__KEY": "b"}).sources["my__crm"].config == {"api__key": "b"}


def test_an_overriding_value_is_not_filled_in_itself(tmp_path: Path) -> None:
    assert load_project(write(tmp_path, text="name: x"), {"MUXLY__NAME": "${HOME}"}).name == "${HOME}"


def test_overrides_that_lead_nowhere_are_explained(tmp_path: Path) -> None:
    path = write(tmp_path, text="name: x\njobs: {a: {select: [b]}}")
    problems = mistakes(path, MUXLY__NAME__FIRST="a", MUXLY__JOBS__A__SELECT__5="c", MUXLY__="d", MUXLY__RETENTIONDAYS="8")
    text = "\n".join(map(str, problems))
    assert "MUXLY__NAME__FIRST goes below a value" in text
    assert "MUXLY__JOBS__A__SELECT__5 names entry '5'" in text
    assert "MUXLY__ names no value" in text
    assert "did you mean retention_days?" in text


def test_values_of_variables_are_never_repeated(tmp_path: Path) -> None:
    path = write(tmp_path, text='retention_days: "${DAYS}"\njobs: {a: {select: x, enabled: "${ON}", timezone: 5}}')
    problems = mistakes(path, DAYS="s3cret", ON="s3cret", MUXLY__JOBS__A__CRON="[s3cret]")
    text = "\n".join(map(str, problems))
    assert "s3cret" not in text
    assert "${DAYS}" in text and "${ON}" in text and "MUXLY__JOBS__A__CRON" in text
    assert "put it in quotes" in text
