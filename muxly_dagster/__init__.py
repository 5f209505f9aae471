"""Muxly: pull, unify and route a company's data with Dagster, declared in one muxly.yaml."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxly_dagster.component import MuxlyComponent as MuxlyComponent

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the Dagster component only when somebody asks for it: importing Muxly stays cheap."""
    if name == "MuxlyComponent":
        from muxly_dagster.component import MuxlyComponent

        return MuxlyComponent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the component too: `dg` lists this module to find what components there are."""
    return sorted([*globals(), "MuxlyComponent"])
