"""Keys that let services collect."""

from fastapi import APIRouter

router = APIRouter(tags=["Write keys"])
