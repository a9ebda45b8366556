import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.svm import SVC

from lightning_perturb.functional import hinge_loss, slack, svm_slack


def data():
    generator = torch.Generator().manual_seed(2)
    y = torch.ones(40, dtype=torch.float64)
    y[25:] = -1
    x = y[:, None] + torch.randn(40, 2, generator=generator, dtype=torch.float64)
    return x, y


@pytest.mark.parametrize("lam", [0.05, 0.7, 1.0, 3.0])
def test_it_is_the_standard_machine(lam):
    x, y = data()
    w, b, xi = svm_slack(x, y, lam)
    reference = SVC(C=lam, kernel="linear", tol=1e-8).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(w, torch.from_numpy(reference.coef_[0]), rtol=1e-4, atol=1e-5)
    objective = w @ w / 2 + lam * xi.sum()
    theirs = torch.from_numpy(reference.coef_[0])
    loss = hinge_loss(x @ theirs + float(reference.intercept_[0]), y)
    assert float(objective) <= float(theirs @ theirs / 2 + lam * loss.sum()) + 1e-6
    assert bool((y * (x @ w + b) >= 1 - xi - 1e-9).all())


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.99, 1.01, 4.0])
def test_the_slack_is_the_minimiser(lam):
    for loss in (0.0, 0.4, 2.0):
        found = float(slack(torch.tensor([loss]), lam))

        def cost(xi, loss=loss):
            return max(0.0, loss - xi) + lam * abs(xi)

        best = minimize_scalar(cost, bounds=(0, 5), method="bounded").fun
        assert cost(found) <= best + 1e-6
        assert cost(found) == pytest.approx(min(lam, 1) * loss)


def test_bad_input():
    x, y = data()
    with pytest.raises(ValueError, match="lam=0"):
        svm_slack(x, y, 0.0)
    for wrong in (y.clamp(min=0), y.abs()):
        with pytest.raises(ValueError, match="Give -1 and 1"):
            svm_slack(x, wrong, 1.0)
    with pytest.raises(ValueError, match="lam=-1"):
        slack(y, -1.0)
