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
from minilstm.errors import InputError, require
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
    # Stand-ins that have a shape and next to no memory.
    shapes = config.parameter_shapes()
    params = {name: np.broadcast_to(0.0, shape) for name, shape in shapes.items()}
    return {name: tensor.shape for name, tensor in _as_torch(params, config).items()}


def to_torch_state_dict(params: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """params -> the tensors of the equivalent PyTorch module, which loads them `strict=True`.

    Args:
        params: as `init_params` makes them, on either device.
        config: the one they were made with.
    Returns:
        Fresh, C-contiguous host arrays of params' dtype, in the shapes of `torch_shapes`.
    """
    tensors = _as_torch(to_host(params), config)
    return {name: np.array(tensor, order="C") for name, tensor in tensors.items()}


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
    parts = {"missing": sorted(shapes.keys() - state_dict.keys()),
             "unexpected": sorted(state_dict.keys() - shapes.keys())}
    if odd := ", ".join(f"{what} {names}" for what, names in parts.items() if names):
        raise InputError(f"the state dict does not fit the config: {odd}")
    host = {name: np.asarray(state_dict[name]) for name in shapes}
    dtype = host["fc.bias"].dtype
    require(dtype in (np.float32, np.float64), "fc.bias must be float32 or float64", dtype)
    for name, x in host.items():
        require(x.shape == shapes[name], f"{name} must have shape {shapes[name]}", x.shape)
        require(x.dtype == dtype, f"{name} must be {dtype}, as fc.bias is", x.dtype)
    if config.tie_weights and not np.array_equal(host["fc.weight"], host["embedding.weight"]):
        worst = np.abs(host["fc.weight"] - host["embedding.weight"]).max()
        wanted = "fc.weight equal to embedding.weight"
        raise InputError(f"tie_weights needs {wanted}; they differ by up to {worst:.3g}")

    params = {name: np.empty(shape, dtype) for name, shape in config.parameter_shapes().items()}
    for name, view in _as_torch(params, config).items():
        view[...] = host[name]  # written through the view into params
    for k in range(config.num_layers):
        params[f"lstm{k}.b"] += host[f"lstm.bias_hh_l{k}"]
    return params


def _as_torch(params: Params, config: ModelConfig) -> Params:
    """Host params under PyTorch's names and in its shapes: views, and zeros for second biases."""
    tensors: Params = {}
    if config.embedding_size is not None:
        tensors["embedding.weight"] = params["embedding.W"]
    for k in range(config.num_layers):
        tensors[f"lstm.weight_ih_l{k}"] = params[f"lstm{k}.W_x"].T
        tensors[f"lstm.weight_hh_l{k}"] = params[f"lstm{k}.W_h"].T
        tensors[f"lstm.bias_ih_l{k}"] = params[f"lstm{k}.b"]
        tensors[f"lstm.bias_hh_l{k}"] = np.zeros_like(params[f"lstm{k}.b"])
    tensors["fc.weight"] = params["embedding.W"] if config.tie_weights else params["fc.W"].T
    return tensors | {"fc.bias": params["fc.b"]}
