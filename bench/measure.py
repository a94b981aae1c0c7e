"""Runs in turns, their times, and what becomes of them: JSON, a table, a plot."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench.hosts import ROOT, Cpu, close_connections

ARTEFACTS = ROOT / ".artefacts"


@dataclass
class Run:
    """One measured run; seconds of wall time, CPU seconds of the controller and of all hosts."""

    kind: str
    contender: str
    hosts: int
    seconds: float
    controller: float
    fleet: float
    changes: int

    @property
    def cpu(self) -> float:
        """Return all CPU seconds."""
        return self.controller + self.fleet


def timed(kind: str, contender: str, names: list[str], function: Callable[[], int]) -> Run:
    """Run a contender, which says how much it changed, beginning without open connections."""
    close_connections()
    cpu = Cpu(names)
    begin = time.perf_counter()
    changes = function()
    seconds = time.perf_counter() - begin
    return Run(kind, contender, len(names), seconds, *cpu.used(), changes)


def store(name: str, data: Any) -> None:
    """Keep a measurement in .artefacts, so far as it has got."""
    ARTEFACTS.mkdir(exist_ok=True)
    path = ARTEFACTS / f"bench-{name}.json"
    path.write_text(json.dumps(data, indent=1, default=asdict) + "\n")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratios(ours: list[Run], others: list[Run]) -> tuple[float, float]:
    """Return the medians of ours / other's wall time and CPU, run by run of the same round."""
    pairs = list(zip(ours, others, strict=True))
    return (
        statistics.median(one.seconds / other.seconds for one, other in pairs),
        statistics.median(one.cpu / other.cpu for one, other in pairs),
    )


def comparison(runs: list[Run]) -> str:
    """Return a table: a row for each kind of run, the contenders' medians and ours / theirs."""
    contenders = list(dict.fromkeys(run.contender for run in runs))
    others = [name for name in contenders if name != "ours"]
    rows = []
    for hosts, kind in dict.fromkeys((run.hosts, run.kind) for run in runs):
        of = {
            name: [
                run for run in runs if (run.hosts, run.kind, run.contender) == (hosts, kind, name)
            ]
            for name in contenders
        }
        row = [str(hosts), kind.replace("_", " ")]
        for found in of.values():
            seconds = statistics.median(run.seconds for run in found)
            row.append(f"{seconds:.1f} s, {statistics.median(run.cpu for run in found):.1f} CPU s")
        for name in others if "ours" in of else []:
            wall, cpu = ratios(of["ours"], of[name])
            row.append(f"{wall:.2f} ({cpu:.2f})")
        rows.append(row)
    head = ["hosts", "run", *contenders]
    head += [f"ours / {name} (CPU)" for name in others if "ours" in contenders]
    return table(head, rows)


def growth(runs: list[Run], kind: str) -> str:
    """Return a plot as SVG: median seconds of a kind of run over the hosts, both logarithmic."""
    width, height, left, bottom = 640, 400, 60, 40
    of = [run for run in runs if run.kind == kind]
    counts = sorted({run.hosts for run in of})
    medians = {
        name: {
            hosts: statistics.median(
                run.seconds for run in of if (run.contender, run.hosts) == (name, hosts)
            )
            for hosts in counts
            if any((run.contender, run.hosts) == (name, hosts) for run in of)
        }
        for name in dict.fromkeys(run.contender for run in of)
    }
    values = [value for line in medians.values() for value in line.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    far = math.log10(max(*counts, 2))

    def across(hosts: float) -> float:
        return left + math.log10(hosts) / far * (width - left - 110)

    def up(seconds: float) -> float:
        share = (math.log10(seconds) - low) / (high - low)
        return height - bottom - share * (height - bottom - 20)

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="14">Seconds of a {kind.replace("_", "-")} run</text>',
    ]
    for power in range(low, high + 1):
        y = up(10**power)
        drawn.append(
            f'<path d="M{left} {y:.0f}H{width - 110}" stroke="#dddddd"/>'
            f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{10**power:g}</text>'
        )
    for hosts in counts:
        drawn.append(
            f'<text x="{across(hosts):.0f}" y="{height - 18}" text-anchor="middle">{hosts}</text>'
        )
    drawn.append(f'<text x="{width / 2 - 40:.0f}" y="{height - 3}">hosts</text>')
    colours = ("#b1361e", "#555555", "#1f6fb2", "#3d8b37")
    for (name, line), colour in zip(medians.items(), colours, strict=False):
        points = [(across(hosts), up(seconds)) for hosts, seconds in line.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points
        )
        x, y = points[-1]
        drawn.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
            f'<text x="{x + 8:.0f}" y="{y + 4:.0f}" fill="{colour}">{name}</text>'
        )
    return "\n".join([*drawn, "</svg>\n"])
