"""Clipping, SGD, Adam, AdamW and a learning-rate schedule, written out.

Optimizers update the arrays of `params` in place, so nothing that refers to them needs to be told.
Nothing here waits for a GPU: norms and moments stay where the gradients are.
"""

from __future__ import annotations

import math
from typing import Any

from minilstm.backend import Array, get_array_module
from minilstm.errors import InputError

Params = dict[str, Array]


def clip_by_global_norm(grads: Params, max_norm: float) -> Array:
    """Scale all gradients together, in place, so that their joint norm is at most max_norm.

        norm = √(Σ over all entries of all tensors g²),   g ← g · min(1, max_norm / (norm + 1e-6))

    One factor for all tensors keeps the direction of the step; clipping each tensor by its own
    norm would not. The 1e-6 is PyTorch's (`clip_grad_norm_`).
    Returns the norm *before* clipping, a 0-d float64 array on the device.
    Source: Pascanu, Mikolov & Bengio 2013. Raises InputError unless max_norm > 0.

    >>> import numpy as np
    >>> grads = {"a": np.array([3.0]), "b": np.array([4.0])}
    >>> print(clip_by_global_norm(grads, 1.0), grads["a"].round(3), grads["b"].round(3))
    5.0 [0.6] [0.8]
    """
    if not max_norm > 0:
        raise InputError(f"max_norm must be a positive number, got {max_norm}")
    first = next(iter(grads.values()))
    xp = get_array_module(first)
    squares = [xp.vdot(g.reshape(-1), g.reshape(-1)) for g in grads.values()]
    norm = xp.sqrt(xp.stack(squares).sum(dtype=xp.float64))
    scale = xp.minimum(1.0, max_norm / (norm + 1e-6))
    for g in grads.values():
        g *= scale.astype(g.dtype)  # a float64 array would not go into a float32 one
    return norm


class Optimizer:
    """What all optimizers share: a learning rate that may be set anew before each step, the
    number of steps taken, and one dict of arrays per moment, shaped as params."""

    moment_names: tuple[str, ...] = ()

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        if not lr >= 0 or not math.isfinite(lr):
            raise InputError(f"lr must be a finite number ≥ 0, got {lr}")
        if not weight_decay >= 0 or not math.isfinite(weight_decay):
            raise InputError(f"weight_decay must be a finite number ≥ 0, got {weight_decay}")
        self.lr = lr
        self.weight_decay = weight_decay
        self.steps = 0
        self.moments: dict[str, Params] = {name: {} for name in self.moment_names}

    def step(self, params: Params, grads: Params) -> None:
        """Update every array of params in place. Raises InputError if the keys differ."""
        if params.keys() != grads.keys():
            odd = sorted(params.keys() ^ grads.keys())
            raise InputError(f"grads must have the keys of params; only one of them has {odd}")
        self.steps += 1
        for name, p in params.items():
            zeros = get_array_module(p).zeros_like
            for moment in self.moments.values():
                if name not in moment:
                    moment[name] = zeros(p)
            self._update(p, grads[name], *(moment[name] for moment in self.moments.values()))

    def _update(self, p: Array, g: Array, *moments: Array) -> None:
        raise NotImplementedError("each optimizer writes out its own update")

    def state_dict(self) -> dict[str, Any]:
        """{"steps": int, moment name: {parameter name: array}}: the arrays themselves."""
        return {"steps": self.steps, **self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises InputError if it is another optimizer's."""
        if state.keys() != {"steps", *self.moment_names}:
            wanted, got = sorted(("steps", *self.moment_names)), sorted(state)
            raise InputError(f"{type(self).__name__} needs a state with {wanted}, got {got}")
        self.steps = int(state["steps"])
        self.moments = {name: dict(state[name]) for name in self.moment_names}


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch writes it (no dampening).

    g ← g + weight_decay · p,   v ← momentum · v + g,   p ← p - lr · v
    """

    moment_names = ("velocity",)

    def __init__(self, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum

    def _update(self, p: Array, g: Array, *moments: Array) -> None:
        (v,) = moments
        v *= self.momentum
        v += g
        if self.weight_decay:
            v += self.weight_decay * p
        p -= self.lr * v


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), with PyTorch's L2 penalty if weight_decay is set.

        g ← g + weight_decay · p
        m ← β₁ m + (1 - β₁) g            the gradient's running mean
        v ← β₂ v + (1 - β₂) g²           and its running mean square
        p ← p - lr · m̂ / (√v̂ + ε),   m̂ = m / (1 - β₁ⁿ),  v̂ = v / (1 - β₂ⁿ) after n steps

    m and v start at zero, so after n steps they hold only the share 1 - βⁿ of a full mean; m̂ and
    v̂ divide by it. ε stands outside the square root.
    """

    moment_names = ("m", "v")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas must be two numbers in [0, 1), got {betas}")
        if not eps > 0:
            raise InputError(f"eps must be a positive number, got {eps}")
        self.betas = betas
        self.eps = eps

    def _update(self, p: Array, g: Array, *moments: Array) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p
        self._adam(p, g, *moments)

    def _adam(self, p: Array, g: Array, m: Array, v: Array) -> None:
        beta1, beta2 = self.betas
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        # lr · m̂ / (√v̂ + ε), with the two corrections taken out of the arrays
        correction = math.sqrt(1 - beta2**self.steps)
        rate = self.lr / (1 - beta1**self.steps)
        p -= rate * m / (get_array_module(p).sqrt(v) / correction + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← (1 - lr · weight_decay) p before Adam's step.

    The decay is not divided by √v̂ as an L2 penalty's gradient is.
    Source: Loshchilov & Hutter 2019, algorithm 2; scaled by lr, as PyTorch does.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    def _update(self, p: Array, g: Array, *moments: Array) -> None:
        p *= 1 - self.lr * self.weight_decay
        self._adam(p, g, *moments)


def warmup_cosine(
    step: int, total_steps: int, lr: float, warmup_steps: int = 0, final_lr: float = 0.0
) -> float:
    """Learning rate of step 0 … total_steps - 1: a linear rise, then half a cosine down.

        step < warmup_steps:  lr · (step + 1) / (warmup_steps + 1)
        else:  final_lr + (lr - final_lr) · ½ (1 + cos(π · (step - warmup) / (total - warmup)))

    Source: Loshchilov & Hutter 2017, eq. 5, without restarts.

    >>> [warmup_cosine(n, 4, 1.0) for n in (0, 2)]
    [1.0, 0.5]
    """
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final_lr + (lr - final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
