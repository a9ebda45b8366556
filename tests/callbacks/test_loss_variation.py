"""The relative loss variation of classes, of every method, over a whole run."""

import copy
import itertools

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.cases import case_params
from testkit.training import NETS, Recipe, Saves, fit, module_of, resume, snapshot, tiny_data, trainer_of

from lightning_perturb import lattice as cells
from lightning_perturb.callbacks import LossVariationReport, Recorder, Records
from lightning_perturb.core import Batch
from lightning_perturb.data import Exponential
from lightning_perturb.functional import binary_cross_entropy_entries, cross_entropy
from lightning_perturb.methods import (
    DLB,
    DMI,
    IADA,
    ISDA,
    LPL,
    MLC,
    RBCELPL,
    BinaryCrossEntropy,
    CoTeaching,
    CrossEntropy,
    GoldLossCorrection,
    JoCoR,
    LabelSmoothing,
    LogitAdjustment,
    MetaMixUp,
    Mixup,
    MultiLabelCBFocal,
    MultiLabelLPL,
    Perturb,
    PGDTraining,
)  # fmt: skip

TAIL = {"imbalance": Exponential(ratio=8.0), "samples": 400, "noise": 0.0, "batch_size": 32}


class Watches(Callback):
    """What each step told; asks for the same as the report."""

    asks = ("compared",)

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        kept = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
        self.steps.append((trainer.current_epoch, {name: value.detach().clone() for name, value in kept.items()}))


def steps(recipe, *callbacks):
    watch = Watches()
    fit(recipe, callbacks=[watch, *callbacks])
    return watch.steps


def quiet(folder):
    return LossVariationReport(folder=str(folder))


# whose loss has more parts than the losses of the batch's samples by the one network
MORE_PARTS = (CoTeaching, JoCoR, GoldLossCorrection, MLC)


@pytest.mark.parametrize(("method", "options"), [case for case in case_params() if case.values[0] is not DMI])
def test_every_method_hands_over_the_losses_that_it_minimises(method, options):
    recipe = Recipe(method, options, net="dropout", data={"samples": 32}, trainer={"max_epochs": 2})
    seen, moved = steps(recipe), module_of(recipe).moves_input
    assert len(seen) == 4
    for epoch, told in seen:
        if epoch < options.get("warmup_epochs", 0):
            assert "compared/plain" not in told
            continue
        perturbed, plain, label = (told[f"compared/{name}"] for name in ("perturbed", "plain", "label"))
        assert perturbed.shape == plain.shape
        if method not in MORE_PARTS:
            assert perturbed.mean().item() == pytest.approx(told["loss"].item(), rel=2e-5, abs=1e-6)
        assert label.shape == (plain.shape if method.multi_label else plain.shape[:1])
        assert bool((plain >= 0).all())
        if not moved:
            plain_of = binary_cross_entropy_entries if method.multi_label else cross_entropy
            torch.testing.assert_close(plain[: len(told["y"])], plain_of(told["logits"], told["y"]))
            assert torch.equal(label[: len(told["y"])].long(), told["y"].long())


INPUTS = [
    (PGDTraining, {"steps": 2, "eps": 0.1}),
    (Mixup, {}),
    (MetaMixUp, {}),
    (Perturb, {"perturbations": [cells.Hyperparameter("feature", "corpus", value=0.2)]}),
]


@pytest.mark.parametrize(("method", "options"), INPUTS)
def test_methods_that_move_inputs_are_compared_with_the_inputs_as_they_came(method, options):
    class Before(Callback):
        """Copies of the network before each step, and its input."""

        def __init__(self):
            self.losses = []

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            batch = Batch.of(batch["train"] if isinstance(batch, dict) else batch)
            with torch.no_grad():
                self.losses.append(cross_entropy(copy.deepcopy(module.net)(batch.view), batch.y))

    before, watch = Before(), Watches()
    fit(Recipe(method, options, data={"samples": 32}), callbacks=[before, watch])
    for loss, (_, told) in zip(before.losses, watch.steps, strict=True):
        torch.testing.assert_close(told["compared/plain"], loss)
        assert not torch.allclose(told["compared/perturbed"], loss, rtol=1e-3)


@pytest.mark.parametrize(("method", "options"), INPUTS)
def test_their_other_pass_leaves_no_trace(method, options):
    recipe = Recipe(method, options, net="conv-norm-dropout", data={"samples": 32})
    with_it, without = snapshot(fit(recipe, callbacks=[Watches()])), snapshot(fit(recipe))
    assert with_it.keys() == without.keys()
    for name in without:
        assert torch.equal(with_it[name], without[name]), name


def test_the_other_pass_has_the_dropout_and_the_batch_norm_of_the_training_forward():
    recipe = Recipe(PGDTraining, {"eps": 0.0}, net="conv-norm-dropout", data={"samples": 32})
    for _, told in steps(recipe):
        assert torch.equal(told["compared/plain"], told["compared/perturbed"])


def test_nothing_is_told_where_nobody_asks():
    class Looks(Callback):
        seen = set()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.seen |= outputs.keys()
            assert not module.asked("compared")

    for method in (PGDTraining, RBCELPL, DLB):
        fit(Recipe(method, trainer={"max_epochs": 1}), callbacks=[Looks()])
    assert not any("compared" in name for name in Looks.seen)


def test_warm_up_does_not_count(tmp_path):
    recipe = Recipe(LogitAdjustment, {"warmup_epochs": 1}, data=TAIL)
    report = quiet(tmp_path)
    assert {epoch for epoch, told in steps(recipe, report) if "compared/plain" in told} == {1, 2}
    assert report.table()[0] == [1, 2]


def test_the_report_is_that_by_hand(tmp_path):
    report = LossVariationReport(last_epochs=2)
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    watch = Watches()
    trainer = fit(Recipe(LogitAdjustment, data=TAIL, trainer={"logger": logger}), callbacks=[report, watch])
    counts = trainer.datamodule.class_counts
    quotients = [
        (epoch, int(y), (float(p) - float(q)) / float(q))
        for epoch, told in watch.steps
        for y, p, q in zip(*(told[f"compared/{n}"] for n in ("label", "perturbed", "plain")), strict=True)
        if float(q) >= 1e-5
    ]

    def mean(keep):
        return np.mean([value for epoch, y, value in quotients if keep(epoch, y)])

    (part,) = report.by_class()
    assert part == ""
    for c in range(10):
        assert report.by_class()[""][c] == pytest.approx(mean(lambda e, y, c=c: e >= 1 and y == c), rel=1e-5)
    head = set(np.argsort(-counts, kind="stable")[:5].tolist())
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["train/loss_variation"] == pytest.approx(mean(lambda e, y: e == 2), rel=1e-5)
    assert logged["train/loss_variation_head"] == pytest.approx(mean(lambda e, y: e == 2 and y in head), rel=1e-5)
    assert logged["train/loss_variation_tail"] == pytest.approx(mean(lambda e, y: e == 2 and y not in head), rel=1e-5)
    assert logged["train/loss_variation_head"] < 0 < logged["train/loss_variation_tail"]

    folder = tmp_path / "run" / "version_0"
    names = ["loss_variation_by_class", "loss_variation_over_epochs"]
    assert report.paths == [folder / f"{name}.png" for name in names]
    assert all(path.stat().st_size > 1000 for path in report.paths)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert set(events.Tags()["images"]) == set(names)
    with np.load(folder / "loss_variation.npz") as table:
        assert table["epochs"].tolist() == [0, 1, 2]
        assert table["parts"].tolist() == [""]
        assert table["samples"].shape == (3, 1, 10)
        np.testing.assert_array_equal(table["samples"][:, 0], np.stack([counts] * 3))
        for epoch in range(3):
            for c in range(10):
                expected = mean(lambda e, y, epoch=epoch, c=c: e == epoch and y == c)
                assert table["variation"][epoch, 0, c] == pytest.approx(expected, rel=1e-5)
        losses = torch.cat([told["compared/plain"] for epoch, told in watch.steps if epoch == 2])
        whole = (table["plain"] * table["samples"])[2].sum() / counts.sum()
        assert whole == pytest.approx(float(losses.mean()), rel=1e-5)


def test_the_quotient_of_summed_losses(tmp_path):
    report = LossVariationReport(folder=str(tmp_path), average="class")
    watch = Watches()
    fit(Recipe(LabelSmoothing, data={"noise": 0.0}), callbacks=[report, watch])
    plain, perturbed, y = (
        torch.cat([told[f"compared/{n}"] for _, told in watch.steps]) for n in ("plain", "perturbed", "label")
    )
    for c in range(10):
        expected = float(perturbed[y == c].sum() / plain[y == c].sum() - 1)
        assert report.by_class()[""][c] == pytest.approx(expected, rel=1e-4)


def test_the_papers_findings():
    """[lpl Figs. 1, 11]: ISDA raises all losses, LA those of the tail; so does LPL by its split."""

    def by_class(method, options, data):
        # the last epoch: the networks have learnt a little
        report = LossVariationReport(last_epochs=1)
        report.on_fit_end = lambda trainer, module: None
        fit(Recipe(method, options, data=data), callbacks=[report])
        return report.by_class()[""]

    even = {"noise": 0.0}
    assert bool((by_class(CrossEntropy, {}, even) == 0).all())
    assert bool((by_class(ISDA, {}, even) > 0).all())
    for method, options in ((LogitAdjustment, {}), (LPL, {"split": "frequency", "head": 0.4})):
        found = by_class(method, options, TAIL)
        assert bool((found[:2] < 0).all()), method
        assert bool((found[-2:] > 0).all()), method


def test_several_labels(tmp_path):
    report = quiet(tmp_path)
    trainer = fit(Recipe(MultiLabelLPL, {"head": 0.5, "delta_eps": 0.5}), callbacks=[report])
    found = report.by_class()
    assert list(found) == ["pos", "neg"]
    head = trainer.lightning_module.sign < 0
    if not bool((found["pos"][head.numpy()] < 0).all()):
        head = ~head
    # the losses of the head's positives fall, those of its negatives rise; of the tail it is the other way round
    head = head.numpy()
    assert head.sum() == 5
    assert bool((found["pos"][head] < 0).all() and (found["neg"][head] > 0).all())
    assert bool((found["pos"][~head] > 0).all() and (found["neg"][~head] < 0).all())
    logged = trainer.callback_metrics
    assert {"train/loss_variation_pos", "train/loss_variation_neg"} <= logged.keys()
    assert "train/loss_variation" not in logged
    assert len(report.paths) == 2
    with np.load(tmp_path / "loss_variation.npz") as table:
        assert table["parts"].tolist() == ["pos", "neg"]
        assert table["samples"].shape == (3, 2, 10)
        assert bool((table["samples"].sum(1) == 96).all())


def test_what_weighs_whole_samples_weighs_their_entries():
    """A sample's weight of the class-balanced focal loss is the mean over its classes, so no entry shows it alone."""
    seen = steps(Recipe(MultiLabelCBFocal, {"gamma": 0.0, "focal_scale": 1.0}))
    weights = [told["compared/perturbed"] / told["compared/plain"] for _, told in seen]
    for each in weights:
        torch.testing.assert_close(each, each[:, :1].expand_as(each), rtol=1e-4, atol=1e-4)
    assert torch.cat(weights).std() > 0.01


def test_each_distilled_sample_of_dlb_counts_with_its_own_label():
    seen = [told for _, told in steps(Recipe(DLB, data={"batch_size": 16}))]
    assert torch.equal(seen[0]["compared/plain"], seen[0]["compared/perturbed"])
    for before, told in itertools.pairwise(seen):
        assert torch.equal(told["compared/label"], torch.cat([told["y"], before["y"]]))
        raised = told["compared/perturbed"] - told["compared/plain"]
        assert bool((raised[:16] == 0).all())
        assert bool((raised[16:] >= 0).all())
        assert raised[16:].sum() > 0


def test_plain_methods_and_foreign_modules(tmp_path):
    report = quiet(tmp_path)
    trainer = fit(Recipe(BinaryCrossEntropy), callbacks=[report])
    assert float(trainer.callback_metrics["train/loss_variation_pos"]) == 0
    assert len(report.paths) == 2

    class Foreign(CrossEntropy):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    report = quiet(tmp_path / "none")
    trainer_of(max_epochs=1, callbacks=[report]).fit(Foreign(NETS["mlp"](), 10), tiny_data())
    assert report.paths == []
    assert report.by_class() == {}
    assert not (tmp_path / "none").exists()


def test_a_dev_run_writes_nothing(tmp_path):
    report = quiet(tmp_path / "dev")
    fit(Recipe(LogitAdjustment, trainer={"fast_dev_run": True}), callbacks=[report])
    assert report.by_class()
    assert report.paths == []
    assert not (tmp_path / "dev").exists()


def test_bad_arguments():
    for options, message in (
        ({"last_epochs": 0}, "last_epochs=0"),
        ({"average": "mean"}, "average='mean' is unknown"),
        ({"smallest": -1.0}, "smallest=-1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            LossVariationReport(**options)


def test_a_recorder_keeps_both_losses_of_every_sample(tmp_path):
    recorder = Recorder(str(tmp_path / "records"))
    seen = steps(Recipe(LogitAdjustment, data={"noise": 0.0}), recorder)
    records = Records.open(tmp_path / "records")
    assert {"compared/plain", "compared/perturbed"} <= records.told.keys()
    last = [told for epoch, told in seen if epoch == 2]
    index = torch.cat([told["index"] for told in last]).numpy()
    for name in ("plain", "perturbed"):
        expected = torch.cat([told[f"compared/{name}"] for told in last]).numpy()
        np.testing.assert_allclose(records.told[f"compared/{name}"][2][index], expected, rtol=2e-3, atol=1e-3)


RECIPE = Recipe(IADA, {"warmup_epochs": 1, "eps_scale": 0.01})


def test_a_resumed_run_goes_on_adding(tmp_path):
    whole = quiet(tmp_path / "whole")
    fit(RECIPE, callbacks=[whole, Saves(tmp_path, "batch", every_n_train_steps=1)])
    epochs, expected = whole.table()
    assert epochs == [1, 2]
    for step in (3, 6, 8, 12, 15):
        rest = quiet(tmp_path / "rest")
        resume(RECIPE, tmp_path / f"batch-step={step}.ckpt", callbacks=[rest])
        found = rest.table()
        assert found[0] == epochs
        # added in another order
        torch.testing.assert_close(found[1], expected, rtol=1e-12, atol=1e-12)


def table(recipe, folder, path=None):
    report = quiet(folder)
    fit(recipe, callbacks=[report, Saves(folder, "batch", every_n_train_steps=8)], ckpt_path=path)
    return report.table()


@pytest.mark.parametrize("method", [LogitAdjustment, RBCELPL])
def test_ranks_add_together(method, ranks, tmp_path):
    recipe = Recipe(method, {"resample": False} if method is RBCELPL else {}).but(trainer={"precision": "64-true"})
    expected = table(recipe, tmp_path / "one")
    two = recipe.but(data={"batch_size": 8}, trainer={"strategy": "ddp", "devices": 2})
    for found in ranks(table, two, tmp_path / "two"):
        assert found[0] == expected[0]
        torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-9)
    for found in ranks(table, two, tmp_path / "again", tmp_path / "two" / "batch-step=8.ckpt"):
        # Lightning reads the weights of a checkpoint in single precision
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_two_reports_in_one_run_are_told_apart(tmp_path):
    def reports(name):
        return [
            LossVariationReport(folder=str(tmp_path / name / average), average=average)
            for average in ("sample", "class")
        ]

    recipe = Recipe(LabelSmoothing, {"eps": 0.3}, data=TAIL, trainer={"max_epochs": 2})
    both = reports("both")
    trainer = fit(recipe, callbacks=[*both, Saves(tmp_path, "batch", every_n_train_steps=3)])
    assert [report.state_key for report in both] == ["LossVariationReport", "LossVariationReport{'average': 'class'}"]
    logged = trainer.callback_metrics
    for one, name in zip(both, ("", "_class"), strict=True):
        alone = LossVariationReport(folder=str(tmp_path / "alone"), average=one.average)
        expected = fit(recipe, callbacks=[alone]).callback_metrics
        for group in ("", "_head", "_tail"):
            assert logged[f"train/loss_variation{name}{group}"] == expected[f"train/loss_variation{group}"]
    assert logged["train/loss_variation"] != logged["train/loss_variation_class"]
    rest = reports("rest")
    resume(recipe, tmp_path / "batch-step=3.ckpt", callbacks=rest)
    for one, other in zip(both, rest, strict=True):
        assert torch.equal(one.table()[1], other.table()[1])
    with pytest.raises(ValueError, match=r"Two callbacks LossVariationReport write into folder=None"):
        fit(recipe, callbacks=[LossVariationReport(), LossVariationReport(average="class")])
