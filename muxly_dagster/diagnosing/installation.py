"""Python, the packages, and whether their versions belong together."""

import platform
import sqlite3
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import Version

from muxly_dagster.diagnosing.finding import Finding

_SHOWN = ("muxly-dagster", "dagster", "duckdb", "deltalake", "pyarrow")
_CORE = ("dagster", "dagster-webserver", "dagster-graphql", "dagster-pipes", "dagster-shared")
_LIBRARIES = ("dagster-aws", "dagster-gcp", "dagster-postgres", "dagster-slack")
_OLDEST_SQLITE = (3, 35, 0)


def look() -> Sequence[Finding]:
    """Python and the packages. A combination that is known not to work is a failure, with what to install."""
    name = "python and packages"
    found = ", ".join([f"python {platform.python_version()}", *(f"{package} {version(package)}" for package in _SHOWN)])
    wrong = [*_python(), *unmet(requires("muxly-dagster") or ()), *_of_one_family(), *_sqlite()]
    if wrong:
        return [Finding(name, "failed", "; ".join(wrong), "install again what requirements.lock pins: in a clone, `make setup`")]
    return [Finding(name, "ok", found)]


def _python() -> list[str]:
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return []
    return [f"this is Python {platform.python_version()}, and Muxly runs on 3.11 to 3.13"]


def unmet(wanted: Sequence[str]) -> list[str]:
    """What is wanted (PEP 508) and not there, or not in that version."""
    wrong = []
    for text in wanted:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{requirement.name} is {there}, and {requirement.specifier} is needed")
    return wrong


def _of_one_family() -> list[str]:
    """Dagster's packages are released together and work in the same version only; its libraries are 0.16 minor versions behind 1.x."""
    core = Version(version("dagster"))
    expected = {**dict.fromkeys(_CORE, str(core)), **dict.fromkeys(_LIBRARIES, f"0.{core.minor + 16}.{core.micro}")}
    return [
        f"{package} is {there}, and {expected[package]} goes with dagster {core}"
        for package in expected
        if (there := _there(package)) is not None and Version(there).release != Version(expected[package]).release
    ]


def _there(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sqlite() -> list[str]:
    if sqlite3.sqlite_version_info >= _OLDEST_SQLITE:
        return []
    return [f"SQLite is {sqlite3.sqlite_version}, and 3.35 is needed"]
