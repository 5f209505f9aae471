"""The commands of `muxly`, what they take, and how an error reaches a person: in words, with exit code 1 or 2."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from muxly_dagster import __version__
from muxly_dagster.cli import connectors, dead_letters, destinations, jobs, keys, plugins, rules, serve, terminal
from muxly_dagster.errors import MuxlyError

app = typer.Typer(
    name="muxly",
    help="Pull, unify and route your company's data: one muxly.yaml, run by Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(connectors.app, name="connectors")
app.add_typer(destinations.app, name="destinations")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(rules.app, name="rules")
app.add_typer(jobs.app, name="jobs")
app.add_typer(plugins.app, name="plugins")
app.add_typer(keys.app, name="keys")
app.add_typer(serve.app, name="serve")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def main() -> None:
    """Run the command line; never shows a traceback for an error that Muxly raises on purpose."""
    try:
        app(prog_name="muxly")
    except MuxlyError as error:
        terminal.fail(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        terminal.say("stopped")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`muxly query ... | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if not error.filename:
            raise
        terminal.fail(MuxlyError(f"{error.filename}: {str(error.strerror).lower()}", do="check the folder's permissions and free space"))
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    project: Annotated[str, typer.Option("--project", "-p", help="The muxly.yaml or its folder (MUXLY_PROJECT).")] = "",
) -> None:
    if project:
        os.environ["MUXLY_PROJECT"] = project


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the new project goes.")] = Path(),
    template: Annotated[
        str, typer.Option("--template", "-t", help="files (runs as it stands), sql or rest; or a connector's id.")
    ] = "files",
) -> None:
    """Begin a project: writes a muxly.yaml, and what else the template brings."""
    from muxly_dagster.cli import project

    project.init(folder, template)


@app.command()
def check(
    offline: Annotated[bool, typer.Option("--offline", help="Do not try the sources and destinations.")] = False,
    json: Json = False,
) -> None:
    """Check muxly.yaml, then try every source, pull and destination; says everything that is wrong at once."""
    from muxly_dagster.cli import project

    project.check(offline=offline, json=json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of muxly.yaml, for editors."""
    from muxly_dagster.cli import project

    project.schema()


@app.command()
def run(
    select: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sources, pulls, transforms, routes, ROUTE.DESTINATION or jobs; '*' for everything. "
            "+NAME adds all that it needs, NAME+ all that follows from it."
        ),
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Forget cursors and offsets: read or deliver everything again.")] = False,
    past_guard: Annotated[
        bool, typer.Option("--past-guard", help="Let deliveries delete or change more than their guards allow; see `muxly plan` first.")
    ] = False,
    json: Json = False,
) -> None:
    """Run pulls, transforms and deliveries now, in order; the run is kept in Dagster's history."""
    from muxly_dagster.cli import run as running

    running.run(select or [], from_start=from_start, past_guard=past_guard, json=json)


@app.command()
def plan(name: Annotated[str, typer.Argument(help="A route, or ROUTE.DESTINATION.")], json: Json = False) -> None:
    """Say what the next delivery would insert, update, delete and have refused at each destination; nothing is changed."""
    from muxly_dagster.cli import deliveries

    deliveries.plan(name, json=json)


@app.command()
def resync(name: Annotated[str, typer.Argument(help="A route, or ROUTE.DESTINATION.")], json: Json = False) -> None:
    """Deliver every current record again, the newest version of each; what was replaced since is left out."""
    from muxly_dagster.cli import deliveries

    deliveries.resync(name, json=json)


@app.command()
def deliveries(
    name: Annotated[str | None, typer.Argument(help="A route, or ROUTE.DESTINATION; all of them unless given.")] = None, json: Json = False
) -> None:
    """Show where each delivery stands: what waits and why, dead letters, breakers, the last receipt."""
    from muxly_dagster.cli import deliveries as standing

    standing.deliveries(name, json=json)


@app.command()
def preview(
    name: Annotated[str, typer.Argument(help="A pull, a transform, a route, or ROUTE.DESTINATION.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many records.")] = 10,
    json: Json = False,
) -> None:
    """Show what a pull would read, a transform give or a route send; nothing is stored or sent."""
    from muxly_dagster.cli import look

    look.preview(name, limit, json=json)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help='One SELECT, such as "select * from crm.contacts limit 5".')], json: Json = False
) -> None:
    """Ask the lake in SQL (DuckDB's), over the current rows of every table."""
    from muxly_dagster.cli import look

    look.query(sql, json=json)


@app.command()
def trace(
    record: Annotated[list[str], typer.Argument(help="A record id, or a table and a key: crm.deals 1001.")],
    json: Json = False,
) -> None:
    """Where did this record go? Which rules matched and why, and which receipt covers it."""
    from muxly_dagster.cli import look

    look.trace(" ".join(record), json=json)


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not try the sources and destinations.")] = False,
    json: Json = False,
) -> None:
    """Check everything that a person would check by hand: versions, folders, databases, secrets, sources, Dagster; says what to do."""
    from muxly_dagster.cli import doctor as checks

    checks.doctor(offline=offline, json=json)


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the Dagster UI; 0 takes a free one.")] = 3000,
    host: Annotated[str, typer.Option(help="The address that the UI and the API listen on.")] = "127.0.0.1",
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the API; 0 takes a free one.")] = 8000,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Whether to start the Dagster UI.")] = True,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Whether to load changes of the project as they are saved.")] = True,
    demo: Annotated[bool, typer.Option("--demo", help="On the demo in .demo, with the API that it pulls from.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show everything that the processes print.")] = False,
) -> None:
    """Start the API, the Dagster UI, its daemon and code server on this project; Ctrl-C stops all of them."""
    from muxly_dagster.cli import dev as developing

    developing.dev(host=host, port=port, api_port=api_port, web=web, watch=reload, verbose=verbose, demo=demo)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its things.")] = Path(".demo"),
) -> None:
    """Run the main job on a small sample API that ships with Muxly; a second time moves only what changed."""
    from muxly_dagster.cli import demo as demonstration

    demonstration.demo(folder)
