"""How much memory training takes: the arrays that exist at once, added up.

Each term names its arrays; a test compares the sum with what a step really allocates.
"""

import math

from minilstm import optim
from minilstm.model import ModelConfig
from minilstm.nn import embedding, loss, lstm_steps

_PROGRAM = 80_000_000  # bytes of Python, NumPy and its matrix library
_FORK = 15_000_000  # and what a process forked from it has of that for itself


def estimate_memory(config: ModelConfig, B: int, T: int, dtype_bytes: int = 4,
                    optimizer: str = "adam", keep_best: bool = True,
                    processes: int = 1) -> dict[str, int]:
    """The bytes that training needs at the fullest moment of a step.

    Args:
        config: the model.
        B, T: sequences and steps of a batch.
        dtype_bytes: of one number: 4 for float32, 8 for float64.
        optimizer: "adam", "adamw" or "sgd".
        keep_best: whether there is a copy of the best weights, as `train` makes one where a text
            validates.
        processes: that a batch is shared out to (`workers.processes`).
    Returns:
        The bytes of "parameters", "optimizer" and "best weights", which stay; of "step", what
        comes and goes with each step, at its fullest; of the "program" itself; and "total". Each
        process has what it needs for its own sequences; all share one copy of the parameters, and
        each but the first has gradients that the first sees too.

    >>> sizes = estimate_memory(ModelConfig(65, 512, 1, embedding_size=512), B=128, T=256)
    >>> print({name: f"{size / 1e6:.0f} MB" for name, size in sizes.items()})
    {'parameters': '9 MB', 'optimizer': '17 MB', 'best weights': '9 MB', 'step': '515 MB',
     'program': '80 MB', 'total': '630 MB'}
    """
    V, H, E, L = config.vocab_size, config.hidden_size, config.embedding_size, config.num_layers
    B = math.ceil(B / processes)
    N = T * B  # rows of all matrices that have one row for each token
    D = [V if E is None else E] + [H] * (L - 1)  # columns of what each layer reads
    dropped = [config.embedding_dropout > 0] + [config.dropout > 0] * (L - 1)
    mask_rows = B if config.locked_dropout else N
    sizes = [math.prod(shape) for shape in config.parameter_shapes().values()]

    # What a workspace keeps, from one step to the next
    lookup = not dropped[0] and (E is None or V <= N)
    one_hot = N * V if V <= embedding._LARGEST_ONE_HOT else 0
    logits = min(N * V, max(loss.CHUNK, V))  # of one chunk of rows
    stays = logits + N * H + H * V  # with dhs and dW of the loss
    stays += H * V if logits < N * V else 0  # one chunk's part of dW
    for k in range(L):
        stays += N * 4 * H + 2 * (T + 1) * B * H  # the gates, h and c
        stays += min(N * 4 * H, max(lstm_steps.NUMBERS, B * 4 * H))  # the input's product
        stays += 6 * B * H + 5 * min(N * H, max(lstm_steps.SLOPES, B * H))  # a step's, the slopes
        # dW_h; copies of W_hᵀ, and of all weights
        stays += 4 * H * (H + (B > 1) * H + (B > 1 or T >= H) * (H + D[k] + 1))
        if k == 0 and lookup:
            stays += V * 4 * H + one_hot + (0 if E is None else 4 * H * E)  # of the table; dW_x
        else:
            stays += 4 * H * D[k] + N * D[k]  # dW_x and dx

    # What forward keeps for backward besides: x, where it is no lookup, and all masks with what
    # they made
    kept = 0 if lookup else N * D[0]
    kept += sum(mask_rows * D[k] for k in range(L) if dropped[k])
    kept += sum(N * D[k] for k in range(1, L) if dropped[k])
    kept += (mask_rows + N) * H * (config.output_dropout > 0)
    kept += 2 * 4 * H * H * L * (config.weight_drop > 0)

    # What there is for a while, at the moments that may be the fullest
    moments = [2 * 4 * H * V if lookup else 0]  # the table, before and after b is added
    above = N * H * (config.output_dropout > 0)  # dhs after its mask
    for k in reversed(range(L)):
        moments.append(above + N * D[k] * dropped[k])
        above = N * D[k] * dropped[k]
    anew = 0 if E is None else V * E * (2 if config.tie_weights else 1)  # embedding.W's gradient
    moments.append((0 if lookup or E is None else above + one_hot) + anew)
    # An optimizer's moments, each a copy of all parameters, and its temporaries of a block's size
    copies, temporaries = (1, 1) if optimizer == "sgd" else (2, 2)
    update = anew + temporaries * min(max(sizes), optim.BLOCK)
    state = 2 * 2 * L * B * H  # h and c, old and new

    step = processes * (stays + state + max(kept + max(moments), update))
    step += processes * sum(sizes) if processes > 1 else 0  # what they share
    numbers = {"parameters": sum(sizes), "optimizer": copies * sum(sizes),
               "best weights": sum(sizes) if keep_best else 0, "step": step}
    parts = {name: size * dtype_bytes for name, size in numbers.items()}
    parts["program"] = _PROGRAM + (processes - 1) * _FORK
    return parts | {"total": sum(parts.values())}
