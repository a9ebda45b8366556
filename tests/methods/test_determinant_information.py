"""DMI after its start with cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, arrays, batches, fit, mlp, sgd
from testkit.training import Recipe, different, snapshot
from testkit.training import fit as fit_digits

from lightning_perturb.core.distributed import rank, world_size
from lightning_perturb.methods import DMI


def make(**options):
    torch.manual_seed(0)
    return DMI(mlp(), CLASSES, optimizer=sgd, **options).double()


class Watch(Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        logits, y = outputs["logits"], batch.y
        rows = torch.stack([logits.softmax(1)[y == c].sum(0) / len(y) for c in y.unique()])
        size = len(y) ** len(rows)
        volume = -math.log(size * math.sqrt(float(torch.det(rows @ rows.T))) + 0.001) + math.log(size)
        volume *= len(rows) > 1
        self.steps.append((trainer.current_epoch, float(outputs["loss"]), float(F.cross_entropy(logits, y)), volume))
        assert ("sample_loss" in outputs) == (trainer.current_epoch < 2)


def test_cross_entropy_comes_first():
    watch = Watch()
    fit(make(), arrays(meta_size=0), max_epochs=4, callbacks=[watch])
    for epoch, loss, plain, volume in watch.steps:
        assert loss == pytest.approx(volume if epoch >= 2 else plain, rel=1e-6)


class Rates(Callback):
    def __init__(self):
        self.rates, self.buffers = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.buffers.append(bool(optimizer.state))


def test_the_second_phase_has_a_fresh_optimizer_at_a_smaller_rate():
    watch = Rates()
    options = {"rate_factor": 0.1, "lr_scheduler": lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5)}
    fit(make(**options), arrays(meta_size=0), max_epochs=4, callbacks=[watch])
    assert watch.rates[::8] == pytest.approx([0.2, 0.1, 0.005, 0.0025])
    # the momentum of the first phase is forgotten, once
    assert [place for place, known in enumerate(watch.buffers) if not known] == [0, 16]


def test_it_learns_what_noise_of_classes_hides():
    recipe = Recipe(
        DMI, {"first_epochs": 8, "rate_factor": 0.1}, data={"samples": 400, "noise": 0.3, "batch_size": 100}
    )
    recipe = recipe.but(trainer={"max_epochs": 12, "check_val_every_n_epoch": 12})
    trainer = fit_digits(recipe)
    (tested,) = trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert tested["test/acc"] > 0.7


def gradient_of_a_rank() -> list[torch.Tensor]:
    """As data-parallel training averages it; 7 samples in all, unevenly split over the ranks."""
    train, _ = batches(size=7)
    mine = {1: slice(0, 7), 2: [slice(0, 4), slice(4, 7)][rank()]}[world_size()]
    module = make(first_epochs=1)
    module.phases = lambda: [(0, "main")]
    train.x, train.y, train.index = train.x[mine], train.y[mine], train.index[mine]
    loss = module.loss({"logits": module.net(train.x)}, train)
    found = torch.autograd.grad(loss, list(module.net.parameters()))
    if world_size() > 1:
        for gradient in found:
            torch.distributed.all_reduce(gradient)
    return [gradient / world_size() for gradient in found]


def test_the_batch_of_all_ranks_has_one_determinant(ranks):
    expected = gradient_of_a_rank()
    for found in ranks(gradient_of_a_rank):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_faults_are_named():
    with pytest.raises(ValueError, match="first_epochs=0"):
        make(first_epochs=0)
    with pytest.raises(ValueError, match="missing='none'"):
        make(missing="none")
    with pytest.raises(ValueError, match="rate_factor=0"):
        make(rate_factor=0.0)
    with pytest.raises(ValueError, match="floor=-1"):
        make(floor=-1.0)
    with pytest.raises(ValueError, match="first_epochs=None takes half of max_epochs"):
        fit(make(), arrays(meta_size=0), max_epochs=-1, max_steps=3)


def test_a_first_phase_of_the_whole_run_is_cross_entropy():
    from lightning_perturb.methods import CrossEntropy

    long = snapshot(fit_digits(Recipe(DMI, {"first_epochs": 2}, trainer={"max_epochs": 2})))
    plain = snapshot(fit_digits(Recipe(CrossEntropy, trainer={"max_epochs": 2})))
    assert different(long, plain) == ["module/slowed"]
