"""The demo: a project that ships in the package, run against an API of its own on this machine (`make demo`, `muxly demo`)."""

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from rich.console import Console

from muxly_dagster.demo.api import BILLING_KEY, CRM_TOKEN, serve
from muxly_dagster.errors import ConfigurationError

PROJECT_FILES = ("muxly.yaml", "crm.yaml", "billing.yaml")
"""What makes up the demo's project, in this package's folder and in the folder the demo runs in."""

_DAY = "day"
_POST = """curl --json '{"email": "ada@example.com"}' http://127.0.0.1:8000/v1/collect/app/signups"""


def run_demo(folder: Path, console: Console, run: Callable[[Mapping[str, str]], int], *, port: int = 0) -> int:
    """Run the demo's project in `folder` against the API as it stands a day after the last run that went well; the exit code.

    `run` gets the complete environment of the project (nothing else of the process's own environment should count), runs
    everything and answers with an exit code. The project's files are copied where there are none, so edited ones stay.
    """
    folder = folder.absolute()
    copy_project(folder)
    day = _next_day(folder)
    with serve(port, day) as url:
        console.print(f"[bold]Day {day}[/bold] at the demo's CRM and billing service, {url}")
        code = run(environment(folder, url))
        if code == 0:
            (folder / _DAY).write_text(f"{day}\n", "utf-8")
            _say_where_to_look(folder, url, console)
    return code


def copy_project(folder: Path) -> None:
    """Put the demo's project into a folder, leaving files that are there alone."""
    (folder / "out").mkdir(parents=True, exist_ok=True)  # SQLite makes the file of a database, not its folder
    for name in PROJECT_FILES:
        if not (folder / name).exists():
            (folder / name).write_text((Path(__file__).parent / name).read_text("utf-8"), "utf-8")


def environment(folder: Path, url: str) -> dict[str, str]:
    """The environment in which the demo's project in `folder` pulls from the API at `url`."""
    return {
        "MUXLY_PROJECT": str(folder / "muxly.yaml"),
        "MUXLY_HOME": str(folder / ".muxly"),
        "DEMO_FOLDER": str(folder),
        "DEMO_API": url,
        "DEMO_CRM_TOKEN": CRM_TOKEN,
        "DEMO_BILLING_KEY": BILLING_KEY,
    }


def _next_day(folder: Path) -> int:
    counter = folder / _DAY
    text = counter.read_text("utf-8").strip() if counter.exists() else "0"
    if not text.isdecimal():
        raise ConfigurationError(f"{counter} should hold the number of the demo's last day.", do=f"delete {folder} to begin the demo anew")
    return int(text) + 1


def _say_where_to_look(folder: Path, url: str, console: Console) -> None:
    shown = _short(folder)
    muxly = f"{'muxly' if shutil.which('muxly') else _short(Path(sys.executable).with_name('muxly'))} -p {shown}"
    dev = "make dev" if Path("Makefile").exists() else f"{muxly} dev"
    tables = ", ".join(f"{name} {rows:,}" for name, rows in _tables(folder / "out" / "demo.db").items())
    hook, chat = (httpx.get(f"{url}/{place}").raise_for_status().json() for place in ("hooks", "chat"))
    places = [
        ("Big deals", f"{shown}/out/deals ({_files(folder / 'out' / 'deals')} NDJSON)"),
        ("Invoices", f"{shown}/out/invoices ({_files(folder / 'out' / 'invoices')} Parquet)"),
        ("Mailing list", f"{shown}/out/mailing ({_files(folder / 'out' / 'mailing')} CSV)"),
        ("Database", f"{shown}/out/demo.db (SQLite; rows: {tables})"),
        ("Webhook", f"took {hook['distinct']} deals this time; it refuses deals without a name: {muxly} dead-letters list"),
        ("Chat", f"{len(chat['messages'])} messages this time, as Slack's webhooks take them; see one with: {muxly} preview big_deals"),
        ("Your events", f"{dev}, then: {_POST}; some seconds later it is in {shown}/out/signups"),
        ("Prometheus", f"{muxly} serve metrics, then http://127.0.0.1:9464/metrics"),
        ("Receipts", f"{muxly} deliveries; {muxly} trace crm.deals KEY"),
        ("Lake", f"{muxly} query 'select * from customers order by won desc limit 5'"),
        ("Dagster UI", dev),
    ]
    console.print("\n[bold]Where to look[/bold]")
    for name, place in places:
        console.print(f"  {name:<12}  {place}", highlight=False, soft_wrap=True)
    console.print("\nRun it again: a day passes, and only what changed is moved.")


def _files(folder: Path) -> str:
    count = sum(path.is_file() for path in folder.rglob("[!.]*"))
    return f"{count} file," if count == 1 else f"{count} files,"


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _tables(database: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        query = "select name from sqlite_master where type = 'table' and name not like '\\_muxly%' escape '\\' order by name"
        names = [name for (name,) in connection.execute(query)]
        return {name: connection.execute(f'select count(*) from "{name}"').fetchone()[0] for name in names}
