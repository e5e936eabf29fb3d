"""Tokens that nobody but the server can make."""

from __future__ import annotations

import base64

import pytest

from masklet_server.session.resuming.tokens import ResumeTokens, instance_of

ID = "0123456789abcdef" * 2


def test_a_token_names_its_session_to_its_owner_alone() -> None:
    tokens = ResumeTokens()
    token = tokens.token(ID, "me")
    assert tokens.session_id(token, "me") == ID
    assert tokens.session_id(token, "you") is None
    assert tokens.session_id(token, "") is None


def test_another_server_does_not_know_the_token_unless_it_has_the_key() -> None:
    token = ResumeTokens(b"key" * 11).token(ID, "me")
    assert ResumeTokens().session_id(token, "me") is None
    assert ResumeTokens(b"key" * 11).session_id(token, "me") == ID


def test_no_bit_of_a_token_can_be_changed() -> None:
    tokens = ResumeTokens()
    data = base64.urlsafe_b64decode(tokens.token(ID, "me") + "==")
    for position in range(8 * len(data)):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        assert tokens.session_id(base64.urlsafe_b64encode(changed).decode(), "me") is None


def test_anybody_can_read_which_server_has_made_a_token() -> None:
    tokens, others = ResumeTokens(b"key" * 11), ResumeTokens(b"key" * 11)
    assert instance_of(tokens.token(ID, "me")) == tokens.instance_id != others.instance_id
    assert len(tokens.instance_id) == 8
    assert [instance_of(one) for one in ("", "x", "a" * 69, "\u00e4" * 70)] == [""] * 4


@pytest.mark.parametrize("token", ["", "x", "a" * 63, "=" * 8, "\u00e4" * 64, "a" * 100_000, "\0" * 64])
def test_what_is_no_token_names_nothing(token: str) -> None:
    assert ResumeTokens().session_id(token, "me") is None


def test_an_identity_and_an_id_do_not_run_into_each_other() -> None:
    tokens = ResumeTokens()
    assert tokens.token(ID, "a") != tokens.token(ID, "ab")
    assert tokens.session_id(tokens.token(ID, "\udcff"), "\udcff") == ID
