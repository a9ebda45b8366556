"""Rates that change beside their schedule."""

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_perturb.core.rates import scale_rates

SCHEDULES = {
    "steps": lambda o: lr_scheduler.MultiStepLR(o, [2, 6], 0.1),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.01),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=10),
    "in turn": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 7)], [5]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
}


def rates(schedule, scaled_at=None):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = SCHEDULES[schedule](optimizer)
    found = []
    for step in range(9):
        if step == scaled_at:
            scale_rates(optimizer, [scheduler], 0.25)
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*[1.0] * (schedule == "plateau"))
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_goes_on_at_the_scaled_rate(schedule):
    plain, scaled = rates(schedule), rates(schedule, scaled_at=4)
    assert scaled[:4] == plain[:4]
    assert scaled[4:] == pytest.approx([rate / 4 for rate in plain[4:]])
