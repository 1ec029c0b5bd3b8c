"""The collections over HTTP: Dify's External Knowledge API and an OpenAI-compatible interface.

    server.py      the socket and its life: who may listen where
    guard.py       what every request passes first: Host header, key, size; and the access log
    app.py         the routes together, errors in each client's own words
    shelf.py       collections kept open and warm, opened again when a new generation is published
    dify.py        POST /retrieval          conditions.py   its metadata filter
    openai.py      /v1/models, /v1/chat/completions, /v1/embeddings
    web/           the page at / for a browser
    citing.py      how a passage is named: source line, title, link
    keys.py        API keys and their hashes
    instructions.py  what to type into Dify

Only this package knows FastAPI and uvicorn. A new interface is a module with a `router(shelf)` and a line in app.py.
Importing the package imports none of them: the command line's help comes through here.
"""
