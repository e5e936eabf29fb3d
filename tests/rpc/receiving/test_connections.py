"""Connections that only cost are ended, and no other ones."""

from __future__ import annotations

import contextlib

import pytest

from masklet_server.rpc.receiving.connections import Account, ConnectionBounds, ConnectionWatch
from masklet_server.rpc.receiving.sockets import Connection, peer_of
from masklet_server.rpc.usage import Usage

MIB = 1024**2
PEER = "ipv4:10.0.0.1:5000"


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:[::1]:5000", ("::1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", ("fe80::1", 5000)),
        ("ipv6:[::ffff:10.0.0.1]:5000", ("10.0.0.1", 5000)),
        ("unix:", None),
        ("unix:/run/x", None),
    ],
)
def test_peers_have_one_name(name: str, peer: tuple[str, int] | None) -> None:
    assert peer_of(name) == peer


class Watched:
    """A watch, its clock, and connections as the system would tell of them."""

    def __init__(self, per_address: int = 4, ipv6_prefix: int = 64) -> None:
        self.now = 0.0
        bounds = ConnectionBounds(per_address, 32 * MIB, ipv6_prefix)
        self.watch = ConnectionWatch(bounds, lambda limit: None, lambda: self.now)
        self.open: dict[int, Connection] = {}

    def has(self, number: int, received: int = 0, *, sent: int = 0, address: str = "10.0.0.1") -> None:
        self.open[number] = Connection((address, 5000 + number), sent, received, number)

    def known(self, number: int = 0) -> Account:
        """A connection of somebody with a token, whose first call is over."""
        self.has(number)
        account = self.watch.account(f"ipv4:10.0.0.1:{5000 + number}")
        with self.watch.admitted(account):
            pass
        assert self.judge() == {}
        return account

    def crowd(self) -> None:
        """Many connections that hold a bit less than each may hold."""
        for number in range(100, 117):
            account = self.watch.account(f"ipv4:10.0.1.{number}:{5000 + number}")
            self.has(number, address=f"10.0.1.{number}")
            with self.watch.admitted(account):
                pass
        self.judge()
        for number in range(100, 117):
            self.has(number, 16 * MIB, address=f"10.0.1.{number}")

    def judge_for_long(self, looks: int = 5) -> dict[str, list[int]]:
        """A connection has a second, in which its bytes may still become calls."""
        for _ in range(looks - 1):
            assert self.judge() == {}
        return self.judge()

    def judge(self, seconds: float = 0.2) -> dict[str, list[int]]:
        self.now += seconds
        return {limit: [one.inode for one in ended] for limit, ended in self.watch.judge(list(self.open.values()))}


def test_a_stranger_may_send_sixteen_mebibytes() -> None:
    watched = Watched()
    watched.has(0, 16 * MIB)
    watched.has(1, 16 * MIB + 100)
    assert watched.judge_for_long(3) == {"connection_bytes": [1]}


def test_strangers_may_send_a_mebibyte_where_many_send_much() -> None:
    watched = Watched(per_address=100)
    for number in range(17):
        watched.has(number, 16 * MIB)
    watched.has(17, MIB)
    watched.has(18, MIB + 100)
    assert watched.judge_for_long(3) == {"connection_bytes": [*range(17), 18]}


def test_somebody_known_may_send_less_where_many_send_much() -> None:
    watched = Watched()
    watched.known(0)
    watched.known(1)
    watched.crowd()
    watched.has(0, 8 * MIB)
    watched.has(1, 8 * MIB + 100)
    assert watched.judge_for_long() == {"connection_bytes": [1, *range(100, 117)]}


def test_a_single_connection_makes_no_crowd() -> None:
    watched = Watched()
    watched.known(0)
    watched.has(0, 60 * MIB)
    watched.has(1, 2000 * MIB)
    watched.has(2, 2 * MIB)
    assert watched.judge_for_long(3) == {"connection_bytes": [1]}


def test_a_connection_whose_bytes_become_calls_may_send_for_ever() -> None:
    watched = Watched()
    account = watched.known()
    for i in range(20):
        watched.has(0, 60 * MIB * i)
        watched.watch.message(account)
        assert watched.judge() == {}
    watched.has(0, 60 * MIB * 19 + 64 * MIB)
    assert watched.judge() == {}
    watched.has(0, 60 * MIB * 19 + 64 * MIB + 100)
    assert watched.judge_for_long() == {"connection_bytes": [0]}


def test_a_call_that_runs_may_send_a_message() -> None:
    watched = Watched()
    account = watched.known()
    with watched.watch.call(account, Usage()), watched.watch.call(account, Usage()):
        watched.judge()
        watched.has(0, (64 + 66) * MIB)
        for _ in range(10):
            assert watched.judge() == {}
        watched.has(0, (64 + 66) * MIB + 100)
        assert watched.judge_for_long() == {"connection_bytes": [0]}
    with watched.watch.admitted(account):
        pass
    watched.has(0, 131 * MIB)
    assert watched.judge() == {}  # a call has ended: something has come of it


def test_calls_of_the_health_service_make_nobody_known() -> None:
    watched = Watched()
    watched.has(0)
    watched.watch.account(PEER)
    watched.judge()
    watched.has(0, 16 * MIB + 100)
    assert watched.judge_for_long(3) == {"connection_bytes": [0]}


def test_what_was_sent_before_a_first_look_is_not_held_against_a_call() -> None:
    watched = Watched()
    account = watched.watch.account(PEER)
    with watched.watch.admitted(account):
        watched.watch.message(account)
    watched.has(0, 320 * MIB)
    for _ in range(10):
        assert watched.judge() == {}


def test_long_results_are_acknowledged() -> None:
    watched = Watched()
    watched.known()
    watched.has(0, 65 * MIB, sent=100 * MIB)
    for _ in range(10):
        assert watched.judge() == {}
    watched.has(0, 66 * MIB, sent=100 * MIB)
    assert watched.judge_for_long() == {"connection_bytes": [0]}


def test_small_results_may_be_acknowledged_for_days() -> None:
    """A source that the server reads by itself: the client only reads results, each of some bytes."""
    watched = Watched()
    account, usage = watched.known(), Usage()
    with watched.watch.admitted(account), watched.watch.call(account, usage):
        for hour in range(1, 100):
            usage.frames = 3600 * 30 * hour
            watched.has(0, 200 * usage.frames, sent=100 * usage.frames)
            assert watched.judge() == {}
    for _ in range(10):
        assert watched.judge() == {}


def test_pings_may_come_for_months() -> None:
    watched = Watched()
    watched.known()
    watched.now += 100 * 86400
    watched.judge()
    watched.has(0, 100 * 86400 * 16 + 60 * MIB)
    for _ in range(10):
        assert watched.judge() == {}


# An event loop that has had no time


def test_what_came_while_the_loop_was_busy_has_time_to_become_calls() -> None:
    """A debugger stops the server for 5 s; 200 MB and the calls that they belong to have come meanwhile."""
    watched = Watched()
    watched.known(0)
    watched.has(1)
    watched.judge()
    watched.has(0, 200 * MIB)
    watched.has(1, 200 * MIB)
    watched.has(2, 200 * MIB)
    assert watched.judge(5.0) == {}
    assert watched.judge() == {}
    assert watched.judge() == {}
    for number in range(3):
        watched.watch.account(f"ipv4:10.0.0.1:{5000 + number}")
    for _ in range(10):
        assert watched.judge() == {}


def test_a_late_look_leaves_time_also_for_what_was_much_before() -> None:
    watched = Watched()
    watched.known(0)
    watched.has(0, 200 * MIB)
    for _ in range(4):
        assert watched.judge() == {}
    assert watched.judge(3.0) == {}
    for _ in range(3):
        assert watched.judge() == {}
    watched.watch.account(PEER)
    assert watched.judge() == {}


def test_a_loop_that_is_always_late_protects_nobody() -> None:
    watched = Watched()
    watched.has(0, 20 * MIB)
    for _ in range(12):
        assert watched.judge(1.0) == {}
    assert watched.judge(1.0) == {"connection_bytes": [0]}


def test_a_stop_of_the_server_is_not_a_minute_without_a_call() -> None:
    watched = Watched()
    watched.has(0)
    watched.judge()
    assert watched.judge(120.0) == {}
    for _ in range(298):
        assert watched.judge() == {}


def test_a_call_that_began_in_a_late_look_is_not_forgotten() -> None:
    """The system was asked for the connections before this one was there."""
    watched = Watched()
    watched.judge()
    with watched.watch.admitted(watched.watch.account(PEER)):
        pass
    assert watched.judge(3.0) == {}
    watched.has(0, 20 * MIB)
    for _ in range(10):
        assert watched.judge() == {}, "still known"


def test_a_connection_without_any_call_is_ended_after_a_minute() -> None:
    watched = Watched()
    watched.has(0)
    watched.has(1)
    watched.watch.account("ipv4:10.0.0.1:5001")
    for _ in range(300):
        assert watched.judge() == {}
    assert watched.judge() == {"connection_idle": [0]}


def test_beyond_the_bound_of_an_address_those_without_calls_are_ended() -> None:
    watched = Watched(per_address=4)
    for number in range(4):
        watched.has(number)
    for number in range(10, 30):
        watched.has(number, address=f"10.0.1.{number}")
    running = watched.watch.account("ipv4:10.0.0.1:5000")
    watched.watch.account("ipv4:10.0.0.1:5001")
    with watched.watch.admitted(running):
        watched.judge()
        watched.has(4)
        watched.has(5)
        assert watched.judge() == {"max_connections_per_address": [2, 3]}
        for number in range(6, 9):
            watched.has(number)
            watched.watch.account(f"ipv4:10.0.0.1:{5000 + number}")
        with watched.watch.admitted(watched.watch.account("ipv4:10.0.0.1:5006")):
            pass
        # Those without a call, the oldest first; then the one whose call is longest ago.
        assert watched.judge() == {"max_connections_per_address": [2, 3, 4, 5, 1]}


@pytest.mark.parametrize(("prefix", "ended"), [(64, [0, 1]), (56, [0, 1, 2, 3, 4]), (128, [])])
def test_the_addresses_of_one_ipv6_network_count_as_one(prefix: int, ended: list[int]) -> None:
    watched = Watched(per_address=4, ipv6_prefix=prefix)
    for number in range(6):
        watched.has(number, address=f"2001:db8:1:2::{number}")
    for number in range(6, 9):
        watched.has(number, address=f"2001:db8:1:3::{number}")
    expected = {"max_connections_per_address": ended} if ended else {}
    assert watched.judge() == expected


def test_of_those_that_do_not_read_the_worst_is_ended() -> None:
    watched = Watched()
    for number, mebibytes in enumerate([40, 60, 0, 20]):
        watched.has(number, address=f"10.0.1.{number}")
        account = watched.watch.account(f"ipv4:10.0.1.{number}:{5000 + number}")
        for _ in range(mebibytes // 20):
            watched.watch.unread(account, 20 * MIB)
    assert watched.judge() == {}
    watched.watch.unread(account, 20 * MIB)
    assert watched.judge() == {"connection_unread": [1]}


def test_any_number_where_there_is_no_bound() -> None:
    watched = Watched(per_address=0)
    for number in range(1000):
        watched.has(number)
    assert watched.judge() == {}


def test_what_was_read_at_last_is_not_unread() -> None:
    """A client that was suspended goes on, and reads all that had waited for it."""
    watched = Watched()
    account = watched.known()
    for read in range(100):
        watched.watch.unread(account, 20 * MIB)
        assert watched.judge() == {}
        watched.has(0, sent=(read + 1) * 80 * MIB)
        assert watched.judge() == {}


def test_an_address_may_have_its_connections_and_more_that_all_run() -> None:
    """Clients behind one address, as a router gives it to all of an office."""
    watched = Watched(per_address=128)
    for number in range(128):
        watched.has(number)
    for _ in range(10):
        assert watched.judge() == {}
    with contextlib.ExitStack() as stack:
        for number in range(140):
            watched.has(number)
            stack.enter_context(watched.watch.admitted(watched.watch.account(f"ipv4:10.0.0.1:{5000 + number}")))
        assert watched.judge() == {}


def test_what_is_gone_is_forgotten_and_its_number_means_another_one() -> None:
    watched = Watched()
    watched.known()
    watched.has(0, 20 * MIB)
    for _ in range(10):
        assert watched.judge() == {}
    watched.open.clear()
    for _ in range(10):
        watched.judge()
    watched.has(0, 20 * MIB)
    assert watched.judge_for_long(3) == {"connection_bytes": [0]}


def test_calls_that_the_event_loop_sees_late_are_waited_for() -> None:
    watched = Watched()
    watched.known()
    for i in range(1, 10):
        watched.has(0, i * 200 * MIB)  # a hundred streams, whose window has grown
        for _ in range(4):
            assert watched.judge() == {}
        watched.watch.account(PEER)
    assert watched.judge() == {}
