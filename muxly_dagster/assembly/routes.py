"""A declared route made into targets: one for each destination, with its settings, its steps and its templates."""

from collections.abc import Mapping, Sequence

from muxly_dagster.assembly.building import Place, build, parse_step
from muxly_dagster.assembly.parts import Pull, Target, Transform
from muxly_dagster.catalog import Catalog
from muxly_dagster.destination import Destination
from muxly_dagster.errors import Problem
from muxly_dagster.measures import parse_share
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.models import Project, RouteSpec, TargetSpec
from muxly_dagster.project.references import chosen_targets, declared_table
from muxly_dagster.routing import OTHERWISE, Router, Rule, describe, rule_names
from muxly_dagster.transform import Step
from muxly_dagster.transforms.rename import Rename


def route_targets(
    project: Project,
    catalog: Catalog,
    known: Mapping[str, None],
    name: str,
    spec: RouteSpec,
    pulls: Mapping[str, Pull],
    transforms: Mapping[str, Transform],
    destinations: Mapping[str, Destination],
    problems: list[Problem],
) -> dict[str, Target]:
    """The targets of one route by name, as far as it can be resolved; what is wrong with it goes to `problems`."""
    path: Place = ("routes", name)
    table = declared_table(project, known, spec.from_, (*path, "from"), problems)
    chosen = chosen_targets(project, path, spec, problems)
    rules = [Rule(rule.when, _to(rule.to), rule.name, parse_share(rule.sample) if rule.sample else None) for rule in spec.rules] or [
        Rule(None, _to(spec.to))
    ]
    router = Router(rules, _to(spec.otherwise), spec.match)
    pull = pulls.get(table or "")
    _check_rules(project, path, spec, router, pull, problems)
    _check_templates(project, path, spec, destinations, problems)
    steps = _steps(project, path, spec, router, catalog, problems)
    names = rule_names(router.rules)
    templates = {names.get(index, ""): rule.template for index, rule in enumerate(spec.rules) if rule.template}
    if pull is None and table not in transforms:
        return {}
    key = pull.stream.key if pull is not None else transforms[table or ""].key
    connector_id = pull.connector.id if pull is not None else "transform"
    targets: dict[str, Target] = {}
    for destination_name, (at, target) in chosen.items():
        destination = destinations.get(destination_name)
        if destination is not None and target.config:
            config = project.destinations[destination_name].config | target.config
            destination = build(project, at, type(destination), config, problems)
        if destination is not None:
            full = f"{name}.{destination_name}"
            renamed = _key(project, path, key, router, steps, destination_name, destination, problems)
            targets[full] = Target(
                full, name, spec, table or "", renamed, connector_id, destination_name, destination, router, steps, templates
            )
    return targets


def _to(entries: Sequence[TargetSpec]) -> tuple[str, ...]:
    return tuple(entry.destination for entry in entries)


def _check_rules(project: Project, path: Place, spec: RouteSpec, router: Router, pull: Pull | None, problems: list[Problem]) -> None:
    if not spec.rules:
        return
    names = [describe(index, rule) for index, rule in enumerate(router.rules)]
    for index, called in enumerate(names):
        # Receipts, steps and templates go by a rule's name.
        if called in (*names[:index], "otherwise"):
            whose = "what goes by no rule" if called == "otherwise" else f"rule {names.index(called) + 1}"
            at: Place = (*path, "rules", index, *(["name"] if router.rules[index].name else []))
            problems.append(project.problem(at, f"is called {called}, as {whose} is", "give it another name"))
    takes_all = next((i for i, rule in enumerate(router.rules) if _takes_all(rule)), None)
    if takes_all is not None and spec.otherwise:
        problems.append(
            project.problem((*path, "otherwise"), f"is never used: rule {takes_all + 1} takes every record", "remove one of the two")
        )
    if takes_all is not None and spec.match == "first" and takes_all + 1 < len(spec.rules):
        what = f"is never reached: rule {takes_all + 1} before it takes every record"
        problems.append(project.problem((*path, "rules", takes_all + 1), what, "put that rule last, or say `match: all`"))
    # Under `evolve` a declared schema is what is known so far, not all there is: only a closed one can prove a column unknown.
    closed = pull is not None and pull.stream.contract != "evolve"
    for index, message in router.problems(pull.stream.schema if pull is not None and closed else None):
        problems.append(project.problem((*path, "rules", index, "when"), message))


def _takes_all(rule: Rule) -> bool:
    return rule.sample is None and (rule.when is None or rule.when.strip().lower() == "true")


def _steps(
    project: Project, path: Place, spec: RouteSpec, router: Router, catalog: Catalog, problems: list[Problem]
) -> dict[str, tuple[Step, ...]]:
    """What is done to the records of each rule on their way, by the rule's name: the route's steps, then the rule's own."""

    def parsed(at: Place, steps: Sequence[Mapping[str, object]]) -> tuple[Step, ...]:
        found = [parse_step(project, (*at, number), *next(iter(step.items())), catalog, problems) for number, step in enumerate(steps)]
        return tuple(step for step in found if step is not None)

    everybodys, names = parsed((*path, "steps"), spec.steps), rule_names(router.rules)
    own = {index: parsed((*path, "rules", index, "steps"), rule.steps) for index, rule in enumerate(spec.rules)}
    found = {names.get(index, ""): everybodys + own.get(index, ()) for index in (*range(len(router.rules)), OTHERWISE)}
    return {name: steps for name, steps in found.items() if steps}


def _key(
    project: Project,
    path: Place,
    key: tuple[str, ...],
    router: Router,
    steps: Mapping[str, tuple[Step, ...]],
    destination_name: str,
    destination: Destination,
    problems: list[Problem],
) -> tuple[str, ...]:
    """What the key's columns are called where they arrive; a problem where rules call them differently and one table must hold both."""
    names = rule_names(router.rules)
    sending = [index for index, rule in enumerate(router.rules) if destination_name in rule.to]
    sending += [OTHERWISE] if destination_name in router.otherwise else []
    arriving = {index: _renamed(key, steps.get(names.get(index, ""), ())) for index in sending}
    first = arriving[sending[0]]
    for index, other in arriving.items():
        if other != first and destination.bulk:
            at: Place = (*path, "otherwise") if index == OTHERWISE else (*path, "rules", index)
            what = f"calls the key {', '.join(other)} at {destination_name}, where an earlier rule calls it {', '.join(first)}"
            problems.append(project.problem(at, what, "rename the key in `steps` of the route, which every rule goes through"))
            break
    return first


def _renamed(key: tuple[str, ...], steps: Sequence[Step]) -> tuple[str, ...]:
    """The key's columns behind these steps."""
    for step in steps:
        if isinstance(step, Rename):
            key = tuple(step.columns.get(column, column) for column in key)
    return key


def _check_templates(
    project: Project, path: Place, spec: RouteSpec, destinations: Mapping[str, Destination], problems: list[Problem]
) -> None:
    """A problem for every template of a rule that none of its destinations has, or that is none."""
    for index, rule in enumerate(spec.rules):
        reached = {entry.destination: destinations[entry.destination] for entry in rule.to if entry.destination in destinations}
        known = [name for destination in reached.values() for name in destination.templates]
        for name, said in rule.template.items() if len(reached) == len(rule.to) else ():
            at: Place = (*path, "rules", index, "template")
            if name not in known:
                what = f"no destination of this rule has a template {name}"
                problems.append(project.problem((*at, name), what, did_you_mean(name, known) or "leave it out"))
            for reached_name, destination in reached.items():
                if name in destination.templates:
                    build(project, at, type(destination), project.destinations[reached_name].config | {name: said}, problems)
