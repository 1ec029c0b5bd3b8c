"""Opens Ollama's models: finds the servers, the model and its facts, and builds embedder and generator from them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import msgspec

from pipeline import config, errors
from pipeline.models import (
    EmbedderSpec,
    Limits,
    Tokenizer,
    builtin,
    identity,
    ollama_fleet,
    ollama_host,
    ollama_pool,
    profiles,
    tokens,
    vocabulary,
    wordpiece,
)
from pipeline.models.ollama import Counting, OllamaEmbedder
from pipeline.models.ollama_chat import OllamaGenerator
from pipeline.models.ollama_client import Server, Show, Tag
from pipeline.models.ollama_later import LaterEmbedder
from pipeline.models.resolve import DEFAULT_MODEL, Choice, OnPull, PullStep

log = logging.getLogger(__name__)
# Every version since 0.3.12 gives an embedding model a window of at least 2048 tokens unasked. A larger one would need
# the option num_ctx, which /v1/embeddings cannot send: two windows would mean loading the model anew between requests.
WINDOW = 2048
GLANCE_S = 3.0  # for a server that may not be needed


async def create(
    settings: config.Settings, environment: Mapping[str, str], pull: OnPull | None, *, bulk: bool = True
) -> Choice:
    """The embedder for a new collection. Errors and `bulk` as `resolve.open_embedder`."""
    model = settings.embed.model or DEFAULT_MODEL

    async def build(fleet: ollama_fleet.Fleet) -> Choice:
        found = await _find(fleet, model, pull)
        return await _checked(await _describe(settings, fleet, found, bulk=bulk), found, bulk=bulk)

    return await ollama_fleet.with_fleet(settings, environment, bulk, build)


async def reopen(
    settings: config.Settings,
    spec: EmbedderSpec,
    environment: Mapping[str, str],
    pull: OnPull | None,
    *,
    bulk: bool = True,
) -> Choice:
    """The embedder of an existing collection: the same model with the same digest, or an error."""

    async def build(fleet: ollama_fleet.Fleet) -> Choice:
        found = await _find(fleet, spec.model, pull)
        identity.same_digest(settings, spec, found.tag.digest, found.here[0].name)
        embedder = _embedder(settings, fleet, found, spec, bulk=bulk)
        return await _checked(Choice(embedder=embedder), found, bulk=bulk)

    return await ollama_fleet.with_fleet(settings, environment, bulk, build)


async def reopen_later(
    settings: config.Settings, spec: EmbedderSpec, environment: Mapping[str, str], pull: OnPull | None
) -> LaterEmbedder:
    """The same for many texts, if there are any: no server is needed before the first. A note becomes a warning.

    Raises:
        ModelMismatch: a server that does answer has another model by now: then no question will find anything, so it is
            told although there may be nothing to embed.
    """
    usual = ollama_host.server_urls(settings.ollama, environment)
    if settings.ollama.hosts or not settings.ollama.local_servers:  # else what answers may be anybody's
        await asyncio.gather(*(_glance(settings, spec, url) for url in usual))

    async def open_() -> OllamaEmbedder:
        choice = await reopen(settings, spec, environment, pull)
        if choice.note:
            log.warning("%s", choice.note)
        assert isinstance(choice.embedder, OllamaEmbedder)
        return choice.embedder

    servers = settings.ollama.local_servers + (len(usual) if settings.ollama.hosts else 0)
    return LaterEmbedder(spec, _limits(settings, max(1, servers)), open_)


async def _glance(settings: config.Settings, spec: EmbedderSpec, url: str) -> None:
    server = ollama_fleet.server(settings, url)
    try:
        async with asyncio.timeout(GLANCE_S):
            tag = await ollama_pool.held(server, spec.model)
    except (errors.ModelError, TimeoutError) as error:
        log.debug("%s tells nothing of %s: %s", server.name, spec.model, error)
        return
    finally:
        await server.aclose()
    if tag is not None:
        identity.same_digest(settings, spec, tag.digest, server.name)


async def generator(settings: config.Settings, environment: Mapping[str, str]) -> OllamaGenerator:
    """The first server that has the answering model."""
    wanted = settings.generate
    servers = ollama_fleet.servers(settings, ollama_host.server_urls(settings.ollama, environment))
    failures: list[errors.ModelError] = []
    chosen: Server | None = None
    digest = ""
    try:
        for server in servers:
            try:
                digest = (await _tag(server, wanted.model)).digest
            except errors.ModelError as error:
                failures.append(error)
                continue
            chosen = server
            break
    finally:
        await ollama_fleet.close([server for server in servers if server is not chosen])
    if chosen is None:  # a server that lacks the model says more than one that is down
        raise next((error for error in failures if isinstance(error, errors.ModelMissing)), failures[0])
    return OllamaGenerator(
        chosen,
        wanted.model,
        num_ctx=wanted.num_ctx,
        temperature=wanted.temperature,
        keep_alive=settings.ollama.keep_alive,
        digest=digest,
    )


def counting(tokenizer: str) -> Counting:
    """What counts by the tokenizer of this identity are worth against the server's."""
    if tokenizer != tokens.builtin().identity:
        return Counting(exact=False)  # a bound, or a vocabulary of which we do not know how servers read it
    return Counting(exact=True, wordpiece=True, readings=_readings, same_input=_reads_alike)


def _readings(texts: Sequence[str]) -> Iterable[int]:
    """Totals of the packaged vocabulary other than our own count, which takes words above 100 characters in pieces: the
    reference makes each of them one [UNK]."""
    yield from _packaged_readings().totals(texts)
    yield sum(len(ids) - 2 for ids in _packaged().token_ids(texts))


@cache
def _packaged() -> builtin.BuiltinEmbedder:
    """For its tokenizer; the model is not loaded."""
    return builtin.BuiltinEmbedder(builtin.spec(""))


@cache
def _packaged_readings() -> wordpiece.Readings:
    return wordpiece.readings(msgspec.json.decode(vocabulary.packaged()))


def _reads_alike(a: str, b: str) -> bool:
    """Whether two texts are the same tokens to the packaged vocabulary, as the reference or some server reads them."""
    first, second = _packaged().token_ids([a, b])
    return first == second or _packaged_readings().alike(a, b)


# --- servers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Servers that have the model `tag`, those that are not known to (they do not answer now), and a line about these
    where others go on without them."""

    tag: Tag
    here: list[Server]
    absent: list[Server]
    note: str = ""


async def _find(fleet: ollama_fleet.Fleet, model: str, pull: OnPull | None) -> _Found:
    """The servers that answer, all with the same model; what does not answer is left out while another does.

    Raises:
        ServerUnreachable, TransientFault: of the first, where none answers.
        ModelMismatch: two have different models under this name.
        ModelMissing, ServerRefused: of the first server that says so.
    """
    if fleet.local is not None and pull is not None:  # they share a folder: the first pull is the others' as well
        await _tag(fleet.servers[0], model, pull)
    answers = await asyncio.gather(*(_tag(server, model, pull) for server in fleet.servers), return_exceptions=True)
    here: list[tuple[Server, Tag]] = []
    silent: list[tuple[Server, errors.ModelError]] = []
    for server, answer in zip(fleet.servers, answers, strict=True):
        if isinstance(answer, errors.ServerUnreachable | errors.TransientFault):
            silent.append((server, answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            here.append((server, answer))
    if not here:
        raise next((error for _, error in silent if isinstance(error, errors.ServerUnreachable)), silent[0][1])
    _same_everywhere(model, here)
    note = " ".join(f"{error.message} It takes part as soon as it does." for _, error in silent)
    return _Found(tag=here[0][1], here=[server for server, _ in here], absent=[one for one, _ in silent], note=note)


def _same_everywhere(model: str, alive: Sequence[tuple[Server, Tag]]) -> None:
    first, tag = alive[0]
    for server, other in alive[1:]:
        if other.digest != tag.digest:
            raise errors.ModelMismatch(
                f"{model} is not the same model on {first.name} (digest {tag.digest[:12]}) and {server.name} "
                f"({other.digest[:12]}): their vectors do not belong together.",
                f"Run `OLLAMA_HOST=HOST ollama pull {model}` with each of the two, or leave one out of ollama.hosts.",
            )


async def _checked(choice: Choice, found: _Found, *, bulk: bool) -> Choice:
    """`choice` after its servers have shown that they make the same vectors. One text needs one server: nothing is
    asked of the others then."""
    assert isinstance(choice.embedder, OllamaEmbedder)
    if bulk and len(found.here) > 1:
        try:
            await choice.embedder.agree()
        except BaseException:
            await choice.embedder.aclose()
            raise
    return replace(choice, note=f"{choice.note} {found.note}".strip())


async def _tag(server: Server, model: str, pull: OnPull | None = None) -> Tag:
    """The model as the server lists it.

    Raises:
        ModelMissing: it does not, and `pull` is None.
        ServerRefused: the server is too old, or would send the text to another machine.
    """
    tag = await ollama_pool.held(server, model)
    if tag is None and pull is not None:
        await _pull(server, model, pull)
        tag = await ollama_pool.held(server, model)
    if tag is None:
        raise ollama_pool.missing(server, model)
    return tag


async def _pull(server: Server, model: str, on_step: OnPull) -> None:
    files: dict[str, tuple[int, int]] = {}
    async for step in server.pull(model):
        if step.digest:
            files[step.digest] = (step.completed, step.total)
        done, total = (sum(column) for column in zip(*files.values(), strict=True)) if files else (0, 0)
        on_step(PullStep(model=model, status=step.status, completed=done, total=total))


# --- a new collection's model


async def _describe(settings: config.Settings, fleet: ollama_fleet.Fleet, found: _Found, *, bulk: bool) -> Choice:
    """Embedder, and a line where something is not known of its model."""
    tag, first = found.tag, found.here[0]
    model = profiles.short(tag.name)
    profile = profiles.find(model, settings.profiles)
    show = await first.show(tag.name, verbose=True)
    tokenizer, text = _tokenizer(show)
    known = profile or profiles.Profile()
    native = show.number("embedding_length") or known.dims
    if not native:
        raise errors.ModelError(
            f"{first.name} does not tell how many dimensions {model} has.", f"Set profiles.{model}.dims."
        )
    dims = profiles.cut_to(model, known, native, settings.embed.dims)
    spec = EmbedderSpec(
        provider="ollama",
        model=model,
        digest=tag.digest,
        dims=dims,
        native_dims=native if dims != native else 0,
        limit=_limit(known, show.number("context_length")),
        tokenizer=tokenizer.identity,
        query_template=known.query,
        document_template=known.document,
        languages=known.languages,
    )
    embedder = _embedder(settings, fleet, found, spec, bulk=bulk)
    return Choice(embedder=embedder, note=_unknown(model, profile, show), tokenizer=text)


def _limit(profile: profiles.Profile, context: int) -> int:
    """Tokens of a text without specials: the least of what the profile, the model file and Ollama's window allow."""
    return min(known for known in (profile.max_tokens, context, WINDOW) if known) - profile.specials


def _unknown(model: str, profile: profiles.Profile | None, show: Show) -> str:
    lines = []
    if profile is None:
        lines.append(
            f"No query and document templates are known for {model}: set [profiles.{model!r}] if it needs them."
        )
    if show.capabilities is not None and "embedding" not in show.capabilities:
        lines.append(f"Ollama does not list {model} as an embedding model.")
    return " ".join(lines)


def _tokenizer(show: Show) -> tuple[Tokenizer, str | None]:
    """The tokenizer that counts for a model, and its tokenizer.json where it is not the packaged one."""
    text = vocabulary.tokenizer_json(show.model_info)
    if text is None:
        return tokens.conservative(), None
    return (tokens.builtin(), None) if text == vocabulary.packaged() else (tokens.from_json(text), text)


def _embedder(
    settings: config.Settings, fleet: ollama_fleet.Fleet, found: _Found, spec: EmbedderSpec, *, bulk: bool
) -> OllamaEmbedder:
    here = found.here if bulk else found.here[:1]  # the others have not shown that they make the same vectors
    return OllamaEmbedder(
        here,
        spec,
        counting=counting(spec.tokenizer),
        absent=[*found.here[len(here) :], *found.absent],
        eager=bulk,
        keep_alive=settings.ollama.keep_alive,
        limits=_limits(settings, fleet.size),
        local=fleet.local,
        growth=fleet.growth.growth if fleet.growth is not None else None,
        load_timeout_s=settings.ollama.load_timeout_s,
    )


def _limits(settings: config.Settings, servers: int) -> Limits:
    embed = settings.embed
    return Limits(
        batch_texts=embed.batch_texts,
        batch_tokens=embed.batch_tokens,
        concurrency=embed.concurrency * servers,
        servers=servers,
    )
