"""What a project consists of once every name in it is resolved: pulls, transforms, targets, and all of it together."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muxly_dagster.connector import Connector, PullSettings, Stream
from muxly_dagster.destination import Destination
from muxly_dagster.errors import Problem
from muxly_dagster.project.models import JobSpec, Project, RouteSpec, TransformSpec
from muxly_dagster.routing import Router
from muxly_dagster.services import Services
from muxly_dagster.transform import Step


@dataclass(frozen=True, slots=True)
class Pull:
    """One stream of one source on its way into the lake table of the same name ("crm.contacts")."""

    name: str
    source: str
    connector: Connector
    settings: PullSettings
    stream: Stream


@dataclass(frozen=True, slots=True)
class Transform:
    """One declared transform: `inputs` are the lake tables it reads, `steps` the parsed steps where it is written so."""

    name: str
    spec: TransformSpec
    inputs: tuple[str, ...]
    key: tuple[str, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One destination of one route ("big_deals.warehouse"): has its own offset, receipts and dead letters.

    `destination` already carries the route's own settings for it; `table` is the lake table it reads and `key` its key;
    `destination_name` is its name under `destinations:`, which the router answers with. `steps` are done to records on their way and
    `templates` take the place of the destination's own, both by the name of the rule that sends a record ("" where there is no choice).
    """

    name: str
    route: str
    spec: RouteSpec
    table: str
    key: tuple[str, ...]
    connector_id: str
    destination_name: str
    destination: Destination
    router: Router
    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told of runs: destinations by name, with the settings that differ for notices. `failure` of those that failed, `recovery` of
    those that succeed again.
    """

    failure: Mapping[str, Destination] = field(default_factory=dict)
    recovery: Mapping[str, Destination] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything a project runs, by name, in the order of declaration.

    `warnings` are plugins that are broken and that nothing uses, sources whose pulls are not known, and jobs of the state that no longer
    fit; `news` says which pulls their patterns have come to select since the last time, or no longer do. `jobs` are those of the file and
    those of the state that fit; `unfit` says of the others what is wrong. `told` is by job; "" is for runs of no job.
    """

    project: Project
    sources: Mapping[str, Connector]
    destinations: Mapping[str, Destination]
    pulls: Mapping[str, Pull]
    transforms: Mapping[str, Transform]
    targets: Mapping[str, Target]
    jobs: Mapping[str, JobSpec]
    warnings: tuple[Problem, ...] = ()
    news: tuple[str, ...] = ()
    unfit: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    told: Mapping[str, Told] = field(default_factory=dict)

    def equipped(self, services: Services, of_pulls: Mapping[str, Services] | None = None) -> "Assembly":
        """The same with connectors and destinations that have these services; those of a pull, where it has its own."""
        own = of_pulls or {}
        sources = {name: connector.equipped(dataclasses.replace(services, source=name)) for name, connector in self.sources.items()}
        of_pull = {name: dataclasses.replace(each, source=self.pulls[name].source) for name, each in own.items() if name in self.pulls}
        connectors = {n: sources[p.source].equipped(of_pull[n]) if n in own else sources[p.source] for n, p in self.pulls.items()}
        pulls = {name: dataclasses.replace(pull, connector=connectors[name]) for name, pull in self.pulls.items()}
        destinations = {name: destination.equipped(services) for name, destination in self.destinations.items()}
        targets = {n: dataclasses.replace(target, destination=target.destination.equipped(services)) for n, target in self.targets.items()}
        told = {
            job: Told(*({name: each.equipped(services) for name, each in side.items()} for side in (who.failure, who.recovery)))
            for job, who in self.told.items()
        }
        return dataclasses.replace(self, sources=sources, pulls=pulls, destinations=destinations, targets=targets, told=told)
