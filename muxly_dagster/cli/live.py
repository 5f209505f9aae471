"""What a source of the project says when its provider is asked: test, streams, act."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
import typer

from muxly_dagster import trying
from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.cli import opening, terminal
from muxly_dagster.cli.declared import print_streams
from muxly_dagster.connector import Action, Metadata
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.parse import parse_text, scalar
from muxly_dagster.sheet import stream_sheet


def test(name: str, *, json: bool) -> None:
    """Sign in, ask about the account, look at every pull of the source; exit with 1 if one of these failed."""
    with opening.state_of(_assembly()) as assembly:
        checks, found = trying.try_source(assembly, name)
    told = trying.plain(checks) | {"metadata": trying.plain_metadata(found)}
    if json:
        terminal.print_json(told)
    else:
        terminal.print_checks((what, r.status, f"{r.tried}: {r.what}" if r.what else r.tried, r.do) for what, r in checks.items())
        _tell(found)
    if told["status"] == "failed":
        raise typer.Exit(1)


def streams(name: str, *, json: bool) -> None:
    """The streams that the source finds."""
    with opening.state_of(_assembly()) as assembly:
        found = [stream_sheet(stream) for stream in trying.source_named(assembly, name).streams()]
    if json:
        terminal.print_json([asdict(stream) for stream in found])
    elif found:
        print_streams(found)
    else:
        terminal.say(f"{name}: no streams found")


def act(name: str, action: str, inputs: Sequence[str], document: str, *, json: bool) -> None:
    """Do the action and print the provider's answer; list the actions where none is named."""
    source = trying.source_named(_assembly(), name)
    actions = {each.name: each for each in source.actions()}
    if not action:
        _list_actions(name, list(actions.values()), json=json)
        return
    if action not in actions:
        raise ConfigurationError(f"{name} has no action {action!r}", do=did_you_mean(action, actions))
    answer = source.act(action, _inputs(actions[action], inputs, document))
    if json or not isinstance(answer, str):
        terminal.print_json(answer)
    else:
        terminal.print_text(answer)


def _assembly() -> Assembly:
    settings = opening.settings()
    return load_assembly(settings.project, os.environ, home=settings.home)


def _tell(found: Metadata) -> None:
    said = {"account": found.account, "API version": found.api_version, "ends on": found.sunset, "limits": "\n".join(found.limits)}
    rows = [[name, str(value)] for name, value in {**said, **found.details}.items() if value not in (None, "")]
    if rows:
        terminal.print_grid(rows)


# ---- actions ---------------------------------------------------------------------------------------------------------


def _list_actions(name: str, actions: Sequence[Action], *, json: bool) -> None:
    if json:
        terminal.print_json([{"name": each.name, "title": each.title, "inputs": dict(each.inputs)} for each in actions])
    elif actions:
        terminal.print_table(["action", "does", "inputs"], [[each.name, each.title, _inputs_in_words(each)] for each in actions])
    else:
        terminal.say(f"{name} has no actions")


def _inputs_in_words(action: Action) -> str:
    required = action.inputs.get("required", ())
    return ", ".join(name if name in required else f"[{name}]" for name in action.inputs.get("properties", {}))


def _inputs(action: Action, said: Sequence[str], document: str) -> dict[str, Any]:
    """The inputs of `--input`, with those that are said one by one over them."""
    inputs: dict[str, Any] = {}
    if document:
        try:
            read = orjson.loads(sys.stdin.buffer.read() if document == "-" else document)
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(f"--input is not JSON: {error}", do='write an object, such as \'{"to": "ada@example.com"}\'') from None
        if not isinstance(read, dict):
            raise ConfigurationError("--input is no JSON object", do='write one, such as \'{"to": "ada@example.com"}\'')
        inputs |= read
    properties: Mapping[str, Any] = action.inputs.get("properties", {})
    for name, text in pairs(said).items():
        inputs[name] = text if properties.get(name, {}).get("type") == "string" else value(text)
    return inputs


def pairs(said: Sequence[str]) -> dict[str, str]:
    """`name=value` arguments by name. Raises ConfigurationError for one that is none."""
    found: dict[str, str] = {}
    for each in said:
        name, equals, text = each.partition("=")
        if not name or not equals:
            # What stands there may be a value that went astray, so it is not repeated.
            raise ConfigurationError("an argument is not written NAME=VALUE", do="put values with spaces in quotes: note='two words'")
        found[name] = text
    return found


def value(text: str) -> Any:
    """An argument's value: YAML where it is a map, a list, a number or a truth, else the text as it stands."""
    if not text.startswith(("[", "{")):
        return scalar(text)
    try:
        return parse_text(f"value: {text}", ".yaml", "").plain()["value"]
    except ConfigurationError:
        return text
