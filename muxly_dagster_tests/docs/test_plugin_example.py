"""The example plugin: installed as anybody would, listed, checked and run; its own tests pass."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster_tests.cli.command import MuxlyCold
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "plugin"

PROJECT = """
plugins: [acme-weather]
sources:
  weather:
    connector: weather
    base_url: "${WEATHER_URL}"
    auth: {kind: custom, use: weather_badge, settings: {station: roof, secret: "${WEATHER_SECRET}"}}
    pulls: [observations]
transforms:
  warm: {from: weather.observations, steps: [{fahrenheit: {column: celsius}}], key: id}
routes:
  warm_out: {from: warm, to: bulletins}
destinations:
  bulletins: {type: bulletin, path: ./out}
"""


def reply(asked: Asked) -> bytes:
    if not asked.headers.get("x-badge", "").startswith("roof:"):
        return answer(401, "who are you?")
    return json_answer({"observations": [{"id": 1, "sky": "clear", "celsius": 20}], "next_page": None})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip installed the example, without asking anybody for anything."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True, timeout=120, env=os.environ | {"PIP_CONFIG_FILE": os.devnull})
    return folder / "site"


@pytest.fixture
def weather() -> Iterator[Server]:
    with Server(reply) as server:
        yield server


def test_the_example_is_installed_listed_checked_and_run(site: Path, weather: Server, tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    path = os.pathsep.join([str(site), str(EXAMPLE.parents[2])])
    muxly = MuxlyCold(tmp_path, {"PYTHONPATH": path, "WEATHER_URL": weather.url, "WEATHER_SECRET": "s3cret-of-the-roof"})
    listed: list[dict[str, Any]] = muxly("plugins", "list", "--json").json
    [plugin] = [each for each in listed if each["name"] == "acme-weather"]
    assert (plugin["version"], plugin["author"], plugin["muxly"], plugin["status"]) == ("1.2.0", "Acme Weather", ">=0.1", "enabled")
    assert {(each["kind"], each["id"]) for each in plugin["brings"]} == {
        ("connector", "weather"),
        ("destination", "bulletin"),
        ("transform", "fahrenheit"),
        ("auth", "weather_badge"),
    }
    assert muxly("check").code == 0
    done = muxly("run", "*")
    assert done.code == 0, done.all
    assert (tmp_path / "out" / "1.txt").read_text() == "id: 1\nsky: clear\ncelsius: 20\nfahrenheit: 68.0\n"
    assert not [said for said in muxly.said if "s3cret-of-the-roof" in said]


def test_its_own_tests_pass(site: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--rootdir",
        str(tmp_path),
        str(EXAMPLE / "tests"),
    ]
    path = os.pathsep.join([str(site), str(EXAMPLE / "tests"), str(EXAMPLE.parents[2])])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MUXLY_"))}
    done = subprocess.run(command, cwd=tmp_path, env=kept | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
