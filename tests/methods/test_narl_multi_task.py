"""One adjuster over several tasks."""

import copy

import pytest
import torch
from testkit.meta import CLASSES, adam, arrays, batches, fit, mlp, reference, sgd
from testkit.training import Saves, different, snapshot

import lightning_perturb
from lightning_perturb.data import PairFlip, Symmetric, Tasks
from lightning_perturb.methods import NARLAdjuster, NARLMultiTask

NOISES = (Symmetric(0.2), PairFlip(0.4), Symmetric(0.6))


def make(tasks=3, norm=False, dropout=0.0, **options):
    torch.manual_seed(0)
    options = {"optimizer": sgd, "meta_optimizer": adam, "hidden": 6, "meta_every": 2, **options}
    return NARLMultiTask(mlp(norm, dropout), CLASSES, tasks=tasks, **options).double()


def data(count=3, **options):
    return Tasks([arrays(label_noise=NOISES[k], seed=k, **options) for k in range(count)])


def test_the_adjuster_moves_by_the_sum_of_the_tasks_meta_gradients():
    # one step by hand: every task's hypergradient by `higher`, summed, Adam, then SGD of every network
    module = make()
    parts = {str(k): dict(zip(("train", "meta"), batches(seed=k), strict=True)) for k in range(3)}
    shadow = copy.deepcopy(module)
    total = None
    for part in parts.values():
        alone = NARLAdjuster(copy.deepcopy(shadow.net), CLASSES, optimizer=sgd, hidden=6).double()
        alone.meta_net = shadow.meta_net
        found = reference(alone, part["train"], part["meta"], 0.2)
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
        assert float(total[0].norm()) > 0
    moved = adam(shadow.meta_net.parameters())
    for parameter, gradient in zip(shadow.meta_net.parameters(), total, strict=True):
        parameter.grad = gradient
    moved.step()
    for net, part in zip(shadow.nets, parts.values(), strict=True):
        optimizer = sgd(net.parameters())
        logits = net(part["train"].x)
        values = {k: v.detach() for k, v in shadow.hyperparameters(logits, part["train"].y).items()}
        shadow.robust(logits, part["train"].y, values).mean().backward()
        optimizer.step()

    class Once(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([parts])

    from testkit.training import trainer_of
    from torch.utils.data import DataLoader

    trainer_of(max_epochs=1, precision="64-true").fit(module, DataLoader(Once(), batch_size=None))
    expected = shadow.state_dict()
    for name, value in module.state_dict().items():
        if "net" in name.split(".")[0]:
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11)
    assert not torch.equal(module.net[0].weight, module.other_nets[0][0].weight)


@pytest.mark.parametrize("robust_loss", ["gce", "polysoft"])
def test_one_task_is_the_plain_adjuster(robust_loss):
    one, plain = make(1, norm=True, dropout=0.3, robust_loss=robust_loss), make(1, norm=True, dropout=0.3)
    plain = NARLAdjuster(
        plain.net, CLASSES, optimizer=sgd, meta_optimizer=adam, hidden=6, meta_every=2, robust_loss=robust_loss
    ).double()
    plain.meta_net.load_state_dict(one.meta_net.state_dict())
    found = []
    for module in (one, plain):
        torch.manual_seed(5)
        fit(module, arrays(), max_epochs=2)
        found.append(module.state_dict())
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def options_of(**changes):
    return {"max_epochs": 2, "check_val_every_n_epoch": 1, **changes}


def test_resume_is_exact(tmp_path):
    val_size = 8
    saves = [Saves(tmp_path, "batch", every_n_train_steps=4), Saves(tmp_path, "epoch", save_on_train_epoch_end=True)]
    torch.manual_seed(3)
    whole = fit(make(norm=True, dropout=0.3), data(val_size=val_size), saves, **options_of())
    paths = sorted(tmp_path.glob("*.ckpt"))
    last = whole.global_step
    assert len(paths) >= 5
    for path in paths:
        if path.stem.endswith(f"={last}"):
            continue
        torch.manual_seed(99)
        resumed = fit(make(norm=True, dropout=0.3), data(val_size=val_size), ckpt_path=path, **options_of())
        assert different(snapshot(whole), snapshot(resumed)) == [], path.stem
    with pytest.raises(ValueError, match="trained on 3 tasks, the data has 2"):
        fit(make(norm=True, dropout=0.3), data(2, val_size=val_size), ckpt_path=paths[0], **options_of())


def on_ranks(size, meta, **trainer):
    module = make()
    fit(module, data(batch_size=size, meta_batch_size=meta), max_epochs=2, **trainer)
    return {k: v for k, v in module.state_dict().items() if "metrics" not in k}


def test_two_ranks_are_one_process(ranks):
    expected = on_ranks(8, 6)
    first, second = ranks(on_ranks, 4, 3, strategy="ddp", devices=2)
    assert different(first, second) == []
    assert different(expected, first, tolerance=1e-9) == []


def test_every_task_is_evaluated_by_its_own_network(tmp_path):
    module, served = make(), data(val_size=8)
    trainer = fit(module, served, max_epochs=2, limit_val_batches=1.0)
    correct = count = 0
    module.eval()
    for net, inner in zip(module.nets, served.datamodules, strict=True):
        logits = net(inner.raw_inputs(inner.val_index).double())
        correct += int((logits.argmax(1) == torch.from_numpy(inner.given_labels[inner.val_index])).sum())
        count += len(logits)
    assert count == 24
    assert float(trainer.callback_metrics["val/acc"]) == pytest.approx(correct / count)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again = lightning_perturb.load(tmp_path / "run.ckpt", net=mlp())
    assert again.tasks == 3
    assert all(torch.equal(a.float(), b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_recorders_get_the_samples_of_all_tasks():
    told = []
    from lightning.pytorch import Callback

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            told.append((outputs, batch))

    fit(make(), data(), callbacks=[Look()])
    for outputs, batch in told:
        y = torch.cat([batch[str(k)]["train"].y for k in range(3)])
        assert torch.equal(outputs["y"], y)
        assert outputs["logits"].shape == (len(y), CLASSES)
        assert outputs["hyperparameter/q"].shape == y.shape
        assert outputs["index"] is None


def test_each_network_is_clipped_by_its_own_norm():
    module = make(gradient_clip_val=0.01)
    for net in module.nets:
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
    groups = module.clipped_together(module.trained_parameters())
    assert [len(group) for group in groups] == [4, 4, 4]
    assert len({id(p) for group in groups for p in group}) == 12


def test_the_snapshots_say_what_the_tasks_were(tmp_path):
    fit(make(snapshots=str(tmp_path)), data(), max_epochs=3)
    found = torch.load(tmp_path / "adjuster-3of3.pt", weights_only=True)["provenance"]
    assert found["tasks"] == 3
    assert found["data"] == "Arrays"
    assert found["label_noise"] == "Symmetric(rate=0.2), PairFlip(rate=0.4), Symmetric(rate=0.6)"


def test_the_tasks_counts_are_summed():
    tasks = data()
    tasks.setup("fit")
    parts = [part.facts for part in tasks.datamodules]
    for name in ("class_counts", "true_counts"):
        expected = sum(getattr(part, name) for part in parts)
        assert getattr(tasks.facts, name).tolist() == expected.tolist()
    assert tasks.facts.true_counts.tolist() != tasks.facts.class_counts.tolist()


def test_faults_are_named():
    with pytest.raises(ValueError, match="tasks=0"):
        make(0)
    with pytest.raises(ValueError, match=r"tasks=2, but the data serve 3 task\(s\). Set tasks of NARLMultiTask to 3"):
        fit(make(2), data(3))
    with pytest.raises(ValueError, match=r"tasks=2, but the data serve 1 task"):
        fit(make(2), arrays())
    with pytest.raises(ValueError, match=r"datamodules=\[\] has no task"):
        Tasks([])
    from lightning.pytorch import LightningDataModule

    with pytest.raises(ValueError, match=r"datamodules\[0\]=LightningDataModule .* Put Wrap"):
        Tasks([LightningDataModule()])
    with pytest.raises(ValueError, match="leaves no clean samples"):
        fit(make(), data(meta_size=0))
