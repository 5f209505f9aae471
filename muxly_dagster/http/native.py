"""Loads pyreqwest in a thread that never ends: when the one that first imported it is gone, its next use crashes the process."""

import importlib
import threading


def load() -> bool:
    """Import it, wherever this is called; whether it can be had on this platform. Seen with pyreqwest 0.15.1 on CPython 3.11."""
    if threading.current_thread() is threading.main_thread():
        return _imported()
    found: list[bool] = []
    done = threading.Event()

    def stay() -> None:
        try:
            found.append(_imported())
        finally:
            done.set()
        threading.Event().wait()

    threading.Thread(target=stay, name="muxly-native", daemon=True).start()
    done.wait()
    return bool(found) and found[0]


def _imported() -> bool:
    try:
        importlib.import_module("pyreqwest.client")
    except ImportError:  # no wheel for this platform
        return False
    return True
