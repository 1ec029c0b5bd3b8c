"""Documentation that a program can check: every configuration key, the example files, the Makefile's help."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import config, config_load, errors
from pipeline.cli import entry

ROOT = Path(__file__).parent.parent
DEFAULTS = ROOT / "configs" / "default.toml"


def flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_default_toml_lists_every_key_with_its_default_and_no_other() -> None:
    written = flat(tomllib.loads(DEFAULTS.read_text(encoding="utf-8")))
    defaults = config_load.flatten(config.Settings())
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()} == written


def test_default_toml_keeps_the_order_of_the_structs() -> None:
    assert list(flat(tomllib.loads(DEFAULTS.read_text(encoding="utf-8")))) == list(config_load.keys())


def test_default_toml_says_what_each_key_means() -> None:
    """All but two, whose names say it: `readers.docx` has one value, `connect_timeout_s` is one."""
    lines = [line for line in DEFAULTS.read_text(encoding="utf-8").splitlines() if re.match(r"\w+ =", line)]
    bare = {line.partition(" ")[0] for line in lines if "  # " not in line and " # " not in line}
    assert bare <= {"docx", "connect_timeout_s"}


@pytest.mark.parametrize("kind", sorted(config_load.TABLES))
def test_default_toml_shows_a_named_table_with_every_key(kind: str) -> None:
    commented = [line.removeprefix("# ") for line in DEFAULTS.read_text(encoding="utf-8").splitlines()]
    first = next(at for at, line in enumerate(commented) if line.startswith(f"[{kind}."))
    block = "\n".join(itertools.takewhile(str.strip, commented[first:]))
    (table,) = tomllib.loads(block)[kind].values()
    assert set(table) == set(config_load.TABLES[kind].__struct_fields__)


@pytest.mark.parametrize("flag", sorted(set(config_load.FLAGS.values())))
def test_default_toml_names_the_flag_of_a_setting(flag: str) -> None:
    assert flag in DEFAULTS.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_example_files_are_accepted(path: Path) -> None:
    loaded = config_load.load({}, {}, path, None)
    assert any(origin == str(path) for origin in loaded.origins.values())
    assert loaded.settings.chunk.size <= loaded.settings.chunk.max


def test_nightly_is_careful_and_tiny_is_small() -> None:
    nightly = config_load.load({}, {}, ROOT / "configs" / "nightly.toml", None).settings
    tiny = config_load.load({}, {}, ROOT / "configs" / "tiny.toml", None).settings
    plain = config.Settings()
    assert nightly.run.max_delete < plain.run.max_delete
    assert nightly.run.wait_lock_s > 0
    assert tiny.chunk.max < plain.chunk.size
    assert (tiny.readers.workers, tiny.embed.concurrency, tiny.embed.provider) == (1, 1, "builtin")


def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    helped = set(re.findall(r"@echo 'make (\w+)", text)) | {"help"}
    assert helped == set(phony[1].split())
    for target in helped:
        assert re.search(rf"^{target}:", text, re.MULTILINE)


def test_locks_name_no_index_and_hash_every_package() -> None:
    for name in ("base.lock", "dev.lock"):
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        pins = re.split(r"^(?=[a-z0-9].*==)", text, flags=re.MULTILINE)[1:]
        assert len(pins) > 50
        assert all("--hash=sha256:" in pin for pin in pins)
        assert "://" not in text


def test_dev_lock_holds_base_lock() -> None:
    pins = [
        set(re.findall(r"^[a-z0-9].*==\S+", (ROOT / "requirements" / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("base.lock", "dev.lock")
    ]
    assert pins[0] < pins[1]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def readme_commands() -> list[list[str]]:
    """Every `pipeline …` command line in the README and the guides, in a code block or between backticks, in words."""
    told = "\n".join([README, *(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("dify*.md")))])
    blocks = re.findall(r"^```sh\n(.*?)^```", told, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`(pipeline [^`]+)`", told)
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("pipeline ")]


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_readme_commands_exist(words: list[str]) -> None:
    """Each is accepted as far as its options: with --help at its end it ends well, and says nothing of an error."""
    command = entry.cli
    result = CliRunner().invoke(command, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


def test_readme_commands_were_found() -> None:
    names = {word for words in readme_commands() for word in words}
    assert {"run", "search", "ask", "status", "doctor"} <= names


def test_readme_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", README))
    assert {"embed", "test", "ask", "check"} <= named <= targets


def test_the_guide_to_dify_says_the_same_in_both_languages() -> None:
    """As many headings, blocks of commands, rows of tables and steps, and the same variables."""
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("dify.md", "dify.zh.md")]
    for pattern in (r"^#+ ", r"^```", r"^\| ", r"^\d\. "):
        english, chinese = (len(re.findall(pattern, page, re.MULTILINE)) for page in pages)
        assert english == chinese, pattern
    english, chinese = (set(re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z]+)+\b", page)) for page in pages)
    assert english == chinese


def test_links_between_files_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_names_every_exit_code() -> None:
    def codes(kind: type[errors.PipelineError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(child) for child in kind.__subclasses__()))

    written = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert written == codes(errors.PipelineError) | {0, 3}


def test_ci_runs_the_readme_s_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in README
    assert script.splitlines()[-1] == "make test"


def test_the_container_is_built_from_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert all(f"!{name}\n" in kept for name in copied)
    port = str(config.ServeSettings().port)
    assert f"EXPOSE {port}\n" in text
    assert f'["127.0.0.1:{port}:{port}"]' in (ROOT / "compose.yaml").read_text(encoding="utf-8")
