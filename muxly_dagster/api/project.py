"""The project itself: its routes, and the schema of muxly.yaml."""

from fastapi import APIRouter

router = APIRouter(tags=["Project"])
