"""Ways to sign in that plugins bring, made safe: what goes wrong in one is told in words, and never with a secret."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from muxly_dagster.auth import MakeSource, TokenSource
from muxly_dagster.errors import ConfigurationError, MuxlyError, SignInError

_T = TypeVar("_T")

_shared: dict[str, tuple[MakeSource, TokenSource]] = {}
"""Kept for the life of the process, so that a token is not asked for again by every pull."""

_lock = threading.Lock()


def guarded(make: MakeSource, plugin: str, name: str) -> MakeSource:
    """The same way to sign in, whose sources are made once for the same settings.

    What it makes raises SignInError for every exception that is not Muxly's own: its text could hold a secret, so it is left out.
    """

    def one(settings: Mapping[str, Any]) -> TokenSource:
        said = json.dumps([plugin, name, id(make), settings], sort_keys=True, default=str)
        digest = hashlib.sha256(said.encode()).hexdigest()  # so that no secret is the key of anything
        with _lock:
            if digest not in _shared:
                _shared[digest] = make, _made(make, settings, plugin, name)
            return _shared[digest][1]

    return one


def _made(make: MakeSource, settings: Mapping[str, Any], plugin: str, name: str) -> TokenSource:
    try:
        source = make(settings)
    except MuxlyError:
        raise
    except Exception as error:
        what = f"the way to sign in {name} of the plugin {plugin} cannot use these settings ({type(error).__name__})"
        raise ConfigurationError(what, do="correct `settings` as the plugin's page says") from None
    if not isinstance(source, TokenSource):
        what = f"the way to sign in {name} of the plugin {plugin} gives {type(source).__name__}, which is no token source"
        raise ConfigurationError(what, do="give it the methods headers, refused and secrets (muxly_dagster.auth.TokenSource)")
    return _Guarded(source, f"the way to sign in {name} of the plugin {plugin}")


class _Guarded:
    """A token source of somebody else's."""

    def __init__(self, source: TokenSource, shown: str) -> None:
        self._source, self._shown = source, shown

    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        return self._asked(self._source.headers)

    def refused(self, headers: Mapping[str, str]) -> bool:
        """What it makes of a refusal."""
        return self._asked(lambda: self._source.refused(headers))

    def secrets(self) -> tuple[str, ...]:
        """Its secrets."""
        return self._asked(self._source.secrets)

    def _asked(self, deed: Callable[[], _T]) -> _T:
        try:
            return deed()
        except MuxlyError:
            raise
        except Exception as error:
            do = "see the plugin's page, and try its credentials without Muxly"
            raise SignInError(f"{self._shown} failed with {type(error).__name__}", do=do) from None
