"""The log lines of a node: configured once, in `__main__`, written to standard error.

Lines name ids and sizes (`extra=`), never the text of a message. Libraries may write warnings only: some of them
put whole SQL parameters or request bodies into their debug lines.
"""

import logging
import traceback
from datetime import UTC, datetime
from typing import Literal, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

OURS = "engram"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""Attributes that every record has; what is there beyond them came in by `extra=`."""

_STYLES = {"DEBUG": "dim", "INFO": "green", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


def configure(*, level: str, form: Literal["pretty", "json"], stream: TextIO) -> None:
    """Send our lines of `level` and above, and libraries' warnings, to `stream`; replaces what was set up before."""
    handler: logging.Handler = PrettyHandler(stream) if form == "pretty" else logging.StreamHandler(stream)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger(OURS).setLevel(level.upper())


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what the caller gave as `extra=`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and the traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            **fields(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = _traceback(record)
        return msgspec.json.encode(line, enc_hook=str).decode()


class PrettyHandler(logging.Handler):
    """Lines for people: coloured on a terminal, plain in a pipe, and never wrapped, so that `grep` finds them."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._console = Console(file=stream, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._console.print(self._line(record))
        except Exception:  # noqa: BLE001 - a line that cannot be written must not stop the node
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> Text:
        line = Text(f"{_time(record)} ", style="dim", end="")
        line.append(f"{record.levelname:<8}", style=_STYLES.get(record.levelname, ""))
        line.append(record.getMessage(), style="not dim")
        for name, value in fields(record).items():
            line.append(f" {name}=", style="cyan").append(str(value), style="not dim")
        if record.exc_info:
            line.append(f"\n{_traceback(record)}", style="not dim")
        return line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(record: logging.LogRecord) -> str:
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip() if record.exc_info else ""
