"""A run's report as one HTML page: complete in itself, it asks for nothing and runs nothing.

Data in, text out. How it looks is report_page.css; that no text becomes markup is `report_markup`'s business.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from importlib import resources

from pipeline import report_charts, report_words
from pipeline.report import Before, Detail, Failure, Quality, Report
from pipeline.report_markup import Child, Element, el, page

FATES = ("new", "changed", "moved", "deleted", "unchanged", "failed")
FAILURES = 500  # rows of the table; the record names all
SHORTEST_LINE = 3  # samples below which there is no curve to draw
_STAGES = {"files": "reading", "chunks": "chunking", "texts": "embedding", "rows": "indexing", "pull": "pulling"}


@functools.cache
def _style() -> str:
    return resources.files("pipeline").joinpath("report_page.css").read_text(encoding="utf-8")


def render(report: Report) -> str:
    """The page."""
    detail = report.detail or Detail()
    title = f"{report.collection}: {report_words.ending(report)[1]}"
    sections = (
        _failure(report),
        _notes(report),
        _tiles(report),
        _files(report, detail),
        _failures(report.failures, detail),
        _quality(report.quality),
        _embedding(detail),
        _slowest(detail),
        _difference(report, detail.before) if detail.before else None,
        _provenance(report, detail),
        _messages(detail),
    )
    main = el("main", *(section for section in sections if section is not None))
    return page(title, _style(), _header(report), main, _footer(report))


def _header(report: Report) -> Element:
    level, words = report_words.ending(report)
    when = [report_words.moment(report.started_at), report_words.duration(report.seconds), report.host]
    return el(
        "header",
        el("h1", el("bdi", report.collection), " ", el("span", words, class_=f"badge {level}")),
        el("p", " · ".join(part for part in when if part), class_="quiet"),
    )


def _footer(report: Report) -> Element:
    last = f"Last success: {report_words.moment(report.last_success_at) or 'none yet'}. "
    return el("footer", f"{last}embed-pipeline {report.version}, stages: {', '.join(report.stages)}.")


def _section(title: str, *children: Child) -> Element:
    return el("section", el("h2", title), *children)


def _failure(report: Report) -> Element | None:
    if not report.error:
        return None
    return el("section", el("p", report.error), el("p", report.remedy, class_="quiet"), class_="alert")


def _notes(report: Report) -> Element | None:
    notes = [*_left(report), *report.notes]
    return _section("Notes", el("ul", *(el("li", note) for note in notes))) if notes else None


def _left(report: Report) -> Iterator[str]:
    """What the time limit left for the next run."""
    if report.incomplete:
        yield (
            f"For the next run: {report.files_left:,} files to read, {report.chunks_left:,} chunks to embed; of "
            f"{report.documents_held:,} documents the version before is searched until then."
        )


def _tiles(report: Report) -> Element:
    files = sum(count for fate, count in report.files.items() if fate != "deleted")
    rate = report.embedded_tokens / report.embed_seconds if report.embed_seconds else 0.0
    before = report.detail.before if report.detail else None
    grown = f"{report_words.size(report.disk_bytes - before.disk_bytes)} more" if before else ""
    if before and report.disk_bytes < before.disk_bytes:
        grown = f"{report_words.size(before.disk_bytes - report.disk_bytes)} less"
    tiles = [
        ("Files", f"{files:,}" if report.files else "–", ""),
        ("Documents", f"{report.documents:,}", ""),
        ("Chunks", f"{report.chunks:,}", f"{report.vectors:,} with vector"),
        ("Embedded now", f"{report.embedded_texts:,}", f"{report.reused:,} reused"),
        ("Tokens", f"{report.embedded_tokens:,}", f"{rate:,.0f} a second" if rate else ""),
        ("Index rows", f"+{report.rows_added:,} −{report.rows_deleted:,}", ""),
        ("Rejected", f"{report.rejects:,}", ""),
        ("On disk", report_words.size(report.disk_bytes), grown),
    ]
    return el(
        "dl", *(el("div", el("dt", a), el("dd", b), el("dd", c, class_="quiet")) for a, b, c in tiles), class_="tiles"
    )


def _files(report: Report, detail: Detail) -> Element | None:
    counts = [(fate, report.files.get(fate, 0)) for fate in FATES]
    if not any(count for _, count in counts):
        return None
    legend = [el("li", el("i", "", class_=f"fate-{fate}"), f"{fate} ", el("b", f"{n:,}")) for fate, n in counts if n]
    names = [_names(fate, report.files.get(fate, 0), detail.named[fate]) for fate in FATES if detail.named.get(fate)]
    return _section("Files", report_charts.shares(counts), el("ul", *legend, class_="legend"), *names)


def _names(title: str, count: int, names: Sequence[str]) -> Element:
    items = [el("li", el("bdi", name)) for name in names]
    if count > len(names):
        items.append(el("li", f"and {count - len(names):,} more", class_="quiet"))
    return el("details", el("summary", f"{title} ({count:,})"), el("ul", *items, class_="names"))


def _failures(failures: Sequence[Failure], detail: Detail) -> Element | None:
    mended = _names("mended since the run before", len(detail.mended), detail.mended) if detail.mended else None
    if not failures:
        return _section("Cannot be read or embedded", el("p", "Nothing."), mended) if mended is not None else None
    told = f"{detail.new_failures:,} of {len(failures):,} are new. " if detail.before and detail.new_failures else ""
    if len(failures) > FAILURES:
        told += f"The first {FAILURES:,} are shown. "
    again = (f"{told}They are tried again when they change, or by ", el("code", "pipeline retry"), ".")
    items = [
        el("li", el("b", el("bdi", one.uri)), el("small", f"{one.stage}: {one.kind}"), el("p", el("bdi", one.reason)))
        for one in failures[:FAILURES]
    ]
    words, shown = el("p", *again, class_="quiet"), el("ul", *items, class_="failures")
    return _section("Cannot be read or embedded", words, shown, *([mended] if mended is not None else []))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Element:
    """`numbers`: columns set flush right."""

    def cell(tag: str, column: int, text: str) -> Element:
        return el(tag, el("bdi", text), **({"class_": "number"} if column in numbers else {}))

    head = el("tr", *(cell("th", column, text) for column, text in enumerate(heads)))
    body = [el("tr", *(cell("td", column, text) for column, text in enumerate(row))) for row in rows]
    return el("div", el("table", el("thead", head), el("tbody", *body)), class_="wide")


def _quality(found: Quality | None) -> Element | None:
    if found is None:
        return None
    told = f"Of {found.questions:,} golden questions, {found.recall:.1%} find their passage among the first five"
    if found.published_recall is not None:
        told += f"; what was published before finds {found.published_recall:.1%}"
    refused = f" That is more than {found.max_drop:.1%} less, so it was not published." if found.refused else ""
    left = found.left_out
    names = [_names("left out: no document holds their quotes", len(left), left[:FAILURES])] if left else []
    return _section("Quality", el("p", f"{told}.{refused}"), *names)


def _embedding(detail: Detail) -> Element | None:
    parts = list(_charts(detail))
    spans = [(_STAGES.get(task, task), report_words.duration(s)) for task, s in detail.stage_seconds.items()]
    if spans:
        parts.append(el("p", "From first to last sign: ", ", ".join(f"{name} {time}" for name, time in spans), "."))
    facts = []
    if detail.split:
        facts.append(f"{detail.split:,} chunks end inside a sentence or line that is longer than a chunk")
    if detail.servers > 1:
        facts.append(f"{detail.servers} model servers answered")
    if detail.retries:
        facts.append(f"{detail.retries:,} requests were sent again")
    if facts:
        parts.append(el("p", f"{'; '.join(facts)}. No text is ever truncated."))
    return _section("Work", *parts) if parts else None


def _charts(detail: Detail) -> Iterator[Element]:
    points = [(sample.at_s, sample.tokens_per_s) for sample in detail.samples]
    if len(points) >= SHORTEST_LINE:
        top = max(rate for _, rate in points)
        begin, end = (report_words.duration(at) for at in (points[0][0], points[-1][0]))
        yield report_charts.line(f"Tokens per second, at most {top:,.0f}", points, begin, end)
    if detail.lengths:
        width = detail.bin_tokens
        labels = [
            f"{number * width} to {number * width + width - 1} tokens: {count:,} chunks"
            for number, count in enumerate(detail.lengths)
        ]
        last = f"{len(detail.lengths) * width} tokens"
        title = f"Length of the {sum(detail.lengths):,} chunks made in this run"
        yield report_charts.bars(title, detail.lengths, labels, "0", last)


def _slowest(detail: Detail) -> Element | None:
    if not detail.slowest:
        return None
    rows = [(f.uri, report_words.duration(f.seconds), report_words.size(f.bytes)) for f in detail.slowest]
    return _section("Slowest files", _table(("file", "time", "size"), rows, numbers=(1, 2)))


def _difference(report: Report, before: Before) -> Element:
    rows = [
        ("documents", before.documents, report.documents),
        ("chunks", before.chunks, report.chunks),
        ("texts embedded", before.embedded_texts, report.embedded_texts),
        ("tokens embedded", before.embedded_tokens, report.embedded_tokens),
        ("rejected", before.rejects, report.rejects),
    ]
    lines = [(name, f"{old:,}", f"{new:,}", report_words.change(new, old)) for name, old, new in rows]
    times = (report_words.duration(before.seconds), report_words.duration(report.seconds))
    lines += [
        ("time", *times, ""),
        ("on disk", report_words.size(before.disk_bytes), report_words.size(report.disk_bytes), ""),
        ("freed on disk", "", report_words.size(report.freed_bytes), ""),
        ("exit code", str(before.exit_code), str(report.exit_code), ""),
    ]
    if before.model != report.model:
        lines.append(("model", before.model, report.model, "changed"))
    when = el("p", f"The run before: {report_words.moment(before.started_at)}.", class_="quiet")
    return _section("Since the run before", when, _table(("", "before", "now", "change"), lines, numbers=(1, 2, 3)))


def _provenance(report: Report, detail: Detail) -> Element | None:
    rows = [*detail.provenance, *(("folder", folder) for folder in detail.folders)]
    if report.snapshot:
        rows.append(("snapshot", str(report.snapshot)))
    if not rows:
        return None
    pairs = [cell for name, value in rows for cell in (el("dt", name.replace("_", " ")), el("dd", el("bdi", value)))]
    return _section("Made by", el("dl", *pairs, class_="pairs"))


def _messages(detail: Detail) -> Element | None:
    if not detail.messages:
        return None
    names = list(detail.messages)
    return el("section", _names("Said during the run", len(names) + detail.unkept, names))
