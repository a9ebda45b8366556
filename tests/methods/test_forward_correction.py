"""Forward correction in its two phases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, arrays, fit, mlp, sgd
from testkit.training import Recipe, Saves, different, snapshot
from testkit.training import fit as fit_digits
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_perturb.core.scores import training_predictions
from lightning_perturb.methods import CrossEntropy, ForwardCorrection


def step_decay(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)


def make(norm=False, dropout=0.0, **options):
    torch.manual_seed(0)
    return ForwardCorrection(mlp(norm, dropout), CLASSES, optimizer=sgd, lr_scheduler=step_decay, **options).double()


def data(**options):
    return arrays(meta_size=0, **options)


class Watch(Callback):
    """What an epoch starts and ends with."""

    def __init__(self):
        self.first, self.last, self.rates, self.steps = {}, {}, [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.first[trainer.current_epoch] = {k: v.clone() for k, v in module.net.state_dict().items()}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 0:
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        logits, y, T = outputs["logits"], batch.y, module.transition.double()
        corrected = -((logits.softmax(1) @ T).gather(1, y[:, None]).log()).mean()
        plain = F.cross_entropy(logits, y)
        self.steps.append((trainer.current_epoch, float(outputs["loss"]), float(plain), float(corrected)))

    def on_train_epoch_end(self, trainer, module):
        self.last[trainer.current_epoch] = {k: v.clone() for k, v in module.net.state_dict().items()}


def test_the_second_phase_starts_anew_with_the_anchors_of_the_first():
    watch, module, served = Watch(), make(norm=True), data()
    fit(module, served, max_epochs=6, callbacks=[watch])
    # the estimate by hand: the network as the first phase left it, in evaluation mode, over the training split in order
    net = mlp(norm=True).double().eval()
    net.load_state_dict(watch.last[2])
    prob = net(served.raw_inputs(served.train_index).double()).softmax(1)
    expected = torch.stack([prob[prob[:, c].argmax()] for c in range(CLASSES)])
    torch.testing.assert_close(module.transition, expected.to(module.transition.dtype), rtol=1e-5, atol=1e-6)
    assert np.allclose(watch.rates, [0.2, 0.2, 0.02, 0.2, 0.2, 0.02])
    for epoch, loss, plain, corrected in watch.steps:
        assert loss == pytest.approx(plain if epoch < 3 else corrected, rel=1e-6)
    assert abs(watch.steps[-1][2] - watch.steps[-1][3]) > 1e-3

    # and from there on it is a run of its own
    alone = make(norm=True, transition=module.transition.tolist())
    optimizer = sgd(alone.net.parameters())
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = watch.rates[epoch]
        for batch in orders(served, 3 + epoch):
            x, y = batch
            loss = -((alone.net(x).softmax(1) @ alone.transition.double()).gather(1, y[:, None]).log()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, value in alone.net.state_dict().items():
        torch.testing.assert_close(value, watch.last[5][name], rtol=1e-6, atol=1e-7)


def orders(served, epoch):
    permutation = np.random.default_rng([served.seed, epoch]).permutation(len(served.train_index))
    for part in np.split(served.train_index[permutation], range(8, len(permutation), 8)):
        yield served.raw_inputs(part).double(), torch.from_numpy(served.given_labels[part])


def test_outliers_are_passed_over():
    module, served = make(filter_top=0.1), data()
    seen = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 0:
                seen.append(training_predictions(module))

    fit(module, served, max_epochs=2, callbacks=[Look()])
    (prob,) = seen
    assert prob.shape == (len(served.train_index), CLASSES)
    for c in range(CLASSES):
        row = prob[prob[:, c].argsort(descending=True)[round(0.1 * len(prob))]]
        torch.testing.assert_close(module.transition[c].double(), row, rtol=1e-5, atol=1e-6)


def test_a_known_transition_needs_no_first_phase():
    matrix = (0.6 * torch.eye(CLASSES) + 0.1).tolist()
    watch = Watch()
    fit(make(transition=matrix), data(), max_epochs=2, callbacks=[watch])
    assert all(loss == pytest.approx(corrected, rel=1e-6) for _, loss, _, corrected in watch.steps)
    plain, identity = CrossEntropy(make().net, CLASSES, optimizer=sgd), make(transition=torch.eye(CLASSES).tolist())
    fit(plain, data(), max_epochs=1)
    fit(identity, data(), max_epochs=1)
    for one, other in zip(plain.net.parameters(), identity.net.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_loader_of_ones_own_is_gone_through_in_order():
    x = torch.randn(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % CLASSES
    found = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, module):
            state = torch.get_rng_state()
            found.append((training_predictions(module), module.net.eval()(x).softmax(1).detach()))
            module.net.train()
            assert torch.equal(torch.get_rng_state(), state)

    from testkit.training import trainer_of

    runner = trainer_of(max_epochs=2, precision="64-true", callbacks=[Look()])
    runner.fit(make(dropout=0.5), DataLoader(TensorDataset(x, y), 8, shuffle=True))
    for one, other in found:
        torch.testing.assert_close(one, other)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(6, dtype=torch.float64), 1)] * 8)


def test_faults_are_named():
    with pytest.raises(ValueError, match="estimate_epochs=0"):
        make(estimate_epochs=0)
    with pytest.raises(ValueError, match=r"filter_top=1\.0 is outside"):
        make(filter_top=1.0)
    with pytest.raises(ValueError, match="transition must have 4 rows of 4"):
        make(transition=[[1.0]])
    with pytest.raises(ValueError, match="transition has the row sums"):
        make(transition=torch.ones(CLASSES, CLASSES).tolist())
    with pytest.raises(ValueError, match="Set estimate_epochs"):
        fit(make(), data(), max_epochs=-1, max_steps=3)
    from testkit.training import trainer_of

    with pytest.raises(ValueError, match="goes through the training set a second time, which Stream does not allow"):
        trainer_of(max_epochs=2, precision="64-true").fit(make(), DataLoader(Stream(), 4))


@pytest.mark.parametrize("at", ["epoch-step=6", "batch-step=10", "epoch-step=12", "batch-step=15"])
def test_resumed_in_either_phase(at, tmp_path):
    # 6 batches an epoch, the phases meet after 2 epochs
    recipe = Recipe(ForwardCorrection, net="conv-norm-dropout", trainer={"max_epochs": 4})
    saves = [Saves(tmp_path, "batch", every_n_train_steps=5), Saves(tmp_path, "epoch", save_on_train_epoch_end=True)]
    whole = snapshot(fit_digits(recipe, callbacks=saves))
    resumed = snapshot(fit_digits(recipe, seed=9, ckpt_path=tmp_path / f"{at}.ckpt"))
    assert different(whole, resumed) == []


def test_a_resumed_run_keeps_the_length_of_its_first_phase(tmp_path):
    recipe = Recipe(ForwardCorrection, data={"samples": 32}, trainer={"max_epochs": 4})
    path = tmp_path / "last.ckpt"
    fit_digits(recipe).save_checkpoint(path)
    longer = recipe.but(trainer={"max_epochs": 5, "limit_train_batches": 1})
    assert fit_digits(longer, ckpt_path=path).current_epoch == 5
    longer = recipe.but(trainer={"max_epochs": 10, "limit_train_batches": 1})
    with pytest.raises(ValueError, match=r"estimate_epochs=None takes half of max_epochs, now 5.*began with 2"):
        fit_digits(longer, ckpt_path=path)
    said = longer.but(options={"estimate_epochs": 2}, trainer={"max_epochs": 6})
    assert fit_digits(said, ckpt_path=path).current_epoch == 6
