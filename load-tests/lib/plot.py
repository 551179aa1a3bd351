"""A plot of one workload: a bar for each proxy, a group for each variant, a thin line from the least to the most."""

from html import escape

from report import UNITS, Row
from workloads import Workload

_COLOURS = {"edgeward": "#0b6e4f"}
_OTHERS = "#9aa5b1"
_LEFT, _RIGHT, _WIDTH, _BAR, _GAP = 110, 90, 760, 18, 6


def svg(workload: Workload, about: str, rows: list[Row]) -> str:
    scale = (_WIDTH - _LEFT - _RIGHT) / max((row.most for row in rows), default=1)
    parts: list[str] = []
    y = 52

    def text(x: float, y: float, what: str, more: str = "") -> None:
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(what)}</text>')

    text(10, 20, f"{workload.name}: {UNITS[workload.unit]}, less is better", 'font-weight="bold" font-size="14"')
    text(10, 38, about, 'fill="#52606d" font-size="11"')
    for variant in dict.fromkeys(row.variant for row in rows):
        if len(workload.variants) > 1:
            text(10, y + 14, variant, 'font-weight="bold"')
            y += 22
        for row in sorted((row for row in rows if row.variant == variant), key=lambda row: row.cost):
            width, middle = row.cost * scale, y + _BAR / 2
            colour = _COLOURS.get(row.peer, _OTHERS)
            text(_LEFT - 8, middle + 4, row.peer, 'text-anchor="end"')
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
            start, end = _LEFT + row.least * scale, _LEFT + row.most * scale
            parts.append(f'<path d="M{start:.1f} {middle}H{end:.1f}" stroke="#1f2933" stroke-width="1.5"/>')
            text(max(end, _LEFT + width) + 8, middle + 4, f"{row.cost:,.1f}")
            y += _BAR + _GAP
        y += 8
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#1f2933"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 4}" viewBox="0 0 {_WIDTH} {y + 4}" {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>", ""])
