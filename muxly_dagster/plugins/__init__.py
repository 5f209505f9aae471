"""Plugins: connectors, destinations, transform steps and ways to sign in that do not come with Muxly.

A plugin is a distribution with entry points (`muxly.connectors`, `muxly.destinations`, `muxly.transforms`, `muxly.auth`), or a file
in a folder of the project. Nothing of it is imported before the project lists it under `plugins:`, and one that is broken stops no
other.
"""

from muxly_dagster.plugins.enabling import NONE, Notice, Plugins, enable, is_path
from muxly_dagster.plugins.finding import Found, Offer, in_folder, installed
from muxly_dagster.plugins.importing import SECONDS, seconds_from
from muxly_dagster.plugins.loading import Fault, Loaded
from muxly_dagster.plugins.plugin import GROUPS, Kind, Plugin

__all__ = [
    "GROUPS",
    "NONE",
    "SECONDS",
    "Fault",
    "Found",
    "Kind",
    "Loaded",
    "Notice",
    "Offer",
    "Plugin",
    "Plugins",
    "enable",
    "in_folder",
    "installed",
    "is_path",
    "seconds_from",
]
