"""TrainConfig: every decision about a training run in one place, checked before it starts."""

from dataclasses import dataclass
from typing import Annotated

from minilstm.errors import InputError
from minilstm.fields import Count, NotNegative, PositiveInt, Share, check_fields, number, one_of
from minilstm.optim import SGD, Adam, AdamW, Optimizer

Length = Annotated[float, number("above 0 and at most 1e9", lambda x: 0 < x <= 1e9)]


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: how long; at most one of steps, epochs and minutes; one epoch if there is none.
        epochs: the same, in passes over the text.
        minutes: the same, by the clock: a few steps are timed, and their number is fixed.
        batching: "streams", contiguous with the state carried; "random" windows; or "shuffled"
            windows, each once per epoch.
        batch_size: B, sequences side by side.
        seq_len: T, steps through which gradients flow back.
        fresh_every: of streams: steps between two fresh starts, from a zero state, of the same
            stream; each has its turn, so at least batch_size; none: only where the text begins.
        optimizer: "adam", "adamw" or "sgd".
        momentum: of sgd.
        weight_decay: an L2 penalty with adam and sgd, decoupled with adamw.
        lr: learning rate at its highest.
        schedule: of the rate: "constant", "cosine", "step" or "plateau".
        warmup_steps: of cosine: how many steps it rises first.
        final_lr: of cosine: where it ends.
        decay_every: of step: how many steps it keeps a rate.
        decay_factor: of step and plateau: what a fall multiplies the rate by.
        decay_patience: of plateau: evaluations without improvement that are put up with.
        clip: largest global norm of the gradients; none: no clipping.
        eval_every: steps between evaluations; none: about twenty in the whole run.
        eval_tokens: validation targets that each of these scores; the final one scores all.
        eval_streams: pieces of the validation text that are read side by side, each of 256 tokens
            or more.
        patience: evaluations without improvement before the run stops; none: it never does.
        checkpoint_every: steps between "last" checkpoints; none: at each evaluation.
        sample_every: steps between printed samples; none: no samples.
        sample_length: tokens of each.
        seed: of everything random.
        threads: of the matrix products on the CPU, and processes that a batch may be shared out
            to; none: as many as NumPy takes.
    Raises:
        InputError: a value is out of range, or two do not fit together.
    """

    steps: PositiveInt | None = None
    epochs: Length | None = None
    minutes: Length | None = None
    batching: Annotated[str, one_of("streams", "random", "shuffled")] = "streams"
    batch_size: PositiveInt = 32
    seq_len: PositiveInt = 64
    fresh_every: PositiveInt | None = None
    optimizer: Annotated[str, one_of("adam", "adamw", "sgd")] = "adam"
    momentum: Share = 0.0
    weight_decay: NotNegative = 0.0
    lr: NotNegative = 1e-3
    schedule: Annotated[str, one_of("constant", "cosine", "step", "plateau")] = "constant"
    warmup_steps: Count = 0
    final_lr: NotNegative = 0.0
    decay_every: PositiveInt = 1000
    decay_factor: Annotated[float, number("between 0 and 1", lambda x: 0 < x < 1)] = 0.5
    decay_patience: Count = 2
    clip: Annotated[float, number("above 0", lambda x: x > 0)] | None = 1.0
    eval_every: PositiveInt | None = None
    eval_tokens: PositiveInt = 200_000
    eval_streams: PositiveInt = 64
    patience: PositiveInt | None = None
    checkpoint_every: PositiveInt | None = None
    sample_every: PositiveInt | None = None
    sample_length: PositiveInt = 200
    seed: Count = 0
    threads: PositiveInt | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.steps, self.epochs, self.minutes)) > 1:
            raise InputError("at most one of steps, epochs and minutes says how long to train, got "
                             f"steps {self.steps}, epochs {self.epochs}, minutes {self.minutes}")
        check_fields(self)
        if self.momentum and self.optimizer != "sgd":
            raise InputError(f"momentum is sgd's: {self.optimizer} has none, got {self.momentum}")
        if self.fresh_every and self.batching != "streams":
            got = f"got fresh_every {self.fresh_every} and {self.batching}"
            raise InputError(f"only streams begin anew, windows always do, {got}")

    def make_optimizer(self) -> Optimizer:
        """The optimizer that `optimizer` names."""
        if self.optimizer == "sgd":
            return SGD(self.lr, self.momentum, self.weight_decay)
        kind = Adam if self.optimizer == "adam" else AdamW
        return kind(self.lr, weight_decay=self.weight_decay)
