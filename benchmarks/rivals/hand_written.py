"""What a careful engineer writes by hand: httpx, orjson, pyarrow; one connection, batches, one Parquet file. No checkpoint, no diff.

usage: hand_written.py BASE_URL FOLDER
"""

import sys

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq


def main(base_url: str, folder: str) -> None:
    """Pull all contacts, flattened, into one Parquet file."""
    client = httpx.Client(base_url=base_url, timeout=60)
    writer, rows, total, after = None, [], 0, "0"
    while after is not None:
        answer = client.get("/contacts", params={"after": after, "limit": 100})
        answer.raise_for_status()
        page = orjson.loads(answer.content)
        for record in page["results"]:
            properties = record.pop("properties")
            properties.update(record)
            rows.append(properties)
        after = page.get("paging", {}).get("next", {}).get("after")
        if len(rows) >= 5000 or after is None:
            table = pa.Table.from_pylist(rows)
            writer = writer or pq.ParquetWriter(f"{folder}/contacts.parquet", table.schema, compression="zstd")
            writer.write_table(table)
            total += len(rows)
            rows = []
    if writer:
        writer.close()
    print(total)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
