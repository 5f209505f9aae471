"""Where records come from, and their streams."""

from fastapi import APIRouter

router = APIRouter(tags=["Sources"])
