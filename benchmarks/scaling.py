"""What a second worker process adds: one and two workers over the same two cores, in turn.

The load has a third core where the machine has one. On two it takes its share of them, so that twice the requests
cannot come out; how much CPU it took stands beside the figures.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from candidates import chainzrule
from contest import Contest, Cores
from measure import machine
from subject import write_subject
from targets import Case

CONNECTIONS = 64
WORKERS = {"1 worker": (), "2 workers": ("--workers", "2")}


def run(folder: Path, rounds: int, seconds: int) -> None:
    """Measure, print and keep as JSON.

    Args:
        folder: takes scaling.json; its folder `serving` takes logs.
        rounds: how often each case gets its turn.
        seconds: how long a turn lasts.
    """
    cores = sorted(os.sched_getaffinity(0))
    places = Cores(server=cores[:2], load=cores[2:3] or cores[:2])
    shared = "" if len(cores) > 2 else ", which the load shares"
    print(f"{datetime.now(UTC):%Y-%m-%d}  {machine()}")
    print(f"{CONNECTIONS} connections, JSON; {rounds} rounds of {seconds} s; workers on cores {cores[:2]}{shared}\n")
    subject = write_subject(folder / "serving")
    with Contest(subject, folder / "serving", places) as contest:
        loads = [(work, rows) for work in ("plain", "sensitivity") for rows in (1, 32)]
        for name, flags in WORKERS.items():
            candidate = chainzrule(subject, *flags, name=name)
            contest.enter(candidate, [Case(name, "json", work, rows, CONNECTIONS) for work, rows in loads])
        contest.round(1, counts=False)
        for k in range(rounds):
            contest.round(seconds, backwards=k % 2 == 1)
    for work, rows in loads:
        print(f"{work}, {'1 row' if rows == 1 else f'{rows} rows'}")
        rates = {}
        for name in WORKERS:
            figures = contest.figures.get(str(Case(name, "json", work, rows, CONNECTIONS)), [])
            if not figures or any(figure["problem"] is not None for figure in figures):
                print(f"  {name}: not measured")
                continue
            rates[name] = np.array([figure["requests_per_second"] for figure in figures])
            share = float(np.median([figure["load_cpu"] for figure in figures]))
            print(f"  {name}: {np.median(rates[name]):,.0f} requests/s; the load took {share:.0%} of a core")
        if len(rates) == len(WORKERS):
            one, two = rates.values()
            print(f"  × {np.median(two / one):.2f} ({(two / one).min():.2f}–{(two / one).max():.2f})")
    for what, why in contest.missing.items():
        print(f"not measured, or not counted: {what}: {why}")
    (folder / "scaling.json").write_text(
        json.dumps({"machine": machine(), "figures": contest.figures, "missing": contest.missing}, indent=1)
    )
