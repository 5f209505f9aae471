"""The JSON Schema: takes what Muxly takes, refuses what editors can see is wrong."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from muxly_dagster import catalog
from muxly_dagster.assembly import load_assembly
from muxly_dagster.project.schema import Schema, project_schema
from muxly_dagster_tests.project.shelf import Shelf, write

SCHEMA = project_schema(connectors=Shelf.connectors, destinations=Shelf.destinations, steps=Shelf.steps)
ANNOTATIONS = {"title", "description", "default", "examples", "format", "writeOnly", "deprecated", "$defs", "$schema"}
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def mistakes(value: Any, schema: Any, root: Schema, path: str = "$") -> list[str]:
    """What a JSON Schema (2020-12) says against a value; an unknown keyword is an error of the schema."""
    if isinstance(schema, bool):
        return [] if schema else [f"{path}: nothing may stand here"]
    found: list[str] = []
    for keyword, said in schema.items():
        if keyword == "$ref":
            found += mistakes(value, root["$defs"][said.removeprefix("#/$defs/")], root, path)
        elif keyword == "type":
            if not any(_is(value, kind) for kind in ([said] if isinstance(said, str) else said)):
                found.append(f"{path}: is not {said}")
        elif keyword == "enum":
            found += [] if value in said else [f"{path}: is none of {said}"]
        elif keyword == "const":
            found += [] if value == said else [f"{path}: is not {said}"]
        elif keyword == "anyOf":
            found += [] if any(not mistakes(value, part, root) for part in said) else [f"{path}: matches none of {said}"]
        elif keyword == "allOf":
            found += [mistake for part in said for mistake in mistakes(value, part, root, path)]
        elif keyword == "if":
            if not mistakes(value, said, root):
                found += mistakes(value, schema.get("then", True), root, path)
        elif keyword == "pattern":
            found += [] if not isinstance(value, str) or re.search(said, value) else [f"{path}: does not match {said}"]
        elif keyword in ("minimum", "maximum", "exclusiveMinimum"):
            if isinstance(value, int | float):
                fits = {"minimum": value >= said, "maximum": value <= said, "exclusiveMinimum": value > said}[keyword]
                found += [] if fits else [f"{path}: {keyword} {said}"]
        elif keyword in ("minItems", "minProperties", "minLength"):
            kind = {"minItems": list, "minProperties": dict, "minLength": str}[keyword]
            found += [] if not isinstance(value, kind) or len(value) >= said else [f"{path}: {keyword} {said}"]
        elif keyword == "required":
            found += [f"{path}: {name} is missing" for name in said if isinstance(value, dict) and name not in value]
        elif keyword == "propertyNames":
            found += [m for name in (value if isinstance(value, dict) else ()) for m in mistakes(name, said, root, path)]
        elif keyword == "items":
            found += [
                m for i, item in enumerate(value if isinstance(value, list) else ()) for m in mistakes(item, said, root, f"{path}[{i}]")
            ]
        elif keyword in ("properties", "additionalProperties"):
            continue
        elif keyword != "then" and keyword not in ANNOTATIONS:
            raise AssertionError(f"this check does not know the keyword {keyword}")
    if isinstance(value, dict):
        for name, item in value.items():
            below = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
            found += mistakes(item, below, root, f"{path}.{name}")
    return found


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        return isinstance(value, int | float) and not isinstance(value, bool) and (kind == "number" or value == int(value))
    return isinstance(value, TYPES[kind])


GOOD = [
    "",
    "sources:",
    "sources: {a: {connector: crm_api}}",
    "sources: {a: {connector: crm_api, pulls: [x, y]}}",
    "sources: {a: {connector: crm_api, pulls: {x: , y: {page: 5, properties: [a]}}}}",
    "sources: {a: {connector: crm_api, pages: '5', gently: 'yes', region: '${REGION:-eu}', auth: {kind: bearer, token: x}}}",
    "sources: {a: {connector: crm_api, pages: '${PAGES:-5}', gently: '${ON:-on}', auth: {kind: '${KIND:-none}'}}}",
    "{destinations: {b: {type: box, size: 3}}, sources: {a: {connector: crm_api, pulls: [x]}}, routes: {r: {from: a.x, to: b}}}",
    "{destinations: {b: {type: box}}, sources: {a: {connector: crm_api, pulls: [x]}}, routes: {r: {from: a.x, to: [{b: {size: 3}}]}}}",
    "{destinations: {b: {type: box}}, sources: {a: {connector: crm_api, pulls: [x]}}, routes: {r: {from: a.x, to: {b: }}}}",
    "{destinations: {b: {type: box}}, sources: {a: {connector: crm_api, pulls: [x]}}, "
    "routes: {r: {from: a.x, match: all, rules: [{when: z, to: b}, {name: n, when: y, to: [b]}], otherwise: b}}}",
    "{destinations: {b: {type: box}}, sources: {a: {connector: crm_api, pulls: [x]}}, routes: {r: {from: a.x, steps: [limit, keep: [a]], "
    "rules: [{when: z, to: b, sample: 10%, steps: [limit: {rows: '3'}], template: {}}, {to: b, sample: 0.5}]}}}",
    "{transforms: {t: {sql: select 1, key: id, freshness: 1d}}, jobs: {j: {select: t, cron: '@daily', enabled: 'no'}}}",
    "{sources: {a: {connector: crm_api, pulls: [x]}}, transforms: {t: {from: a.x, steps: [limit, keep: [a], limit: {rows: '3'}]}}}",
    "{sources: {a: {connector: crm_api, pulls: [x]}}, transforms: {t: {from: [a.x], python: 'm:f'}}, retention_days: '7'}",
]
BAD = [
    "surprise: 1",
    "name: [a]",
    "sources: {A: {connector: crm_api}}",
    "sources: {a: {connector: crm_apy}}",
    "sources: {a: {pulls: [x]}}",
    "sources: {a: {connector: crm_api, regoin: eu}}",
    "sources: {a: {connector: crm_api, region: asia}}",
    "sources: {a: {connector: crm_api, pages: many}}",
    "sources: {a: {connector: crm_api, auth: {kind: bearer, tokn: x}}}",
    "sources: {a: {connector: crm_api, pulls: {x: {pge: 5}}}}",
    "destinations: {b: {type: bux}}",
    "destinations: {b: {type: box, sise: 3}}",
    "routes: {r: {to: b}}",
    "routes: {r: {from: a.x, to: 5}}",
    "routes: {r: {from: a.x, rules: [{whn: z, to: b}]}}",
    "routes: {r: {from: a.x, to: b, steps: [limt]}}",
    "routes: {r: {from: a.x, to: b, steps: [limit: {rws: 3}]}}",
    "routes: {r: {from: a.x, to: b, steps: [{limit: , keep: [a]}]}}",
    "routes: {r: {from: a.x, rules: [{when: z, to: b, steps: [limit: {rws: 3}]}]}}",
    "routes: {r: {from: a.x, rules: [{when: z, to: b, template: [text]}]}}",
    "transforms: {t: {sql: 5}}",
    "transforms: {t: {from: a.x, steps: [limt]}}",
    "transforms: {t: {from: a.x, steps: [limit: {rws: 3}]}}",
    "jobs: {j: {select: [], cron: 5}}",
    "jobs: {j: {cron: '@daily'}}",
    "retention_days: 0",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_muxly_takes_the_schema_takes(tmp_path: Path, text: str) -> None:
    load_assembly(write(tmp_path, text=text), {}, Shelf())
    assert mistakes(yaml.safe_load(text) or {}, SCHEMA, SCHEMA) == []


@pytest.mark.parametrize("text", BAD)
def test_what_the_schema_refuses_muxly_refuses(tmp_path: Path, text: str) -> None:
    assert mistakes(yaml.safe_load(text), SCHEMA, SCHEMA)
    with pytest.raises(Exception, match=r"muxly\.yaml"):
        load_assembly(write(tmp_path, text=text), {}, Shelf())


def test_a_source_of_a_manifest_may_have_any_fields() -> None:
    assert mistakes({"sources": {"a": {"connector": "./things.yaml", "whatever": 1}}}, SCHEMA, SCHEMA) == []


def test_editors_see_descriptions_and_defaults() -> None:
    text = json.dumps(SCHEMA)
    assert "The properties to read." in text
    assert "A SQL condition over the record's columns" in text
    assert SCHEMA["properties"]["retention_days"]["default"] == 30


def test_the_schema_of_everything_built_in_holds_together() -> None:
    schema = catalog.schema()
    named = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    assert named == set(schema["$defs"])
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    project = {
        "sources": {"db": {"connector": "sql", "url": "sqlite:///x.db", "pulls": ["people"]}},
        "destinations": {"out": {"type": "file", "path": "x"}},
    }
    assert mistakes(project, schema, schema) == []
    assert mistakes({"destinations": {"out": {"type": "file", "pth": "x"}}}, schema, schema)


def test_steps_are_offered_wherever_there_may_be_steps() -> None:
    schema = catalog.schema()
    routes = {"from": "a.x", "steps": [{"rename": {"a": "b"}}, {"drop": "c"}], "rules": [{"to": "out", "steps": [{"mask": {"a": "hash"}}]}]}
    assert mistakes({"routes": {"r": routes}}, schema, schema) == []
    for wrong in ({"steps": [{"renam": {"a": "b"}}]}, {"rules": [{"to": "out", "steps": [{"mask": {"a": "paint"}}]}]}):
        assert mistakes({"routes": {"r": routes | wrong}}, schema, schema)
    places = [schema["$defs"][name]["properties"]["steps"] for name in ("transforms", "routes", "rule")]
    assert [place["items"] for place in places] == [{"$ref": "#/$defs/step"}] * 3
