"""Tests of Dagster as the rest of the house sees it."""
