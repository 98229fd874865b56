"""Train a word model, on WikiText-2 unless told otherwise, and let it write."""

import numpy as np
from tqdm import tqdm

import minilstm as ml
from minilstm import cli, training
from minilstm.errors import check_count, check_positive_int
from minilstm.evaluation import evaluate


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data", default="wikitext2", metavar="NAME|FILE",
                        help="a corpus, which is downloaded, or a UTF-8 text")  # fmt: skip
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    parser.add_argument("--hidden-size", type=int, default=200, help="H")
    parser.add_argument("--batch-size", type=int, default=32, help="B, streams side by side")
    parser.add_argument("--seq-len", type=int, default=35, help="T, steps that gradients flow back")
    parser.add_argument("--lr", type=float, default=1e-2, help="Adam's rate before the cosine")
    parser.add_argument("--seed", type=int, default=0, help="of weights and samples")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    args = parser.parse_args()
    steps = check_positive_int("--steps", args.steps)
    check_count("--seed", args.seed)
    device = ml.choose_device(args.device)

    corpus = ml.load_corpus(args.data, level="word")
    V, N = len(corpus.vocab), len(corpus.train)
    print(*corpus.notes, sep="\n", end="\n" if corpus.notes else "")
    print(f"{N:,} words to train on, {V:,} distinct, from frequent to rare: "
          f"{' '.join(corpus.vocab.symbols[:12])} …")  # fmt: skip
    unigram = np.exp(corpus.unigram_entropy())
    print(f"perplexity of a uniform guess: {V:,}; of knowing how frequent each is: {unigram:,.0f}")

    # What differs from a character model: with so many words the embedding and the output matrix
    # hold nearly all parameters. Tied, they are one matrix, learned from both ends.
    H = args.hidden_size
    config = ml.ModelConfig(V, H, embedding_size=H, tie_weights=True, forget_bias=1.0)
    params = ml.to_device(ml.init_params(config, np.random.default_rng(args.seed)), device)
    model, optimizer = ml.LanguageModel(config, params, corpus.vocab), ml.Adam(args.lr)
    batches = ml.contiguous_streams(corpus.train, args.batch_size, args.seq_len)
    workspace = ml.Workspace()  # arrays to use again and again
    print(f"{model.parameter_count:,} parameters on {device}; {steps / len(batches):.1f} epochs")

    step, state, losses = 0, None, []
    bar = tqdm(total=steps, unit="step", disable=None)  # none where stderr is no terminal
    while step < steps:
        for inputs, targets, starts in batches:
            inputs, targets = ml.to_device((inputs, targets), device)  # (T, B) each
            state = None if starts else state  # carried along the streams, reset with the text
            loss, grads, state = ml.loss_and_grads(
                params, config, inputs, targets, state, workspace=workspace
            )
            training.begin_anew(state, step, every=32)  # one stream in turn, from a zero state
            ml.clip_by_global_norm(grads, max_norm=1.0)
            optimizer.lr = ml.warmup_cosine(step, steps, args.lr)
            optimizer.step(params, grads)
            losses.append(float(loss))
            step += 1
            bar.update()
            if step % max(1, steps // 10) == 0:
                mean = np.mean(losses[-(steps // 10 or 1) :])
                tqdm.write(f"step {step:6,}  training {mean:.3f}  perplexity {np.exp(mean):,.0f}")
            if step == steps:
                break
    bar.close()

    if corpus.valid is not None:
        score = evaluate(params, config, corpus.valid)  # one pass, dropout off, state carried
        print(f"\nvalidation: {score.tokens:,} words, {score.loss:.4f} nats per word, "
              f"perplexity {score.perplexity:.1f}, {score.accuracy:.1%} guessed")  # fmt: skip
    for temperature in (0.5, 1.0):
        print(f"\n--- a sample at temperature {temperature} ---")
        first = corpus.vocab.decode(corpus.train[:1])
        print(model.generate(first, 60, temperature, seed=args.seed))


if __name__ == "__main__":
    cli.run(main)
