"""Charts as inline SVG. Pure: data in, markup out.

Rules:
- Nothing is styled here but by class, so that the style of the page decides, and a strict policy lets it be shown.
- Text and signs are placed by percent and keep their size; only lines are stretched with the page.
- What a chart says is said once more in words: its title is read out, and its numbers stand beside it in a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

_PLOT_PX, _HEIGHT_PX = 168, 204
_WIDE = 1000.0


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar.

    Attributes:
        kind: class that colours it.
        count: how much it is.
        name: what it is.
    """

    kind: str
    count: int
    name: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One point of a line.

    Attributes:
        at: where, in time.
        value: where, in value.
        text: what is said of it; "" for a point that is no mark of its own.
    """

    at: float
    value: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """What stands along the sides of a chart.

    Attributes:
        since: time at the left.
        until: time at the right.
        left: said there.
        right: said there.
        ticks: values with a line across, and what is said of each.
        limit: value of the line that must not be crossed.
        limit_text: said of it.
        top: largest value that is drawn.
        bottom: smallest value that is drawn.
    """

    since: float
    until: float
    left: str
    right: str
    ticks: Sequence[tuple[float, str]]
    limit: float
    limit_text: str
    top: float
    bottom: float = 0.0

    def x(self, at: float) -> float:
        """Return where a time is, from 0 to 1."""
        return min(max((at - self.since) / max(self.until - self.since, 1e-9), 0.0), 1.0)

    def y(self, value: float) -> float:
        """Return where a value is, from 0 at the top to 1."""
        return min(max((self.top - value) / max(self.top - self.bottom, 1e-9), 0.0), 1.0)


def bar(parts: Sequence[Part], whole: int, title: str) -> Markup:
    """Return parts of a whole side by side; what no part takes stays empty.

    Args:
        parts: from left to right.
        whole: how much the whole bar is.
        title: what it says, in words.
    """
    whole = max(whole, sum(part.count for part in parts), 1)
    taken = 0.0
    found = []
    for part in parts:
        if part.count:
            wide = 100.0 * part.count / whole
            tip = Markup("<title>{}: {}</title>").format(part.name, part.count)
            found.append(_rect(part.kind, taken, wide, tip))
            taken += wide
    said = Markup('<svg class="bar" role="img" aria-label="{}" width="100%" height="12">').format(title)
    return said + Markup('<rect class="rest" width="100%" height="12" />') + Markup("").join(found) + Markup("</svg>")


def steps(dots: Sequence[Dot], axis: Axis, kind: str, title: str) -> Markup:
    """Return a line that goes up and down in steps, with its limit.

    Args:
        dots: in the order of time.
        axis: its sides.
        kind: class that colours it.
        title: what it says, in words.
    """
    ticks = Markup("").join(_tick(axis.y(value), text) for value, text in axis.ticks)
    limit = _limit(axis.y(axis.limit), axis.limit_text)
    marks = Markup("").join(_mark(axis, dot, kind) for dot in dots if dot.text)
    return Markup(
        '<svg class="chart" role="img" aria-label="{title}" width="100%" height="{height}">'
        '<svg y="12" width="100%" height="{plot}" overflow="visible">{ticks}{limit}'
        '<svg width="100%" height="100%" viewBox="0 0 1000 1000" preserveAspectRatio="none" overflow="visible">'
        '<path class="area {kind}" d="{area}" /><path class="line {kind}" d="{line}" /></svg>{marks}</svg>'
        '<text class="label" x="0" y="{foot}">{left}</text>'
        '<text class="label" x="100%" y="{foot}" text-anchor="end">{right}</text></svg>'
    ).format(
        title=title,
        height=_HEIGHT_PX,
        plot=_PLOT_PX,
        ticks=ticks,
        limit=limit,
        kind=kind,
        area=_area(axis, dots),
        line=_line(axis, dots),
        marks=marks,
        foot=_HEIGHT_PX - 4,
        left=axis.left,
        right=axis.right,
    )


def layers(columns: Sequence[Sequence[Part]], title: str) -> Markup:
    """Return columns of equal width, each with its parts one over the other as shares of its whole.

    Args:
        columns: from left to right, each from its foot up.
        title: what it says, in words.
    """
    wide = 100.0 / max(len(columns), 1)
    found = []
    for place, parts in enumerate(columns):
        whole, top = max(sum(part.count for part in parts), 1), 100.0
        for part in parts:
            high = 100.0 * part.count / whole
            top -= high
            found.append(_layer(part, place * wide, wide + 0.1, top, high))  # no seam between two
    said = Markup('<svg class="layers" role="img" aria-label="{}" width="100%" height="{}">').format(title, _PLOT_PX)
    return said + Markup("").join(found) + Markup("</svg>")


def log(value: float) -> float:
    """Return where a value is on a scale of powers of ten, from a thousandth on."""
    return math.log10(max(value, 1e-3))


def _rect(kind: str, x: float, wide: float, inner: Markup) -> Markup:
    return Markup('<rect class="{}" x="{}" width="{}" height="12">{}</rect>').format(
        kind, f"{x:.3f}%", f"{wide:.3f}%", inner
    )


def _layer(part: Part, x: float, wide: float, y: float, high: float) -> Markup:
    return Markup('<rect class="{}" x="{}" width="{}" y="{}" height="{}"><title>{}: {}</title></rect>').format(
        part.kind, f"{x:.3f}%", f"{wide:.3f}%", f"{y:.3f}%", f"{high:.3f}%", part.name, part.count
    )


def _tick(y: float, text: str) -> Markup:
    place = f"{100 * y:.2f}%"
    return Markup(
        '<line class="tick" x1="0" x2="100%" y1="{place}" y2="{place}" />'
        '<text class="label" x="0" y="{place}" dy="-4">{text}</text>'
    ).format(place=place, text=text)


def _limit(y: float, text: str) -> Markup:
    place = f"{100 * y:.2f}%"
    return Markup(
        '<line class="limit" x1="0" x2="100%" y1="{place}" y2="{place}" />'
        '<text class="label limit" x="100%" y="{place}" dy="-5" text-anchor="end">{text}</text>'
    ).format(place=place, text=text)


def _mark(axis: Axis, dot: Dot, kind: str) -> Markup:
    return Markup('<circle class="mark {}" cx="{}" cy="{}" r="3.5"><title>{}</title></circle>').format(
        kind, f"{100 * axis.x(dot.at):.2f}%", f"{100 * axis.y(dot.value):.2f}%", dot.text
    )


def _line(axis: Axis, dots: Sequence[Dot]) -> Markup:
    if not dots:
        return Markup("")
    found = [f"M{_place(axis, dots[0])}"]
    for before, after in pairwise(dots):
        found.append(f"H{_WIDE * axis.x(after.at):.1f}")
        if after.value != before.value:
            found.append(f"V{_WIDE * axis.y(after.value):.1f}")
    return escape("".join(found))


def _area(axis: Axis, dots: Sequence[Dot]) -> Markup:
    if not dots:
        return Markup("")
    end, start = _WIDE * axis.x(dots[-1].at), _WIDE * axis.x(dots[0].at)
    return _line(axis, dots) + Markup(f"L{end:.1f} {_WIDE:.1f}H{start:.1f}Z")


def _place(axis: Axis, dot: Dot) -> str:
    return f"{_WIDE * axis.x(dot.at):.1f} {_WIDE * axis.y(dot.value):.1f}"
