"""Every engine against ``higher``, over networks and losses."""

import pytest
import torch

from lightning_perturb.bilevel import Bilevel

NETS = ["mlp", "conv-bn", "lstm", "transformer", "dropout", "transformer-dropout", "tied", "vit", "resnet20"]
LOSSES = ["mw-net", "logit-adjustment", "lambda", "iada"]
CASES = [(net, loss) for net in NETS for loss in LOSSES if net not in ("vit", "resnet20") or loss != "iada"]


def solve(problem, engine, lr=0.3, **options):
    bilevel = Bilevel(problem.net, problem.outputs, problem.loss, problem.meta_loss, engine=engine, **options)
    return bilevel.hypergradient(problem.train, problem.meta, problem.theta, lr)


@pytest.mark.parametrize(("net", "loss"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_forward_equals_higher(make, reference, assert_equal, net, loss, dtype, tolerance):
    problem = make(net, loss, dtype)
    state = torch.get_rng_state()
    expected, meta_loss = reference(problem)
    torch.set_rng_state(state)
    result = solve(problem, "forward")
    assert_equal(result.gradients, expected, tolerance)
    torch.testing.assert_close(result.meta_loss, meta_loss, rtol=tolerance, atol=0)


@pytest.mark.parametrize(("net", "loss"), [(net, "mw-net") for net in NETS] + [("conv-bn", "iada")])
def test_own_higher_engine_equals_higher(make, reference, assert_equal, net, loss):
    problem = make(net, loss)
    state = torch.get_rng_state()
    expected, meta_loss = reference(problem)
    torch.set_rng_state(state)
    result = solve(problem, "higher")
    assert_equal(result.gradients, expected, 1e-10)
    torch.testing.assert_close(result.meta_loss, meta_loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("net", ["conv-bn", "dropout", "transformer-dropout"])
def test_eval_mode(make, reference, assert_equal, net):
    """Running statistics, no dropout, and no inference fast path in the encoder."""
    problem = make(net, "mw-net")
    problem.net.eval()
    expected, _ = reference(problem)
    for engine in ("forward", "higher"):
        assert_equal(solve(problem, engine).gradients, expected, 1e-10)


@pytest.mark.parametrize("net", ["conv-bn", "transformer"])
def test_bfloat16_is_near(make, reference, net):
    """bf16 autocast and channels_last: as near to the exact gradient as higher is."""
    problem = make(net, "mw-net", torch.float32, batch=64)
    problem.net.to(memory_format=torch.channels_last)
    exact, _ = reference(problem)
    with torch.autocast("cpu", torch.bfloat16):
        higher, _ = reference(problem)
        found = solve(problem, "forward").gradients
    for one, other, true in zip(found, higher, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - true).norm() <= 1.5 * (other - true).norm() + 0.05 * true.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("net", ["conv-bn", "lstm", "transformer-dropout", "dropout"])
def test_on_a_gpu(make, reference, assert_equal, net):
    problem = make(net, "mw-net")
    problem.net.cuda()
    problem.train, problem.meta = ([part.cuda() for part in batch] for batch in (problem.train, problem.meta))
    problem.theta[:] = [parameter.detach().cuda().requires_grad_() for parameter in problem.theta]
    state = torch.cuda.get_rng_state()
    with torch.backends.cudnn.flags(enabled=False):
        expected, _ = reference(problem)
    torch.cuda.set_rng_state(state)
    assert_equal(solve(problem, "auto").gradients, expected, 1e-10)


@pytest.mark.parametrize("net", ["mlp", "conv-bn", "lstm", "dropout", "transformer"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-2)])
def test_central_differences_are_near(make, reference, assert_equal, net, dtype, tolerance):
    problem = make(net, "mw-net", dtype)
    state = torch.get_rng_state()
    expected, _ = reference(problem)
    torch.set_rng_state(state)
    assert_equal(solve(problem, "central").gradients, expected, tolerance)
