"""Settings: every key, its type, its range and its default.

The structs are the one list of keys; `configs/default.toml` repeats it for people and a test compares the two. How
values are found (flags, variables, files) and checked is the business of `config_load`. Constructing a struct checks
nothing: a test may use values that a user may not.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Provider = Literal["auto", "ollama", "openai", "builtin"]

# Upper ends are there to refuse nonsense with a clear line, infinity included; nothing near them is sensible.
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
CountOrNone = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=604_800)]
Share = Annotated[float, Meta(gt=0, le=1)]
# One path segment under `data`, in any script; never hidden, never "..".
Name = Annotated[str, Meta(pattern=r"\A\w[\w.-]{0,63}\Z", description="a name of letters, digits, '.', '_' and '-'")]
PathText = Annotated[str, Meta(min_length=1)]
Duration = Annotated[
    str, Meta(pattern=r"\A(-?\d+|(\d+(\.\d+)?(ms|s|m|h))+)\Z", description='a time such as "30m" or "-1"')
]
Span = Annotated[
    str,
    Meta(
        pattern=r"\A((\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?)\Z",
        description='a length of time with its unit, such as "6h" or "90m"',
    ),
]
TimeOfDay = Annotated[
    str, Meta(pattern=r"\A(([01]?\d|2[0-3]):[0-5]\d)?\Z", description='a time of day such as "06:00"')
]
Url = Annotated[str, Meta(pattern=r"\A(https?://\S+)?\Z", description="a URL that begins with http:// or https://")]
Host = Annotated[str, Meta(pattern=r"\A\S+\Z", description="a host such as http://127.0.0.1:11434")]
KeyHash = Annotated[
    str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="the SHA-256 of a key, as `pipeline serve key add` makes it")
]
Origin = Annotated[
    str, Meta(pattern=r"\Ahttps?://[^\s/]+\Z", description="an origin such as https://wiki.example.org, without a path")
]
Template = Annotated[str, Meta(pattern=r"\{text\}", description="a text with {text} in it")]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SourceSettings(Section, frozen=True, kw_only=True):
    folders: tuple[PathText, ...] = ()  # default for DOCS
    include: tuple[str, ...] = ()  # gitignore patterns; empty: every file a reader knows
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_symlinks: bool = False
    max_file_mb: Count = 200


class ReaderSettings(Section, frozen=True, kw_only=True):
    pdf: Literal["pdfium", "unstructured"] = "pdfium"
    docx: Literal["unstructured"] = "unstructured"
    html: Literal["lxml", "unstructured"] = "lxml"
    unstructured_strategy: Literal["fast", "hi_res"] = "fast"  # of PDFs; hi_res: with the extra
    attachments: bool = True  # what is attached to a mail is a document of its own, and each message of a mailbox
    archives: bool = False  # read what is in zip, tar and gz files
    ocr: Literal["auto", "off", "rapidocr", "tesseract"] = "auto"  # auto: rapidocr, where the extra is installed
    ocr_languages: Annotated[str, Meta(pattern=r"\A[\w/-]+(\+[\w/-]+)*\Z")] = "eng"  # of tesseract
    ocr_page_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0  # added to the time limit for each page that is recognised
    ocr_pages: Count = 500  # of one document, at most
    workers: Annotated[int, Meta(ge=0, le=256)] = 0  # 0: one per core
    timeout_s: Annotated[float, Meta(ge=1, le=86_400)] = 20.0  # plus one second per megabyte
    memory_mb: Annotated[int, Meta(ge=256, le=1_000_000)] = 3072


class ChunkSettings(Section, frozen=True, kw_only=True):
    size: Annotated[int, Meta(ge=8, le=32_768)] = 256  # tokens aimed at
    max: Annotated[int, Meta(ge=8, le=32_768)] = 400  # tokens, never exceeded; the model's own limit if that is lower
    context: bool = True  # title and heading path before the text
    contextual: bool = False  # and a sentence by generate.model that says where in its document a passage stands
    timeout_s: Seconds = 300.0  # for a shard: half a megabyte of text, or one longer document


class EmbedSettings(Section, frozen=True, kw_only=True):
    provider: Provider = "auto"
    model: str = ""  # "": the provider's default
    dims: Annotated[int, Meta(ge=0, le=65_536)] = 0  # Matryoshka cut; 0: the model's own
    storage: Literal["float32", "float16"] = "float32"  # of the vectors, in log and index
    batch_texts: Annotated[int, Meta(ge=1, le=4096)] = 64
    batch_tokens: Count = 16_000
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 2  # requests in flight per server
    flush_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0  # a kill loses at most the vectors of this time


class OllamaSettings(Section, frozen=True, kw_only=True):
    hosts: tuple[Host, ...] = ()  # empty: OLLAMA_HOST, else http://127.0.0.1:11434
    local_servers: Annotated[int, Meta(ge=0, le=64)] = 0  # for the length of a run; with `hosts`: besides
    keep_alive: Duration = "30m"
    connect_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    # For a known text that a server must embed before it is sent others, the load of the model included: 670 MB (mxbai)
    # come from a slow disk in 8 s, 8 GB from a fast one in 16 s; finding the GPU and freeing its memory: up to 15 s.
    load_timeout_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0


class OpenAISettings(Section, frozen=True, kw_only=True):
    url: Url = ""  # such as http://127.0.0.1:8080/v1
    api_key_env: str = "OPENAI_API_KEY"
    model: str = ""
    generate_model: str = ""


class GenerateSettings(Section, frozen=True, kw_only=True):
    provider: Literal["auto", "ollama", "openai", "none"] = "auto"
    model: str = "llama3.2"
    num_ctx: Annotated[int, Meta(ge=1024, le=1_048_576)] = 8192
    max_tokens: Annotated[int, Meta(ge=1, le=131_072)] = 512
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0


class SearchSettings(Section, frozen=True, kw_only=True):
    mode: Literal["hybrid", "vector", "text"] = "hybrid"
    top_k: Annotated[int, Meta(ge=1, le=1000)] = 5
    candidates: Annotated[int, Meta(ge=1, le=10_000)] = 50
    fusion: Literal["scores", "ranks"] = "scores"  # how the rankings by vector and by text become one
    vector_weight: Annotated[float, Meta(ge=0, le=1)] = 0.4  # of the scores by vector; the rest is the text's
    rrf_k: Annotated[int, Meta(ge=1, le=10_000)] = 60
    per_document: Annotated[int, Meta(ge=0, le=1000)] = 0  # most hits of one document; 0: no limit
    expand: CountOrNone = 0  # tokens to which a hit is shown with its surroundings; 0: as it was found
    rerank: str = ""  # folder of an ONNX cross-encoder, or URL of a server; "": none
    rerank_model: str = ""  # that the server is to use
    rerank_key_env: str = "RERANK_API_KEY"
    rerank_top: Annotated[int, Meta(ge=1, le=1000)] = 30  # passages that it reads
    rerank_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0


class AskSettings(Section, frozen=True, kw_only=True):
    passages: Annotated[int, Meta(ge=1, le=100)] = 5
    context_tokens: Annotated[int, Meta(ge=100, le=1_048_576)] = 2500
    expand: CountOrNone = 500  # tokens to which a passage may grow under its heading; 0: as it was found
    # Cosine below which "not in the documents" may be answered; 0: as calibrated for the model; below 0: never.
    min_score: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    wait_s: Seconds = 120.0  # for the first word: a model is being loaded, or a run keeps the server busy; 0: no limit
    history_tokens: CountOrNone = 1200  # of a conversation (`chat`), sent along with a question


class IndexSettings(Section, frozen=True, kw_only=True):
    vector_index_from: CountOrNone = 50_000  # rows; exact search below
    keep_versions_h: Annotated[float, Meta(ge=0, le=8760)] = 1.0  # after which a replaced version's files are freed


class RunSettings(Section, frozen=True, kw_only=True):
    max_delete: Share = 0.2  # share of the files a run may drop
    keep: Annotated[int, Meta(ge=1, le=1000)] = 7  # published snapshots to which `rollback` can go, this one counted
    wait_lock_s: Seconds = 0.0
    max_duration: Span = ""  # "": no limit
    until: TimeOfDay = ""  # of the local clock
    disk_check: bool = True  # refuse to begin what will not fit


class QualitySettings(Section, frozen=True, kw_only=True):
    questions: str = ""  # file of JSON lines {question, path, quote}; "": no gate
    max_drop: Annotated[float, Meta(ge=0, le=1)] = 0.05  # of recall@5, against what is published


class ReportSettings(Section, frozen=True, kw_only=True):
    keep: Annotated[int, Meta(ge=1, le=100_000)] = 90  # reports; older ones go
    metrics_file: str = ""  # for node_exporter's textfile collector; {collection} is filled in


class NotifySettings(Section, frozen=True, kw_only=True):
    # Words as a shell splits them, but no shell runs them; a field is filled in after the splitting.
    command: Annotated[
        str,
        Meta(
            pattern=r"\A([^{}]|\{(collection|exit_code|json|report|summary)\})*\Z",
            description="a command line; its fields are {report}, {json}, {exit_code}, {summary}, {collection}",
        ),
    ] = ""
    when: Literal["failure", "always"] = "failure"
    timeout_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0


class ServeSettings(Section, frozen=True, kw_only=True):
    host: Annotated[str, Meta(pattern=r"\A[^\s/]+\Z", description="an address such as 127.0.0.1")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8765  # 0: any free one
    keys: tuple[KeyHash, ...] = ()  # never the keys themselves; for keys with a name, see `clients`
    origins: tuple[Origin, ...] = ()  # pages that may read answers in a browser
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 64  # requests at once
    request_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0  # for a whole answer


class ClientSettings(Section, frozen=True, kw_only=True):
    """Who may ask `pipeline serve` with a key of its own; `pipeline serve key add` writes it."""

    key: KeyHash  # of this client's API key
    collections: tuple[Name, ...] = ()  # that it may ask; empty: all
    rate: CountOrNone = 0  # requests a minute; 0: no limit


class ProfileSettings(Section, frozen=True, kw_only=True):
    """An embedding model's facts; see models/profiles.toml."""

    dims: Annotated[int, Meta(ge=0, le=65_536)] = 0
    max_tokens: CountOrNone = 0
    query: Template = "{text}"
    document: Template = "{text}"
    matryoshka: tuple[Annotated[int, Meta(ge=1, le=65_536)], ...] = ()
    languages: tuple[str, ...] = ()


class Settings(Section, frozen=True, kw_only=True):
    data: PathText = "data"
    collection: Name = "default"
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
    quality: QualitySettings = QualitySettings()
    report: ReportSettings = ReportSettings()
    notify: NotifySettings = NotifySettings()
    serve: ServeSettings = ServeSettings()
    profiles: dict[str, ProfileSettings] = {}
    clients: dict[str, ClientSettings] = {}
