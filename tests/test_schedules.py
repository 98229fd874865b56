"""The learning-rate schedules against PyTorch's."""

import random

import pytest
import torch

from minilstm.optim import Plateau, step_decay, warmup_cosine


def torch_optimizer(lr):
    return torch.optim.SGD([torch.zeros(1)], lr=lr)


def rates_of(schedule, optimizer, steps):
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("final_lr", [0.0, 0.01])
def test_warmup_cosine_equals_pytorchs_linear_and_cosine(warmup, final_lr):
    lr, total = 0.3, 40
    optimizer = torch_optimizer(lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=final_lr)
    schedule = cosine
    if warmup:
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [warmup])
    theirs = rates_of(schedule, optimizer, total)
    ours = [warmup_cosine(step, total, lr, warmup, final_lr) for step in range(total)]
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-15)


def test_step_decay_equals_pytorchs_step_lr():
    optimizer = torch_optimizer(0.3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.4)
    theirs = rates_of(schedule, optimizer, 40)
    assert [step_decay(step, 0.3, 7, 0.4) for step in range(40)] == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_equals_pytorchs_reduce_on_plateau(patience):
    draw = random.Random(0)
    losses = [2.0 + draw.uniform(-0.3, 0.3) - 0.01 * n for n in range(60)]
    losses[10] = losses[9] * (1 - 0.5e-4)  # better, but not by the threshold
    optimizer = torch_optimizer(0.3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience)
    ours, plateau = [], Plateau(0.3, factor=0.5, patience=patience)
    theirs = []
    for loss in losses:
        schedule.step(loss)
        theirs.append(optimizer.param_groups[0]["lr"])
        ours.append(plateau.observe(loss))
    assert ours[-1] < 0.3
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_a_plateau_goes_on_from_its_state():
    one = Plateau(0.3, 0.5, 1)
    for loss in (2.0, 1.5, 1.6):
        one.observe(loss)
    other = Plateau(0.3, 0.5, 1)
    other.load_state_dict(one.state_dict())
    assert [one.observe(x) for x in (1.7, 1.4)] == [other.observe(x) for x in (1.7, 1.4)]
    fresh = Plateau(0.3)
    fresh.load_state_dict(Plateau(0.2).state_dict())
    assert fresh.observe(5.0) == 0.2
