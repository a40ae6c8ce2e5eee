"""A chart of ratios as an SVG file: bars, and a line where the limit is; readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LEFT, _RIGHT = 760, 230, 64
_BAR, _GAP, _HEAD = 16, 6, 34
_STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .head { font-weight: 600; font-size: 13px }
  .page { fill: #ffffff; stroke: #d1d9e0 }
  .ours { fill: #0969da }
  .peer { fill: #afb8c1 }
  .limit { stroke: #cf222e; stroke-dasharray: 4 3 }
  .note { fill: #59636e }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .page { fill: #0d1117; stroke: #3d444d }
    .ours { fill: #4493f8 }
    .peer { fill: #656c76 }
    .limit { stroke: #ff7b72 }
    .note { fill: #9198a1 }
  }
"""


@dataclass(frozen=True)
class Group:
    """Bars under one heading: names and values; names that begin with `ours` stand out."""

    title: str
    bars: Sequence[tuple[str, float]]


def draw(title: str, groups: Sequence[Group]) -> str:
    """Returns the chart as SVG; 1.0 is the limit."""
    longest = max([1.0, *(value for group in groups for _, value in group.bars)])
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    lines, top = list[str](), 44
    for group in groups:
        lines.append(f'<text class="head" x="16" y="{top + 18}">{escape(group.title)}</text>')
        start = top = top + _HEAD - _GAP
        for name, value in group.bars:
            kind, middle = ("ours" if name.startswith("ours") else "peer"), top + _BAR - 4
            lines += [
                f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{max(1.0, value * scale):.1f}" height="{_BAR}"/>',
                f'<text x="{_LEFT + max(1.0, value * scale) + 6:.1f}" y="{middle}">{value:.2f}</text>',
            ]
            top += _BAR + _GAP
        limit = _LEFT + scale
        lines.append(f'<line class="limit" x1="{limit:.1f}" y1="{start - 4}" x2="{limit:.1f}" y2="{top}"/>')
        top += 10
    height = top + 30
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="{escape(title)}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
            f'<text class="head" x="16" y="28">{escape(title)}</text>',
            *lines,
            f'<text class="note" x="16" y="{height - 14}">The dashed line is the limit of each workload: '
            "the same work without a server between, or the least that a server can do.</text>",
            "</svg>",
            "",
        ]
    )
