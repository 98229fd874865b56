"""Initial weights. Everything is drawn with NumPy on the host, so a seed means the same anywhere.

Xavier and orthogonal initialisation act on the whole (·, 4H) matrix of the four gates, as
`torch.nn.init` does on the matrices of `nn.LSTM`.
"""

import math

import numpy as np


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """U(-a, a) with a = √(6 / (fan_in + fan_out)).

    Args:
        rng: draws every entry.
        shape: (fan_in, fan_out).
    Returns:
        A matrix of that shape, float64.
    Source:
        Glorot & Bengio 2010, eq. 16.
    """
    a = math.sqrt(6 / sum(shape))
    return rng.uniform(-a, a, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Orthonormal rows (or columns, if there are fewer of them).

    The Q of a Gaussian matrix's QR, with the signs of R's diagonal divided out: without that the
    distribution would not be uniform over orthogonal matrices.

    Args:
        rng: draws the Gaussian matrix.
        shape: (rows, columns).
    Returns:
        A matrix of that shape, float64.
    Source:
        Saxe et al. 2014.

    >>> Q = orthogonal(np.random.default_rng(0), (2, 5))
    >>> np.allclose(Q @ Q.T, np.eye(2))
    True
    """
    rows, columns = max(shape), min(shape)
    Q, R = np.linalg.qr(rng.standard_normal((rows, columns)))
    Q = Q * np.sign(np.diag(R))
    return Q if shape == (rows, columns) else Q.T
