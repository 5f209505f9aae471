"""The same upsert with dlt: merge by primary key into Postgres, from Parquet files.

usage: dlt_merge.py URL FOLDER STATE POSTMASTER_PID      (in a virtual environment that has `dlt[parquet,postgres]`)
"""

import os
import sys
import time

import dlt
import pyarrow.parquet as pq


def main(url: str, folder: str, state: str, postmaster: str) -> None:
    """Load the rows, then merge the changed ones; print the seconds that the merge took, and the CPU seconds of both sides."""
    credentials = url.replace("@", ":unused@", 1)  # dlt insists on a password
    pipeline = dlt.pipeline(
        "bench", destination=dlt.destinations.postgres(credentials=credentials), dataset_name="bench", pipelines_dir=state
    )
    seconds = cpu = 0.0
    for which in ("before", "after"):

        @dlt.resource(name="events", primary_key="id", write_disposition={"disposition": "merge", "strategy": "upsert"})
        def events(which: str = which):
            yield from (batch for batch in pq.ParquetFile(f"{folder}/{which}.parquet").iter_batches(100_000))

        started, spent = time.monotonic(), _spent(postmaster)
        pipeline.run(events(), loader_file_format="csv")
        seconds, cpu = time.monotonic() - started, _spent(postmaster) - spent
    with pipeline.sql_client() as client, client.execute_query("select count(*) from events") as cursor:
        print(cursor.fetchone()[0], "rows")
    print(seconds, cpu)


def _spent(postmaster: str) -> float:
    with open(f"/proc/{postmaster}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(os.times()[:4]) + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(*sys.argv[1:])
