"""Current rows of the lake."""

from fastapi import APIRouter

router = APIRouter(tags=["Tables"])
