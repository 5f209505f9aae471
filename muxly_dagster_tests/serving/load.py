"""Senders that go on while what they send to is killed: whatever was not acknowledged is sent again, with the same ids, until it is."""

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

_PACE = 0.02
"""Seconds between two requests of a sender: a load that two cores bear beside all that is started again."""
_SECONDS_TO_ANSWER = 120.0
_LATER = frozenset({429, 503})
_BATCH = 20
_SERIALS = 7


class Load:
    """Posts events to two streams of the source `app` and calls the webhook of `job`, signed as GitHub does.

    What was acknowledged: the ids of `events`, those of `devices` with the newest version of each `serial`, those of `calls`. Every tenth
    request is made again although it was acknowledged, and must be known then. `troubles` counts what was not acknowledged.
    """

    def __init__(self, url: str, job: str, secret: str) -> None:
        self._url, self._job, self._secret = url, job, secret
        self.events: list[str] = []
        self.devices: list[str] = []
        self.newest: dict[str, int] = {}
        self.calls: list[str] = []
        self.troubles: list[str] = []
        self.wrong: list[str] = []
        self._stop = threading.Event()

    @property
    def acknowledged(self) -> tuple[int, int]:
        """How many events, and how many calls."""
        return len(self.events) + len(self.devices), len(self.calls)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Go on until the block is left; then each sender has its last request acknowledged."""
        senders = [(self._post, 1), (self._post, 2), (self._call, 1), (self._call, 2)]
        threads = [threading.Thread(target=self._go_on, args=sender, daemon=True) for sender in senders]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(2 * _SECONDS_TO_ANSWER)
            self.wrong += [f"{thread.name} has not ended" for thread in threads if thread.is_alive()]

    def _go_on(self, send: Callable[[httpx.Client, str, int], None], sender: int) -> None:
        number = 0
        with httpx.Client(base_url=self._url, timeout=_SECONDS_TO_ANSWER) as client:
            while not self._stop.wait(_PACE) and not self.wrong:
                try:
                    send(client, f"{sender}-{number}", number)
                except Exception as error:  # a sender that died in silence would let the test pass
                    self.wrong.append(repr(error))
                number += 1

    def _post(self, client: httpx.Client, name: str, number: int) -> None:
        """One event, a batch of them, or new versions of two devices, which only this sender tells of."""
        if number % 3 == 2:
            events = [self._device(name, number, each) for each in range(2)]
            stream, ids, body = "devices", self.devices, json.dumps(events)
        elif number % 3 == 1:
            events = [{"id": f"e-{name}-{each}", "n": number, "note": "x" * 100} for each in range(_BATCH)]
            stream, ids, body = "events", self.events, json.dumps(events)
        else:
            events = [{"id": f"e-{name}", "n": number}]
            stream, ids, body = "events", self.events, json.dumps(events[0])
        receipt = self._until_acknowledged(client, f"/v1/collect/app/{stream}", {"content-type": "application/json"}, body, [202])
        self._look(receipt["accepted"] + receipt["duplicate"] == len(events), receipt)
        ids += [str(event["id"]) for event in events]
        self.newest |= {str(event["serial"]): number for event in events if "serial" in event}
        if number % 10 == 0:
            again = self._until_acknowledged(client, f"/v1/collect/app/{stream}", {"content-type": "application/json"}, body, [202])
            self._look(again["duplicate"] == len(events), again)

    def _device(self, name: str, number: int, each: int) -> dict[str, Any]:
        sender = name.partition("-")[0]
        return {"id": f"d-{name}-{each}", "serial": f"s-{sender}-{(number + each) % _SERIALS}", "version": number}

    def _call(self, client: httpx.Client, name: str, number: int) -> None:
        body = json.dumps({"push": name})
        signed = hmac.new(self._secret.encode(), body.encode(), hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-github-delivery": f"c-{name}", "x-hub-signature-256": f"sha256={signed}"}
        self._until_acknowledged(client, f"/v1/hooks/{self._job}", headers, body, [202, 200])
        self.calls.append(f"c-{name}")
        if number % 10 == 0:
            again = self._until_acknowledged(client, f"/v1/hooks/{self._job}", headers, body, [200])
            self._look(again["known"], again)

    def _until_acknowledged(self, client: httpx.Client, path: str, headers: Mapping[str, str], body: str, good: Sequence[int]) -> Any:
        while True:
            try:
                answer = client.post(path, headers=dict(headers), content=body)
            except httpx.TransportError as error:
                self.troubles.append(repr(error))
            else:
                if answer.status_code not in _LATER:
                    self._look(answer.status_code in good, f"{path}: {answer.status_code} {answer.text}")
                    return answer.json()
                self.troubles.append(answer.text)
            threading.Event().wait(_PACE)

    def _look(self, right: bool, said: object) -> None:
        if not right:
            self.wrong.append(str(said))
