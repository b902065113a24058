"""Write names beside the points of a panel, where they cover nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from forgetlib.figures.style import BLACK, SMALL

LINE_DOTS, LINE_COST = 12, 20  # of a line from a name: how it is measured; what crossing it costs


def name_points(axes: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Write each point's name beside it, where it covers no other name and no point.

    Every name tries places around its point and takes the one that covers least and is nearest;
    in several rounds, as the best place depends on the others'. From a far one a line leads to its
    point, past other names and points. The figure must be laid out.

    x, y: (n, 3) value, low and high
    """
    pixels = axes.figure.dpi / 72  # a point in pixels
    points, lows, highs = (
        axes.transData.transform(np.column_stack([x[:, i], y[:, i]])) for i in range(3)
    )
    at = axes.transAxes  # a logarithmic axis has no place for a text at 0
    texts = [axes.text(0.5, 0.5, name, fontsize=SMALL, transform=at) for name in names]
    sizes = np.array([t.get_window_extent().size for t in texts]).reshape(-1, 2)
    for text in texts:
        text.remove()
    frame = np.array(axes.get_window_extent().extents)
    marks, bars = np.hstack([points - 3.5 * pixels, points + 3.5 * pixels]), []
    for along in (np.array([1, 0]), np.array([0, 1])):  # a bar is as thick as half a point
        ends = (np.where(along, end, points) for end in (lows - pixels / 4, highs + pixels / 4))
        low, high = ends
        bars.append(np.hstack([low - (1 - along) * pixels / 4, high + (1 - along) * pixels / 4]))
    gaps = np.array([5, 8, 12, 17, 24, 32, 42]) * pixels
    angles = np.arange(16) * np.pi / 8
    around = np.round(np.stack([np.cos(angles), np.sin(angles)], axis=1), 3)
    steps = (gaps[:, None, None] * around).reshape(-1, 2)
    towards = np.tile(np.sign(around), (len(gaps), 1))
    boxes = np.full((len(names), 4), np.nan)  # left, bottom, right, top
    lines = np.full((len(names), LINE_DOTS, 4), np.nan)
    for _ in range(5):
        for i, size in enumerate(sizes):
            centres = points[i] + steps + towards * size / 2
            tried = np.hstack([centres - size / 2, centres + size / 2])
            leading = _lines(points[i], tried, pixels)
            others, passed = np.delete(boxes, i, axis=0), np.delete(lines, i, axis=0)
            hidden = np.vstack([others, np.delete(marks, i, axis=0)])
            cost = _overlap(tried, np.vstack(bars)) + 10 * _overlap(tried, hidden)
            cost += 30 * (size.prod() - _overlap(tried, frame[None]))
            crossings = _overlap(leading.reshape(-1, 4), hidden).reshape(len(tried), -1).sum(1)
            cost += LINE_COST * (crossings + _overlap(tried, passed.reshape(-1, 4)))
            best = np.argmin(cost + 2 * np.hypot(*steps.T))
            boxes[i], lines[i] = tried[best], leading[best]
    for name, point, box, dots in zip(names, points, boxes, lines, strict=True):
        centre = (box[:2] + box[2:]) / 2
        nearest = np.clip(point, box[:2], box[2:])
        line: dict[str, Any] = {"arrowstyle": "-", "color": BLACK, "linewidth": 0.4, "shrinkA": 0}
        line["relpos"] = tuple((nearest - box[:2]) / (box[2:] - box[:2]))
        axes.annotate(
            name,
            tuple(axes.transData.inverted().transform(point)),
            tuple((centre - point) / pixels),
            textcoords="offset points",
            fontsize=SMALL,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.2},
            arrowprops=line if np.isfinite(dots).all() else None,
        ).set_in_layout(False)


def _lines(point: np.ndarray, boxes: np.ndarray, pixels: float) -> np.ndarray:
    """Lay squares along the line from a point to the nearest side of (n, 4) boxes.

    Returns (n, LINE_DOTS, 4), NaN for a box that is near enough to need no line.
    """
    way = np.clip(point, boxes[:, :2], boxes[:, 2:]) - point
    way[np.hypot(*way.T) <= 6.5 * pixels] = np.nan
    dots = point + way[:, None] * np.linspace(0, 1, LINE_DOTS)[:, None]
    return np.concatenate([dots - pixels / 2, dots + pixels / 2], axis=-1)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) area of each of (n, 4) boxes that (m, 4) others cover, each counted for itself."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.nansum(np.clip(high - low, 0, None).prod(-1), axis=1)
