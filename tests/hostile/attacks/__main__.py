"""Attacks on a real server, with a client beside them that wants an honest answer: ``python -m tests.hostile.attacks``.

Each attack is rebuilt from the description of one that once took a server down. For each there is a row: how it ended
for the attacker, how much memory the server and its decoders took at most, how long the frames of an honest client's
stream took, at the 99th percentile, without the attack and beside it, by turns, whether its masks were the same, and
how the server's health was told. Names of attacks choose some of them; ``--all`` makes a table of all, and goes on when
one fails.

The server may have 4 GiB. Where this process was given a control group of its own (version 2, see
`masklet_server.video.sandbox.control_group`), Linux holds it to that. Elsewhere its memory is measured ten times a
second, each page once, and a server that has more is ended; and it gets the settings that are the defaults on a machine
of 4 GiB. The table says which of the two it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from masklet_server.video.sandbox.control_group import GroupBounds, make_group
from tests.hostile.attacks.trial import ATTACKS, ROUND_SECONDS, Row, attack
from tests.hostile.target import MOST_BYTES

# For the server's start, for the series without an attack, and for the honest client's patience.
_START_SECONDS, _BETWEEN_SECONDS = 150.0, 75.0
_HEAD = """\
| attack | ends for the attacker | peak memory | p99 alone | p99 beside | ratio | masks | health | failures |
|---|---|---|---|---|---|---|---|---|"""


def line(row: dict[str, Any]) -> str:
    """A row of the table, in Markdown."""
    if row["outcome"] is None:
        return f"| {row['name']} | | | | | | | | {_cell(row['failure'])} |"
    ends = ", ".join(f"{count} {end}" for end, count in sorted(row["outcome"].items()))
    health = row["health"]
    asked = f"{health['asked']:g} asked, {health['failed']:g} failed, worst {health['worst_s']:.2f} s"
    masks = "equal" if row["kinds_of_masks"] == 1 else f"{row['kinds_of_masks']} kinds"
    errors = [f"honest client: {count} x {text}" for text, count in row["honest_errors"].items()]
    failures = "; ".join(filter(None, [row["failure"], *errors])) or "none"
    alone, beside = row["rounds"]
    cells = [
        row["name"],
        ends,
        f"{row['peak_gib']:.2f} GiB",
        f"{row['alone_ms']:.0f} ms ({alone})" if alone else "none",
        f"{row['beside_ms']:.0f} ms ({beside})" if beside else "none",
        f"{row['ratio']:.2f}" if alone and beside else "none",
        masks,
        asked,
        failures,
    ]
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def attempt(name: str, rounds: int, group: Path | None) -> dict[str, Any]:
    """Run one attack in a process of its own, which may lower its priority; a row without figures if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "row.json")
        command = [sys.executable, "-m", "tests.hostile.attacks", name, "--rounds", str(rounds), "--json", str(file)]
        if group is not None:
            command += ["--group", str(group)]
        limit = _START_SECONDS + rounds * (ROUND_SECONDS + _BETWEEN_SECONDS)
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            _, errors = process.communicate(timeout=limit)
            return dict(json.loads(file.read_text())["rows"][0])
        except subprocess.TimeoutExpired:
            return Row(name, f"no row in {limit:.0f} s").as_dict()
        except (OSError, ValueError, IndexError):
            return Row(name, f"the attack has failed: {errors.strip()[-500:]}").as_dict()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def table(names: list[str], rounds: int, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """Run attacks one after the other, and print a row after each; returns the rows, and who bounds the memory."""
    group = make_group(GroupBounds(MOST_BYTES))
    bounded_by = "a control group" if group is not None else "a watch that ends the server"
    print(f"The server may have {MOST_BYTES / 2**30:g} GiB; bounded by {bounded_by}.\n\n{_HEAD}", flush=True)
    rows, began = [], time.monotonic()
    for number, name in enumerate(names):
        # Where others use the machine the last attacks get one round each, and not none.
        is_late = time.monotonic() - began > seconds * number / len(names) + ROUND_SECONDS
        rows.append(attempt(name, 1 if is_late else rounds, group.folder if group is not None else None))
        print(line(rows[-1]), flush=True)
    return rows, bounded_by


def main() -> None:
    """Run the attack that is named, or a table of several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"attacks: {', '.join(ATTACKS)}")
    parser.add_argument("--all", action="store_true", help="all attacks")
    parser.add_argument("--rounds", type=int, default=3, help="how often each attack runs, with quiet times between")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--minutes", type=float, default=55, help="attacks have one round when this time runs short")
    parser.add_argument("--group", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = list(ATTACKS) if options.all else options.names
    if not names or set(names) - set(ATTACKS):
        parser.error(f"name some of {', '.join(ATTACKS)}, or say --all")
    if len(names) == 1:
        rows = [asyncio.run(attack(names[0], options.rounds, options.group)).as_dict()]
        bounded_by = "its caller"
        print(f"{_HEAD}\n{line(rows[0])}", flush=True)
    else:
        rows, bounded_by = table(names, options.rounds, options.minutes * 60)
    if options.json is not None:
        options.json.write_text(json.dumps({"bounded_by": bounded_by, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
