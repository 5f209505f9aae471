"""What Dagster ran and runs: list, show, cancel, retry, follow."""

from fastapi import APIRouter

router = APIRouter(tags=["Runs"])
