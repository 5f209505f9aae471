"""Records that were refused: look, correct, replay, skip."""

from fastapi import APIRouter

router = APIRouter(tags=["Dead letters"])
