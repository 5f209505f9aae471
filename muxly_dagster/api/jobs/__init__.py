"""What runs together and when; jobs that are made here lie in the state."""

from fastapi import APIRouter

from muxly_dagster.api.jobs import declared, started

router = APIRouter(tags=["Jobs"])
router.include_router(declared.router)
router.include_router(started.router)
