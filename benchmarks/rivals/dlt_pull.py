"""The same pull with dlt's own rest_api source into Parquet files.

usage: dlt_pull.py BASE_URL FOLDER      (in a virtual environment that has `dlt[parquet]`)
"""

import sys

import dlt
from dlt.sources.rest_api import rest_api_source


def main(base_url: str, folder: str) -> None:
    """Pull all contacts into Parquet files in the folder."""
    source = rest_api_source(
        {
            "client": {"base_url": base_url, "paginator": {"type": "cursor", "cursor_path": "paging.next.after", "cursor_param": "after"}},
            "resources": [
                {
                    "name": "contacts",
                    "primary_key": "id",
                    "endpoint": {"path": "contacts", "params": {"limit": 100}, "data_selector": "results"},
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        "bench", destination=dlt.destinations.filesystem(f"file://{folder}/out"), dataset_name="bench", pipelines_dir=f"{folder}/state"
    )
    pipeline.run(source, loader_file_format="parquet")
    print(pipeline.last_trace.last_normalize_info.row_counts["contacts"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
