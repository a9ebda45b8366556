import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import CSVLogger
from testkit.training import CLASSES, Recipe, digits, fit, module_of, tiny_data, trainer_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.callbacks import Recorder, Records
from lightning_perturb.callbacks.recorder import observe
from lightning_perturb.methods import CrossEntropy, LogPert, MixPert


class ByHand(Callback):
    """The same numbers in NumPy, one sample at a time, from what the network put out in training."""

    def __init__(self):
        self.rows = {}

    def on_train_start(self, trainer, pl_module):
        pl_module.net.register_forward_hook(lambda net, args, out: setattr(self, "logits", out.detach().numpy().copy()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for u, label, i in zip(self.logits.astype(np.float64), batch.y.tolist(), batch.index.tolist(), strict=True):
            rival = max(value for c, value in enumerate(u) if c != label)
            probability = np.exp(u[label]) / np.exp(u).sum()
            self.rows[trainer.current_epoch, i] = (u[label] - rival, -np.log(probability), int(u.argmax()), label)


@pytest.mark.parametrize("method", [CrossEntropy, MixPert, LogPert])
def test_equals_a_recomputation_by_hand(method, tmp_path):
    recorder, by_hand = Recorder(str(tmp_path)), ByHand()
    trainer = fit(Recipe(method, data={"val_size": 16}), callbacks=[recorder, by_hand])
    records = Records.open(tmp_path)
    data = trainer.datamodule
    assert records.margin.shape == records.loss.shape == records.prediction.shape == (3, 96)
    assert (records.margin.dtype, records.loss.dtype) == (np.float16, np.float16)
    assert records.prediction.dtype == np.int16
    seen = np.zeros((3, 96), dtype=bool)
    for (epoch, i), (margin, loss, prediction, label) in by_hand.rows.items():
        seen[epoch, i] = True
        assert records.margin[epoch, i] == pytest.approx(margin, rel=2e-3, abs=2e-3)
        assert records.loss[epoch, i] == pytest.approx(loss, rel=2e-3, abs=2e-3)
        assert records.prediction[epoch, i] == prediction
        assert records.given[i] == label
    # validation samples were never trained on
    assert seen.sum() == 3 * 80
    assert np.isnan(records.margin[~seen]).all()
    assert (records.prediction[~seen] == -1).all()
    assert (records.given[data.val_index] == -1).all()

    last = np.array([by_hand.rows[2, i][2] for i in data.train_index])
    given, true = data.given_labels[data.train_index], data.true_labels[data.train_index]
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["train/acc"] == pytest.approx(np.mean(last == given))
    assert metrics["train/acc_true"] == pytest.approx(np.mean(last == true))
    wrong = given != true
    assert wrong.any()
    assert metrics["train/memorised"] == pytest.approx(np.mean(last[wrong] == given[wrong]))


def test_norm_is_recorded_where_the_method_tells_it(tmp_path):
    fit(Recipe(LogPert, options={"warmup_epochs": 1}), callbacks=[Recorder(str(tmp_path))])
    norm = Records.open(tmp_path).perturbation_norm
    assert np.isnan(norm[0]).all()
    assert (norm[1:] >= 0).all()
    assert (norm[1:] > 0).any()


def test_clean_labels_log_no_memorisation(tmp_path):
    trainer = fit(Recipe(CrossEntropy, data={"noise": 0.0}), callbacks=[Recorder(str(tmp_path))])
    assert "train/acc_true" in trainer.callback_metrics
    assert "train/memorised" not in trainer.callback_metrics


def test_lies_beside_the_logs_and_starts_anew_in_a_used_folder(tmp_path):
    logger = CSVLogger(tmp_path, name="run", version=3)
    recorder = Recorder()
    recipe = Recipe(CrossEntropy, trainer={"logger": logger, "log_every_n_steps": 1})
    fit(recipe, callbacks=[recorder])
    assert recorder.folder == tmp_path / "run" / "version_3" / "records"
    assert len(recorder.records) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(recipe.but(trainer={"max_epochs": 1}), seed=1, callbacks=[Recorder()])
    assert len(Records.open(tmp_path / "run" / "version_3")) == 1


def test_one_more_fit_of_the_same_trainer_adds_rows(tmp_path):
    recorder = Recorder(str(tmp_path))
    recipe = Recipe(CrossEntropy)
    module, data = module_of(recipe), tiny_data()
    trainer = trainer_of(max_epochs=2, callbacks=[recorder])
    trainer.fit(module, datamodule=data)
    before = np.array(recorder.records.margin)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, datamodule=data)
    assert len(recorder.records) == 3
    np.testing.assert_array_equal(recorder.records.margin[:2], before)


@pytest.mark.parametrize("stop", [{"max_epochs": -1, "max_steps": 10}, {"limit_train_batches": 4, "max_epochs": 2}])
def test_epochs_unknown_or_cut_short(stop, tmp_path):
    fit(Recipe(CrossEntropy, trainer=stop), callbacks=[Recorder(str(tmp_path))])
    records = Records.open(tmp_path)
    assert records.margin.shape == (2, 96)
    # 6 batches make an epoch
    expected = [96, 64] if "max_steps" in stop else [64, 64]
    assert (~np.isnan(records.margin)).sum(1).tolist() == expected


def test_fast_dev_run_writes_nothing(tmp_path):
    recorder = Recorder(str(tmp_path / "records"))
    recipe = Recipe(CrossEntropy, trainer={"fast_dev_run": True, "default_root_dir": tmp_path})
    trainer = fit(recipe, callbacks=[recorder])
    assert recorder.records is None
    assert list(tmp_path.rglob("*")) == []
    assert "train/acc" in trainer.callback_metrics


def test_index_without_data_module_grows_the_table(tmp_path):
    x, y = digits()
    rows = [(x[:20], torch.arange(20)), (x[20:50], torch.arange(20, 50) * 3)]
    sets = [TensorDataset(part.float(), y[i], i) for part, i in rows]

    class Growing(LightningModule):
        """Not ours; its second epoch has further samples."""

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))

        def train_dataloader(self):
            return DataLoader(sets[min(self.current_epoch, 1)], batch_size=10)

        def training_step(self, batch, batch_idx):
            x, y, index = batch
            logits = self.net(x)
            loss = nn.functional.cross_entropy(logits, y)
            return {"loss": loss, "logits": logits, "y": y.int(), "index": index}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer = trainer_of(
        max_epochs=2, reload_dataloaders_every_n_epochs=1, callbacks=[Recorder(str(tmp_path))], log_every_n_steps=1
    )
    trainer.fit(Growing())
    records = Records.open(tmp_path)
    assert records.prediction.shape == (2, 148)
    assert (records.prediction[0] >= 0).nonzero()[0].tolist() == list(range(20))
    assert (records.prediction[1] >= 0).nonzero()[0].tolist() == list(range(60, 148, 3))
    np.testing.assert_array_equal(records.given[:20], y[:20])


def _plain_fit(module, tmp_path, batches=2):
    x, y = digits()
    recorder = Recorder(str(tmp_path / "records"))
    trainer = trainer_of(max_epochs=2, callbacks=[recorder], default_root_dir=tmp_path)
    trainer.fit(module, DataLoader(TensorDataset(x[:32].float(), y[:32]), batch_size=32 // batches))
    return recorder


def test_batches_without_index_warn_once_with_the_remedy(tmp_path):
    with pytest.warns(UserWarning, match="no sample index.*Wrap") as caught:
        recorder = _plain_fit(module_of(Recipe(CrossEntropy)), tmp_path)
    assert sum("Recorder" in str(warning.message) for warning in caught) == 1
    assert recorder.records is None


class Foreign(LightningModule):
    def __init__(self, returns):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
        self.returns = returns

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        return {"tensor": loss, "mapping": {"loss": loss, "logits": x}, "nothing": None}[self.returns]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.parametrize("returns", ["tensor", "mapping", "nothing"])
def test_other_modules_are_left_alone(returns, tmp_path):
    with pytest.warns(UserWarning, match="training_step does not return"):
        assert _plain_fit(Foreign(returns), tmp_path).records is None


def test_soft_labels_are_not_recorded(tmp_path):
    class Soft(Foreign):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits, soft = self.net(x), nn.functional.one_hot(y, CLASSES).float()
            loss = nn.functional.cross_entropy(logits, soft)
            return {"loss": loss, "logits": logits, "y": soft, "index": torch.arange(len(x))}

    with pytest.warns(UserWarning, match="no class ids"):
        assert _plain_fit(Soft(""), tmp_path).records is None


def test_observe_extreme_and_half_precision_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    ids, values = observe(logits, torch.tensor([0, 0]), torch.tensor([5, 7], dtype=torch.int32), [None])
    assert ids.tolist() == [[5, 0, 0], [7, 0, 1]]
    assert values.dtype == torch.float32
    assert not values.requires_grad
    assert torch.isfinite(values[:, :2]).all()
    torch.testing.assert_close(values[:, 0], torch.tensor([1e4, -2e4]), rtol=1e-2, atol=0.0)
    assert values[:, 2].isnan().all()


def test_many_classes_take_wider_predictions(tmp_path):
    class Wide(Foreign):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = nn.functional.pad(self.net(x), (0, 40_000)) + torch.arange(40_010)
            return {"loss": logits.mean(), "logits": logits, "y": y, "index": torch.arange(len(x))}

    records = _plain_fit(Wide(""), tmp_path, batches=1).records
    assert records.prediction.dtype == np.int32
    assert (records.prediction == 40_009).all()
