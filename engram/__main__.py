"""`python -m engram` and the console script `engram`."""

import logging
import os
import signal
import sys
import traceback
from types import FrameType

from engram.allocator import spare_collections

STOPPED = 0
INTERRUPTED = 130


def main() -> None:
    """Run the command line with the process's own arguments and end the process with its code.

    At once, without waiting for threads: what is ours is on the disk by now, and a library that is still importing or
    merging something would only hold up whoever waits for the process to end.
    """
    try:
        signal.signal(signal.SIGINT, _leave)
        if sys.argv[1:2] == ["serve"]:  # it takes over when its loop runs; other commands just end at a SIGTERM
            signal.signal(signal.SIGTERM, _leave)
        from engram.cli import main as run  # noqa: PLC0415 - takes a second, in which it may be told to stop

        signal.signal(signal.SIGINT, signal.default_int_handler)
        spare_collections()
        code = run(sys.argv[1:])
    except BaseException:  # noqa: BLE001 - the last boundary: a bug is shown, and must not leave a process hanging
        traceback.print_exc()
        code = 1
    logging.shutdown()
    sys.stderr.flush()  # standard output is flushed by the command, which knows what a reader that has gone means
    os._exit(code)


def _leave(number: int, _frame: FrameType | None) -> None:
    """End the process before it has begun anything: no file is open yet."""
    os._exit(STOPPED if number == signal.SIGTERM else INTERRUPTED)


if __name__ == "__main__":
    main()
