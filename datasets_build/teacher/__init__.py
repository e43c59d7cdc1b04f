"""Rows whose questions and answers a large language model writes, each checked against the document.

The way of a row: ``recipes`` (what is asked) -> ``dialogue`` (question, answer, checks) -> ``asking`` (one
prompt: from the store, or within budget and rate limit to the model, again if need be) -> ``endpoint`` and
``courier`` (HTTP) or ``local`` (transformers) -> ``responses`` (every reply is a unit). ``collect`` drives it
over all documents and keeps the model busy; ``report`` says what it cost.
"""
