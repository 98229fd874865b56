"""TrainConfig: every decision about a training run in one place, checked before it starts."""

from dataclasses import dataclass, fields
from typing import get_args

from minilstm.errors import InputError, check_count, check_number, check_positive_int
from minilstm.optim import SGD, Adam, AdamW, Optimizer

_CHOICES = {"batching": ("streams", "random", "shuffled"),
            "optimizer": ("adam", "adamw", "sgd"),
            "schedule": ("constant", "cosine", "step", "plateau")}


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
        fresh_every: of streams: steps after which one stream, each in its turn, begins anew from a
            zero state; none: only where the text begins.
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
        threads: of the matrix products on the CPU; none: as many as NumPy takes.
    Raises:
        InputError: a value is out of range, or two do not fit together.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batching: str = "streams"
    batch_size: int = 32
    seq_len: int = 64
    fresh_every: int | None = None
    optimizer: str = "adam"
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    final_lr: float = 0.0
    decay_every: int = 1000
    decay_factor: float = 0.5
    decay_patience: int = 2
    clip: float | None = 1.0
    eval_every: int | None = None
    eval_tokens: int = 200_000
    eval_streams: int = 64
    patience: int | None = None
    checkpoint_every: int | None = None
    sample_every: int | None = None
    sample_length: int = 200
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.steps, self.epochs, self.minutes)) > 1:
            raise InputError("at most one of steps, epochs and minutes says how long to train, got "
                             f"steps {self.steps}, epochs {self.epochs}, minutes {self.minutes}")
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if value is None and type(None) in get_args(field.type):
                continue
            match name:
                case "batching" | "optimizer" | "schedule":
                    if value not in _CHOICES[name]:
                        choices = ", ".join(_CHOICES[name])
                        raise InputError(f"{name} must be one of {choices}, got {value!r}")
                case "epochs" | "minutes":
                    check_number(name, value, "above 0 and at most 1e9", lambda x: 0 < x <= 1e9)
                case "momentum":
                    check_number(name, value, "in [0, 1)", lambda x: 0 <= x < 1)
                case "weight_decay" | "lr" | "final_lr":
                    check_number(name, value, "from 0 up", lambda x: x >= 0)
                case "decay_factor":
                    check_number(name, value, "between 0 and 1", lambda x: 0 < x < 1)
                case "clip":
                    check_number(name, value, "above 0", lambda x: x > 0)
                case "warmup_steps" | "decay_patience" | "seed":
                    check_count(name, value)
                case _:
                    check_positive_int(name, value)
        if self.momentum and self.optimizer != "sgd":
            raise InputError(f"momentum is sgd's: {self.optimizer} has none, got {self.momentum}")

    def make_optimizer(self) -> Optimizer:
        """The optimizer that `optimizer` names."""
        if self.optimizer == "sgd":
            return SGD(self.lr, self.momentum, self.weight_decay)
        kind = Adam if self.optimizer == "adam" else AdamW
        return kind(self.lr, weight_decay=self.weight_decay)
