"""Water whose charges, polarizability and shieldings are known in closed form."""

import numpy as np
from ase import Atoms
from ase.units import Bohr, Hartree

ORDER = "xx xy xz yy yz zz"
CONFIGURATION = {
    "data": {"train": "train.extxyz", "validation": 0.0, "test": "test.extxyz", "keys": {"energy": None}},
    "heads": {
        "charges": {"unit": "e", "key": "q", "channels": 4, "width": 8},
        "dipole": {"unit": "e*bohr", "key": "mu", "atomic": False},
        "polarizability": {"unit": "e²Å²/eV", "key": "alpha", "order": ORDER, "width": 8, "products": 2},
        "shielding": {"unit": "ppm", "key": "sigma", "width": 8, "products": 4},
        "isotropic_shielding": {"unit": "ppm", "key": "CS", "width": 8, "products": 0},
    },
    "model": {
        "family": "nequip",
        "cutoff": 3.0,
        "num_layers": 2,
        "l_max": 2,
        "num_features": 4,
        "radial_mlp": [16],
    },
    "training": {"epochs": 30, "batch_size": 4, "lr": 0.03, "ema": 0.9, "dtype": "float64"},
}


def bonds(atoms):
    v = atoms.positions[1:] - atoms.positions[0]
    return v, np.linalg.norm(v, axis=1)


def charges(atoms):
    """e; they change with the lengths of the bonds."""
    _, r = bonds(atoms)
    q = 0.4 - 0.5 * (r - 0.96)
    return np.array([-q.sum(), *q])


def dipole(atoms):
    """e·Å."""
    return charges(atoms) @ atoms.positions


def polarizability(atoms):
    """Å³."""
    v, r = bonds(atoms)
    u = v / r[:, None]
    return 0.5 * np.eye(3) + sum(
        (0.3 + 0.8 * (s - 0.96)) * np.eye(3) + 0.4 * np.outer(e, e) for s, e in zip(r, u)
    )


def shielding(atoms):
    """ppm, with an antisymmetric part (of O, the bonds being unequal)."""
    v, r = bonds(atoms)
    u = v / r[:, None]
    found = []
    for k in range(3):
        e = u[k - 1] if k else u.sum(axis=0)
        iso = 30.0 - 20.0 * (r[k - 1] - 0.96) if k else 320.0 + 100.0 * (r.sum() - 1.92)
        found.append(iso * np.eye(3) + (10.0 if k else 40.0) * (np.outer(e, e) - e @ e * np.eye(3) / 3))
    found[0] += 40.0 * np.cross(np.eye(3), np.cross(u[0], u[1]))
    return np.array(found)


def molecules(n, seed):
    """With labels in units and orders of their own."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        atoms.positions = atoms.positions @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
        atoms.positions += rng.normal(0, 0.05, (3, 3))
        alpha = polarizability(atoms) / (Hartree * Bohr)
        atoms.info |= {"mu": dipole(atoms) / Bohr, "alpha": alpha[np.triu_indices(3)]}
        sigma = shielding(atoms)
        atoms.arrays |= {"q": charges(atoms), "sigma": sigma.reshape(-1, 9)}
        atoms.arrays["CS"] = np.trace(sigma, axis1=1, axis2=2) / 3
        frames.append(atoms)
    return frames
