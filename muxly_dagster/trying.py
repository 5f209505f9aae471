"""Whether the sources and destinations of a project can be reached, in words that commands and the API share."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from muxly_dagster.assembly import Assembly, Pull
from muxly_dagster.connector import Connector, Metadata
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.resource import CheckResult


def source_named(assembly: Assembly, name: str) -> Connector:
    """The source. Raises ConfigurationError where the project has none of that name."""
    if name not in assembly.sources:
        raise ConfigurationError(f"there is no source named {name}", do=did_you_mean(name, assembly.sources) or "declare one in muxly.yaml")
    return assembly.sources[name]


def try_source(assembly: Assembly, name: str) -> tuple[dict[str, CheckResult], Metadata]:
    """Sign in, ask about the account, look at every pull of the source; results by what was looked at, and what the account said.

    Raises ConfigurationError for a name that is no source.
    """
    source = source_named(assembly, name)
    checks = {f"source {name}": try_out(source)}
    found = Metadata()
    if checks[f"source {name}"].status == "ok":
        try:
            found = source.metadata()
        except MuxlyError as error:
            checks["account"] = CheckResult("failed", "ask about the account", error.what, error.do)
        checks |= {f"pull {pull.name}": check_pull(pull) for pull in assembly.pulls.values() if pull.source == name}
    return checks, found


def try_destination(assembly: Assembly, name: str) -> dict[str, CheckResult]:
    """Try the destination, as it is declared and as routes have it. Raises ConfigurationError for a name that is none."""
    return {what: try_out(destination) for what, destination in _ways(assembly, name).items()}


def try_out(thing: Connector | Destination) -> CheckResult:
    """Whether it can be reached; what it raises is a result too."""
    try:
        return thing.check() if isinstance(thing, Destination) else thing.test_connection()
    except MuxlyError as error:
        return CheckResult("failed", "connect", error.what, error.do)


def check_pull(pull: Pull) -> CheckResult:
    """What the provider finds wrong with a pull's settings."""
    tried = "look at its settings"
    try:
        wrong = pull.connector.check_pull(pull.settings)
    except MuxlyError as error:
        return CheckResult("failed", tried, error.what, error.do)
    return CheckResult("failed", tried, "; ".join(wrong), "correct the pull in muxly.yaml") if wrong else CheckResult("ok", tried)


def plain(checks: Mapping[str, CheckResult]) -> dict[str, Any]:
    """The results as JSON values; the status is failed where one of them is."""
    failed = any(result.status == "failed" for result in checks.values())
    return {"status": "failed" if failed else "ok", "checks": [{"name": what} | asdict(result) for what, result in checks.items()]}


def plain_metadata(found: Metadata) -> dict[str, Any]:
    """What an account said, as JSON values."""
    sunset = found.sunset.isoformat() if found.sunset else None
    return {
        "account": found.account,
        "api_version": found.api_version,
        "sunset": sunset,
        "limits": list(found.limits),
        "details": dict(found.details),
    }


def _ways(assembly: Assembly, name: str) -> dict[str, Destination]:
    """The destination as it is declared, and as each route has it that says something else of it."""
    if name not in assembly.destinations:
        nearest = did_you_mean(name, assembly.destinations)
        raise ConfigurationError(f"there is no destination named {name}", do=nearest or "declare one in muxly.yaml")
    declared = assembly.destinations[name]
    targets = [target for target in assembly.targets.values() if target.destination_name == name]
    # Field by field: two objects that say the same need only one look.
    others = {f"delivery {target.name}": target.destination for target in targets if dict(target.destination) != dict(declared)}
    return {f"destination {name}": declared} | others
