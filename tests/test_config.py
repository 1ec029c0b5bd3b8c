"""Settings: which source wins, what is refused and in which words. Real files, environments as arguments."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import config, config_load, errors


def load(
    tmp_path: Path,
    *,
    project: str | None = None,
    user: str | None = None,
    env: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
) -> config_load.Loaded:
    files: dict[str, Path | None] = {"project": None, "user": tmp_path / "absent.toml"}
    for name, text in (("project", project), ("user", user)):
        if text is not None:
            files[name] = tmp_path / f"{name}.toml"
            (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    return config_load.load(flags or {}, env or {}, files["project"], files["user"])


def refused(tmp_path: Path, **sources: Any) -> errors.ConfigError:
    with pytest.raises(errors.ConfigError) as caught:
        load(tmp_path, **sources)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


# --- precedence

SOURCES: tuple[tuple[str, dict[str, Any]], ...] = (  # from the weakest to the strongest
    ("user.toml", {"user": "[chunk]\nsize = 101"}),
    ("project.toml", {"project": "[chunk]\nsize = 102"}),
    ("PIPELINE_CHUNK_SIZE", {"env": {"PIPELINE_CHUNK_SIZE": "103"}}),
    ("chunk.size", {"flags": {"chunk.size": "104"}}),
)


@pytest.mark.parametrize("present", range(16))
def test_the_strongest_source_present_wins(tmp_path: Path, present: int) -> None:
    given_: dict[str, Any] = {}
    origin, size = "default", 256
    for number, (name, source) in enumerate(SOURCES):
        if present & 1 << number:
            given_ |= source
            origin, size = name, 101 + number
    loaded = load(tmp_path, **given_)
    assert loaded.settings.chunk.size == size
    assert loaded.origins["chunk.size"].endswith(origin)


def test_sources_are_merged_key_by_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, user="[chunk]\nsize = 101\nmax = 300", project="[chunk]\nmax = 301\n[embed]\nmodel = 'a'")
    assert (loaded.settings.chunk.size, loaded.settings.chunk.max, loaded.settings.embed.model) == (101, 301, "a")
    assert Path(loaded.origins["chunk.size"]).name == "user.toml"
    assert Path(loaded.origins["chunk.max"]).name == "project.toml"


def test_without_any_source_the_structs_speak(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.settings == config.Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(config_load.keys())


def test_a_flag_of_none_was_not_given(tmp_path: Path) -> None:
    loaded = load(tmp_path, env={"PIPELINE_MODEL": "m"}, flags={"embed.model": None})
    assert (loaded.settings.embed.model, loaded.origins["embed.model"]) == ("m", "PIPELINE_MODEL")


def test_a_flag_is_named_as_typed(tmp_path: Path) -> None:
    assert load(tmp_path, flags={"embed.model": "m"}).origins["embed.model"] == "--model"
    assert "--max-delete" in refused(tmp_path, flags={"run.max_delete": "150%"}).message


# --- variables


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("PIPELINE_DATA", "x y", "data", "x y"),
        ("PIPELINE_COLLECTION", "文档", "collection", "文档"),
        ("PIPELINE_PROVIDER", "builtin", "embed.provider", "builtin"),
        ("PIPELINE_EMBED_PROVIDER", "builtin", "embed.provider", "builtin"),
        ("PIPELINE_MODEL", "bge-m3", "embed.model", "bge-m3"),
        ("PIPELINE_CHUNK_SIZE", "320", "chunk.size", 320),
        ("PIPELINE_CHUNK_CONTEXT", "false", "chunk.context", False),
        ("PIPELINE_EMBED_FLUSH_S", "2.5", "embed.flush_s", 2.5),
        ("PIPELINE_OLLAMA_HOSTS", "a:1, b:2,", "ollama.hosts", ("a:1", "b:2")),
        ("PIPELINE_SOURCE_EXCLUDE", "*.tmp", "source.exclude", ("*.tmp",)),
        ("PIPELINE_RUN_MAX_DELETE", "20%", "run.max_delete", 0.2),
        ("PIPELINE_RUN_MAX_DELETE", "1", "run.max_delete", 1.0),
        ("OLLAMA_HOST", "0.0.0.0:11500", "ollama.hosts", ("0.0.0.0:11500",)),
    ],
)
def test_variables(tmp_path: Path, name: str, text: str, key: str, value: object) -> None:
    loaded = load(tmp_path, env={name: text})
    assert config_load.flatten(loaded.settings)[key] == value
    assert loaded.origins[key] == name


def test_every_key_has_a_variable_that_sets_it(tmp_path: Path) -> None:
    """Its default, written as text, is accepted and attributed to the variable."""
    shaped = {
        "openai.url": "http://127.0.0.1:8080/v1",
        "run.max_duration": "1h30m",
        "run.until": "06:00",
        "report.metrics_file": "pipeline-{collection}.prom",
    }
    for key, value in config_load.flatten(config.Settings()).items():
        text = ",".join(value) if isinstance(value, tuple) else str(value).lower() if value != "" else "x"
        name, text = config_load.variable(key), shaped.get(key, text)
        if text:
            assert load(tmp_path, env={name: text}).origins[key] == name


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    empty = {"PIPELINE_MODEL": "", "PIPELINE_CHUNK_SIZE": "", "OLLAMA_HOST": " ", "PIPELINE_TYPO": ""}
    assert load(tmp_path, env=empty).settings == config.Settings()


def test_ollama_host_yields_to_every_setting(tmp_path: Path) -> None:
    env = {"OLLAMA_HOST": "http://weak:1"}
    assert load(tmp_path, env=env, user="[ollama]\nhosts = ['strong:2']").settings.ollama.hosts == ("strong:2",)
    assert load(tmp_path, env=env, flags={"ollama.hosts": ("strong:3",)}).settings.ollama.hosts == ("strong:3",)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PIPELINE_COLECTION", "PIPELINE_COLLECTION"),
        ("PIPELINE_CHUNK_SIEZ", "PIPELINE_CHUNK_SIZE"),
        ("PIPELINE_CHUNKSIZE", "PIPELINE_CHUNK_SIZE"),
        ("PIPELINE_CONFG", "PIPELINE_CONFIG"),
        ("PIPELINE_RUN_ID", ""),  # begins with a section of ours: refused, with nothing like it to name
    ],
)
def test_a_variable_like_ours_is_refused(tmp_path: Path, name: str, nearest: str) -> None:
    error = refused(tmp_path, env={name: "1"})
    assert name in error.message
    assert (f"Did you mean {nearest}?" in error.remedy) == bool(nearest)
    assert f"env -u {name}" in error.remedy


def test_a_variable_of_another_program_is_left_alone(tmp_path: Path) -> None:
    loaded = load(tmp_path, env={"PIPELINE_WORKSPACE": "/azure", "PIPELINES_X": "1", "PATH": "/bin"})
    assert loaded.ignored == ("PIPELINE_WORKSPACE",)


def test_two_variables_for_one_setting_must_agree(tmp_path: Path) -> None:
    assert "contradict" in refused(tmp_path, env={"PIPELINE_MODEL": "a", "PIPELINE_EMBED_MODEL": "b"}).message
    assert load(tmp_path, env={"PIPELINE_MODEL": "a", "PIPELINE_EMBED_MODEL": "a"}).settings.embed.model == "a"


# --- refusals


@pytest.mark.parametrize(
    ("text", "said", "remedy"),
    [
        ("[chunk]\nsiez = 3", "unknown key chunk.siez", "Did you mean chunk.size?"),
        ("[chunks]\nsize = 300", "unknown key chunks", "Did you mean chunk?"),
        ("size = 300", "unknown key size", "Did you mean chunk.size?"),
        ("[embed]\nmax_delete = 0.5", "unknown key embed.max_delete", "Did you mean run.max_delete?"),
        ("[zzz]\nqqq = 1", "unknown key zzz", "`pipeline config show`"),
        ("chunk = 3", "chunk = 3: must be a table", "[chunk]"),
        ("[profiles]\nm = 3", "profiles.m = 3: must be a table", "[profiles.m]"),
        ("[clients.dify]\nrate = 3", "clients.dify has no key", "[clients.dify]"),
        ("[clients.dify]\nkey = 'sesame'", 'clients.dify.key = "sesame"', "SHA-256"),
        ("[profiles.m]\ndim = 3", "unknown key profiles.m.dim", "Did you mean profiles.m.dims?"),
        ("[profiles.m]\nquery = 'q'", 'profiles.m.query = "q"', "{text}"),
        ("[chunk]\nsize = 'x'", 'chunk.size = "x"', "a whole number from 8 to 32768"),
        ("[chunk]\nsize = '320'", 'chunk.size = "320"', "a whole number"),  # text is no number in a file
        ("[chunk]\nsize = 2.0", "chunk.size = 2.0", "a whole number"),
        ("[chunk]\nsize = true", "chunk.size = true", "a whole number"),
        ("[chunk]\ncontext = 1", "chunk.context = 1", "true or false"),
        ("[embed]\nprovider = 'olama'", 'embed.provider = "olama"', "one of auto, ollama, openai, builtin"),
        ("[run]\nmax_delete = 0", "run.max_delete = 0", "above 0, at most 1"),
        ("[run]\nmax_delete = 1.01", "run.max_delete = 1.01", "above 0, at most 1"),
        ("[run]\nmax_delete = nan", "run.max_delete = nan", "above 0, at most 1"),
        ("[run]\nmax_duration = '6'", 'run.max_duration = "6"', 'such as "6h"'),
        ("[run]\nuntil = '24:00'", 'run.until = "24:00"', 'a time of day such as "06:00"'),
        ("[run]\nwait_lock_s = inf", "run.wait_lock_s = inf", "a number from 0 to 604800"),
        ("[generate]\ntemperature = -1", "generate.temperature = -1", "a number from 0 to 2"),
        ("[ollama]\nkeep_alive = 'soon'", 'ollama.keep_alive = "soon"', '"30m"'),
        ("[ollama]\nconnect_timeout_s = 0", "ollama.connect_timeout_s = 0", "a number above 0 to 3600"),
        ("[openai]\nurl = 'localhost'", 'openai.url = "localhost"', "http://"),
        ("[source]\nfolders = 'docs'", 'source.folders = "docs"', "a list, each item a text"),
        ("[source]\nfolders = ['']", "source.folders = ['']", "not empty"),
        ("data = ''", 'data = ""', "not empty"),
        ("data = 'a\\u0000b'".replace("'", '"'), "NUL", "Take it out"),
        ("collection = '../x'", 'collection = "../x"', "letters, digits"),
        ("collection = '.hidden'", 'collection = ".hidden"', "letters, digits"),
        ("collection = 1979-05-27", "collection = datetime.date", "letters, digits"),
    ],
)
def test_a_file_is_refused_by_name_key_and_value(tmp_path: Path, text: str, said: str, remedy: str) -> None:
    error = refused(tmp_path, project=text)
    assert error.message.startswith(str(tmp_path / "project.toml"))
    assert said in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a = 1\nb ==", "at line 2"),
        ("[chunk]\nsize = 1\n[chunk", "at line 3, the end of the file"),
        ("x = 1\nx = 2", "at line 2"),
        ("a = " + "[" * 3000, "nested too deeply"),
    ],
)
def test_bad_toml_is_refused_with_its_line(tmp_path: Path, text: str, where: str) -> None:
    message = refused(tmp_path, project=text).message
    assert str(tmp_path / "project.toml") in message
    assert where in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"data = '\xe9'")
    for path, said in (
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "latin.toml", "UTF-8"),
    ):
        with pytest.raises(errors.ConfigError, match=said):
            config_load.load({}, {}, path, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project.toml").touch(mode=0o000)
    with pytest.raises(errors.ConfigError, match="Permission denied"):
        config_load.load({}, {}, tmp_path / "project.toml", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[chunk]\nsize = 500", "chunk.size = 500 ({file}) is above chunk.max = 400 (default)"),
        ("[chunk]\nmax = 100", "chunk.size = 256 (default) is above chunk.max = 100 ({file})"),
        ("[embed]\nbatch_tokens = 100", "chunk.max = 400 (default) is above embed.batch_tokens = 100 ({file})"),
        ("[generate]\nnum_ctx = 2048", "do not fit into generate.num_ctx = 2048 ({file})"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both_origins(
    tmp_path: Path, text: str, said: str
) -> None:
    assert said.format(file=tmp_path / "project.toml") in refused(tmp_path, project=text).message


def test_a_long_or_unprintable_value_is_shown_short_and_safe(tmp_path: Path) -> None:
    message = refused(tmp_path, env={"PIPELINE_CHUNK_SIZE": "\x1b[31m" + "9" * 5000}).message
    assert len(message) < 200
    assert message.isprintable()


# --- values


def test_home_is_expanded_in_paths_only(tmp_path: Path) -> None:
    loaded = load(tmp_path, project="data = '~/d'\n[source]\nfolders = ['~/a', 'b~']\nexclude = ['~$*']")
    home = str(Path.home())
    assert loaded.settings.data == f"{home}/d"
    assert loaded.settings.source.folders == (f"{home}/a", "b~")
    assert loaded.settings.source.exclude == ("~$*",)


def test_a_profile_may_have_any_name(tmp_path: Path) -> None:
    text = '[profiles."hub/qwen3.5-embedding:4b"]\ndims = 2560\nquery = "Q: {text}"\nmatryoshka = [256]\n'
    loaded = load(tmp_path, project=text)
    profile = loaded.settings.profiles["hub/qwen3.5-embedding:4b"]
    assert (profile.dims, profile.query, profile.document, profile.matryoshka) == (2560, "Q: {text}", "{text}", (256,))
    assert loaded.origins["profiles.hub/qwen3.5-embedding:4b.document"] == "default"


def test_the_project_file_is_found(tmp_path: Path) -> None:
    assert config_load.find_project_file(None, {}, tmp_path) is None
    (tmp_path / "pipeline.toml").touch()
    assert config_load.find_project_file(None, {}, tmp_path) == tmp_path / "pipeline.toml"
    assert config_load.find_project_file(None, {"PIPELINE_CONFIG": "b.toml"}, tmp_path) == Path("b.toml")
    assert config_load.find_project_file("a.toml", {"PIPELINE_CONFIG": "b.toml"}, tmp_path) == Path("a.toml")


# --- nothing but settings or a ConfigError, whatever comes

VARIABLES = {config_load.variable(key): key for key in list(config_load.keys())}
WORDS = st.sampled_from(
    [*config_load.keys(), "chunk", "profiles", "profiles.m", "profiles.m.query", "data", "zzz", "a.b"]
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["20%", "auto", "{text}", "30m", "1e400", "-", "%"]),
)
ANY = st.characters(exclude_categories=())  # lone surrogates too
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


def toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return str(value) if isinstance(value, float) else json.dumps(value).replace("\x7f", "\\u007f")


def outcome(tmp_path: Path, **sources: Any) -> None:
    """Settings of which every key has an origin, or a ConfigError with both its lines."""
    try:
        told = load(tmp_path, **sources).origins
    except errors.ConfigError as error:
        told = {"message": error.message, "remedy": error.remedy}
    assert all(told.values())
    assert set(told) >= set(VARIABLES.values()) or set(told) == {"message", "remedy"}


@given(entries=st.dictionaries(WORDS, VALUES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_file_of_known_and_unknown_keys(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, object]
) -> None:
    text = "\n".join(f"{key} = {toml(value)}" for key, value in entries.items())
    outcome(tmp_path_factory.getbasetemp(), project=text)


@given(data=st.binary(max_size=40) | st.text(ANY, max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=150, deadline=None)
def test_any_bytes_as_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(errors.ConfigError):
        assert config_load.load({}, {}, path, None).settings == config.Settings()


@given(env=st.dictionaries(st.sampled_from(list(VARIABLES)), st.text(ANY), max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_variables(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> None:
    """Lone surrogates included: that is how Python hands on bytes of the environment that are no text."""
    outcome(tmp_path_factory.getbasetemp(), env={name: text.replace("\0", "") for name, text in env.items()})
