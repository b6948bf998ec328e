"""How much arithmetic a function is: its matrix products and convolutions, counted from shapes."""

import math
from collections.abc import Callable

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(function: Callable, *arguments: object) -> int:
    """2 · multiply-adds of every matrix product and convolution that `function(*arguments)` traces to.

    Nothing is computed; arguments may be `jax.ShapeDtypeStruct`s. Element-wise work, sampling and norms are left out,
    as is usual, and so are products with the zeros that the gradient of a strided convolution puts between samples, and
    what no output depends on (gradients that are traced and dropped). A loop counts once for each iteration that its
    trace tells (`scan`), a `while` once; a `cond` as its largest branch.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return _of_jaxpr(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features_out = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            products = 2 * math.prod(equation.outvars[0].aval.shape) * (math.prod(kernel) // features_out)
            total += products // math.prod(parameters["lhs_dilation"])
        times = parameters.get("length", 1) if name == "scan" else 1
        inside = map(_of_jaxpr, core.jaxprs_in_params(parameters))
        total += max(inside, default=0) if name == "cond" else times * sum(inside)
    return total
