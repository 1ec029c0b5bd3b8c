"""The command that draws a collection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, put_json

if TYPE_CHECKING:
    from pipeline import config
    from pipeline.chart import Chart

_NAMED = 6  # groups that the summary names
_MOST = 200_000  # chart.MOST_POINTS, repeated: importing it costs --help a second


@options.command("map")
@click.option(
    "--html", "page", type=click.Path(path_type=Path), metavar="FILE", help="Write it as one page that works offline."
)
@click.option(
    "--points",
    type=click.IntRange(10, _MOST),
    metavar="N",
    help="Draw a sample of so many passages where there are more.  [50000]",
)
@click.option("--again", is_flag=True, help="Draw it anew, though nothing changed.")
@options.json_output
@click.pass_obj
def map(state: State, page: Path | None, points: int | None, again: bool) -> int:  # noqa: A001 # named as the command
    """Draw a map of the collection.

    Passages that say similar things lie together; each group of them is named by the words that tell it from the
    others. The map is kept, and made again only when something new was published. `pipeline serve` shows it at /map. A
    run may go on meanwhile.
    """
    settings = state.load().settings
    from pipeline import chart

    made = chart.make(settings, state.progress(), points=points or chart.POINTS, again=again)
    if page is not None:
        _write(settings, page.expanduser(), made)
    if state.json:
        put_json(made.to_json() | ({"page": str(page)} if page is not None else {}))
    for line in _lines(made):
        state.tell(line)
    if page is not None and not state.json:
        state.say(f"Page: {page.expanduser().absolute().as_uri()}")
    elif page is None:
        state.suggest("serve, and look at /map; or: pipeline map --html map.html")
    return 0


def _lines(made: Chart) -> Iterator[str]:
    from pipeline import chart_page, report_words
    from pipeline.cli import render

    note = made.note
    took = f"drawn in {report_words.duration(note.seconds)}" if made.fresh else "as it was drawn: nothing changed since"
    sample = f", a sample of {note.passages:,}" if note.points < note.passages else ""
    yield f"A map of {note.points:,} passages{sample}, {took}."
    for group in note.groups[:_NAMED]:
        yield f"  {group.size:>7,}  {render.plain(chart_page.label(group)) or '(nothing tells it from the others)'}"
    if len(note.groups) > _NAMED:
        rest = sum(group.size for group in note.groups[_NAMED:])
        yield f"  {rest:>7,}  in {len(note.groups) - _NAMED} more groups"


def _write(settings: config.Settings, page: Path, made: Chart) -> None:
    from pipeline import chart_page, errors, query
    from pipeline.serve.web import assets, words

    locale = os.environ.get("LC_ALL") or os.environ.get("LANG", "")
    language = words.preferred(locale.replace("_", "-"))
    said = words.of(language)
    told = {name: assets.read(name)[0].decode() for name in ("page.css", "map.css", "map.js")}

    def say(key: str, **values: object) -> str:
        return said[key].format(**{name: f"{v:,}" if isinstance(v, int) else v for name, v in values.items()})

    texts = chart_page.texts_of(query.open_collection(settings), made)
    title = f"{said['map']} · {settings.collection}"
    html = chart_page.page(made, texts, say, title, told, "zh-Hans" if language == "zh" else "en")
    try:
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        raise errors.UsageError(f"{page} cannot be written: {error.strerror}", "Give another --html FILE.") from error
