"""Clipping, SGD, Adam, AdamW and learning-rate schedules, written out.

Optimizers update the arrays of `params` in place, so nothing that refers to them needs to be told.
Nothing here waits for a GPU: norms and moments stay where the gradients are.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from minilstm.backend import Array, get_array_module, is_on_host
from minilstm.errors import InputError, check_number, require
from minilstm.threads import in_threads
from minilstm.workspace import empty

Params = dict[str, Array]

BLOCK = 1 << 17  # numbers


def clip_by_global_norm(grads: Params, max_norm: float) -> Array:
    """Scale all gradients together, in place, so that their joint norm is at most max_norm.

        norm = √(Σ over all entries of all tensors g²)                                        (N1)
        g ← g · min(1, max_norm / (norm + 1e-6))                                              (N2)

    One factor for all tensors keeps the direction of the step; clipping each tensor by its own
    norm would not.

    Args:
        grads: name -> array; scaled in place.
        max_norm: above 0.
    Returns:
        The norm *before* clipping, a 0-d float64 array on the device.
    Raises:
        InputError: max_norm is not above 0.
    Source:
        Pascanu, Mikolov & Bengio 2013; the 1e-6 is PyTorch's (`clip_grad_norm_`).

    >>> import numpy as np
    >>> grads = {"a": np.array([3.0]), "b": np.array([4.0])}
    >>> print(clip_by_global_norm(grads, 1.0), grads["a"].round(3), grads["b"].round(3))
    5.0 [0.6] [0.8]
    """
    if isinstance(max_norm, str) or not max_norm > 0:  # infinity measures and scales nothing
        raise InputError(f"max_norm must be a positive number, got {max_norm!r}")
    return clip_and_tensor_norms(grads, max_norm)[0]


def clip_and_tensor_norms(grads: Params, max_norm: float | None) -> tuple[Array, Array]:
    """`clip_by_global_norm`, and each tensor's own norm before clipping, in grads' order.

    Args:
        grads: name -> array; scaled in place.
        max_norm: as there; None measures and scales nothing.
    Returns:
        The joint norm () and the tensors' norms (len(grads),), float64, on the device. A NaN or
        infinity among them says which tensors went wrong.
    """
    require(grads, "grads must hold at least one array", "{}")
    xp = get_array_module(next(iter(grads.values())))
    squares = xp.stack([xp.vdot(g, g) for g in grads.values()]).astype(xp.float64)
    norm = xp.sqrt(squares.sum())  # (N1)
    if max_norm is not None:
        scale = xp.minimum(1.0, max_norm / (norm + 1e-6))  # (N2)
        unclipped = is_on_host(scale) and scale == 1  # a GPU is not waited for to learn that
        for g in () if unclipped else grads.values():
            g *= scale.astype(g.dtype)  # else float32 is scaled in double precision
    return norm, xp.sqrt(squares)


class Optimizer:
    """What all optimizers share.

    Attributes:
        lr: learning rate ≥ 0, which may be set anew before each step.
        weight_decay: its factor ≥ 0; each optimizer says what it does.
        steps: the number of steps taken.
        moments: one dict of arrays per moment, shaped as params; empty before the first step.
    Raises:
        InputError: lr or weight_decay is negative or not finite.
    """

    _update: Callable[..., None]  # of one p by its g and moments, which each optimizer writes out

    def __init__(self, lr: float, weight_decay: float, *moments: str) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            check_number(name, value, "from 0 up", lambda x: x >= 0)
        self.lr, self.weight_decay, self.steps = float(lr), float(weight_decay), 0
        self.moments: dict[str, Params] = {name: {} for name in moments}

    def step(self, params: Params, grads: Params) -> None:
        """Update every array of params in place.

        Args:
            params: name -> array.
            grads: their gradients, with the same keys and shapes; left as they are.
        Raises:
            InputError: keys or shapes differ.
        """
        if odd := sorted(params.keys() ^ grads.keys()):
            raise InputError(f"grads must have the keys of params; only one of them has {odd}")
        for name, p in params.items():
            if grads[name].shape != p.shape:
                wanted = f"the gradient of {name} must have its shape {tuple(p.shape)}"
                raise InputError(f"{wanted}, got {tuple(grads[name].shape)}")
        self.lr = float(self.lr)  # a float64 scalar would make float32 steps in double precision
        self.steps += 1
        for name, p in params.items():
            for moment in self.moments.values():
                if name not in moment:
                    moment[name] = empty(get_array_module(p), p.shape, p.dtype)
                    moment[name][...] = 0
        pieces = [(name, block) for name, p in params.items() for block in _blocks(p)]
        work = partial(self._update_piece, params, grads)
        many = sum(p.size for p in params.values()) > 8 * BLOCK and is_on_host(p)
        list(in_threads(work, pieces) if many else map(work, pieces))

    def _update_piece(self, params: Params, grads: Params, piece: tuple[str, Any]) -> None:
        name, block = piece
        moments = (moment[name] for moment in self.moments.values())
        self._update(*(array[block] for array in (params[name], grads[name], *moments)))

    def state_dict(self) -> dict[str, Any]:
        """The state to save.

        Returns:
            {"steps": int, moment name: {parameter name: array}}: the arrays themselves.
        """
        return {"steps": self.steps, **self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`, with copies of its arrays.

        Args:
            state: as `state_dict` returned it.
        Raises:
            InputError: it has not this optimizer's moments.
        """
        wanted, got = sorted(self.state_dict()), sorted(state)
        require(wanted == got, f"{type(self).__name__} needs a state with {wanted}", got)
        self.steps = int(state["steps"])
        for moment in self.moments:  # copies: a step changes them in place, not the state
            self.moments[moment] = {name: x.copy() for name, x in state[moment].items()}


def _blocks(p: Array) -> list[Any]:
    """Indices that cut an array into rows that stay in the processor's cache through an update; on
    a GPU the whole of it, each kernel once."""
    if p.size <= BLOCK or not is_on_host(p):
        return [...]
    rows = max(1, BLOCK * len(p) // p.size)
    return [slice(first, first + rows) for first in range(0, len(p), rows)]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch writes it (no dampening).

        g ← g + weight_decay · p,   v ← momentum · v + g,   p ← p - lr · v

    PyTorch keeps lr out of v, so a new lr acts on all of v at once; elsewhere (Sutskever et al.
    2013) v ← momentum · v - lr · g.

    Args:
        lr: learning rate ≥ 0.
        momentum: in [0, 1).
        weight_decay: factor ≥ 0 of the L2 penalty.
    Raises:
        InputError: one of them is out of range.

    >>> import numpy as np
    >>> params, optimizer = {"p": np.array([1.0])}, SGD(lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.step(params, {"p": np.array([1.0])})
    ...     print(params["p"].round(3))
    [0.9]
    [0.75]
    """

    def __init__(self, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay, "velocity")
        self.momentum = check_number("momentum", momentum, "in [0, 1)", lambda x: 0 <= x < 1)

    def _update(self, p: Array, g: Array, v: Array) -> None:
        v *= self.momentum
        v += g
        if self.weight_decay:
            v += self.weight_decay * p
        p -= self.lr * v


class Adam(Optimizer):
    """Adam, with PyTorch's L2 penalty if weight_decay is set.

        g ← g + weight_decay · p
        m ← β₁ m + (1 - β₁) g            the gradient's running mean                          (A1)
        v ← β₂ v + (1 - β₂) g²           and its running mean square                          (A2)
        m̂ = m / (1 - β₁ⁿ),  v̂ = v / (1 - β₂ⁿ) after n steps                                   (A3)
        p ← p - lr · m̂ / (√v̂ + ε)                                                             (A4)

    m and v start at zero, so after n steps they hold only the share 1 - βⁿ of a full mean; m̂ and
    v̂ divide by it.

    Args:
        lr: learning rate ≥ 0: about the length of an entry's step, whatever the size of g.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε > 0.
        weight_decay: factor ≥ 0 of the L2 penalty.
    Raises:
        InputError: one of them is out of range.
    Source:
        Kingma & Ba 2015, algorithm 1: ε stands outside the square root, beside √v̂. (Keras has it
        beside √v, the paper's ε̂.)

    >>> import numpy as np
    >>> params = {"p": np.array([1.0, 1.0])}
    >>> Adam(lr=0.1).step(params, {"p": np.array([100.0, -0.01])})
    >>> print(params["p"].round(3))
    [0.9 1.1]
    """

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay, "m", "v")
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise InputError(f"betas must be two numbers in [0, 1), got {betas!r}")
        for beta in betas:
            check_number("each of betas", beta, "in [0, 1)", lambda x: 0 <= x < 1)
        self.betas, self.eps = betas, check_number("eps", eps, "above 0", lambda x: x > 0)

    def _update(self, p: Array, g: Array, m: Array, v: Array) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p
        self._adam(p, g, m, v)

    def _adam(self, p: Array, g: Array, m: Array, v: Array) -> None:
        xp, (beta1, beta2) = get_array_module(p), self.betas
        # One array for all that is made on the way: first (1 - β₁) g
        part = xp.multiply(g, 1 - beta1, out=xp.empty_like(p))
        m *= beta1
        m += part  # (A1)
        xp.multiply(g, g, out=part)
        part *= 1 - beta2  # (1 - β₂) g²
        v *= beta2
        v += part  # (A2)
        # lr · m̂ / (√v̂ + ε), with the two corrections (A3) taken out of the arrays
        rate, correction = self.lr / (1 - beta1**self.steps), math.sqrt(1 - beta2**self.steps)
        xp.sqrt(v, out=part)
        part += self.eps * correction  # √v̂ + ε, times the correction
        xp.divide(m, part, out=part)
        part *= rate * correction
        p -= part  # (A4)


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← (1 - lr · weight_decay) p before Adam's step.

    The decay is not divided by √v̂ as an L2 penalty's gradient is.

    Args:
        lr, betas, eps: as for `Adam`.
        weight_decay: ≥ 0.
    Raises:
        InputError: one of them is out of range.
    Source:
        Loshchilov & Hutter 2019, algorithm 2; scaled by lr, as PyTorch does.
    """

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    def _update(self, p: Array, g: Array, m: Array, v: Array) -> None:
        p *= 1 - self.lr * self.weight_decay
        self._adam(p, g, m, v)


def warmup_cosine(step: int, total_steps: int, lr: float, warmup_steps: int = 0,
                  final_lr: float = 0.0) -> float:
    """Learning rate of step 0 … total_steps - 1: a linear rise, then half a cosine down.

        step < warmup_steps:  lr · (step + 1) / (warmup_steps + 1)
        else:  final_lr + (lr - final_lr) · ½ (1 + cos(π · (step - warmup) / (total - warmup)))

    Args:
        step: counted from 0.
        total_steps: of the whole run; from there on the rate is final_lr.
        lr: the highest rate.
        warmup_steps: those of the rise.
        final_lr: where the cosine ends.
    Returns:
        The learning rate of this step.
    Source:
        Loshchilov & Hutter 2017, eq. 5, without restarts.

    >>> [warmup_cosine(n, 4, 1.0) for n in (0, 2)]
    [1.0, 0.5]
    """
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final_lr + (lr - final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def step_decay(step: int, lr: float, every: int, factor: float) -> float:
    """lr · factor^⌊step / every⌋: constant for `every` steps, then multiplied by `factor`.

    Args:
        step: 0, 1, 2 …
        lr: the rate of the first `every` steps.
        every: a positive number of steps.
        factor: in (0, 1].
    Source:
        PyTorch's `StepLR`.

    >>> [step_decay(n, 1.0, every=2, factor=0.5) for n in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return lr * factor ** (step // every)


class Plateau:
    """Multiply the learning rate by `factor` when the validation loss has stopped falling.

    A loss is an improvement if it is below (1 - 1e-4) times the best one so far; after more than
    `patience` observations in a row without one, the rate falls and the count starts again.

    Args:
        lr: the first rate.
        factor: in (0, 1).
        patience: observations without improvement that are put up with, ≥ 0.
    Source:
        PyTorch's `ReduceLROnPlateau` with its defaults (mode "min", relative threshold).

    >>> plateau = Plateau(lr=1.0, factor=0.5, patience=0)
    >>> [plateau.observe(loss) for loss in (2.0, 1.0, 1.5)]
    [1.0, 1.0, 0.5]
    """

    def __init__(self, lr: float, factor: float = 0.1, patience: int = 10) -> None:
        self.lr, self.factor, self.patience = lr, factor, patience
        self.best: float | None = None
        self.bad = 0

    def observe(self, validation_loss: float) -> float:
        """Take one validation loss (nats per token) into account; return the rate from now on."""
        if validation_loss < (math.inf if self.best is None else self.best) * (1 - 1e-4):
            self.best, self.bad = validation_loss, 0
        else:
            self.bad += 1
        if self.bad > self.patience:
            self.bad = 0
            if self.lr * (1 - self.factor) > 1e-8:  # a smaller change is none
                self.lr *= self.factor
        return self.lr

    def state_dict(self) -> dict[str, Any]:
        """Rate, best loss (None before the first) and count: plain JSON."""
        return {"lr": self.lr, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.lr, self.best, self.bad = state["lr"], state["best"], state["bad"]
