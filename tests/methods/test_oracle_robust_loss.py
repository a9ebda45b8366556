"""The robust loss that knows which labels are wrong."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, arrays, batches, fit, mlp, sgd

from lightning_perturb.data import Symmetric
from lightning_perturb.methods import CrossEntropy, OracleRobustLoss


def make(robust_loss="gce", **options):
    torch.manual_seed(0)
    return OracleRobustLoss(mlp(), CLASSES, optimizer=sgd, robust_loss=robust_loss, **options).double()


class Watch(Callback):
    def __init__(self):
        self.seen, self.losses = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        wrong = torch.from_numpy(trainer.datamodule.noisy)[batch.index]
        self.seen.append((outputs, wrong))
        p = outputs["logits"].softmax(1).gather(1, batch.y[:, None])[:, 0]
        self.losses.append((float(outputs["loss"]), float(torch.where(wrong, 1 - p, -p.log()).mean())))


@pytest.mark.parametrize("robust_loss", ["gce", "js"])
def test_clean_samples_get_cross_entropy_and_noisy_ones_1_minus_p(robust_loss):
    watch = Watch()
    fit(make(robust_loss), arrays(meta_size=0), callbacks=[watch])
    assert len(watch.seen) == 8
    name = {"gce": "q", "js": "pi1"}[robust_loss]
    for outputs, wrong in watch.seen:
        assert torch.equal(outputs[f"hyperparameter/{name}"], wrong.double())
    assert 0 < sum(int(wrong.sum()) for _, wrong in watch.seen) < 60
    for found, expected in watch.losses:
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("robust_loss", ["gce", "sl", "js", "polysoft"])
def test_gradients_are_finite_and_noisy_samples_weigh_less(robust_loss):
    module = make(robust_loss)
    train, _ = batches()
    train.extra["noisy"] = torch.arange(7) < 3
    logits = (module.net(train.x) * 3).detach().requires_grad_()
    losses = module.sample_loss(logits, train.y, train)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, train.y, reduction="sum"), logits)
    assert bool(gradient.isfinite().all())
    share = gradient.norm(dim=1) / plain.norm(dim=1)
    assert share[:3].max() < share[3:].min() or robust_loss == "sl"
    if robust_loss in ("gce", "sl", "js"):
        torch.testing.assert_close(share[3:], torch.ones_like(share[3:]))
    if robust_loss == "polysoft":
        assert share[:3].max() == 0


def test_without_noise_it_is_cross_entropy():
    module = make()
    fit(module, arrays(meta_size=0, label_noise=None))
    torch.manual_seed(0)
    plain = CrossEntropy(mlp(), CLASSES, optimizer=sgd).double()
    fit(plain, arrays(meta_size=0, label_noise=None))
    for one, other in zip(module.net.parameters(), plain.net.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_no_other_method_is_told():
    told = []

    class Look(Callback):
        def on_train_start(self, trainer, module):
            told.append((type(module), trainer.datamodule.facts.noisy))

    for module in (make(), CrossEntropy(mlp(), CLASSES, optimizer=sgd)):
        fit(module, arrays(meta_size=0, label_noise=Symmetric(0.3)), callbacks=[Look()])
    assert told[0][1].sum() > 0
    assert told[1] == (CrossEntropy, None)


def test_faults_are_named():
    with pytest.raises(ValueError, match="robust_loss='huber' is unknown"):
        make("huber")
    with pytest.raises(ValueError, match=r"clean=\[1.0\] must hold 2 number\(s\), for gamma1 and gamma2"):
        make("sl", clean=[1.0])
    with pytest.raises(ValueError, match=r"noisy=\[1.5\] does not fit the loss: q=1.5 is outside"):
        make("gce", noisy=[1.5])
