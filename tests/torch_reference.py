"""The same model in PyTorch, and its numbers under minilstm's names.

PyTorch's LSTM has two biases per layer of which only the sum matters. For parity in training the
second is frozen at zero and left out of the norm: otherwise both would learn, and the sum at twice
the rate.
"""

import torch

import minilstm as ml

torch.set_num_threads(1)  # tensors this small lose by being shared out


class TorchModel(torch.nn.Module):
    """Time first; one-hot input where the config has no embedding size."""

    def __init__(self, config):
        super().__init__()
        V, H, E = config.vocab_size, config.hidden_size, config.embedding_size
        self.V = V
        if E is not None:
            self.embedding = torch.nn.Embedding(V, E)
        self.lstm = torch.nn.LSTM(V if E is None else E, H, config.num_layers)
        self.fc = torch.nn.Linear(H, V)
        if config.tie_weights:
            self.fc.weight = self.embedding.weight

    def forward(self, inputs, state):
        """inputs (T, B), h and c (L, B, H) -> logits (T, B, V), h and c."""
        if hasattr(self, "embedding"):
            x = self.embedding(inputs)
        else:
            x = torch.nn.functional.one_hot(inputs, self.V).to(self.fc.bias.dtype)
        hs, state = self.lstm(x, state)
        return self.fc(hs), state


def torch_model(params, config):
    """A TorchModel with these params, of their dtype; its second biases frozen at zero."""
    model = TorchModel(config).to(torch.from_numpy(params["fc.b"]).dtype)
    exported = ml.to_torch_state_dict(params, config)
    model.load_state_dict({name: torch.from_numpy(x) for name, x in exported.items()}, strict=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "bias_hh" not in name
    return model


def by_our_names(tensors, config):
    """PyTorch's tensors (weights, or their gradients) under minilstm's names, second biases aside.

    Written apart from minilstm.torch_weights, so that the two check each other.
    """
    ours = {}
    if config.embedding_size is not None:
        ours["embedding.W"] = tensors["embedding.weight"]
    for k in range(config.num_layers):
        ours[f"lstm{k}.W_x"] = tensors[f"lstm.weight_ih_l{k}"].T
        ours[f"lstm{k}.W_h"] = tensors[f"lstm.weight_hh_l{k}"].T
        ours[f"lstm{k}.b"] = tensors[f"lstm.bias_ih_l{k}"]
    if not config.tie_weights:
        ours["fc.W"] = tensors["fc.weight"].T
    ours["fc.b"] = tensors["fc.bias"]
    return {name: tensor.detach().numpy() for name, tensor in ours.items()}


def weights(model, config):
    return by_our_names(dict(model.named_parameters()), config)


def gradients(model, config):
    return by_our_names({name: p.grad for name, p in model.named_parameters()}, config)


def trainable(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def tensors(*arrays):
    return tuple(torch.from_numpy(array) for array in arrays)
