"""Parts of a network that are held, and a second stage with a schedule of its own."""

import pytest
import torch
from testkit.training import CLASSES, NETS, Recipe, different, digits, fit, resume, snapshot, trainer_of
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.core.held import HoldingModule
from lightning_perturb.core.modes import constant
from lightning_perturb.core.stages import StagedLR, TwoStageModule


class HoldsTheBody(HoldingModule):
    """Trains the head alone, in every epoch."""

    def held(self):
        return self.all_but(self.net.head.parameters())


def test_what_is_held_has_no_gradient_and_nothing_before_it_is_differentiated():
    module = HoldsTheBody(NETS["conv"](), CLASSES)
    seen = []
    module.net.body[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.requires_grad))
    x, y = digits()
    batch = module._start_step((x[:8].float(), y[:8]), 0)
    outputs = module.outputs(module.net, batch)
    assert seen == [False]
    outputs["logits"].sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in module.net.body.parameters())
    assert all(p.grad.abs().sum() > 0 for p in module.net.head.parameters())
    with torch.no_grad():
        assert torch.equal(outputs["logits"], module.net(x[:8].float()))
    module.on_after_backward()
    assert all(p.grad is None and p.requires_grad for p in module.net.body.parameters())


def test_the_user_s_own_frozen_layers_are_left_alone():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].weight.requires_grad_(False)
    with constant(net.parameters()) as held:
        assert not any(p.requires_grad for p in net.parameters())
    assert len(held) == 3
    with pytest.raises(KeyError), constant(net.parameters()):
        raise KeyError
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True]


def trained(recipe):
    return {k: v for k, v in snapshot(fit(recipe)).items() if not k.startswith("random")}


def test_held_parameters_on_two_ranks(ranks):
    # gloo complains of a parameter without a gradient; weight decay would move one with a gradient of 0
    recipe = Recipe(
        HoldsTheBody, {"optimizer": decaying_sgd}, net="conv", data={"samples": 64, "noise": 0.0},
        trainer={"max_epochs": 2, "precision": "64-true"},
    )  # fmt: skip
    expected = trained(recipe)
    two = recipe.but(data={"batch_size": 8}, trainer={"strategy": "ddp", "devices": 2})
    first, second = ranks(trained, two)
    assert different(first, second) == []
    assert different(expected, first, tolerance=1e-6) == []


def decaying_sgd(params):
    return torch.optim.SGD(params, lr=0.2, momentum=0.9, weight_decay=0.1)


# schedules --------------------------------------------------------------------------------------------------------


def rates_of(scheduler, optimizer, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


MAKERS = {
    "step": lambda optimizer: StepLR(optimizer, 2, 0.1),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 3),
    "milestones": lambda optimizer: MultiStepLR(optimizer, [1, 2], 0.5),
    "exponential": lambda optimizer: ExponentialLR(optimizer, 0.3),
    "none": None,
}


def optimizer():
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)


def alone(maker, steps):
    own = optimizer()
    if maker is None:
        return [0.2] * steps
    return rates_of(maker(own), own, steps)


@pytest.mark.parametrize("first", MAKERS)
@pytest.mark.parametrize("second", MAKERS)
def test_the_second_schedule_is_as_if_it_stood_alone(first, second):
    own = optimizer()
    staged = StagedLR(own, MAKERS[first], MAKERS[second])
    assert rates_of(staged, own, 4) == alone(MAKERS[first], 4)
    staged.begin_second()
    assert staged.get_last_lr() == [0.2]
    # and from the middle of either, in another process
    begun = rates_of(staged, own, 2)
    again = optimizer()
    other = StagedLR(again, MAKERS[first], MAKERS[second])
    again.load_state_dict(own.state_dict())
    other.load_state_dict(staged.state_dict())
    rest = rates_of(staged, own, 3)
    assert begun + rest == pytest.approx(alone(MAKERS[second], 5))
    assert rates_of(other, again, 3) == rest


def test_each_stage_has_the_optimizer_s_own_momentum():
    def one_cycle(optimizer):
        return OneCycleLR(optimizer, 0.5, total_steps=9)

    own = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.7)
    staged = StagedLR(own, one_cycle, None)
    rates_of(staged, own, 3)
    staged.begin_second()
    assert (own.param_groups[0]["lr"], own.param_groups[0]["momentum"]) == (0.2, 0.7)
    # in the second stage it may be moved as well, and stays where it was in another process
    staged = StagedLR(own, None, one_cycle)
    staged.begin_second()
    rates_of(staged, own, 3)
    again = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.7)
    other = StagedLR(again, None, one_cycle)
    again.load_state_dict(own.state_dict())
    other.load_state_dict(staged.state_dict())
    for _ in range(2):
        one, two = ({k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (own, again))
        assert one == two
        staged.step()
        other.step()


def test_no_stage_waits_for_a_plateau():
    with pytest.raises(ValueError, match=r"lr_scheduler=ReduceLROnPlateau.*two stages"):
        StagedLR(optimizer(), ReduceLROnPlateau, None)


class Restarts(TwoStageModule):
    """Cross-entropy twice."""

    def begin_second_stage(self):
        self.begun = self.current_epoch
        self.momentum = dict(self.trainer.optimizers[0].state)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_the_second_stage_is_a_training_of_its_own(interval, tmp_path):
    options = {"from_epoch": 2, "second_scheduler": MAKERS["cosine"], "lr_interval": interval}
    recipe = Recipe(Restarts, options, data={"samples": 64}, trainer={"max_epochs": 4})
    trainer = fit(recipe)
    module = trainer.lightning_module
    assert module.begun == 2
    assert module.momentum == {}
    steps = 8 if interval == "step" else 2
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(alone(MAKERS["cosine"], steps + 1)[-1])
    # a run that is resumed inside the second stage does not begin it again
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    longer = recipe.but(trainer={"max_epochs": 5})
    again = resume(longer, path)
    assert not hasattr(again.lightning_module, "begun")
    assert different(snapshot(fit(longer)), snapshot(again)) == []


def test_a_second_stage_that_never_comes_is_told():
    recipe = Recipe(Restarts, {"from_epoch": 2}, data={"samples": 32}, trainer={"max_epochs": 2})
    with pytest.warns(UserWarning, match=r"Restarts begins its own part at from_epoch=2.*after 2 epochs"):
        fit(recipe)


def test_clipped_and_accumulated_gradients_move_the_part_that_is_trained_alone():
    options = {"optimizer": decaying_sgd}
    recipe = Recipe(HoldsTheBody, options, net="conv", data={"samples": 64, "noise": 0.0})
    before = NETS["conv"]()
    for trainer in ({"gradient_clip_val": 0.1}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}):
        module = fit(recipe.but(trainer={"max_epochs": 1, **trainer})).lightning_module
        torch.manual_seed(0)
        start = NETS["conv"]()
        assert different(start.body.state_dict(), module.net.body.state_dict()) == [], trainer
        assert different(before.head.state_dict(), module.net.head.state_dict()) != [], trainer


def test_a_trained_network_needs_the_second_stage_alone():
    x, y = digits()
    module = Restarts(NETS["mlp"](), CLASSES, from_epoch=0)
    trainer_of(max_epochs=1).fit(module, DataLoader(TensorDataset(x[:32].float(), y[:32]), 16))
    assert module.begun == 0
