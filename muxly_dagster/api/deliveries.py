"""Routes, and where each delivery stands."""

from fastapi import APIRouter

router = APIRouter(tags=["Deliveries"])
