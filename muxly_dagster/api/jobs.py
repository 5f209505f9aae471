"""What runs together and when; jobs that are made here lie in the state."""

from fastapi import APIRouter

router = APIRouter(tags=["Jobs"])
