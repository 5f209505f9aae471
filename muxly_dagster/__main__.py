"""`python -m muxly_dagster` is the same as `muxly`."""

from muxly_dagster.cli import main

if __name__ == "__main__":
    main()
