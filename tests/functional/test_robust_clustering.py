import pytest
import torch
from scipy.optimize import minimize
from sklearn.cluster import KMeans

from lightning_perturb.functional import outlier_perturbation, robust_clustering, robust_clustering_cost


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    x[:20] += 4
    x[-3:] += 25
    return x


@pytest.mark.parametrize("lam", [0.5, 2.0, 5.0])
def test_the_perturbation_is_the_minimiser(lam):
    center = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    for x in data()[::9]:

        def cost(o, x=x):
            o = torch.as_tensor(o)
            return float((x + o - center).square().sum() + lam * o.norm())

        found = outlier_perturbation(x, center, lam)
        best = min(minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun
                   for start in (0.1 * torch.ones(3).double(), (center - x) * 0.9))  # fmt: skip
        assert cost(found) <= best + 1e-8
        assert float(robust_clustering_cost(x[None], center[None], lam)) == pytest.approx(cost(found), abs=1e-9)


def test_limits_of_the_perturbation():
    x = data()
    center = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(outlier_perturbation(x, center, 0.0), -x)
    assert not outlier_perturbation(x, center, 1e6).any()
    assert torch.equal(outlier_perturbation(x[:1], x[:1], 1.0), torch.zeros(1, 3).double())
    with pytest.raises(ValueError, match="lam=-1"):
        outlier_perturbation(x, center, -1.0)


def test_an_infinite_price_is_k_means():
    x = data()
    centers, cluster, o = robust_clustering(x, x[[0, 30]], float("inf"))
    reference = KMeans(2, init=x[[0, 30]].numpy(), n_init=1, tol=0).fit(x.numpy())
    torch.testing.assert_close(centers, torch.from_numpy(reference.cluster_centers_))
    assert cluster.tolist() == reference.labels_.tolist()
    assert not o.any()


def test_the_cost_never_grows_and_outliers_do_not_move_centres():
    x = data()
    costs = []
    for steps in range(8):
        centers, _, _ = robust_clustering(x, x[[0, 30]], 1.0, steps)
        costs.append(float(robust_clustering_cost(x, centers, 1.0).min(1).values.sum()))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]
    centers, cluster, o = robust_clustering(x, x[[0, 30]], 1.0)
    # each outlier's force is at most that of a distance of 1 / 2
    assert float((centers - torch.stack([x[:20].mean(0), x[20:37].mean(0)])).norm(dim=1).max()) < 0.5
    assert o[-3:].norm(dim=1).min() > 20
    left = (x + o - centers[cluster]).norm(dim=1)
    assert float(left.max()) <= 0.5 + 1e-9, "what is left of a distance is lam / 2 at most"


def test_a_centre_without_samples_stays():
    far = torch.full((1, 3), 1e3, dtype=torch.float64)
    centers, cluster, _ = robust_clustering(data()[:30], torch.cat([data()[:1], far]), 1.0)
    assert torch.equal(centers[1:], far)
    assert not cluster.any()


def test_bad_input():
    with pytest.raises(ValueError, match="lam=0"):
        robust_clustering(data(), data()[:2], 0)
    with pytest.raises(ValueError, match=r"must be \[N, d\] and \[C, d\]"):
        robust_clustering(data(), data()[:2, :2], 1.0)
