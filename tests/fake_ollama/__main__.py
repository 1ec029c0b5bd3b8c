"""`python -m tests.fake_ollama`: one fake Ollama, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

import msgspec

from tests.fake_ollama import catalog, faults, server, tokens
from tests.fake_ollama.app import App
from tests.fake_ollama.engine import Engine
from tests.fake_ollama.record import Record
from tests.fake_ollama.versions import Version


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fake_ollama", description="A fake Ollama for tests and benchmarks."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port; it is printed")
    parser.add_argument("--version", default="0.32.15", help="which Ollama to behave like: x.y.z")
    parser.add_argument(
        "--model", action="append", metavar="NAME[=DIGEST]", help=f"present (default: {', '.join(catalog.DEFAULT)})"
    )
    parser.add_argument("--no-models", action="store_true", help="no model is present")
    parser.add_argument(
        "--cost-us-per-token", type=float, default=0.0, help="how long embedding takes; specials cost too"
    )
    parser.add_argument("--load-s", type=float, default=0.0, help="how long loading a model takes")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[:RATE[:COUNT]][,NAME=VALUE…]",
        help=", ".join(sorted(faults.SCOPES)),
    )
    parser.add_argument("--seed", type=int, default=0, help="of the faults' rates")
    parser.add_argument("--vectors", choices=("words", "hash", "minilm"), default="words")
    parser.add_argument(
        "--minilm", type=Path, default=tokens.DEFAULT_TOKENIZER.parent, help="folder with model.onnx and tokenizer.json"
    )
    parser.add_argument("--tokenizer", type=Path, default=tokens.DEFAULT_TOKENIZER)
    parser.add_argument("--vram-share", type=float, default=1.0, help="size_vram / size in /api/ps")
    parser.add_argument("--any-origin", action="store_true", help="let every web page in, as OLLAMA_ORIGINS=* does")
    parser.add_argument("--state", type=Path, help="file that remembers which models are present, over a restart")
    parser.add_argument("--log", type=Path, help="file that gets each received text as a JSON line")
    parser.add_argument("--no-record", action="store_true", help="keep counters only, not the texts")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when stdin closes")
    return parser.parse_args()


def build(given: argparse.Namespace) -> App:
    """The server's state as the arguments describe it; models come from the state file if there is one."""
    specs = [] if given.no_models else given.model or list(catalog.DEFAULT)
    initial = [catalog.model_for(spec) for spec in specs]
    present = initial
    if given.state is not None and given.state.exists():
        present = [catalog.model_for(spec) for spec in msgspec.json.decode(given.state.read_bytes())["models"]]
    found = faults.Faults(given.seed)
    found.add(*(faults.parse(spec) for spec in given.fault))
    version = Version(given.version)
    _ = version.triple  # a bad version ends here and not in a request
    return App(
        version=version,
        engine=Engine(version=version, models=present, faults=found, load_s=given.load_s),
        faults=found,
        record=Record(keep=not given.no_record, log=given.log),
        vectors=given.vectors,
        minilm=given.minilm,
        tokenizer=given.tokenizer,
        cost_us_per_token=given.cost_us_per_token,
        vram_share=given.vram_share,
        any_origin=given.any_origin,
        any_host=given.host not in ("127.0.0.1", "::1", "localhost"),
        state=given.state,
        initial=initial,
    )


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core is what a fake may take
    given = arguments()
    try:
        app = build(given)
    except ValueError as error:
        raise SystemExit(f"fake_ollama: {error}") from None
    asyncio.run(server.serve(app, host=given.host, port=given.port, watch_stdin=given.exit_with_stdin))


if __name__ == "__main__":
    main()
