from __future__ import annotations

import logging
import re
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from masklet import errors
from masklet.errors import FieldViolation, InvalidArgument, MaskletError, ResourceExhausted, Unavailable
from masklet_server.limit_names import CONTRACT_LIMITS, OTHER_LIMITS
from masklet_server.rpc.status import code_name, to_status
from masklet_server.settings import Settings
from tests.support.rpc import details_of, edge, segment, status_of

ALL_ERRORS = sorted(errors.BY_CODE.values(), key=lambda cls: cls.__name__)


async def raised_at_client(error: BaseException) -> grpc.aio.AioRpcError:
    """What a client sees if the service raises `error`."""

    def fail() -> None:
        raise error

    async with edge() as running, running.stub() as stub:
        running.service.on_segment = fail
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await segment(stub)
    return caught.value


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
async def test_every_error_arrives_with_its_code_message_and_reason(cls: type[MaskletError]) -> None:
    seen = await raised_at_client(cls("what went wrong"))
    assert seen.code().value[0] == cls.code
    assert seen.details() == status_of(seen).message
    if cls is errors.Internal:  # a bug: what it was is in the log, under an id
        assert re.fullmatch(r"internal error \w{12}; search the server's log for this id", str(seen.details()))
    else:
        assert seen.details() == "what went wrong"
    info = details_of(seen)["ErrorInfo"]
    assert info.domain == "masklet"
    assert info.reason.replace("_", "").lower() == cls.__name__.lower()


async def test_wrong_fields_arrive_as_bad_request() -> None:
    seen = await raised_at_client(InvalidArgument.of("prompt.points[0].x", "is NaN"))
    violation = details_of(seen)["BadRequest"].field_violations[0]
    assert (violation.field, violation.description) == ("prompt.points[0].x", "is NaN")


async def test_limits_arrive_as_quota_failure_with_retry_info() -> None:
    error = ResourceExhausted(
        "full", violations=(FieldViolation("max_sessions", "all 2 are taken"),), retry_after_seconds=1.5
    )
    details = details_of(await raised_at_client(error))
    violation = details["QuotaFailure"].violations[0]
    assert (violation.subject, violation.description) == ("max_sessions", "all 2 are taken")
    assert details["RetryInfo"].retry_delay.ToMilliseconds() == 1500
    assert "BadRequest" not in details


async def test_a_limit_without_violations_still_has_a_quota_failure() -> None:
    details = details_of(await raised_at_client(ResourceExhausted("out of memory; use a smaller model")))
    assert details["QuotaFailure"].violations[0].description == "out of memory; use a smaller model"
    assert "RetryInfo" not in details


def test_a_limit_is_named_by_the_flag_that_sets_it() -> None:
    status = to_status(ResourceExhausted("the video is 9x9 pixels; max_side is 4. Scale it down, or max_frame_pixels"))
    assert status.message.endswith(" (set by masklet serve --max-side, --max-frame-pixels)")
    assert to_status(ResourceExhausted("the disk is full")).message == "the disk is full"
    assert to_status(InvalidArgument("max_side")).message == "max_side"


def test_every_limit_is_a_setting() -> None:
    assert {*CONTRACT_LIMITS, *OTHER_LIMITS} <= Settings.model_fields.keys()
    limits = {name for name in Settings.model_fields if name.startswith("max_")}
    assert limits <= {*CONTRACT_LIMITS, *OTHER_LIMITS}


async def test_a_bug_arrives_as_an_id_and_is_logged_under_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        seen = await raised_at_client(KeyError("secret internals"))
    assert seen.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(status_of(seen))
    (record,) = [r for r in caplog.records if r.message == "internal error"]
    error_id: Any = record.__dict__["error_id"]
    assert error_id in (seen.details() or "")
    assert "secret internals" in (record.exc_text or caplog.text)


async def test_two_bugs_have_two_ids() -> None:
    first, second = await raised_at_client(KeyError("a")), await raised_at_client(KeyError("a"))
    assert first.details() != second.details()


async def test_an_enormous_error_still_fits_into_the_trailers() -> None:
    violations = tuple(FieldViolation(f"prompts[{i}]" * 50, "wrong " * 500) for i in range(1000))
    seen = await raised_at_client(InvalidArgument("日本語" * 5000, violations=violations))
    assert seen.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (seen.details() or "").endswith(" ...")
    assert details_of(seen)["BadRequest"].field_violations


@given(message=st.text(), field=st.text(), description=st.text(), seconds=st.none() | st.floats(0, 1e6))
def test_any_text_becomes_a_small_status(message: str, field: str, description: str, seconds: float | None) -> None:
    error = Unavailable(message, violations=(FieldViolation(field, description),), retry_after_seconds=seconds)
    status = to_status(error)
    assert status.code == 14
    assert status.ByteSize() < 4000
    assert any(d.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for d in status.details) == (seconds is not None)


def test_text_that_is_no_unicode_can_be_sent() -> None:
    assert to_status(InvalidArgument("no file \udcff")).message == "no file ?"


def test_code_names() -> None:
    assert code_name(None) == code_name(0) == code_name(grpc.StatusCode.OK) == "OK"
    assert code_name(8) == "RESOURCE_EXHAUSTED"
    assert code_name(99) == "UNKNOWN"
