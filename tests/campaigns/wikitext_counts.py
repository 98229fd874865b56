"""Do our tokenizers count what the literature counts? WikiText-2, beside docs/results.md's figures.

Loads WikiText-2 (from the folder that MINILSTM_DATA names, or downloaded) at each level, compares
the number of types and of tokens of each part with the published ones, and prints seconds and peak
memory of each load, each in a process of its own. Exits 1 if a number differs.

    python tests/campaigns/wikitext_counts.py
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time

from minilstm.text.corpora import load_corpus

# level, tokenizer -> V, tokens of train, valid and test
PUBLISHED = {
    ("word", "split"): (33_278, 2_088_628, 217_646, 245_569),
    ("word", "basic_english"): (28_782, 2_049_990, 214_417, 241_859),
    ("char", "basic_english"): (283, 10_780_437, 1_120_192, 1_255_018),
}
Load = tuple[tuple[int, ...], str, float, float, tuple[str, ...]]


def load(level: str, tokenizer: str) -> Load:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    corpus = load_corpus("wikitext2", level, tokenizer=tokenizer)
    seconds = time.perf_counter() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB on Linux
    assert corpus.valid is not None
    assert corpus.test is not None
    sizes = (len(corpus.vocab), len(corpus.train), len(corpus.valid), len(corpus.test))
    return sizes, str(corpus.train.dtype), seconds, grown / 1024, corpus.notes


def main() -> None:
    wrong = 0
    for (level, tokenizer), published in PUBLISHED.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            sizes, dtype, seconds, grown, notes = pool.apply(load, (level, tokenizer))
        verdict = "as published" if sizes == published else f"NOT THE PUBLISHED {published}"
        wrong += sizes != published
        V, *tokens = sizes
        counts = " / ".join(f"{n:,}" for n in tokens)
        print(f"{level:4}  {tokenizer:13}  V {V:6,}  tokens {counts}  {dtype:6}  "
              f"{seconds:4.1f} s  +{grown:3.0f} MiB at peak  {verdict}")  # fmt: skip
        for note in notes:
            print("    " + note)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
