"""`python -m benchmarks [NAME...]`: measure everything, or what is named; prints a table of figures beside their targets.

BENCH_RECORDS sets the number of records of the large pull (500000), BENCH_LARGE that of the memory test (2000000).
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import projects
from benchmarks.measure import HERE, MUXLY, Cost, api, run

RECORDS = int(os.environ.get("BENCH_RECORDS", "500000"))
LARGE = int(os.environ.get("BENCH_LARGE", "2000000"))
RIVAL = Path(".venv-bench/bin/python").absolute()

Row = tuple[str, str, str, str]


def _row(name: str, figure: float, unit: str, target: float, *, most: bool = False, also: str = "") -> Row:
    met = figure <= target if most else figure >= target
    return name, f"{figure:,.4g} {unit}", f"{'at most' if most else 'at least'} {target:,g}: {'met' if met else 'MISSED'}", also


def _shown(cost: Cost, records: int) -> str:
    return f"{records / cost.cpu:,.0f} records per CPU second ({cost.cpu:.2f} CPU s, {cost.wall:.2f} s, peak {cost.peak:.0f} MiB)"


def pull() -> list[Row]:
    """The large pull, beside dlt and the hand-written script; again with nothing changed; then at four times the size."""
    rows: list[Row] = []
    with api(RECORDS) as url, tempfile.TemporaryDirectory() as folder:
        environ = projects.contacts(Path(folder), url)
        hand = run([sys.executable, str(HERE / "rivals" / "hand_written.py"), url, folder])
        rows.append(("hand-written pull", "", "", _shown(hand, RECORDS)))
        first = run([*MUXLY, "run", "bench.contacts", "--json"], **environ)
        assert json.loads(first.output)[0]["changed"] == RECORDS
        rows.append(("muxly pull", "", "", _shown(first, RECORDS)))
        rows.append(_row("muxly against the hand-written script", hand.cpu / first.cpu, "times", 2))
        if RIVAL.exists():
            dlt = run([str(RIVAL), str(HERE / "rivals" / "dlt_pull.py"), url, folder])
            rows.append(("dlt pull", "", "", _shown(dlt, RECORDS)))
            rows.append(_row("muxly against dlt", dlt.cpu / first.cpu, "times", 10))
        rows.append(_row("peak memory of the pull", first.peak, "MiB", 300, most=True))
        second = run([*MUXLY, "run", "bench.contacts", "--json"], **environ)
        assert json.loads(second.output)[0]["changed"] == 0
        rows.append(
            _row(
                "second pull, nothing changed, against the first",
                second.cpu / first.cpu,
                "times",
                1,
                most=True,
                also=_shown(second, RECORDS),
            )
        )
    with api(LARGE) as url, tempfile.TemporaryDirectory() as folder:
        large = run([*MUXLY, "run", "bench.contacts", "--json"], **projects.contacts(Path(folder), url))
        rows.append(_row(f"peak memory at {LARGE:,} records", large.peak, "MiB", 300, most=True, also=_shown(large, LARGE)))
    return rows


def postgres() -> list[Row]:
    """From the lake into Postgres by upsert: 300,000 records into an empty table, then again over the same rows."""
    from muxly_dagster_tests.peers import postgres as server

    count = 300_000
    with api(count) as url, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        address = server.shared(Path(folder), buffers="128MB")
        stack.callback(server.stop, Path(folder))
        environ = projects.contacts(Path(folder), url, stack.enter_context(server.fresh_database(address)))
        run([*MUXLY, "run", "bench.contacts", "--json"], **environ)
        fresh = json.loads(run([*MUXLY, "run", "out.warehouse", "--json"], **environ).output)[0]
        again = json.loads(run([*MUXLY, "run", "out.warehouse", "--from-start", "--json"], **environ).output)[0]
        return [
            _row("lake to Postgres, new rows", fresh["accepted"] / fresh["seconds"], "records/s", 100_000),
            _row("lake to Postgres, upsert over existing rows", again["accepted"] / again["seconds"], "records/s", 100_000),
        ]


def offset() -> list[Row]:
    """Offset paging against a server that takes 20 ms a page, 16 requests in flight."""
    count = 200_000
    with api(count, delay=0.02) as url, tempfile.TemporaryDirectory() as folder:
        report = json.loads(run([*MUXLY, "run", "bench.numbered", "--json"], **projects.contacts(Path(folder), url)).output)[0]
        assert report["changed"] == count
        return [_row("offset paging, 20 ms a page, 16 in flight", count / 100 / report["seconds"], "pages/s", 500)]


def load() -> list[Row]:
    """Loading a project of 1,000 pulls and 1,000 routes as Dagster does; one small pull as a whole process."""
    with tempfile.TemporaryDirectory() as folder:
        code = "from muxly_dagster.definitions import defs; print(len(list(defs.resolve_all_asset_specs())))"
        cost = run([sys.executable, "-c", code], **projects.many(Path(folder), 1000))
        assert int(cost.output) >= 2000
    with api(100) as url, tempfile.TemporaryDirectory() as folder:
        environ = projects.contacts(Path(folder), url)
        run([*MUXLY, "run", "bench.contacts", "--json"], **environ)
        small = run([*MUXLY, "run", "bench.contacts", "--json"], **environ)
    return [
        _row("loading 1,000 pulls and 1,000 routes", cost.wall, "s", 10, most=True),
        _row("muxly run of one small pull", small.wall, "s", 5, most=True, also=f"{small.cpu:.2f} CPU s, peak {small.peak:.0f} MiB"),
    ]


def rules() -> list[Row]:
    """Ten and fifty rules over 100,000 records, in batches as a delivery has them."""
    import pyarrow as pa

    from muxly_dagster.routing import Router, Rule

    count = 100_000
    rows = pa.table(
        {"amount": pa.array(range(count)), "stage": ["closedwon" if n % 3 else "open" for n in range(count)], "city": ["Berlin"] * count}
    )
    found = []
    for many, most in ((10, 0.2), (50, 1.0)):
        router = Router(
            [Rule(f"amount > {n * 1900} and stage = 'closedwon' and city like 'B%{n}'", (f"d{n}",)) for n in range(many)], match="all"
        )
        router.route(rows.slice(0, 100), "d0")
        started = time.process_time()
        for at in range(0, count, 50_000):
            router.decide(rows.slice(at, 50_000))
        found.append(_row(f"{many} rules over 100,000 records", time.process_time() - started, "CPU s", most, most=True))
    return found


def down() -> list[Row]:
    """What a destination that is down costs another one of the same route: the other's own seconds, beside a run without the first."""
    with tempfile.TemporaryDirectory() as folder:
        environ = projects.one_down(Path(folder), 200_000)
        run([*MUXLY, "run", "shop.orders", "--json"], **environ)
        alone, beside = [], []
        for _ in range(3):
            [report] = json.loads(run([*MUXLY, "run", "out.archive", "--from-start", "--json"], **environ).output)
            alone.append(report["seconds"])
            reports = json.loads(run([*MUXLY, "run", "out", "--from-start", "--json"], fails=True, **environ).output)
            status = {each["asset"]: each["status"] for each in reports}
            assert status == {"out.archive": "ok", "out.hook": "failed"}, status
            beside.append(next(each["seconds"] for each in reports if each["asset"] == "out.archive"))
    return [_row("a destination beside one that is down, against alone", min(beside) / min(alone), "times the seconds", 1.2, most=True)]


def bigquery() -> list[Row]:
    """Recorded answers of BigQuery's Storage Read API, 20 columns, into Arrow of the lake's types and into the lake; best of three."""
    from benchmarks import bigquery as recorded

    with recorded.served(RECORDS) as connector:
        return [
            _row("BigQuery rows of 20 columns into Arrow", max(recorded.read(connector) for _ in range(3)), "rows/s", 1_000_000),
            _row("BigQuery rows of 20 columns into the lake", max(recorded.store(connector) for _ in range(3)), "rows/s", 1_000_000),
        ]


def sqlpull() -> list[Row]:
    """Postgres into Arrow and into the lake, a million rows of ten columns; best of three."""
    from benchmarks import sqlpull as table

    with table.filled(1_000_000) as url:
        rounds = [table.measured(url) for _ in range(3)]
    peak = f"peak {min(r.peak for r in rounds):.0f} MiB"
    return [
        _row("Postgres rows of 10 columns into the lake", max(r.lake for r in rounds), "rows/s", 300_000, also=peak),
        _row("the same rows again, nothing changed", max(r.again for r in rounds), "rows/s", 300_000),
    ]


def upsert() -> list[Row]:
    """A million changed rows of ten columns over existing ones in Postgres, beside dlt's merge; best of three."""
    from benchmarks import upsert as table

    count = 1_000_000
    with table.filled(count) as (server, folder):
        rounds = [table.measured(server, folder, count) for _ in range(3)]
    alone, dlt = max(r.alone for r in rounds), max((r.dlt for r in rounds if r.dlt), default=None)
    rows = [
        _row("upsert of changed rows into Postgres, the destination alone", alone, "rows/s", 150_000),
        _row("the same from the lake", max(r.from_lake for r in rounds), "rows/s", 150_000),
        _row("first load into Postgres, the destination alone", max(r.first for r in rounds), "rows/s", 150_000),
    ]
    by_cpu = max(r.alone_by_cpu for r in rounds), max((r.dlt_by_cpu for r in rounds if r.dlt_by_cpu), default=0.0)
    also = f"by CPU second of client and server {by_cpu[0]:,.0f}, dlt {by_cpu[1]:,.0f} rows"
    return rows + ([_row("upsert against dlt's merge", alone / dlt, "times", 3, also=f"dlt {dlt:,.0f} rows/s; {also}")] if dlt else [])


def hubspot() -> list[Row]:
    """HubSpot contacts with 20 properties, beside airbyte-cdk; the figures themselves are printed on the way."""
    from benchmarks import hubspot as contacts

    return [_row(f"HubSpot contacts against airbyte-cdk, {what}", times, "times", contacts.TARGET) for what, times in contacts.compared()]


def concurrency() -> list[Row]:
    """What a manifest's concurrent paths use of what its `limits` allow, against a server that takes 50 ms for each answer."""
    from benchmarks import concurrency as paths

    with paths.served() as url:
        return [
            _row(f"{what}, of {limits}", 100 * paths.share(url, path, limits), "%", 75)
            for path, what in paths.PATHS.items()
            for limits in paths.LIMITS
        ]


def objects() -> list[Row]:
    """A million rows of ten columns into files and into a bucket, alone and on the road from a lake; best of three."""
    from benchmarks import objects as archive

    found: list[Row] = []
    for title, best in archive.compared(1_000_000, 3):
        also = f"{best.alone_cpu:,.0f} per CPU second; on the road {best.road:,.0f} rows/s, {best.road_cpu:,.0f} per CPU second"
        wanted = 500_000 if title in ("Parquet files", "Parquet objects in S3") else 0
        found.append(_row(title, best.alone, "rows/s", wanted, also=f"{also}; peak {best.peak:.0f} MiB"))
    return found


def webhook() -> list[Row]:
    """10,000 records to a webhook one by one, 50 under way, receipts stored; beside what its sink takes, on the same processors."""
    from benchmarks import webhook as posts

    figures = posts.measured()
    alone, threads, whole = (figures[name] for name in (posts.ALONE, posts.THREADS, posts.WHOLE))
    also = (
        f"the sink alone takes {alone.rate:,.0f}/s, a thread for each request sends {threads.rate:,.0f}/s; {whole.cpu:.3f} CPU s per 1,000"
    )
    return [_row("webhook, lake to receipts, 50 under way", whole.rate, "records/s", 5_000, also=also)]


def starting() -> list[Row]:
    """From a call of a webhook to the first op of its run, with `muxly dev` on the demo."""
    import statistics

    from benchmarks import starting as calls

    figures = calls.measured()
    steps = {
        "answered": [figure.answered for figure in figures],
        "asked for": [figure.asked for figure in figures],
        "process there": [figure.process for figure in figures],
        "project loaded": [figure.loaded for figure in figures],
    }
    also = ", ".join(f"{name} after {statistics.median(seconds):.2f} s" for name, seconds in steps.items())
    return [
        _row("webhook to the first op of its run, median", statistics.median(f.first_op for f in figures), "s", 2.5, most=True, also=also)
    ]


def collect() -> list[Row]:
    """Events posted to one API process, one by one and in hundreds, on SQLite and on Postgres; the generator shares the processors."""
    from contextlib import nullcontext

    from benchmarks import collect as posts

    found: list[Row] = []
    with posts.bare() as (port, pid):
        for events in (posts.SINGLE, posts.HUNDREDS):
            limit = posts.measured(port, pid, events)
            also = f"{limit.requests:,.0f} requests/s, p99 {limit.p99:.1f} ms"
            found.append((f"uvicorn that does nothing, {events} a request", "", "", also))
    for name in ("SQLite", "Postgres"):
        with posts.postgres() if name == "Postgres" else nullcontext("") as url:
            for events in (posts.SINGLE, posts.HUNDREDS):
                with posts.served(url) as (port, pid, _):
                    figure = posts.measured(port, pid, events)
                also = f"{figure.cpu:.3f} CPU s per 1,000 requests, peak {figure.peak:.0f} MiB"
                if events == posts.SINGLE:
                    found.append(_row(f"single events posted, {name}", figure.requests, "requests/s", 8_000, also=also))
                else:
                    found.append(_row(f"events posted in hundreds, {name}", figure.events, "events/s", 200_000, also=also))
                found.append(_row("the same, p99", figure.p99, "ms", 40, most=True, also=f"median {figure.median:.1f} ms"))
    held = posts.steady(30)
    return [*found, _row("memory of the API, from the middle of a load to its end", held[-1] / held[3], "times", 1.1, most=True)]


def inbox() -> list[Row]:
    """What waits in the inbox into the lake: a million events on SQLite, three million for the memory, half a million on Postgres."""
    from benchmarks import inbox as waiting
    from muxly_dagster_tests.peers import postgres as server

    found: list[Row] = []
    for events in (1_000_000, 3_000_000):
        with waiting.filled(events) as (folder, database):
            drained = waiting.drained(folder, database, events)
        also = f"{drained.cpu:,.0f} per CPU second"
        found.append(_row(f"{events:,} inbox events into the lake, SQLite", drained.rate, "events/s", 100_000, also=also))
        found.append(_row(f"peak memory at {events:,} events", drained.peak, "MiB", 400, most=True))
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        address = server.shared(Path(place), buffers="128MB")
        stack.callback(server.stop, Path(place))
        folder, database = stack.enter_context(waiting.filled(500_000, stack.enter_context(server.fresh_database(address))))
        drained = waiting.drained(folder, database, 500_000)
    return [*found, _row("500,000 inbox events into the lake, Postgres", drained.rate, "events/s", 100_000)]


MEASUREMENTS: dict[str, Callable[[], list[Row]]] = {
    f.__name__: f
    for f in (
        pull,
        postgres,
        offset,
        concurrency,
        rules,
        down,
        load,
        bigquery,
        sqlpull,
        upsert,
        hubspot,
        objects,
        webhook,
        starting,
        collect,
        inbox,
    )
}


def main(names: list[str]) -> None:
    """Measure, and print as a Markdown table."""
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        sys.exit(f"no measurement {', '.join(unknown)}; there are: {', '.join(MEASUREMENTS)}")
    print("| what | figure | target | more |\n|---|---|---|---|")
    for name in names or MEASUREMENTS:
        for row in MEASUREMENTS[name]():
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
