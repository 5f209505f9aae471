"""Runs the demo's API alone: `python -m muxly_dagster.demo --port 8765 --day 1`."""

import argparse
import sys

from muxly_dagster.demo.api import run
from muxly_dagster.errors import MuxlyError


def main() -> int:
    """Serve until interrupted; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m muxly_dagster.demo", description="Serve the API that the Muxly demo pulls from.")
    parser.add_argument("--port", type=int, default=8765, help="the port on 127.0.0.1; 0 takes a free one (default: 8765)")
    parser.add_argument("--day", type=int, default=1, help="the day to show, from 1; each changes some records (default: 1)")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input does")
    arguments = parser.parse_args()
    try:
        run(arguments.port, arguments.day, sys.stdin if arguments.until_stdin_closes else None)
    except MuxlyError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
