from __future__ import annotations

import json
import logging
import sys
from typing import Any

from masklet_server.logs import JsonFormatter, LineFormatter


def record(message: str, exc_info: Any = None, **fields: Any) -> logging.LogRecord:
    logger = logging.getLogger("masklet_server.test")
    return logger.makeRecord(logger.name, logging.INFO, "file.py", 1, message, (), exc_info, extra=fields)


def failure() -> Any:
    try:
        raise KeyError("lost")
    except KeyError:
        return sys.exc_info()


def test_a_line_has_the_message_and_the_fields() -> None:
    line = LineFormatter().format(record("rpc", client="10.0.0.1", seconds=0.5, subject="CN=a b"))
    assert line.endswith('INFO    rpc client=10.0.0.1 seconds=0.5 subject="CN=a b"')


def test_a_line_cannot_be_forged() -> None:
    line = LineFormatter().format(record("bad\n12:00:00 INFO fine", client="a\nb"))
    assert "\n" not in line


def test_a_line_is_followed_by_the_traceback() -> None:
    assert "KeyError: 'lost'" in LineFormatter().format(record("internal error", failure()))


def test_json_is_one_object_a_line() -> None:
    text = JsonFormatter().format(record("internal\nerror", failure(), error_id="abc"))
    assert "\n" not in text
    entry = json.loads(text)
    assert entry["message"] == "internal\nerror"
    assert entry["level"] == "info"
    assert entry["logger"] == "masklet_server.test"
    assert entry["error_id"] == "abc"
    assert "KeyError: 'lost'" in entry["traceback"]
    assert entry["time"].endswith("Z")
