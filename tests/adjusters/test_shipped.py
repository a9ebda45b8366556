"""The adjusters that the package ships."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from lightning_perturb import adjusters
from lightning_perturb.methods import TransferredRobustLoss
from lightning_perturb.nets import MLP

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", adjusters.shipped())
def test_each_is_whole_small_and_says_how_it_was_made(name):
    snapshots = adjusters.read_all(name)
    assert [snapshot["epoch"] for snapshot in snapshots] == [20, 40, 60]
    data, loss = name.split("-")
    for snapshot in snapshots:
        assert snapshot["robust_loss"] == loss
        told = snapshot["provenance"]
        assert told["data"] == {"digits": "Digits", "cifar10": "ImageFolder"}[data]
        assert told["tasks"] == 9
        assert {"net", "label_noise", "meta_size", "meta_every", "seed", "lightning_perturb"} <= told.keys()
    folder = Path(adjusters.__file__).parent / "shipped" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40_000
    first, last = (adjusters.restore(s, name).at(torch.tensor([-4.0, 4.0])) for s in (snapshots[0], snapshots[-1]))
    for hyperparameter in first:
        assert bool(first[hyperparameter].isfinite().all())
    assert any(not torch.equal(first[h], last[h]) for h in first), "it stopped learning after a third"


def test_there_are_some_and_a_method_takes_them_by_name():
    assert adjusters.shipped()
    with pytest.raises(FileNotFoundError, match=rf"none of the shipped ones: .*{adjusters.shipped()[0]}"):
        adjusters.read_all("digits-huber")
    module = TransferredRobustLoss(MLP(10, 64), 10, adjuster=adjusters.shipped()[0])
    assert module.adjuster == adjusters.shipped()[0]


def test_the_wheel_has_them():
    # without tomllib, which Python 3.10 lacks
    line = next(x for x in (ROOT / "pyproject.toml").read_text().splitlines() if x.startswith("artifacts = "))
    (pattern,) = ast.literal_eval(line.partition("= ")[2])
    for path in (ROOT / "lightning_perturb/adjusters/shipped").rglob("*.pt"):
        assert fnmatch(str(path.relative_to(ROOT)), pattern)
