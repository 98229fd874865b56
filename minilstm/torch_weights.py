"""Weights from and to PyTorch: the state dict of the equivalent module, as NumPy arrays.

The module has the attributes `embedding` (nn.Embedding; absent with one-hot input), `lstm`
(nn.LSTM, time first) and `fc` (nn.Linear). What differs from minilstm's params:

- PyTorch computes W x of a column vector, minilstm x W of rows: every matrix is transposed.
- nn.LSTM has two biases per layer, b_ih + b_hh, there for cuDNN; only their sum matters. Export
  writes b and zeros; import adds the two.
- Gate order is i, f, g, o on both sides. (Keras has i, f, g, o too; others i, g, f, o: ask.)
- Tied weights are stored once here, and as two equal tensors there.

PyTorch itself is not needed: `torch.from_numpy` and `.numpy()` on the caller's side suffice.
"""

from typing import Any

import numpy as np

from minilstm.backend import to_host
from minilstm.errors import InputError
from minilstm.model import ModelConfig, Params


def torch_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the equivalent PyTorch module.

    Args:
        config: the model's.
    Returns:
        Name -> shape, in the order of the module's own state dict.

    >>> torch_shapes(ModelConfig(vocab_size=5, hidden_size=2))
    {'lstm.weight_ih_l0': (8, 5), 'lstm.weight_hh_l0': (8, 2),
     'lstm.bias_ih_l0': (8,), 'lstm.bias_hh_l0': (8,), 'fc.weight': (5, 2), 'fc.bias': (5,)}
    """
    V, H, E = config.vocab_size, config.hidden_size, config.embedding_size
    shapes: dict[str, tuple[int, ...]] = {} if E is None else {"embedding.weight": (V, E)}
    for k in range(config.num_layers):
        D = config.parameter_shapes()[f"lstm{k}.W_x"][0]
        shapes[f"lstm.weight_ih_l{k}"] = (4 * H, D)
        shapes[f"lstm.weight_hh_l{k}"] = (4 * H, H)
        shapes[f"lstm.bias_ih_l{k}"] = (4 * H,)
        shapes[f"lstm.bias_hh_l{k}"] = (4 * H,)
    return shapes | {"fc.weight": (V, H), "fc.bias": (V,)}


def to_torch_state_dict(params: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """params -> the tensors of the equivalent PyTorch module, which loads them `strict=True`.

    Args:
        params: as `init_params` makes them, on either device.
        config: the one they were made with.
    Returns:
        Fresh, C-contiguous host arrays of params' dtype, in the shapes of `torch_shapes`.
    """
    host = to_host(params)
    out: dict[str, np.ndarray] = {}
    if config.embedding_size is not None:
        out["embedding.weight"] = host["embedding.W"]
    for k in range(config.num_layers):
        out[f"lstm.weight_ih_l{k}"] = host[f"lstm{k}.W_x"].T
        out[f"lstm.weight_hh_l{k}"] = host[f"lstm{k}.W_h"].T
        out[f"lstm.bias_ih_l{k}"] = host[f"lstm{k}.b"]
        out[f"lstm.bias_hh_l{k}"] = np.zeros_like(host[f"lstm{k}.b"])
    out["fc.weight"] = host["embedding.W"] if config.tie_weights else host["fc.W"].T
    out["fc.bias"] = host["fc.b"]
    return {name: np.array(tensor, order="C") for name, tensor in out.items()}


def from_torch_state_dict(state_dict: dict[str, Any], config: ModelConfig) -> Params:
    """The tensors of the equivalent PyTorch module -> params, host arrays of the same dtype.

    Args:
        state_dict: NumPy arrays, or anything `np.asarray` takes (a CPU tensor, for one).
        config: the model they are for.
    Returns:
        Fresh params, in the shapes of `parameter_shapes`.
    Raises:
        InputError: names are missing or unexpected, shapes differ from config's, values are no
            real floating-point numbers, or config ties weights that differ.
    """
    shapes = torch_shapes(config)
    missing, unexpected = shapes.keys() - state_dict.keys(), state_dict.keys() - shapes.keys()
    if missing or unexpected:
        raise InputError(
            f"the state dict does not fit the config: missing {sorted(missing)}, "
            f"unexpected {sorted(unexpected)}"
        )
    host = {name: np.asarray(state_dict[name]) for name in shapes}
    for name, shape in shapes.items():
        if host[name].shape != shape:
            raise InputError(f"{name} must have shape {shape}, got {host[name].shape}")
        if host[name].dtype not in (np.float32, np.float64):
            raise InputError(f"{name} must be float32 or float64, got {host[name].dtype}")
    dtypes = {name: tensor.dtype for name, tensor in host.items()}
    if len(set(dtypes.values())) > 1:
        odd = {name: str(dtype) for name, dtype in dtypes.items() if dtype != dtypes["fc.bias"]}
        wanted = f"that of fc.bias, {dtypes['fc.bias']}"
        raise InputError(f"all tensors must have one dtype, {wanted}, got {odd}")
    params: Params = {}
    if config.embedding_size is not None:
        params["embedding.W"] = host["embedding.weight"]
    for k in range(config.num_layers):
        params[f"lstm{k}.W_x"] = host[f"lstm.weight_ih_l{k}"].T
        params[f"lstm{k}.W_h"] = host[f"lstm.weight_hh_l{k}"].T
        params[f"lstm{k}.b"] = host[f"lstm.bias_ih_l{k}"] + host[f"lstm.bias_hh_l{k}"]
    if not config.tie_weights:
        params["fc.W"] = host["fc.weight"].T
    elif not np.array_equal(host["fc.weight"], host["embedding.weight"]):
        worst = np.abs(host["fc.weight"] - host["embedding.weight"]).max()
        raise InputError(
            "tie_weights needs fc.weight equal to embedding.weight; "
            f"they differ by up to {worst:.3g}"
        )
    params["fc.b"] = host["fc.bias"]
    return {name: np.array(value, order="C") for name, value in params.items()}
