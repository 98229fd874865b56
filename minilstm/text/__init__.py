"""Text to integers and back; read tokens.py, vocabulary.py, batching.py, corpora.py.

corpora.py stands on files.py, which reads files, and downloads.py, which fetches them.
"""
