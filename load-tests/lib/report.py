"""Measurements as a table and as JSON."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from workloads import Workload


@dataclass(frozen=True)
class Measurement:
    """One proxy under one variant in one round."""

    round: int
    variant: str
    peer: str
    """The figure: microseconds of processor time for a request or a MiB of body, or KiB of memory for a connection."""
    cost: float
    requests: int
    errors: int
    """Of requests, or of MiB where bodies are what counts; 0 where connections idle."""
    per_second: float
    """Milliseconds."""
    p50: float
    p99: float
    p999: float
    """MiB, proportional set size at the end of the load."""
    memory: float


def rounds(count: int, seconds: float) -> str:
    return f"{count} round{'' if count == 1 else 's'} of {seconds:g} s"


UNITS = {"request": "CPU µs/request", "mib": "CPU µs/MiB", "connection": "KiB/connection"}


@dataclass(frozen=True)
class Row:
    """What came of all rounds: medians, and how far the figure reached."""

    variant: str
    peer: str
    cost: float
    least: float
    most: float
    """Edgeward's figure in parts of this one: the median over the rounds. None where it was not measured."""
    edgeward: float | None
    """This figure in parts of the same proxy's under the first variant, likewise."""
    first: float
    per_second: float
    p50: float
    p99: float
    p999: float
    errors: int
    memory: float


def summarize(measured: list[Measurement]) -> list[Row]:
    rows = []
    basis = measured[0].variant
    costs = {(one.variant, one.peer, one.round): one.cost for one in measured}
    for variant, peer in dict.fromkeys((one.variant, one.peer) for one in measured):
        mine = [one for one in measured if (one.variant, one.peer) == (variant, peer)]
        theirs = [(one.cost, costs.get((variant, "edgeward", one.round))) for one in mine]
        ratios = [ours / their for their, ours in theirs if ours is not None and their > 0]
        firsts = [one.cost / costs[basis, peer, one.round] for one in mine if costs[basis, peer, one.round] > 0]
        median = lambda value: statistics.median(map(value, mine))
        rows.append(
            Row(
                variant,
                peer,
                median(lambda one: one.cost),
                min(one.cost for one in mine),
                max(one.cost for one in mine),
                statistics.median(ratios) if ratios else None,
                statistics.median(firsts) if firsts else 1.0,
                median(lambda one: one.per_second),
                median(lambda one: one.p50),
                median(lambda one: one.p99),
                median(lambda one: one.p999),
                sum(one.errors for one in mine),
                median(lambda one: one.memory),
            )
        )
    return rows


def table(workload: Workload, rows: list[Row]) -> str:
    """The rows as a Markdown table, columns as wide as they have to be."""
    per_second = "MiB/s" if workload.unit == "mib" else "requests/s"
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("", lambda row: row.variant),
        ("proxy", lambda row: row.peer),
        (UNITS[workload.unit], lambda row: f"{row.cost:.1f}"),
        ("least to most", lambda row: f"{row.least:.1f} to {row.most:.1f}"),
        ("Edgeward is", lambda row: "" if row.peer == "edgeward" or row.edgeward is None else f"{row.edgeward:.2f} x"),
        ("beside the first", lambda row: f"{row.first:.2f} x"),
        (per_second, lambda row: f"{row.per_second:,.0f}"),
        ("p50 ms", lambda row: f"{row.p50:.2f}"),
        ("p99 ms", lambda row: f"{row.p99:.2f}"),
        ("p99.9 ms", lambda row: f"{row.p999:.2f}"),
        ("errors", lambda row: str(row.errors)),
        ("MiB", lambda row: f"{row.memory:.0f}"),
    ]
    if workload.unit == "connection":
        columns = [column for column in columns if column[0] not in (per_second, "p50 ms", "p99 ms", "p99.9 ms")]
    if not workload.compared:
        columns = [column for column in columns if column[0] != "beside the first"]
    if len(workload.variants) == 1:
        del columns[0]
    cells = [[name for name, _ in columns], *([show(row) for _, show in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    left = {"", "proxy"}

    def line(texts: Iterable[str]) -> str:
        sized = (
            text.ljust(width) if name in left else text.rjust(width)
            for text, width, (name, _) in zip(texts, widths, columns, strict=True)
        )
        return f"| {' | '.join(sized)} |"

    rule = ("-" * width if name in left else "-" * (width - 1) + ":" for width, (name, _) in zip(widths, columns, strict=True))
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])])


def as_json(workload: Workload, about: dict[str, object], rows: list[Row], measured: list[Measurement]) -> dict[str, object]:
    return {
        "workload": workload.name,
        "about": workload.about,
        "unit": UNITS[workload.unit],
        **about,
        "summary": [asdict(row) for row in rows],
        "rounds": [asdict(one) for one in measured],
    }
