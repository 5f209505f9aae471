"""The Dagster face: assets, checks, jobs, schedules, sensors and resources of one assembled project."""
