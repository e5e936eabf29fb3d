"""The server's log on stderr: lines for people, or one JSON object on each line for machines.

No password of a URL is logged, whoever put it into a message, a field or a traceback.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from masklet._urls import without_secrets

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure(level: str, *, as_json: bool) -> None:
    """Send messages to stderr, in place of what was configured before.

    Args:
        level: The least important messages to send: "debug", "info", "warning" or "error".
        as_json: Write JSON and not text.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class LineFormatter(logging.Formatter):
    """Lines such as ``12:30:01 INFO    rpc method=... code=OK``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, followed by the traceback, if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {key}={_plain(value)}" for key, value in _fields(record).items())
        line = f"{clock} {record.levelname:<7} {_one_line(record.getMessage())}{fields}"
        return without_secrets(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class JsonFormatter(logging.Formatter):
    """One JSON object on each line: time, level, logger, message, extra fields, and the traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(entry, default=str))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD and key[0] != "_"}


def _plain(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)


def _one_line(text: str) -> str:
    # A message may contain what a client sent, which must forge no line, and tell the operator's terminal nothing.
    return text if text.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
