from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from masklet.errors import InvalidArgument
from masklet_server.addresses import is_loopback, network_of, split_address
from masklet_server.session.limits import SessionLimits
from masklet_server.settings import Settings, checked
from masklet_server.settings.sources import load_settings
from masklet_server.video.limits import VideoLimits


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("MASKLET_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "masklet.toml"
    path.write_text('max_sessions = 2\nwindow = 3\ngrace_seconds = 4\nmodels = ["nano", "sam2.1-tiny"]\n')
    return path


def test_defaults_are_those_of_the_limits_they_make() -> None:
    settings = Settings()
    assert settings.address == "127.0.0.1:50051"
    assert settings.models == ("nano",)
    assert settings.video_limits == VideoLimits()
    assert checked({"sandbox": "strict"}).video_limits == VideoLimits(strict_sandbox=True)
    assert settings.session_limits == SessionLimits()


@pytest.mark.parametrize("limits", [VideoLimits, SessionLimits])
def test_every_limit_can_be_set(limits: type) -> None:
    names = {field.name for field in dataclasses.fields(limits)} - {
        "strict_sandbox",
        "scaling",
    }  # set by `sandbox`, and by models
    assert names <= set(Settings.model_fields)


def test_limits_follow_the_settings() -> None:
    settings = checked({"max_upload_bytes": "3MiB", "max_frames": 7, "window": 2})
    assert settings.video_limits == VideoLimits(max_upload_bytes=3 * 1024**2, max_frames=7)
    assert settings.session_limits == SessionLimits(window=2)


def test_flags_over_environment_over_file_over_defaults(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_MAX_SESSIONS", "20")
    monkeypatch.setenv("MASKLET_WINDOW", "30")
    loaded = load_settings({"max_sessions": "200"}, config=config)
    settings = loaded.settings
    assert (settings.max_sessions, settings.window, settings.grace_seconds, settings.max_objects) == (200, 30, 4.0, 64)
    assert loaded.origins["max_sessions"] == "--max-sessions"
    assert loaded.origins["window"] == "MASKLET_WINDOW"
    assert loaded.origins["grace_seconds"] == str(config)
    assert loaded.origins["max_objects"] == "default"


def test_config_file_named_by_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_CONFIG", str(config))
    assert load_settings().settings.models == ("nano", "sam2.1-tiny")


def test_lists_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_MODELS", "nano, sam2.1-large")
    assert load_settings().settings.models == ("nano", "sam2.1-large")


def test_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_WINDOW", "")
    assert load_settings().settings.window == 64


def test_printed_settings_give_the_same_settings(tmp_path: Path) -> None:
    values = {
        "models": ("nano", 'odd "name" \\ é'),
        "max_upload_bytes": "1GiB",
        "token_file": "/run/tokens",
        "insecure": True,
        "requests_per_second": 1.5,
        "dtype": "float32",
    }
    loaded = load_settings(values)
    again = tmp_path / "again.toml"
    again.write_text(loaded.to_toml(), encoding="utf-8")
    assert load_settings(config=again).settings == loaded.settings


def test_printed_settings_tell_where_each_is_from(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_LOG_LEVEL", "debug")
    lines = load_settings({"models": ("nano",), "grace_seconds": "1"}, config=config).to_toml().splitlines()
    assert 'address = "127.0.0.1:50051"  # default' in lines
    assert 'models = ["nano"]  # --model' in lines
    assert "grace_seconds = 1.0  # --grace" in lines
    assert 'log_level = "debug"  # MASKLET_LOG_LEVEL' in lines
    assert f"max_sessions = 2  # {config}" in lines
    assert '# token_file = ""  # default' in lines


def test_printed_settings_hold_no_secret(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("s3cret\n")
    assert "s3cret" not in load_settings({"token_file": tokens}).to_toml()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_session = 2", "max_session: is not a setting .*; did you mean max_sessions?"),
        ("[limits]\nmax_sessions = 2", "limits: is not a setting .*there are no tables"),
        ("max_sessions = -1", "max_sessions: .* greater than or equal to 0 .from .*masklet.toml"),
        ("max_sessions = ", "is not a readable TOML file"),
        ('dtype = "float16"', "dtype: .*'float32' or 'bfloat16'"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "masklet.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        load_settings(config=path)


def test_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="there is no file"):
        load_settings(config=tmp_path / "none.toml")


def test_misspelt_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_MAX_SESSION", "3")
    with pytest.raises(InvalidArgument, match=r"did you mean MASKLET_MAX_SESSIONS\?"):
        load_settings()


@pytest.mark.parametrize(
    "name", ["MASKLET_CACHE", "MASKLET_PORT", "MASKLET_PORT_50051_TCP_ADDR", "MASKLET_SERVICE_HOST", "MASKLET_FOO"]
)
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:50051")
    assert load_settings().settings == Settings()


def test_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_WINDOW", "many")
    with pytest.raises(InvalidArgument, match=r"window: .*from MASKLET_WINDOW"):
        load_settings()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"address": "localhost"}, "address"),
        ({"address": "127.0.0.1:65536"}, "address"),
        ({"address": ""}, "address"),
        ({"address": "::1:50051"}, "address"),
        ({"metrics_address": "unix:/tmp/x"}, "metrics_address"),
        ({"models": ()}, "models"),
        ({"models": ("a", "a")}, "models"),
        ({"device": "gpu"}, "device"),
        ({"window": 0}, "window"),
        ({"idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"grace_seconds": float("nan")}, "grace_seconds"),
        ({"max_upload_bytes": "lots"}, "max_upload_bytes"),
        ({"picture_cache_bytes": -1}, "picture_cache_bytes"),
        ({"max_message_bytes": "4GiB"}, "max_message_bytes"),
        ({"log_level": "loud"}, "log_level"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked(values)
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "localhost:0", "unix:/tmp/x", "unix-abstract:x"]
)
def test_addresses_of_this_machine_need_nothing(address: str) -> None:
    assert is_loopback(address)
    assert checked({"address": address}).address == address


TLS = {"tls_certificate": "/c.pem", "tls_key": "/k.pem"}
TOKEN = {"token_file": "/tokens"}


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:50051", "gpu-box:50051"])
@pytest.mark.parametrize("given", [{}, TLS, TOKEN], ids=["nothing", "TLS alone", "token alone"])
def test_other_addresses_are_refused_without_both_tls_and_token(address: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"other machines can reach .*: give tls_certificate.*give insecure"):
        checked({"address": address, **given})


@pytest.mark.parametrize(
    "given",
    [{**TLS, **TOKEN}, {**TLS, "tls_client_ca": "/ca.pem"}, {"insecure": True}],
    ids=["TLS and token", "mutual TLS", "insecure"],
)
def test_other_addresses_are_allowed_with(given: dict[str, Any]) -> None:
    assert checked({"address": "0.0.0.0:50051", **given}).address == "0.0.0.0:50051"


@pytest.mark.parametrize(
    "given",
    [{"tls_certificate": "/c.pem"}, {"tls_key": "/k.pem"}, {"tls_client_ca": "/ca.pem"}],
    ids=lambda g: next(iter(g)),
)
def test_half_of_tls_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="tls_certificate"):
        checked(given)


def test_split_address() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("host:0") == ("host", 0)
    assert split_address("unix:/tmp/x") is None
    assert split_address("host") is None


@pytest.mark.parametrize(
    ("host", "prefix", "network"),
    [
        ("192.0.2.7", 64, "192.0.2.7"),
        ("::ffff:192.0.2.7", 64, "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3:4:5:6", 48, "2001:db8:1::/48"),
        ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"),
        ("fe80::1%eth0", 64, "fe80::/64"),
        ("::1", 64, "::1"),
        ("unix", 64, "unix"),
    ],
)
def test_a_network_counts_as_one_client(host: str, prefix: int, network: str) -> None:
    assert network_of(host, prefix) == network
