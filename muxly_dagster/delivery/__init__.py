"""The road out."""

from muxly_dagster.delivery.old import Patience, deliver, delivery_of, lag, replay, rewind

__all__ = ["Patience", "deliver", "delivery_of", "lag", "replay", "rewind"]
