"""Where a record went."""

from fastapi import APIRouter

router = APIRouter(tags=["Records"])
