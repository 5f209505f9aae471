"""Imports other people's code: with a time limit, and with every way it can fail told in words."""

import importlib
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, TypeVar, cast

from muxly_dagster.errors import ConfigurationError, MuxlyError

_T = TypeVar("_T")

SECONDS = 20.0
"""How long one import may take."""

_VARIABLE = "MUXLY_PLUGIN_SECONDS"
_LONGEST = 300  # characters of an error's own text


def seconds_from(environ: Mapping[str, str]) -> float:
    """The time limit that MUXLY_PLUGIN_SECONDS gives, or the usual one. Raises ConfigurationError where it is no number above 0."""
    said = environ.get(_VARIABLE, "")
    try:
        seconds = float(said) if said else SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ConfigurationError(f"{_VARIABLE} is not a number of seconds: {said}", do="set it to a number above 0, such as 60")
    return seconds


def import_value(value: str, seconds: float) -> Any:
    """What an entry point's value names (`module:name.name`). Raises ConfigurationError, in words that go on from the plugin's name."""
    module, _, path = value.partition(":")

    def deed() -> Any:
        found: Any = importlib.import_module(module.strip())
        for name in path.split("[")[0].strip().split(".") if path.strip() else ():
            found = getattr(found, name)
        return found

    return _within(seconds, deed)


def import_file(path: Path, seconds: float) -> ModuleType:
    """A file or package as a module. Files of one folder may import each other (`from .shared import ...`). Raises as `import_value`."""
    parent = f"muxly_plugins_{sha256(str(path.parent).encode()).hexdigest()[:12]}"
    if parent not in sys.modules:
        package = ModuleType(parent, f"The plugins in {path.parent}.")
        package.__path__ = [str(path.parent)]
        sys.modules[parent] = package
    name = f"{parent}.{path.stem}"
    if "." in path.stem:
        raise ConfigurationError("its file's name holds a dot", do=f"rename it: {path.stem.replace('.', '_')}{path.suffix}")
    # An older one is forgotten: this is asked again only when the file has changed.
    for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        del sys.modules[known]
    importlib.invalidate_caches()
    return _within(seconds, lambda: importlib.import_module(name))


def _within(seconds: float, deed: Callable[[], _T]) -> _T:
    """Do it in the importing thread, which is left to itself when the time is over: Python cannot end it, but it ends with the process."""
    global _importer
    answer: SimpleQueue[tuple[_T, None] | tuple[None, BaseException]] = SimpleQueue()

    def run() -> None:
        try:
            answer.put((deed(), None))
        except BaseException as error:  # a plugin may even call sys.exit()
            answer.put((None, error))

    with _lock:
        # A process that was forked has no such thread.
        importer = _importer = _importer if _importer and _importer.thread.is_alive() else _Importer()
    try:
        # Standard output is for results, which machines read: what is printed at import goes to standard error.
        with _printing, redirect_stdout(sys.stderr):
            importer.deeds.put(run)
            done, failed = answer.get(timeout=seconds)
    except Empty:
        with _lock:
            _importer = None if _importer is importer else _importer
        raise ConfigurationError(
            f"its import did not end within {seconds:g} seconds",
            do=f"take out what it waits for at import, or give it more time with {_VARIABLE}",
        ) from None
    if failed is not None:
        raise _told(failed)
    return cast(_T, done)


class _Importer:
    """A thread that imports. It goes on waiting for the next import: what a native library keeps for the thread that loaded it must
    not go away (pyreqwest crashes the process in that case)."""

    def __init__(self) -> None:
        self.deeds: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="muxly-plugins", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            self.deeds.get()()


_importer: _Importer | None = None
_lock = threading.Lock()
_printing = threading.Lock()
"""Held while standard output is another: two that put it back in the wrong order would lose it."""


def _told(error: BaseException) -> ConfigurationError:
    what = f"its import failed with {type(error).__name__}"
    text = error.what if isinstance(error, MuxlyError) else str(error)
    first = next(iter(text.strip().splitlines()), "")[:_LONGEST]
    what += f": {first}" if first else ""
    if place := _place(error):
        what += f" ({place})"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return ConfigurationError(what, do=f"install what brings the module {error.name.partition('.')[0]}, or correct the import")
    return ConfigurationError(what, do="repair or update the plugin, or take it out of `plugins`")


def _place(error: BaseException) -> str:
    """File and line of the plugin's own code, as far as there are any."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno or 1}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    ours = (Path(importlib.__file__ or "").parent, Path(__file__).parent)
    frames = [frame for frame in frames if Path(frame.filename).parent not in ours]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
