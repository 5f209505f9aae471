"""Whether the process lives, and whether it can do its work."""

from fastapi import APIRouter

router = APIRouter(tags=["Health"])
