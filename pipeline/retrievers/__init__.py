"""Retrievers for LangChain and LlamaIndex over an open collection, each an extra.

Their own LanceDB stores must never be pointed at a collection: they rewrite its full-text index, or overwrite the
table. These only ask.
"""
