"""The base: one loss with four places for a term, phases, draws that belong to samples, data that is told."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from testkit.training import CLASSES, NETS, Recipe, digits, fit, module_of, tiny_data, trainer_of
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.core import Batch, Needs, PerturbationModule
from lightning_perturb.core import random as keyed
from lightning_perturb.methods import CrossEntropy, LogPert


class Loud(PerturbationModule):
    """Adds one number at each of the four places and keeps the order in which they were asked."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.order: list[str] = []

    def perturb_input(self, batch):
        self.order.append("input")
        return super().perturb_input(batch.with_input(batch.x + 1))

    def outputs(self, call, batch):
        self.order.append("outputs")
        return super().outputs(call, batch)

    def perturb_logits(self, logits, outputs, batch):
        self.order.append("logits")
        return super().perturb_logits(logits * 2, outputs, batch)

    def perturb_target(self, logits, batch):
        self.order.append("target")
        self.seen_by_target = logits
        return super().perturb_target(logits, batch)

    def perturb_loss(self, loss, logits, batch):
        self.order.append("loss")
        self.seen_by_loss = logits
        return super().perturb_loss(loss + 3, logits, batch)

    def update_state(self, outputs, batch):
        self.order.append("state")
        assert not torch.is_grad_enabled()
        assert outputs["logits"].requires_grad

    def start_epoch(self):
        self.order.append("epoch")


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.filterwarnings("ignore:.*self.log.*")
def test_the_line_of_the_taxonomy():
    module = Loud(linear(), 3)
    x, y = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    found = module.training_step((x, y), 0)
    raw = module.net(x + 1)
    expected = nn.functional.cross_entropy(2 * raw, y) + 3
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["logits"], raw.detach())
    assert module.order == ["epoch", "input", "outputs", "logits", "target", "loss", "state"]
    for seen in (module.seen_by_target, module.seen_by_loss):
        torch.testing.assert_close(seen, raw, msg="label and loss see the raw logits")
    module.order.clear()
    module.training_step((x, y), 1)
    assert "epoch" not in module.order
    module.warmup_epochs = 1
    module.order.clear()
    warm = module.training_step((x, y), 2)["loss"]
    torch.testing.assert_close(warm, nn.functional.cross_entropy(module.net(x), y))
    assert module.order == ["outputs", "state"]


def test_the_loss_is_pure_in_the_outputs():
    module = CrossEntropy(linear(), 3)
    u, y = torch.rand(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(
        module.loss({"logits": u}, Batch(torch.empty(5, 0), y)), nn.functional.cross_entropy(u, y)
    )
    soft = torch.rand(5, 3).softmax(1)
    torch.testing.assert_close(
        module.loss({"logits": u}, Batch(torch.empty(5, 0), soft)), nn.functional.cross_entropy(u, soft)
    )


@pytest.mark.parametrize(
    "wrap", [lambda u: u, lambda u: (u, "features"), lambda u: [u], lambda u: SimpleNamespace(logits=u)]
)
def test_what_networks_may_give(wrap):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return wrap(self.layer(x))

    module = CrossEntropy(Net(), 3)
    assert module(torch.rand(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("out", [torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, 3, 1), "text", None])
def test_what_networks_may_not_give(out):
    class Net(nn.Module):
        def forward(self, x):
            return out

    with pytest.raises(ValueError, match=r"net=Net gives .* where num_classes=3 asks for \(B, 3\)"):
        CrossEntropy(Net(), 3)(torch.rand(2, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_epochs": -1}, "warmup_epochs=-1"),
        ({"lr_interval": "batch"}, "lr_interval='batch'"),
        ({"num_classes": 1}, "num_classes=1"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropy(linear(), **{"num_classes": 3, **options})


def test_phases():
    class Epoch(CrossEntropy):
        epoch = 0

        @property
        def current_epoch(self):
            return self.epoch

    module = Epoch(linear(), 3, warmup_epochs=2)
    names = []
    for module.epoch in range(4):
        names.append(module.phase)
    assert names == ["warmup", "warmup", "main", "main"]
    module.phases = lambda: [(0, "warmup"), (0, "main"), (3, "late")]
    names = []
    for module.epoch in range(4):
        names.append(module.phase)
    assert names == ["main", "main", "main", "late"]


# draws ------------------------------------------------------------------------------------------------------------


def test_draws_belong_to_samples():
    module = CrossEntropy(linear(), 3, seed=11)
    batch = Batch(torch.rand(4, 4), torch.zeros(4, dtype=torch.int64), torch.tensor([7, 2, 9, 0]))
    part = Batch(batch.x[1:3], batch.y[1:3], batch.index[1:3])
    assert torch.equal(module.uniform("a", batch, 2)[1:3], module.uniform("a", part, 2))
    assert torch.equal(module.uniform("a", batch, 2), keyed.uniform(11, "a", 0, batch.index, 2))
    assert torch.equal(module.normal("a", batch), keyed.normal(11, "a", 0, batch.index))


@pytest.mark.parametrize(("own", "everywhere", "expected"), [(None, None, 0), (None, 5, 5), (3, 5, 3), (0, 5, 0)])
def test_where_the_seed_of_the_draws_comes_from(own, everywhere, expected, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if everywhere is not None:
        seed_everything(everywhere, verbose=False)
    module = CrossEntropy(NETS["mlp"](), CLASSES, seed=own)
    trainer_of(max_epochs=1, limit_train_batches=1).fit(module, tiny_data())
    assert module._draw_seed == expected


def test_without_an_index_there_is_no_state_per_sample():
    module = CrossEntropy(linear(), 3)
    with pytest.raises(ValueError, match=r"CrossEntropy keeps state per training sample and needs each sample's index"):
        module.indices(Batch(torch.rand(2, 4), torch.zeros(2)))


# data -------------------------------------------------------------------------------------------------------------


def test_the_data_module_tells_what_it_knows():
    trainer = fit(
        Recipe(LogPert, {"update": "joint"}, data={"val_size": 16, "samples": 112}, trainer={"max_epochs": 1})
    )
    module, data = trainer.lightning_module, trainer.datamodule
    assert (module.facts.num_samples, module.facts.num_classes) == (112, CLASSES)
    assert (module.facts.mean, module.facts.std) == (data.mean, data.std)
    counts = np.bincount(data.given_labels[data.train_index], minlength=CLASSES)
    assert module.class_counts.tolist() == counts.tolist()
    assert len(module.perturbation) == 112
    touched = module.perturbation.abs().sum(1) > 0
    assert touched.nonzero().flatten().tolist() == sorted(data.train_index.tolist())


def test_a_loader_of_ones_own_after_a_data_module():
    module = module_of(Recipe(LogPert, {"update": "joint"}))
    trainer_of(max_epochs=1).fit(module, tiny_data(samples=48))
    assert module.facts is not None
    x, y = digits()
    more = TensorDataset(x[:100].float() / 255, y[:100], torch.arange(100))
    trainer_of(max_epochs=1).fit(module, DataLoader(more, 20))
    assert module.facts is None
    assert len(module.perturbation) >= 100


def test_classes_that_disagree_with_the_data():
    with pytest.raises(ValueError, match=r"num_classes=12 of CrossEntropy disagrees with the data, which has 10"):
        trainer_of().fit(CrossEntropy(nn.Sequential(nn.Flatten(), nn.Linear(64, 12)), 12), tiny_data())


def test_needs_reach_the_data_module():
    class Two(CrossEntropy):
        needs = Needs(views=2)

        def training_step(self, batch, batch_idx):
            assert isinstance(batch.x, tuple)
            assert len(batch.x) == 2
            return super().training_step(batch, batch_idx)

    trainer = trainer_of(max_epochs=1)
    trainer.fit(Two(NETS["mlp"](), CLASSES), tiny_data(augment=True))
    assert trainer.global_step == 6


def test_a_method_of_ones_own_is_a_few_lines():
    class Shifted(PerturbationModule):
        """Logits moved by a constant.

        Args:
            by: How far.
            **kwargs: Arguments of the base.
        """

        def __init__(self, *args, by: float = 1.0, **kwargs):
            super().__init__(*args, **kwargs)
            self.by = by

        def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
            return logits + self.by

    trainer = trainer_of(max_epochs=1)
    trainer.fit(Shifted(NETS["mlp"](), CLASSES, by=2.0), tiny_data())
    assert trainer.lightning_module.hparams["by"] == 2.0
