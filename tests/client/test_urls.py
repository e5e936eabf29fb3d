"""No password of a URL is shown, whatever it consists of."""

from __future__ import annotations

import logging
import sys

import pytest

import masklet
from masklet._urls import without_secrets
from masklet_server.logs import JsonFormatter, LineFormatter


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:hidden@cam/a", "rtsp://cam/a"),
        ("rtsp://user:hid@den@cam:554/a?x=1", "rtsp://cam:554/a?x=1"),
        ("rtsp://user:hid/den@cam/a", "rtsp://cam/a"),
        ("rtsp://user:hid@x/den@cam/a", "rtsp://cam/a"),
        ("rtsp://user:12/34hidden@cam/a", "rtsp://cam/a"),
        ("rtsp://user:hid?den@cam/a", "rtsp://cam/a"),
        ("https://hidden@host/a.m3u8", "https://host/a.m3u8"),
        ("http://h/x?user=a&password=hidden&y=1#z", "http://h/x?user=a&password=...&y=1#z"),
        ("rtsp://cam/user=admin_password=hidden_channel=1.sdp", "rtsp://cam/user=admin_password=..."),
        ("https://b.s3/x?X-Amz-Signature=hidden&a=1", "https://b.s3/x?X-Amz-Signature=...&a=1"),
        ("cannot open 'RTSP://u:hidden@h/a' and udp://h", "cannot open 'RTSP://h/a' and udp://h"),
        ("http://host/@name/x.m3u8", "http://host/@name/x.m3u8"),
        ("http://host:80/x?mail=a@b.c", "http://host:80/x?mail=a@b.c"),
        ("rtsp://[::1]:80/a", "rtsp://[::1]:80/a"),
        ("somebody@example.org, max_side=4, tls_key=/a/b", "somebody@example.org, max_side=4, tls_key=/a/b"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    assert "hidden" not in shown


URL = "rtsp://user:hidden@cam/a"


@pytest.mark.parametrize("error", [masklet.DataLoss(f"{URL} broke off"), masklet.InvalidArgument.of("video", URL)])
def test_errors_do_not_carry_it(error: masklet.MaskletError) -> None:
    shown = [str(error), repr(error), repr(error.args), repr(error.violations), error.message]
    assert "hidden" not in "".join(shown)
    assert "rtsp://cam/a" in error.message


def test_a_source_url_does_not_print_it() -> None:
    assert repr(masklet.SourceUrl(URL)) == "SourceUrl('rtsp://cam/a')"


@pytest.mark.parametrize("formatter", [LineFormatter(), JsonFormatter()])
def test_servers_do_not_log_it(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(URL)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "fetching %s", (URL,), sys.exc_info())
        record.source = URL
        line = formatter.format(record)
    assert "hidden" not in line
    assert line.count("rtsp://cam/a") >= 3
