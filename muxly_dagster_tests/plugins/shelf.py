"""Plugins for tests: distributions that are installed as a wheel would be, and files in a folder of a project."""

import itertools
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

_count = itertools.count()

CONNECTOR = """
from collections.abc import Iterator
from typing import Any, ClassVar
from muxly_dagster.connector import Batch, Connector, PullSettings, Stream
from muxly_dagster.resource import CheckResult

class {name}(Connector):
    id: ClassVar[str] = "{id}"
    title: ClassVar[str] = "{name}"
    pages: int = 1

    def stream(self, pull: PullSettings) -> Stream:
        return Stream(pull.stream, ("id",))

    def pull(self, pull: PullSettings, cursor: Any, known: Any) -> Iterator[Batch]:
        yield from ()

    def test_connection(self) -> CheckResult:
        return CheckResult("ok", "nothing")
"""

MANIFEST = """
muxly: 1
id: {id}
version: 3.1.0
author: Grace
title: Tickets
hosts: [127.0.0.1]
base_url: http://127.0.0.1:1
streams: {{tickets: {{request: {{path: /tickets}}, key: [id]}}}}
"""


def connector(id: str, name: str = "Billing") -> str:
    """The code of a connector that finds nothing."""
    return CONNECTOR.format(id=id, name=name)


def local(id: str, *, header: str = 'version="0.3", author="Ada"') -> str:
    """The code of a plugin in a project's folder."""
    return f"from muxly_dagster.plugins import Plugin\n{connector(id)}\nplugin = Plugin({header}, connectors=[Billing])\n"


def write(path: Path, text: str) -> Path:
    """A file with this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), "utf-8")
    return path


class Shelf:
    """A folder on the module search path into which distributions are installed. Modules get names of their own in every test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.prefix = f"acme_{next(_count)}_{folder.parent.name.replace('-', '_')}"

    def install(
        self,
        name: str,
        code: str,
        entries: Mapping[str, str],
        *,
        version: str = "1.2.0",
        author: str = "Ada Lovelace <ada@acme.example>",
        requires: str = "muxly-dagster>=0.1",
    ) -> None:
        """A distribution with one module of this code; `entries` are attributes by `GROUP/ID`."""
        module = f"{self.prefix}_{name.replace('-', '_')}"
        write(self.folder / f"{module}.py", code)
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nAuthor-email: {author}\n"
        write(info / "METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        groups: dict[str, list[str]] = {}
        for place, attribute in entries.items():
            group, _, id = place.partition("/")
            groups.setdefault(group, []).append(f"{id} = {module}:{attribute}")
        write(info / "entry_points.txt", "\n".join("\n".join([f"[muxly.{group}]", *lines]) for group, lines in groups.items()) + "\n")

    def imported(self) -> list[str]:
        """The modules of the shelf that somebody has imported."""
        return [name for name in sys.modules if name.startswith(self.prefix)]
