import pytest
import torch
from testkit.script import assert_same, batches, cross_entropy, make, replay, softmax, train, weights

from lightning_perturb.core import Batch
from lightning_perturb.methods import DLB, CrossEntropy


@pytest.mark.parametrize(("temperature", "alpha"), [(3.0, 1.0), (2.0, 0.5)])
def test_six_steps_by_hand(temperature, alpha):
    last: list = []

    def loss(logits, batch, *_):
        (first, second), y, _ = batch
        u = logits(first)
        if not last:
            result = cross_entropy(u, y).mean()
        else:
            their_x, their_y, teacher = last.pop()
            student = logits(their_x)
            joint = torch.cat([cross_entropy(u, y), cross_entropy(student, their_y)]).mean()
            t, s = softmax(teacher / temperature), softmax(student / temperature)
            result = joint + alpha * temperature**2 * (t * (t.log() - s.log())).sum(1).mean()
        last.append((second, y, u.detach()))
        return result

    module = make(DLB, temperature=temperature, alpha=alpha)
    assert_same(train(module, views=2), replay(loss, views=2))


def test_the_first_step_is_cross_entropy():
    module, plain = make(DLB), make(CrossEntropy)
    for one, views in ((module, 2), (plain, 1)):
        train(one, epochs=1, views=views, limit_train_batches=1)
    assert torch.equal(weights(module.net), weights(plain.net))


def test_two_forwards_after_the_first_step():
    module = make(DLB)
    calls = []
    module.net.register_forward_hook(lambda *_: calls.append(module.global_step))
    train(module, epochs=1, views=2)
    assert calls == [0, 1, 1, 2, 2]


def test_a_smaller_last_batch():
    module = make(DLB)
    (x, z), y, _ = batches(2)[0]
    module.update_state({"logits": module.net(x)}, Batch((x, z), y))
    rest = Batch((x[:2], z[:2]), y[:2])
    outputs = module.outputs(module.net, rest)
    assert outputs["last_logits"].shape == (5, 4)
    assert torch.isfinite(module.loss(outputs, rest))


@pytest.mark.parametrize(("options", "message"), [({"temperature": 0.0}, "temperature="), ({"alpha": -1.0}, "alpha=")])
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(DLB, **options)
