"""Preflight: what a run needs and what makes it slow, wrong or exposed. Looks, tries the model, and changes nothing.

Every check gives one line, and a failure says what mends it. The servers are asked by `doctor_ollama`, the model is
tried by `doctor_selftest`; here is the order of the checks, this machine, the collection, and the work that is due.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline import (
    config,
    config_load,
    doctor_ollama,
    doctor_rerank,
    doctor_selftest,
    doctor_variables,
    errors,
    forecast,
    live,
    opening,
    report,
)
from pipeline.doctor_check import Check, Level, failed
from pipeline.doctor_ollama import Wanted
from pipeline.models import EmbedderSpec, builtin, identity, profiles, resolve, transport
from pipeline.store import Collection

LOW_BYTES = 2 << 30  # 100,000 passages with vectors of 1024 and their index take about 1.5 GB
FULL_BYTES = 200 << 20
PATIENCE_S = 30.0  # for loading a model, and for each step of its trial: a 700 MB model takes seconds from an SSD


@dataclass(frozen=True, slots=True, kw_only=True)
class _Collection:
    """What is recorded of it and how it stands; None where that cannot be read, or there is nothing."""

    checks: tuple[Check, ...]
    recorded: EmbedderSpec | None = None
    status: report.Status | None = None


def examine(loaded: config_load.Loaded, env: Mapping[str, str], *, patience_s: float = PATIENCE_S) -> Iterator[Check]:
    """All checks, in the order to read them, each as soon as it is known.

    About two seconds after the model is loaded, some more on a slow machine; `patience_s` bounds each step that waits
    for a model. `env`: of this process.
    """
    settings = loaded.settings
    yield _python()
    yield from _settings(loaded)
    yield from _data_folder(Path(settings.data))
    found = _collection(settings)
    yield from found.checks
    yield _embedded_model()
    yield from doctor_variables.proxies(settings, env)
    yield from doctor_variables.settings_of_ollama(settings, env)
    wanted = _wanted(settings, found.recorded)
    rate = yield from _models(settings, wanted, env, patience_s)
    yield from asyncio.run(doctor_rerank.check(settings, env, patience_s))
    yield from _due(settings, found, rate)


def _models(
    settings: config.Settings, wanted: Wanted, env: Mapping[str, str], patience_s: float
) -> Generator[Check, None, float]:
    """The checks of every provider in use; returns the tokens per second of the one that would embed."""
    rate = 0.0
    in_ollama = False
    if wanted.may_use_ollama or settings.generate.provider in ("auto", "ollama"):
        ollama = asyncio.run(doctor_ollama.examine(settings, wanted, env, patience_s))
        yield from () if ollama.asked_locally else doctor_variables.exposure(env)
        yield from ollama.checks
        rate, in_ollama = ollama.tokens_per_s, ollama.model_usable
    if wanted.provider == "builtin" or (wanted.provider == "auto" and not in_ollama):
        trial = _trial(settings, wanted, patience_s, provider="builtin", server="The embedded model")
        yield from trial.checks
        rate = trial.tokens_per_s
    if "openai" in (wanted.provider, settings.generate.provider):
        address = _openai(settings, env)
        yield address
        if address.level != "fail":
            rate = yield from _openai_models(settings, wanted, patience_s, rate)
    return rate


def broken_settings(error: errors.ConfigError) -> list[Check]:
    """The checks where the settings cannot be read: the rest would look at the wrong things."""
    return [_python(), failed("settings", error)]


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


def _wanted(settings: config.Settings, recorded: EmbedderSpec | None) -> Wanted:
    """Who embeds, by the rules of `resolve.open_embedder`."""
    embed = settings.embed
    if recorded is not None:
        return Wanted(provider=recorded.provider, model=recorded.model, recorded=recorded)
    if embed.provider == "openai":
        return Wanted(provider="openai", model=embed.model or settings.openai.model)
    if embed.provider == "builtin" or (embed.provider == "auto" and profiles.short(embed.model) == builtin.MODEL):
        return Wanted(provider="builtin", model=builtin.MODEL)
    provider = "ollama" if embed.model else embed.provider  # a model that was named is not silently another
    return Wanted(provider=provider, model=embed.model or resolve.DEFAULT_MODEL)


def _collection(settings: config.Settings) -> _Collection:
    """The collection as `status` sees it, and whether the settings are the ones it was built with."""
    from pipeline import status

    name = f"collection {settings.collection}"
    recorded: EmbedderSpec | None = None
    try:
        stored = opening.collection_of(settings)
        recorded = stored.embedder() if stored.exists else None
        if recorded is not None:
            identity.refuse_another(settings, recorded)
        found = status.examine(settings)
    except errors.NoIndex:
        check = Check(level="warn", name=name, detail="nothing in it yet", remedy="pipeline run FOLDER")
        return _Collection(checks=(check,))
    except errors.PipelineError as error:
        return _Collection(checks=(failed(name, error),), recorded=recorded)
    checks = (_standing(name, found), *(_languages(stored, recorded) if recorded is not None else ()))
    return _Collection(checks=checks, recorded=recorded, status=found)


def _languages(stored: Collection, recorded: EmbedderSpec) -> Iterator[Check]:
    """Whether the model can read the documents."""
    told = resolve.language_warning(recorded, live.sample(stored, live.of_snapshot(stored.snapshot())))
    if told:
        problem, _, remedy = told.partition(" Better: ")
        yield Check(level="warn", name="language", detail=problem, remedy=remedy)


def _standing(name: str, found: report.Status) -> Check:
    detail = f"{_count(found.documents, 'document')}, {_count(found.chunks, 'passage')}, {found.indexed_rows:,} indexed"
    detail += f", {found.model}" if found.model else ""
    if found.indexed_rows < found.chunks or found.pending.documents:
        return Check(level="warn", name=name, detail=detail, remedy="pipeline run")
    if found.rejects:
        detail += f"; {found.rejects:,} rejected"
        return Check(level="warn", name=name, detail=detail, remedy="pipeline status names them")
    return Check(level="pass", name=name, detail=detail)


def _embedded_model() -> Check:
    """The shipped model is the file that was tested, bit for bit."""
    try:
        builtin.verified(builtin.FOLDER / "model.onnx", builtin.MODEL_SHA256)
        builtin.verified(builtin.FOLDER / "tokenizer.json", builtin.TOKENIZER_SHA256)
    except errors.ModelError as error:
        return failed("embedded model", error)
    return Check(
        level="pass", name="embedded model", detail=f"{builtin.MODEL}, {builtin.DIMS} dimensions, hash as shipped"
    )


# --- the model


def _trial(
    settings: config.Settings, wanted: Wanted, patience_s: float, *, provider: config.Provider, server: str
) -> doctor_selftest.Outcome:
    """Try the model that a run would open, by a provider that is not Ollama."""
    embed, openai = settings.embed, settings.openai
    if wanted.recorded is not None:  # a setting that differs from the collection has a line of its own
        embed = msgspec.structs.replace(embed, model="", dims=0)
        openai = msgspec.structs.replace(openai, model="")
    chosen = msgspec.structs.replace(settings, embed=msgspec.structs.replace(embed, provider=provider), openai=openai)
    return asyncio.run(
        doctor_selftest.run(
            lambda: resolve.open_embedder(chosen, wanted.recorded),
            model=wanted.model or "the model",
            server=server,
            patience_s=patience_s,
        )
    )


def _openai(settings: config.Settings, env: Mapping[str, str]) -> Check:
    if not settings.openai.url:
        remedy = "Set openai.url, such as http://127.0.0.1:8080/v1, or PIPELINE_OPENAI_URL."
        return Check(level="fail", name="openai", detail="no server is named", remedy=remedy)
    key = settings.openai.api_key_env
    has_key = bool(key and env.get(key))
    if has_key or transport.is_loopback(settings.openai.url):
        detail = f"{settings.openai.url}, {'with' if has_key else 'without'} a key"
        return Check(level="pass", name="openai", detail=detail)
    detail = f"{settings.openai.url} is on another machine and {key or 'openai.api_key_env'} is empty"
    remedy = f"export {key or 'OPENAI_API_KEY'}=..., if it asks for one"
    return Check(level="warn", name="openai", detail=detail, remedy=remedy)


def _openai_models(
    settings: config.Settings, wanted: Wanted, patience_s: float, rate: float
) -> Generator[Check, None, float]:
    """What the OpenAI-compatible server has; returns its tokens per second where it embeds, else `rate`."""
    server = f"The server at {settings.openai.url}"
    if settings.generate.provider == "openai":
        yield asyncio.run(_openai_answers(settings, server, patience_s))
    if wanted.provider != "openai":
        return rate
    trial = _trial(settings, wanted, patience_s, provider="openai", server=server)
    yield from trial.checks
    return trial.tokens_per_s


async def _openai_answers(settings: config.Settings, server: str, patience_s: float) -> Check:
    try:
        async with transport.deadline(server, patience_s):
            generator = await resolve.open_generator(settings)
    except errors.PipelineError as error:
        return failed("answering model", error)
    assert generator is not None  # a provider that was named is opened or raises
    await generator.aclose()
    return Check(level="pass", name="answering model", detail=f"{generator.model} of {server}")


# --- the work that is due


def _due(settings: config.Settings, found: _Collection, tokens_per_s: float) -> Iterator[Check]:
    """What the next run has to embed, and how long that takes at the speed just measured."""
    if found.status is None:
        return
    pending = found.status.pending
    unread = pending.documents + (pending.files or 0)
    told = []
    if pending.chunks and found.recorded is not None:
        tokens = _tokens_due(settings, found.recorded)
        told.append(f"{_count(pending.chunks, 'passage')} to embed ({tokens:,} tokens)")
        if tokens_per_s > 0:
            told.append(f"about {duration(tokens / tokens_per_s)} at the speed above")
    if unread:
        told.append(f"{_count(unread, 'file')} not read or cut yet (`pipeline run --dry-run` counts the passages)")
    if told:
        yield Check(level="pass", name="due", detail=", ".join(told))


def _tokens_due(settings: config.Settings, spec: EmbedderSpec) -> int:
    """Tokens of the texts that have no vector, each text once."""
    collection = opening.collection_of(settings)
    cost = forecast.Cost(vectors=live.vector_log(collection, spec))
    chunks_fp = live.chunk_params(settings, spec).fingerprint()
    forecast.add_cut(collection, chunks_fp, live.of_snapshot(collection.snapshot()), cost)
    return sum(cost.tokens.values())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Such as "8 s", "12 min", "3.4 h": an estimate, and not written finer than it is."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
