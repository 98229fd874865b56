"""Teach an LSTM to spell "hello": the smallest text in which the next letter needs memory."""

import numpy as np

import minilstm as ml
from minilstm import cli, plots
from minilstm.errors import check_count, check_positive_int


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--picture", default="hello.png", help="where to draw loss and gates")
    args = parser.parse_args()
    check_positive_int("--steps", args.steps)
    check_count("--seed", args.seed)
    plots.check_path(args.picture)
    device = ml.choose_device(args.device)

    text = "hello"
    vocab = ml.CharVocabulary.from_text(text)
    ids = vocab.encode(text)
    V = len(vocab)
    print(f"text {text!r}, vocabulary {dict(enumerate(vocab.symbols))}")
    print(f"as ids {ids.tolist()}: read {ids[:-1].tolist()}, predict {ids[1:].tolist()}")

    rng = np.random.default_rng(args.seed)
    config = ml.ModelConfig(vocab_size=V, hidden_size=16)  # one-hot input, one layer
    params = ml.to_device(ml.init_params(config, rng), device)
    optimizer = ml.Adam(lr=0.01)

    state, losses = None, []
    for step in range(args.steps):
        for inputs, targets, starts in ml.contiguous_streams(ids, batch_size=1, seq_len=4):
            inputs, targets = ml.to_device((inputs, targets), device)  # (T, B) = (4, 1)
            state = None if starts else state  # the text starts again: forget everything
            logits, state, cache = ml.forward_with_cache(params, config, inputs, state)
            loss, dlogits = ml.softmax_cross_entropy(logits, targets)
            grads, _ = ml.backward(dlogits, cache)
            norm = ml.clip_by_global_norm(grads, max_norm=1.0)
            optimizer.step(params, grads)
        losses.append(float(loss))
        if step == 0:
            print(f"\nuniform guess: ln {V} = {np.log(V):.3f} nats per letter")
        if step % (args.steps // 10 or 1) == 0:
            print(f"step {step:4}  loss {losses[-1]:.4f} nats  gradient norm {float(norm):.4f}")

    print("\nwhat it expects after each prefix (l→l and l→o: the same letter is read, so only")
    print("the state, its memory of what came before, can tell the two apart)")
    logits, _ = ml.forward(params, config, ml.to_device(ids[:-1, None], device))
    for t, row in enumerate(ml.to_host(logits)[:, 0]):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        chances = "  ".join(f"{s} {100 * p[i]:5.1f} %" for i, s in enumerate(vocab.symbols))
        print(f"  {text[: t + 1]:4} → {chances}   right: {text[t + 1]}")

    model = ml.LanguageModel(config, params, vocab)
    print("\nsamples, five each, from 'h': low temperatures repeat what is likely, high ones dare")
    for temperature in (0.5, 1.0, 3.0):
        samples = [model.generate("h", 4, temperature, seed=k) for k in range(5)]
        print(f"  temperature {temperature}: {' '.join(samples)}")

    whole = ml.to_device(ids[:, None], device)
    axes = plots.new_axes("LLLLL;ifogc", width=11, height=7)
    plots.loss_curve(range(args.steps), losses, V, ax=axes[0])
    plots.gates(text, ml.forward_with_cache(params, config, whole)[2], axes=axes[1:])
    print(f"\npicture of the loss and of the gates: {plots.save(axes[0], args.picture)}")
    print(f"final loss {model.evaluate(text).loss:.4f} nats")
    print(f"greedy: {model.generate('h', 4, greedy=True)}")


if __name__ == "__main__":
    cli.run(main)
