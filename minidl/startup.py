"""Ctrl-C while the command `minidl` is still being imported ends it without a traceback.

Imported first by `minidl`: the whole package is imported before `minidl.cli.main` can handle anything.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType


def _is_command() -> bool:
    """Whether this process began as ``minidl COMMAND`` or ``python -m minidl COMMAND``."""
    program = sys.argv[0] if sys.argv else ""
    name, _ = os.path.splitext(os.path.basename(program))
    return name == "minidl" or (program == "-m" and "minidl" in sys.orig_argv)


if _is_command():
    _shown = sys.excepthook

    def _quiet(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.exit(130)
        _shown(kind, error, traceback)

    sys.excepthook = _quiet
