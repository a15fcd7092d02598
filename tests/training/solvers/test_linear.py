import numpy as np
import pytest

from mlplugins.errors import BadInput, RunFailed
from mlplugins.training.solvers import _iterative, _linear, _symmetry


def positive(n, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T / n


def test_solution_condition_and_determinant_are_numpys():
    k, y = positive(60), np.random.default_rng(1).normal(size=60)
    regularisation = np.where(np.arange(60) < 20, 1e-3, 1e-2)
    found = _linear.solve(np.triu(k), np.diagonal(k).copy(), regularisation, y)
    full = k + np.diag(regularisation)
    np.testing.assert_allclose(found.solution, np.linalg.solve(full, y), rtol=1e-10)
    assert found.log_determinant == pytest.approx(np.linalg.slogdet(full)[1], rel=1e-12)
    assert found.condition == pytest.approx(np.linalg.cond(full, 1), rel=0.5)
    assert found.jitter == 0.0
    assert found.residual < 1e-13


def test_one_matrix_serves_many_regularisations():
    k, y = positive(50), np.ones(50)
    matrix, diagonal = np.triu(k), np.diagonal(k).copy()
    for value in (1e-2, 1e-6, 1.0):
        found = _linear.solve(matrix, diagonal, np.full(50, value), y)
        np.testing.assert_allclose(found.solution, np.linalg.solve(k + value * np.eye(50), y), rtol=1e-7)


def test_a_singular_matrix_gets_a_jitter_and_an_indefinite_one_is_refused():
    k = np.ones((5, 5))
    found = _linear.solve(k.copy(), np.ones(5), np.zeros(5), np.ones(5))
    assert 0 < found.jitter < 1e-9
    with pytest.raises(BadInput, match="duplicate or nearly equal frames"):
        _linear.solve(-np.ones((5, 5)), np.ones(5), np.zeros(5), np.ones(5))


def test_blocks_are_mirrored(monkeypatch):
    monkeypatch.setattr(_linear, "BLOCK", 3)
    k = positive(8)
    upper = np.triu(k)
    _linear.mirror(upper)
    np.testing.assert_array_equal(upper, upper.T)
    np.testing.assert_array_equal(np.triu(upper), np.triu(k))


def test_the_preconditioner_saves_iterations_and_failure_is_said():
    x = np.linspace(0, 1, 120)
    k = np.exp(-((x[:, None] - x[None]) ** 2) / 0.08) + 1e-6 * np.eye(120)
    y = np.sin(7 * x)
    chosen = np.arange(0, 120, 8)
    columns = np.ascontiguousarray((k - 1e-6 * np.eye(120))[:, chosen])
    inverse = _iterative.nystrom(columns, chosen, np.full(120, 1e-6))
    found = _iterative.conjugate_gradients(k.dot, inverse, y, 1e-10, 200)
    np.testing.assert_allclose(k @ found.solution, y, atol=1e-8)
    assert found.iterations < 20
    with pytest.raises(RunFailed, match="raise training.iterations"):
        _iterative.conjugate_gradients(k.dot, lambda v: v, y, 1e-12, 5)


def test_automorphisms_of_methane():
    adjacency = np.zeros((5, 5), dtype=bool)
    adjacency[0, 1:] = adjacency[1:, 0] = True
    found = _symmetry.automorphisms(np.array([6, 1, 1, 1, 1]), adjacency)
    assert len(found) == 24
    assert found[0].tolist() == [0, 1, 2, 3, 4]


def test_pairs_follow_their_atoms():
    permutations = np.array([[0, 1, 2], [0, 2, 1]])
    distances = {(0, 1): 0, (0, 2): 1, (1, 2): 2}
    expected = [[0, 1, 2], [distances[0, 2], distances[0, 1], distances[1, 2]]]
    assert _symmetry.of_pairs(permutations).tolist() == expected


def test_no_iterations_for_labels_that_are_zero():
    k = positive(5)
    found = _iterative.conjugate_gradients(k.dot, lambda v: v, np.zeros(5), 1e-6, 10)
    assert found == (pytest.approx(np.zeros(5)), 0, 0.0)


def test_free_memory_is_that_of_the_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(_linear, "CONTROL_GROUP", tmp_path)
    machine = _linear.available_bytes()
    assert machine > 1e7
    for name, text in (("stat", "anon 5000\ninactive_file 300"), ("current", "9000"), ("max", "10000")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert _linear.available_bytes() == 1300
    (tmp_path / "memory.max").write_text("max\n")
    assert _linear.available_bytes() == pytest.approx(machine, rel=0.5)
