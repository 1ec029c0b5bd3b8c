"""The map of a collection: how vectors become points and groups, what groups are called, how maps are kept, and the
command with its page for a browser without a server.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from lxml import html as parser

from pipeline import chart, chart_page, check, config, errors, garbage, projection, query, schema, telling
from pipeline.progress import Silent
from pipeline.serve.web import assets, words
from pipeline.store import Collection
from pipeline.store.charts import KEPT, Charts
from tests import served
from tests.command_line import invoke

# --- points


def islands(each: int, dims: int = 24) -> tuple[projection.Numbers, np.ndarray]:
    """Vectors around four directions, in a mixed order, and which direction each belongs to."""
    random = np.random.default_rng(7)
    of = np.repeat(np.arange(4), each)
    random.shuffle(of)
    vectors = np.eye(dims, dtype=np.float32)[of] + 0.05 * random.standard_normal((4 * each, dims)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), of


def test_what_is_alike_lies_together_and_in_one_group() -> None:
    vectors, of = islands(40)
    calls: list[int] = []
    placed = projection.project(vectors, lambda: calls.append(1))
    assert placed.points.shape == (160, 2)
    assert float(np.abs(placed.points).max()) == pytest.approx(1.0)
    gaps = np.linalg.norm(placed.points[:, None] - placed.points[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert (of[gaps.argmin(axis=1)] == of).mean() > 0.99
    shares = [np.bincount(of[placed.groups == group]).max() / (placed.groups == group).sum() for group in range(4)]
    assert min(shares) > 0.99, "a group holds more than one island"
    sizes = np.bincount(placed.groups)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert 3 <= len(calls) <= projection.STEPS


def test_equal_input_gives_an_equal_picture() -> None:
    vectors, _ = islands(20)
    first, second = projection.project(vectors), projection.project(vectors.copy())
    assert np.array_equal(first.points, second.points)
    assert np.array_equal(first.groups, second.groups)


@pytest.mark.parametrize("count", [1, 2, 3, projection.FEW, projection.FEW + 1, projection.FEW + 2])
@pytest.mark.parametrize("alike", [False, True])
def test_few_vectors_or_equal_ones_can_be_pointed_at_one_by_one(count: int, alike: bool) -> None:
    vectors = np.random.default_rng(3).standard_normal((1 if alike else count, 16)).astype(np.float32)
    placed = projection.project(np.repeat(vectors, count, axis=0) if alike else vectors)
    assert np.isfinite(placed.points).all()
    assert float(np.abs(placed.points).max()) <= 1
    assert len(np.unique(placed.points, axis=0)) == count
    assert placed.groups.max() < (1 if alike else 3)


def test_many_of_one_text_lie_around_its_place() -> None:
    vectors, _ = islands(10)
    placed = projection.project(np.concatenate([vectors, np.repeat(vectors[:1], 30, axis=0)]))
    around = np.linalg.norm(placed.points[40:] - placed.points[0], axis=1)
    assert float(around.max()) < 0.05
    assert len(np.unique(placed.points[40:], axis=0)) == 30
    assert (placed.groups[40:] == placed.groups[0]).all()


def test_components_are_those_of_the_singular_values() -> None:
    vectors = np.random.default_rng(1).standard_normal((50, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    components = projection.principal(vectors, 3)
    values = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    assert np.allclose(np.linalg.norm(components, axis=0), values[:3], rtol=1e-4)
    largest = np.abs(components).argmax(axis=0)
    assert (components[largest, range(3)] > 0).all()


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)  # as Python marks what cannot be imported
    with pytest.raises(errors.ConfigError, match="openTSNE") as raised:
        projection.check()
    assert ".[map]" in raised.value.remedy


# --- names of groups


def test_a_group_is_called_by_what_tells_it_from_the_others() -> None:
    cats = ["The cat sleeps on the mat", "The cat and the kitten eat the fish", "A cat is in the house, and 12 more"]
    ships = ["The ship sails on the sea", "The ship and the crew are in the harbour", "A ship is on the river"]
    (cat, *_), (ship, *_) = telling.labels([cats, ships])
    assert (cat, ship) == ("cat", "ship")
    assert not {"the", "and", "12"} & set(telling.labels([cats, ships])[0][:1])


def test_chinese_and_japanese_groups_are_called_by_words() -> None:
    rain = ["雨量计安装在屋顶上，每天读数。", "请检查雨量计的读数是否正确。", "雨量计的漏斗需要清洗。"]
    leave = ["员工每年享有年休假二十五天。", "年休假须提前申请。", "未使用的年休假不能顺延。"]
    labels = telling.labels([rain, leave])
    assert "雨量计" in labels[0][:2]
    assert "年休假" in labels[1][:2]
    assert not any(word.startswith("的") or word.endswith("的") for label in labels for word in label)
    japanese = telling.labels(
        [["会議は金曜日に行われます。", "会議の記録です。"], ["屋根を修理します。", "屋根の雪です。"]]
    )
    assert "会議" in japanese[0]
    assert "屋根" in japanese[1]


def test_what_tells_a_chinese_group_is_not_that_it_is_chinese() -> None:
    english = [["the lawn is green", "the lawn is wet"], ["the piano is loud", "the piano is old"]]
    chinese = [["系统管理员负责备份数据库", "备份数据库每天一次"], ["系统管理员负责更换打印机", "打印机没有墨水"]]
    first, second = telling.labels([*english, *chinese])[2:]
    assert "系统管理" not in first[:1] + second[:1]
    assert "打印机" in second


def test_groups_without_words_have_no_name() -> None:
    assert telling.labels([["12 34", ""], ["the lawn", "the lawn is wet"], []])[::2] == [(), ()]
    assert telling.labels([]) == []


def test_one_group_alone_is_called_by_its_own_words() -> None:
    (label,) = telling.labels([["the gauge on the roof", "the gauge in the snow", "the gauge by the hut"]])
    assert "gauge" in label


# --- maps on disk


def rows(count: int = 2) -> pa.Table:
    made = [
        {"chunk_id": f"{n:032x}", "uri": f"a/{n}.md", "title": "", "page": None, "x": 0.0, "y": n / count, "group": 0}
        for n in range(count)
    ]
    return pa.Table.from_pylist(made, schema.MAP)


def test_the_newest_map_of_its_kind_is_found_and_old_ones_may_go(tmp_path: Path) -> None:
    charts = Charts(tmp_path / "maps")
    assert charts.all() == []
    assert charts.find("a" * 16) is None
    assert charts.unneeded() == []
    made = [charts.write(letter * 16, rows(), "{}") for letter in "abcab"]
    assert charts.all() == made, "each is later than the one before, however fast they come"
    assert charts.find("a" * 16) == made[3]
    assert charts.find("f" * 16) is None
    assert charts.unneeded() == [entry.path for entry in made[:-KEPT]]
    charts.tidy()
    assert charts.all() == made[-KEPT:]
    table, note = charts.read(made[-1])
    assert table.equals(rows())
    assert note == "{}"


def test_drafts_go_when_they_are_a_day_old_and_strangers_stay(tmp_path: Path) -> None:
    charts = Charts(tmp_path)
    entry = charts.write("a" * 16, rows(), "{}")
    young, old = (tmp_path / f"{entry.path.name}.{n:08x}" for n in range(2))
    for path in (young, old, tmp_path / "notes.parquet"):
        path.write_bytes(b"")
    os.utime(old, (1, 1))
    os.utime(tmp_path / "notes.parquet", (1, 1))
    charts.tidy()
    assert not old.exists()
    assert young.exists()
    assert (tmp_path / "notes.parquet").exists()
    assert charts.all() == [entry]


@pytest.mark.parametrize("name", ["", "..", "../VERSION", "1795392239641-cc7f723e07f16f80/../x", "*"])
def test_a_name_that_is_none_finds_no_map(tmp_path: Path, name: str) -> None:
    charts = Charts(tmp_path)
    charts.write("a" * 16, rows(), "{}")
    assert charts.named(name) is None


# --- of a collection

TOPICS = {
    "garden": "The {n}. row of tomatoes in the garden is watered with a can, and weeds are pulled by hand.",
    "harbour": "Ship number {n} leaves the harbour at high tide; its cargo is coal and its captain is tired.",
    "office/law": "Clause {n} of the contract says that the tenant gives notice to the landlord in writing.",
}


def documents() -> dict[str, str]:
    made = {
        f"{folder}/{n}.md": f"# {folder} {n}\n\n{text.format(n=n)}\n"
        for folder, text in TOPICS.items()
        for n in range(6)
    }
    return made | {
        "readme.md": "# </script><img src=x onerror=alert(1)>\n\n<b>Bold</b> \u202eevil text of a document.\n"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> config.Settings:
    """A collection of 19 passages without a map. Whoever changes it takes a copy (`own`)."""
    folder = tmp_path_factory.mktemp("map")
    settings = served.settings(folder / "data")
    served.build(settings, served.write(folder / "docs", documents()))
    return settings


@pytest.fixture
def own(built: config.Settings, tmp_path: Path) -> config.Settings:
    shutil.copytree(built.data, tmp_path / "data")
    return msgspec.structs.replace(built, data=str(tmp_path / "data"))


@pytest.fixture(scope="module")
def drawn(built: config.Settings, tmp_path_factory: pytest.TempPathFactory) -> config.Settings:
    """The same with a map; nobody changes it."""
    data = tmp_path_factory.mktemp("drawn") / "data"
    shutil.copytree(built.data, data)
    settings = msgspec.structs.replace(built, data=str(data))
    chart.make(settings, Silent())
    return settings


def of(settings: config.Settings) -> Collection:
    return Collection(Path(settings.data), settings.collection)


def test_a_map_holds_every_passage_and_says_what_its_groups_are(drawn: config.Settings) -> None:
    made = chart.make(drawn, Silent())
    assert not made.fresh, "it was drawn before, and nothing has changed"
    standing = query.open_collection(drawn)
    ids = query.open_reader(standing).rows(["chunk_id"])["chunk_id"].to_pylist()
    assert made.rows["chunk_id"].to_pylist() == sorted(ids)
    assert made.rows.schema.equals(schema.MAP)
    assert (made.note.points, made.note.passages, made.note.snapshot) == (19, 19, 1)
    assert sum(group.size for group in made.note.groups) == 19
    assert all(
        made.rows["group"][row].as_py() == n for n, group in enumerate(made.note.groups) for row in group.typical
    )
    assert len({made.rows["uri"][row].as_py() for row in made.note.groups[0].typical}) == chart.TYPICAL


def test_it_is_drawn_again_when_something_was_published_and_not_before(own: config.Settings, tmp_path: Path) -> None:
    first = chart.make(own, Silent())
    collection = of(own)
    assert chart.newest(collection, query.open_collection(own).note) == (first.entry, True)
    served.build(own, served.write(tmp_path / "docs", documents() | {"new.md": "# New\n\nA text that was not there."}))
    assert chart.newest(collection, query.open_collection(own).note) == (first.entry, False), "of an older publication"
    second = chart.make(own, Silent())
    assert second.fresh
    assert second.rows.num_rows == 20
    assert chart.newest(collection, query.open_collection(own).note) == (second.entry, True)
    assert chart.make(own, Silent(), again=True).entry != second.entry


def test_a_sample_is_drawn_of_many_and_is_known_again(own: config.Settings) -> None:
    made = chart.make(own, Silent(), points=15)
    ids = query.open_reader(query.open_collection(own)).rows(["chunk_id"])["chunk_id"].to_pylist()
    assert made.rows["chunk_id"].to_pylist() == sorted(ids)[:15], "the smallest: they are hashes"
    assert (made.note.points, made.note.passages) == (15, 19)
    assert chart.newest(of(own), query.open_collection(own).note) == (made.entry, True)
    assert chart.make(own, Silent(), points=15).entry == made.entry
    assert chart.make(own, Silent(), points=16).fresh


def test_who_draws_stands_in_no_run_s_way_and_check_and_gc_know_maps(own: config.Settings) -> None:
    collection = of(own)
    with collection.writing():
        made = chart.make(own, Silent())
    with collection.writing():  # its sweep is the next run's
        assert made.entry.path.exists()
    assert check.check(own, Silent()).findings == ()
    note = made.entry.path.read_bytes()
    for n in range(KEPT + 1):
        (made.entry.path.parent / f"{n:013d}-{'a' * 16}.parquet").write_bytes(note)
    freed = garbage.collect(own, Silent(), dry_run=True).freed["maps"]
    assert (freed.files, freed.bytes) == (2, 2 * len(note))
    garbage.collect(own, Silent())
    assert len(collection.charts.all()) == KEPT
    assert made.entry.path.exists(), "the newest stays"


def test_a_damaged_map_is_made_again(own: config.Settings, caplog: pytest.LogCaptureFixture) -> None:
    made = chart.make(own, Silent())
    content = bytearray(made.entry.path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    made.entry.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(errors.CorruptStore):
        chart.read(of(own), made.entry)
    again = chart.make(own, Silent())
    assert again.fresh
    assert again.rows.equals(made.rows)
    assert "made again" in caplog.text


# --- the command and its page


def test_the_command_draws_once_and_names_the_groups(own: config.Settings, tmp_path: Path) -> None:
    first = invoke(tmp_path, "map", "--data", own.data)
    assert first.exit_code == 0, first.output
    assert "A map of 19 passages, drawn in" in first.stdout
    second = invoke(tmp_path, "map", "--data", own.data, "--json")
    told = json.loads(second.stdout)
    assert (told["made"], told["points"], told["passages"]) == (False, 19, 19)
    assert Path(told["file"]).is_file()
    assert len(told["groups"]) == 1
    assert "nothing changed since" in invoke(tmp_path, "map", "--data", own.data).stdout
    third = json.loads(invoke(tmp_path, "map", "--data", own.data, "--json", "--points", "15").stdout)
    assert (third["made"], third["points"], third["passages"]) == (True, 15, 19)


def test_the_command_says_what_is_missing(built: config.Settings, tmp_path: Path) -> None:
    nothing = invoke(tmp_path, "map", "--data", str(tmp_path / "none"))
    assert nothing.exit_code == errors.NoIndex.exit_code
    assert "pipeline run" in nothing.stderr
    assert invoke(tmp_path, "map", "--data", built.data, "--points", "3").exit_code == 2


def test_the_page_is_one_file_that_runs_its_own_script_alone(drawn: config.Settings, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    done = invoke(tmp_path, "map", "--data", drawn.data, "--html", str(page), "-q")
    assert done.exit_code == 0, done.output
    root = parser.document_fromstring(page.read_text(encoding="utf-8"))
    policy = root.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
    for kind, element in (("script", "script"), ("style", "style")):
        (own,) = root.iter(element)
        digest = base64.b64encode(hashlib.sha256(own.text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not root.xpath("//@src | //link[not(starts-with(@href, 'data:'))]/@href | //a/@href"), "nothing is loaded"
    assert not root.xpath("//img | //@onerror | //main//b"), "a document's text became markup"
    data = json.loads(root.get_element_by_id("map-data").text)
    texts = [text for _, text in data["texts"]]
    assert any("<b>Bold</b> evil text" in text for text in texts), "the text is there, without its override"


def test_the_page_in_chinese(drawn: config.Settings, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    invoke(tmp_path, "map", "--data", drawn.data, "--html", str(page), env={"LANG": "zh_CN.UTF-8", "LC_ALL": ""})
    text = page.read_text(encoding="utf-8")
    assert '<html lang="zh-Hans">' in text
    assert words.of("zh")["map_all"].format(n=19, groups=1) in text
    refused = invoke(tmp_path, "map", "--data", drawn.data, "--html", str(tmp_path / "none" / "map.html"))
    assert refused.exit_code == errors.UsageError.exit_code
    assert "cannot be written" in refused.stderr


def test_columns_say_what_the_rows_say(drawn: config.Settings) -> None:
    made = chart.make(drawn, Silent())
    told = chart_page.columns(made)
    x = np.frombuffer(base64.b64decode(told["x"]), "<u2") / 65_535 * 2 - 1
    assert np.allclose(x, made.rows["x"].to_numpy(), atol=1e-4)
    file = np.frombuffer(base64.b64decode(told["file"]), "<u4")
    assert [told["files"][n] for n in file] == made.rows["uri"].to_pylist()
    assert set(np.frombuffer(base64.b64decode(told["page"]), "<u4")) == {0}
    assert told["folders"] == ["garden", "harbour", "office", "."]
    folder = {name: told["folders"][n] for name, n in zip(told["files"], told["folder"], strict=True)}
    assert folder["office/law/3.md"] == "office"
    assert folder["readme.md"] == "."


def test_folders_begin_where_paths_part_and_the_small_ones_are_one() -> None:
    paths = [f"docs/2026/{n:02d}/a.zip!/inner/x.md" for n in range(20)] + ["docs/2026/00/b.md"]
    named, numbers = chart_page._folders(paths, paths)
    assert named[0] == "docs/2026/00"
    assert len(named) == chart_page.FOLDERS
    assert numbers[0] == numbers[-1] == 0
    assert numbers[19] == chart_page.FOLDERS
    assert chart_page._folders(["x.md"], ["x.md"]) == (["."], [0])


def test_the_script_finds_its_words_and_the_style_its_colours() -> None:
    script = assets.read("map.js")[0].decode()
    assert set(re.findall(r"say\([^\"()]*\"(map_\w+)\"", script)) <= set(chart_page.SPOKEN) <= set(words.of("en"))
    style = assets.read("map.css")[0].decode()
    assert all(style.count(f"--map-{n}: #") == 2 for n in range(projection.MOST_GROUPS)), "in light and dark"
    assert "innerHTML" not in script
    assert "eval(" not in script
