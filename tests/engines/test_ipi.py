"""The i-PI driver against real i-PI processes: sockets, ffdirect, batches, ensembles, failures."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ipi import read_output
from ipi.utils.units import unit_to_internal, unit_to_user

from mlplugins.engines.ipi.driver import MLDriver, connect
from mlplugins.engines.ipi.program import driver_file
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.artifact import load

from .conftest import crystal, molecule, write_lennard_jones
from .ipi_tools import BIN, LIMIT, Processes, finish

XML = """<simulation verbosity='medium' floatformat='%24.16e' safe_stride='1'>
  <output prefix='out'>
    <properties filename='md' stride='1'>[step, time{{picosecond}}, conserved{{electronvolt}},
      potential{{electronvolt}}, volume, atom_f{{ev/ang}}(0), atom_f{{ev/ang}}(7), virial_md]</properties>
    <trajectory filename='pos' stride='5' cell_units='angstrom'>positions{{angstrom}}</trajectory>
    <trajectory filename='spread' stride='1' extra_type='{extra}'>extras</trajectory>
    {checkpoint}
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>1</seed></prng>
  {forcefield}
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz'>init.xyz</file>
      <velocities mode='thermal' units='kelvin'>{kelvin}</velocities>
    </initialize>
    <forces><force forcefield='ml'/></forces>
    <motion mode='dynamics'>{dynamics}</motion>
    <ensemble><temperature units='kelvin'>30</temperature><pressure units='megapascal'>1</pressure></ensemble>
  </system>
</simulation>
"""
NVE = "<dynamics mode='nve'><timestep units='femtosecond'>4</timestep></dynamics>"
PIMD = """<dynamics mode='nvt'><timestep units='femtosecond'>1</timestep>
  <thermostat mode='pile_g'><tau units='femtosecond'>100</tau></thermostat></dynamics>"""
NPT = """<dynamics mode='npt'><timestep units='femtosecond'>2</timestep>
  <barostat mode='isotropic'><tau units='femtosecond'>200</tau></barostat>
  <thermostat mode='svr'><tau units='femtosecond'>100</tau></thermostat></dynamics>"""


def write_input(
    folder: Path,
    forcefield: str,
    dynamics: str = NVE,
    steps: int = 20,
    beads: int = 1,
    atoms: Atoms | None = None,
    **more: str,
) -> Path:
    atoms = crystal() if atoms is None else atoms
    abc = " ".join(f"{x:.12f}" for x in atoms.cell.cellpar())
    lines = [f"{s} {x:.14f} {y:.14f} {z:.14f}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions)]
    head = f"# CELL(abcABC): {abc} positions{{angstrom}} cell{{angstrom}}"
    (folder / "init.xyz").write_text("\n".join([str(len(atoms)), head, *lines]) + "\n")
    text = XML.format(
        extra=more.get("extra", "raw"),
        checkpoint=more.get("checkpoint", "<checkpoint filename='restart' stride='5'/>"),
        kelvin=more.get("kelvin", "30"),
        steps=steps,
        beads=beads,
        dynamics=dynamics,
        forcefield=forcefield,
    )
    (folder / "input.xml").write_text(text)
    return folder / "input.xml"


def socket_forcefield(mode: str, address: str, extra: str = "", exit_on_disconnect: bool = True) -> str:
    stop = "<exit_on_disconnect>true</exit_on_disconnect>" if exit_on_disconnect else ""
    return f"<ffsocket mode='{mode}' name='ml'><address>{address}</address>{extra}{stop}</ffsocket>"


def direct_forcefield(model: str, batch: int = 1, threaded: bool = False) -> str:
    return f"""<ffdirect name='ml' threaded='{threaded}'>
      <pes>custom</pes><pes_path>{driver_file()}</pes_path><batch_size>{batch}</batch_size>
      <parameters>{{model: {model}, template: init.xyz}}</parameters></ffdirect>"""


@pytest.fixture
def new_processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def processes(new_processes, warm_start):
    return new_processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def properties(folder: Path) -> dict[str, np.ndarray]:
    return read_output(folder / "out.md")[0]


def assert_first_step_is_ases(folder: Path, model: Path, factor: float = 1.0) -> None:
    """Step 0 of i-PI's output against the same structure evaluated directly, in eV and Å."""
    atoms = crystal()
    expected = load(model).evaluate([atoms])[0]
    got = properties(folder)
    assert abs(got["potential"][0] - factor * expected.energy) / len(atoms) < 1e-8
    forces = np.array([got["atom_f(0)"][0], got["atom_f(7)"][0]])
    assert np.abs(forces - factor * expected.forces[[0, 7]]).max() < 1e-8
    pressure = unit_to_user("energy", "electronvolt", 1.0) / unit_to_user("length", "angstrom", 1.0) ** 3
    virial = np.asarray(got["virial_md"][0]) * pressure  # [xx, yy, zz, xy, xz, yz] over the volume
    stress = expected.stress[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    assert np.abs(virial + factor * stress).max() < 1e-8
    assert np.abs(stress).max() > 1e-4


def drift(folder: Path, n_atoms: int) -> float:
    """Slope of the conserved quantity, eV/atom/ps."""
    got = properties(folder)
    return abs(np.polyfit(got["time"], got["conserved"] / n_atoms, 1)[0])


@pytest.mark.engine
def test_unix_socket_nve(new_processes, argon_model, tmp_path):
    write_input(tmp_path, socket_forcefield("unix", "a"), steps=120)
    server = new_processes.ipi()
    output = finish(new_processes.driver(argon_model, "--unix", "a", "--json", "summary.json"))
    finish(server)
    assert_first_step_is_ases(tmp_path, argon_model)
    assert drift(tmp_path, 32) < 1e-5
    assert "lennard-jones, float64, cpu), 32 atoms, at unix socket" in output
    assert "121 structures in 121 calls" in output
    assert json.loads((tmp_path / "summary.json").read_text())["n_structures"] == 121


@pytest.mark.slow
def test_tcp_socket(processes, argon_model, tmp_path):
    port = free_port()
    write_input(tmp_path, socket_forcefield("inet", "localhost", f"<port>{port}</port>"), steps=3)
    driver = processes.driver(argon_model, "--host", "localhost", "--port", str(port))
    server = processes.ipi()  # the driver waits for it
    finish(server)
    finish(driver)
    assert_first_step_is_ases(tmp_path, argon_model)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["unix", "shm"])
def test_stock_driver_program(new_processes, argon_model, tmp_path, mode):
    write_input(tmp_path, socket_forcefield(mode, "b"), steps=3)
    server = new_processes.ipi()
    wait_for(tmp_path / "s_b")
    words = ["-m", "custom", "-P", driver_file(), "-o", f"model={argon_model},template=init.xyz"]
    where = (
        ["-u", "-a", "b", "-S", new_processes.prefix]
        if mode == "unix"
        else ["--shm", "-a", "b", "-S", new_processes.prefix]
    )
    finish(new_processes.start(BIN / "i-pi-driver-py", *words, *where))
    finish(server)
    assert_first_step_is_ases(tmp_path, argon_model)


@pytest.mark.engine
@pytest.mark.parametrize("threaded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ffdirect_nve(new_processes, argon_model, tmp_path, threaded):
    write_input(tmp_path, direct_forcefield(str(argon_model), threaded=threaded), steps=20)
    finish(new_processes.ipi())
    assert_first_step_is_ases(tmp_path, argon_model)
    assert drift(tmp_path, 32) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["socket", "ffdirect"])
def test_eight_beads_in_one_call(processes, argon_model, tmp_path, kind):
    if kind == "ffdirect":
        write_input(tmp_path, direct_forcefield(str(argon_model), batch=8), PIMD, steps=40, beads=8)
        finish(processes.ipi())
    else:
        forcefield = socket_forcefield("unix", "c", "<batch_size>8</batch_size>")
        write_input(tmp_path, forcefield, PIMD, steps=40, beads=8)
        server = processes.ipi()
        output = processes.drive(argon_model, "--unix", "c")
        finish(server)
        # the beads start at the same place: one structure in the first call
        assert "321 structures in 41 calls" in output
    assert drift(tmp_path, 32) < 5e-4
    conserved = properties(tmp_path)["conserved"] / 32
    assert np.ptp(conserved) < 1e-4


@pytest.mark.slow
def test_npt(processes, argon_model, tmp_path):
    write_input(tmp_path, direct_forcefield(str(argon_model)), NPT, steps=150)
    finish(processes.ipi())
    got = properties(tmp_path)
    assert np.ptp(got["conserved"]) / 32 < 1e-4
    assert abs(got["volume"][-1] / got["volume"][0] - 1) > 1e-3


@pytest.mark.slow
def test_committee_in_the_extras(processes, argon_committee, tmp_path):
    model = "+".join(map(str, argon_committee))
    write_input(tmp_path, direct_forcefield(model), steps=1, extra="committee_pot,energy_uncertainty")
    finish(processes.ipi())
    assert_first_step_is_ases(tmp_path, argon_committee[0], factor=1.1)
    text = (tmp_path / "out.spread_0").read_text()
    base = unit_to_internal(
        "energy", "electronvolt", load(argon_committee[0]).evaluate([crystal()])[0].energy
    )
    numbers = [float(word) for word in text.replace("[", " ").replace("]", " ").split() if is_number(word)]
    for expected in (base, 1.1 * base, 1.2 * base, 0.1 * abs(base)):
        assert np.abs(np.array(numbers) - expected).min() < 1e-7 * abs(base), text


@pytest.mark.slow
def test_ffcommittee_reads_one_driver(new_processes, argon_committee, tmp_path):
    """`<ffcommittee>` with `parse_json` takes the members, their forces and virials from the extras."""
    inner = direct_forcefield("+".join(map(str, argon_committee)), threaded=True)
    inner = inner.replace("template: init.xyz", "template: init.xyz, committee_forces: true")
    forcefield = f"""<ffcommittee name='ml'>{inner.replace("name='ml'", "name='inner'")}
      <parse_json>true</parse_json><alpha>1.0</alpha></ffcommittee>"""
    # i-PI 3.3.1 cannot write a checkpoint of this combination
    write_input(tmp_path, forcefield, steps=2, extra="committee_uncertainty", checkpoint="")
    finish(new_processes.ipi())
    assert_first_step_is_ases(tmp_path, argon_committee[0], factor=1.1)
    base = unit_to_internal(
        "energy", "electronvolt", load(argon_committee[0]).evaluate([crystal()])[0].energy
    )
    words = (tmp_path / "out.spread_0").read_text().split()
    assert float([word for word in words if is_number(word)][-1]) < 0.1 * abs(base) * 1.5


def is_number(word: str) -> bool:
    try:
        float(word.strip(",{}'"))
    except ValueError:
        return False
    return True


def wait_for(path: Path, rows: int = 0) -> None:
    """Wait until a file (or socket) exists, or has that many lines."""
    deadline = time.monotonic() + LIMIT
    while not path.exists() or (rows and len(path.read_text().splitlines()) < rows):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def colliding() -> Atoms:
    atoms = crystal()
    atoms.positions[9] = atoms.positions[4]
    return atoms


@pytest.mark.slow
def test_failed_evaluation_ends_driver_and_server(processes, argon_model, tmp_path):
    write_input(tmp_path, socket_forcefield("unix", "d"), atoms=colliding())
    server = processes.ipi()
    output = processes.drive(argon_model, "--unix", "d", expected=1)
    assert "not finite; closest pair: atoms 4 and 9 at 0.0000" in output
    text, _ = server.communicate(timeout=30)
    assert "died or got unresponsive" in text
    assert "Client shutdown" in text


@pytest.mark.slow
def test_failed_evaluation_in_the_stock_driver_program(processes, argon_model, tmp_path):
    write_input(tmp_path, socket_forcefield("unix", "e"), atoms=colliding())
    server = processes.ipi()
    wait_for(tmp_path / "s_e")
    words = ["-m", "custom", "-P", driver_file(), "-o", f"model={argon_model},template=init.xyz"]
    where = ["-u", "-a", "e", "-S", processes.prefix]
    output = finish(processes.start(BIN / "i-pi-driver-py", *words, *where), expected=1)
    assert "mlplugins: error: structure 0 (32 atoms): the model gave" in output
    assert "Traceback" not in output
    assert "died or got unresponsive" in server.communicate(timeout=30)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("threaded", "beads", "batch"), [(False, 1, 1), (True, 1, 1), (False, 8, 8)])
def test_failed_evaluation_in_ffdirect_ends_ipi(processes, argon_model, tmp_path, threaded, beads, batch):
    forcefield = direct_forcefield(str(argon_model), batch, threaded)
    write_input(tmp_path, forcefield, PIMD, beads=beads, atoms=colliding())
    server = processes.ipi()
    output, _ = server.communicate(timeout=LIMIT)
    assert "mlplugins: error: structure 0 (32 atoms): the model gave" in output
    assert server.returncode == 1


@pytest.mark.slow
def test_failure_in_the_middle_leaves_a_readable_trajectory(processes, argon_model, tmp_path):
    """A time step that is far too long: the run stops, what was written before can be read."""
    wild = NVE.replace(">4<", ">200<")
    write_input(tmp_path, direct_forcefield(str(argon_model)), wild, steps=2000, kelvin="300")
    output = finish(processes.ipi(), expected=1)
    assert "mlplugins: error: structure 0" in output
    assert len(properties(tmp_path)["step"]) > 1


@pytest.mark.slow
def test_element_unknown_to_the_model(processes, argon_model, tmp_path):
    atoms = crystal()
    atoms.numbers[3] = 10
    write_input(tmp_path, direct_forcefield(str(argon_model)), atoms=atoms)
    output = finish(processes.ipi(), expected=2)
    assert "does not know Ne (atoms 3); 'argon.pt' knows Ar" in output
    write_input(tmp_path, socket_forcefield("unix", "f"), atoms=atoms)
    server = processes.ipi()
    output = processes.drive(argon_model, "--unix", "f", expected=2)
    assert "does not know Ne" in output
    assert "unresponsive" in server.communicate(timeout=30)[0]


@pytest.mark.slow
def test_template_of_another_size(processes, argon_model, tmp_path):
    write_input(tmp_path, socket_forcefield("unix", "g"))
    write(tmp_path / "small.xyz", molecule())
    server = processes.ipi()
    output = processes.drive(argon_model, "--unix", "g", template="small.xyz", expected=2)
    assert "i-PI sends 32 atoms, but the template 'small.xyz' has 5" in output
    server.communicate(timeout=30)


@pytest.mark.slow
def test_server_gone(processes, argon_model, tmp_path):
    write_input(tmp_path, socket_forcefield("unix", "h"), steps=10**6)
    server = processes.ipi()
    driver = processes.driver(argon_model, "--unix", "h")
    wait_for(tmp_path / "out.md", rows=20)
    server.send_signal(signal.SIGKILL)
    output = finish(driver, expected=1)
    assert "mlplugins: error: lost i-PI after " in output
    assert "Traceback" not in output


def test_no_server(tmp_path):
    with pytest.raises(RunFailed, match=r"no i-PI at unix socket .*start `i-pi input.xml`"):
        connect("nobody", prefix=str(tmp_path / "s_"), wait=0.2)
    with pytest.raises(RunFailed, match="no i-PI at localhost:"):
        connect(port=free_port(), wait=0.2)


def test_compute_in_process(argon_model, tmp_path):
    """Columns of the cell are its vectors; a batch equals single structures; repeated ones are free."""
    atoms = crystal()
    shear = np.array([[1, 0, 0], [0.2, 1, 0], [0.1, -0.3, 1]])
    atoms.set_cell(np.asarray(atoms.cell) @ shear, scale_atoms=True)
    write(tmp_path / "init.extxyz", atoms)
    driver = MLDriver(model=str(argon_model), template=str(tmp_path / "init.extxyz"))
    cell = unit_to_internal("length", "angstrom", np.asarray(atoms.cell).T)
    pos = unit_to_internal("length", "angstrom", atoms.positions)
    potential, forces, virial, extras = driver(cell, pos)
    expected = load(argon_model).evaluate([atoms])[0]
    assert unit_to_user("energy", "electronvolt", potential) == pytest.approx(expected.energy, abs=1e-10)
    assert np.allclose(unit_to_user("force", "ev/ang", forces), expected.forces, rtol=0, atol=1e-9)
    assert np.allclose(unit_to_user("energy", "electronvolt", virial), expected.virial, rtol=0, atol=1e-9)
    assert json.loads(extras) == {}
    moved = pos + 0.05
    moved[0] += 0.3
    replies = driver([cell] * 4, [pos, moved, moved, moved])
    assert len(replies) == 4
    assert driver.n_structures == 1 + 2
    assert replies[0].potential == pytest.approx(potential, rel=1e-13)
    assert replies[3].potential == pytest.approx(driver(cell, moved)[0], rel=1e-13)
    assert abs(replies[3].potential - potential) > 1e-5


def test_copies_of_one_model_are_said(argon_model, tmp_path, monkeypatch):
    write(tmp_path / "init.extxyz", crystal())
    said = []
    monkeypatch.setattr(MLDriver, "say", lambda self, text: said.append(text))
    driver = MLDriver(model=f"{argon_model}+{argon_model}", template=str(tmp_path / "init.extxyz"))
    cell, pos = (
        unit_to_internal("length", "angstrom", x) for x in (crystal().cell.array.T, crystal().positions)
    )
    driver(cell, pos)
    driver(cell, pos)
    [warning] = [text for text in said if text.startswith("warning: models of the committee")]
    assert f"{argon_model} = {argon_model}: copies of one model?" in warning


def test_template_periodicity(argon_model, tmp_path):
    atoms = molecule()
    atoms.cell = [9, 9, 9]
    write(tmp_path / "open.extxyz", atoms)
    atoms.pbc = True
    write(tmp_path / "closed.extxyz", atoms)
    write_input(tmp_path, "", atoms=atoms)
    cell = unit_to_internal("length", "angstrom", np.asarray(atoms.cell).T)
    pos = unit_to_internal("length", "angstrom", atoms.positions)

    def potential(template: str, **options: bool) -> float:
        return MLDriver(model=str(argon_model), template=str(tmp_path / template), **options)(cell, pos)[0]

    closed, opened = potential("closed.extxyz"), potential("open.extxyz")
    assert abs(closed - opened) > 1e-5
    assert potential("init.xyz") == pytest.approx(closed, rel=1e-12)  # i-PI's own format is periodic
    assert potential("init.xyz", pbc=False) == pytest.approx(opened, rel=1e-12)
    assert potential("open.extxyz", pbc=True) == pytest.approx(closed, rel=1e-12)


def test_bad_options(argon_model, tmp_path):
    write(tmp_path / "t.xyz", molecule())
    template = str(tmp_path / "t.xyz")
    with pytest.raises(BadInput, match="unknown option 'modle': did you mean 'model'"):
        MLDriver(modle=str(argon_model), template=template)
    with pytest.raises(BadInput, match="'template' is missing"):
        MLDriver(model=str(argon_model))
    with pytest.raises(BadInput, match="no such template file"):
        MLDriver(model=str(argon_model), template="none.xyz")
    with pytest.raises(BadInput, match="no such model file"):
        MLDriver(model="a.pt+b.pt", template=template)
    with pytest.raises(BadInput, match="expected true, false or template"):
        MLDriver(model=str(argon_model), template=template, pbc="maybe")
    (tmp_path / "bad.xyz").write_text("not\na structure\n")
    with pytest.raises(BadInput, match="ASE cannot read it"):
        MLDriver(model=str(argon_model), template=str(tmp_path / "bad.xyz"))


@pytest.mark.slow
def test_command_line_refusals(processes, argon_model, tmp_path):
    write(tmp_path / "init.xyz", molecule())
    output = processes.drive(argon_model, "--unix", "x", "--port", "3", expected=2)
    assert "--unix excludes --host and --port" in output
    output = finish(processes.start(BIN / "mlplugins", "ipi-driver", "--path"))
    assert Path(output.strip()) == driver_file()


@pytest.mark.slow
def test_the_plain_model_file_in_another_precision(processes, tmp_path):
    path = write_lennard_jones(tmp_path / "single.pt", "float32")
    write_input(tmp_path, direct_forcefield("single.pt"), steps=50)
    finish(processes.ipi())
    expected = load(path).evaluate([crystal()])[0]
    assert properties(tmp_path)["potential"][0] == pytest.approx(expected.energy, abs=1e-7)
    assert drift(tmp_path, 32) < 1e-4


@pytest.mark.slow
def test_example_inputs(processes, argon_model, tmp_path):
    """The XML files beside the driver run as they are, with a model.pt and an init.xyz."""
    write_input(tmp_path, "")
    head = (tmp_path / "init.xyz").read_text()
    (tmp_path / "init.xyz").write_text(head.replace(" positions{angstrom} cell{angstrom}", ""))
    shutil.copy(argon_model, tmp_path / "model.pt")
    for source in driver_file().parent.iterdir():
        if source.is_file():
            shutil.copy(source, tmp_path)
    finish(processes.start(BIN / "i-pi", "ffdirect.xml"))
    volume = read_output(tmp_path / "npt.out")[0]["volume"]
    assert volume[0] == pytest.approx(crystal().get_volume(), rel=1e-6)
    server = processes.start(BIN / "i-pi", "-S", processes.prefix, "socket.xml")
    output = processes.drive("model.pt", "--unix", "mlplugins")
    assert "in 21 calls" in output
    finish(server)
    energy = load(argon_model).evaluate([crystal()])[0].energy
    assert read_output(tmp_path / "nvt.out")[0]["potential"][0] == pytest.approx(energy, rel=1e-7)
