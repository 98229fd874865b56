"""Train a character model, on tiny Shakespeare or a text of yours, and let it write."""

import time

import numpy as np
from tqdm import tqdm

import minilstm as ml
from minilstm import cli, plots, training
from minilstm.errors import check_count, check_positive_int
from minilstm.evaluation import evaluate


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data", default="shakespeare", metavar="NAME|FILE",
                        help="a corpus, which is downloaded, or a UTF-8 text")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, validation aside")
    parser.add_argument("--steps", type=int, help="train so many steps, whatever they take")
    parser.add_argument("--hidden-size", type=int, default=160, help="H")
    parser.add_argument("--num-layers", type=int, default=2, help="L")
    parser.add_argument("--batch-size", type=int, default=32, help="B, streams side by side")
    parser.add_argument("--seq-len", type=int, default=64, help="T, steps that gradients flow back")
    parser.add_argument("--lr", type=float, default=8e-3, help="Adam's rate before the cosine")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the samples")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--picture", metavar="FILE", help="draw the loss into this file")
    args = parser.parse_args()
    device = ml.choose_device(args.device)
    check_count("--seed", args.seed)
    if args.picture:
        plots.check_path(args.picture)

    corpus = ml.load_corpus(args.data)  # the last tenth validates
    print(*corpus.notes, sep="\n", end="\n" if corpus.notes else "")
    V, validation_size = len(corpus.vocab), 0 if corpus.valid is None else len(corpus.valid)
    batches = ml.contiguous_streams(corpus.train, args.batch_size, args.seq_len)
    print(f"{len(corpus.train):,} characters to train on, {validation_size:,} to validate on,")
    print(f"{V} distinct: a uniform guess costs ln {V} = {np.log(V):.3f} nats per character")

    config = ml.ModelConfig(V, args.hidden_size, args.num_layers, forget_bias=1.0)
    params = ml.to_device(ml.init_params(config, np.random.default_rng(args.seed)), device)
    model = ml.LanguageModel(config, params, corpus.vocab)
    optimizer, workspace = ml.Adam(args.lr), ml.Workspace()  # arrays to use again and again

    if args.steps is None:  # --minutes: time a step on copies, and fix the number of steps
        trial, trial_optimizer = {k: p.copy() for k, p in params.items()}, ml.Adam(args.lr)
        inputs, targets, _ = ml.to_device(next(iter(batches)), device)

        def trial_step() -> None:
            loss, grads, _ = ml.loss_and_grads(trial, config, inputs, targets, workspace=workspace)
            ml.clip_by_global_norm(grads, max_norm=1.0)
            trial_optimizer.step(trial, grads)
            float(loss)  # waits for the device

        total = training.steps_within(args.minutes, trial_step)
    else:
        total = check_positive_int("--steps", args.steps)
    print(f"{model.parameter_count:,} parameters on {device}; {total:,} steps, "
          f"{total / len(batches):.1f} epochs")  # fmt: skip

    every, streams = max(1, total // 10), min(64, max(1, validation_size // 256))
    step, state, seconds, curve, validation = 0, None, 0.0, [], []
    bar = tqdm(total=total, unit="step", disable=None)  # none where stderr is no terminal
    while step < total:
        for inputs, targets, starts in batches:
            began = time.perf_counter()
            inputs, targets = ml.to_device((inputs, targets), device)  # (T, B) each
            state = None if starts else state  # carried along the streams, reset with the text
            loss, grads, state = ml.loss_and_grads(
                params, config, inputs, targets, state, workspace=workspace
            )
            training.begin_anew(state, step, every=32)  # one stream in turn, from a zero state
            ml.clip_by_global_norm(grads, max_norm=1.0)
            optimizer.lr = ml.warmup_cosine(step, total, args.lr)
            optimizer.step(params, grads)
            step += 1
            bar.update()
            curve.append(float(loss))
            seconds += time.perf_counter() - began
            if corpus.valid is not None and (step % every == 0 or step == total):
                score = evaluate(params, config, corpus.valid, streams)
                validation.append((step, score.loss))
                tqdm.write(
                    f"step {step:6,}  training {np.mean(curve[-every:]):.4f}  validation "
                    f"{score.loss:.4f} nats/char  perplexity {score.perplexity:.3f}"
                )
            if step == total:
                break
    bar.close()

    first = corpus.vocab.decode(corpus.train[:1])
    for temperature in (0.5, 1.0):
        print(f"\n--- a sample at temperature {temperature} ---")
        print(model.generate(first, 300, temperature, seed=args.seed))
    if args.picture:
        ax = plots.loss_curve(range(1, total + 1), curve, V, validation=validation)
        print(f"\npicture of the loss: {plots.save(ax, args.picture)}")
    name, ids = "training", corpus.train
    if corpus.valid is not None:
        name, ids = "validation", corpus.valid
    score = evaluate(params, config, ids)  # one pass from end to end, the state carried
    print(f"\ntrained {step:,} steps in {seconds:.0f} s; one pass over {score.tokens:,} targets:")
    print(f"{name} loss {score.loss:.4f} nats/char, {score.bits_per_token:.4f} bits/char, "
          f"perplexity {score.perplexity:.3f}, accuracy {100 * score.accuracy:.1f} %")  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
