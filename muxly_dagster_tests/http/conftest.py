"""Both transports, so that what the client promises is tested over each."""

import pytest

from muxly_dagster.http import transport


@pytest.fixture(params=["pyreqwest", "httpx"])
def over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport in use."""
    monkeypatch.setattr(transport, "HAS_PYREQWEST", request.param == "pyreqwest")
    return str(request.param)
