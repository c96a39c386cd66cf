"""What was measured, for reading: as text, or as Markdown for the documentation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SATURATED = 0.9  # of one core: from here on the load may be what is measured
LEGEND = (
    "Medians of the rounds. A ratio is taken within each round; beside its median stand its least and greatest value. "
    "'load' is the share of its core that wrk took: near 100 % a figure is a lower bound of what the server can."
)


def render(document: Mapping[str, Any], *, markdown: bool) -> str:
    """The whole report."""
    parts = [_head(document)]
    heading = "### {}" if markdown else "{}"
    for title, header, lines in (
        ("Targets", ("ratio", "target", "measured", "range", ""), _targets(document)),
        (
            "Figures",
            ("candidate", "route", "work", "rows", "conn.", "req/s", "p50 ms", "p99 ms", "load"),
            _cases(document),
        ),
        ("Resources", ("candidate", "MiB at first", "MiB after load", "idle CPU s in 5 s"), _resources(document)),
        ("Not measured, or not counted", ("what", "why"), [list(item) for item in document["missing"].items()]),
    ):
        if lines:
            parts.append(heading.format(title) + "\n\n" + _table(header, lines, markdown=markdown))
    return "\n\n".join([*parts, LEGEND])


def _head(document: Mapping[str, Any]) -> str:
    settings, cores = document["settings"], document["cores"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    turns = f"{settings['rounds']} rounds of {settings['seconds']} s a figure, in turn"
    places = f"servers on core {cores['server']}, wrk (1 thread) on core {cores['load']}"
    return "\n".join(
        [
            f"{document['date']}  {document['machine']}",
            versions,
            f"{document['subject']}; {turns}; {places}",
            *document["notes"],
        ]
    )


def _targets(document: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for line in document["targets"]:
        bound = f"{'≥' if line['at_least'] else '≤'} {line['bound']:g}"
        if line["median"] is None:
            lines.append([line["title"], bound, "–", "", "not measured"])
            continue
        spread = f"{line['least']:.2f}–{line['greatest']:.2f}"
        lines.append([line["title"], bound, f"{line['median']:.2f}", spread, "met" if line["met"] else "MISSED"])
    return lines


def _cases(document: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for case, rounds in document["figures"].items():
        good = [figures for figures in rounds if figures["problem"] is None]
        if not good:
            lines.append([*case.split("/"), "–", "–", "–", "–"])
            continue
        rate, p50, p99, share = (
            float(np.median([figures[name] for figures in good]))
            for name in ("requests_per_second", "p50_ms", "p99_ms", "load_cpu")
        )
        mark = " !" if share >= SATURATED else ""
        lines.append([*case.split("/"), f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}", f"{share:.0%}{mark}"])
    return lines


def _resources(document: Mapping[str, Any]) -> list[list[str]]:
    names = ("resident_mib_start", "resident_mib_after", "idle_cpu_seconds")
    return [
        [
            candidate,
            *(
                f"{values[name]:.{digits}f}" if name in values else "–"
                for name, digits in zip(names, (0, 0, 2), strict=True)
            ),
        ]
        for candidate, values in document["resources"].items()
    ]


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], *, markdown: bool) -> str:
    if markdown:
        rule = ["---"] * len(header)
        escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *escaped])
    widths = [max(len(line[k]) for line in [header, *lines]) for k in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *lines]
    )
