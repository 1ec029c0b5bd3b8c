"""Documentation that a program can check: every configuration key, the example files, the Makefile's help."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pipeline import config, config_load

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


def test_default_toml_shows_a_profile_with_every_key() -> None:
    commented = [line.removeprefix("# ") for line in DEFAULTS.read_text(encoding="utf-8").splitlines()]
    block = "\n".join(commented[next(i for i, line in enumerate(commented) if line.startswith("[profiles.")) :])
    (profile,) = tomllib.loads(block)["profiles"].values()
    assert set(profile) == set(config.ProfileSettings.__struct_fields__)


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
