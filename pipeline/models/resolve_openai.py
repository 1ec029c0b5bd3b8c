"""Opens models of OpenAI-compatible servers: which model, how long its vectors are, what a text may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline import config, errors
from pipeline.models import EmbedderSpec, Limits, Tokenizer, openai, profiles, tokens
from pipeline.models.openai import ModelEntry, OpenAIEmbedder, OpenAIGenerator, Server
from pipeline.models.resolve import Choice

DEFAULT_MAX_TOKENS = 512  # of BERT and its kin: what nearly every embedding model takes


async def create(settings: config.Settings, environment: Mapping[str, str]) -> Choice:
    """The embedder for a new collection. Errors as `resolve.open_embedder`."""
    server = _server(settings, environment)
    try:
        return await _create(settings, server)
    except BaseException:
        await server.aclose()
        raise


async def _create(settings: config.Settings, server: Server) -> Choice:
    entry, profile = await _describe(settings, server, settings.embed.model or settings.openai.model)
    native, normalise = await openai.probe(server, entry.id)
    known = profile or profiles.Profile()
    dims = profiles.cut_to(entry.id, known, native, settings.embed.dims)
    spec = EmbedderSpec(
        provider="openai",
        model=entry.id,
        digest="",
        dims=dims,
        native_dims=native if dims != native else 0,
        limit=(known.max_tokens or entry.context_length or DEFAULT_MAX_TOKENS) - known.specials,
        tokenizer=_tokenizer(known).identity,
        query_template=known.query,
        document_template=known.document,
        languages=known.languages,
    )
    embedder = OpenAIEmbedder(server, spec, normalise=normalise, limits=_limits(settings))
    return Choice(embedder=embedder, note=_note(entry, profile, normalise))


async def reopen(settings: config.Settings, spec: EmbedderSpec, environment: Mapping[str, str]) -> OpenAIEmbedder:
    """The embedder of an existing collection. The server tells no digest: the name and the dimensions must be the
    same."""
    server = _server(settings, environment)
    try:
        await _describe(settings, server, spec.model)
        native, normalise = await openai.probe(server, spec.model)
        if native != (spec.native_dims or spec.dims):
            raise errors.ModelMismatch(
                f"{spec.model} of {server.name} makes vectors of {native} dimensions; the collection has "
                f"{spec.native_dims or spec.dims}: it is another model.",
                "Load the model that the collection was built with, or build another with --collection NAME.",
            )
        return OpenAIEmbedder(server, spec, normalise=normalise, limits=_limits(settings))
    except BaseException:
        await server.aclose()
        raise


async def generator(settings: config.Settings, environment: Mapping[str, str]) -> OpenAIGenerator:
    """Answers by the server's model: openai.generate_model, else the only one that it lists."""
    server = _server(settings, environment)
    try:
        entry = _choose(await server.models(), settings.openai.generate_model, server, "openai.generate_model")
    except BaseException:
        await server.aclose()
        raise
    wanted = settings.generate
    num_ctx = min(wanted.num_ctx, entry.max_model_len or wanted.num_ctx)
    return OpenAIGenerator(server, entry.id, num_ctx=num_ctx, temperature=wanted.temperature)


def _server(settings: config.Settings, environment: Mapping[str, str]) -> Server:
    wanted = settings.openai
    if not wanted.url:
        raise errors.ConfigError(
            "The provider is openai, but no server is named.", "Set openai.url, such as http://127.0.0.1:8080/v1."
        )
    key = environment.get(wanted.api_key_env, "") if wanted.api_key_env else ""
    return Server(wanted.url, key=key, key_name=wanted.api_key_env)


async def _describe(
    settings: config.Settings, server: Server, model: str
) -> tuple[ModelEntry, profiles.Profile | None]:
    entry = _choose(await server.models(), model, server, "openai.model")
    return entry, profiles.find(entry.id, settings.profiles)


def _choose(listed: Sequence[ModelEntry], model: str, server: Server, setting: str) -> ModelEntry:
    """The model of that name, or the only one. A server that lists nothing (TEI) is believed to have what is named.

    Raises:
        ModelMissing: the server lists models, and not this one.
        ConfigError: no model is named, and there is not exactly one.
    """
    names = ", ".join(entry.id for entry in listed) or "none"
    if not model:
        if len(listed) == 1:
            return listed[0]
        raise errors.ConfigError(f"Which model of {server.name}? It lists {names}.", f"Set {setting}.")
    if not listed:
        return ModelEntry(id=model)
    found = next((entry for entry in listed if entry.id == model), None)
    if found is None:
        raise errors.ModelMissing(
            f"{server.name} does not list {model}; it lists {names}.",
            f"Load it there, or set {setting} to one of these.",
        )
    return found


def _tokenizer(profile: profiles.Profile) -> Tokenizer:
    """These servers show no vocabulary: the packaged one counts where the profile says so, else a bound."""
    return tokens.builtin() if profile.vocabulary == "bert-base-uncased" else tokens.conservative()


def _limits(settings: config.Settings) -> Limits:
    embed = settings.embed
    return Limits(
        batch_texts=min(embed.batch_texts, 32), batch_tokens=embed.batch_tokens, concurrency=embed.concurrency
    )


def _note(entry: ModelEntry, profile: profiles.Profile | None, normalise: bool) -> str:
    lines = []
    if profile is None:
        lines.append(
            f"No query and document templates are known for {entry.id}: set [profiles.'{entry.id}'] if it needs them."
        )
    if normalise:
        lines.append(f"The server's vectors of {entry.id} are not of unit length; they are normalised here.")
    return " ".join(lines)
