"""The error table: what each answer of each era means. Messages are Ollama's own, from its source at the tags named."""

from __future__ import annotations

import msgspec
import pytest

from pipeline import errors
from pipeline.models import ollama_errors
from pipeline.models.ollama_errors import Version

OLD, NINE, NEW, TODAY = "0.3.12", "0.9.0", "0.13.3", "0.32.15"
EOF = 'do embedding request: Post "http://127.0.0.1:39143/embedding": EOF'

# version, status, error message, class, kind of a TextRejected
TABLE: list[tuple[str, int, str, type[errors.ModelError], str]] = [
    # the model is not there
    (OLD, 404, 'model "x" not found, try pulling it first', errors.ModelMissing, ""),
    (TODAY, 404, "model 'x' not found", errors.ModelMissing, ""),
    (TODAY, 404, "model 'x:latest' not found", errors.ModelMissing, ""),
    # one text is too long
    (OLD, 400, "input length exceeds maximum context length", errors.TextRejected, "too_long"),
    ("0.12.6", 400, "input exceeds maximum context length", errors.TextRejected, "too_long"),
    (NEW, 400, "the input length exceeds the context length", errors.TextRejected, "too_long"),
    (NEW, 400, "input exceeds maximum context length and cannot be truncated further", errors.TextRejected, "too_long"),
    (NEW, 400, "input after truncation exceeds maximum context length", errors.TextRejected, "too_long"),
    (NEW, 500, "input is too large to process. increase the physical batch size", errors.TextRejected, "too_long"),
    (TODAY, 400, "the request exceeds the available context size, try increasing it", errors.TextRejected, "too_long"),
    (
        TODAY,
        400,
        "the prompt is longer than the context length currently available to the model",
        errors.TextRejected,
        "too_long",
    ),
    # the runner died: 500 until 0.13.2, 400 since
    (OLD, 500, EOF, errors.RunnerFault, ""),
    (NINE, 500, EOF, errors.RunnerFault, ""),
    (NEW, 400, EOF, errors.RunnerFault, ""),
    (TODAY, 400, EOF, errors.RunnerFault, ""),
    (TODAY, 400, "dial tcp 127.0.0.1:39143: connect: connection refused", errors.RunnerFault, ""),
    (TODAY, 400, "read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer", errors.RunnerFault, ""),
    (TODAY, 500, "llama-server process has terminated: exit status 2", errors.RunnerFault, ""),
    (TODAY, 500, "llama runner process no longer running: -1", errors.RunnerFault, ""),
    # loading
    (TODAY, 500, "timed out waiting for llama runner to start - progress 0.00 - ", errors.TransientFault, ""),
    (NINE, 500, "unexpected server status: llm server loading model", errors.TransientFault, ""),
    (NINE, 500, "model requires more system memory (5.6 GiB) than is available (3.1 GiB)", errors.TransientFault, ""),
    (TODAY, 503, "server busy, please try again.  maximum pending requests exceeded", errors.TransientFault, ""),
    # numbers that are none
    (NINE, 500, "failed to encode response: json: unsupported value: NaN", errors.BadVectors, ""),
    ("0.20.0", 400, "embedding contains NaN or Inf values", errors.BadVectors, ""),
    # what no retry mends
    (NINE, 400, '"llama3.2" does not support embeddings', errors.ServerRefused, ""),
    (TODAY, 400, '"mxbai-embed-large" does not support chat', errors.ServerRefused, ""),
    (TODAY, 400, "invalid model name", errors.ServerRefused, ""),
    (TODAY, 400, "invalid input type", errors.ServerRefused, ""),
    (TODAY, 400, 'time: invalid duration "soon"', errors.ServerRefused, ""),
    (TODAY, 401, "unauthorized", errors.ServerRefused, ""),
    (TODAY, 403, "ollama cloud is disabled: remote model is unavailable", errors.ServerRefused, ""),
    (TODAY, 413, "request entity too large", errors.ServerRefused, ""),
    (TODAY, 405, "", errors.ServerRefused, ""),
    # what is not known: since 0.13.3 any fault of the runner is a 400
    (NEW, 400, "something that no version said before", errors.RunnerFault, ""),
    (NINE, 400, "something that no version said before", errors.ServerRefused, ""),
    (NINE, 500, "something that no version said before", errors.RunnerFault, ""),
    (TODAY, 499, "request canceled", errors.TransientFault, ""),
    (TODAY, 501, "", errors.TransientFault, ""),
]


@pytest.mark.parametrize(("version", "status", "said", "kind", "why"), TABLE)
def test_the_table(version: str, status: int, said: str, kind: type[errors.ModelError], why: str) -> None:
    body = msgspec.json.encode({"error": said})
    error = ollama_errors.classify(status, body, version=Version(version), model="x", server="Ollama at U")
    assert type(error) is kind
    assert error.message.startswith(f"Ollama at U answered {status}: ")
    assert said in error.message
    if isinstance(error, errors.TextRejected):
        assert error.kind == why


def test_a_missing_model_comes_with_the_command_that_gets_it() -> None:
    error = ollama_errors.classify(404, b'{"error":"model \'x\' not found"}', version=None, model="bge-m3", server="S")
    assert "ollama pull bge-m3" in error.remedy
    assert "--pull" in error.remedy


@pytest.mark.parametrize("status", [400, 500])
def test_an_empty_object_for_an_error_may_pass(status: int) -> None:
    """0.3.5 to 0.6.0 put a Go error value into JSON."""
    error = ollama_errors.classify(status, b'{"error":{}}', version=Version("0.3.12"), model="x", server="S")
    assert type(error) is errors.RunnerFault


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"404 page not found", errors.ServerRefused),  # no such endpoint: not Ollama, or a path too many
        (502, b"<html><body>Bad Gateway</body></html>", errors.TransientFault),
        (403, b"", errors.ServerRefused),  # the Host header check of a server that listens on 0.0.0.0
        (500, b"\xff\xfe", errors.RunnerFault),
        (400, b'{"error":{"message":"invalid input","type":"invalid_request_error"}}', errors.RunnerFault),
        (302, b"", errors.ServerRefused),
    ],
)
def test_answers_that_are_not_ollamas(status: int, body: bytes, kind: type[errors.ModelError]) -> None:
    error = ollama_errors.classify(status, body, version=Version(TODAY), model="x", server="S")
    assert type(error) is kind


def test_a_message_is_found_wherever_it_is() -> None:
    assert ollama_errors.message(b'{"error":"plain"}') == "plain"
    assert ollama_errors.message(b'{"error":{"message":"as OpenAI has it"}}') == "as OpenAI has it"
    assert ollama_errors.message(b"plain text") == "plain text"
    assert ollama_errors.message(b'{"error":{}}') == ""
    assert ollama_errors.message(b"<html>a page</html>") == ""
    assert ollama_errors.message(b"") == ""


def test_versions_compare_by_number() -> None:
    assert Version("0.10.0") > Version("0.9.9")
    assert Version("0.32.15-rc2").triple == (0, 32, 15)
    assert Version("v0.5").triple == (0, 5, 0)
    assert not Version("0.3.11").supported
    assert Version("0.3.12").supported


def test_a_build_from_source_is_taken_for_the_newest() -> None:
    assert Version("0.0.0").supported
    assert Version("0.0.0").counts_specials
    assert ollama_errors.version_warnings(Version("0.0.0")) == []


@pytest.mark.parametrize(
    ("version", "base64", "specials"),
    [
        ("0.3.12", False, False),
        ("0.12.6", False, False),
        ("0.12.7", True, False),
        ("0.13.2", True, False),
        ("0.13.3", True, True),
        ("0.32.15", True, True),
    ],
)
def test_what_a_version_can_do(version: str, base64: bool, specials: bool) -> None:
    assert (Version(version).has_base64, Version(version).counts_specials) == (base64, specials)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("0.3.6", ["older than 0.3.12", "wrong order", "CVE-2026-7482"]),
        ("0.3.12", ["CVE-2026-7482"]),
        ("0.5.7", ["result buffer", "CVE-2026-7482"]),
        ("0.12.6", ["long inputs", "CVE-2026-7482"]),
        ("0.17.0", ["CVE-2026-7482"]),
        ("0.17.1", []),
        ("0.32.15", []),
    ],
)
def test_what_is_known_against_a_version(version: str, words: list[str]) -> None:
    lines = ollama_errors.version_warnings(Version(version))
    assert len(lines) == len(words)
    for word, line in zip(words, lines, strict=True):
        assert word in line
        assert version in line


def test_a_server_that_is_too_old_is_refused() -> None:
    with pytest.raises(errors.ServerRefused, match=r"0\.3\.6") as caught:
        ollama_errors.require_supported(Version("0.3.6"), "http://127.0.0.1:11434")
    assert "Update" in caught.value.remedy
