"""Which assets a pattern means, and what they need: the assembly as a graph."""

from collections.abc import Sequence

from muxly_dagster.assembly.parts import Assembly
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.selection import Names, Selection


def select(assembly: Assembly, patterns: Sequence[str]) -> list[str]:
    """The assets that the patterns name, in an order in which they can run: pulls, transforms, deliveries.

    A pattern is a source, a pull, a transform, a route, a `route.destination`, a job or `*`; `+name` adds what it needs, `name+` what
    follows from it (`2+name`: two steps far). Raises ConfigurationError, with the nearest name, for one that is not there.
    """
    return _selection(assembly).select(patterns)


def parents(assembly: Assembly, name: str) -> tuple[str, ...]:
    """The tables that an asset reads."""
    if name in assembly.transforms:
        return assembly.transforms[name].inputs
    return (assembly.targets[name].table,) if name in assembly.targets else ()


def upstream(assembly: Assembly, name: str) -> list[str]:
    """All that an asset needs, directly or not, in an order in which it can run; without the asset itself."""
    return [asset for asset in _selection(assembly).select([f"+{name}"]) if asset != name]


def table_named(assembly: Assembly, said: str) -> str:
    """The pull or transform whose table is meant; letter case does not count in SQL. Raises ConfigurationError when there is none."""
    name = said.lower().replace("/", ".")
    if name not in assembly.pulls and name not in assembly.transforms:
        nearest = did_you_mean(said, [*assembly.pulls, *assembly.transforms])
        raise ConfigurationError(f"there is no table {said}", do=nearest or "declare a source with a pull first")
    return name


def _selection(assembly: Assembly) -> Selection:
    names = [*assembly.pulls, *assembly.transforms, *assembly.targets]
    groups: Names = {source: [] for source in assembly.sources}
    for pull in assembly.pulls.values():
        groups[pull.source].append(pull.name)
    for target in assembly.targets.values():
        groups.setdefault(target.route, []).append(target.name)
    jobs = {name: list(job.select) for name, job in assembly.jobs.items()}
    return Selection({name: parents(assembly, name) for name in names}, groups, jobs)
