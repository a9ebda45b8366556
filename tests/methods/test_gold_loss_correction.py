"""Gold loss correction in its two phases."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, arrays, fit, mlp, sgd
from testkit.training import Recipe, Saves, different, snapshot, trainer_of
from testkit.training import fit as fit_digits
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_perturb.methods import GoldLossCorrection


def make(norm=False, **options):
    torch.manual_seed(0)
    return GoldLossCorrection(mlp(norm), CLASSES, optimizer=sgd, **options).double()


class Watch(Callback):
    """The losses by hand, the clean batches, and the network at the ends of epochs."""

    def __init__(self):
        self.steps, self.last, self.clean = [], {}, []

    def on_before_backward(self, trainer, module, loss):
        self.before = {name: value.clone() for name, value in module.net.state_dict().items()}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        net = mlp().double()
        net.load_state_dict(self.before)
        noisy, clean = batch["train"], batch["meta"]
        T = module.transition.double()
        corrected = -(net(noisy.x).softmax(1) @ T).gather(1, noisy.y[:, None]).log().mean()
        if clean is not None:
            self.clean += clean.index.tolist()
            share = module.share.double()
            corrected = (1 - share) * corrected + share * F.cross_entropy(net(clean.x), clean.y)
        self.steps.append((trainer.current_epoch, float(outputs["loss"]), float(corrected), clean is not None))

    def on_train_epoch_end(self, trainer, module):
        self.last[trainer.current_epoch] = {name: value.clone() for name, value in module.net.state_dict().items()}


def test_the_second_phase_has_the_corrected_and_the_clean_loss():
    watch, module, served = Watch(), make(), arrays()
    fit(module, served, max_epochs=4, callbacks=[watch])
    # the estimate by hand: the network as the first phase left it, for the clean samples
    net = mlp().double().eval()
    net.load_state_dict(watch.last[1])
    p = net(served.raw_inputs(served.meta_index).double()).softmax(1)
    y = torch.from_numpy(served.true_labels[served.meta_index])
    expected = torch.stack([p[y == c].mean(0) for c in range(CLASSES)])
    torch.testing.assert_close(module.transition.double(), expected, rtol=1e-6, atol=1e-6)
    assert float(module.share) == pytest.approx(8 / 60)
    for epoch, loss, corrected, clean in watch.steps:
        # in the first phase T is the identity, and nothing clean is loaded
        assert clean == (epoch >= 2)
        assert loss == pytest.approx(corrected, rel=1e-5)
    assert set(watch.clean) == set(served.meta_index.tolist())


def test_the_share_of_the_clean_samples():
    for share, used in ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0)):
        module = make(clean_share=share, estimate_epochs=1)
        fit(module, max_epochs=2)
        assert float(module.share) == used


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(6, dtype=torch.float64), 1)] * 8)


def test_loaders_of_ones_own():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, dtype=torch.float64, generator=generator)
    noisy = DataLoader(TensorDataset(x, torch.arange(30) % CLASSES), 8)
    clean = DataLoader(TensorDataset(x[:10], torch.arange(10) % CLASSES), 5)
    runner = trainer_of(max_epochs=2, precision="64-true")
    module = make()
    runner.fit(module, {"train": noisy, "meta": clean})
    assert float(module.share) == pytest.approx(0.25)
    assert module.transition.sum(1).tolist() == pytest.approx([1.0] * CLASSES)

    with pytest.raises(ValueError, match="goes through the clean samples a second time, which Stream does not allow"):
        trainer_of(max_epochs=2, precision="64-true").fit(make(), {"train": noisy, "meta": DataLoader(Stream(), 4)})
    few = DataLoader(TensorDataset(x[:10], torch.zeros(10, dtype=torch.int64)), 5)
    with pytest.raises(ValueError, match="no sample of 3 of 4 classes"):
        trainer_of(max_epochs=2, precision="64-true").fit(make(), {"train": noisy, "meta": few})
    with pytest.raises(ValueError, match="Set clean_share"):
        trainer_of(max_epochs=2, precision="64-true").fit(make(), {"train": DataLoader(Stream(), 4), "meta": clean})


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"clean_share=1\.5"):
        make(clean_share=1.5)
    with pytest.raises(ValueError, match="estimate_epochs=0"):
        make(estimate_epochs=0)
    with pytest.raises(ValueError, match=r"GoldLossCorrection learns from clean meta samples .* leaves no clean"):
        fit(make(), arrays(meta_size=0))


@pytest.mark.parametrize("at", ["epoch-step=6", "batch-step=10", "epoch-step=12", "batch-step=15"])
def test_resumed_in_either_phase(at, tmp_path):
    # 6 batches an epoch, the phases meet after 2 epochs
    recipe = Recipe(GoldLossCorrection, net="conv-norm-dropout", trainer={"max_epochs": 4})
    saves = [Saves(tmp_path, "batch", every_n_train_steps=5), Saves(tmp_path, "epoch", save_on_train_epoch_end=True)]
    whole = snapshot(fit_digits(recipe, callbacks=saves))
    resumed = snapshot(fit_digits(recipe, seed=9, ckpt_path=tmp_path / f"{at}.ckpt"))
    assert different(whole, resumed) == []
