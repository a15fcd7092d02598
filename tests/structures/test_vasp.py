"""Frames whose electrons had not converged; the texts have the form of VASP 5.4's and 6.2's files."""

import pytest

from mlplugins.structures import labels
from mlplugins.structures.dataset import Keys, read
from mlplugins.structures.vasp import unconverged

HEAD = """ vasp.5.4.4.18Apr17 (build)
 POTCAR:    PAW_PBE Ar 07Sep2000
   NELM   =      {nelm};   NELMIN=  2; NELMDL= -5     # of ELM steps
   EDIFF  = 0.1E-05   stopping-criterion for ELM
   ions per type =               1
"""
STEP = """
 total energy-change (2. order) :{change}  (-0.7043029E-04)
{said}
      direct lattice vectors                 reciprocal lattice vectors
     5.000000000  0.000000000  0.000000000     0.200000000  0.000000000  0.000000000
     0.000000000  5.000000000  0.000000000     0.000000000  0.200000000  0.000000000
     0.000000000  0.000000000  5.000000000     0.000000000  0.000000000  0.200000000

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.000000      0.000000      0.000000
 -----------------------------------------------------------------------------------

  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =        -1.50000000 eV

  energy  without entropy=       -1.50000000  energy(sigma->0) =       -1.50000000
"""
REACHED = "------------------------ aborting loop because EDIFF is reached ------------------------"
GIVEN_UP = "------------------------ aborting loop EDIFF was not reached (unconverged)  -------------"


def outcar(steps, nelm=10):
    """`steps`: iterations, last change of the energy, what VASP says of the end."""
    text = HEAD.format(nelm=nelm)
    for number, (iterations, change, said) in enumerate(steps, start=1):
        for k in range(1, iterations + 1):
            text += f"--------------- Iteration {number:6d}({k:4d})  ---------------\n"
            text += "  free energy    TOTEN  =        -1.49000000 eV\n"
        text += STEP.format(change=change, said=said)
    return text


STEPS = [
    (10, "-0.9216253E-05", REACHED),  # NELM steps, energy still moves by 9e-6 eV
    (9, " 0.3745276E-06", REACHED),
    (10, "-0.3745276E-06", REACHED),  # converged with the last step allowed
    (4, "-0.3745276E-03", GIVEN_UP),
]


def test_the_iterations_decide_not_the_words(tmp_path):
    path = tmp_path / "OUTCAR"
    path.write_text(outcar(STEPS))
    assert unconverged(path) == [True, False, False, True]


@pytest.mark.parametrize(
    ("index", "expected"),
    [("", [1, 0, 0, 1]), ("@1:", [0, 0, 1]), ("@::-3", [1, 1]), ("@-1", [1]), ("@1", [0])],
)
def test_marks_follow_the_slice(tmp_path, index, expected):
    path = tmp_path / "OUTCAR"
    path.write_text(outcar(STEPS))
    frames = read(f"{path}{index}")
    assert [frame.unconverged for frame in frames] == expected
    assert all("mlplugins" not in name for frame in frames for name in frame.available)
    found = [note for note in labels.notes(frames, Keys()) if "NELM" in note]
    assert len(found) == any(expected)
    for note in found:
        assert note.startswith(f"{sum(expected)} of {len(expected)} frames, e.g. {path}, frame ")


def test_vasprun(tmp_path):
    def calculation(energies):
        steps = "".join(
            f'<scstep>\n<energy>\n<i name="e_fr_energy"> {e} </i>\n</energy>\n</scstep>\n' for e in energies
        )
        total = f'<energy>\n<i name="e_fr_energy"> {energies[-1]} </i>\n</energy>\n'
        return f"<calculation>\n{steps}{total}</calculation>\n"

    head = '<i type="int" name="NELM">     3</i>\n<i name="EDIFF">      0.00000100</i>\n'
    later = '<i type="int" name="NELM">     1</i>\n'  # of a response function's loop
    text = (
        head
        + later
        + calculation([-1.0, -1.2, -1.3])
        + calculation([-1.0, -1.3])
        + calculation([-1.2, -1.3, -1.3])
    )
    path = tmp_path / "vasprun.xml"
    path.write_text(text)
    assert unconverged(path) == [True, False, False]
