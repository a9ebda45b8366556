"""What only shows on two ranks: the pool itself, collectives, evaluation without padding, resume, uneven batches."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import seed_everything
from testkit.ranks import RankError
from testkit.training import (
    CLASSES,
    NETS,
    Recipe,
    all_moments,
    different,
    digits,
    fit,
    module_of,
    resume,
    sgd,
    snapshot,
    tiny_data,
    trainer_of,
)  # fmt: skip
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from lightning_perturb.core.distributed import gather_objects, gather_rows, mean_over_ranks, rank, world_size
from lightning_perturb.methods import DLB, CrossEntropy, LogPert, MixPert, OnlineLabelSmoothing

TWO = {"strategy": "ddp", "devices": 2}


# the pool ---------------------------------------------------------------------------------------------------------


def fail_on(which: int) -> str:
    if rank() == which:
        raise KeyError("a lost key")
    return "well"


def test_the_failure_of_a_rank_is_told_with_its_traceback(ranks):
    with pytest.raises(RankError, match=r"rank 1:(.|\n)*in fail_on(.|\n)*KeyError: 'a lost key'") as caught:
        ranks(fail_on, 1)
    assert "rank 0" not in str(caught.value)
    assert ranks(fail_on, 2) == ["well", "well"]


class Mine:
    """Known to this file alone."""

    def __init__(self, value: int) -> None:
        self.value = value


def doubled(mine: Mine) -> Mine:
    return Mine(2 * mine.value)


def test_arguments_and_results_may_be_of_a_test_module_s_own_classes(ranks):
    assert [found.value for found in ranks(doubled, Mine(3))] == [6, 6]


def leave() -> None:
    os._exit(1)


def test_dead_ranks_are_replaced(ranks):
    with pytest.raises(RankError, match="died"):
        ranks(leave)
    assert ranks(fail_on, 2) == ["well", "well"]


# collectives ------------------------------------------------------------------------------------------------------


def collect() -> dict:
    me = rank()
    mine = torch.arange(3 - me) + 10 * me
    rows, doubled = gather_rows(mine, torch.stack([mine, 2 * mine], 1).double())
    empty = gather_rows(torch.zeros(0 if me else 2, 3))[0]
    number = torch.tensor([1.0 + 2 * me])
    return {
        "rows": rows, "doubled": doubled, "empty": empty, "objects": gather_objects({"me": me}), "world": world_size(),
        "mean": mean_over_ranks(number), "input": number,
    }  # fmt: skip


def test_collectives(ranks):
    for me, found in enumerate(ranks(collect)):
        assert found["world"] == 2
        assert found["rows"].tolist() == [0, 1, 2, 10, 11]
        assert torch.equal(found["doubled"][:, 1], 2.0 * found["rows"].double())
        assert found["empty"].shape == (2, 3)
        assert found["objects"] == [{"me": 0}, {"me": 1}]
        assert found["mean"].tolist() == [2.0]
        assert found["input"].tolist() == [1.0 + 2 * me]


def test_collectives_of_one_process():
    x = torch.arange(3)
    assert torch.equal(gather_rows(x)[0], x)
    assert gather_objects(5) == [5]
    assert mean_over_ranks(x) is x


def write() -> dict:
    me = rank()
    module = module_of(Recipe(LogPert, {"update": "joint"}))
    module.write_state("perturbation", torch.tensor([7 * me, 1 + 2 * me]), torch.full((2, CLASSES), 1.0 + me))
    module.write_state("velocity", torch.tensor([0, 1]), torch.full((2, CLASSES), 1.0 + me), accumulate=True)
    module.write_state("class_counts", torch.tensor([me]), torch.tensor([5 + me]))
    return {k: v for k, v in module.state_dict().items() if not k.startswith("net.")}


def test_state_that_one_rank_writes_is_on_every_rank(ranks):
    first, second = ranks(write)
    assert different(first, second) == []
    assert first["perturbation"][:, 0].tolist() == [1, 1, 0, 2, 0, 0, 0, 2]
    assert first["velocity"][:2, 0].tolist() == [3, 3]
    assert first["class_counts"][:2].tolist() == [5, 6]


def share_of_uneven_batches(sync: bool) -> list:
    module = module_of(Recipe(MixPert, {"share": 0.4, "sync_threshold": sync}))
    losses = [torch.tensor([1.0, 9.0, 2.0]), torch.tensor([8.0, 7.0])][rank()]
    hard, tau = module.hard_samples(losses)
    return [hard.tolist(), float(tau)]


def test_the_hard_samples_of_all_ranks_are_ranked_as_one_batch(ranks):
    assert ranks(share_of_uneven_batches, True) == [[[False, True, False], 8.0], [[True, False], 8.0]]
    assert ranks(share_of_uneven_batches, False) == [[[False, True, False], 9.0], [[True, False], 8.0]]


# evaluation -------------------------------------------------------------------------------------------------------


def evaluate(recipe: Recipe, stage: str) -> dict:
    seed_everything(0, verbose=False)
    module, trainer = module_of(recipe), trainer_of(**recipe.trainer)
    return getattr(trainer, stage)(module, datamodule=tiny_data(**recipe.data), verbose=False)[0]


@pytest.mark.parametrize("samples", [497, 3, 2, 1])
def test_every_test_sample_counts_once(samples, ranks):
    recipe = Recipe(CrossEntropy, data={"test_samples": samples, "eval_batch_size": 64})
    expected = evaluate(recipe, "test")
    assert len(expected) == 6
    by_ranks = ranks(evaluate, recipe.but(trainer=TWO), "test")
    assert by_ranks[0] == by_ranks[1]
    assert by_ranks[0] == pytest.approx(expected, abs=1e-6)
    if samples == 497:
        correct = expected["test/acc"] * 497
        assert correct == pytest.approx(round(correct), abs=1e-3)
        assert 0.02 < expected["test/acc"] < 0.98, "an accuracy at the edge would hide a padded sample"


def test_every_validation_sample_counts_once(ranks):
    recipe = Recipe(CrossEntropy, data={"samples": 300, "val_size": 41, "eval_batch_size": 7})
    expected = evaluate(recipe, "validate")
    assert ranks(evaluate, recipe.but(trainer=TWO), "validate")[1] == pytest.approx(expected, abs=1e-6)


def predict(samples: int, **trainer) -> dict:
    seed_everything(0, verbose=False)
    module = module_of(Recipe(CrossEntropy))
    found = trainer_of(**trainer).predict(module, datamodule=tiny_data(test_samples=samples, eval_batch_size=8))
    return {k: torch.cat([batch[k] for batch in found]) for k in found[0]}


def test_every_sample_is_predicted_once(ranks):
    expected = predict(37)
    one, two = ranks(predict, 37, **TWO)
    assert expected["index"].tolist() == list(range(37))
    assert sorted(one["index"].tolist() + two["index"].tolist()) == list(range(37))
    assert torch.equal(torch.cat([one["index"], two["index"]]), expected["index"])
    torch.testing.assert_close(torch.cat([one["prob"], two["prob"]]), expected["prob"])


# training ---------------------------------------------------------------------------------------------------------


def cut_and_resumed(recipe: Recipe, folder: Path) -> dict[str, list[str]]:
    whole = snapshot(fit(recipe, callbacks=all_moments(folder)))
    dist.barrier()
    paths = sorted(folder.glob("*.ckpt"))
    done = {path.stem: snapshot(resume(recipe, path)) for path in paths if not path.stem.endswith("=12")}
    return {name: different(whole, state) for name, state in done.items()}


@pytest.mark.parametrize(
    ("method", "options"), [(DLB, {}), (MixPert, {"threshold": "epoch_quantile", "eps2": 0.03, "steps": 1})]
)
def test_exact_resume_of_both_ranks(method, options, ranks, tmp_path):
    recipe = Recipe(
        method, options, net="dropout", data={"batch_size": 8, "val_size": 16, "samples": 112, "augment": True},
        trainer={**TWO, "max_epochs": 2},
    )  # fmt: skip
    for found in ranks(cut_and_resumed, recipe, tmp_path):
        assert set(found) == {"batch-step=4", "batch-step=8", "epoch-step=6", "validation-step=6"}
        assert not any(found.values()), found


def first_half(recipe: Recipe, path: Path) -> None:
    fit(recipe, callbacks=all_moments(path))


def test_a_run_of_two_ranks_goes_on_alone(ranks, tmp_path):
    recipe = Recipe(DLB, data={"batch_size": 8}, trainer={"max_epochs": 2})
    ranks(first_half, recipe.but(trainer=TWO), tmp_path)
    with pytest.warns(UserWarning, match=r"written by 2 processes and is resumed on 1"):
        trainer = resume(recipe.but(data={"batch_size": 16}), tmp_path / "batch-step=4.ckpt")
    assert trainer.global_step == 12


def test_batch_norm_and_dropout_leave_the_ranks_alike(ranks):
    recipe = Recipe(OnlineLabelSmoothing, net="conv-norm-dropout", trainer={**TWO, "max_epochs": 2})
    first, second = ranks(_module_state, recipe)
    assert different(first, second) == []
    assert float(first["net.body.1.num_batches_tracked"]) == 6


def _module_state(recipe: Recipe) -> dict:
    module = fit(recipe).lightning_module
    # the statistics of the last step are rank-local until the next forward broadcasts rank 0's
    return {k: v for k, v in module.state_dict().items() if "running" not in k}


def fit_own_loader(method, options: dict, batch_size: int, **trainer) -> dict:
    """A user's own set of (x, y, index) and loader, no data module: rows of state appear as their samples do."""
    seed_everything(0, verbose=False)
    x, y = digits()
    data = TensorDataset(x[:60].float() / 255, y[:60], torch.arange(60))
    # as a user would do it; with one process Lightning leaves the sampler alone
    sampler = DistributedSampler(data, world_size(), rank(), shuffle=False)
    module = method(NETS["mlp"](), CLASSES, optimizer=sgd, seed=5, **options)
    runner = trainer_of(max_epochs=2, precision="64-true", **trainer)
    runner.fit(module, DataLoader(data, batch_size, sampler=sampler))
    return dict(module.state_dict())


@pytest.mark.parametrize(
    ("method", "options"),
    [(LogPert, {"update": "joint", "lam": 0.05}), (MixPert, {"threshold": "epoch_quantile", "eps2": 0.03, "steps": 2})],
)
def test_state_without_a_data_module(method, options, ranks):
    one = fit_own_loader(method, options, 20)
    first, second = ranks(fit_own_loader, method, options, 10, **TWO)
    assert different(first, second) == []
    assert different(one, first, tolerance=1e-6) == []
    name = "perturbation" if method is LogPert else "last_loss"
    assert len(first[name]) >= 60
    assert bool(first[name][:60].isfinite().all())
    assert np.all(first[name][:60].reshape(60, -1).abs().sum(1).numpy() > 0)
