"""Every public function and network shows how it is called, and the example does what it says."""

import doctest
import sys

import pytest

import ssenet_jax
from ssenet_jax.random_walk import random_walk

PUBLIC = {name: getattr(ssenet_jax, name) for name in ssenet_jax.__all__} | {"random_walk": random_walk}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_does_what_it_says(name):
    item = PUBLIC[name]
    module = sys.modules[item.__module__]
    examples = doctest.DocTestParser().get_doctest(item.__doc__, dict(vars(module)), name, module.__file__, None)
    assert "Examples:" in item.__doc__ and examples.examples, f"{name} has no examples"
    report = []
    result = doctest.DocTestRunner().run(examples, out=report.append)
    assert result.failed == 0, "".join(report)
