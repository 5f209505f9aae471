"""The routers, in the order in which the reference shows them: those that anybody may ask, and those for administrators."""

from fastapi import APIRouter

from muxly_dagster.api import (
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
    records,
    reference,
    runs,
    senders,
    sources,
    tables,
)

SENDERS: tuple[APIRouter, ...] = (senders.router, hooks.router)
"""What other services send to: by write key or signature, by the thousand a second, with limits of their own."""

OPEN: tuple[APIRouter, ...] = (*SENDERS, health.router, metrics.router, reference.router, diagnostics.page)
"""These see to their own guard: write keys, signatures, tokens, or nothing."""

ADMIN: tuple[APIRouter, ...] = (
    keys.router,
    jobs.router,
    runs.router,
    sources.router,
    tables.router,
    records.router,
    project.router,
    destinations.router,
    deliveries.router,
    dead_letters.router,
    connectors.router,
    diagnostics.router,
)
