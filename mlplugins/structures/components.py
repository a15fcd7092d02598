"""Symmetric tensors of data files: nine numbers, or six in an order that the user states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput

ORDERS = ("xx yy zz yz xz xy", "xx xy xz yy yz zz", "xx yy zz xy xz yz")
"""Orders in use: Voigt's (ASE), row by row (MACE-MDP), LAMMPS'; others are read, too."""

FEW_OF_MANY = 0.05
"""Part of the frames that may be no ground states."""

ASYMMETRY = 1e-2
"""Of nine numbers, relative to the largest, above which they are no symmetric tensor."""


def checked_order(order: str, where: str) -> str:
    """The order of six components, `xx` … `zz` each once.

    >>> checked_order("xx xy xz yy zy zz", "order")
    'xx xy xz yy yz zz'

    Raises:
        BadInput: another text.
    """
    words = ["".join(sorted(word)) for word in order.lower().replace(",", " ").split()]
    if sorted(words) != sorted(ORDERS[0].split()):
        raise BadInput(f"{where}: expected the order of six components, e.g. '{ORDERS[0]}', got '{order}'")
    return " ".join(words)


def tensor(value: Any, order: str | None, name: str) -> NDArray[np.float64]:
    """A symmetric tensor of nine numbers, or of six in a known order.

    >>> tensor([1, 4, 5, 2, 6, 3], "xx xy xz yy yz zz", "alpha").tolist()
    [[1.0, 4.0, 5.0], [4.0, 2.0, 6.0], [5.0, 6.0, 3.0]]

    Raises:
        BadInput: other numbers, six without an order, or nine that are not symmetric.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: expected 9 or 6 numbers, got {value!r}") from error
    if array.size == 6 and order is None:
        raise BadInput(
            f"{name}: six numbers of a symmetric tensor, whose order nobody can tell: state it, `order: "
            f"{ORDERS[0]}` in the section of the head (--keys: NAME=KEY:UNIT:{ORDERS[0].replace(' ', ',')}), "
            f"or another such as {ORDERS[1]}"
        )
    if array.size == 6:
        result = np.zeros((3, 3))
        for word, number in zip(str(order).split(), array.ravel()):
            i, j = ("xyz".index(letter) for letter in word)
            result[i, j] = result[j, i] = number
        return result
    if array.size != 9:
        raise BadInput(f"{name}: expected 9 or 6 numbers, got {array.size}")
    full = array.reshape(3, 3)
    apart = float(np.abs(full - full.T).max())
    if apart > ASYMMETRY * float(np.abs(full).max()):
        raise BadInput(
            f"{name}: expected a symmetric tensor, but components across the diagonal differ by {apart:.3g} "
            f"(largest component {np.abs(full).max():.3g}): is it this quantity, and nine numbers row by row?"
        )
    return 0.5 * (full + full.T)


def indefinite(tensors: Sequence[NDArray[np.float64]], what: str) -> str:
    """A sentence on polarizabilities that no ground state has, "" if there are none.

    The energy −½ E·α·E of a field falls whatever its direction, so α is positive definite; six components in
    another order are not: off the diagonal stands what should be on it.

    >>> indefinite([np.diag([1.0, 2.0, 3.0])], "alpha"), indefinite([], "alpha")
    ('', '')
    >>> indefinite([np.diag([1.0, 0.1, -0.1])], "alpha").partition(":")[0]
    'alpha'
    """
    values = np.linalg.eigvalsh(np.stack(tensors))[:, 0] if len(tensors) else np.ones(1)
    wrong = int((values <= 0).sum())
    if wrong <= FEW_OF_MANY * len(values):
        return ""
    return (
        f"{what}: {wrong} of {len(values)} polarizabilities are not positive definite, which those of ground "
        f"states are: are the components in another order ({'; '.join(ORDERS)}), or differences?"
    )
