"""Clients in a settings file: whatever else stands there, in whatever order, stays as it was."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config_edit, errors

KEY = "0" * 64
BLOCKS = (
    "# mine\n[chunk]\nsize = 200  # as I like it\n",
    '[profiles."hub/x:4b"]\ndims = 3\n',
    "\n\n[clients.other]\n# for the wiki\nkey = 'abc'\n",
    '[clients."a.b"]\nkey = "def"\n',
    'data = "x"\n',
)


@given(
    blocks=st.lists(st.sampled_from(BLOCKS[:-1]), unique=True, max_size=4),
    top=st.booleans(),
    name=st.sampled_from(["dify", "a-b", "x.y", "维基"]),
    last=st.sampled_from(["", "\n", "\n\n\n"]),
)
def test_what_is_added_can_be_taken_out_again(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[str], top: bool, name: str, last: str
) -> None:
    path = tmp_path_factory.mktemp("settings") / "pipeline.toml"
    before = (BLOCKS[-1] if top else "") + "\n".join(blocks) + last
    path.write_text(before)
    config_edit.add_client(path, name, KEY, ["wiki"], 5)
    assert path.read_text().startswith(before)
    assert config_edit.clients(path)[name] == {"key": KEY, "collections": ["wiki"], "rate": 5}
    config_edit.remove_client(path, name)
    assert tomllib.loads(path.read_text()) == tomllib.loads(before)
    assert path.read_text().rstrip() == before.rstrip()


def test_a_client_in_the_middle_goes_alone(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(f'[clients.a]\nkey = "{KEY}"\n\n# about b\n[clients.b]\nkey = "{KEY}"\n\n[chunk]\nsize = 9\n')
    config_edit.remove_client(path, "b")
    assert path.read_text() == f'[clients.a]\nkey = "{KEY}"\n\n# about b\n\n[chunk]\nsize = 9\n'


@pytest.mark.parametrize("text", ["clients = { dify = { key = 'x' } }\n", "[clients]\ndify.key = 'x'\n"])
def test_a_file_written_otherwise_is_left_to_its_owner(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    with pytest.raises(errors.UsageError, match="does not edit"):
        config_edit.remove_client(path, "dify")
    assert path.read_text() == text


def test_a_link_stays_a_link_and_the_mode_what_it_was(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("")
    real.chmod(0o640)
    link = tmp_path / "pipeline.toml"
    link.symlink_to(real)
    config_edit.add_client(link, "dify", KEY, (), 0)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert config_edit.clients(real) == {"dify": {"key": KEY}}


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[clients\n")
    with pytest.raises(errors.ConfigError, match="not valid TOML"):
        config_edit.add_client(broken, "dify", KEY, (), 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigError, match="Cannot"):
        config_edit.add_client(tmp_path / "file" / "pipeline.toml", "dify", KEY, (), 0)
