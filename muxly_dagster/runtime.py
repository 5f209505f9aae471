"""An open project: the assembly, the lake and the state together, ready to run any asset by its name."""

import datetime as dt
import logging
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from muxly_dagster import delivery, previewing, pulling, rehearsing, sandbox, tracing, transforming
from muxly_dagster.assembly import Assembly, Target, load_assembly, table_named
from muxly_dagster.delivery import NO_LEAVE, Leave, Planned, Standing
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.lake import Lake
from muxly_dagster.lake.files import LakeFiles
from muxly_dagster.outcome import Outcome, Progress
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.models import RouteSpec
from muxly_dagster.rehearsing import Difference
from muxly_dagster.routing import Router, Rule
from muxly_dagster.services import Services
from muxly_dagster.settings import Settings
from muxly_dagster.state import BreakerState, DeadLetter, State, Wait
from muxly_dagster.state.answers import KeptAnswers
from muxly_dagster.state.jobs import made_jobs

if TYPE_CHECKING:
    import pyarrow as pa


_log = logging.getLogger("muxly.plugins")

NO_PARAMETERS: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Runtime:
    """Holds one database connection pool; close it, or use it in a `with`."""

    settings: Settings
    assembly: Assembly
    lake: Lake
    state: State

    @classmethod
    def open(cls, settings: Settings, environ: Mapping[str, str]) -> Self:
        """Load and check the project, open lake and state. Raises ConfigurationError with everything that is wrong."""
        made = made_jobs(settings.database_url, settings.home)
        return cls.of(settings, load_assembly(settings.project, environ, home=settings.home, made=made))

    @classmethod
    def of(cls, settings: Settings, assembly: Assembly) -> Self:
        """Open lake and state for a project that is assembled already."""
        for warning in assembly.warnings:
            _log.warning("%s", warning)
        return cls._around(settings, assembly, State.open(settings.database_url, settings.home))

    def reloaded(self, environ: Mapping[str, str]) -> Self:
        """The project as its files and the jobs in the state say now, with the same open database. Raises ConfigurationError with
        everything that is wrong."""
        home, made = self.settings.home, self.state.jobs.made()
        return self._around(self.settings, load_assembly(self.settings.project, environ, home=home, made=made), self.state)

    @classmethod
    def _around(cls, settings: Settings, assembly: Assembly, state: State) -> Self:
        lake = Lake(settings.lake_url)
        files = LakeFiles(lake.url, lake.options, settings.home / "partials")
        services = Services(
            files=files,
            answers=KeptAnswers(settings.home / "answers"),
            turns=state.turns,
            metrics=state.metrics,
            inbox=state.inbox,
            calls=state.calls,
        )
        of_pulls = {name: replace(services, files=files.apart(name)) for name in assembly.pulls}
        return cls(settings, assembly.equipped(services, of_pulls), lake, state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.state.close()

    @property
    def folder(self) -> Path:
        """The project's folder."""
        project = self.settings.project
        return project if project.is_dir() else project.parent

    def run(
        self,
        name: str,
        *,
        run_id: str = "",
        progress: Progress | None = None,
        from_start: bool = False,
        leave: Leave = NO_LEAVE,
        parameters: Mapping[str, Any] = NO_PARAMETERS,
    ) -> Outcome:
        """Run one asset: a pull (`crm.contacts`), a transform (`customers`) or a target (`big_deals.warehouse`).

        `parameters` are what the run was started with, for Python transforms that ask for them.
        """
        run_id = run_id or str(uuid.uuid4())
        if name in self.assembly.pulls:
            return pulling.pull(self.lake, self.state, self.assembly.pulls[name], run_id=run_id, progress=progress, from_start=from_start)
        if name in self.assembly.transforms:
            return transforming.transform(
                self.lake,
                self.assembly.transforms[name],
                run_id=run_id,
                progress=progress,
                project_folder=self.folder,
                parameters=parameters,
            )
        if name in self.assembly.targets:
            if from_start:
                delivery.rewind(self.lake, self.state, self.assembly.targets[name])
            return delivery.deliver(self.lake, self.state, self.assembly.targets[name], run_id=run_id, progress=progress, leave=leave)
        raise ConfigurationError(f"there is no pull, transform or delivery named {name}", do="list them with `muxly check`")

    def lag(self, target: str) -> int:
        """How many changes a target has not dealt with yet."""
        return delivery.lag(self.lake, self.state, self.assembly.targets[target])

    def behind(self, target: str) -> tuple[int, dt.datetime | None]:
        """How many changes a target has not dealt with yet, and when the oldest of them was read."""
        return delivery.behind(self.lake, self.state, self.assembly.targets[target])

    def deliver_table(self, table: str, key: tuple[str, ...], destination: str, *, run_id: str, leave: Leave = NO_LEAVE) -> Outcome:
        """Deliver a lake table that no route names, such as a person's own asset, to a destination of the project."""
        name = f"{table}.{destination}"
        if name in self.assembly.targets:
            # They would share an offset, and each would begin anew behind the other.
            raise ConfigurationError(
                f"a route and an asset of the project are both delivered as {name}", do="give one of them another name"
            )
        return delivery.deliver(self.lake, self.state, self._kept(table, key, destination), run_id=run_id, leave=leave)

    def _kept(self, table: str, key: tuple[str, ...], destination: str) -> Target:
        """The delivery of a lake table that no route names."""
        return Target(
            name=f"{table}.{destination}",
            route=table,
            spec=RouteSpec.model_validate({"from": table, "to": destination}),
            table=table,
            key=key,
            connector_id="asset",
            destination_name=destination,
            destination=self.assembly.destinations[destination],
            router=Router([Rule(None, (destination,))]),
        )

    def _target_of_letters(self, name: str) -> Target:
        """The delivery that refused something: a route's, or that of a person's own asset."""
        if name in self.assembly.targets:
            return self.assembly.targets[name]
        asset, _, destination = name.rpartition(".")
        table = self.lake.table(asset) if asset and destination in self.assembly.destinations else None
        if table is None:
            raise ConfigurationError(f"the delivery {name} is no longer in the project", do="put it back, or leave its dead letters")
        return self._kept(asset, table.key, destination)

    def targets(self, name: str) -> list[Target]:
        """The targets that a name means: one delivery, or all of a route. Raises ConfigurationError for a name that is neither."""
        found = [target for target in self.assembly.targets.values() if name in (target.name, target.route)]
        if not found:
            known = [*self.assembly.targets, *dict.fromkeys(target.route for target in self.assembly.targets.values())]
            raise ConfigurationError(f"there is no route or delivery named {name}", do=did_you_mean(name, known))
        return found

    def plan(self, name: str) -> list[Planned]:
        """What the next delivery of a route's targets would do, with nothing changed."""
        return [delivery.plan(self.lake, self.state, target) for target in self.targets(name)]

    def resync(self, name: str) -> list[str]:
        """Let the current records go to a route's targets again, with the next delivery; answers which targets."""
        targets = self.targets(name)
        for target in targets:
            delivery.resync(self.lake, self.state, target)
        return [target.name for target in targets]

    def standing(self, target: str) -> Standing:
        """How far a target has come, and what it waits for."""
        return delivery.standing(self.lake, self.state, self.assembly.targets[target])

    def resume(self, destination: str) -> BreakerState:
        """Deliver to a destination again that was left alone or switched off; answers how its breaker stood."""
        if destination not in self.assembly.destinations:
            do = did_you_mean(destination, self.assembly.destinations)
            raise ConfigurationError(f"there is no destination named {destination}", do=do)
        now = dt.datetime.now(dt.UTC)
        for name, target in self.assembly.targets.items():
            if target.destination_name == destination and self.lag(name) > 0:
                self.state.waiting.put(Wait(name, now, "its destination was resumed"))
        return self.state.breakers.resume(destination, now)

    def compare_rules(self, route: str, since: dt.timedelta) -> list[Difference]:
        """What the rules of today would have done differently with the changes of the last while."""
        return rehearsing.compare_rules(self.lake, self.state, self.assembly, route, dt.datetime.now(dt.UTC) - since)

    def edit(self, letter: DeadLetter, data: Mapping[str, Any] | None) -> None:
        """Correct the data of a refused record, which a replay then sends; None takes the correction back."""
        delivery.edit(self.lake, self.state, letter, data)

    def skip(self, letters: Sequence[DeadLetter]) -> int:
        """Pass over refused records; answers how many."""
        return delivery.skip(self.state, letters)

    def last_pull(self, name: str) -> dt.datetime | None:
        """When a pull last read everything there was; None if it never did."""
        success = self.state.cursors.last_success(name)
        return success[1] if success else None

    def query(self, sql: str) -> "pa.Table":
        """Run one SELECT over the current rows of the tables it names. Columns of one name are numbered (`id`, `id_2`).

        Raises ConfigurationError for SQL that can never run and for tables that are not declared, MuxlyError for those without data yet.
        """
        names = dict.fromkeys(table_named(self.assembly, said) for said in sandbox.read_query(sql).tables)
        with tempfile.TemporaryDirectory(prefix="muxly-") as spill, sandbox.connect(spill=Path(spill)) as connection:
            self.lake.attach(connection, names)
            rows = sandbox.select(connection, sql)
        return rows.rename_columns(_told_apart(rows.column_names))

    def tables(self) -> list[str]:
        """Tables that pulls and transforms have stored so far."""
        return [name for name in [*self.assembly.pulls, *self.assembly.transforms] if self.lake.table(name) is not None]

    def preview(self, name: str, limit: int) -> list[dict[str, Any]]:
        """Records that a pull or transform would give, or that a route (or one delivery of it) has before it. Stores nothing."""
        if name in self.assembly.pulls:
            return previewing.preview_pull(self.assembly.pulls[name], limit)
        if name in self.assembly.transforms:
            return transforming.preview(self.lake, self.assembly.transforms[name], limit, project_folder=self.folder)
        targets = [target for target in self.assembly.targets.values() if name in (target.name, target.route)]
        if not targets:
            known = [*self.assembly.pulls, *self.assembly.transforms, *self.assembly.targets]
            known += [target.route for target in self.assembly.targets.values()]
            raise ConfigurationError(f"there is no pull, transform or route named {name}", do=did_you_mean(name, known))
        return previewing.preview_targets(self.lake, self.state, targets, limit)

    def preview_notes(self, name: str) -> Sequence[str]:
        """What a pull's connector says of it before it runs, such as what it would cost."""
        pull = self.assembly.pulls.get(name)
        return pull.connector.preview_notes(pull.settings) if pull else ()

    def replay(self, letters: list[DeadLetter]) -> dict[str, int]:
        """Send refused records again, each to the target that refused it; counts of replayed, superseded and refused ones."""
        unreadable = [letter for letter in letters if letter.kind == "pull"]
        if unreadable:
            raise ConfigurationError(
                f"{len(unreadable)} records of {unreadable[0].name} could not be read, so there is nothing to send",
                do=f"correct the source or its types, then read them again with `muxly run {unreadable[0].name} --from-start`",
            )
        total = {"replayed": 0, "superseded": 0, "refused": 0}
        run_id = str(uuid.uuid4())
        for name in dict.fromkeys(letter.name for letter in letters):
            target = self._target_of_letters(name)
            counts = delivery.replay(self.lake, self.state, target, [letter for letter in letters if letter.name == name], run_id=run_id)
            total = {status: total[status] + counts[status] for status in total}
        return total

    def trace(self, text: str) -> list[dict[str, Any]]:
        """Where a record went; see tracing.trace."""
        return tracing.trace(self.lake, self.state, self.assembly, text)

    def forget_calls(self, before: dt.datetime) -> dict[str, int]:
        """Delete the calls of webhooks that came before this time, where a run has taken them and every pull that reads them has stored
        them; answers how many, by job."""
        upto: dict[str, int] = {}
        for name, pull in self.assembly.pulls.items():
            if pull.connector.id == "webhook":
                table = self.lake.table(name)
                cursor = self.state.cursors.read(name, table.cursor_version or 0) if table else None
                upto[pull.stream.name] = min(cursor["seq"] if cursor else 0, upto.get(pull.stream.name, sys.maxsize))
        counts = {job: self.state.calls.prune(job, before, upto.get(job)) for job in self.state.calls.jobs()}
        self.state.starts.prune(before)
        return {job: count for job, count in counts.items() if count}

    def maintain(self) -> dict[str, Any]:
        """Compact the lake and remove files no reader needs any more."""
        return self.lake.maintain(dict.fromkeys([*self.tables(), *self.lake.names()]))


def _told_apart(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        number, free = 1, name
        while free in found or (number > 1 and free in names):
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return found
