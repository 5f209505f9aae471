"""What services post: events, one or many, into a source's stream."""

from fastapi import APIRouter

router = APIRouter(tags=["Collect"])
