"""The routers, in the order in which the reference shows them: those that anybody may ask, and those for administrators."""

from fastapi import APIRouter

from muxly_dagster.api import (
    collect,
    connectors,
    dead_letters,
    deliveries,
    destinations,
    diagnostics,
    health,
    hooks,
    jobs,
    keys,
    metrics,
    project,
    protocols,
    records,
    runs,
    sources,
    tables,
)

OPEN: tuple[APIRouter, ...] = (collect.router, protocols.router, hooks.router, health.router)
"""These see to their own guard: write keys, signatures, or nothing."""

ADMIN: tuple[APIRouter, ...] = (
    keys.router,
    jobs.router,
    runs.router,
    sources.router,
    tables.router,
    records.router,
    destinations.router,
    deliveries.router,
    dead_letters.router,
    connectors.router,
    project.router,
    metrics.router,
    diagnostics.router,
)
