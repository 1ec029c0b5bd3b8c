"""The page at `/`: search, ask, a test of retrieval, a map, sources, reports; for people with a browser.

    routes.py      the addresses, and what each shows; login.py: signing in and out
    layout.py      what all pages share: View, header, footer; `respond`
    words.py       every word of ours, in English and Chinese; words_answers.py: of answers; notes.py: of what they note
    fields.py      what an address asks for: question, mode, filters; form.py: the form for it
    searching.py   the search view
    results.py     hits as cards; the words that were looked for, marked
    asked.py       the ask view: an answer, whole or as it is written
    trial.py       the retrieval test: how hits were found, and what a model would receive
    health.py      the footer: how the collection stands
    refusals.py    errors, for people
    source.py      a passage in its document, the picture of its PDF page (source_*.py); the reports of runs
    session.py     who is let in with a browser
    assets.py      static/: the style sheets and scripts, from this server alone

Made of report_markup.el: a string is always text, so nothing of a document or question becomes markup. No inline
script or style; the Content-Security-Policy (guard.py) allows none.
"""
