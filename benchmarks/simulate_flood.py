"""Simulates a flood from 100,000 addresses against 20 shield nodes, on a simulated clock, with the real guard.

python -m benchmarks.simulate_flood
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace

from benchmarks.flood_report import simple_table
from benchmarks.simulated_clients import Tally
from benchmarks.simulated_flood import Result, Scenario, run
from imapshield.limits import Limits

ATTACKS = {
    "noop": "NOOPs before the login, more than are permitted",
    "networks": "the same, from 3,600 addresses of two networks (/21)",
    "guess": "passwords of one user",
    "spray": "passwords of all users",
    "slow": "connections that send nothing and stay",
}

QUICK = {"nodes": 4, "addresses": 4000, "rate": 100.0, "seconds": 24, "users": 1200}
"""What ``--quick`` simulates instead."""

LARGE_FACTOR = 4
"""How many times as many connections the first attack has: so many that most of the addresses connect. What each node
has to count of the others makes such a run long, so all other runs have fewer."""

FEW_PLACES = Limits(max_preauth_connections=500)
"""The limits of a node when connections stay: a tenth of the places, as the flood is small."""

Rows = dict[tuple[str, str], Scenario]


def scenarios(base: Scenario) -> Rows:
    """Return all scenarios, by the attack and what is special."""
    rows: Rows = {}
    failure = base.seconds / 4, base.seconds * 2 / 3
    later = base.seconds / 3, base.seconds * 2 / 3
    for attack in ATTACKS:
        rate = base.rate * LARGE_FACTOR if attack == "noop" else base.rate
        limits = FEW_PLACES if attack == "slow" else base.limits
        plain = replace(base, attack=attack, rate=rate, limits=limits)
        rows[attack, "one guard for all"] = replace(plain, one_guard=True)
        rows[attack, "reports are shared"] = plain
        rows[attack, "each node alone"] = replace(plain, shared=False)
    noop, guess = replace(base, attack="noop"), replace(base, attack="guess")
    rows["noop", "DNS with all addresses"] = replace(noop, balancer="dns")
    rows["noop", "HAProxy, hash of the source"] = replace(noop, balancer="hash")
    rows["noop", "Redis fails"] = replace(noop, redis_fails=failure)
    rows["noop", "a third of the nodes fail"] = replace(noop, nodes_fail=failure)
    rows["noop", "both fail"] = replace(noop, redis_fails=failure, nodes_fail=later)
    rows["guess", "Redis fails"] = replace(guess, redis_fails=failure)
    return rows


def simulate(rows: Rows, jobs: int, show: bool) -> dict[tuple[str, str], Result]:
    """Run the scenarios in several processes, and return their results in the order of the scenarios."""
    results: dict[tuple[str, str], Result] = {}
    started = time.monotonic()
    # The long ones first, so that no process waits for the last one.
    order = sorted(rows, key=lambda row: rows[row].one_guard or not rows[row].shared)
    with ProcessPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run, rows[row]): row for row in order}
        for done in as_completed(waiting):
            results[waiting[done]] = done.result()
            if show:
                seconds = time.monotonic() - started
                text = f"{len(results)} of {len(rows)} runs, {seconds:.0f} s: {', '.join(waiting[done])}"
                print(text, file=sys.stderr, flush=True)
    return {row: results[row] for row in rows}


def percentile(values: Sequence[float], part: float) -> float | None:
    """Return the value below which a part of sorted values is; None of nothing."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else None


def _text(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def ban_table(results: dict[tuple[str, str], Result]) -> Iterator[str]:
    """Yield the table of bans: how fast they reach all nodes, and what is served before."""
    heading = [
        *("attack", "nodes", "bans", "served before: median", "most"),
        *("to all nodes, s: median", "p99", "worst", "not yet"),
    ]
    cells = []
    for (attack, row), result in results.items():
        if not result.bans:
            continue
        before, spread = result.before_ban, result.spread
        cells.append([
            *(attack, row, str(result.bans)),
            *(_text(percentile(before, 0.5), 0), _text(percentile(before, 1), 0)),
            *(_text(percentile(spread, part), 3) for part in (0.5, 0.99, 1)),
            str(result.missing),
        ])  # fmt: skip
    return simple_table(heading, cells)


def attacker_table(results: dict[tuple[str, str], Result], nodes: int) -> Iterator[str]:
    """Yield the table of what attackers get of one node per second, in the first and last third of the flood."""
    heading = [
        *("attack", "nodes", "served", "later", "refused", "later"),
        *("passwords", "later", "passwords in all", "beside one guard"),
    ]
    cells = []
    for (attack, row), result in results.items():
        one = results[attack, "one guard for all"].total_checked
        pairs = (result.served, result.refused, result.checked)
        cells.append([
            *(attack, row),
            *(_text(value / nodes, 1) for pair in pairs for value in pair),
            str(result.total_checked),
            _text(result.total_checked / one) if one else "–",
        ])  # fmt: skip
    return simple_table(heading, cells)


def honest_table(results: dict[tuple[str, str], Result]) -> Iterator[str]:
    """Yield the table of what honest users keep: how many percent of the logins of each group succeed, and when."""
    groups = {group: None for result in results.values() for group in result.tallies}
    heading = ["attack", "nodes", *groups, "at once", "p50", "p99", "worst", "wrong bans"]
    cells = []
    for (attack, row), result in results.items():
        tallies = result.tallies
        delays = sorted(delay for tally in tallies.values() for delay in tally.delays)
        everybody = Tally(*(sum(getattr(t, name) for t in tallies.values()) for name in COUNTED))
        cells.append([
            *(attack, row),
            *(_share(tallies[g].first + tallies[g].later, tallies[g]) if g in tallies else "–" for g in groups),
            _share(everybody.first, everybody),
            *(_text(percentile(delays, part)) for part in (0.5, 0.99, 1)),
            str(result.wrong),
        ])  # fmt: skip
    return simple_table(heading, cells)


COUNTED = ("first", "later", "failed")


def _share(number: int, of: Tally) -> str:
    logins = of.first + of.later + of.failed
    return f"{100 * number / logins:.1f}" if logins else "–"


def report(results: dict[tuple[str, str], Result], nodes: int) -> Iterator[str]:
    """Yield the lines of all tables."""
    for title, table in (
        ("Bans", ban_table(results)),
        ("What attackers get of one node, per second", attacker_table(results, nodes)),
        (
            "What honest users keep: percent of the logins that succeed, and seconds",
            honest_table(results),
        ),
    ):
        yield from ("", title, "")
        yield from table
    yield ""
    for (attack, row), result in results.items():
        if result.returned:
            times = [_text(percentile(result.returned, part)) for part in (0.5, 1)]
            text = f"a node that comes back has an earlier ban after {times[0]} s, all after {times[1]} s"
            yield f"{attack}, {row}: {text}"
    busiest = max(result.report_bytes for result in results.values())
    yield f"reports to Redis: at most {busiest / nodes / 1000:.0f} kB/s of each node"


def main() -> None:
    """Simulate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    base = Scenario()
    parser.add_argument("--quick", action="store_true", help="a small flood against 4 nodes")
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="only this; repeatable")
    parser.add_argument("--nodes", type=int, help=f"default {base.nodes}")
    parser.add_argument("--addresses", type=int, help=f"default {base.addresses}")
    parser.add_argument("--rate", type=float, help=f"connections per second; {base.rate:.0f}")
    parser.add_argument("--seconds", type=int, help=f"of the flood; {base.seconds}")
    parser.add_argument("--users", type=int, help=f"honest users; {base.users}")
    parser.add_argument("--seed", type=int, help="of all random choices; 0")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = vars(parser.parse_args())
    jobs, attacks = options.pop("jobs"), options.pop("attack") or list(ATTACKS)
    chosen = QUICK if options.pop("quick") else {}
    given = {name: value for name, value in options.items() if value is not None}
    base = replace(base, **{**chosen, **given})
    rows = {row: s for row, s in scenarios(base).items() if row[0] in attacks}
    results = simulate(rows, jobs, show=True)
    print("\n".join(report(results, base.nodes)))


if __name__ == "__main__":
    main()
