"""What a run has to do with its destination's breaker: whether it may try, what it found, and when a run that failed is due again."""

import contextlib
import datetime as dt
from collections.abc import Iterator

from muxly_dagster.assembly import Target
from muxly_dagster.delivery.patience import Patience
from muxly_dagster.errors import BusyError, GoneError, MuxlyError, RetryLater, SignInError
from muxly_dagster.state import State, Wait


class Contact:
    """One run's dealings with a destination. What goes wrong elsewhere, in the lake or the state, says nothing about it."""

    def __init__(self, state: State, target: Target, patience: Patience, *, probe: bool) -> None:
        self._breakers, self._target, self._patience = state.breakers, target, patience
        self._owing = probe
        self._told = False
        self.error: MuxlyError | None = None
        """What the destination itself raised last."""

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Around whatever is asked of the destination: remembers that it was the destination that raised an error."""
        try:
            yield
        except MuxlyError as error:
            self.error = error
            raise

    def works(self) -> None:
        """The destination answered: its breaker closes, if nobody told it so in this run."""
        if not self._told:
            self._breakers.succeeded(self._target.destination_name, self._patience.now())
        self._told, self._owing = True, False

    def failed(self, error: MuxlyError) -> None:
        """Count a failure of the destination's own, once."""
        if self.error is not error:
            return
        self.error, self._told, self._owing = None, False, False
        self._breakers.failed(self._target.destination_name, self._target.destination.breaker, error.what, self._patience.now())

    def gave_up(self, error: RetryLater) -> None:
        """Count a failure that the run would go on behind. Raises it where the destination is to be left alone from now on."""
        self.error = error
        self.failed(error)
        if self._breakers.read(self._target.destination_name).status != "closed":
            raise error

    def ended(self) -> None:
        """Let go of a probe that came to nothing: whoever comes next may make it."""
        if self._owing:
            self._breakers.release(self._target.destination_name, self._patience.now())


@contextlib.contextmanager
def contact(state: State, target: Target, patience: Patience, *, by_hand: bool) -> Iterator[Contact]:
    """Ask the destination's breaker, and tell it how the run ended; remember when a run that failed is due again."""
    name, breakers = target.destination_name, state.breakers
    try:
        probe = breakers.admit(name, patience.now(), by_hand=by_hand)
    except RetryLater as error:
        before = state.waiting.read(target.name)
        until = patience.now() + dt.timedelta(seconds=error.after or 0)
        state.waiting.put(Wait(target.name, until, error.what, before.failures if before else 0))
        raise
    made = Contact(state, target, patience, probe=probe)
    try:
        yield made
    except GoneError as error:
        breakers.disable(name, error.what, patience.now())
        state.waiting.clear(target.name)
        raise
    except RetryLater as error:
        made.failed(error)
        before = state.waiting.read(target.name)
        failures = (before.failures if before else 0) + 1
        state.waiting.put(Wait(target.name, within_window(target, patience.next_try(failures, error.after)), error.what, failures))
        raise
    except SignInError as error:
        made.failed(error)
        state.waiting.clear(target.name)
        raise
    except BusyError:
        raise
    except MuxlyError as error:
        if made.error is error:
            made.works()  # it answers; what is wrong is not that it is away
        state.waiting.clear(target.name)
        raise
    finally:
        with contextlib.suppress(MuxlyError):  # a state that is away must not hide what happened
            made.ended()


def within_window(target: Target, moment: dt.datetime) -> dt.datetime:
    """The moment, or when the target's window opens next."""
    window = target.destination.window
    return moment if window is None else window.opens(moment)
