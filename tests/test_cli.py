"""The command line itself: help, options, exit codes, which stream. What commands do is tested elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from pipeline import config, config_load, errors
from pipeline.cli import entry, failures, options, queries, settings, state
from tests import command_line
from tests.command_line import invoke, start

HEAVY = {"lancedb", "pyarrow", "numpy", "onnxruntime", "tokenizers", "httpx", "tqdm", "msgspec", "unstructured"}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    found = [path]
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        found += leaves(child, (*path, name))
    return found


COMMANDS = leaves(entry.cli)


# --- help


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help(tmp_path: Path, path: tuple[str, ...]) -> None:
    result = invoke(tmp_path, *path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(" ".join(("Usage: pipeline", *path)))
    assert result.stderr == ""


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_the_table_tells_what_the_command_tells(name: str) -> None:
    found = entry.cli.get_command(click.Context(entry.cli), name)
    assert found is not None
    assert found.name == name
    assert (found.help or "").splitlines()[0] == entry.COMMANDS[name][1]


def test_help_fits_and_ends_with_what_to_type(tmp_path: Path) -> None:
    shown = invoke(tmp_path, "--help").stdout
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert shown.rstrip().splitlines()[-1].strip() == entry.EPILOG
    for name, variable in (
        ("--data", "PIPELINE_DATA"),
        ("--collection", "PIPELINE_COLLECTION"),
        ("--model", "PIPELINE_MODEL"),
    ):
        assert re.search(rf"{name} [^-]*{variable}", shown)


def test_choices_are_those_of_the_settings() -> None:
    types = config_load.keys()
    assert get_args(config.Provider) == options.PROVIDERS
    assert get_args(types["search.mode"]) == queries.MODES


def test_flags_are_those_that_the_settings_name() -> None:
    """An error names `--max-delete`, so that must be what one types."""
    seen = set()
    for path in COMMANDS:
        command: click.Command = entry.cli
        for name in path:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), name)
            assert found is not None
            command = found
        seen |= {option for param in command.params for option in param.opts}
    assert set(config_load.FLAGS.values()) <= seen


def help_imports(home: Path) -> list[tuple[str, int]]:
    """Modules that `pipeline --help` imports, with the microseconds that each took by itself."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", "--help"],
        env=command_line.environment(home),
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return [(name, int(own)) for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", done.stderr)]


def test_help_imports_nothing_heavy_and_is_quick(tmp_path: Path) -> None:
    """Under 0.3 s of imports; the best of three, as a busy machine says little about a program."""
    tries = [help_imports(tmp_path) for _ in range(3)]
    assert not HEAVY & {name.partition(".")[0] for name, _ in tries[0]}
    assert min(sum(own for _, own in rows) for rows in tries) < 300_000


def test_help_of_a_command_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.cli import entry\n"
        "try: entry.cli.main(['run', '--help'])\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=command_line.environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert not HEAVY & set(done.stderr.split())


# --- usage and exit codes, as a user's shell sees them


def test_version(tmp_path: Path) -> None:
    done = start(tmp_path, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"pipeline \d+\.\d+\.\d+\n", done.stdout)


def test_usage_errors_are_2_on_stderr(tmp_path: Path) -> None:
    done = start(tmp_path, "serch", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'serch'" in done.stderr
    for arguments in (
        ["search"],
        ["run", "--no-such-option"],
        ["--provider", "olama", "status"],
        ["completion", "tcsh"],
    ):
        result = invoke(tmp_path, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Usage: " in result.stderr


def test_a_configuration_error_is_2_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text("[chunk]\nsiez = 3\n")
    done = start(tmp_path, "config", "show")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'pipeline.toml'}: unknown key chunk.siez",
        "Did you mean chunk.size? `pipeline config show` lists every key.",
    ]


def test_an_error_with_json_is_one_object(tmp_path: Path) -> None:
    result = invoke(tmp_path, "--data", "", "config", "show", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == told["exit_code"] == 2
    assert told["error"] in result.stderr
    assert "--data" in told["error"]


def test_verbose_adds_the_traceback(tmp_path: Path) -> None:
    plain = invoke(tmp_path, "--data", "", "config", "show")
    verbose = invoke(tmp_path, "-v", "--data", "", "config", "show")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in verbose.stderr
    assert plain.stderr.splitlines()[0] in verbose.stderr


def test_a_reader_that_goes_away_is_no_error_message(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "config", "show"],
        env=command_line.environment(tmp_path),
        cwd=Path(__file__).parent.parent,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


# --- the guard


def guarded(error: BaseException, **options_: bool) -> int:
    def command() -> None:
        raise error

    return failures.guard(command, state.State(**options_))


def test_the_guard_returns_what_a_command_returns() -> None:
    assert failures.guard(lambda: 4, state.State()) == 4
    assert failures.guard(lambda: None, state.State()) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("m", "r"), 2),
        (errors.ConfigError("m", "r"), 2),
        (errors.DiskFull("m", "r"), 1),
        (errors.NoAnswer("m", "r"), 4),
        (errors.ServerUnreachable("m", "r"), 5),
        (errors.ModelMissing("m", "r"), 6),
        (errors.NoIndex("m", "r"), 10),
        (errors.Locked("m", "r"), 11),
        (errors.ModelMismatch("m", "r"), 12),
        (errors.DocumentError("broken", "m", "r"), 1),
        (errors.Interrupted("m", "r"), 130),
    ],
)
def test_an_error_of_ours_is_two_lines_and_its_code(
    error: errors.PipelineError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(error, quiet=True) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: m\nr\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_130_and_a_line(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(error) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Interrupted.")


def crash(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A defect in a command, in a process of its own (the log's place is the user's)."""
    code = (
        "import sys; from pipeline.cli import failures, state\n"
        f"sys.exit(failures.guard(lambda: [][0], state.State({', '.join(arguments)})))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env=command_line.environment(home),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )


def test_a_defect_is_one_line_and_its_traceback_is_kept(tmp_path: Path) -> None:
    done = crash(tmp_path, "json=True")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("error: unexpected IndexError: list index out of range. This is a defect: please report it")
    assert json.loads(done.stdout) == {
        "error": "unexpected IndexError: list index out of range",
        "remedy": "",
        "exit_code": 1,
    }
    (log,) = tmp_path.rglob("errors.log")
    assert str(log) in line
    assert "Traceback" in log.read_text()


def test_a_defect_shows_its_traceback_when_asked_or_when_it_cannot_be_kept(tmp_path: Path) -> None:
    verbose = crash(tmp_path, "verbose=True")
    (tmp_path / "file").touch()
    homeless = crash(tmp_path / "file")
    for done in (verbose, homeless):
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback")
        assert done.stderr.splitlines()[-1].startswith("error: unexpected IndexError")
    assert not list(tmp_path.rglob("errors.log"))


# --- global options


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--data", "x"], "data", "x"),
        (["--collection", "c"], "collection", "c"),
        (["--provider", "builtin"], "embed.provider", "builtin"),
        (["--model", "m"], "embed.model", "m"),
        (["--ollama-host", "a:1", "--ollama-host", "b:2"], "ollama.hosts", ["a:1", "b:2"]),
    ],
)
def test_global_options_stand_before_or_after_the_command(
    tmp_path: Path, arguments: list[str], key: str, value: object
) -> None:
    for line in ([*arguments, "config", "show"], ["config", "show", *arguments]):
        told = json.loads(invoke(tmp_path, *line, "--json").stdout)
        assert told["settings"][key] == value
        assert told["origins"][key] == arguments[0]


def test_the_later_place_wins(tmp_path: Path) -> None:
    told = json.loads(invoke(tmp_path, "--model", "a", "config", "show", "--model", "b", "--json").stdout)
    assert told["settings"]["embed.model"] == "b"


def test_config_names_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("collection = 'from-file'\n")
    told = json.loads(invoke(tmp_path, "--config", str(tmp_path / "a.toml"), "config", "show", "--json").stdout)
    assert (told["settings"]["collection"], told["origins"]["collection"]) == ("from-file", str(tmp_path / "a.toml"))
    missing = invoke(tmp_path, "--config", str(tmp_path / "none.toml"), "config", "show")
    assert missing.exit_code == 2
    assert "none.toml" in missing.stderr


# --- config show, completion


def test_config_show_is_toml_that_gives_the_same_settings(tmp_path: Path) -> None:
    profile = '[profiles."a.b:c"]\nquery = "Q\\n\\u007f\\"{text}"\n[source]\nexclude = ["*.tmp"]\n'
    (tmp_path / "a.toml").write_text(profile)
    for extra in ([], ["--origin"]):
        shown = invoke(tmp_path, "--config", str(tmp_path / "a.toml"), "config", "show", *extra).stdout
        (tmp_path / "b.toml").write_text(shown)
        again = config_load.load({}, {}, tmp_path / "b.toml", None).settings
        assert again.profiles["a.b:c"].query == 'Q\n\x7f"{text}'
        expected = config_load.load({}, {"OLLAMA_HOST": command_line.NOWHERE}, tmp_path / "a.toml", None).settings
        assert again == expected


def test_config_show_tells_origins_and_files(tmp_path: Path) -> None:
    env = {"PIPELINE_CHUNK_SIZE": "300", "PIPELINE_WORKSPACE": "w"}
    shown = invoke(tmp_path, "config", "show", "--origin", env=env).stdout.splitlines()
    assert any(re.fullmatch(r"chunk\.size = 300 +# PIPELINE_CHUNK_SIZE", line) for line in shown)
    assert any(re.fullmatch(r"chunk\.max = 400 +# default", line) for line in shown)
    assert any(line.startswith("# user file: ") and str(tmp_path) in line for line in shown)
    assert "# not a setting: PIPELINE_WORKSPACE" in shown
    assert tomllib.loads("\n".join(shown))["chunk"]["size"] == 300


@pytest.mark.parametrize("shell", settings.SHELLS)
def test_completion_scripts(tmp_path: Path, shell: str) -> None:
    result = invoke(tmp_path, "completion", shell)
    assert result.exit_code == 0
    assert "_PIPELINE_COMPLETE" in result.stdout


def test_completion_completes(tmp_path: Path) -> None:
    env = {"_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": "pipeline s", "COMP_CWORD": "1"}
    done = start(tmp_path, env=env)
    assert set(done.stdout.split()) == {"plain,schedule", "plain,search", "plain,serve", "plain,status"}


# --- speaking


def test_suggestions_repeat_what_the_next_command_needs(capsys: pytest.CaptureFixture[str]) -> None:
    given = state.State(flags={"data": "my data", "embed.model": "m"}, config="c.toml")
    given.suggest('ask "..."')
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip().endswith("--config c.toml --data 'my data' ask \"...\"")


@pytest.mark.parametrize("silent", [{"quiet": True}, {"json": True}])
def test_suggestions_and_reports_are_silent_when_nobody_reads(
    silent: dict[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    given = state.State(**silent)
    given.suggest("status")
    given.tell("done")
    assert capsys.readouterr() == ("", "")


def test_json_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    code = "from pipeline.cli import state; state.put_json({'a': '中\\udc80'})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=command_line.environment(tmp_path, {"PYTHONIOENCODING": "ascii"}),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert json.loads(done.stdout.decode("utf-8")) == {"a": "中\udc80"}


def test_a_character_that_the_terminal_lacks_is_an_escape(tmp_path: Path) -> None:
    done = start(tmp_path, "config", "show", env={"PYTHONIOENCODING": "ascii", "PIPELINE_COLLECTION": "文档"})
    assert (done.returncode, done.stderr) == (0, "")
    assert tomllib.loads(done.stdout)["collection"] == "文档"


def test_without_a_command_it_shows_help(tmp_path: Path) -> None:
    result = invoke(tmp_path)
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def test_no_color_is_honoured(tmp_path: Path) -> None:
    def shown(env: dict[str, str]) -> str:
        wanted: dict[str, str | None] = dict(command_line.environment(tmp_path, env))
        return CliRunner().invoke(entry.cli, ["--data", "", "config", "show"], env=wanted, color=True).stderr

    assert "\x1b[31m" in shown({})
    assert "\x1b" not in shown({"NO_COLOR": "1"})
