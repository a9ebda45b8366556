"""IADA with a given strategy."""

import copy
import itertools

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.covariances import Statistics, quadratic, signs
from testkit.meta import CLASSES, WithFeatures, arrays, batches, fit, sgd
from torch import Tensor

from lightning_perturb.data import Exponential
from lightning_perturb.functional import Observation
from lightning_perturb.methods import IADA

COUNTS = [8, 4, 3, 1]
PARTS = ("generalization", "robustness", "fairness")


def make(**options):
    torch.manual_seed(0)
    return IADA(WithFeatures(), CLASSES, **{"optimizer": sgd, "class_counts": COUNTS, **options}).double()


def by_confidence(seen: Observation) -> Tensor:
    """A strategy of the user's own."""
    return seen.probabilities[torch.arange(len(seen.target)), seen.target]


def of_another_shape(seen: Observation) -> Tensor:
    return seen.probabilities


THERE = f"{__name__}.by_confidence"


def expected_loss(module, outputs, y, epsilon, parts, alpha=0.3, beta=0.7, sigma=None):
    logits, weight = outputs["logits"], outputs["weight"]
    if sigma is None:
        statistics = Statistics(5)
        statistics.add(outputs["features"], y)
        sigma = statistics.covariance()
    u = logits
    if parts["generalization"]:
        u = u + alpha * quadratic(weight, sigma, y)
    if parts["robustness"]:
        u = u + (epsilon[:, None] * signs(logits, weight, y)) @ weight.T
    if parts["fairness"]:
        u = u + beta * torch.log(torch.tensor(COUNTS).double() / sum(COUNTS))
    return F.cross_entropy(u, y)


@pytest.mark.parametrize("switches", list(itertools.product([True, False], repeat=3)), ids=str)
def test_the_loss_is_equation_6_and_each_part_can_be_left_out(switches):
    parts = dict(zip(PARTS, switches, strict=True))
    module = make(alpha=0.3, beta=0.7, eps_scale=0.4, strategy=THERE, **parts)
    module.class_counts.copy_(torch.tensor(COUNTS))
    train, _ = batches()
    outputs = module.outputs(module.net, train)
    epsilon = 0.4 * outputs["logits"].softmax(1)[torch.arange(7), train.y].detach()
    expected = expected_loss(module, outputs, train.y, epsilon, parts)
    noted = train.copy()
    found = module.loss(outputs, noted)
    torch.testing.assert_close(found, expected)
    parameters = list(module.net.parameters())
    for one, other in zip(
        *(torch.autograd.grad(value, parameters, retain_graph=True) for value in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)
    assert {f"{part}_term" for part, on in parts.items() if on} == {n for n in noted.extra if n.endswith("_term")}
    if parts["robustness"]:
        torch.testing.assert_close(noted.extra["epsilon"], epsilon)


def test_with_nothing_in_it_it_is_cross_entropy():
    module = make(alpha=0.0, beta=0.0, strategy=None)
    module.class_counts.copy_(torch.tensor(COUNTS))
    train, _ = batches()
    outputs = module.outputs(module.net, train)
    torch.testing.assert_close(module.loss(outputs, train), F.cross_entropy(outputs["logits"], train.y))
    assert torch.equal(module.evaluation_logits(train.x), outputs["logits"])


class Peek(Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps.append((outputs, batch, trainer.current_epoch))


def test_what_it_tells_and_logs():
    peek = Peek()
    module = make(strategy="tail_adversarial", eps_scale=0.2, class_counts=None)
    start = copy.deepcopy(module.net)
    data = arrays(label_noise=None, imbalance=Exponential(4.0), batch_size=64)
    trainer = fit(module, data, callbacks=[peek])
    ((outputs, batch, _),) = peek.steps
    counts = torch.from_numpy(data.class_counts).double()
    log = counts.log()
    scaled = 0.2 * (1 - 2 * (log - log.min()) / (log.max() - log.min()))
    torch.testing.assert_close(outputs["epsilon"], scaled[batch.y])
    assert outputs["epsilon"][batch.y == 0].max() < 0 < outputs["epsilon"][batch.y == 3].min()

    logits, features = start.double()(batch.x)
    weight, y, q = start.head.weight, batch.y, logits.softmax(1)
    statistics = Statistics(5)
    statistics.add(features, y)
    own = torch.arange(len(y)), y
    moved = (scaled[y][:, None] * signs(logits, weight, y)) @ weight.T
    prior = (counts / counts.sum()).log().expand(len(y), -1)
    expected = {
        "generalization": (q * quadratic(weight, statistics.covariance(), y)).sum(1),
        "robustness": (q * (moved - moved[own][:, None])).sum(1),
        "fairness": (q * (prior - prior[own][:, None])).sum(1),
    }
    for name, value in expected.items():
        # the log is in single precision
        assert float(trainer.callback_metrics[f"train/{name}"]) == pytest.approx(float(value.mean()), rel=1e-5)


def test_histories_and_class_losses_run_in_the_warm_up_too():
    peek = Peek()
    module = make(warmup_epochs=1)
    fit(module, arrays(batch_size=64), callbacks=[peek], max_epochs=3)
    history = torch.full((60,), 1 / CLASSES, dtype=torch.float64)
    losses = torch.full((CLASSES,), float(torch.tensor(float(CLASSES)).log()), dtype=torch.float64)
    for outputs, batch, _ in peek.steps:
        loss = F.cross_entropy(outputs["logits"], batch.y, reduction="none")
        history[batch.index] = 0.9 * history[batch.index] + 0.1 * (-loss).exp()
        for c in range(CLASSES):
            losses[c] = 0.9 * losses[c] + 0.1 * loss[batch.y == c].mean()
    torch.testing.assert_close(module.label_history, history)
    torch.testing.assert_close(module.class_loss, losses)
    assert "epsilon" not in peek.steps[0][0]
    assert "epsilon" in peek.steps[1][0]


def test_faults_are_named():
    for options, text in (
        ({"strategy": "wild"}, r"strategy names 'wild'.*tail_adversarial.*import path"),
        ({"eps_scale": 0.0}, "eps_scale"),
        ({"alpha": -1.0}, "alpha"),
        ({"beta": -1.0}, "beta"),
    ):
        with pytest.raises(ValueError, match=text):
            make(**options)
    with pytest.raises(ValueError, match=r"strategy='of_another_shape' returned the shape \(8, 4\)"):
        fit(make(strategy=f"{__name__}.of_another_shape"))
    loader = torch.utils.data.DataLoader([(torch.zeros(6).double(), 1)] * 4, batch_size=2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    module = make(class_counts=None)
    with pytest.raises(ValueError, match="IADA needs the number of training samples of each class"):
        trainer.fit(module, loader)
