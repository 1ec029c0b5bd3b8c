"""Scheduling: what is written, to the letter, into fakes of crontab, systemctl and launchctl that are real programs."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors, schedule_formats
from pipeline.schedule_formats import Job
from tests.command_line import invoke

# Only shell builtins and absolute paths: nothing of the system's own is on the PATH of these tests.
FAKES = {
    "crontab": """
[ -e "$HOME/crontab.broken" ] && { echo 'crontab: Permission denied' >&2; exit 1; }
case $1 in
  -l) if [ -e "$HOME/crontab" ]; then /bin/cat "$HOME/crontab"; else echo "no crontab for me" >&2; exit 1; fi ;;
  -) /bin/cat > "$HOME/crontab" ;;
esac
""",
    "systemctl": """
echo "$*" >> "$HOME/systemctl.log"
case $* in
  *is-system-running) /bin/cat "$HOME/manager" 2> /dev/null || { echo offline; exit 1; } ;;
  *enable*) if [ -e "$HOME/refused" ]; then echo 'Failed to connect to bus' >&2; exit 1; fi ;;
esac
""",
    "launchctl": """
echo "$*" >> "$HOME/launchctl.log"
[ "$1" != bootout ]
""",
    "loginctl": """
/bin/cat "$HOME/linger" 2> /dev/null || echo Linger=no
""",
}


on_linux = pytest.mark.skipif(sys.platform == "darwin", reason="macOS always has launchd")


class Machine:
    """A home with a folder of documents, and a PATH with the fakes that were asked for.

    The first of them is named with --with, unless the program is to choose (`auto`).
    """

    def __init__(self, tmp_path: Path, *fakes: str, auto: bool = False) -> None:
        self.kind = () if auto else ("--with", fakes[0].replace("crontab", "cron").replace("ctl", "d"))
        self.home = tmp_path / "home"
        self.bin = tmp_path / "bin"
        self.docs = tmp_path / "docs"
        for folder in (self.home, self.bin, self.docs):
            folder.mkdir()
        for name in fakes:
            script = self.bin / name
            script.write_text(f"#!/bin/sh\n{FAKES[name]}")
            script.chmod(0o755)

    def call(self, *words: str, **env: str) -> Result:
        own = {"PATH": str(self.bin), "USER": "me", "PIPELINE_DATA": str(self.home / "data")}
        return invoke(self.home, "schedule", *words, env=own | env)

    def install(self, *words: str, **env: str) -> Result:
        done = self.call("install", "--at", "02:30", str(self.docs), *self.kind, *words, **env)
        assert done.exit_code == 0, done.output
        return done

    def read(self, name: str) -> str:
        path = self.home / name
        return path.read_text() if path.exists() else ""

    @property
    def units(self) -> dict[str, str]:
        folder = self.home / ".config" / "systemd" / "user"
        return {path.suffix: path.read_text() for path in folder.glob("embed-pipeline-*")}

    @property
    def agents(self) -> list[Path]:
        return list((self.home / "Library" / "LaunchAgents").glob("*.plist"))


# --- cron


def test_the_crontab_gets_one_line_and_keeps_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab")
    own = "# my jobs\nMAILTO=me\n5 4 * * * echo 50\\% # embed-pipeline is not this\n"
    (machine.home / "crontab").write_text(own)
    machine.install()
    machine.install("--wait-lock", "7")
    text = machine.read("crontab")
    assert text.startswith(own)
    (line,) = text.removeprefix(own).splitlines()
    assert line.startswith("30 2 * * * cd ")
    assert "-q run --wait-lock 7 " in line
    assert machine.call("remove").output == "Removed from cron.\n"
    assert machine.read("crontab") == own
    assert machine.call("remove").output == "Nothing was scheduled for this collection.\n"


def test_a_crontab_that_ends_without_a_line_break_keeps_its_last_line(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab")
    (machine.home / "crontab").write_text("1 1 * * * echo last")
    machine.install()
    assert machine.read("crontab").startswith("1 1 * * * echo last\n30 2 ")
    machine.call("remove")
    assert machine.read("crontab") == "1 1 * * * echo last\n"


def test_two_collections_have_two_lines_and_each_removes_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab")
    machine.install("--collection", "one")
    machine.install("--collection", "two")
    machine.install("--collection", "one", "--data", str(tmp_path / "elsewhere"))
    assert len(machine.read("crontab").splitlines()) == 3
    machine.call("remove", "--collection", "one")
    left = machine.read("crontab").splitlines()
    assert [("--collection two" in line, "elsewhere" in line) for line in left] == [(True, False), (False, True)]


def test_a_crontab_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab")
    (machine.home / "crontab").write_text("1 1 * * * echo mine\n")
    (machine.home / "crontab.broken").touch()
    done = machine.call("install", "--at", "02:30", *machine.kind, str(machine.docs))
    assert done.exit_code == 2
    assert "Permission denied" in done.stderr
    assert machine.read("crontab") == "1 1 * * * echo mine\n"


def job(tmp_path: Path, *words: str, **env: str) -> Job:
    return Job(
        ident="0123456789",
        collection="dócs",
        words=words,
        folder=tmp_path,
        hour=2,
        minute=5,
        log=tmp_path / "it's a log",
        environment=env,
    )


def as_cron_does(line: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a crontab line's command as crontab(5) says: an unescaped % ends it, `\\%` is one."""
    command = line.split(" ", 5)[5]
    assert not re.search(r"(?<!\\)%", command)
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("\\%", "%")], cwd="/", capture_output=True, text=True, timeout=20, check=False
    )


def test_the_line_does_under_cron_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "here" 100% $HOME'
    folder.mkdir()
    script = folder / "say.py"
    script.write_text("import os, sys; print(sys.argv[1:], os.environ['ODD'], os.getcwd())")
    made = job(folder, sys.executable, str(script), "a b", "50% \\% $x `y` 'z'", ODD="v 1% 'q'")
    done = as_cron_does(schedule_formats.cron_line(made), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert made.log.read_text() == f"{['a b', made.words[3]]} v 1% 'q' {folder}\n"


def test_cron_mails_the_end_of_the_log_of_a_night_that_failed(tmp_path: Path) -> None:
    made = job(tmp_path, "/bin/sh", "-c", "echo no server >&2; exit 5")
    made.log.write_text("yesterday\n" * 50)
    done = as_cron_does(schedule_formats.cron_line(made), tmp_path)
    assert done.stdout.splitlines()[-1] == "no server"
    assert len(done.stdout.splitlines()) == 20
    rejects = job(tmp_path, "/bin/sh", "-c", "exit 3")
    assert as_cron_does(schedule_formats.cron_line(rejects), tmp_path).stdout == ""


def test_a_line_longer_than_cron_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="cron takes 990"):
        schedule_formats.cron_line(job(tmp_path, "x" * 1000))


def test_a_line_break_is_refused(tmp_path: Path) -> None:
    for made in (job(tmp_path, "a\nb"), job(tmp_path, "a", ODD="x\n* * * * * rm"), job(tmp_path / "a\nb", "x")):
        with pytest.raises(errors.UsageError, match="line break"):
            schedule_formats.check(made)


# --- systemd


@on_linux
def test_systemd_gets_a_service_and_a_timer(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "systemctl", "crontab", "loginctl", auto=True)
    (machine.home / "manager").write_text("degraded\n")
    done = machine.install()
    assert "Every night at 02:30 by systemd." in done.stdout
    assert "sudo loginctl enable-linger me" in done.stderr
    assert "OnCalendar=*-*-* 02:30:00\n" in machine.units[".timer"]
    service = machine.units[".service"]
    start = next(line for line in service.splitlines() if line.startswith("ExecStart="))
    assert start.endswith(f"-q run --wait-lock 1800 {machine.docs}")
    assert f"--data {machine.home}/data --collection default" in start
    units = (machine.home / ".config" / "systemd" / "user").iterdir()
    assert {path.stat().st_mode & 0o777 for path in units} == {0o600}
    calls = machine.read("systemctl.log").splitlines()
    assert calls[-2] == "--user daemon-reload"
    assert re.fullmatch(r"--user enable --now embed-pipeline-[0-9a-f]{10}\.timer", calls[-1])
    before = machine.units
    (machine.home / "linger").write_text("Linger=yes\n")
    assert machine.install().stderr == ""
    assert machine.units == before
    assert machine.read("crontab") == ""
    assert machine.call("remove").output == "Removed from systemd.\n"
    assert machine.units == {}
    assert "disable --now" in machine.read("systemctl.log")


@on_linux
def test_without_a_running_manager_cron_is_taken(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "systemctl", "crontab", auto=True)
    assert "by cron" in machine.install().stdout
    assert machine.units == {}


def test_another_scheduler_takes_over(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "systemctl", "crontab")
    machine.install("--with", "cron")
    machine.install("--with", "systemd")
    assert machine.read("crontab") == ""
    assert set(machine.units) == {".service", ".timer"}


def test_a_manager_that_refuses_is_quoted_and_cron_stays_as_it_was(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "systemctl", "crontab")
    machine.install("--with", "cron")
    (machine.home / "refused").touch()
    done = machine.call("install", "--at", "02:30", "--with", "systemd", str(machine.docs))
    assert done.exit_code == 2
    assert "Failed to connect to bus" in done.stderr
    assert len(machine.read("crontab").splitlines()) == 1


def unquoted(text: str) -> list[str]:
    """Words as systemd.syntax(7) reads them: double quotes, backslashes, `%%`."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', text)
    return [re.sub(r"\\(.)", r"\1", quoted or bare).replace("%%", "%") for quoted, bare in words]


def test_a_program_with_a_quote_in_its_path_is_started_by_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "it's.py"
    script.write_text(f"#!{sys.executable}\nimport sys; print(sys.argv[1:])")
    script.chmod(0o755)
    text = schedule_formats.service(job(tmp_path, str(script), "a b", "$x"))
    start = next(line for line in text.split("\n") if line.startswith("ExecStart="))
    done = subprocess.run(unquoted(start.removeprefix("ExecStart=:")), capture_output=True, text=True, check=True)
    assert done.stdout == "['a b', '$x']\n"


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_systemd_reads_the_words_that_were_meant(words: list[str]) -> None:
    text = schedule_formats.service(job(Path("/"), "/bin/x", *words))
    start = next(line for line in text.split("\n") if line.startswith("ExecStart="))
    assert unquoted(start.removeprefix("ExecStart=:")) == ["/bin/x", *words]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_itself_accepts_the_units(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" 100% $c'
    folder.mkdir()
    program = folder / "pro gram"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = job(folder, str(program), "50%", 'a "b" $c \\d', ODD='x "y" 1% $z')
    for suffix, text in ((".service", schedule_formats.service(made)), (".timer", schedule_formats.timer(made))):
        (tmp_path / f"{schedule_formats.unit_name(made)}{suffix}").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", *map(str, tmp_path.glob("embed-pipeline-*"))],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "embed-pipeline" not in done.stderr


# --- launchd


def test_launchd_gets_an_agent(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "launchctl")
    machine.install("--with", "launchd", PIPELINE_CHUNK_SIZE="300")
    machine.install("--with", "launchd", PIPELINE_CHUNK_SIZE="300")
    (path,) = machine.agents
    agent = plistlib.loads(path.read_bytes())
    assert agent["Label"] == path.stem
    assert agent["ProgramArguments"][-5:] == ["-q", "run", "--wait-lock", "1800", str(machine.docs)]
    assert agent["StartCalendarInterval"] == {"Hour": 2, "Minute": 30}
    assert agent["EnvironmentVariables"] == {"PIPELINE_CHUNK_SIZE": "300", "OLLAMA_HOST": "http://127.0.0.1:9"}
    target = f"gui/{os.getuid()}"
    assert machine.read("launchctl.log").splitlines()[:2] == [
        f"bootout {target}/{path.stem}",
        f"bootstrap {target} {path}",
    ]
    assert machine.call("remove").output == "Removed from launchd.\n"
    assert machine.agents == []


# --- the command


def test_a_dry_run_prints_what_would_be_written_and_writes_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab", "systemctl", "launchctl")
    before = sorted(tmp_path.rglob("*"))
    planned = {kind: machine.install("-n", "--with", kind).stdout for kind in ("cron", "systemd", "launchd")}
    assert sorted(tmp_path.rglob("*")) == before
    for kind, text in planned.items():
        machine.install("--with", kind)
        assert machine.call("show").stdout == text
        machine.call("remove")
    assert planned["cron"].startswith("# crontab\n30 2 * * * ")
    assert machine.call("show").stdout == ""


def test_show_as_json(tmp_path: Path) -> None:
    import json

    machine = Machine(tmp_path, "crontab")
    assert json.loads(machine.call("show", "--json").stdout) == {"installed": []}
    machine.install()
    (one,) = json.loads(machine.call("show", "--json").stdout)["installed"]
    assert (one["with"], one["where"], one["text"]) == ("cron", "crontab", machine.read("crontab"))


def test_the_night_gets_what_this_shell_has(tmp_path: Path) -> None:
    """Options given here, the configuration file, and variables that a scheduler would not have."""
    machine = Machine(tmp_path, "crontab")
    settings = tmp_path / "my night.toml"
    settings.write_text('[run]\nwait_lock_s = 60.0\n[notify]\ncommand = "mail me"\n')
    machine.install(
        "--config",
        str(settings),
        "--model",
        "bge-m3",
        "--ollama-host",
        "http://a:1",
        "--ollama-host",
        "http://b:2",
        PIPELINE_CHUNK_SIZE="300",
        PIPELINE_DATA=str(tmp_path / "d"),
        OPENAI_API_KEY="secret",
        PIPELINE_PROVIDER="ollama",
    )
    line = machine.read("crontab")
    words = shlex.split(line.split(" ", 5)[5], comments=True)
    assert f"PATH={machine.bin}" in words  # the notify command is the user's own program
    assert "PIPELINE_CHUNK_SIZE=300" in words
    assert "PIPELINE_PROVIDER=ollama" in words
    assert not any(word.startswith(("PIPELINE_DATA", "OLLAMA_HOST")) for word in words)
    told = " ".join(words)
    assert f"--config {settings} --data {tmp_path}/d --collection default --model bge-m3" in told
    assert "--ollama-host http://a:1 --ollama-host http://b:2 -q run --wait-lock 60 " in told
    assert "secret" not in line


def test_the_night_ends_when_it_is_told_to(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab")
    machine.install("--until", "06:00", "--max-duration", "3h")
    assert "-q run --wait-lock 1800 --until 06:00 --max-duration 3h " in machine.read("crontab")
    wrong = machine.call("install", "--at", "02:30", "--until", "dawn", str(machine.docs))
    assert (wrong.exit_code, "--until" in wrong.stderr) == (2, True)


def test_the_program_is_named_by_its_absolute_path(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab")
    machine.install()
    word = shlex.split(machine.read("crontab").split("{ ")[1])[1]
    assert Path(word).is_absolute()
    assert Path(word).exists()
    assert Path(word).parent == Path(sys.executable).parent  # of this environment, its links unresolved


def test_the_folder_of_the_log_is_made(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "crontab")
    machine.install("--log", str(tmp_path / "logs" / "night.log"))
    assert (tmp_path / "logs").is_dir()
    assert f">>{tmp_path}/logs/night.log 2>&1" in machine.read("crontab")


@pytest.mark.parametrize("at", ["24:00", "2:60", "noon", "-1:30", "02:30:00", ""])
def test_a_time_that_is_none_is_refused(tmp_path: Path, at: str) -> None:
    machine = Machine(tmp_path, "crontab")
    done = machine.call("install", "--at", at, str(machine.docs))
    assert done.exit_code == 2
    assert "--at" in done.stderr
    assert machine.read("crontab") == ""


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = Machine(tmp_path, "crontab").call("install", "--at", "02:30", str(tmp_path / "dcos"))
    assert (done.exit_code, "is not a folder" in done.stderr) == (2, True)


def test_no_documents_at_all_are_refused(tmp_path: Path) -> None:
    done = Machine(tmp_path, "crontab").call("install", "--at", "02:30")
    assert (done.exit_code, "Which documents?" in done.stderr) == (2, True)


@on_linux
def test_a_machine_without_any_scheduler_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path, auto=True)
    done = machine.call("install", "--at", "02:30", str(machine.docs))
    assert (done.exit_code, "cron was found" in done.stderr) == (2, True)
    assert machine.call("remove").output == "Nothing was scheduled for this collection.\n"
    done = machine.call("install", "--at", "02:30", "--with", "launchd", str(machine.docs))
    assert (done.exit_code, "launchctl is not installed" in done.stderr) == (2, True)
