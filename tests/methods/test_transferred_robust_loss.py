"""Snapshots of an adjuster, and the robust loss that uses them on other data."""

import math
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from testkit.meta import CLASSES, adam, arrays, batches, fit, mlp, sgd
from testkit.training import Saves

import lightning_perturb
from lightning_perturb import adjusters
from lightning_perturb.methods import NARLAdjuster, TransferredRobustLoss
from lightning_perturb.nets import Adjuster

NAMES = [f"adjuster-{part}of3.pt" for part in (1, 2, 3)]


def learner(**options):
    torch.manual_seed(0)
    options = {"optimizer": sgd, "meta_optimizer": adam, "hidden": 6, "meta_every": 2, **options}
    return NARLAdjuster(mlp(), CLASSES, **options).double()


def transferred(**options):
    torch.manual_seed(1)
    return TransferredRobustLoss(mlp(), CLASSES, optimizer=sgd, **options).double()


@pytest.fixture
def three(tmp_path):
    """A folder of three snapshots that differ, and what the fit that wrote them had at their epochs."""
    seen = {}

    class Look(Callback):
        def on_train_epoch_end(self, trainer, module):
            seen[trainer.current_epoch + 1] = {k: v.clone() for k, v in module.meta_net.state_dict().items()}

    fit(learner(snapshots=str(tmp_path / "a")), max_epochs=4, callbacks=[Look()])
    return tmp_path / "a", seen


def test_they_are_taken_at_thirds_and_hold_everything(three):
    folder, seen = three
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    for name, epoch in zip(NAMES, (2, 3, 4), strict=True):
        path = folder / name
        assert path.stat().st_size < 6000
        found = torch.load(path, weights_only=True)
        assert found["weights"].keys() == seen[epoch].keys()
        assert all(torch.equal(found["weights"][key], value) for key, value in seen[epoch].items())
        assert (found["epoch"], found["epochs"]) == (epoch, 4)
        assert (found["robust_loss"], found["outputs"], found["hidden"]) == ("gce", 1, 6)
        assert (found["scale"], found["low"], found["high"], found["offset"]) == ([1.5], [0.01], [1.0], [0.0])
        assert found["soft_range"] is False
        assert found["provenance"]["data"] == "Arrays"
        assert found["provenance"]["label_noise"] == "Symmetric(rate=0.4)"
        assert found["provenance"]["meta_size"] == 8
    assert not torch.equal(seen[2]["layers.0.weight"], seen[4]["layers.0.weight"])


@pytest.mark.parametrize(("epochs", "expected"), [(1, [1, 1, 1]), (2, [1, 2, 2]), (3, [1, 2, 3]), (6, [2, 4, 6])])
def test_the_epochs_of_short_runs(epochs, expected, tmp_path):
    fit(learner(snapshots=str(tmp_path)), max_epochs=epochs, limit_train_batches=2)
    assert [adjusters.read(tmp_path / name)["epoch"] for name in NAMES] == expected


def test_they_stand_beside_the_logs_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = CSVLogger(tmp_path / "logs", name="", version="run")
    fit(learner(), max_epochs=1, logger=logger)
    assert sorted(p.name for p in (tmp_path / "logs/run/adjuster").iterdir()) == NAMES
    fit(learner(), max_epochs=1)
    fit(learner(snapshots="quick"), fast_dev_run=True)
    assert not list(Path().rglob("quick/*"))
    assert len(list(Path().rglob("*.pt"))) == 3


def test_a_run_that_was_resumed_writes_all_three_into_its_own_folder(tmp_path):
    saves = Saves(tmp_path, "epoch", save_on_train_epoch_end=True)
    fit(learner(snapshots=str(tmp_path / "whole")), max_epochs=3, callbacks=[saves])
    middle = sorted(tmp_path.glob("*.ckpt"))[0]
    fit(learner(snapshots=str(tmp_path / "resumed")), max_epochs=3, ckpt_path=middle)
    for name in NAMES:
        one, other = (adjusters.read(tmp_path / folder / name) for folder in ("whole", "resumed"))
        assert one["epoch"] == other["epoch"]
        assert all(torch.equal(one["weights"][key], value) for key, value in other["weights"].items())


def write_on_ranks(folder):
    fit(
        learner(snapshots=str(folder)), arrays(batch_size=4, meta_batch_size=3), max_epochs=3, strategy="ddp", devices=2
    )
    return sorted(path.name for path in Path(folder).iterdir())


def test_rank_0_writes_alone(ranks, tmp_path):
    assert ranks(write_on_ranks, tmp_path)[0] == NAMES
    fit(learner(snapshots=str(tmp_path / "one")), max_epochs=3)
    for name in NAMES:
        one, two = adjusters.read(tmp_path / "one" / name), adjusters.read(tmp_path / name)
        for key, value in one["weights"].items():
            torch.testing.assert_close(two["weights"][key], value, rtol=1e-9, atol=1e-9)


def test_each_third_of_the_epochs_has_its_own_adjuster(three):
    folder, seen = three
    used = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            q = outputs["hyperparameter/q"]
            assert q.shape == batch.y.shape
            margins = outputs["logits"].clone()
            own = margins.gather(1, batch.y[:, None])
            rest = margins.scatter(1, batch.y[:, None], -torch.inf).max(1, keepdim=True)[0]
            for epoch, weights in seen.items():
                hidden = (weights["layers.0.weight"] @ (own - rest).T + weights["layers.0.bias"][:, None]).relu()
                raw = (weights["layers.2.weight"] @ hidden + weights["layers.2.bias"][:, None])[0]
                if torch.allclose((1.5 * raw.sigmoid()).clamp(0.01, 1.0), q, rtol=1e-12):
                    used.append((trainer.current_epoch, epoch))

    module = transferred(adjuster=str(folder))
    fit(module, arrays(meta_size=0), max_epochs=6, callbacks=[Look()])
    assert list(dict.fromkeys(used)) == [(0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (5, 4)]
    assert len(used) == 6 * 8
    assert module.automatic_optimization
    assert not module.needs.meta
    assert not [name for name in module.state_dict() if "adjuster" in name]


def test_steps_say_where_a_run_is_that_has_no_epochs(three):
    parts = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            parts.append(module.part)

    fit(transferred(adjuster=str(three[0])), arrays(meta_size=0), max_epochs=-1, max_steps=12, callbacks=[Look()])
    assert parts == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(ValueError, match="neither max_epochs nor max_steps"):
        fit(transferred(adjuster=str(three[0])), arrays(meta_size=0), max_epochs=-1)


@pytest.mark.parametrize("robust_loss", ["gce", "sl", "js", "polysoft"])
def test_loss_and_gradient_are_those_of_the_adjuster(robust_loss):
    torch.manual_seed(3)
    adjuster = Adjuster(robust_loss, hidden=5).double()
    module = transferred().double()
    module.use([adjusters.take(adjuster, 1, 1)])
    module.trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    train, _ = batches()
    logits = module.net(train.x)
    found = module.sample_loss(logits, train.y, train)
    constants = {name: value.detach() for name, value in adjuster.hyperparameters(logits, train.y).items()}
    expected = adjuster.loss(logits, train.y, constants)
    assert torch.equal(found, expected)
    one, other = (
        torch.autograd.grad(value.sum(), module.net[0].weight, retain_graph=True)[0] for value in (found, expected)
    )
    assert torch.equal(one, other)
    assert set(train.extra) == {f"hyperparameter/{name}" for name in constants}
    assert all(math.isfinite(value) for value in found.tolist())


def test_resume_and_load_need_no_files(three, tmp_path):
    folder, _ = three
    data = {"meta_size": 0}
    saves = Saves(tmp_path, "epoch", save_on_train_epoch_end=True)
    whole = transferred(adjuster=str(folder))
    fit(whole, arrays(**data), max_epochs=3, callbacks=[saves])
    for path in folder.iterdir():
        path.unlink()
    first = sorted(tmp_path.glob("*.ckpt"))[0]
    resumed = transferred(adjuster=str(folder))
    fit(resumed, arrays(**data), max_epochs=3, ckpt_path=first)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    again = lightning_perturb.load(first, net=mlp())
    assert [snapshot["epoch"] for snapshot in again.snapshots] == [2, 3, 4]
    fit(again, arrays(**data), max_epochs=1)
    with pytest.raises(ValueError, match=r"gives 0 snapshots"):
        fit(transferred(adjuster=str(folder)), arrays(**data))


def start(**options):
    fit(transferred(**options), arrays(meta_size=0))


def test_faults_are_named(three, tmp_path):
    folder, _ = three
    paths = [str(folder / name) for name in NAMES]
    with pytest.raises(ValueError, match="adjuster=None adjusts nothing"):
        start()
    with pytest.raises(FileNotFoundError, match="adjuster='nowhere' is neither a file nor a folder"):
        start(adjuster="nowhere")
    with pytest.raises(FileNotFoundError, match=r"adjuster='.*gone.pt' is not a file"):
        start(adjuster=[*paths[:2], str(folder / "gone.pt")])
    with pytest.raises(ValueError, match=r"gives 2 snapshots\. Give one file, or 3"):
        start(adjuster=paths[:2])
    with pytest.raises(ValueError, match="learned for the loss 'gce', not for robust_loss='sl'"):
        start(adjuster=paths, robust_loss="sl")
    for name, content in {"text.pt": b"no zip", "cut.pt": Path(paths[0]).read_bytes()[:900]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}' is no snapshot of an adjuster"):
            start(adjuster=str(tmp_path / name))
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match=r"foreign.pt' is no snapshot of an adjuster"):
        start(adjuster=str(tmp_path / "foreign.pt"))
    torch.save(mlp(), tmp_path / "code.pt")
    with pytest.raises(ValueError, match=r"code.pt' cannot be read as plain data"):
        start(adjuster=str(tmp_path / "code.pt"))
    with pytest.raises(ValueError, match=r"snapshots='x' are taken at thirds"):
        fit(learner(snapshots="x"), max_epochs=-1, max_steps=3)


def changed(path, **changes):
    return {**torch.load(path, weights_only=True), **changes}


def test_snapshots_that_do_not_fit_are_named(three, tmp_path):
    folder, _ = three
    good = folder / NAMES[0]
    cases = {
        "has 1 output.*, but 'sl' has 2": {"robust_loss": "sl"},
        "adjusts the loss 'huber', which is none of": {"robust_loss": "huber"},
        "hidden=7 asks for": {"hidden": 7},
    }
    for number, (message, changes) in enumerate(cases.items()):
        torch.save(changed(good, **changes), tmp_path / f"{number}.pt")
        with pytest.raises(ValueError, match=message):
            start(adjuster=str(tmp_path / f"{number}.pt"))
    wide = adjusters.take(Adjuster("gce", hidden=9), 2, 4)
    adjusters.write(wide, tmp_path / "wide.pt")
    with pytest.raises(ValueError, match="mixes snapshots of hidden 6 and 9"):
        start(adjuster=[str(good), str(tmp_path / "wide.pt"), str(good)])
    lacking = changed(good)
    del lacking["scale"]
    torch.save(lacking, tmp_path / "lacking.pt")
    with pytest.raises(ValueError, match="lacks 'scale'"):
        start(adjuster=str(tmp_path / "lacking.pt"))


def test_another_adjuster_takes_the_place_of_the_checkpoints(three, tmp_path):
    folder, _ = three
    other = tmp_path / "js"
    fit(learner(robust_loss="js", snapshots=str(other)), max_epochs=3)
    saves = Saves(tmp_path, "epoch", save_on_train_epoch_end=True)
    fit(transferred(adjuster=str(folder)), arrays(meta_size=0), callbacks=[saves])
    (path,) = tmp_path.glob("*.ckpt")
    again = lightning_perturb.load(path, net=mlp(), adjuster=str(other), robust_loss="js")
    fit(again, arrays(meta_size=0))
    assert {snapshot["robust_loss"] for snapshot in again.snapshots} == {"js"}
    with pytest.raises(ValueError, match="robust_loss='js', but the checkpoint holds an adjuster of 'gce'"):
        fit(lightning_perturb.load(path, net=mlp(), robust_loss="js"), arrays(meta_size=0))
