"""Text to integers and back; read tokens.py, vocabulary.py, batching.py, corpora.py.

corpora.py stands on downloads.py, which fetches files.
"""
