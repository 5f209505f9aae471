"""Dagster's code server, run as `python -m muxly_dagster.serving.code_server code-server start ...`; ends when what it stands before has.

It has the project loaded in a process beside itself, so that it can load it anew, and passes all it is asked on to that one. Where that
one is killed, or ends because it was not heard of for half a minute (a computer that slept), Dagster 1.13.27 goes on answering with
errors for ever (dagster/_grpc/proxy_server.py). Here it ends too, and whoever watches it starts both again.
"""

import os
import sys
import threading
import time

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_STOP = 5.0
"""One that was asked to stop has none left either, and is through by then."""


def main() -> None:
    """Be the code server."""
    if hasattr(os, "waitid"):  # macOS has it since Python 3.13
        threading.Thread(target=end_without_children, name="code-server-children", daemon=True).start()
    from dagster._cli import main as dagster  # slow to import

    dagster()  # type: ignore[no-untyped-call]


def end_without_children() -> None:
    """End this process once it has had children and none is left. A reload starts the new one before it ends the old."""
    had = False
    while True:
        try:
            # Asked, not waited for: a child that is reaped by others meanwhile would never be told of. Nor reaped here: Dagster does that,
            # every 5 seconds, and wants to know how they ended.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            had = True
        except ChildProcessError:
            if had:
                break
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    time.sleep(_SECONDS_TO_STOP)
    print("error: the process that has the project loaded has ended, so the code server ends", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
