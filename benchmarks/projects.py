"""The projects that are measured, written into a folder."""

import json
from pathlib import Path

_MANIFEST = """\
muxly: 1
id: bench
version: 1.0.0
title: Bench
hosts: [127.0.0.1]
base_url: http://127.0.0.1:1
auth: [none]
limits: [{concurrency: 16}]
streams:
  contacts:
    request: {path: /contacts}
    records: $.results
    key: [id]
    flatten: [properties]
    paging: {kind: cursor, next: $.paging.next.after, into: query.after, size: [query.limit, 100]}
    sync: {kind: full}
  numbered:
    request: {path: /offset}
    records: $.results
    key: [id]
    flatten: [properties]
    paging: {kind: offset, into: query.offset, size: [query.limit, 100], total: $.total}
    sync: {kind: full}
"""


def contacts(folder: Path, url: str, warehouse: str = "sqlite:///unused.db") -> dict[str, str]:
    """One source with contacts in two ways of paging, one route to a database; the environment that selects it."""
    (folder / "bench.yaml").write_text(_MANIFEST)
    project = {
        "sources": {"bench": {"connector": "./bench.yaml", "base_url": url, "pulls": ["contacts", "numbered"]}},
        "routes": {"out": {"from": "bench.contacts", "to": "warehouse"}},
        "destinations": {"warehouse": {"type": "database", "url": warehouse, "mode": "upsert"}},
    }
    (folder / "muxly.yaml").write_text(json.dumps(project))
    return {"MUXLY_PROJECT": str(folder / "muxly.yaml")}


def many(folder: Path, count: int) -> dict[str, str]:
    """So many pulls, and as many routes with a rule each."""
    (folder / "bench.yaml").write_text(_MANIFEST)
    pulls = {f"p{n}": {"stream": "contacts"} for n in range(count // 10)}
    project = {
        "sources": {f"s{n}": {"connector": "./bench.yaml", "pulls": pulls} for n in range(10)},
        "routes": {
            f"r{n}": {"from": f"s{n % 10}.p{n // 10}", "rules": [{"when": f"score > {n} and city = 'Berlin'", "to": "files"}]}
            for n in range(count)
        },
        "destinations": {"files": {"type": "file", "path": str(folder / "out")}},
    }
    (folder / "muxly.yaml").write_text(json.dumps(project))
    return {"MUXLY_PROJECT": str(folder / "muxly.yaml")}


def one_down(folder: Path, count: int) -> dict[str, str]:
    """So many records that go to files and to a webhook where nobody listens."""
    (folder / "data").mkdir()
    lines = "".join(f"{n},customer {n % 997},{n * 7 % 100_000}\n" for n in range(count))
    (folder / "data" / "orders.csv").write_text(f"id,customer,amount\n{lines}")
    project = {
        "sources": {"shop": {"connector": "files", "path": "./data", "pulls": {"orders": {"glob": "orders.csv", "key": ["id"]}}}},
        "routes": {"out": {"from": "shop.orders", "to": ["hook", "archive"]}},
        "destinations": {
            "hook": {"type": "webhook", "url": "http://127.0.0.1:1/hook", "allow_private": True, "retries": {"attempts": 1}},
            "archive": {"type": "file", "path": "./archive", "format": "ndjson"},
        },
    }
    (folder / "muxly.yaml").write_text(json.dumps(project))
    return {"MUXLY_PROJECT": str(folder / "muxly.yaml")}
