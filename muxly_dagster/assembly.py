"""A declared project made ready to run: every name resolved to a connector, a transform, a rule set or a destination."""

from collections.abc import Mapping
from dataclasses import dataclass

from muxly_dagster.connector import Connector, PullSettings, Stream
from muxly_dagster.destination import Destination
from muxly_dagster.project.models import JobSpec, Project, RouteSpec, TransformSpec
from muxly_dagster.routing import Router
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
    `destination_name` is its name under `destinations:`, which the router answers with.
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


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything a project runs, by name, in the order of declaration."""

    project: Project
    sources: Mapping[str, Connector]
    destinations: Mapping[str, Destination]
    pulls: Mapping[str, Pull]
    transforms: Mapping[str, Transform]
    targets: Mapping[str, Target]
    jobs: Mapping[str, JobSpec]
