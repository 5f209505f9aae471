"""The user's own mistakes: found before anything runs, all at once, each with its place and what to do; never a traceback."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.bad_input.shop import TOKEN, Shop, without_secrets


@dataclass(frozen=True)
class Mistake:
    """What is changed in which file (None: in the environment), and what has to be said about it."""

    file: str | None
    old: str
    new: str
    told: tuple[str, ...]


MISTAKES = {
    "wrong YAML": Mistake("muxly.yaml", "routes:", "routes: [", ("muxly.yaml:", "YAML")),
    "a tab in YAML": Mistake("muxly.yaml", "  shop:", "\tshop:", ("muxly.yaml:2:",)),
    "no mapping": Mistake("muxly.yaml", "sources:", "- sources:", ("muxly.yaml:",)),
    "a key that stands twice": Mistake("muxly.yaml", "destinations:", "routes: {}\ndestinations:", ("muxly.yaml:", "routes", "twice")),
    "an unknown key": Mistake("muxly.yaml", "destinations:", "destinatons:", ("muxly.yaml:", "did you mean destinations")),
    "an unknown key of a source": Mistake(
        "muxly.yaml", "    auth:", "    atuh:", ("muxly.yaml:", "sources.shop.atuh", "did you mean auth")
    ),
    "an unknown key of a destination": Mistake(
        "muxly.yaml", "mode: append", "mod: append", ("destinations.warehouse.mod", "did you mean mode")
    ),
    "an unknown stream": Mistake("muxly.yaml", "- things", "- thing", ("sources.shop.pulls.thing", "did you mean `things`")),
    "an unknown connector": Mistake("muxly.yaml", "./shop.yaml", "hubspt", ("sources.shop.connector", "hubspt")),
    "a manifest that is not there": Mistake("muxly.yaml", "./shop.yaml", "./shops.yaml", ("sources.shop.connector", "shops.yaml")),
    "an unknown destination": Mistake("muxly.yaml", "- warehouse", "- warehous", ("routes.out", "did you mean warehouse")),
    "an unknown table": Mistake("muxly.yaml", "from: shop.things", "from: shop.thigns", ("routes.out.from", "did you mean shop.things")),
    "a missing variable": Mistake(
        None,
        "SHOP_TOKEN",
        "",
        ("muxly.yaml:", "sources.shop.auth.token", "needs the environment variable SHOP_TOKEN", "set SHOP_TOKEN, or give a default"),
    ),
    "a wrong address": Mistake(None, "WAREHOUSE_URL", f"me:{TOKEN}@db/x", ("destinations.warehouse.url", "must start with postgresql://")),
    "wrong YAML in a manifest": Mistake("shop.yaml", "streams:", "streams: {", ("shop.yaml:", "YAML")),
    "an unknown key in a manifest": Mistake(
        "shop.yaml", "    records:", "    record:", ("shop.yaml:", "streams.things.record", "did you mean")
    ),
    "a JSONPath that is none": Mistake("shop.yaml", "$.results", "$.results[", ("shop.yaml:", "streams.things.records", "is no JSONPath")),
    "plain HTTP to the world": Mistake("shop.yaml", "http://127.0.0.1", "http://example.com", ("shop.yaml:", "base_url")),
}


def make(shop: Shop, mistake: Mistake) -> None:
    """Put the mistake into the project."""
    if mistake.file is None:
        shop.environ.pop(mistake.old)
        if mistake.new:
            shop.environ[mistake.old] = mistake.new
        return
    text = (shop.folder / mistake.file).read_text()
    assert mistake.old in text
    shop.write(mistake.file, text.replace(mistake.old, mistake.new, 1))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_before_anything_runs(shop: Shop, name: str) -> None:
    make(shop, MISTAKES[name])
    with pytest.raises(ConfigurationError) as caught:
        shop.open()
    message = str(without_secrets(caught.value))
    assert [part for part in MISTAKES[name].told if part not in message] == [], message
    assert not (shop.folder / ".muxly").exists()


def test_all_mistakes_are_told_at_once(shop: Shop) -> None:
    for name in ("a missing variable", "an unknown key of a destination", "an unknown table"):
        make(shop, MISTAKES[name])
    with pytest.raises(ConfigurationError) as caught:
        shop.open()
    assert len(caught.value.problems) == 3
    assert all(problem.file and problem.line and problem.do for problem in caught.value.problems)


_CHILD = """
import json, os, sys
from muxly_dagster.cli import main

for environ, arguments in json.load(sys.stdin):
    os.environ.update(environ)
    sys.argv = ["muxly", *arguments]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    sys.stdout.flush(), sys.stderr.flush()
    print(f"\\n=== {json.dumps(code)}", file=sys.stderr, flush=True)
    for name in environ:
        del os.environ[name]
"""


def test_the_command_says_it_without_a_traceback_and_exits_with_2(tmp_path: Path) -> None:
    """One child process for all of them: starting Python is what costs."""
    calls: list[tuple[dict[str, str], list[str]]] = []
    for number, mistake in enumerate(MISTAKES.values()):
        (folder := tmp_path / str(number)).mkdir()
        shop = Shop(folder, "http://127.0.0.1:9", None, f"sqlite:///{folder}/warehouse.db")  # type: ignore[arg-type]
        make(shop, mistake)
        environ = shop.environ | {"MUXLY_PROJECT": str(folder)}
        calls += [(environ, ["check", "--offline"]), (environ, ["run", "shop"])]
    (folder := tmp_path / "fine").mkdir()
    good = Shop(folder, "http://127.0.0.1:9", None, f"sqlite:///{folder}/warehouse.db")  # type: ignore[arg-type]
    environ = good.environ | {"MUXLY_PROJECT": str(folder)}
    usage = [["run", "shp"], ["run"], ["rn", "shop"], ["preview", "nothing"], ["query", "selec 1"], ["dead-letters", "show", "nope"]]
    calls += [(environ, arguments) for arguments in usage]
    calls.append(({"MUXLY_PROJECT": str(tmp_path / "nowhere")}, ["check"]))
    child = subprocess.run([sys.executable, "-c", _CHILD], input=json.dumps(calls), capture_output=True, text=True, timeout=120)
    told = child.stderr.split("\n=== ")
    codes = [json.loads(part.splitlines()[0]) for part in told[1:]]
    assert len(codes) == len(calls), child.stderr
    assert [(call[1], call[0]["MUXLY_PROJECT"], part) for call, code, part in zip(calls, codes, told, strict=False) if code != 2] == []
    assert "Traceback" not in child.stderr + child.stdout
    assert TOKEN not in child.stderr + child.stdout
