"""Counting tokens: the packaged WordPiece against the `tokenizers` package itself, offsets, long words, the bound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors
from pipeline.models import Tokenizer, templates, tokens

SAMPLES = [
    "The harbour-master's log: 42.5 mm of rain, e.g. on 3 May; naïve café résumé.",
    "Die Größe der Überraschung übertraf alle Erwartungen – 1.234,56 € (zzgl. MwSt.).",
    "港口在凌晨三点关闭。船长说：“今天不出海！”天气预报有雷雨，请注意安全；谢谢。",
    "東京タワーは333メートルです。カタカナとひらがな。",
    "def f(x: int) -> dict[str, int]:\n\treturn {k: v for k, v in zip(KEYS, x[::-1])}  # 100% ok\n",
    "한국어 문장도 있습니다. Ελληνικά και русский текст.",
    "[SEP] tokens [CLS]in[MASK] text [not one] [[SEP]]",
    "a\x0bb\x0cc\x85d\u2028e\u3000f\u00a0g\u200bh\ufeffi",
    "ﬁne ½ ① Å e\u0301 👩‍👩‍👧 🙂🙂",
    "",
    "   \n\t ",
]


@cache
def reference() -> tokenizers.Tokenizer:
    """The packaged file as the `tokenizers` package reads it, nothing changed."""
    return tokenizers.Tokenizer.from_file(str(tokens.BUILTIN))


def by_reference(text: str) -> int:
    return len(reference().encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("text", SAMPLES)
def test_count_is_the_reference_count(text: str) -> None:
    assert tokens.builtin().count([text]) == [by_reference(text)]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=90))
def test_count_is_the_reference_count_for_any_text(text: str) -> None:
    assert tokens.builtin().count([text, text]) == [by_reference(text)] * 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(SAMPLES), max_size=6).map("\n".join))
def test_offsets_are_ordered_and_as_many_as_counted(text: str) -> None:
    found = tokens.builtin().offsets(text)
    assert found.dtype == np.int32
    assert found.shape == (tokens.builtin().count([text])[0], 2)
    assert (found[:, 0] < found[:, 1]).all()
    assert (np.diff(found, axis=0) >= 0).all()  # several tokens may share a character: Hangul falls apart into letters


def test_offsets_are_code_points_of_the_text_given() -> None:
    text = "Größe é 港口"
    assert [text[start:end] for start, end in tokens.builtin().offsets(text)] == ["Gr", "ö", "ße", "é", "港", "口"]


def test_offsets_over_many_windows_agree_with_those_of_a_line() -> None:
    line = SAMPLES[0] + "\n"
    copies = 3 * tokens.WINDOW // len(line)
    one = tokens.builtin().offsets(line)
    many = tokens.builtin().offsets(line * copies).reshape(copies, len(one), 2)
    assert (many == one + len(line) * np.arange(copies, dtype=np.int32)[:, None, None]).all()


def test_windows_cover_a_text_without_any_place_to_cut() -> None:
    for text in ("x" * 1000, "港" * 1000, "e" + "\u0301" * 1000, "a b " * 300, "line\n" * 250):
        ranges = list(tokens.windows(text, 64))
        assert "".join(text[start:end] for start, end in ranges) == text
        assert max(end - start for start, end in ranges) <= 64


def test_windows_keep_an_accent_with_its_letter() -> None:
    text = "e\u0301" * 200
    assert all(text[start] == "e" for start, _ in tokens.windows(text, 63))


def test_a_word_of_over_100_characters_is_not_one_token() -> None:
    """The reference says [UNK]; llama.cpp, which Ollama runs, counts its pieces."""
    word = "donaudampfschifffahrtsgesellschaft" * 4
    assert by_reference(word) == 1
    at_most_100 = by_reference(word[:100]) + by_reference(word[100:])
    assert at_most_100 <= tokens.builtin().count([word])[0] <= at_most_100 + len(word) // tokens.PIECE + 1
    assert len(tokens.builtin().offsets(word)) == tokens.builtin().count([word])[0]


def test_a_word_longer_than_a_window_is_counted() -> None:
    assert tokens.builtin().count(["ab" * tokens.WINDOW])[0] > tokens.WINDOW // 8


def test_counts_stay_right_when_the_word_cache_overflows() -> None:
    counter = tokens.BertTokenizer("", reference(), cache_words=5)
    assert [counter.count([text])[0] for text in SAMPLES] == [by_reference(text) for text in SAMPLES]


def test_many_threads_count_alike() -> None:
    counter, seen = tokens.load(tokens.BUILTIN), []
    expected = counter.count(SAMPLES)
    threads = [threading.Thread(target=lambda: seen.append(counter.count(SAMPLES * 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected * 5] * 4


def test_a_fork_after_counting_prints_no_warning() -> None:
    code = (
        "import os; from pipeline.models import tokens; t = tokens.builtin(); t.count(['a b'] * 99)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    t.count(['c d']); t.offsets('e f'); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""


def test_identity_follows_the_file(tmp_path: Path) -> None:
    text = tokens.BUILTIN.read_text(encoding="utf-8")
    other = json.loads(text)
    other["normalizer"]["lowercase"] = False
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(other), encoding="utf-8")
    cased = tokens.load(path)
    assert tokens.load(tokens.BUILTIN).identity == tokens.builtin().identity == tokens.from_json(text).identity
    assert cased.identity not in (tokens.builtin().identity, tokens.conservative().identity)
    assert cased.count(["Xyzzyplugh"]) != tokens.builtin().count(["Xyzzyplugh"])


def test_truncation_and_padding_in_a_file_are_switched_off() -> None:
    file = json.loads(tokens.BUILTIN.read_text(encoding="utf-8"))
    file["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    counter = tokens.from_json(json.dumps(file))
    assert counter.count(["rain " * 50]) == [50]
    assert len(counter.offsets("rain " * 50)) == 50


@pytest.mark.parametrize("content", [b"{}", b"not json", b"\xff\xfe", None])
def test_a_file_that_is_no_tokenizer_is_a_configuration_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(errors.ConfigError):
        tokens.load(path)


def test_another_kind_of_tokenizer_counts_as_the_package_does() -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(SAMPLES, trainer)
    counter = tokens.from_json(inner.to_str())
    assert counter.count(SAMPLES) == [len(inner.encode(text).ids) for text in SAMPLES]
    assert len(counter.offsets(SAMPLES[0])) == counter.count(SAMPLES)[0]


@pytest.mark.parametrize("text", [text for text in SAMPLES if "\u0301" not in text])
def test_the_bound_is_above_the_packaged_count(text: str) -> None:
    assert tokens.conservative().count([text])[0] >= by_reference(text)


def test_the_bound_is_no_more_than_half_as_much_again_for_prose() -> None:
    prose = "The keeper wrote the height of the water and the colour of the sky into the journal every evening. " * 20
    bound = tokens.conservative().count([prose])[0]
    assert by_reference(prose) <= bound <= 2 * by_reference(prose)


def test_the_bound_has_a_token_for_each_character_of_noise() -> None:
    noise = "aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0"
    assert tokens.conservative().count([noise]) == [len(noise)]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_the_bound_counts_what_its_offsets_show(text: str) -> None:
    bound: Tokenizer = tokens.conservative()
    found = bound.offsets(text)
    assert len(found) == bound.count([text])[0]
    assert (found[:, 0] < found[:, 1]).all()
    assert len(found) <= 2 * len(text.encode("utf-8", "surrogatepass"))


def test_a_template_keeps_braces_in_text_and_title() -> None:
    template = "title: {title} | text: {text}"
    assert templates.document(template, "see {title} and {text}", "on {text}") == (
        "title: on {text} | text: see {title} and {text}"
    )
    assert templates.document(template, "x") == "title: none | text: x"


def test_embed_text_puts_the_context_on_a_line_of_its_own() -> None:
    assert templates.embed_text("Log > May", "Rain.", "Log", "passage: {text}") == "passage: Log > May\nRain."
    assert templates.embed_text("", "Rain.", "Log", "{text}") == "Rain."
