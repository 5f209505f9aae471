"""What a person would check by hand, and what to do about what is wrong: for `muxly doctor` and the API."""

from muxly_dagster.diagnosing.diagnosis import diagnose
from muxly_dagster.diagnosing.finding import Finding, Subject

__all__ = ["Finding", "Subject", "diagnose"]
