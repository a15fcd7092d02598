"""Quantum ESPRESSO: what its outputs say, in texts that pw.x 6.7 wrote; silicon where it is installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from mlplugins.labels import espresso, label
from mlplugins.labels._contract import LabelFailed
from mlplugins.labels.command import read

PSEUDO = Path("/usr/share/espresso/pseudo")
SILICON = "Si.pz-vbc.UPF"
RYDBERG, BOHR, GPA = 13.605693122990, 0.529177210544, 160.2176634

TEXT = """
     Program PWSCF v.6.7MaX starts on  1Dec2026 at  8:57:49

     bravais-lattice index     =            0
     lattice parameter (alat)  =       7.2558  a.u.
     number of atoms/cell      =            2
     number of atomic types    =            1

     celldm(1)=   7.255773  celldm(2)=   0.000000  celldm(3)=   0.000000

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   0.000000   0.707107   0.707107 )
               a(2) = (   0.707107   0.000000   0.707107 )
               a(3) = (   0.707107   0.707107   0.000000 )

     atomic species   valence    mass     pseudopotential
        Si             4.00    28.08500     Si( 1.00)

     site n.     atom                  positions (alat units)
         1           Si  tau(   1) = (   0.0211526  -0.0079664  -0.0068780  )
         2           Si  tau(   2) = (   0.3395810   0.3648229   0.3235822  )

     number of k points=     1
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000

     End of self-consistent calculation

          k = 0.0000 0.0000 0.0000 (   283 PWs)   bands (ev):

    -5.6843   5.7088   6.0827   7.3904

     highest occupied level (ev):     7.3904

!    total energy              =     -15.63079493 Ry
     estimated scf accuracy    <          5.0E-10 Ry

     convergence has been achieved in   7 iterations

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =    -0.08229397    0.03366720   -0.04671558
     atom    2 type  1   force =     0.08229397   -0.03366720    0.04671558

     Total force =     0.142043     Total SCF correction =     0.000008

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       50.43
   0.00030348   0.00020638  -0.00015396           44.64       30.36      -22.65
   0.00020638   0.00036890   0.00035346           30.36       54.27       52.00
  -0.00015396   0.00035346   0.00035615          -22.65       52.00       52.39


     Writing output data file ./out/pwscf.save/

=------------------------------------------------------------------------------=
   JOB DONE.
=------------------------------------------------------------------------------=
"""
LOST = TEXT.replace("achieved in   7 iterations", "").replace(
    "convergence has been", "convergence NOT achieved after   2 iterations: stopping"
)


def _silicon():
    atoms = bulk("Si", a=5.43)
    atoms.rattle(0.05, seed=1)
    return atoms


def test_units_and_signs_are_those_of_ase(tmp_path):
    (tmp_path / "label.pwo").write_text(TEXT)
    espresso.require_converged(TEXT)
    found = read(tmp_path / "label.pwo", _silicon(), "Quantum ESPRESSO")
    assert found.energy == pytest.approx(-15.63079493 * RYDBERG, rel=1e-7)
    assert found.forces[0, 0] == pytest.approx(-0.08229397 * RYDBERG / BOHR, rel=1e-6)
    # pw.x prints what presses: 50.43 kbar in the mean, 30.36 of xy
    assert -np.trace(found.stress) / 3 * GPA == pytest.approx(5.043, rel=1e-3)
    assert found.stress[0, 1] * GPA == pytest.approx(-3.036, rel=1e-3)


def test_an_output_without_convergence_is_no_label():
    """pw.x 6.7 prints JOB DONE. there, too, and ends with STOP 2."""
    assert "JOB DONE." in LOST
    with pytest.raises(LabelFailed, match="did not converge"):
        espresso.require_converged(LOST)
    with pytest.raises(LabelFailed, match="did not come to its end"):
        espresso.require_converged(TEXT.replace("JOB DONE.", ""))


def test_silicon(tmp_path):
    """Forces and shear stress are derivatives of the energy; too few steps give no label."""
    if shutil.which("pw.x") is None or not (PSEUDO / SILICON).is_file():
        pytest.skip("needs pw.x and its examples (Debian: quantum-espresso, quantum-espresso-data)")
    settings = {
        "kind": "espresso",
        "pseudo_dir": str(PSEUDO),
        "pseudopotentials": {"Si": SILICON},
        "input_data": {"system": {"ecutwfc": 30.0}, "electrons": {"conv_thr": 1e-10}},
        "kpts": [2, 2, 2],
    }
    h, first = 0.01, _silicon()
    frames = [first]
    for sign in (1, -1):
        moved, sheared = first.copy(), first.copy()
        moved.positions[1, 0] += sign * h
        shear = np.eye(3)
        shear[0, 1] = shear[1, 0] = sign * h / 2
        sheared.set_cell(first.cell.array @ shear, scale_atoms=True)
        frames += [moved, sheared]
    found = label(frames, settings, store=tmp_path / "store")
    assert not found.failed
    assert found.frames[0].info["label_code"].startswith("Quantum ESPRESSO v")
    e = [atoms.get_potential_energy() for atoms in found.frames]
    assert found.frames[0].get_forces()[1, 0] == pytest.approx(-(e[1] - e[3]) / (2 * h), rel=1e-3)
    shear_stress = (e[2] - e[4]) / (2 * h) / first.get_volume()
    assert found.frames[0].get_stress()[5] == pytest.approx(shear_stress, rel=3e-3)
    lost = {**settings, "input_data": {**settings["input_data"], "electrons": {"electron_maxstep": 2}}}
    [failed] = label([first], lost, store=tmp_path / "lost").failed
    assert failed["reason"] == "the electrons of pw.x did not converge"
