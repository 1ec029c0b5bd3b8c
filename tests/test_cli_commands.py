"""Commands from end to end: real files, the embedded model, real Parquet and LanceDB; a fake Ollama behind a socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from pipeline.store import Collection
from tests import command_line
from tests.fake_ollama.client import FakeOllama

LEAVE = "# Leave\n\n## Annual leave\n\nEvery employee gets twenty-five days of annual leave a year.\n"
SAFETY = "# Safety\n\n## Snow\n\nBelow minus ten degrees nobody works alone on the ridge.\n"


def invoke(home: Path, *arguments: str, env: dict[str, str] | None = None) -> Result:
    """With one reading process: two files do not need more."""
    return command_line.invoke(home, *arguments, env={"PIPELINE_READERS_WORKERS": "1"} | (env or {}))


def write_docs(folder: Path) -> Path:
    folder.mkdir()
    (folder / "leave.md").write_text(LEAVE)
    (folder / "safety.md").write_text(SAFETY)
    return folder


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write_docs(tmp_path / "docs")


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a collection in `data`, only to be read; `run.json` and `run.stderr` are what its run printed."""
    home = tmp_path_factory.mktemp("built")
    result = invoke(home, "--data", str(home / "data"), "run", "--json", str(write_docs(home / "docs")))
    assert result.exit_code == 0, result.stderr
    (home / "run.json").write_text(result.stdout)
    (home / "run.stderr").write_text(result.stderr)
    return home


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(models=["mxbai-embed-large", "llama3.2"]) as server:
        yield server


# --- run


def test_run_reports_on_stdout_and_suggests_on_stderr(tmp_path: Path, docs: Path, data: str) -> None:
    first = invoke(tmp_path, "--data", data, "run", str(docs))
    assert first.exit_code == 0
    lines = first.stdout.splitlines()
    assert lines[0] == "2 files: 2 new."
    assert "embedded with all-minilm-l6-v2 (builtin, 384 dims)" in lines[1]
    assert lines[-1].endswith(" s.")
    assert first.stderr.splitlines()[-1].endswith(f'--data {data} ask "..."')
    assert first.stderr.count("all-minilm-l6-v2") == 1  # what embeds, as Ollama is not there: told once
    second = invoke(tmp_path, "--data", data, "run")  # the folders of the run before
    assert second.stdout.splitlines()[0] == "2 files, nothing changed."


def test_quiet_success_is_silent(tmp_path: Path, docs: Path, data: str) -> None:
    result = invoke(tmp_path, "-q", "--data", data, "run", str(docs))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_file_that_cannot_be_read_is_3_and_named_even_with_q(tmp_path: Path, docs: Path, data: str) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nothing more")
    loud = invoke(tmp_path, "--data", data, "ingest", str(docs))
    quiet = invoke(tmp_path, "--data", data, "-q", "ingest", str(docs), "--retry")
    for result in (loud, quiet):
        assert result.exit_code == 3
        assert "  broken.pdf: " in result.stderr
    assert "broken.pdf" not in loud.stdout
    assert quiet.stdout == ""


def test_run_with_json_is_one_summary(built: Path) -> None:
    told = json.loads((built / "run.json").read_text())
    assert told["message_type"] == "summary"
    assert (told["files"]["new"], told["documents"], told["provider"], told["dims"]) == (2, 2, "builtin", 384)
    assert told["embedded_texts"] == told["chunks"] == told["vectors"] > 0
    assert "Next:" not in (built / "run.stderr").read_text()


def test_run_without_a_folder_is_a_usage_error_that_leaves_nothing(tmp_path: Path, data: str) -> None:
    result = invoke(tmp_path, "--data", data, "run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "pipeline run ~/Documents" in result.stderr
    assert not Path(data).exists()


def test_a_folder_that_is_not_there_is_an_error_that_leaves_nothing(tmp_path: Path, data: str) -> None:
    result = invoke(tmp_path, "--data", data, "run", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert str(tmp_path / "none") in result.stderr
    assert not Path(data).exists()


def test_folders_of_the_settings_are_used(tmp_path: Path, docs: Path, data: str) -> None:
    assert docs.is_dir()
    result = invoke(tmp_path, "--data", data, "ingest", env={"PIPELINE_SOURCE_FOLDERS": "~/docs"})
    assert result.stdout.startswith("2 files: 2 new.")


def test_a_tilde_that_the_shell_left_is_the_home(tmp_path: Path, docs: Path, data: str) -> None:
    assert docs.is_dir()
    assert invoke(tmp_path, "--data", data, "ingest", "~/docs").exit_code == 0


def test_a_dry_run_writes_nothing(tmp_path: Path, docs: Path, data: str) -> None:
    result = invoke(tmp_path, "--data", data, "run", "-n", str(docs))
    assert result.exit_code == 0
    assert result.stdout.startswith("Dry run, nothing is written.\n2 files: 2 new.\n  new  leave.md\n")
    assert "To embed: " in result.stdout
    assert not Path(data).exists()


def test_the_stages_one_by_one_lead_to_each_other(tmp_path: Path, docs: Path, data: str) -> None:
    follows = {"ingest": "chunk", "chunk": "embed", "embed": "index", "index": 'ask "..."'}
    for stage, following in follows.items():
        result = invoke(tmp_path, "--data", data, stage, *([str(docs)] if stage == "ingest" else []))
        assert result.exit_code == 0, result.stderr
        assert result.stderr.splitlines()[-1].endswith(f"--data {data} {following}")
    assert json.loads(invoke(tmp_path, "--data", data, "status", "--json").stdout)["indexed_rows"] > 0


def test_too_many_deletions_stop_a_run_until_they_are_meant(tmp_path: Path, docs: Path, data: str) -> None:
    invoke(tmp_path, "--data", data, "ingest", str(docs))
    for path in docs.iterdir():
        path.unlink()
    stopped = invoke(tmp_path, "--data", data, "ingest", str(docs))
    assert stopped.exit_code == 1
    assert "--max-delete 100%" in stopped.stderr
    meant = invoke(tmp_path, "--data", data, "ingest", str(docs), "--max-delete", "100%")
    assert (meant.exit_code, meant.stdout[:19]) == (0, "0 files: 2 deleted.")


@pytest.mark.parametrize("share", ["0", "150%", "all", "-20%"])
def test_a_share_that_is_none_is_refused(tmp_path: Path, docs: Path, data: str, share: str) -> None:
    result = invoke(tmp_path, "--data", data, "run", str(docs), f"--max-delete={share}")
    assert result.exit_code == 2
    assert f'--max-delete: run.max_delete = "{share}"' in result.stderr


def test_a_collection_that_is_being_written_is_11(tmp_path: Path, docs: Path, data: str) -> None:
    with Collection(Path(data), "default").writing():
        result = invoke(tmp_path, "--data", data, "run", str(docs))
        waited = invoke(tmp_path, "--data", data, "run", str(docs), "--wait-lock", "0.1")
    assert (result.exit_code, waited.exit_code) == (11, 11)
    assert "error: " in result.stderr


# --- model servers


def test_a_server_that_is_down_is_5_with_what_to_type(tmp_path: Path, docs: Path, data: str) -> None:
    result = invoke(tmp_path, "--data", data, "--provider", "ollama", "run", str(docs))
    assert result.exit_code == 5
    assert "ollama serve" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_model_is_6_until_it_is_pulled(tmp_path: Path, docs: Path, data: str) -> None:
    with FakeOllama(models=[]) as server:
        line = ["--data", data, "--provider", "ollama", "--ollama-host", server.url, "run", str(docs)]
        missing = invoke(tmp_path, *line)
        assert missing.exit_code == 6
        assert "ollama pull mxbai-embed-large" in missing.stderr
        pulled = invoke(tmp_path, *line, "--pull")
    assert pulled.exit_code == 0, pulled.stderr
    assert "mxbai-embed-large (ollama, 1024 dims)" in pulled.stdout


def test_an_interrupted_run_is_130(tmp_path: Path, docs: Path, data: str) -> None:
    """Ctrl-C while the server does not answer: the terminal sends the signal to the workers too."""
    with FakeOllama(models=["mxbai-embed-large"], faults=["hang"]) as server:
        line = ["--data", data, "--provider", "ollama", "--ollama-host", server.url, "run", str(docs)]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *line],
            env=command_line.environment(tmp_path),
            cwd=Path(__file__).parent.parent,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not server.requests():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert process.returncode == 130
        assert told.splitlines()[-1].startswith("Interrupted.")
        assert "Traceback" not in told


# --- search, ask, status


def test_search_shows_hits_and_where_they_stand(built: Path) -> None:
    result = invoke(built, "--data", str(built / "data"), "search", "how many days of annual leave?")
    assert result.exit_code == 0
    assert result.stdout.startswith("1. leave.md · Leave > Annual leave · 0.")
    assert "twenty-five days" in result.stdout
    assert "ask 'how many days of annual leave?'" in result.stderr


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_search_with_json_lists_hits(built: Path, mode: str) -> None:
    line = ["search", "annual", "leave", "--json", "--mode", mode, "--top-k", "1"]
    result = invoke(built, "--data", str(built / "data"), *line)
    told = json.loads(result.stdout)
    assert told["question"] == "annual leave"
    (hit,) = told["hits"]
    assert {"path", "page", "heading", "text", "score", "chunk_id"} <= set(hit)
    assert hit["path"] == "leave.md"
    assert 0 < hit["score"] <= 1
    assert result.stderr == ""


def search(built: Path, *arguments: str) -> Result:
    return invoke(built, "--data", str(built / "data"), "search", "days of annual leave or snow", *arguments)


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ([], ["leave.md", "safety.md"]),
        (["path=leave.md"], ["leave.md"]),
        (["path=docs/leave.md"], ["leave.md"]),  # the folder as its user knows it
        (["path!=leave.md", "type=md"], ["safety.md"]),
        (["modified>1h"], ["leave.md", "safety.md"]),
        (["modified<2020"], []),
        (["heading~SNOW", "modified>=today"], ["safety.md"]),
    ],
)
def test_search_within_filters(built: Path, where: list[str], paths: list[str]) -> None:
    result = search(built, "--json", *(word for one in where for word in ("--where", one)))
    assert result.exit_code == 0, result.stderr
    assert sorted(hit["path"] for hit in json.loads(result.stdout)["hits"]) == paths


def test_a_filter_that_cannot_be_read_is_a_usage_error_with_the_fields(built: Path) -> None:
    result = search(built, "--where", "pge<=3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no field 'pge'" in result.stderr
    assert "page=3-7" in result.stderr
    nothing = search(built, "--where", "type=pdf")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "No passage matches within these filters" in nothing.stderr


def test_search_explains_itself(built: Path) -> None:
    text = search(built, "--explain", "--where", "path~SAFETY").stdout
    for said in (
        "tokens     6: days | of | annual",
        "words      days of annual leave",
        "filters    path~SAFETY: 1 of 2",
    ):
        assert said in text
    assert "the filters leave it out  leave.md" in text
    told = json.loads(search(built, "--explain", "--json", "--per-document", "1").stdout)
    assert told["explain"]["model"] == "all-minilm-l6-v2"
    assert {"embed", "open", "vector", "text", "fuse"} <= set(told["explain"]["ms"])
    assert "explain" not in json.loads(search(built, "--json").stdout)


@pytest.mark.parametrize("number", ["0", "x", "1001"])
def test_a_number_of_hits_that_is_none_is_refused(built: Path, number: str) -> None:
    result = invoke(built, "--data", str(built / "data"), "search", "x", "--top-k", number)
    assert result.exit_code == 2
    assert "--top-k" in result.stderr


def test_an_empty_question_is_a_usage_error(built: Path) -> None:
    for command in ("search", "ask"):
        assert invoke(built, "--data", str(built / "data"), command, " ").exit_code == 2


@pytest.mark.parametrize("command", [["search", "x"], ["ask", "x"], ["status"], ["chunk"], ["embed"], ["index"]])
def test_nothing_built_is_10(tmp_path: Path, data: str, command: list[str]) -> None:
    result = invoke(tmp_path, "--data", data, *command)
    assert (result.exit_code, result.stdout) == (10, "")
    assert "pipeline run" in result.stderr
    assert not Path(data).exists()


def test_ask_without_an_answering_model_shows_passages(built: Path) -> None:
    result = invoke(built, "--data", str(built / "data"), "ask", "How many days of annual leave does an employee get?")
    assert result.exit_code == 0
    answer, _, below = result.stdout.partition("\n\nSources:\n")
    assert "twenty-five days" in answer
    assert "[1]" in answer
    assert below.startswith("[1] leave.md · Leave > Annual leave · 0.")
    assert "No answering model" in result.stderr


def test_ask_streams_the_models_answer(built: Path, ollama: FakeOllama) -> None:
    line = ["--data", str(built / "data"), "--ollama-host", ollama.url, "ask"]
    result = invoke(built, *line, "How many days of annual leave does an employee get?")
    assert result.exit_code == 0, result.stderr
    assert "Sources:\n[1] leave.md" in result.stdout
    assert "No answering model" not in result.stderr
    told = json.loads(invoke(built, *line, "--json", "How many days of annual leave does an employee get?").stdout)
    assert told["generated"] is True
    assert told["answer"] in result.stdout


def test_ask_with_json_is_one_object(built: Path) -> None:
    result = invoke(
        built, "--data", str(built / "data"), "ask", "--json", "--top-k", "1", "How many days of annual leave?"
    )
    told = json.loads(result.stdout)
    assert {"question", "answer", "citations", "sources", "abstained"} <= set(told)
    assert told["abstained"] is False
    assert [source["path"] for source in told["sources"]] == ["leave.md"]
    for citation in told["citations"]:
        assert told["answer"][citation["start"] : citation["end"]] == f"[{citation['number']}]"


def test_no_answer_in_the_documents_is_4(built: Path) -> None:
    line = ["--data", str(built / "data"), "ask", "Which enzyme splits lactose?"]
    plain = invoke(built, *line)
    assert plain.exit_code == 4
    assert "Nearest passages:" in plain.stdout
    assert "ask --force 'Which enzyme" in plain.stderr
    told = invoke(built, *line, "--json")
    assert (told.exit_code, json.loads(told.stdout)["abstained"]) == (4, True)


def test_a_model_that_breaks_off_keeps_its_words_and_is_an_error(built: Path, ollama: FakeOllama) -> None:
    ollama.set_fault("chat_cut")
    try:
        line = ["--data", str(built / "data"), "--ollama-host", ollama.url, "ask", "How many days of annual leave?"]
        result = invoke(built, *line)
    finally:
        ollama.clear_faults()
    assert result.exit_code == 5
    assert len(result.stdout) > 2
    assert "error: " in result.stderr


def test_status_for_people_and_for_programs(built: Path) -> None:
    line = ["--data", str(built / "data"), "status"]
    shown = invoke(built, *line)
    assert "2 documents" in shown.stdout
    assert shown.stderr.rstrip().endswith('ask "..."')
    told = json.loads(invoke(built, *line, "--json").stdout)
    assert {"documents", "chunks", "vectors", "rejects", "provider", "model", "dims"} <= set(told)
    assert (told["documents"], told["provider"], told["dims"]) == (2, "builtin", 384)


def test_doctor_sees_the_collection(built: Path) -> None:
    told = json.loads(invoke(built, "--data", str(built / "data"), "doctor", "--json").stdout)
    (check,) = [check for check in told["checks"] if check["name"] == "collection default"]
    assert (check["level"], check["detail"].startswith("2 documents")) == ("pass", True)
