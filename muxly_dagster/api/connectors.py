"""What can be a source."""

from fastapi import APIRouter

router = APIRouter(tags=["Connectors"])
