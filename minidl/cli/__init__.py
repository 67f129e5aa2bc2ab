"""The command line. ``minidl COMMAND --help`` says what each command takes."""

from __future__ import annotations

import sys
import warnings

from .output import Output, OutputError, console


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status.

    It is 0; 1 for a training that diverged; 2 for a mistake, an error of the machine, and output that cannot be
    written; 130 for Ctrl-C; 141 if the reader of the output went away. A training that was stopped by a signal has 128
    plus the number of the signal, and one whose output cannot be written goes on. Errors are one line on stderr;
    Python's development mode (``python -X dev``) shows where they were raised.
    """
    with console() as output:
        try:
            try:
                return _run(arguments, output)
            finally:
                output.flush()
        except OutputError as error:
            if not error.closed:
                print(f"minidl: {error.strerror}", file=sys.stderr)
            return 141 if error.closed else 2
        except KeyboardInterrupt:
            return 130


def _run(arguments: list[str] | None, output: Output) -> int:
    # Imported here, so that Ctrl-C during the imports is one like any other.
    from ..backend import DeviceError, set_device, set_float32_matmul_precision
    from ..kernels.cpu.threads import set_num_threads
    from ..training import Diverged
    from .parser import parser

    if not (sys.warnoptions or sys.flags.dev_mode):  # what Pillow warns of is refused or read; of NaN, results tell
        warnings.filterwarnings("ignore", module="PIL")
        if arguments is None:
            warnings.simplefilter("ignore", RuntimeWarning)
    options = parser().parse_args(arguments)
    output.needed = not (options.keeps_files or getattr(options, "json", None))
    try:
        if options.threads is not None:
            set_num_threads(options.threads)
        if options.device is not None:
            set_device(options.device)
        if options.precision is not None:
            set_float32_matmul_precision(options.precision)
        return options.command(options)
    except OutputError:
        raise
    except (
        Diverged, DeviceError, ValueError, TypeError, OSError, ModuleNotFoundError, OverflowError, RecursionError,
        MemoryError,
    ) as error:
        if sys.flags.dev_mode:
            raise
        text = f"there is not enough memory. {error}" if isinstance(error, MemoryError) else str(error)
        print(f"minidl: {' '.join(text.split())}", file=sys.stderr)
        return 1 if isinstance(error, Diverged) else 2
