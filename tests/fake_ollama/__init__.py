"""A fake Ollama: a separate process behind a real socket, for every test and benchmark that needs a model server.

Start it with `tests.fake_ollama.client.FakeOllama`, or by hand with `python -m tests.fake_ollama`. What is here:

    wire      HTTP/1.1 on asyncio + h11: keep-alive, disconnects, bodies cut on purpose
    server    routes, and the life of the process
    engine    which models are loaded, the one-permit queue and its cost clock
    embed     /api/embed, /api/embeddings, /v1/embeddings
    chat      /api/chat, /api/generate, /v1/chat/completions
    manage    version, tags, show, ps, pull, /v1/models
    control   /__fake__/…: faults, what was received, counters, reset
    faults    failures on demand        versions  what changed between Ollama's versions
    vectors   vectors one can compute   tokens    WordPiece counting       catalog  the models it knows

The shapes were read from Ollama's source at v0.3.12, v0.9.0, v0.13.3 and v0.32.15; `#N` in a docstring is an issue of
ollama/ollama. No model runs here: a vector depends on the text alone, an answer is a sentence copied out of the prompt,
and time passes only where a test asks for it.
"""
