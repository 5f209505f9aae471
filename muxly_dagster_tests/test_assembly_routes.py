"""What a route says of its rules (samples, steps, templates), made into targets; each mistake with its place and what to do."""

from pathlib import Path

import pytest

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster_tests.project.shelf import write

BEGINNING = """
sources: {shop: {connector: files, path: ., pulls: {orders: {glob: "*.csv", key: [id]}}}}
destinations:
  sales: {type: slack, webhook_url: "https://hooks.slack.com/services/T/B/x", text: "{{ id }}"}
  hook: {type: webhook, url: "https://example.com/hook"}
  warehouse: {type: database, url: "sqlite:///w.db"}
  archive: {type: file, path: ./out}
routes:
"""


def assembled(folder: Path, route: str) -> Assembly:
    return load_assembly(write(folder, text=BEGINNING + route), {})


def problems(folder: Path, route: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        assembled(folder, route)
    return caught.value.problems


def problem(folder: Path, route: str) -> Problem:
    [found] = problems(folder, route)
    assert (found.file, found.line, found.column) != ("", 0, 0)
    return found


def test_steps_and_templates_are_found_by_the_rule_that_sends_a_record(tmp_path: Path) -> None:
    shop = assembled(
        tmp_path,
        """
  big:
    from: shop.orders
    steps: [drop: note]
    rules:
      - name: huge
        when: amount > 1000
        to: [sales, warehouse]
        steps: [mask: {customer: redact}]
        template: {text: "Huge: {{ id }}"}
      - {when: amount > 10, to: sales, sample: 10%}
    otherwise: archive
""",
    )
    target = shop.targets["big.sales"]
    assert {name: [step.name for step in steps] for name, steps in target.steps.items()} == {
        "huge": ["drop", "mask"],
        "rule 2": ["drop"],
        "otherwise": ["drop"],
    }
    assert target.templates == {"huge": {"text": "Huge: {{ id }}"}}
    assert [rule.sample for rule in target.router.rules] == [None, 0.1]
    assert shop.targets["big.archive"].steps == target.steps


def test_a_route_without_a_choice_has_steps_for_every_record(tmp_path: Path) -> None:
    target = assembled(tmp_path, "  out: {from: shop.orders, to: warehouse, steps: [drop: note]}\n").targets["out.warehouse"]
    assert list(target.steps) == [""]


def test_the_steps_of_a_sample_are_not_done_to_the_others(tmp_path: Path) -> None:
    target = assembled(
        tmp_path,
        """
  out:
    from: shop.orders
    rules: [{to: warehouse, sample: 50%, steps: [drop: note]}]
    otherwise: warehouse
""",
    ).targets["out.warehouse"]
    assert {name: [step.name for step in steps] for name, steps in target.steps.items()} == {"rule 1": ["drop"]}


def test_a_rule_with_a_sample_does_not_take_every_record(tmp_path: Path) -> None:
    shop = assembled(tmp_path, "  out: {from: shop.orders, rules: [{to: hook, sample: 5%}, {to: warehouse}]}\n")
    assert list(shop.targets) == ["out.hook", "out.warehouse"]
    found = problem(tmp_path, "  out: {from: shop.orders, rules: [{to: hook}, {to: warehouse, sample: 5%}]}\n")
    assert (found.path, "never reached" in found.what) == ("routes.out.rules.1", True)


@pytest.mark.parametrize(
    ("sample", "word"),
    [("lots", "share"), ("150%", "share"), ("-1%", "share"), ("[1]", "text")],
)
def test_a_sample_is_a_share(tmp_path: Path, sample: str, word: str) -> None:
    found = problem(tmp_path, f"  out: {{from: shop.orders, rules: [{{to: hook, sample: {sample}}}]}}\n")
    assert found.path == "routes.out.rules.0.sample"
    assert word in f"{found.what} {found.do}"


@pytest.mark.parametrize(
    ("route", "path", "do"),
    [
        ("to: hook, steps: [renam: {a: b}]", "steps.0", "did you mean rename?"),
        ("rules: [{when: id = '1', to: hook, steps: [drop: note, maks: x]}]", "rules.0.steps.1", "did you mean mask?"),
        ("to: hook, steps: [cast: {amount: money}]", "steps.0.cast.amount", ""),
        ("to: hook, steps: [filter: 'amount >']", "steps.0.filter", ""),
    ],
)
def test_a_step_that_is_none_is_told_at_its_place(tmp_path: Path, route: str, path: str, do: str) -> None:
    found = problem(tmp_path, f"  out: {{from: shop.orders, {route}}}\n")
    assert (found.path, found.line) == (f"routes.out.{path}", 8)
    assert do in found.do


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        ("to: sales, template: {txt: x}", "template.txt", "no destination of this rule has a template txt; did you mean text?"),
        ("to: warehouse, template: {text: x}", "template.text", "no destination of this rule has a template text; leave it out"),
        ("to: [sales, warehouse], template: {texts: x}", "template.texts", "did you mean text?"),
        ("to: sales, template: {text: '{{ amount'}", "template.text", "is no template"),
        ("to: sales, template: {text: '{% include \"x\" %}'}", "template.text", "may not take in other templates"),
    ],
)
def test_a_template_that_is_none_or_that_nobody_has_is_told_at_its_place(tmp_path: Path, rule: str, path: str, words: str) -> None:
    found = problem(tmp_path, f"  out:\n    from: shop.orders\n    rules:\n      - {{when: id = '1', {rule}}}\n")
    assert (found.path, found.line) == (f"routes.out.rules.0.{path}", 11)
    assert words in str(found)


def test_a_template_that_one_of_the_destinations_has_is_enough(tmp_path: Path) -> None:
    shop = assembled(tmp_path, "  out: {from: shop.orders, rules: [{name: a, to: [sales, warehouse], template: {text: hello}}]}\n")
    assert shop.targets["out.sales"].templates == {"a": {"text": "hello"}}


@pytest.mark.parametrize(
    ("rules", "path", "words"),
    [
        ("[{name: a, when: id = '1', to: hook}, {name: a, to: sales}]", "rules.1.name", "is called a, as rule 1 is"),
        ("[{name: rule 2, when: id = '1', to: hook}, {to: sales}]", "rules.1", "is called rule 2, as rule 1 is"),
        ("[{name: otherwise, when: id = '1', to: hook}]", "rules.0.name", "is called otherwise, as what goes by no rule is"),
    ],
)
def test_two_rules_have_two_names(tmp_path: Path, rules: str, path: str, words: str) -> None:
    found = problem(tmp_path, f"  out: {{from: shop.orders, rules: {rules}}}\n")
    assert (found.path, found.do) == (f"routes.out.{path}", "give it another name")
    assert words in found.what


def test_the_key_goes_by_the_name_that_steps_give_it(tmp_path: Path) -> None:
    shop = assembled(
        tmp_path,
        """
  out:
    from: shop.orders
    steps: [rename: {id: number}, rename: {number: order_number}]
    rules:
      - {when: amount > 5, to: [warehouse, sales], steps: [rename: {note: remark}]}
      - {to: sales, steps: [rename: {order_number: "no"}]}
""",
    )
    assert shop.targets["out.warehouse"].key == ("order_number",)


def test_rules_that_name_the_key_differently_cannot_share_a_table(tmp_path: Path) -> None:
    route = """
  out:
    from: shop.orders
    rules:
      - {name: a, when: amount > 5, to: PLACE, steps: [rename: {id: number}]}
      - {name: b, to: PLACE}
"""
    found = problem(tmp_path, route.replace("PLACE", "warehouse"))
    assert (found.path, found.line) == ("routes.out.rules.1", 13)
    assert found.what == "calls the key id at warehouse, where an earlier rule calls it number"
    assert "`steps` of the route" in found.do
    assembled(tmp_path, route.replace("PLACE", "sales"))
