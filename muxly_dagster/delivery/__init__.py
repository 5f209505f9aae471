"""The road out: changes since the offset → rules → destination → receipt and offset, in one ledger transaction.

Every change is counted once: read = accepted + refused + unrouted, for every receipt. A destination that keeps offsets with its
rows is believed over the ledger, so a crash between the two repeats nothing.

`choosing` finds what of a stretch of changes is sent, `gathering` makes deliveries of it, `sending` sends them and finds the record at
fault, `settling` writes down what was answered; `delivering` is one run of all this, `planning` what it would do, `letters` what
becomes of refused records, `standing` how far everything is.
"""

from muxly_dagster.delivery.choosing import Choosing
from muxly_dagster.delivery.delivering import NO_LEAVE, Leave, deliver
from muxly_dagster.delivery.letters import edit, replay, skip
from muxly_dagster.delivery.patience import Patience
from muxly_dagster.delivery.planning import Planned, TooMuch, plan
from muxly_dagster.delivery.sending import Stopped, delivery_of
from muxly_dagster.delivery.standing import Standing, behind, lag, oldest_waiting, resync, rewind, standing

__all__ = [
    "NO_LEAVE",
    "Choosing",
    "Leave",
    "Patience",
    "Planned",
    "Standing",
    "Stopped",
    "TooMuch",
    "behind",
    "deliver",
    "delivery_of",
    "edit",
    "lag",
    "oldest_waiting",
    "plan",
    "replay",
    "resync",
    "rewind",
    "skip",
    "standing",
]
