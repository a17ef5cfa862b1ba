"""The page: what was judged, on how much, how well, where it failed and what that does not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from training.metrics.bootstrap import LEVEL, Estimate


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing and what to see in it."""

    title: str
    svg: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A worst case and why it is one."""

    url: str
    words: str
    #: Whether it is several planes side by side, which need more room to be seen.
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a page says; nothing of a patient but pixels of open data."""

    title: str
    #: What a reader must know before any figure, such as "semi-synthetic data".
    warnings: tuple[str, ...]
    #: One sentence: the result.
    summary: str
    #: What was judged: data, counts, operating point.
    facts: Mapping[str, str]
    #: Tables of figures by title.
    figures: Mapping[str, Mapping[str, Estimate]]
    plots: tuple[Plot, ...] = ()
    worst: tuple[Picture, ...] = ()
    limits: tuple[str, ...] = ()


def write_page(report: Report, path: Path) -> Path:
    """The page as one file that needs no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")
    return path


def page(report: Report) -> str:
    """The page as HTML."""
    body = [
        f"<h1>{escape(report.title)}</h1>",
        "".join(f'<p class="warning">{escape(warning)}</p>' for warning in report.warnings),
        f'<p class="summary">{escape(report.summary)}</p>',
        "<h2>What was judged</h2>",
        _facts(report.facts),
        "<h2>How well</h2>",
        f"<p>In brackets: {LEVEL:.0%} interval, bootstrap by patient, or by what stands for one.</p>",
        "".join(_table(title, rows) for title, rows in report.figures.items()),
        _plots(report.plots),
        _worst(report.worst),
        _limits(report.limits),
    ]
    return _PAGE.format(title=escape(report.title), style=_STYLE, body="".join(body))


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in facts.items())
    return f"<dl>{rows}</dl>"


def _table(title: str, rows: Mapping[str, Estimate]) -> str:
    lines = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{estimate.value:.3f}</td><td>{_interval(estimate)}</td>"
        f"<td>{estimate.cases}</td><td>{estimate.patients}</td></tr>"
        for name, estimate in rows.items()
    )
    head = "<tr><th></th><th>value</th><th>interval</th><th>cases</th><th>patients</th></tr>"
    return f"<h3>{escape(title)}</h3><table><thead>{head}</thead><tbody>{lines}</tbody></table>"


def _interval(estimate: Estimate) -> str:
    # The sign of a number that is not itself.
    return "too few to say" if estimate.low != estimate.low else f"({estimate.low:.3f} to {estimate.high:.3f})"


def _plots(plots: tuple[Plot, ...]) -> str:
    figures = "".join(
        f"<figure><h3>{escape(plot.title)}</h3>{plot.svg}<figcaption>{escape(plot.words)}</figcaption></figure>"
        for plot in plots
    )
    return f'<div class="plots">{figures}</div>'


def _worst(pictures: tuple[Picture, ...]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure{_class(picture)}><img src="{picture.url}" alt="{escape(picture.words)}">'
        f"<figcaption>{escape(picture.words)}</figcaption></figure>"
        for picture in pictures
    )
    return f'<h2>Worst cases</h2><div class="worst">{figures}</div>'


def _class(picture: Picture) -> str:
    return ' class="wide"' if picture.wide else ""


def _limits(limits: tuple[str, ...]) -> str:
    if not limits:
        return ""
    return "<h2>Limits</h2><ul>" + "".join(f"<li>{escape(limit)}</li>" for limit in limits) + "</ul>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body>{body}</body></html>
"""
_STYLE = """
:root { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1e293b; background: #fff }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem; line-height: 1.2; margin-bottom: .8rem }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid #e2e8f0; padding-bottom: .2rem }
h3 { font-size: 1rem; margin: 1rem 0 .4rem }
.warning { background: #fef3c7; border-left: 4px solid #b45309; padding: .4rem .8rem; margin: .4rem 0 }
.summary { font-size: 1.1rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0 }
dt { color: #64748b } dd { margin: 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .22rem .9rem; border-bottom: 1px solid #e2e8f0; font-weight: 400 }
thead th { color: #64748b } tbody th { text-align: left; padding-left: 0 }
figure { margin: 0 } figcaption { color: #475569; font-size: .88rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem 2rem; margin-top: 1rem }
.plots svg { width: 100%; max-width: 24rem; height: auto }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(14rem, 45%), 1fr)); gap: 1rem }
.worst .wide { grid-column: span 2 }
.worst img { width: 100%; image-rendering: auto; background: #000; display: block; margin-bottom: .3rem }
@media print { body { margin: 0 } .warning { border: 1px solid #b45309 } figure { break-inside: avoid } }
"""
