"""Signed calls of other services, which start jobs."""

from fastapi import APIRouter

router = APIRouter(tags=["Webhooks"])
