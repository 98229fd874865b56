"""How much memory training takes: the arrays that exist at once, added up.

Each term names its arrays; a test compares the sum with what a step really allocates.
"""

import math

from minilstm import optim
from minilstm.model import ModelConfig
from minilstm.nn import embedding, loss, lstm_fast

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
    {'parameters': '9 MB', 'optimizer': '17 MB', 'best weights': '9 MB', 'step': '497 MB',
     'program': '80 MB', 'total': '611 MB'}
    """
    V, H, E, L = config.vocab_size, config.hidden_size, config.embedding_size, config.num_layers
    N = T * B  # rows of all matrices that have one row for each token
    D = [V if E is None else E] + [H] * (L - 1)  # columns of what each layer reads
    dropped = [config.embedding_dropout > 0] + [config.dropout > 0] * (L - 1)
    mask_rows = B if config.locked_dropout else N
    sizes = [math.prod(shape) for shape in config.parameter_shapes().values()]

    # What a workspace keeps: gates, h and c of each layer, and a step's product and scratch
    stays = L * (6 * N + (2 + 4 + 9) * B) * H
    # What forward keeps for backward besides: x, where it is no lookup, and all masks with what
    # they made
    lookup = not dropped[0] and (E is None or V <= N)
    kept = 0 if lookup else N * D[0]
    kept += sum(mask_rows * D[k] for k in range(L) if dropped[k])
    kept += sum(N * D[k] for k in range(1, L) if dropped[k])
    kept += (mask_rows + N) * H * (config.output_dropout > 0)
    kept += 2 * 4 * H * H * L * (config.weight_drop > 0)

    # What there is for a while, at the moments that may be the fullest
    logits = min(N * V, max(loss.CHUNK, V))  # of one chunk of rows
    one_hot = N * V if V <= embedding._LARGEST_ONE_HOT else 0
    dhs, grads = N * H, V * H
    zs = min(N, 2 * max(B, lstm_fast.ROWS))  # rows of this chunk's and the last's
    moments = [4 * H * (zs + 2 * V * lookup + max(D) + H),  # forward: zs, the table, weights anew
               dhs + grads + logits + H * min(V, loss.COLUMNS)]
    for k in reversed(range(L)):  # backward: dx or dtable, and the gradient from above
        dx_above = N * H if k < L - 1 or config.output_dropout else 0
        grads += 4 * H * (D[k] + H)
        dx = one_hot + V * 4 * H * (E is not None) if k == 0 and lookup else N * D[k]
        moments.append(dhs + grads + dx_above + 4 * H * H + dx * (2 if dropped[k] else 1))  # W_hT
    if E is not None:
        own = 0 if lookup else N * E + one_hot
        moments.append(dhs + grads + own + V * E * (2 if config.tie_weights else 1))
    # An optimizer's moments, each a copy of all parameters, and its temporaries of a block's size
    copies, temporaries = (1, 1) if optimizer == "sgd" else (2, 3)
    update = sum(sizes) + temporaries * min(max(sizes), optim.BLOCK)
    state = 2 * 2 * L * B * H  # h and c, old and new

    numbers = {"parameters": sum(sizes), "optimizer": copies * sum(sizes),
               "best weights": sum(sizes) if keep_best else 0,
               "step": stays + state + max(kept + max(moments), update)}
    parts = {name: size * dtype_bytes for name, size in numbers.items()} | {"program": _PROGRAM}
    return parts | {"total": sum(parts.values())}
