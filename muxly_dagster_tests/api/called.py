"""A project whose webhooks are called, and who is asked for runs then."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from muxly_dagster_tests.api.shop import QuietOrchestrator, Shop, opened

PUBLIC = "https://muxly.example.com"


@dataclass
class Recorder(QuietOrchestrator):
    """Dagster, as far as it is asked for runs; `troubles` are raised first."""

    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    troubles: list[Exception] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__()
        self.may_answer.set()

    def submit(self, job: str, run_id: str, tags: Mapping[str, str], select: Sequence[str] = ()) -> None:
        self.may_answer.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        self.asked.append((job, run_id, dict(tags)))


@contextmanager
def called(folder: Path, recorder: Recorder, text: str, **environ: str) -> Iterator[Shop]:
    """The project's app."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "muxly.yaml").write_text(text, "utf-8")
    shop = opened(folder, {"MUXLY_RATE_LIMIT": "off", "MUXLY_PUBLIC_URL": PUBLIC, **environ}, recorder)
    try:
        yield shop
    finally:
        shop.service.close()


def post(shop: Shop, path: str, body: bytes | Any = b"", headers: Mapping[str, str] | None = None) -> httpx.Response:
    """One call, from anywhere in the world."""

    async def ask() -> httpx.Response:
        async with shop.client("", address="203.0.113.9") as client:
            return await client.post(path, content=body, headers=headers)

    return asyncio.run(ask())
