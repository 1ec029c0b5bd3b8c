"""Settings to be compared: which of them the collection answers as it is, and another index for those it does not.

Settings of search are only asked. Where the chunks or the model would be others, the same documents are cut, embedded
and indexed once more in a scratch folder beside the collection, which never changes. Nothing is embedded twice: vectors
that the collection has are taken over by their keys, and all such indexes share one log for each model.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from pipeline import config, config_load, errors, ids, live, opening, run, schema
from pipeline.models import identity
from pipeline.progress import Progress
from pipeline.query import Standing
from pipeline.store import Collection
from pipeline.store.scratch import scratch

ASKED = ("search",)  # sections that an index does not depend on
BUILT = ("chunk", "embed")  # sections that it does
MOST = 64  # combinations

Choice = Mapping[str, str]  # dotted key → value as typed


def choices(sweeps: Sequence[str]) -> list[Choice]:
    """Every combination of the values of `KEY=A,B,C`, the last key changing fastest.

    KEY may be the last part of a setting's name where only one setting has it: "mode" is search.mode.

    Raises:
        UsageError: an unknown key, one that cannot be compared, no value, too many combinations.
    """
    keys: dict[str, list[str]] = {}
    for sweep in sweeps:
        name, equals, values = sweep.partition("=")
        key = _key(name.strip())
        listed = [value.strip() for value in values.split(",")]  # an empty one among others: "rerank=,FOLDER"
        if not equals or not any(listed):
            raise errors.UsageError(f"--sweep {sweep}: no values.", "Write KEY=A,B: --sweep chunk.size=128,256.")
        if key in keys:
            raise errors.UsageError(f"--sweep: {key} is given twice.", "Write its values in one list.")
        keys[key] = list(dict.fromkeys(listed))
    found: list[Choice] = [dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())]
    if len(found) > MOST:
        raise errors.UsageError(f"{len(found)} combinations are more than {MOST}.", "Sweep fewer values at a time.")
    return found


def _key(name: str) -> str:
    every = list(config_load.keys())
    known = [key for key in every if key.partition(".")[0] in (*ASKED, *BUILT)]
    ends = [key for key in known if key.rpartition(".")[2] == name]
    if name in known:
        return name
    if len(ends) == 1:
        return ends[0]
    if name in every:
        raise errors.UsageError(
            f"--sweep: {name} cannot be compared on the documents as they were read.",
            f"Settings of {', '.join((*ASKED, *BUILT))} can.",
        )
    near = ends or [config_load.nearest(name, known)]
    hint = f"Did you mean {' or '.join(near)}?" if near[0] else "`pipeline config show` lists every key."
    raise errors.UsageError(f"--sweep: there is no setting {name}.", hint)


@contextlib.contextmanager
def workshop(settings: config.Settings, standing: Standing, progress: Progress) -> Iterator[Workshop]:
    """Where indexes with other settings are built, for the length of the block; a folder is made when one is needed."""
    with contextlib.ExitStack() as stack:
        yield Workshop(settings, standing, progress, stack)


@dataclass(slots=True)
class Workshop:
    settings: config.Settings  # of the collection
    standing: Standing
    progress: Progress
    stack: contextlib.ExitStack
    _folder: Path | None = None
    _built: dict[str, config.Settings] = field(default_factory=dict)

    def fit(self, settings: config.Settings, choice: Choice) -> config.Settings:
        """`settings` (those of `choice` among them) pointed at an index that was made with them.

        Only one such index exists at a time: ask it before the next call.

        Raises:
            PipelineError: it cannot be built; see run.execute.
        """
        if not any(key.partition(".")[0] in BUILT for key in choice) or self._stands(settings):
            return settings
        where = replace(
            settings,
            data=str(self._root()),
            collection=f"model-{self._model(settings)}",
            run=config.RunSettings(keep=1),
            quality=config.QualitySettings(),
            report=config.ReportSettings(),
            notify=config.NotifySettings(),
        )
        self._build(where)
        return where

    def _stands(self, settings: config.Settings) -> bool:
        """Whether the collection was made just so."""
        spec, note = self.standing.spec, self.standing.note
        same = self._is_same_model(settings) and settings.chunk.contextual == bool(spec.situated_by)
        return same and live.chunk_params(settings, spec).fingerprint() == note.chunks_fp

    def _is_same_model(self, settings: config.Settings) -> bool:
        spec = self.standing.spec
        try:
            identity.refuse_another(opening.settings_for(settings, spec), spec)
        except errors.ModelMismatch:
            return False
        return settings.embed.storage in ("float32", spec.storage)

    def _root(self) -> Path:
        if self._folder is None:
            self._folder = self.stack.enter_context(scratch(Path(self.settings.data)))
        return self._folder

    def _model(self, settings: config.Settings) -> str:
        if self._is_same_model(settings):
            return "own"
        embed = settings.embed
        return ids.embed_key(repr((embed.provider, embed.model, embed.dims, embed.storage)))[:12]

    def _build(self, where: config.Settings) -> None:
        collection = opening.collection_of(where)
        if not collection.exists:
            self._begin(collection, own=where.collection == "model-own")
        for stages in ({"chunk"}, {"embed", "index"}):
            run.execute(where, run.Request(stages=frozenset(stages)), self.progress)
            if stages == {"chunk"}:
                self._take_over(where, collection)

    def _begin(self, collection: Collection, *, own: bool) -> None:
        """The documents that are searched now, in a collection of their own."""
        source, spec = self.standing.collection, self.standing.spec
        snapshot = source.snapshot(self.standing.note.snapshot) or source.snapshot()
        assert snapshot is not None  # something is published
        with collection.writing():
            for shard in live.of_snapshot(snapshot):
                collection.write_documents(shard, source.read_documents(shard))
            collection.write_again(snapshot)
            if own:
                if (tokenizer := source.tokenizer_file(spec.tokenizer)) is not None:
                    collection.keep_tokenizer(spec.tokenizer, tokenizer.read_text(encoding="utf-8"))
                collection.set_embedder(spec)

    def _take_over(self, where: config.Settings, collection: Collection) -> None:
        """Copy the vectors that the collection has of these chunks."""
        spec, own = collection.embedder(), self.standing.spec
        if spec is None or live.vectors_fp(spec) != live.vectors_fp(own):
            return
        there, here = live.vector_log(self.standing.collection, own), live.vector_log(collection, spec)
        fingerprint = live.chunk_params(where, spec).fingerprint()
        with collection.writing():
            for shard in live.of_snapshot(collection.snapshot()):
                if not collection.has_chunks(fingerprint, shard):
                    continue  # what a model has to situate first is cut when its sentences are there
                table = collection.read_chunks(fingerprint, shard, ["embed_key"])
                keys = sorted(set(schema.strings(table["embed_key"])))
                due = [
                    k for k, a, b in zip(keys, there.contains(keys), here.contains(keys), strict=True) if a and not b
                ]
                if due:
                    here.append(due, there.take(due))
