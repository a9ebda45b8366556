"""Meta logit adjustment."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from testkit.meta import CLASSES, adam, arrays, assert_hypergradient, batches, fit, mlp, sgd

from lightning_perturb.data import Exponential
from lightning_perturb.methods import MetaLogitAdjustment

COUNTS = torch.tensor([8, 4, 3, 1])


def make(**options):
    torch.manual_seed(0)
    return MetaLogitAdjustment(mlp(), CLASSES, optimizer=sgd, meta_optimizer=adam, **options)


def test_its_hypergradient_is_exact():
    module = make().double()
    module.class_counts.copy_(COUNTS)
    (gradient,) = assert_hypergradient(module)
    assert gradient.shape == (CLASSES,)


def test_every_class_has_its_own_strength():
    module = make(tau=0.5).double()
    module.class_counts.copy_(COUNTS)
    with torch.no_grad():
        module.tau[1] = 3.0
    train, _ = batches()
    logits = module.net(train.x)
    shift = torch.tensor([0.5, 3.0, 0.5, 0.5]) * torch.log(COUNTS / 16)
    expected = F.cross_entropy(logits + shift.double(), train.y)
    assert torch.allclose(module.loss({"logits": logits}, train), expected, rtol=1e-6)
    assert torch.equal(module(train.x), logits)


def test_tau_moves_on_a_tail():
    module = make()
    fit(module, arrays(label_noise=None, imbalance=Exponential(4.0)), max_epochs=2)
    assert (module.tau - 1).abs().min() > 1e-3


def test_counts_come_from_the_data_or_by_hand():
    samples = torch.utils.data.DataLoader(
        [(torch.randn(6, dtype=torch.float64), n % 4) for n in range(8)], batch_size=4
    )
    loaders = {"train": samples, "meta": samples}

    def run(module):
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module.double(), loaders)

    with pytest.raises(ValueError, match=r"needs the number of training samples of each class.*class_counts"):
        run(make())
    module = make(class_counts=COUNTS.tolist())
    run(module)
    assert (module.tau != 1).all()
    for counts in ([1, 2, 3], [1, 2, 3, 0]):
        with pytest.raises(ValueError, match="must be 4 numbers of samples above 0"):
            make(class_counts=counts)


def test_a_class_without_samples_is_named():
    module = make()
    module.class_counts[0] = 3
    with pytest.raises(ValueError, match=r"not above 0 for the classes \[1, 2, 3\]"):
        module.loss({"logits": torch.zeros(2, CLASSES)}, batches(size=2)[0])
