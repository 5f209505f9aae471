"""Everything a person would check by hand."""

from fastapi import APIRouter

router = APIRouter(tags=["Diagnostics"])
