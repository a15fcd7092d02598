"""The table of quantities against metatomic's units and names, ASE's properties and e3nn's irreps."""

import numpy as np
import pytest
from ase.calculators.calculator import all_properties
from e3nn.o3 import Irreps
from metatomic.torch import unit_conversion_factor, unit_dimension_for_quantity

from mlplugins.quantities import QUANTITIES, Results

PHYSICAL = {"energy": "eV", "forces": "eV/A", "stress": "eV/A^3"}


@pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=QUANTITIES)
def test_a_record_says_what_metatomic_ase_and_e3nn_know(quantity):
    assert QUANTITIES[quantity.name] is quantity
    assert unit_conversion_factor(quantity.unit, PHYSICAL[quantity.name]) == 1.0
    if quantity.output is not None and "::" not in quantity.output:
        assert unit_dimension_for_quantity(quantity.output) == quantity.name
    assert quantity.ase in all_properties
    assert quantity.ase_per_atom is None or quantity.ase_per_atom in all_properties
    independent = 6 if quantity.symmetric else int(np.prod(quantity.shape))
    assert Irreps(quantity.irreps).dim == independent
    assert quantity.derivative is None or quantity.derivative.of in QUANTITIES


def test_results_are_found_by_the_name_of_the_quantity():
    found = Results(-1.0, np.ones((2, 3)), more={"dipole": np.arange(3.0)})
    assert found.get("energy") == -1.0
    assert found.get("stress") is None
    assert found.get("charges") is None
    assert found.get("forces") is found.forces
    assert found.get("dipole").tolist() == [0.0, 1.0, 2.0]
