"""Settings: flags, PIPELINE_* variables, project file, user file, defaults, in this order of precedence.

The structs are the one list of keys; `configs/default.toml` repeats it for people and a test compares the two.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Provider = Literal["auto", "ollama", "openai", "builtin"]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SourceSettings(Section, frozen=True, kw_only=True):
    folders: tuple[str, ...] = ()  # default for DOCS
    include: tuple[str, ...] = ()  # gitignore patterns; empty: every file a reader knows
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_symlinks: bool = False
    max_file_mb: int = 200


class ReaderSettings(Section, frozen=True, kw_only=True):
    pdf: Literal["pdfium", "unstructured"] = "pdfium"
    docx: Literal["unstructured"] = "unstructured"
    html: Literal["lxml", "unstructured"] = "lxml"
    workers: int = 0  # 0: one per core
    timeout_s: float = 20.0  # plus one second per megabyte
    memory_mb: int = 3072


class ChunkSettings(Section, frozen=True, kw_only=True):
    size: int = 256  # tokens aimed at
    max: int = 400  # tokens, never exceeded; the model's own limit if that is lower
    context: bool = True  # title and heading path before the text


class EmbedSettings(Section, frozen=True, kw_only=True):
    provider: Provider = "auto"
    model: str = ""  # "": the provider's default
    dims: int = 0  # Matryoshka cut; 0: the model's own
    batch_texts: int = 64
    batch_tokens: int = 16_000
    concurrency: int = 2  # requests in flight per server
    flush_s: float = 5.0  # a kill loses at most the vectors of this time


class OllamaSettings(Section, frozen=True, kw_only=True):
    hosts: tuple[str, ...] = ()  # empty: OLLAMA_HOST, else http://127.0.0.1:11434
    keep_alive: str = "30m"
    connect_timeout_s: float = 5.0


class OpenAISettings(Section, frozen=True, kw_only=True):
    url: str = ""  # such as http://127.0.0.1:8080/v1
    api_key_env: str = "OPENAI_API_KEY"
    model: str = ""
    generate_model: str = ""


class GenerateSettings(Section, frozen=True, kw_only=True):
    provider: Literal["auto", "ollama", "openai", "none"] = "auto"
    model: str = "llama3.2"
    num_ctx: int = 8192
    max_tokens: int = 512
    temperature: float = 0.0


class SearchSettings(Section, frozen=True, kw_only=True):
    mode: Literal["hybrid", "vector", "text"] = "hybrid"
    top_k: int = 5
    candidates: int = 50
    rrf_k: int = 60


class AskSettings(Section, frozen=True, kw_only=True):
    passages: int = 5
    context_tokens: int = 2500
    min_score: float = 0.0  # cosine below which "not in the documents" is answered; 0: the provider's calibrated default


class IndexSettings(Section, frozen=True, kw_only=True):
    vector_index_from: int = 50_000  # rows; exact search below


class RunSettings(Section, frozen=True, kw_only=True):
    max_delete: float = 0.2  # share of the files a run may drop
    wait_lock_s: float = 0.0


class ProfileSettings(Section, frozen=True, kw_only=True):
    """An embedding model's facts; see models/profiles.toml."""

    dims: int = 0
    max_tokens: int = 0
    query: str = "{text}"
    document: str = "{text}"
    matryoshka: tuple[int, ...] = ()
    languages: tuple[str, ...] = ()


class Settings(Section, frozen=True, kw_only=True):
    data: str = "data"
    collection: str = "default"
    source: SourceSettings = SourceSettings()
    readers: ReaderSettings = ReaderSettings()
    chunk: ChunkSettings = ChunkSettings()
    embed: EmbedSettings = EmbedSettings()
    ollama: OllamaSettings = OllamaSettings()
    openai: OpenAISettings = OpenAISettings()
    generate: GenerateSettings = GenerateSettings()
    search: SearchSettings = SearchSettings()
    ask: AskSettings = AskSettings()
    index: IndexSettings = IndexSettings()
    run: RunSettings = RunSettings()
    profiles: dict[str, ProfileSettings] = {}
