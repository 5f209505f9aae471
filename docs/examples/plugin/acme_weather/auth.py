"""Signs in with a badge: every request carries the station's name and a proof that it knows the secret."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from muxly_dagster.errors import ConfigurationError


class WeatherBadge:
    """`auth: {kind: custom, use: weather_badge, settings: {station: ..., secret: ...}}`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        missing = [name for name in ("station", "secret") if not settings.get(name)]
        if missing:
            raise ConfigurationError(f"weather_badge needs {' and '.join(missing)}", do="set it in `settings`")
        self._station, self._secret = str(settings["station"]), str(settings["secret"])

    def headers(self) -> Mapping[str, str]:
        """The badge."""
        return {"X-Badge": f"{self._station}:{self._proof()}"}

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Asking again gives the same badge."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """The secret, and what stands for it in a request."""
        return self._secret, self._proof()

    def _proof(self) -> str:
        return hmac.new(self._secret.encode(), self._station.encode(), hashlib.sha256).hexdigest()
