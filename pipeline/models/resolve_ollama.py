"""Opens Ollama's models: finds the servers, the model and its facts, and builds embedder and generator from them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

import msgspec

from pipeline import config, errors
from pipeline.models import (
    EmbedderSpec,
    Limits,
    Tokenizer,
    builtin,
    identity,
    ollama_errors,
    ollama_host,
    profiles,
    tokens,
    vocabulary,
    wordpiece,
)
from pipeline.models.ollama import Counting, OllamaEmbedder, OllamaGenerator
from pipeline.models.ollama_client import Server, Show, Tag
from pipeline.models.resolve import DEFAULT_MODEL, Choice, OnPull, PullStep

log = logging.getLogger(__name__)
# Every version since 0.3.12 gives an embedding model a window of at least 2048 tokens unasked. A larger one would need
# the option num_ctx, which /v1/embeddings cannot send: two windows would mean loading the model anew between requests.
WINDOW = 2048
T = TypeVar("T")


async def create(settings: config.Settings, environment: Mapping[str, str], pull: OnPull | None) -> Choice:
    """The embedder for a new collection. Errors as `resolve.open_embedder`."""
    model = settings.embed.model or DEFAULT_MODEL
    servers = _servers(settings, environment)

    async def build() -> Choice:
        alive, tag = await _find(servers, model, pull)
        return await _describe(settings, alive, tag)

    return await _closing_on_error(servers, build)


async def reopen(
    settings: config.Settings, spec: EmbedderSpec, environment: Mapping[str, str], pull: OnPull | None
) -> OllamaEmbedder:
    """The embedder of an existing collection: the same model with the same digest, or an error."""
    servers = _servers(settings, environment)

    async def build() -> OllamaEmbedder:
        alive, tag = await _find(servers, spec.model, pull)
        identity.same_digest(settings, spec, tag.digest, alive[0].name)
        return _embedder(settings, alive, spec, counting(spec.tokenizer))

    return await _closing_on_error(servers, build)


async def generator(settings: config.Settings, environment: Mapping[str, str]) -> OllamaGenerator:
    """The first server that has the answering model."""
    wanted = settings.generate
    servers = _servers(settings, environment)

    async def build() -> OllamaGenerator:
        failures: list[errors.ModelError] = []
        for server in servers:
            try:
                await _tag(server, wanted.model)
            except errors.ModelError as error:
                failures.append(error)
                continue
            return OllamaGenerator(
                server,
                wanted.model,
                num_ctx=wanted.num_ctx,
                temperature=wanted.temperature,
                keep_alive=settings.ollama.keep_alive,
            )
        # A server that lacks the model says more than one that is down.
        raise next((error for error in failures if isinstance(error, errors.ModelMissing)), failures[0])

    found = await _closing_on_error(servers, build)
    await _close([server for server in servers if server is not found.server])
    return found


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


async def tokenizer_json(server: Server, model: str) -> str | None:
    """tokenizer.json rebuilt from the vocabulary that the server shows; None where it shows none that can be
    rebuilt."""
    return vocabulary.tokenizer_json((await server.show(model, verbose=True)).model_info)


# --- servers


def _servers(settings: config.Settings, environment: Mapping[str, str]) -> list[Server]:
    urls = ollama_host.server_urls(settings.ollama, environment)
    return [Server(url, connect_timeout_s=settings.ollama.connect_timeout_s) for url in urls]


async def _close(servers: Sequence[Server]) -> None:
    for server in servers:
        await server.aclose()


async def _closing_on_error(servers: Sequence[Server], build: Callable[[], Awaitable[T]]) -> T:
    try:
        return await build()
    except BaseException:
        await _close(servers)
        raise


async def _find(servers: Sequence[Server], model: str, pull: OnPull | None) -> tuple[list[Server], Tag]:
    """The servers that answer, all with the same model; what does not answer is left out while another does.

    Raises:
        ServerUnreachable: none answers.
        ModelMismatch: two have different models under this name.
        ModelMissing, ServerRefused, TransientFault: of the first server that says so.
    """
    found = await asyncio.gather(*(_tag(server, model, pull) for server in servers), return_exceptions=True)
    alive: list[tuple[Server, Tag]] = []
    down: list[errors.ServerUnreachable] = []
    for server, tag in zip(servers, found, strict=True):
        if isinstance(tag, errors.ServerUnreachable):
            down.append(tag)
        elif isinstance(tag, BaseException):
            raise tag
        else:
            alive.append((server, tag))
    if not alive:
        raise down[0]
    for error in down:
        log.warning("%s The other servers go on without it.", error.message)
    _same_everywhere(model, alive)
    return [server for server, _ in alive], alive[0][1]


def _same_everywhere(model: str, alive: Sequence[tuple[Server, Tag]]) -> None:
    first, tag = alive[0]
    for server, other in alive[1:]:
        if other.digest != tag.digest:
            raise errors.ModelMismatch(
                f"{model} is not the same model on {first.name} (digest {tag.digest[:12]}) and {server.name} "
                f"({other.digest[:12]}): their vectors do not belong together.",
                f"Run `ollama pull {model}` on both, or leave one out of ollama.hosts.",
            )


async def _tag(server: Server, model: str, pull: OnPull | None = None) -> Tag:
    """The model as the server lists it.

    Raises:
        ModelMissing: it does not, and `pull` is None.
        ServerRefused: the server is too old, or would send the text to another machine.
    """
    ollama_errors.require_supported(await server.version(), server.url)
    tag = _named(await server.tags(), model)
    if tag is None and pull is not None:
        await _pull(server, model, pull)
        tag = _named(await server.tags(), model)
    if tag is None:
        raise errors.ModelMissing(
            f"{server.name} does not have the model {model}.", f"Run `ollama pull {model}`, or give --pull."
        )
    if tag.remote_host:
        raise errors.ServerRefused(
            f"{model} does not run on {server.name}: it sends every text to {tag.remote_host}.",
            "Choose a model that runs on your own machine.",
        )
    return tag


def _named(tags: Sequence[Tag], model: str) -> Tag | None:
    name = profiles.canonical(model)
    return next((tag for tag in tags if profiles.canonical(tag.name) == name), None)


async def _pull(server: Server, model: str, on_step: OnPull) -> None:
    files: dict[str, tuple[int, int]] = {}
    async for step in server.pull(model):
        if step.digest:
            files[step.digest] = (step.completed, step.total)
        done, total = (sum(column) for column in zip(*files.values(), strict=True)) if files else (0, 0)
        on_step(PullStep(model=model, status=step.status, completed=done, total=total))


# --- a new collection's model


async def _describe(settings: config.Settings, servers: Sequence[Server], tag: Tag) -> Choice:
    """Embedder, and a line where something is not known of its model."""
    model = profiles.short(tag.name)
    profile = profiles.find(model, settings.profiles)
    show = await servers[0].show(tag.name, verbose=True)
    tokenizer, text = _tokenizer(show)
    known = profile or profiles.Profile()
    native = show.number("embedding_length") or known.dims
    if not native:
        raise errors.ModelError(
            f"{servers[0].name} does not tell how many dimensions {model} has.", f"Set profiles.{model}.dims."
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
    embedder = _embedder(settings, servers, spec, counting(spec.tokenizer))
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
    settings: config.Settings, servers: Sequence[Server], spec: EmbedderSpec, counting: Counting
) -> OllamaEmbedder:
    embed = settings.embed
    limits = Limits(batch_texts=embed.batch_texts, batch_tokens=embed.batch_tokens, concurrency=embed.concurrency)
    return OllamaEmbedder(
        servers,
        spec,
        counting=counting,
        keep_alive=settings.ollama.keep_alive,
        limits=replace(limits, concurrency=embed.concurrency * len(servers)),
    )
