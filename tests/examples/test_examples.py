"""The examples say what the papers say."""

import pkgutil
import runpy

import pytest

import lightning_perturb.examples
from lightning_perturb.examples import robust_clustering, svm_slack


def test_outliers_spoil_k_means_and_not_robust_clustering():
    errors = robust_clustering.main()
    assert errors["k-means"] > 3
    assert errors["robust clustering"] < 0.5


@pytest.mark.parametrize("lam", [0.1, 0.5, 0.9])
def test_the_perturbed_hinge_loss_is_the_machine(lam):
    found = svm_slack.main(lam)
    assert found["perturbed"] == pytest.approx(found["standard"], rel=1e-6)
    assert found["slack on wrong labels"] > 3 * found["slack on the others"]


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(lightning_perturb.examples.__path__)])
def test_every_example_runs_as_a_program(name, capsys):
    runpy.run_module(f"lightning_perturb.examples.{name}", run_name="__main__")
    assert capsys.readouterr().out
