"""Where names of points go, so that they hide neither each other nor a point."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Box", "place_labels"]


@dataclass(frozen=True)
class Box:
    """A rectangle, y growing downwards.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: To the right.
        height: Downwards.
    """

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: "Box") -> float:
        """Area that both cover."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(across, 0.0) * max(down, 0.0)


def place_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    height: float,
    area: Box,
    *,
    gap: float = 5.0,
    lines: Sequence[Box] = (),
) -> list[Box]:
    """Find a place beside each point: right, left, above or below, further up or down where all of these are taken.

    Points are served one after another, the lowest first; each takes the place that covers least of what is there.

    Args:
        points: Places of the points.
        widths: Of the labels.
        height: Of every label.
        area: What labels should stay in.
        gap: Between a point and its label, and about the radius of a point.
        lines: What else should not be hidden, such as whiskers.

    Returns:
        The label's rectangle for each point.
    """
    dots = [Box(x - gap, y - gap, 2 * gap, 2 * gap) for x, y in points]
    placed: dict[int, Box] = {}
    for at in sorted(range(len(points)), key=lambda i: -points[i][1]):
        (x, y), width = points[at], widths[at]
        options = []
        for lift in (0.0, 0.8, -0.8, 1.6, -1.6, 2.4, -2.4):
            shift = y - height / 2 - lift * height
            options += [Box(x + gap, shift, width, height), Box(x - gap - width, shift, width, height)]
        options += [Box(x - width / 2, y + way, width, height) for way in (-gap - height, gap)]
        others = [*placed.values(), *lines, *(dot for number, dot in enumerate(dots) if number != at)]

        def cost(box: Box, others: Sequence[Box] = others) -> float:
            outside = box.width * box.height - box.overlap(area)
            return round(sum(box.overlap(one) for one in others) + 3.0 * outside, 3)

        placed[at] = min(options, key=cost)  # the first of equal ones
    return [placed[at] for at in range(len(points))]
