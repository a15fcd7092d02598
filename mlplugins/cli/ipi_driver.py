"""Serve a model to a running i-PI through a socket.

Example:
  i-pi input.xml &
  mlplugins ipi-driver model.pt init.xyz --unix water        # <ffsocket mode='unix'><address>water</address>
  mlplugins ipi-driver model.pt init.xyz --host localhost --port 31415
  mlplugins ipi-driver a.pt+b.pt init.xyz --unix water       # a committee: uncertainty in i-PI's extras

init.xyz is the structure that i-PI starts from (any file that ASE reads; elements and periodicity are used).
The first line tells model, precision, atoms and periodicity; the second one what i-PI's first structure is.
`mlplugins ipi-driver --path` prints the driver file for `i-pi-driver-py -m custom -P` and `<ffdirect>`.
"""

from __future__ import annotations

import argparse

from mlplugins import files
from mlplugins.cli._common import add_json
from mlplugins.engines.ipi.program import SKIN, driver_file
from mlplugins.engines.ipi.socket import orderly_end
from mlplugins.errors import BadInput

WATCHED = (
    "force_uncertainty",
    "probes",
    "stop_above",
    "keep_above",
    "watch_interval",
    "first_step",
    "beads",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins ipi-driver`."""
    parser.add_argument("model", nargs="?", help="model.pt; several joined by '+' are a committee")
    parser.add_argument("template", nargs="?", help="structure file with the atoms in i-PI's order")
    parser.add_argument("-u", "--unix", metavar="NAME", help="name of i-PI's unix socket, its <address>")
    parser.add_argument("--host", help="host of i-PI's TCP socket (default: localhost)")
    parser.add_argument("--port", type=int, help="port of i-PI's TCP socket (default: 31415)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")
    parser.add_argument(
        "--skin", type=float, default=SKIN, help="neighbour-list skin, Å (default: %(default)s)"
    )
    parser.add_argument(
        "--pbc",
        choices=("template", "true", "false"),
        default="template",
        help="periodicity (default: as the template says, or i-PI's cell if it has none)",
    )
    parser.add_argument(
        "--committee-forces", action="store_true", help="send each model's forces in the extras as well"
    )
    parser.add_argument(
        "--order",
        choices=("check", "trust"),
        default="check",
        help="refuse a first structure with the template's atoms in another order (default: %(default)s)",
    )
    parser.add_argument("--variant", metavar="NAME", help="which energy of a model that has several")
    _add_switches(parser)
    parser.add_argument(
        "--charge", type=float, metavar="Q", help="total charge, e (default: as the template says, else 0)"
    )
    parser.add_argument(
        "--spin", type=float, metavar="M", help="spin multiplicity (default: as the template says, else 1)"
    )
    _add_watch(parser)
    parser.add_argument(
        "--wait",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds to wait for i-PI (default: %(default)s)",
    )
    parser.add_argument("--sockets-prefix", metavar="PREFIX", help="as i-pi -S (default: i-PI's own)")
    parser.add_argument("--path", action="store_true", help="print the path of the driver file and exit")
    add_json(parser)


def _add_switches(parser: argparse.ArgumentParser) -> None:
    """Options that are on or off, with their defaults."""
    switches = {
        "--baseline": ("on", "off: energies without the composition energies"),
        "--non-conservative": ("off", "on: the model's direct forces, for the inner of multiple time steps"),
        "--energies": ("off", "on: all energies of a model that has several in the extras"),
        "--bec": ("off", "on: Born effective charges in the extras, for driven dynamics"),
    }
    for name, (default, text) in switches.items():
        parser.add_argument(
            name, choices=("on", "off"), default=default, help=f"{text} (default: %(default)s)"
        )


def _add_watch(parser: argparse.ArgumentParser) -> None:
    """Uncertainties, and what becomes of a run that meets large ones."""
    parser.add_argument(
        "--force-uncertainty",
        choices=("on", "off"),
        default="off",
        help="on: predicted uncertainty of the forces in the extras (default: %(default)s)",
    )
    parser.add_argument(
        "--probes", type=int, default=8, help="random ones of it; 0: exactly (default: %(default)s)"
    )
    parser.add_argument(
        "--stop-above", type=float, metavar="X", help="end where an atom is less certain (see simulate)"
    )
    parser.add_argument("--keep-above", type=float, metavar="X", help="write such frames to kept.extxyz")
    parser.add_argument(
        "--watch-interval", type=int, default=10, metavar="N", help="steps between looks (%(default)s)"
    )
    parser.add_argument("--first-step", type=int, default=0, metavar="N", help="of the first structure")
    parser.add_argument("--beads", type=int, default=1, metavar="P", help="structures of one step")


def run(args: argparse.Namespace) -> int:
    """Connect, serve until i-PI says EXIT, print a summary."""
    if args.path:
        print(driver_file())
        return 0
    if args.model is None or args.template is None:
        raise BadInput("expected MODEL and TEMPLATE; see `mlplugins ipi-driver --help`")
    if args.unix is not None and (args.host is not None or args.port is not None):
        raise BadInput("--unix excludes --host and --port: choose the one in i-PI's <ffsocket mode=…>")
    with orderly_end():
        return _serve(args)


def _serve(args: argparse.Namespace) -> int:
    from mlplugins.engines.ipi.driver import SOCKETS_PREFIX, MLDriver, connect, serve

    class Driver(MLDriver):
        """Tells on the screen what the first structure is."""

        def say(self, text: str) -> None:
            print(f"mlplugins ipi-driver: {text}", flush=True)

    driver = Driver(
        model=args.model,
        template=args.template,
        device=args.device,
        skin=args.skin,
        pbc=args.pbc,
        committee_forces=args.committee_forces,
        order=args.order,
        variant=args.variant,
        baseline=args.baseline,
        charge=args.charge,
        spin=args.spin,
        non_conservative=args.non_conservative,
        energies=args.energies,
        bec=args.bec,
        **{name: getattr(args, name) for name in WATCHED if getattr(args, name) is not None},
    )
    host = "localhost" if args.host is None else args.host
    port = 31415 if args.port is None else args.port
    prefix = SOCKETS_PREFIX if args.sockets_prefix is None else args.sockets_prefix
    where = f"{host}:{port}" if args.unix is None else f"unix socket {prefix}{args.unix}"
    driver.say(driver.describe(f", at {where}"))
    try:
        serve(driver, connect(args.unix, host, port, args.wait, prefix))
    finally:
        per_structure = 1e3 * driver.seconds / max(driver.n_structures, 1)
        driver.say(
            f"{driver.n_structures} structures in {driver.n_calls} calls, "
            f"{driver.seconds:.1f} s, {per_structure:.2f} ms per structure"
        )
        files.write_json(
            args.json,
            {"n_calls": driver.n_calls, "n_structures": driver.n_structures, "seconds": driver.seconds},
        )
    return 0
