"""The report's charts as SVG. They stretch with the page; their words stand beside them as HTML and stay readable."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report_markup import Child, Element, el

WIDTH, HEIGHT = 600, 150  # units of the viewBox; the style sheet decides the size


def _figure(title: str, left: str, right: str, *shapes: Element) -> Element:
    """A chart with what its two ends mean below it."""
    box = f"0 0 {WIDTH} {HEIGHT}"
    drawing = el("svg", *shapes, viewBox=box, preserveAspectRatio="none", role="img", aria_label=title)
    ends = el("div", el("span", left), el("span", right), class_="ends")
    return el("figure", el("figcaption", title), drawing, ends)


def line(title: str, points: Sequence[tuple[float, float]], left: str, right: str) -> Element:
    """Values over time; the highest touches the top, the lower edge is 0."""
    first, last = points[0][0], points[-1][0]
    top = max(value for _, value in points) or 1.0
    span = (last - first) or 1.0
    spots = [f"{(at - first) / span * WIDTH:.1f},{HEIGHT - value / top * (HEIGHT - 6):.1f}" for at, value in points]
    area = el("polygon", points=" ".join([f"0,{HEIGHT}", *spots, f"{WIDTH},{HEIGHT}"]), class_="area")
    return _figure(title, left, right, area, el("polyline", points=" ".join(spots), class_="line"))


def bars(title: str, counts: Sequence[int], labels: Sequence[str], left: str, right: str) -> Element:
    """A histogram; `labels` are shown when one points at a bar."""
    step, top = WIDTH / len(counts), max(counts) or 1
    shapes = []
    for number, (count, label) in enumerate(zip(counts, labels, strict=True)):
        height = count / top * (HEIGHT - 4)
        shapes.append(
            el(
                "rect",
                el("title", label),
                x=f"{number * step + step * 0.06:.2f}",
                y=f"{HEIGHT - height:.2f}",
                width=f"{step * 0.88:.2f}",
                height=f"{height:.2f}",
                class_="bar",
            )
        )
    return _figure(title, left, right, *shapes)


def shares(parts: Sequence[tuple[str, int]]) -> Element:
    """One bar divided among `parts`, (class and name, size); a part that is there is never too thin to be seen."""
    total = sum(size for _, size in parts) or 1
    shapes: list[Child] = []
    x = 0.0
    for name, size in parts:
        width = max(size / total * WIDTH, 3.0) if size else 0.0
        shapes.append(
            el(
                "rect",
                el("title", f"{name}: {size:,}"),
                x=f"{x:.2f}",
                y="0",
                width=f"{width:.2f}",
                height="12",
                class_=f"fate-{name}",
            )
        )
        x += width
    return el(
        "svg", *shapes, viewBox=f"0 0 {x or WIDTH:.2f} 12", preserveAspectRatio="none", class_="shares", role="img"
    )
