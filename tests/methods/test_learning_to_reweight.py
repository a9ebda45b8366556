"""Learning to reweight."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, arrays, batches, fit, mlp, sgd
from testkit.training import Recipe
from testkit.training import fit as fit_digits

from lightning_perturb.core.distributed import rank, world_size
from lightning_perturb.methods import L2RW


def make(norm=False, **options):
    torch.manual_seed(0)
    return L2RW(mlp(norm), CLASSES, optimizer=sgd, **options).double()


def by_hand(net, train, meta):
    """Each sample's gradient against that of the clean samples, one by one."""
    parameters = list(net.parameters())

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    clean = gradient(F.cross_entropy(net(meta.x), meta.y))
    own = [gradient(F.cross_entropy(net(train.x[i : i + 1]), train.y[i : i + 1])) for i in range(len(train))]
    agreeing = torch.stack([(g * clean).sum() for g in own]).clamp(min=0)
    return agreeing / agreeing.sum() if agreeing.sum() > 0 else agreeing


@pytest.mark.parametrize("engine", ["forward", "higher"])
def test_weights_are_the_agreement_with_the_clean_gradient(engine):
    module, (train, meta) = make(engine=engine), batches(size=9)
    batch = module.perturb_input(train.copy())
    module._meta_step(module.hypergradient(batch, meta, 0.3), [], 0)
    expected = by_hand(module.net, train, meta)
    assert 0 < int((expected > 0).sum()) < 9
    torch.testing.assert_close(module._learned, expected)
    loss = module.loss({"logits": module.net(train.x)}, batch)
    plain = F.cross_entropy(module.net(train.x), train.y, reduction="none")
    assert float(loss) == pytest.approx(float((expected * plain).sum()))


class Watch(Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = {name: value.clone() for name, value in module.net.state_dict().items()}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        net = mlp().double()
        net.load_state_dict(self.before)
        weights = by_hand(net, batch["train"], batch["meta"])
        plain = F.cross_entropy(net(batch["train"].x), batch["train"].y, reduction="none")
        self.steps.append((float(outputs["loss"]), float((weights * plain).sum())))
        torch.testing.assert_close(outputs["hyperparameter/weight"], weights * len(batch["train"]))


def test_a_whole_training():
    watch = Watch()
    fit(make(), callbacks=[watch], max_epochs=2)
    assert len(watch.steps) == 14
    for loss, expected in watch.steps:
        assert loss == pytest.approx(expected)


def test_where_no_sample_leads_to_a_lower_loss_nothing_is_learned():
    module, (train, _) = make(), batches()
    # clean samples that say the opposite of every training sample at once
    meta = train.copy()
    batch = module.perturb_input(train.copy())
    found = module.hypergradient(batch, meta, 0.3)
    module.move_transient([found.gradients[0].abs()])
    assert module._learned.tolist() == [0.0] * 7
    assert float(module.loss({"logits": module.net(train.x)}, batch)) == 0


def weights_of_a_rank() -> list:
    train, meta = batches(size=8)
    mine = {1: slice(0, 8), 2: [slice(0, 6), slice(6, 8)][rank()]}[world_size()]
    own = {1: slice(0, 8), 2: [slice(0, 4), slice(4, 8)][rank()]}[world_size()]
    module = make()
    train.x, train.y, train.index = train.x[mine], train.y[mine], train.index[mine]
    meta.x, meta.y = meta.x[own], meta.y[own]
    batch = module.perturb_input(train)
    module._meta_step(module.hypergradient(batch, meta, 0.3), [], 0)
    loss = module.loss({"logits": module.net(train.x)}, batch)
    found = torch.autograd.grad(loss, list(module.net.parameters()))
    if world_size() > 1:
        for gradient in found:
            torch.distributed.all_reduce(gradient)
    return [module._learned.detach(), [gradient / world_size() for gradient in found]]


def test_the_weights_of_all_ranks_sum_to_one(ranks):
    weights, gradients = weights_of_a_rank()
    assert float(weights.sum()) == pytest.approx(1)
    for found, own in ranks(weights_of_a_rank):
        torch.testing.assert_close(found, weights, rtol=1e-10, atol=1e-14)
        for one, other in zip(own, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_it_learns():
    data = {"samples": 240, "noise": 0.3, "test_samples": 300, "meta_size": 40}
    recipe = Recipe(L2RW, {"optimizer": calm}, data=data, trainer={"max_epochs": 5})
    trainer = fit_digits(recipe)
    (tested,) = trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert tested["test/acc"] > 0.6


def calm(params):
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


def test_faults_are_named():
    with pytest.raises(ValueError, match="meta_every=2 leaves batches without weights"):
        make(meta_every=2)
    module = make(meta_optimizer=lambda params: torch.optim.SGD(params, 0.1))
    with pytest.raises(ValueError, match="meta_optimizer was given to L2RW"):
        fit(module, arrays())
