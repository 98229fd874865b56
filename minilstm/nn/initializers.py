"""Initial weights. Everything is drawn with NumPy on the host, so a seed means the same anywhere.

Xavier and orthogonal initialisation act on the whole (·, 4H) matrix of the four gates, as
`torch.nn.init` does on the matrices of `nn.LSTM`.
"""

from __future__ import annotations

import math

import numpy as np


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """U(-bound, bound), float64. PyTorch's LSTM and linear layers use bound = 1/√H."""
    return rng.uniform(-bound, bound, shape)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """U(-a, a) with a = √(6 / (fan_in + fan_out)). Source: Glorot & Bengio 2010, eq. 16."""
    return uniform(rng, shape, math.sqrt(6 / sum(shape)))


def orthogonal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Orthonormal rows (or columns, if there are fewer of them). Source: Saxe et al. 2014.

    The Q of a Gaussian matrix's QR, with the signs of R's diagonal divided out: without that the
    distribution would not be uniform over orthogonal matrices.
    """
    rows, columns = max(shape), min(shape)
    Q, R = np.linalg.qr(rng.standard_normal((rows, columns)))
    Q = Q * np.sign(np.diag(R))
    return Q if shape == (rows, columns) else Q.T
