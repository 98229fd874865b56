"""Dropout: y = x ⊙ mask. Linear in x, so its backward is the same product: dx = dy ⊙ mask.

A mask holds 0 where a value is dropped and 1/(1-p) where it is kept, so that E[y] = x and nothing
needs to change when the model is evaluated ("inverted" dropout, Srivastava et al. 2014). One and
the same mask serves forward and backward; to forget it in backward, or to rescale twice, are bugs
that training survives.

Locked (variational) dropout draws one mask per sequence and keeps it for all T steps
(Gal & Ghahramani 2016). Weight drop masks the recurrent matrix W_h itself, once for all steps
(Wan et al. 2013; Merity et al. 2018).
"""

from typing import Any

import numpy as np

from minilstm.backend import Array


def dropout_mask(rng: np.random.Generator, shape: tuple[int, ...], p: float, dtype: Any) -> Array:
    """Draw a mask on the host: 0 with probability p, else 1/(1-p).

    Args:
        rng: a mask is a function of its state alone.
        shape: (T, B, D); (1, B, D) for locked dropout; (H, 4H) for weight drop.
        p: in [0, 1).
        dtype: of the array it will be multiplied with.
    Returns:
        NumPy array of that shape.

    >>> dropout_mask(np.random.default_rng(0), (6,), 0.5, np.float32)
    array([2., 2., 2., 0., 0., 0.], dtype=float32)
    """
    kept = rng.random(shape, dtype=np.float32) >= p
    return np.where(kept, 1 / (1 - p), 0.0).astype(dtype)


def dropout(x: Array, mask: Array | None) -> Array:
    """x ⊙ mask, forward and backward alike; x itself where the mask is None."""
    return x if mask is None else x * mask
