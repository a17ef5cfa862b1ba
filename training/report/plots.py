"""Plots of a report as inline SVG: one line, its reference, and what they show in words."""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.metrics.detection import RATES, Froc
from training.metrics.outlines import Agreement
from training.metrics.reliability import Reliability

Array = NDArray[np.float64]

_INK, _PALE, _LINE = "#334155", "#94a3b8", "#0f766e"
_STYLE: dict[Any, Any] = {
    # Text stays text: it can be searched and read aloud.
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def roc(false_positive_rate: Array, true_positive_rate: Array, point: tuple[float, float] | None = None) -> str:
    """Sensitivity against false positive rate, with the operating point."""
    figure, axes = _square("1 − specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_PALE, linestyle=":", linewidth=1)
    axes.plot(false_positive_rate, true_positive_rate, color=_LINE, linewidth=1.8)
    _mark(axes, point)
    return _svg(figure)


def precision_recall(recall: Array, precision: Array, prevalence: float, point: tuple[float, float] | None) -> str:
    """Precision against sensitivity, with the operating point; chance is the prevalence."""
    figure, axes = _square("sensitivity", "precision")
    axes.axhline(prevalence, color=_PALE, linestyle=":", linewidth=1)
    axes.step(recall, precision, color=_LINE, linewidth=1.8, where="pre")
    _mark(axes, point)
    return _svg(figure)


def reliability(curves: Sequence[tuple[str, Reliability]]) -> str:
    """What was observed against what was said, for each curve by name; points grow with the number of cases."""
    figure, axes = _square("probability said", "share observed")
    axes.plot([0, 1], [0, 1], color=_PALE, linestyle=":", linewidth=1)
    for (name, curve), colour in zip(curves, (_PALE, _LINE, "#b45309"), strict=False):
        sizes = 14 + 120 * curve.cases / curve.cases.sum()
        axes.plot(curve.said, curve.observed, color=colour, linewidth=1.4, label=name)
        axes.scatter(curve.said, curve.observed, s=sizes, color=colour, zorder=3)
    axes.legend(frameon=False, loc="upper left")
    return _svg(figure)


def froc(curve: Froc, rate: float | None = None) -> str:
    """Sensitivity against false positives a scan, with the seven rates of CPM."""
    figure, axes = _square("false positives a scan", "sensitivity")
    x = np.geomspace(RATES[0] / 2, RATES[-1] * 2, 200)
    axes.plot(x, [curve.sensitivity_at(at) for at in x], color=_LINE, linewidth=1.8)
    axes.scatter(RATES, [curve.sensitivity_at(at) for at in RATES], s=14, color=_LINE, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xlim(RATES[0] / 2, RATES[-1] * 2)
    axes.set_xticks(RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.minorticks_off()
    if rate is not None and rate > 0:
        _mark(axes, (rate, curve.sensitivity_at(rate)))
    return _svg(figure)


def agreement(true_volume: Array, found: Agreement) -> str:
    """Relative differences of volumes against the true volume, with bias and limits of agreement."""
    figure, axes = _square("true volume, mm³", "difference, % of the true volume", square=False)
    axes.scatter(true_volume, 100 * found.differences, s=12, color=_LINE, alpha=0.7)
    axes.set_xscale("log")
    for estimate, style in ((found.bias, "-"), (found.lower_limit, "--"), (found.upper_limit, "--")):
        axes.axhline(100 * estimate.value, color=_INK, linestyle=style, linewidth=1)
    return _svg(figure)


def _square(x: str, y: str, *, square: bool = True) -> tuple[Figure, Axes]:
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.7, 3.4), layout="constrained")
        axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if square:
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    axes.grid(color="#e2e8f0", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _mark(axes: Axes, point: tuple[float, float] | None) -> None:
    if point is not None and np.isfinite(point).all():
        axes.scatter(*point, s=46, facecolor="white", edgecolor="#b91c1c", linewidth=1.6, zorder=4)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    # As wide as the page gives, not as the paper would be.
    return re.sub(
        r'<svg([^>]*?) (?:height|width)="[^"]*"([^>]*?) (?:height|width)="[^"]*"', r"<svg\1\2", drawing, count=1
    )
