"""CP2K: what its outputs say, in texts of its format; the input; H2 where CP2K is installed."""

import shutil

import numpy as np
import pytest
from ase import Atoms

from mlplugins.errors import BadInput
from mlplugins.labels import _cp2k_input, label
from mlplugins.labels._contract import LabelFailed
from mlplugins.labels.cp2k import read

HARTREE, BOHR, GPA = 27.211386245981, 0.529177210544, 160.2176634

START = """
  **** **** ******  **  PROGRAM STARTED AT               2026-01-01 10:00:00.000
 CP2K| version string:                                       CP2K version 2023.1
"""
SCF = """
  Step     Update method      Time    Convergence         Total energy    Change
     1 OT DIIS     0.80E-01    0.1     0.01000000        -17.2000000000
  Leaving inner SCF loop after reaching    40 steps.
  *** SCF run converged in    11 steps ***
"""
LOST = """
 *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***
"""
RESULTS = """
 ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:              -17.215138088036113

 ATOMIC FORCES in [a.u.]

 # Atom   Kind   Element          X              Y              Z
      1      1      O           0.00000015    -0.00973027    -0.00000007
      2      2      H           0.00000000     0.00486000     1.0E-03
 SUM OF ATOMIC FORCES           0.00000015    -0.00487027     0.00099993     0.00497

 STRESS| Analytical stress tensor [GPa]
 STRESS|                        x                   y                   z
 STRESS|      x        6.97343960842E-01   0.00000000000E+00   0.00000000000E+00
 STRESS|      y        0.00000000000E+00  -1.50000000000E+00   2.00000000000E-02
 STRESS|      z        0.00000000000E+00   2.00000000000E-02   3.00000000000E+00
 STRESS| Eigenvectors and eigenvalues of the analytical stress tensor [GPa]
 STRESS|      x           1.000000000000      0.000000000000      0.000000000000
"""
NEW_RESULTS = """
 ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]            -17.215138088036113
 FORCES| Atomic forces [hartree/bohr]
 FORCES| Atom     x               y               z               |f|
 FORCES|      1  1.50000000E-07 -9.73027000E-03 -7.00000000E-08  9.73027000E-03
 FORCES|      2  0.00000000E+00  4.86000000E-03  1.00000000E-03  4.96000000E-03
 FORCES| Sum     1.50000000E-07 -4.87027000E-03  9.99930000E-04
 STRESS| Analytical stress tensor [bar]
 STRESS|                        x                   y                   z
 STRESS|      x        6.97343960842E+03   0.00000000000E+00   0.00000000000E+00
 STRESS|      y        0.00000000000E+00  -1.50000000000E+04   2.00000000000E+02
 STRESS|      z        0.00000000000E+00   2.00000000000E+02   3.00000000000E+04
"""
END = " **** **** ******  **  PROGRAM ENDED AT                 2026-01-01 10:00:09.000\n"


@pytest.mark.parametrize("results", [RESULTS, NEW_RESULTS])
def test_values_in_our_units_and_sign(results):
    found = read(START + SCF + results + END, 2)
    assert found.energy == pytest.approx(-17.215138088036113 * HARTREE, rel=1e-10)
    np.testing.assert_allclose(found.forces[0, 1], -0.00973027 * HARTREE / BOHR, rtol=1e-8)
    np.testing.assert_allclose(found.forces[1, 2], 1e-3 * HARTREE / BOHR, rtol=1e-8)
    expected = -np.array([[0.697343960842, 0, 0], [0, -1.5, 0.02], [0, 0.02, 3.0]]) / GPA
    np.testing.assert_allclose(found.stress, expected, atol=1e-9)
    assert found.code == "CP2K version 2023.1"


NO_LABEL = {
    "not converged, status 0, all printed": (START + LOST + RESULTS + END, 0, "did not converge"),
    "killed in the SCF": (START + SCF[:90], 137, r"did not come to its end \(status 137\)"),
    "killed after the results": (START + SCF + RESULTS, -9, "did not come to its end"),
    "appended to a good run, then killed": (START + SCF + RESULTS + END + START + SCF, 0, "did not come to"),
    "no verdict": (START + RESULTS + END, 0, "does not say 'SCF run converged'"),
    "a status": (START + SCF + RESULTS + END, 1, "ended with status 1"),
    "nothing": ("", 127, "status 127"),
    "no energy": (START + SCF + END, 0, "has no energy"),
    "no forces": (START + SCF + RESULTS.partition("ATOMIC")[0] + END, 0, "has 0 forces, expected 2"),
}


@pytest.mark.parametrize("case", NO_LABEL)
def test_what_is_no_label(case):
    text, status, message = NO_LABEL[case]
    with pytest.raises(LabelFailed, match=message):
        read(text, 2, status)


def test_the_last_of_two_starts_counts():
    first = START + LOST + RESULTS.replace("-17.2", "-16.0") + END
    assert read(first + START + SCF + RESULTS + END, 2).energy == pytest.approx(-17.215138088 * HARTREE)


H2 = """
@SET CUT 200
&GLOBAL
  RUN_TYPE MD   ! will be a single point
&END GLOBAL
&MOTION
  &MD
    STEPS 100
  &END
&END MOTION
&FORCE_EVAL
  METHOD QS
  &DFT
    BASIS_SET_FILE_NAME BASIS_MOLOPT
    POTENTIAL_FILE_NAME GTH_POTENTIALS
    &MGRID
      CUTOFF ${CUT}
    &END
    &SCF
      MAX_SCF 50
      EPS_SCF 1e-6
      &OT
      &END
    &END SCF
    &XC
      &XC_FUNCTIONAL PBE
      &END
    &END XC
  &END DFT
  &SUBSYS
    &CELL
      ABC 3 3 3
    &END CELL
    &TOPOLOGY
      COORD_FILE_NAME old.xyz
    &END
    &KIND H
      BASIS_SET DZVP-MOLOPT-SR-GTH
      POTENTIAL GTH-PBE-q1
    &END KIND
  &END SUBSYS
&END FORCE_EVAL
"""
MOLECULE = Atoms("H2", [[0, 0, 0], [0.5, 0, 0]], cell=[5, 5, 5], pbc=True)


def test_the_input_keeps_what_is_not_the_structure():
    text = _cp2k_input.single_point(H2, "h2.inp", MOLECULE, {"FORCE_EVAL/DFT/SCF/MAX_SCF": 7})
    lines = [line.strip() for line in text.splitlines()]
    for kept in ("@SET CUT 200", "CUTOFF ${CUT}", "EPS_SCF 1e-6", "BASIS_SET DZVP-MOLOPT-SR-GTH", "&OT"):
        assert kept in lines
    for made in ("RUN_TYPE ENERGY_FORCE", "MAX_SCF 7", "&FORCES ON", "STRESS_TENSOR ANALYTICAL"):
        assert made in lines
    for gone in ("MAX_SCF 50", "&MOTION", "ABC 3 3 3", "COORD_FILE_NAME old.xyz", "RUN_TYPE MD"):
        assert gone not in lines
    assert "H 0.5000000000 0.0000000000 0.0000000000" in lines
    assert lines.count("&CELL") == 1
    molecule = MOLECULE.copy()
    molecule.pbc, molecule.cell, molecule.info = False, None, {"charge": 1, "multiplicity": 2}
    text = _cp2k_input.single_point(H2, "h2.inp", molecule, {})
    assert "ABC 3 3 3" in text
    assert "STRESS_TENSOR NONE" in text
    assert "CHARGE 1" in text
    assert "MULTIPLICITY 2" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("&GLOBAL\n&END GLOBL\n", "line 2: '&END GLOBL' ends no section: '&GLOBAL' is open"),
        ("&GLOBAL\n", "'&GLOBAL' is not closed"),
        ("&END\n", "none is open"),
        (H2 + "&FORCE_EVAL\n&END\n", "expected one section &FORCE_EVAL, got 2"),
    ],
)
def test_inputs_that_are_none(text, message):
    with pytest.raises(BadInput, match=message):
        _cp2k_input.single_point(text, "h2.inp", MOLECULE, {})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="needs CP2K (cp2k.psmp)")
def test_h2(tmp_path, warm_start):
    """An unconverged SCF is a failure, the second attempt the label; stress and forces belong together."""
    (tmp_path / "h2.inp").write_text(H2)
    few = {"FORCE_EVAL/DFT/SCF/MAX_SCF": 2}
    settings = {"kind": "cp2k", "input": str(tmp_path / "h2.inp"), "set": few, "retries": [{"set": {}}]}
    [atoms] = label([MOLECULE], settings, store=tmp_path / "s").frames
    assert atoms.info["label_attempt"] == 2
    forces, volume = atoms.get_forces(), 125.0
    assert forces[1, 0] > 20.0  # pushed together
    virial = (atoms.positions * forces).sum(axis=0)[0] / volume
    assert atoms.get_stress()[0] == pytest.approx(-virial, rel=0.02)
