"""How much memory training takes: the arrays that exist at once, added up.

Each term names its arrays; a test compares the sum with what a step really allocates.
"""

import math

from minilstm.model import ModelConfig
from minilstm.nn import embedding

_CHUNK = 1 << 22  # logits held at a time; see nn/loss.py
_PROGRAM = 80_000_000  # bytes of Python, NumPy and its matrix library


def estimate_memory(config: ModelConfig, B: int, T: int, dtype_bytes: int = 4,
                    optimizer: str = "adam", keep_best: bool = True) -> dict[str, int]:
    """The bytes that training needs at the fullest moment of a step.

    Args:
        config: the model.
        B, T: sequences and steps of a batch.
        dtype_bytes: of one number: 4 for float32, 8 for float64.
        optimizer: "adam", "adamw" or "sgd".
        keep_best: whether there is a copy of the best weights, as `train` makes one where a text
            validates.
    Returns:
        The bytes of "parameters", "optimizer" and "best weights", which stay; of "step", what
        comes and goes with each step, at its fullest; of the "program" itself; and "total".

    >>> sizes = estimate_memory(ModelConfig(65, 512, 1, embedding_size=512), B=128, T=256)
    >>> print({name: f"{size / 1e6:.0f} MB" for name, size in sizes.items()})
    {'parameters': '9 MB', 'optimizer': '17 MB', 'best weights': '9 MB', 'step': '949 MB',
     'program': '80 MB', 'total': '1064 MB'}
    """
    V, H, E, L = config.vocab_size, config.hidden_size, config.embedding_size, config.num_layers
    N = T * B  # rows of all matrices that have one row for each token
    D = [V if E is None else E] + [H] * (L - 1)  # columns of what each layer reads
    dropped = [config.embedding_dropout > 0] + [config.dropout > 0] * (L - 1)
    mask_rows = B if config.locked_dropout else N
    sizes = [math.prod(shape) for shape in config.parameter_shapes().values()]

    # What forward keeps for backward
    kept = N * D[0] + L * 7 * N * H  # x; then hs, c_prevs, i, f, g, o and tanh_c of each layer
    kept += sum(mask_rows * D[k] for k in range(L) if dropped[k])  # masks
    kept += sum(N * D[k] for k in range(1, L) if dropped[k])  # what they made of hs
    kept += (mask_rows + N) * H * (config.output_dropout > 0)
    kept += 2 * 4 * H * H * L * (config.weight_drop > 0)  # masks of W_h, what they made of it

    # What there is besides, at the moments that may be the fullest
    logits = min(N * V, max(_CHUNK, V))  # of one chunk of rows
    at_once = 2 if logits == N * V else 3  # they, shifted; and the last chunk's
    dhs, grads = N * H, V * H
    moments = [4 * N * H,  # forward: zs
               dhs + grads + max(at_once * logits, logits + V * H)]  # loss
    for k in reversed(range(L)):  # backward: dzs, dx, and the gradient that came from above
        dx_above = N * H if k < L - 1 or config.output_dropout else 0
        grads += 4 * H * (D[k] + H)
        moments.append(dhs + grads + 4 * N * H + dx_above + N * D[k])
    if E is not None:
        one_hot = N * V if V <= embedding._LARGEST_ONE_HOT else 0
        moments.append(dhs + grads + N * E + one_hot + V * E * (2 if config.tie_weights else 1))
    # An optimizer's moments, each a copy of all parameters, and its temporaries of one's size
    copies, temporaries = (1, 1) if optimizer == "sgd" else (2, 3)
    update = sum(sizes) + temporaries * max(sizes)  # gradients; forward's are gone by then
    state = 2 * 2 * L * B * H  # h and c, old and new

    numbers = {"parameters": sum(sizes), "optimizer": copies * sum(sizes),
               "best weights": sum(sizes) if keep_best else 0,
               "step": state + max(kept + max(moments), update)}
    parts = {name: size * dtype_bytes for name, size in numbers.items()} | {"program": _PROGRAM}
    return parts | {"total": sum(parts.values())}
