"""PyTorch's opinion on the same model: logits, states, loss, gradients, training, weights.

`pytest -rP tests/test_torch_parity.py` prints the largest difference of each comparison.
"""

import numpy as np
import pytest
import torch
import torch_reference as reference
from closeness import assert_close

import minilstm as ml

T, B, V, H, E = 6, 5, 7, 4, 8  # all different, and none a number of layers
every_kind = pytest.mark.parametrize("kind", ["one-hot", "embedding", "tied"])
every_depth = pytest.mark.parametrize("L", [1, 2, 3])


def config_of(kind, L, V=V, H=H, E=E):
    kinds = {
        "one-hot": {},
        "embedding": {"embedding_size": E},
        "tied": {"embedding_size": H, "tie_weights": True},
    }
    return ml.ModelConfig(vocab_size=V, hidden_size=H, num_layers=L, **kinds[kind])


def random_params(config, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = config.parameter_shapes()
    return {name: rng.normal(scale=0.7, size=s).astype(dtype) for name, s in shapes.items()}


def random_state(config, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    h, c = rng.normal(size=(2, config.num_layers, B, config.hidden_size)).astype(dtype)
    return h, c


def random_batch(config, seed):
    inputs, targets = np.random.default_rng(seed).integers(config.vocab_size, size=(2, T, B))
    return inputs, targets


# --- one pass


def our_pass(params, config, inputs, targets, state, dstate):
    logits, (h, c), cache = ml.forward_with_cache(params, config, inputs, state)
    loss, dlogits = ml.softmax_cross_entropy(logits, targets)
    grads, (dh_0, dc_0) = ml.backward(dlogits, cache, dstate)
    return {"logits": logits, "h": h, "c": c, "loss": loss, "dh0": dh_0, "dc0": dc_0, **grads}


def their_pass(model, config, inputs, targets, state, dstate):
    inputs, targets, h_0, c_0, dh_T, dc_T = reference.tensors(inputs, targets, *state, *dstate)
    h_0.requires_grad = c_0.requires_grad = True
    logits, (h, c) = model(inputs, (h_0, c_0))
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, config.vocab_size), targets.ravel())
    model.zero_grad()
    (loss + (dh_T * h).sum() + (dc_T * c).sum()).backward()
    outputs = {"logits": logits, "h": h, "c": c, "loss": loss, "dh0": h_0.grad, "dc0": c_0.grad}
    outputs = {name: tensor.detach().numpy() for name, tensor in outputs.items()}
    return {**outputs, **reference.gradients(model, config)}


@every_kind
@every_depth
def test_float64_logits_states_loss_and_every_gradient(kind, L):
    """With a state at the start, and gradient into the logits, h_T and c_T."""
    config = config_of(kind, L)
    params = random_params(config)
    batch, state = random_batch(config, seed=1), random_state(config, seed=2)
    dstate = random_state(config, seed=3)
    model = reference.torch_model(params, config)
    assert_close(
        our_pass(params, config, *batch, state, dstate),
        their_pass(model, config, *batch, state, dstate),
        tolerance=1e-12,
    )


@every_kind
@every_depth
def test_float32_logits_states_loss_and_every_gradient(kind, L):
    """Measured: 4.6e-7 of a tensor's largest entry at most; float32 rounds at 6e-8."""
    config = config_of(kind, L)
    params = random_params(config, np.float32)
    batch, state = random_batch(config, seed=1), random_state(config, 2, np.float32)
    dstate = random_state(config, 3, np.float32)
    model = reference.torch_model(params, config)
    ours = our_pass(params, config, *batch, state, dstate)
    assert {tensor.dtype for name, tensor in ours.items() if name != "loss"} == {np.dtype("f4")}
    assert_close(ours, their_pass(model, config, *batch, state, dstate), tolerance=3e-6)


@every_kind
@every_depth
def test_state_carried_over_several_chunks(kind, L):
    """Truncated BPTT: the state goes on, its gradient does not."""
    config = config_of(kind, L)
    params = random_params(config)
    model = reference.torch_model(params, config)
    state = their_state = random_state(config, seed=2)
    zeros = ml.init_state(config, B, dtype=np.float64)
    for seed in range(4):
        batch = random_batch(config, seed)
        loss, grads, state = ml.loss_and_grads(params, config, *batch, state)
        theirs = their_pass(model, config, *batch, their_state, zeros)
        their_state = theirs["h"], theirs["c"]
        ours = {"loss": loss, "h": state[0], "c": state[1], **grads}
        assert_close(ours, {name: theirs[name] for name in ours}, tolerance=1e-12)


# --- training


def train_both(config, ours, theirs, dtype=np.float64, max_norm=None, steps=50):
    """Both models on the same batches, the state carried; ours and their parameters, the norms.

    ours: an optimizer of minilstm; theirs: makes PyTorch's from the parameters that learn.
    """
    params = ml.init_params(config, np.random.default_rng(0), dtype=dtype)
    model = reference.torch_model(params, config)
    optimizer = theirs(reference.trainable(model))
    state = random_state(config, 2, dtype)
    their_state = reference.tensors(*(part.copy() for part in state))
    norms = []
    for step in range(steps):
        inputs, targets = random_batch(config, seed=step % 5)  # few enough to be learnt
        _, grads, state = ml.loss_and_grads(params, config, inputs, targets, state)
        if max_norm is not None:
            norms.append(float(ml.clip_by_global_norm(grads, max_norm)))
        ours.step(params, grads)

        inputs, targets = reference.tensors(inputs, targets)
        logits, their_state = model(inputs, their_state)
        their_state = tuple(part.detach() for part in their_state)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(reference.trainable(model), max_norm)
        optimizer.step()
    return params, reference.weights(model, config), norms


def largest_difference(ours, theirs):
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(ours[name] - theirs[name]).max() for name in theirs)
    print(f"largest difference of a parameter after training: {largest:.1e}")
    return largest


@every_kind
@every_depth
def test_50_steps_of_adam_with_clipping(kind, L):
    config = config_of(kind, L)
    ours, theirs, norms = train_both(
        config, ml.Adam(lr=0.02), lambda p: torch.optim.Adam(p, lr=0.02), max_norm=0.18
    )
    assert min(norms) < 0.18 < max(norms)  # some steps are clipped, some are not
    assert largest_difference(ours, theirs) <= 1e-9


OPTIMIZERS = {
    "SGD": (
        lambda: ml.SGD(lr=0.5, momentum=0.9, weight_decay=1e-2),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=1e-2),
    ),
    "Adam with other betas, eps and an L2 penalty": (
        lambda: ml.Adam(lr=0.02, betas=(0.8, 0.99), eps=1e-3, weight_decay=1e-2),
        lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.99), eps=1e-3, weight_decay=1e-2),
    ),
    "AdamW": (
        lambda: ml.AdamW(lr=0.02, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_50_steps_of_other_optimizers(name):
    ours, theirs = OPTIMIZERS[name]
    ours, theirs, _ = train_both(config_of("embedding", 2), ours(), theirs)
    assert largest_difference(ours, theirs) <= 1e-9


def test_50_steps_of_adam_with_clipping_in_float32():
    """Measured: parameters differ by 5.4e-7 at most, of values around 1."""
    ours, theirs, _ = train_both(
        config_of("embedding", 2),
        ml.Adam(lr=0.02),
        lambda p: torch.optim.Adam(p, lr=0.02),
        dtype=np.float32,
        max_norm=0.18,
    )
    assert largest_difference(ours, theirs) <= 1e-5


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 30.0, 1e6])
def test_clipping_is_that_of_clip_grad_norm(max_norm):
    rng = np.random.default_rng(0)
    grads = {"a": rng.normal(size=(20, 30)), "b": 5 * rng.normal(size=7), "c": np.zeros((2, 3))}
    parameters = [torch.nn.Parameter(torch.zeros(g.shape).double()) for g in grads.values()]
    for parameter, g in zip(parameters, grads.values(), strict=True):
        parameter.grad = torch.from_numpy(g.copy())
    norm = ml.clip_by_global_norm(grads, max_norm)
    their_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    assert float(norm) == pytest.approx(float(their_norm), rel=1e-15)
    for parameter, g in zip(parameters, grads.values(), strict=True):
        np.testing.assert_allclose(g, parameter.grad.numpy(), rtol=1e-14)


# --- weights


def test_exported_names_and_shapes_are_those_of_the_module():
    config = config_of("embedding", 2)
    exported = ml.to_torch_state_dict(random_params(config), config)
    assert {name: x.shape for name, x in exported.items()} == {
        "embedding.weight": (V, E),
        "lstm.weight_ih_l0": (4 * H, E),
        "lstm.weight_hh_l0": (4 * H, H),
        "lstm.bias_ih_l0": (4 * H,),
        "lstm.bias_hh_l0": (4 * H,),
        "lstm.weight_ih_l1": (4 * H, H),
        "lstm.weight_hh_l1": (4 * H, H),
        "lstm.bias_ih_l1": (4 * H,),
        "lstm.bias_hh_l1": (4 * H,),
        "fc.weight": (V, H),
        "fc.bias": (V,),
    }


@every_kind
@every_depth
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_go_to_pytorch_and_come_back_as_they_were(kind, L, dtype):
    config = config_of(kind, L)
    params = random_params(config, dtype)
    model = reference.torch_model(params, config)  # loads with strict=True
    theirs = reference.weights(model, config)
    back = ml.from_torch_state_dict({k: t.numpy() for k, t in model.state_dict().items()}, config)
    assert list(back) == list(params)
    for name, value in params.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)
        np.testing.assert_array_equal(back[name], value, err_msg=name)
        assert back[name].dtype == dtype
        assert back[name].flags.c_contiguous


@every_kind
def test_exports_and_imports_are_copies(kind):
    config = config_of(kind, 2)
    params = random_params(config)
    exported = ml.to_torch_state_dict(params, config)
    imported = ml.from_torch_state_dict(exported, config)
    for array in exported.values():
        assert array.flags.c_contiguous
        assert not any(np.shares_memory(array, other) for other in params.values())
        assert not any(np.shares_memory(array, other) for other in imported.values())


@every_kind
@every_depth
def test_import_adds_the_second_bias(kind, L):
    """A module as PyTorch makes it, both biases random: the same logits, so the same model."""
    config = config_of(kind, L)
    torch.manual_seed(0)
    model = reference.TorchModel(config).double()
    tensors = model.state_dict()
    params = ml.from_torch_state_dict({name: t.numpy() for name, t in tensors.items()}, config)
    for k in range(L):
        assert np.all(tensors[f"lstm.bias_hh_l{k}"].numpy() != 0)
        both = tensors[f"lstm.bias_ih_l{k}"] + tensors[f"lstm.bias_hh_l{k}"]
        np.testing.assert_array_equal(params[f"lstm{k}.b"], both.numpy())
    inputs, _ = random_batch(config, seed=1)
    state = random_state(config, seed=2)
    with torch.no_grad():
        logits, _ = model(*reference.tensors(inputs), reference.tensors(*state))
    assert_close(
        {"logits": ml.forward(params, config, inputs, state)[0]},
        {"logits": logits.numpy()},
        tolerance=1e-12,
    )


def test_import_takes_tensors_as_they_are():
    config = config_of("embedding", 2)
    params = random_params(config)
    imported = ml.from_torch_state_dict(reference.torch_model(params, config).state_dict(), config)
    for name, value in params.items():
        assert type(imported[name]) is np.ndarray
        np.testing.assert_array_equal(imported[name], value, err_msg=name)


def without(name):
    return lambda exported: exported.pop(name)


def put(name, value):
    return lambda exported: exported.update({name: value})


def shifted(name):
    return lambda exported: exported.update({name: exported[name] + 0.25})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            without("lstm.bias_hh_l1"),
            "the state dict does not fit the config: missing ['lstm.bias_hh_l1']",
        ),
        (
            put("lstm.weight_ih_l2", np.zeros((16, 4))),
            "the state dict does not fit the config: unexpected ['lstm.weight_ih_l2']",
        ),
        (
            put("lstm.weight_ih_l0", np.zeros((H, 4 * H))),
            "lstm.weight_ih_l0 must have shape (16, 4), got (4, 16)",
        ),
        (put("fc.bias", np.zeros(V - 1)), "fc.bias must have shape (7,), got (6,)"),
        (
            put("fc.bias", np.zeros(V, np.int64)),
            "fc.bias must be float32 or float64, got int64",
        ),
        (
            shifted("fc.weight"),
            "tie_weights needs fc.weight equal to embedding.weight; they differ by up to 0.25",
        ),
    ],
    ids=["missing", "unexpected", "transposed", "too short", "integers", "untied"],
)
def test_a_state_dict_of_another_model_is_refused(spoil, message):
    config = config_of("tied", 2)
    exported = ml.to_torch_state_dict(random_params(config), config)
    spoil(exported)
    with pytest.raises(ml.InputError) as refused:
        ml.from_torch_state_dict(exported, config)
    assert str(refused.value) == message
