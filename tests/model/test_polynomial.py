"""The polynomial activation: Horner's rule, its derivative, and the tangent continuation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from torch import Tensor

from model.errors import ArchitectureError
from model.polynomial import CURVATURE_AT_START, PolynomialActivation, continued, horner
from tests.model import oracles

DEGREES = (1, 2, 3, 5)
BOUNDS = (None, 1.0, 3.0)
EPSILON = float(np.finfo(np.float64).eps)

numbers = st.floats(-1e3, 1e3, allow_subnormal=False)
points = st.floats(-20.0, 20.0, allow_subnormal=False)
tables = st.integers(2, 7).flatmap(
    lambda powers: st.lists(st.lists(numbers, min_size=powers, max_size=powers), min_size=1, max_size=4)
)


def make_activation(degree: int, bound: float | None, *, units: int = 4, seed: int = 0) -> PolynomialActivation:
    """A float64 activation whose every coefficient is random."""
    activation = PolynomialActivation(units, degree, bound).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        activation.coefficients.copy_(torch.randn(degree + 1, units, generator=generator, dtype=torch.float64))
    return activation


def second_derivative_size(activation: PolynomialActivation, radius: float) -> Tensor:
    """An upper bound of |p″| of each unit on [−radius, radius]."""
    return sum(
        (
            k * (k - 1) * radius ** (k - 2) * coefficient.detach().abs()
            for k, coefficient in enumerate(activation.coefficients)
            if k >= 2
        ),
        start=torch.zeros(activation.coefficients.shape[1], dtype=torch.float64),
    )


@seed(1)
@settings(max_examples=150, deadline=None, database=None)
@given(table=tables, row=st.lists(points, min_size=1, max_size=5))
def test_horner_agrees_with_numpy_polynomials(table: list[list[float]], row: list[float]) -> None:
    """Value and derivative are those of numpy.polynomial, to within the rounding of Horner's rule."""
    coefficients = torch.tensor(table, dtype=torch.float64).mT
    z = torch.tensor(row, dtype=torch.float64)[:, None].expand(-1, len(table))
    value, derivative = horner(z, coefficients)
    for unit, column in enumerate(table):
        p, size = Polynomial(column), Polynomial(np.abs(column))
        # Each of the two evaluations is within 2 N u Σ|c_k||z|^k of the truth (Higham 2002, section 5.1).
        slack = 4 * len(column) * EPSILON
        for expected, scale, actual in ((p, size, value), (p.deriv(), size.deriv(), derivative)):
            difference = np.abs(expected(np.array(row)) - actual[:, unit].numpy())
            assert (difference <= slack * scale(np.abs(row))).all()


@pytest.mark.parametrize("degree", DEGREES)
def test_horner_agrees_with_autograd(degree: int) -> None:
    """The derivative is what autograd makes of the value."""
    generator = torch.Generator().manual_seed(degree)
    z = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    coefficients = torch.randn(degree + 1, 4, generator=generator, dtype=torch.float64)
    value, derivative = horner(z, coefficients)
    (expected,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(derivative, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("degree", DEGREES)
def test_activation_agrees_with_its_definition(degree: int, bound: float | None) -> None:
    """Inside the bound a unit is its polynomial, outside it is the tangent at the bound."""
    activation = make_activation(degree, bound)
    z = 4.0 * torch.randn(256, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, derivative = activation(z)
    for unit, column in enumerate(activation.coefficients.detach().numpy().T):
        inputs = z[:, unit].numpy()
        np.testing.assert_allclose(
            value[:, unit].detach().numpy(), oracles.polynomial(column, bound, inputs), rtol=1e-11, atol=1e-11
        )
        np.testing.assert_allclose(
            derivative[:, unit].detach().numpy(),
            oracles.polynomial_derivative(column, bound, inputs),
            rtol=1e-11,
            atol=1e-11,
        )


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("degree", DEGREES)
def test_activation_derivative_agrees_with_autograd(degree: int, bound: float | None) -> None:
    """The derivative that a unit returns is that of its value, inside and outside the bound."""
    activation = make_activation(degree, bound)
    z = 3.0 * torch.randn(256, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z.requires_grad_()
    value, derivative = activation(z)
    (expected,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(derivative, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("bound", [1.0, 3.0])
@pytest.mark.parametrize("degree", DEGREES)
def test_tangent_continuation_joins_smoothly(degree: int, bound: float, side: float) -> None:
    """At ±bound neither the value nor the derivative jumps: the unit is C¹."""
    activation = make_activation(degree, bound)
    step = 1e-7
    inside, at, outside = (
        activation(torch.full((1, 4), side * (bound + delta), dtype=torch.float64)) for delta in (-step, 0.0, step)
    )
    curvature = second_derivative_size(activation, bound)
    rounding = 1e-12
    assert (abs(at[0] - (inside[0] + side * step * at[1])) <= curvature * step**2 + rounding).all()
    assert (abs(outside[0] - (at[0] + side * step * at[1])) <= rounding).all()
    assert (abs(at[1] - inside[1]) <= curvature * step + rounding).all()
    assert torch.equal(at[1], outside[1])


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("bound", [1.0, 3.0])
@pytest.mark.parametrize("degree", DEGREES)
def test_tangent_continuation_is_linear(degree: int, bound: float, side: float) -> None:
    """Outside the bound the derivative stays what it is at the bound, and the value follows it in a straight line."""
    activation = make_activation(degree, bound)
    edge_value, edge_derivative = activation(torch.full((1, 4), side * bound, dtype=torch.float64))
    distance = torch.tensor([0.5, 1.0, 10.0, 1e6], dtype=torch.float64)[:, None]
    value, derivative = activation((side * (bound + distance)).expand(-1, 4))
    assert torch.equal(edge_derivative.expand(4, -1), derivative)
    torch.testing.assert_close(value, edge_value + side * distance * edge_derivative, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("degree", DEGREES)
def test_activation_passes_gradcheck(degree: int, bound: float | None) -> None:
    """Value and derivative have the right gradients by z and by every coefficient, on both sides of the bound."""
    activation = make_activation(degree, bound, units=3)
    # No entry is near ±1 or ±3, where p′ has a kink.
    z = torch.tensor([[-5.0, -2.0, -0.3], [0.2, 0.6, 1.7], [2.4, 3.8, 6.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda inputs, _: activation(inputs), (z, activation.coefficients))


def test_without_a_bound_the_polynomial_is_pure() -> None:
    """With bound None, z² is 10¹² at z = 10⁶ and no unit counts as beyond; with a bound of 3 it is 2·3·z − 3²."""
    z = torch.tensor([[1e6]], dtype=torch.float64)
    for bound, expected, beyond in ((None, 1e12, False), (3.0, 6e6 - 9.0, True)):
        activation = PolynomialActivation(1, 2, bound).double()
        with torch.no_grad():
            activation.coefficients.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        assert expected == activation(z)[0].item()
        assert beyond is activation.beyond(z).item()


@pytest.mark.parametrize("bound", [1.0, 3.0])
def test_beyond_is_strict(bound: float) -> None:
    """A unit exactly at ±bound is still on its polynomial; the next number outwards is not."""
    edge = torch.tensor(bound, dtype=torch.float64)
    after = torch.nextafter(edge, torch.tensor(math.inf, dtype=torch.float64))
    z = torch.stack((-after, -edge, torch.zeros_like(edge), edge, after))[None]
    assert [[True, False, False, False, True]] == PolynomialActivation(5, 3, bound).beyond(z).tolist()


@pytest.mark.parametrize("degree", DEGREES)
def test_activation_starts_near_the_identity(degree: int) -> None:
    """c₁ is 1, c₂ small and different from unit to unit, every other coefficient 0."""
    units = 10_000
    torch.manual_seed(3)
    activation = PolynomialActivation(units, degree)
    coefficients = activation.coefficients.detach()
    assert degree == activation.degree
    assert (degree + 1, units) == coefficients.shape
    for power, coefficient in enumerate(coefficients):
        if power == 2:  # the spread is within 5 of its standard errors, 1/sqrt(2 n) of itself
            assert CURVATURE_AT_START == pytest.approx(coefficient.std().item(), rel=5 / (2 * units) ** 0.5)
            assert abs(coefficient.mean().item()) <= 5 * CURVATURE_AT_START / units**0.5
        else:
            assert torch.equal(torch.full((units,), float(power == 1)), coefficient)


@pytest.mark.parametrize("degree", [0, -1])
def test_a_degree_below_one_is_refused(degree: int) -> None:
    """A constant is no activation."""
    with pytest.raises(ArchitectureError, match=f"degree: expected .* got {degree}"):
        PolynomialActivation(4, degree)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_that_is_not_positive_and_finite_is_refused(bound: float) -> None:
    """Only a positive finite number, or none, can be a bound."""
    with pytest.raises(ArchitectureError, match=f"bound: expected .* got {bound}"):
        PolynomialActivation(4, 3, bound)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("degree", DEGREES)
def test_backward_pass_is_that_of_the_operators(degree: int, bound: float | None) -> None:
    """The written-out backward pass gives autograd's derivatives by z and c, first and second, of values and slopes."""
    activation = make_activation(degree, bound)
    generator = torch.Generator().manual_seed(degree)
    z = (3 * torch.randn(9, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    towards = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64)

    def derivatives(value: Tensor, derivative: Tensor) -> list[Tensor]:
        inputs = (z, activation.coefficients)
        loss = (towards[0] * value).sin().sum() + (towards[1] * derivative.square()).sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(sum((one.square().sum() for one in first), torch.zeros(())), inputs)
        return [*first, *second]

    expected = derivatives(*continued(z, activation.coefficients, bound))
    for wanted, found in zip(expected, derivatives(*activation(z)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("degree", DEGREES)
def test_backward_pass_agrees_with_differences(degree: int, bound: float | None) -> None:
    """The same against finite differences, first and second."""
    activation = make_activation(degree, bound)
    z = 2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert bound is None or ((z.abs() - bound).abs() > 1e-3).all()  # p″ jumps there
    inputs = (z.requires_grad_(), activation.coefficients)

    def function(z: Tensor, coefficients: Tensor) -> tuple[Tensor, ...]:
        output: tuple[Tensor, ...] = torch.func.functional_call(activation, {"coefficients": coefficients}, (z,))
        return output

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
