"""What the manifest tests share: a manifest written to a file, made into a connector of a server on loopback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from muxly_dagster.connector import Batch, Connector
from muxly_dagster.manifest.connector import load_manifest

Make = Callable[..., Connector]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a connector: `make(url, stream={...}, fields={...}, **top)` has one stream, `things`, and those of `more`."""

    def build(
        url: str, stream: dict[str, Any], fields: dict[str, Any] | None = None, more: dict[str, Any] | None = None, **top: Any
    ) -> Connector:
        spec = {"request": {"path": "/things"}, "records": "$.results", "key": ["id"], **stream}
        manifest = {"muxly": 1, "id": "shop", "version": "1.0.0", "title": "Shop", "hosts": ["127.0.0.1"], "base_url": url}
        path = tmp_path / "shop.yaml"
        path.write_text(yaml.safe_dump({**manifest, **top, "streams": {"things": spec, **(more or {})}}))
        return load_manifest(path)(**(fields or {}))

    return build


def pull(connector: Connector, cursor: Any = None) -> list[Batch]:
    """Every batch of the stream."""
    return list(connector.pull(connector.Pull(stream="things"), cursor, None))


def ids(batches: list[Batch]) -> list[Any]:
    """The ids of the records read, in order."""
    return [value for batch in batches if "id" in batch.rows.column_names for value in batch.rows["id"].to_pylist()]
