import math

import pytest
import torch
from testkit.script import CLASSES, assert_same, cross_entropy, make, onehot, replay, softmax, train

from lightning_perturb.methods import CrossEntropy, ProSelfLC


@pytest.mark.parametrize("total", [None, 4])
@pytest.mark.parametrize("detach", [False, True])
def test_trust_grows_by_step(detach, total):
    trusts = []

    def loss(logits, batch, epoch, number):
        t = min(epoch * 3 + number + 1, total or 6)
        time = 1 / (1 + math.exp(-10 * (t / (total or 6) - 0.4)))
        trusts.append(time)
        u = logits(batch[0])
        p = softmax(u.detach() if detach else u)
        entropy = -(p * p.log()).sum(1).detach()
        weight = (time * (1 - entropy / math.log(CLASSES)))[:, None]
        return cross_entropy(u, (1 - weight) * onehot(batch[1]) + weight * p).mean()

    module = make(ProSelfLC, B=10.0, r=0.4, total_steps=total, detach_target=detach)
    assert_same(train(module), replay(loss))
    assert trusts == sorted(trusts)
    assert trusts[0] < 0.2 < 0.9 < trusts[-1]


def test_time_counts_optimizer_steps():
    # two batches a step: three epochs of three batches make two steps each
    seen = []
    module = make(ProSelfLC)
    perturb = module.perturb_target
    module.perturb_target = lambda *a: (
        seen.append((module.global_step, module.trainer.estimated_stepping_batches)),
        perturb(*a),
    )[1]
    train(module, epochs=2, accumulate_grad_batches=2)
    assert [step for step, _ in seen] == [0, 0, 1, 2, 2, 3]
    assert {total for _, total in seen} == {4}


def test_no_trust_is_cross_entropy():
    # at r = 1 and a steep B, trust is below e-40 in the first half of the time
    module = make(ProSelfLC, B=400.0, r=1.0, total_steps=1000)
    assert_same(train(module), train(make(CrossEntropy)))


def test_a_run_without_an_end():
    with pytest.raises(ValueError, match=r"no end to stretch the trust over. Set max_epochs, max_steps or total_steps"):
        train(make(ProSelfLC), epochs=-1)


@pytest.mark.parametrize(
    ("options", "message"), [({"B": 0.0}, "B=0"), ({"r": 2.0}, "r=2"), ({"total_steps": 0}, "total_steps=0")]
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(ProSelfLC, **options)


def test_uniform_predictions_are_not_trusted():
    module = make(ProSelfLC, total_steps=1)
    u = torch.zeros(3, CLASSES, dtype=torch.float64)
    label = module.perturb_target(u, type("B", (), {"y": torch.tensor([0, 1, 2])}))
    torch.testing.assert_close(label, onehot(torch.tensor([0, 1, 2])))
