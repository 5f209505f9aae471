"""Where records go."""

from fastapi import APIRouter

router = APIRouter(tags=["Destinations"])
