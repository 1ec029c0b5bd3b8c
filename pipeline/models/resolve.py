"""Which embedder and which generator: by the settings, what a collection was built with, and what answers now.

A collection keeps the model it was built with, always. Only a new one chooses, and `auto` chooses once: Ollama where it
answers and has the model, else the embedded model, and says so.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline import config, errors
from pipeline.models import Embedder, EmbedderSpec, Generator, builtin, identity, profiles

log = logging.getLogger(__name__)
DEFAULT_MODEL = "mxbai-embed-large"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullStep:
    """Progress of pulling `model`. Bytes: of all its files that the server has named so far."""

    model: str
    status: str
    completed: int
    total: int


OnPull = Callable[[PullStep], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An embedder to use (and to close).

    Attributes:
        note: one plain line for the user; "" where there is nothing to say.
        tokenizer: tokenizer.json of `embedder.spec.tokenizer`, for a new collection to keep; None where the packaged
            vocabulary counts for this model, and for a collection that was opened before.
    """

    embedder: Embedder
    note: str = ""
    tokenizer: str | None = None


async def open_embedder(
    settings: config.Settings,
    recorded: EmbedderSpec | None = None,
    *,
    pull: OnPull | None = None,
    bulk: bool = True,
    later: bool = False,
) -> Choice:
    """The embedder of a collection.

    Args:
        recorded: what the collection was built with; None: it is new.
        pull: fetch a model that Ollama lacks, and call this with each step.
        bulk: for many texts: all servers must show first that they make the same vectors, and `ollama.local_servers`
            are started when there is much to do. Else, for a question: one server is enough, and the others are asked
            when it fails.
        later: of a collection that was begun before, need no server until there is a text to embed; what this would
            raise comes then, but for a ModelMismatch that shows at once.

    Raises:
        ServerUnreachable: the provider's server does not answer (never for a new collection with `auto`).
        ModelMissing: it lacks the model.
        ModelMismatch: settings or server have another model than the collection was built with.
        ConfigError: the settings ask for what cannot be.
        ServerRefused, TransientFault: it answers, but not with what was asked for.
    """
    if recorded is not None:
        identity.refuse_another(settings, recorded)
        return await _reopen(settings, recorded, pull, bulk=bulk, later=later)
    embed = settings.embed
    if embed.provider == "builtin" or (embed.provider == "auto" and profiles.short(embed.model) == builtin.MODEL):
        return _builtin(settings)
    if embed.provider == "openai":
        from pipeline.models import resolve_openai

        return await resolve_openai.create(settings, os.environ)
    if embed.provider == "ollama" or embed.model:  # a model that was named is not silently another
        from pipeline.models import resolve_ollama

        return await resolve_ollama.create(settings, os.environ, pull, bulk=bulk)
    return await _auto(settings, pull, bulk=bulk)


async def open_generator(settings: config.Settings) -> Generator | None:
    """Who answers questions; None: nobody, so show the passages. `auto` never raises.

    Raises:
        ServerUnreachable, ModelMissing, ServerRefused, ConfigError: of a provider that was asked for by name.
    """
    provider = settings.generate.provider
    if provider == "none":
        return None
    if provider == "openai":
        from pipeline.models import resolve_openai

        return await resolve_openai.generator(settings, os.environ)
    from pipeline.models import resolve_ollama

    try:
        return await resolve_ollama.generator(settings, os.environ)
    except errors.ModelError as error:
        if provider == "ollama":
            raise
        log.info("No generator: %s", error.message)
        return None


async def _reopen(
    settings: config.Settings, spec: EmbedderSpec, pull: OnPull | None, *, bulk: bool, later: bool
) -> Choice:
    profile = profiles.find(spec.model, settings.profiles)
    if profile is not None:  # how a question is put may change; what was embedded may not
        spec = replace(spec, query_template=profile.query)
    if spec.provider == "builtin":
        identity.same_digest(settings, spec, builtin.MODEL_SHA256, "this version of the program")
        return Choice(embedder=builtin.BuiltinEmbedder(spec))
    if spec.provider == "openai":
        from pipeline.models import resolve_openai

        return Choice(embedder=await resolve_openai.reopen(settings, spec, os.environ))
    from pipeline.models import resolve_ollama

    if later:
        return Choice(embedder=await resolve_ollama.reopen_later(settings, spec, os.environ, pull))
    return await resolve_ollama.reopen(settings, spec, os.environ, pull, bulk=bulk)


def _builtin(settings: config.Settings) -> Choice:
    """The embedded model for a new collection."""
    from pipeline.models import tokens

    model, dims = settings.embed.model, settings.embed.dims
    if settings.embed.provider == "builtin" and model and profiles.short(model) != builtin.MODEL:
        raise errors.ConfigError(
            f"The embedded model is {builtin.MODEL}; there is no {model} in the program.",
            f"Leave --model out, or give --provider ollama --model {model}.",
        )
    if dims not in (0, builtin.DIMS):
        raise errors.ConfigError(
            f"embed.dims = {dims}: {builtin.MODEL} has {builtin.DIMS} dimensions and cannot be cut.",
            "Set embed.dims = 0, or take a Matryoshka model such as mxbai-embed-large.",
        )
    return Choice(embedder=builtin.BuiltinEmbedder(builtin.spec(tokens.builtin().identity)))


async def _auto(settings: config.Settings, pull: OnPull | None, *, bulk: bool) -> Choice:
    """Ollama if it answers and has the model, else the embedded model: in either case a line that says so."""
    from pipeline.models import resolve_ollama

    try:
        choice = await resolve_ollama.create(settings, os.environ, pull, bulk=bulk)
    except errors.ModelMismatch:
        raise  # several servers with several models: not for us to choose
    except errors.ModelError as error:
        return replace(_builtin(settings), note=_instead(error))
    note = f"Embedding with {choice.embedder.spec.model} by Ollama. (To use the built-in model: --provider builtin.)"
    return replace(choice, note=f"{note} {choice.note}".strip())


def _instead(error: errors.ModelError) -> str:
    """Why the embedded model, and how to get the other."""
    start = "start Ollama, " if isinstance(error, errors.ServerUnreachable) else ""
    return (
        f"Embedding with the built-in model {builtin.MODEL} (English, {builtin.DIMS} dimensions), because: "
        f"{error.message} For {DEFAULT_MODEL} instead: {start}`ollama pull {DEFAULT_MODEL}`, "
        "then `pipeline --collection NAME --provider ollama run DOCS`."
    )


def language_warning(spec: EmbedderSpec, sample_texts: Sequence[str]) -> str:
    """A line that names better models when the texts are mostly Chinese, Japanese or Korean and the model is English
    only; else "".

    `sample_texts`: a few dozen are enough. A character of those scripts is taken for two thirds of a word.
    """
    if spec.languages != ("en",):
        return ""
    wide = sum(len(_CJK.findall(text)) for text in sample_texts)
    words = sum(len(_WORD.findall(_CJK.sub(" ", text))) for text in sample_texts)
    if wide <= 1.5 * words:
        return ""
    names = " or ".join(profiles.MULTILINGUAL)
    command = f"pipeline --collection NAME --provider ollama --model {profiles.MULTILINGUAL[0]} run DOCS"
    return (
        f"Most of the text is Chinese, Japanese or Korean, and {spec.model} knows English only: searches will miss. "
        f"Better: {names}, such as `{command}`."
    )


# Kana, CJK ideographs and their compatibility forms, Hangul.
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_WORD = re.compile(r"[^\W\d_]+")
