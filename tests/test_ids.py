"""Ids: distinct kinds never collide, and only what should matter does."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from pipeline import ids

text = st.text(max_size=40)


@given(text, text)
def test_ids_are_32_hexadecimal_digits(a: str, b: str) -> None:
    made = (ids.doc_id(a, b), ids.chunk_id(a, 1, 2), ids.embed_key(a), ids.shard_name([a, b]), ids.row_hash([a, b]))
    for value in (*made, ids.content_hash(a.encode())):
        assert len(value) == ids.LENGTH
        assert set(value) <= set(string.hexdigits.lower())
    assert len(set(made)) == len(made)


@given(text, text, text, text)
def test_fields_do_not_run_together(a: str, b: str, c: str, d: str) -> None:
    assert (ids.doc_id(a, b) == ids.doc_id(c, d)) == ((a, b) == (c, d))
    assert (ids.shard_name([a, b]) == ids.shard_name([c, d])) == ([a, b] == [c, d])
    assert ids.shard_name([a + b]) != ids.shard_name([a, b])


def test_a_moved_document_keeps_its_embed_keys_only() -> None:
    assert ids.doc_id("a.md", "text") != ids.doc_id("b.md", "text")
    assert ids.chunk_id(ids.doc_id("a.md", "text"), 0, 4) != ids.chunk_id(ids.doc_id("b.md", "text"), 0, 4)
    assert ids.embed_key("text") == ids.embed_key("text")


def test_a_fingerprint_depends_on_stage_version_parameters_and_upstream() -> None:
    base = ids.fingerprint("chunk", 1, {"size": 256, "max": 400}, "up")
    assert base == ids.fingerprint("chunk", 1, {"max": 400, "size": 256}, "up")
    others = {
        ids.fingerprint("embed", 1, {"size": 256, "max": 400}, "up"),
        ids.fingerprint("chunk", 2, {"size": 256, "max": 400}, "up"),
        ids.fingerprint("chunk", 1, {"size": 320, "max": 400}, "up"),
        ids.fingerprint("chunk", 1, {"size": 256, "max": 400}, ""),
    }
    assert len(others | {base}) == 5


def test_the_live_hash_is_what_published_notes_say_since_the_first_release() -> None:
    assert ids.live_hash([f"{'a' * 32}/{'b' * 32}", f"{'a' * 32}/{'c' * 32}"]) == "0ee4638cbb1086a87f22352ed729e2aa"
    assert ids.live_hash([]) != ids.live_hash([""])
