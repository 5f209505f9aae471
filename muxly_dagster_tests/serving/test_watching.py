"""Changes of a project are seen as they are saved, and nothing else is."""

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from muxly_dagster.serving.watching import changes, folders


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("muxly.d", "steps", "data", ".muxly/lake", "env/lib", "steps/__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
    for file in (
        "muxly.yaml",
        "muxly.d/more.json",
        "steps/clean.py",
        "data/orders.json",
        ".muxly/x.yaml",
        "env/pyvenv.cfg",
        "env/lib/a.py",
    ):
        (tmp_path / file).write_text("x: 1\n")
    return tmp_path


def test_only_folders_of_the_project_are_watched(project: Path) -> None:
    assert folders(project, [project / ".muxly"]) == [project, project / "muxly.d", project / "steps"]


@pytest.fixture
def seen(project: Path) -> Iterator["SimpleQueue[list[Path]]"]:
    """What was seen to change, in order."""
    stop = threading.Event()
    found: SimpleQueue[list[Path]] = SimpleQueue()

    def look() -> None:
        for changed in changes(project, [project / ".muxly"], stop):
            found.put(changed)

    thread = threading.Thread(target=look)
    thread.start()
    # Until a change is seen for the first time, the watch may not stand yet.
    number = 0
    while found.empty():
        number += 1
        (project / "muxly.yaml").write_text(f"x: {number}\n")
        threading.Event().wait(0.2)
    yield found
    stop.set()
    thread.join()


def next_of(seen: "SimpleQueue[list[Path]]", name: str) -> list[Path]:
    """The next change that names this file: the fixture's own may come once more."""
    while True:
        changed = seen.get(timeout=60)
        if any(path.name == name for path in changed):
            return changed
        assert {path.name for path in changed} == {"muxly.yaml"}


def test_a_file_that_is_saved_is_seen_wherever_the_project_has_it(project: Path, seen: "SimpleQueue[list[Path]]") -> None:
    for file in ("muxly.d/more.json", "steps/clean.py"):
        # Data and scratch files come before it, and are not told.
        (project / "data" / "orders.json").write_text("[]")
        (project / "steps" / ".clean.py.swp").write_text("x")
        (project / file).write_text("y: 2\n")
        assert next_of(seen, Path(file).name) == [project / file]
    (project / "steps" / "clean.py").unlink()
    assert next_of(seen, "clean.py") == [project / "steps" / "clean.py"]


def test_a_folder_that_comes_to_hold_python_is_watched_too(project: Path, seen: "SimpleQueue[list[Path]]") -> None:
    (project / "later").mkdir()
    (project / "later" / "code.py").write_text("x = 1\n")

    assert next_of(seen, "code.py") == [project / "later" / "code.py"]
