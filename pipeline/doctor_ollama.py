"""Ollama's servers as they answer now: version, models, where they compute, how open they are, a trial of the model.

Each server is looked at on its own and at the same time as the others; then they are compared. Loads the embedding
model (as a run does) and changes nothing else. Every question has a deadline: a server that hangs is a failed check.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pipeline import config, doctor_selftest, errors
from pipeline.doctor_check import Check, Level, failed
from pipeline.doctor_variables import CHAT_CONTEXT
from pipeline.models import (
    EmbedderSpec,
    canary,
    ollama_errors,
    ollama_exposure,
    ollama_host,
    profiles,
    resolve,
    transport,
)
from pipeline.models.ollama_client import Loaded, Server, Tag

QUICK_S = 5.0  # for what needs no model; a busy server answers in milliseconds
UPDATE = "Update Ollama: https://ollama.com/download"
# Ollama's own engine for BERT's WordPiece (see models/wordpiece.py): llama.cpp before it, and again from 0.30 on.
OWN_ENGINE = ((0, 13, 5), (0, 29, 999))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Who embeds: the collection's own model, else what the settings say.

    Attributes:
        provider: "auto" for a new collection that may choose Ollama or the embedded model.
        model: its name; for "auto" and for Ollama's default, the default's.
        recorded: what the collection was built with.
    """

    provider: config.Provider
    model: str
    recorded: EmbedderSpec | None = None

    @property
    def needs_ollama(self) -> bool:
        return self.provider == "ollama"

    @property
    def may_use_ollama(self) -> bool:
        return self.provider in ("auto", "ollama")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One server.

    Attributes:
        prefix: goes before an `ollama` command that is meant for this server.
        error: what ended the look at it.
        trial: None where no model could be tried.
    """

    url: str
    checks: tuple[Check, ...] = ()
    error: errors.ModelError | None = None
    prefix: str = ""
    tags: tuple[Tag, ...] = ()
    trial: doctor_selftest.Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """`tokens_per_s`: of all servers together, 0 where none could be tried. `model_usable`: a run could embed there."""

    checks: tuple[Check, ...]
    tokens_per_s: float = 0.0
    model_usable: bool = False
    asked_locally: bool = False  # a server on loopback answered, so how open it is was seen and not guessed


async def examine(settings: config.Settings, wanted: Wanted, env: Mapping[str, str], patience_s: float) -> Findings:
    """Every server that the settings name. `patience_s`: for loading a model and for each step of its trial."""
    urls = ollama_host.server_urls(settings.ollama, env)
    default = ollama_host.server_url(env.get("OLLAMA_HOST", ""))
    found = await asyncio.gather(
        *(_look(url, "" if url == default else f"OLLAMA_HOST={url} ", settings, wanted, patience_s) for url in urls)
    )
    answering = [seen for seen in found if seen.error is None]
    checks: list[Check] = []
    for seen in found:
        if seen.error is not None:
            checks.append(_unreachable(seen.error, wanted, others=bool(answering)))
        checks += [_placed(check, seen.url) for check in seen.checks] if len(urls) > 1 else seen.checks
    trials = [seen.trial for seen in answering if seen.trial is not None]
    return Findings(
        checks=(
            *checks,
            *_answering(settings, answering),
            *_compared(wanted.model, answering),
            *_local(settings, env),
        ),
        tokens_per_s=sum(trial.tokens_per_s for trial in trials),
        model_usable=bool(trials),
        asked_locally=any(transport.is_loopback(seen.url) for seen in answering),
    )


def _placed(check: Check, url: str) -> Check:
    """With several servers each line says whose it is."""
    return check if url in check.detail else replace(check, detail=f"{url}: {check.detail}")


async def _look(url: str, prefix: str, settings: config.Settings, wanted: Wanted, patience_s: float) -> Seen:
    seen = Seen(url=url, prefix=prefix)
    try:
        server = Server(url, connect_timeout_s=settings.ollama.connect_timeout_s)
    except errors.ModelError as error:
        return replace(seen, error=error)
    try:
        async with transport.deadline(server.name, min(QUICK_S, patience_s)):
            version, tags = await server.version(), await server.tags()
        opened = await ollama_exposure.probe(url, timeout_s=min(QUICK_S, patience_s))
        seen = replace(seen, tags=tuple(tags), checks=(*_version(url, version, wanted), *_exposure(url, opened)))
        seen = await _with_model(seen, server, version.supported, settings, wanted, patience_s)
        async with transport.deadline(server.name, QUICK_S):
            gpu = accelerator() if transport.is_loopback(url) else ""
            return replace(seen, checks=(*seen.checks, *memory(await server.ps(), wanted.model, gpu)))
    except errors.ModelError as error:
        return replace(seen, error=error)
    finally:
        await server.aclose()


async def _with_model(
    seen: Seen, server: Server, supported: bool, settings: config.Settings, wanted: Wanted, patience_s: float
) -> Seen:
    """The embedding model there, tried if a run would use it."""
    if not wanted.may_use_ollama:
        return seen
    there = _model("embedding model", wanted.model, seen.tags, needed=wanted.needs_ollama, prefix=seen.prefix)
    seen = replace(seen, checks=(*seen.checks, there))
    if there.level != "pass" or not supported:
        return seen
    trial = await _trial(server, settings, wanted, patience_s)
    return replace(seen, trial=trial, checks=(*seen.checks, *trial.checks))


def _unreachable(error: errors.ModelError, wanted: Wanted, *, others: bool) -> Check:
    """A server that is off may be done without; one that answers wrongly, or hangs, ends a run."""
    remedy = error.remedy or "Restart it, or leave it out of ollama.hosts."
    if not isinstance(error, errors.ServerUnreachable) or (wanted.needs_ollama and not others):
        return failed("ollama", error, remedy)
    without = "A run goes on with the other servers"
    if not others:
        without = "Without it the model in the package embeds" if wanted.may_use_ollama else "Only answers need it here"
    return Check(level="warn", name="ollama", detail=error.message, remedy=f"{without}. {remedy}")


# --- version and exposure


def _version(url: str, version: ollama_errors.Version, wanted: Wanted) -> Iterator[Check]:
    yield Check(level="pass", name="ollama", detail=f"{version.text} answers at {url}")
    lines = ollama_errors.version_warnings(version)
    profile = profiles.find(wanted.model)
    wordpiece = wanted.may_use_ollama and (profile is None or profile.vocabulary == "bert-base-uncased")
    first, last = OWN_ENGINE
    if wordpiece and first <= version.triple <= last:
        lines.append(
            f"Ollama {version.text} turns curly quotes, long dashes and full-width marks, and the word after them, "
            f"into [UNK] for models such as {wanted.model}: searches miss those words (0.30 and later do not)"
        )
    level: Level = "fail" if wanted.needs_ollama and not version.supported else "warn"
    for line in lines:
        yield Check(level=level, name="ollama version", detail=line, remedy=UPDATE)


def _exposure(url: str, opened: ollama_exposure.Exposure) -> Iterator[Check]:
    if opened.any_origin:
        yield Check(
            level="warn",
            name="exposure",
            detail=f"{url} answers pages of any web site (OLLAMA_ORIGINS=*): what is open in a browser may use it",
            remedy="Unset OLLAMA_ORIGINS for the server, or name the pages that need it, and restart it.",
        )
    if opened.any_host and transport.is_loopback(url):
        yield Check(
            level="warn",
            name="exposure",
            detail=f"{url} asks for no host name: it listens to the whole network (OLLAMA_HOST=0.0.0.0) or runs in a "
            "container",
            remedy="Set OLLAMA_HOST=127.0.0.1 for the server and restart it; in a container publish the port as "
            "127.0.0.1:11434:11434.",
        )


# --- models


def _named(tags: Sequence[Tag], model: str) -> Tag | None:
    return next((tag for tag in tags if profiles.canonical(tag.name) == profiles.canonical(model)), None)


def _answering(settings: config.Settings, found: Sequence[Seen]) -> Iterator[Check]:
    """The answering model: one server that has it is enough."""
    if settings.generate.provider not in ("auto", "ollama") or not found:
        return
    model = settings.generate.model
    best = next((seen for seen in found if _named(seen.tags, model)), found[0])
    needed = settings.generate.provider == "ollama"
    yield _model("answering model", model, best.tags, needed=needed, prefix=best.prefix)


def _model(name: str, model: str, tags: Sequence[Tag], *, needed: bool, prefix: str) -> Check:
    tag = _named(tags, model)
    missing: Level = "fail" if needed else "warn"
    if tag is None:
        remedy = f"{prefix}ollama pull {model}"
        return Check(level=missing, name=name, detail=f"{model} is not on the server", remedy=remedy)
    if tag.remote_host:
        detail = f"{model} runs at {tag.remote_host}: your texts would leave this machine, so it is not used"
        remedy = "Choose a model without -cloud in its name, such as mxbai-embed-large or llama3.2."
        return Check(level=missing, name=name, detail=detail, remedy=remedy)
    return Check(level="pass", name=name, detail=f"{model}, {tag.size / 1e9:.1f} GB, digest {tag.digest[:12]}")


async def _trial(
    server: Server, settings: config.Settings, wanted: Wanted, patience_s: float
) -> doctor_selftest.Outcome:
    alone = _only(server.url, settings, wanted)
    stuck = await _stuck(server, wanted.model)  # before we ask: what is asked now starts its time anew
    outcome = await doctor_selftest.run(
        lambda: resolve.open_embedder(alone, wanted.recorded),
        model=wanted.model,
        server=server.name,
        patience_s=patience_s,
    )
    if stuck and isinstance(outcome.error, errors.TransientFault):
        check = outcome.checks[0]
        detail = f"{check.detail} The model's time in memory is over and it is still there: its runner is stuck."
        remedy = "Restart Ollama (quit and open the app, or `systemctl restart ollama`)."
        return replace(outcome, checks=(replace(check, detail=detail, remedy=remedy),))
    return outcome


def _only(url: str, settings: config.Settings, wanted: Wanted) -> config.Settings:
    """Settings by which a run would use this server and the wanted model alone."""
    embed = settings.embed
    if wanted.recorded is not None:  # a setting that differs from the collection has a line of its own
        embed = msgspec.structs.replace(embed, model="", dims=0)
    return msgspec.structs.replace(
        settings,
        ollama=msgspec.structs.replace(settings.ollama, hosts=(url,), local_servers=0),
        embed=msgspec.structs.replace(embed, provider="ollama"),
    )


async def _stuck(server: Server, model: str) -> bool:
    """Ollama's sign of a runner that never answers (#17428): in memory beyond its time."""
    async with transport.deadline(server.name, QUICK_S):
        loaded = await server.ps()
    return any(_expired(one) for one in loaded if profiles.canonical(one.name) == profiles.canonical(model))


def _expired(model: Loaded) -> bool:
    try:
        expires = datetime.fromisoformat(model.expires_at)
    except ValueError:  # a server that writes no time, or not RFC 3339
        return False
    return expires.tzinfo is not None and expires < datetime.now(UTC)


# --- memory


def accelerator() -> str:
    """What this machine could compute on; "" where nothing is seen. Ollama itself tells only how much of it is used."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "Metal"
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        return "NVIDIA"
    return "AMD" if Path("/dev/kfd").exists() else ""


_ON_CPU = {
    "Metal": "Docker has no Metal: use the native Ollama application.",
    "NVIDIA": "Restart Ollama and look for the GPU in its log; in a container: `docker run --gpus=all`.",
    "AMD": "Restart Ollama and look for ROCm in its log; in a container use the image ollama/ollama:rocm.",
}


def memory(loaded: Sequence[Loaded], wanted: str, gpu: str) -> Iterator[Check]:
    """Where the models in memory compute, and whether another one crowds the embedding model out."""
    for model in loaded:
        share = model.size_vram / model.size if model.size else 0.0
        where = "the GPU" if share >= 1 else "the CPU" if share == 0 else f"{share:.0%} GPU, the rest CPU"
        detail, remedy = f"{model.name} on {where}", ""
        if share == 0 and gpu:
            detail, remedy = f"{detail}, though this machine has a GPU ({gpu})", _ON_CPU[gpu]
        elif 0 < share < 1:
            remedy = f"It does not fit: a smaller model, or OLLAMA_CONTEXT_LENGTH={CHAT_CONTEXT} for the server."
        elif model.context_length > CHAT_CONTEXT and profiles.canonical(model.name) != profiles.canonical(wanted):
            detail += f" with a window of {model.context_length:,} tokens: it may push the embedding model out"
            remedy = f"Set OLLAMA_CONTEXT_LENGTH={CHAT_CONTEXT} for the server and restart it."
        level: Level = "warn" if remedy else "pass"
        yield Check(level=level, name="in memory", detail=detail, remedy=remedy)


# --- several servers


def _compared(model: str, found: Sequence[Seen]) -> Iterator[Check]:
    """Vectors of two servers may stand side by side only if they have one model and give one text one vector."""
    holding = {seen.url: tag for seen in found if (tag := _named(seen.tags, model))}
    if len(holding) < 2:
        return
    digests = {url: tag.digest[:12] for url, tag in holding.items()}
    if len(set(digests.values())) > 1:
        told = ", ".join(f"{digest} at {url}" for url, digest in digests.items())
        remedy = f"Run `ollama pull {model}` on each, or leave one out of ollama.hosts."
        yield Check(level="fail", name="servers", detail=f"{model} is not the same everywhere: {told}", remedy=remedy)
        return
    tried = [seen.trial.vectors for seen in found if seen.trial is not None and seen.trial.vectors is not None]
    alike = doctor_selftest.same_vectors(tried)
    if alike < canary.AGREE:
        yield Check(
            level="fail",
            name="servers",
            detail=f"the same texts have different vectors on them (cosine {alike:.3f})",
            remedy="Bring the servers to one version of Ollama, or leave one out of ollama.hosts.",
        )
        return
    detail = f"{len(holding)} have {model} with digest {next(iter(digests.values()))}; {len(tried)} were compared"
    yield Check(level="pass", name="servers", detail=f"{detail} (cosine {alike:.4f})" if len(tried) > 1 else detail)


def _local(settings: config.Settings, env: Mapping[str, str]) -> Iterator[Check]:
    """Servers that a run starts itself: whether there is a program to start. Starting them is left to the run."""
    count = settings.ollama.local_servers
    if not count:
        return
    program = shutil.which("ollama", path=env.get("PATH"))
    if program is None:
        remedy = "Install Ollama (https://ollama.com/download), or set ollama.local_servers = 0."
        detail = f"ollama.local_servers = {count}, but there is no program `ollama` on PATH"
        yield Check(level="fail", name="local servers", detail=detail, remedy=remedy)
        return
    yield Check(level="pass", name="local servers", detail=f"{count} of {program}, for as long as a run lasts")
