"""The app, spoken to in this process."""

import asyncio
from typing import Any

import httpx

from muxly_dagster.api.app import create_app
from muxly_dagster.api.service import Service


class Api:
    """The app, spoken to in its own process as from this machine."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._app = create_app(service)

    def __call__(self, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=("127.0.0.1", 50_000))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                sent = {name.replace("_", "-"): value for name, value in headers.items()}
                return (
                    await client.request(method, path, json=json, headers=sent)
                    if json is not None
                    else await client.request(method, path, headers=sent)
                )

        return asyncio.run(ask())
