"""Measures the page decoder: records per CPU second on HubSpot-like pages, beside orjson with pyarrow's from_pylist.

Run: `python benchmarks/decoding.py [--records N] [--rounds N]`. Of several rounds the best counts: the machine is shared.
"""

import argparse
import time
from collections.abc import Callable

import orjson
import pyarrow as pa

from muxly_dagster.decoding import PageDecoder

_PAGE, _BATCH = 100, 3_000
_STAGES = ("lead", "customer", "opportunity", "subscriber")


def _record(i: int, *, numbers: bool, nested: bool) -> dict[str, object]:
    properties = {
        "email": f"user{i}@example{i % 977}.com",
        "firstname": ("Ada", "Grace", "Linus", "Barbara")[i % 4],
        "lastname": f"Lastname{i % 5000}",
        "phone": f"+49 30 {i:08d}",
        "company": f"Company number {i % 20_000} GmbH",
        "jobtitle": "Senior Director of Operations",
        "lifecyclestage": _STAGES[i % 4],
        "hs_lead_status": "OPEN",
        "city": "Berlin",
        "country": "Germany",
        "website": f"https://www.example{i % 977}.com/path",
        "annualrevenue": str(i * 13 % 1_000_000),
        "num_employees": str(i % 5000),
        "hs_object_id": str(1_000_000 + i),
        "createdate": "2025-03-01T12:00:00.000Z",
        "lastmodifieddate": "2026-01-01T12:00:00.000Z",
        "notes": "x" * 60,
    }
    record: dict[str, object] = {"id": str(1_000_000 + i), "properties": properties}
    record |= {"createdAt": "2025-03-01T12:00:00.000Z", "updatedAt": "2026-01-01T12:00:00.000Z", "archived": False}
    if numbers:
        record |= {"score": i % 100, "amount": i * 1.5}
    if nested:
        record["tags"] = [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]
    return record


def _pages(records: int, **shape: bool) -> list[bytes]:
    starts = range(0, records, _PAGE)
    return [
        orjson.dumps({"results": [_record(i, **shape) for i in range(s, s + _PAGE)], "paging": {"next": {"after": str(s)}}}) for s in starts
    ]


def _muxly(pages: list[bytes], types: dict[str, str]) -> int:
    decoder = PageDecoder("$.results", flatten=["properties"], types=types, envelope=["$.paging.next.after"])
    rows = 0
    for page in pages:
        decoder.decode(page)
        if decoder.buffered_rows >= _BATCH:
            rows += len(decoder.flush()[0])
    return rows + len(decoder.flush()[0])


def _by_hand(pages: list[bytes]) -> int:
    rows, waiting = 0, []
    for page in pages:
        for record in orjson.loads(page)["results"]:
            flat = record.pop("properties")
            flat.update(record)
            waiting.append(flat)
        if len(waiting) >= _BATCH:
            rows += len(pa.Table.from_pylist(waiting))
            waiting = []
    return rows + len(pa.Table.from_pylist(waiting))


def _best(work: Callable[[], int], rounds: int) -> float:
    best = 0.0
    for _ in range(rounds):
        started = time.process_time()
        rows = work()
        best = max(best, rows / (time.process_time() - started))
    return best


def main() -> None:
    """Print one line per shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    times = {"createdAt": "timestamp", "updatedAt": "timestamp"}
    shapes: list[tuple[str, dict[str, bool], dict[str, str]]] = [
        ("text only", {"numbers": False, "nested": False}, {}),
        ("text, two declared times", {"numbers": False, "nested": False}, times),
        ("with an integer and a fraction", {"numbers": True, "nested": False}, {}),
        ("with a nested list too", {"numbers": True, "nested": True}, {}),
    ]
    print(f"{'shape':34}{'bytes':>7}{'Muxly':>12}{'by hand':>12}   records per CPU second")
    for title, shape, types in shapes:
        pages = _pages(arguments.records, **shape)
        size = sum(map(len, pages)) // arguments.records
        ours = _best(lambda pages=pages, types=types: _muxly(pages, types), arguments.rounds)  # type: ignore[misc]
        hand = _best(lambda pages=pages: _by_hand(pages), arguments.rounds)  # type: ignore[misc]
        print(f"{title:34}{size:7}{ours:12,.0f}{hand:12,.0f}")


if __name__ == "__main__":
    main()
