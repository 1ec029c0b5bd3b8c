"""Preflight: what a run needs and what makes it slow, wrong or exposed. Looks, and changes nothing.

Every check gives one line, and a failure says what mends it. What Ollama's own settings are can be seen only where they
stand in this process's environment too; a check that cannot see says nothing.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline import config, config_load, errors
from pipeline.models import builtin, ollama_errors, ollama_host, profiles, transport
from pipeline.models.ollama_client import Loaded, Server, Tag

LOW_BYTES = 2 << 30  # 100,000 passages with vectors of 1024 and their index take about 1.5 GB
FULL_BYTES = 200 << 20
KEEP_ALIVE_S = (
    30 * 60
)  # facts of Ollama: a model that is unloaded between stages is loaded again, minutes on a slow disk
CHAT_CONTEXT = 8192  # tokens; a larger window of the chat model can push the embedding model out of memory
DEFAULT_MODEL = "mxbai-embed-large"

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, and what to type or change (empty where nothing need be)."""

    level: Level
    name: str
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Who embeds here: the collection's own embedder, else what the settings say ("auto" for a new collection)."""

    provider: str
    model: str

    @property
    def needs_ollama(self) -> bool:
        return self.provider == "ollama"


def examine(loaded: config_load.Loaded, env: Mapping[str, str]) -> list[Check]:
    """All checks, in the order to read them. `env`: of this process. Takes seconds where a server does not answer."""
    settings = loaded.settings
    collection, wanted = _collection(settings)
    return [
        _python(),
        *_settings(loaded),
        *_data_folder(Path(settings.data)),
        collection,
        _embedded_model(),
        *_proxies(settings, env),
        *_exposure(env),
        *_ollama_variables(settings, env),
        *asyncio.run(_servers(settings, wanted, env)),
        *_openai(settings, wanted, env),
    ]


def broken_settings(error: errors.ConfigError) -> list[Check]:
    """The checks where the settings cannot be read: the rest would look at the wrong things."""
    return [_python(), Check(level="fail", name="settings", detail=error.message, remedy=error.remedy)]


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(level="pass", name="python", detail=detail)


def _settings(loaded: config_load.Loaded) -> Iterator[Check]:
    files = {origin for origin in loaded.origins.values() if origin.endswith(".toml")}
    changed = sum(origin != "default" for origin in loaded.origins.values())
    where = ", ".join(sorted(files)) or "no file"
    yield Check(level="pass", name="settings", detail=f"{changed} differ from the defaults ({where})")
    if loaded.ignored:
        yield Check(
            level="warn",
            name="settings",
            detail=f"not settings of this program: {', '.join(loaded.ignored)}",
            remedy="`pipeline config show` lists every setting; if they are another program's, all is well.",
        )


def _data_folder(data: Path) -> Iterator[Check]:
    """Whether it, or the folder it would be made in, can be written to, and how much room is left."""
    place = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        remedy = f"Choose another with --data, or: chmod u+rwx '{place}'"
        yield Check(
            level="fail", name="data folder", detail=f"{data}: {place} is not a folder to write to", remedy=remedy
        )
        return
    free = shutil.disk_usage(place).free
    level: Level = "fail" if free < FULL_BYTES else "warn" if free < LOW_BYTES else "pass"
    remedy = "" if level == "pass" else "Free some space, or choose another disk with --data."
    yield Check(level=level, name="data folder", detail=f"{data}: {free / 1e9:,.1f} GB free", remedy=remedy)


def _collection(settings: config.Settings) -> tuple[Check, _Wanted]:
    """The collection as `status` sees it, and who embeds it."""
    from pipeline import status

    wanted = _Wanted(provider=settings.embed.provider, model=settings.embed.model)
    name = f"collection {settings.collection}"
    try:
        found = status.examine(settings)
    except errors.NoIndex:
        return Check(level="warn", name=name, detail="nothing in it yet", remedy="pipeline run FOLDER"), wanted
    except errors.PipelineError as error:
        return Check(level="fail", name=name, detail=error.message, remedy=error.remedy), wanted
    if found.provider:
        wanted = _Wanted(provider=found.provider, model=found.model)
    detail = f"{found.documents} documents, {found.chunks} passages, {found.indexed_rows} indexed, {found.model}"
    if found.indexed_rows < found.chunks:
        return Check(level="warn", name=name, detail=detail, remedy="pipeline run"), wanted
    if found.rejects:
        detail += f"; {found.rejects} rejected"
        return Check(level="warn", name=name, detail=detail, remedy="pipeline status names them"), wanted
    return Check(level="pass", name=name, detail=detail), wanted


def _embedded_model() -> Check:
    """The shipped model is the file that was tested, bit for bit."""
    try:
        builtin.verified(builtin.FOLDER / "model.onnx", builtin.MODEL_SHA256)
        builtin.verified(builtin.FOLDER / "tokenizer.json", builtin.TOKENIZER_SHA256)
    except errors.ModelError as error:
        return Check(level="fail", name="embedded model", detail=error.message, remedy=error.remedy)
    return Check(
        level="pass", name="embedded model", detail=f"{builtin.MODEL}, {builtin.DIMS} dimensions, hash as shipped"
    )


def _proxies(settings: config.Settings, env: Mapping[str, str]) -> Iterator[Check]:
    """This program never asks a proxy for loopback; `ollama` and `curl` do, unless NO_PROXY names it."""
    proxies = {name: env[name] for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy") if env.get(name)}
    excluded = (env.get("no_proxy") or env.get("NO_PROXY", "")).replace(" ", "").split(",")
    urls = ollama_host.server_urls(settings.ollama, env)
    captured = [url for url in urls if transport.is_loopback(url) and not _bypassed(url, excluded)]
    if proxies and captured:
        yield Check(
            level="warn",
            name="proxy",
            detail=f"{', '.join(sorted(proxies))} captures what other tools (not this one) send to {captured[0]}",
            remedy="export NO_PROXY=localhost,127.0.0.1,::1",
        )


def _bypassed(url: str, excluded: Sequence[str]) -> bool:
    host = url.partition("://")[2].partition("/")[0].rpartition(":")[0]
    return "*" in excluded or host in excluded or host.strip("[]") in excluded


def _exposure(env: Mapping[str, str]) -> Iterator[Check]:
    """Variables that, where the server sees them too, open it to others."""
    host = env.get("OLLAMA_HOST", "").strip("\"' ").partition("://")[2] or env.get("OLLAMA_HOST", "").strip("\"' ")
    if host.startswith(("0.0.0.0", "[::]", "::", ":")) and not host.startswith("::1"):  # noqa: S104  found, not bound
        yield Check(
            level="warn",
            name="exposure",
            detail=f"OLLAMA_HOST={host}: a server started so listens to the whole network and checks no Host header",
            remedy="unset OLLAMA_HOST, or set it to 127.0.0.1, and restart `ollama serve`",
        )
    if "*" in (origin.strip() for origin in env.get("OLLAMA_ORIGINS", "").split(",")):
        yield Check(
            level="warn",
            name="exposure",
            detail="OLLAMA_ORIGINS=*: any web page that is open in a browser here may use the models",
            remedy="unset OLLAMA_ORIGINS, or name the pages that need it, and restart `ollama serve`",
        )


def _ollama_variables(settings: config.Settings, env: Mapping[str, str]) -> Iterator[Check]:
    if 0 <= _seconds(settings.ollama.keep_alive) < KEEP_ALIVE_S:
        yield Check(
            level="warn",
            name="keep alive",
            detail=f"ollama.keep_alive = {settings.ollama.keep_alive}: the model may be unloaded between two stages",
            remedy='Set ollama.keep_alive = "30m" or more.',
        )
    if env.get("OLLAMA_NUM_PARALLEL", "1") not in ("", "0", "1"):
        yield Check(
            level="warn",
            name="parallel",
            detail="OLLAMA_NUM_PARALLEL does nothing for embeddings and multiplies the memory of chat",
            remedy="unset OLLAMA_NUM_PARALLEL; for more speed start a second `ollama serve`: --ollama-host twice",
        )
    window = env.get("OLLAMA_CONTEXT_LENGTH", "")
    if window.isdigit() and int(window) > CHAT_CONTEXT:
        yield Check(
            level="warn",
            name="context length",
            detail=f"OLLAMA_CONTEXT_LENGTH={window}: the chat model may push the embedding model out of memory",
            remedy=f"export OLLAMA_CONTEXT_LENGTH={CHAT_CONTEXT}, and restart `ollama serve`",
        )


def _seconds(duration: str) -> float:
    """Go's notation as `config.Duration` admits it; negative means for good."""
    import re

    if re.fullmatch(r"-?\d+", duration):
        return float(duration)
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", duration))


# --- model servers


async def _servers(settings: config.Settings, wanted: _Wanted, env: Mapping[str, str]) -> list[Check]:
    urls = ollama_host.server_urls(settings.ollama, env)
    found = await asyncio.gather(*(_server(url, settings, wanted) for url in urls))
    return [check for checks in found for check in checks]


async def _server(url: str, settings: config.Settings, wanted: _Wanted) -> list[Check]:
    try:
        server = Server(url, connect_timeout_s=settings.ollama.connect_timeout_s)
    except errors.ModelError as error:
        return [Check(level="fail", name="ollama", detail=error.message, remedy=error.remedy)]
    try:
        version, tags, loaded = await server.version(), await server.tags(), await server.ps()
    except errors.ModelError as error:
        return [_unreachable(error, wanted)]
    finally:
        await server.aclose()
    return [*_version(url, version), *_models(settings, wanted, tags), *_memory(loaded)]


def _unreachable(error: errors.ModelError, wanted: _Wanted) -> Check:
    if wanted.needs_ollama:
        return Check(level="fail", name="ollama", detail=error.message, remedy=error.remedy)
    remedy = f"Without it the model in the package embeds and answers are passages. {error.remedy}"
    return Check(level="warn", name="ollama", detail=error.message, remedy=remedy)


def _version(url: str, version: ollama_errors.Version) -> Iterator[Check]:
    yield Check(level="pass", name="ollama", detail=f"{version.text} answers at {url}")
    for line in ollama_errors.version_warnings(version):
        level: Level = "warn" if version.supported else "fail"
        yield Check(
            level=level, name="ollama version", detail=line, remedy="Update Ollama: https://ollama.com/download"
        )


def _models(settings: config.Settings, wanted: _Wanted, tags: Sequence[Tag]) -> Iterator[Check]:
    if wanted.provider in ("auto", "ollama"):
        level: Level = "fail" if wanted.needs_ollama else "warn"
        yield _model("embedding model", wanted.model or DEFAULT_MODEL, tags, level)
    if settings.generate.provider in ("auto", "ollama"):
        yield _model("answering model", settings.generate.model, tags, "warn")


def _model(name: str, model: str, tags: Sequence[Tag], missing: Level) -> Check:
    tag = next((tag for tag in tags if profiles.canonical(tag.name) == profiles.canonical(model)), None)
    if tag is None:
        return Check(level=missing, name=name, detail=f"{model} is not on the server", remedy=f"ollama pull {model}")
    if tag.remote_host:
        detail = f"{model} runs at {tag.remote_host}: your texts leave this machine"
        return Check(level="warn", name=name, detail=detail, remedy="Choose a model without -cloud in its name.")
    return Check(level="pass", name=name, detail=f"{model}, {tag.size / 1e9:.1f} GB, digest {tag.digest[:12]}")


def _memory(loaded: Sequence[Loaded]) -> Iterator[Check]:
    """Where the models that are in memory compute; GPU or not is all that Ollama tells."""
    for model in loaded:
        share = model.size_vram / model.size if model.size else 0.0
        where = "the GPU" if share >= 1 else "the CPU" if share == 0 else f"{share:.0%} GPU, the rest CPU"
        remedy = ""
        if share == 0 and platform.system() == "Darwin":
            remedy = "Docker has no Metal: use the native Ollama application."
        elif 0 < share < 1:
            remedy = f"It does not fit: a smaller model, or OLLAMA_CONTEXT_LENGTH={CHAT_CONTEXT} for the server."
        level: Level = "warn" if remedy else "pass"
        yield Check(level=level, name="in memory", detail=f"{model.name} on {where}", remedy=remedy)


def _openai(settings: config.Settings, wanted: _Wanted, env: Mapping[str, str]) -> Iterator[Check]:
    if wanted.provider != "openai" and settings.generate.provider != "openai":
        return
    if not settings.openai.url:
        remedy = "Set openai.url, such as http://127.0.0.1:8080/v1, or PIPELINE_OPENAI_URL."
        yield Check(level="fail", name="openai", detail="no server is named", remedy=remedy)
        return
    key = settings.openai.api_key_env
    has_key = bool(key and env.get(key))
    if has_key or transport.is_loopback(settings.openai.url):
        detail = f"{settings.openai.url}, {'with' if has_key else 'without'} a key"
        yield Check(level="pass", name="openai", detail=detail)
        return
    detail = f"{settings.openai.url} is on another machine and {key or 'openai.api_key_env'} is empty"
    yield Check(
        level="warn", name="openai", detail=detail, remedy=f"export {key or 'OPENAI_API_KEY'}=..., if it asks for one"
    )
