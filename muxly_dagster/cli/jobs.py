"""`muxly jobs`: which jobs there are and when they run; pause and resume them, start one."""

from typing import Annotated

import typer

app = typer.Typer(help="Jobs: list, show, pause, resume, start.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Named = Annotated[str, typer.Argument(help="The job.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """List jobs, those of muxly.yaml and those that were made by the API: when they run next, and which are paused."""
    from muxly_dagster.cli import job_list

    job_list.list_jobs(json=json)


@app.command()
def show(name: Named, json: Json = False) -> None:
    """Show what a job runs, when, and whom it tells of failures."""
    from muxly_dagster.cli import job_list

    job_list.show(name, json=json)


@app.command()
def pause(name: Named, json: Json = False) -> None:
    """Let a job's schedule and webhook start nothing until it is resumed; calls of its webhook are kept meanwhile."""
    from muxly_dagster.cli import job_list

    job_list.pause(name, paused=True, json=json)


@app.command()
def resume(name: Named, json: Json = False) -> None:
    """Let a paused job run again: from the next moment of its schedule on, and for the calls of its webhook that were kept."""
    from muxly_dagster.cli import job_list

    job_list.pause(name, paused=False, json=json)


@app.command()
def start(
    name: Named,
    select: Annotated[list[str] | None, typer.Argument(help="Run only these of its assets.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Forget cursors and offsets: read or deliver everything again.")] = False,
    past_guard: Annotated[bool, typer.Option("--past-guard", help="Let deliveries do more than their guards allow.")] = False,
    parameter: Annotated[list[str] | None, typer.Option("--parameter", help="NAME=VALUE for Python transforms; several times.")] = None,
    json: Json = False,
) -> None:
    """Have Dagster start a job: it begins when the daemon next looks, a few seconds from now. `muxly run` runs it here."""
    from muxly_dagster.cli import job_list

    job_list.start(name, select or [], from_start=from_start, past_guard=past_guard, parameters=parameter or [], json=json)
