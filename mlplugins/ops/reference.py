"""Plain-torch reference of the native ops: their tests compare with it, and it runs without the library.

TorchScript-able, so that `mlplugins export --portable` can write files free of our ops.
"""

from typing import List, Optional, Tuple

import torch
from torch import Tensor


def convolution(
    h: Tensor,
    y: Tensor,
    w: Tensor,
    edges: List[Tensor],
    n_centers: int,
    tables: List[Tensor],
) -> Tensor:
    """m_i = Σ_{e: centre i} w_e ⊙ (h_{neighbour(e)} ⊗ y_e): the "uvu" tensor product, summed by centre.

    Args:
        h: (N, D) node features in ir_mul order.
        y: (E, J) harmonics.
        w: (E, W) radial weights, one per path and channel.
        edges: centers (E,) int64, ascending, and neighbors (E,) int64; where edges share rows of w, then also
            the row of each (E,) int64.
        n_centers: rows of the result.
        tables: paths (P, 7) int64, one row per path: its offsets in h, result, w and coupling, then channels,
            2 l1 + 1, 2 l3 + 1; entries (C, 2) int64 and values (C,), the Clebsch–Gordan coefficients:
            coupling[target] += value · y[harmonic] for rows (target, harmonic).

    Returns:
        (n_centers, Σ_paths channels · (2 l3 + 1)).
    """
    centers, neighbors = edges[0], edges[1]
    if len(edges) > 2:
        w = w.index_select(0, edges[2])
    entries, values = tables[1], tables[2]
    table: List[List[int]] = tables[0].tolist()
    n_edges = centers.shape[0]
    n_coupling = int((tables[0][:, 3] + tables[0][:, 5] * tables[0][:, 6]).max())
    basis = torch.zeros(y.shape[1], n_coupling, dtype=y.dtype, device=y.device)
    basis = basis.index_put([entries[:, 1], entries[:, 0]], values)
    coupling = y @ basis  # (E, Σ_paths (2 l3 + 1)(2 l1 + 1))
    h_j = h.index_select(0, neighbors)  # (E, D)
    messages: List[Tensor] = []
    for source, _, weight, offset, channels, d1, d3 in table:
        m = coupling[:, offset : offset + d3 * d1].reshape(n_edges, d3, d1)
        x = h_j[:, source : source + d1 * channels].reshape(n_edges, d1, channels)
        r = w[:, weight : weight + channels].unsqueeze(1)  # (E, 1, channels)
        messages.append((torch.bmm(m, x) * r).reshape(n_edges, d3 * channels))
    message = torch.cat(messages, dim=1)  # (E, result)
    summed = torch.zeros(n_centers, message.shape[1], dtype=message.dtype, device=message.device)
    return summed.index_add(0, centers, message)


def perceptron(x: Tensor, weights: List[Tensor]) -> Tensor:
    """silu(… silu(x W_0) …) W_last, (E, W_last.shape[1])."""
    for index, weight in enumerate(weights):
        if index > 0:
            x = torch.nn.functional.silu(x)
        x = x @ weight
    return x


def radial_convolution(
    h: Tensor,
    y: Tensor,
    radial: List[Tensor],
    weights: List[Tensor],
    edges: List[Tensor],
    n_centers: int,
    tables: List[Tensor],
) -> Tensor:
    """`convolution` with w = perceptron(radial[1], weights), for inference.

    Args:
        radial: distances r (E,), functions of them (U, B), and the slopes of those (U, B). The native op
            differentiates with respect to r, this reference through the functions.
        edges: centers, neighbors and the row of the basis that belongs to each edge, (E,) int64.
    """
    return convolution(h, y, perceptron(radial[1], weights), edges, n_centers, tables)


def edge_rows(centers: Tensor, neighbors: Tensor, vectors: Tensor) -> Tuple[Tensor, Tensor]:
    """The first edge of every row of radial weights (U,) and the row of every edge (E,).

    The native op gives i → j and j → i the same row; here every edge has its own.
    """
    own = torch.arange(centers.shape[0], device=centers.device)
    return own, own.clone()


def interpolate(x: Tensor, knots: Tensor, edges: Optional[List[Tensor]] = None) -> Tensor:
    """Cubic Hermite interpolation between knots at x = 0, 1/(K−1), …, 1; zero from x = 1 on.

    Args:
        x: (E,)
        knots: (K, 3, W), at each knot the value, slope · step, and the rise to the next value; or, in older
            files, (K, 2, W) without rises, which then have the round-off of the values. Of several tables,
            (P, K, 3, W), the fourth of `edges` (E,) int64 says which one an x belongs to.

    Returns:
        (E, W).
    """
    last = knots.shape[-3] - 1
    place = x.clamp(0, 1) * last
    knot = place.detach().floor().clamp_max(last - 1).to(torch.long)
    t = (place - knot).unsqueeze(1)
    if edges is not None and len(edges) == 4:
        knot, knots = knot + edges[3] * (last + 1), knots.flatten(0, 1)
    a, b = knots.index_select(0, knot), knots.index_select(0, knot + 1)  # (E, 3 or 2, W)
    rise = a[:, 2] if knots.shape[1] == 3 else b[:, 0] - a[:, 0]
    w = a[:, 0] + t * t * (3 - 2 * t) * rise
    w = w + t * (1 - t) * (1 - t) * a[:, 1] + t * t * (t - 1) * b[:, 1]
    return torch.where((x < 1).unsqueeze(1), w, torch.zeros_like(w))


def table_convolution(
    h: Tensor,
    y: Tensor,
    x: Tensor,
    knots: Tensor,
    edges: List[Tensor],
    n_centers: int,
    tables: List[Tensor],
) -> Tensor:
    """`convolution` with w = interpolate(x, knots, edges), x (E,)."""
    return convolution(h, y, interpolate(x, knots, edges), edges[:2], n_centers, tables)


def symmetric_contraction(
    x: Tensor, coefficients: Tensor, species: Tensor, monomials: Tensor, n_out: int
) -> Tensor:
    """B_nk = Σ_m c_{z(n),m} x_{n,i1} x_{n,i2} x_{n,i3}, m = (k, i1, i2, i3), for each channel by itself.

    Args:
        x: (N, D·C) node features, component-major.
        coefficients: (S, M, C), by species, monomial and channel.
        species: (N,) int64, below S.
        monomials: (M, 4) int64: output component k < `n_out`, then one to three components of x, then -1.
        n_out: components of the result.

    Returns:
        (N, n_out·C).
    """
    n, channels = x.shape[0], coefficients.shape[2]
    n_in = x.shape[1] // channels
    one = torch.ones(n, 1, channels, dtype=x.dtype, device=x.device)  # stands for the inputs -1
    padded = torch.cat([x.reshape(n, n_in, channels), one], dim=1)
    value = coefficients.index_select(0, species)  # (N, M, C)
    for order in range(1, 4):
        i = monomials[:, order]
        value = value * padded.index_select(1, torch.where(i < 0, n_in, i))
    zeros = torch.zeros(n, n_out, channels, dtype=x.dtype, device=x.device)
    return zeros.index_add(1, monomials[:, 0], value).reshape(n, n_out * channels)


def linear(x: Tensor, weights: List[Tensor], terms: List[int], n_out: int) -> Tensor:
    """y[output …] += x[input …] W for blocks of 2l + 1 components: an equivariant linear map.

    Args:
        x: (N, D) node features in ir_mul order.
        weights: matrices (rows, channels of an output block).
        terms: six numbers per product, in the order of the output blocks: offsets in x and y, 2l + 1,
            channels of the input block, the matrix, and the first of its rows that belongs to this block.
        n_out: width of y.

    Returns:
        (N, n_out); columns that no term reaches are zero.
    """
    n = x.shape[0]
    parts: List[Tensor] = []
    end = 0
    for k in range(0, len(terms), 6):
        source, target, dim, channels, matrix, row = terms[k : k + 6]
        block = x[:, source : source + dim * channels].reshape(n * dim, channels)
        w = weights[matrix][row : row + channels]
        y = torch.matmul(block, w).reshape(n, dim * w.shape[1])
        if target < end:
            parts[-1] = parts[-1] + y
        else:
            parts.append(torch.zeros(n, target - end, dtype=x.dtype, device=x.device))
            parts.append(y)
            end = target + y.shape[1]
    parts.append(torch.zeros(n, n_out - end, dtype=x.dtype, device=x.device))
    return torch.cat(parts, dim=1)


def pair_sum(
    vectors: Tensor,
    factors: List[Tensor],
    kind: Tensor,
    edges: List[Tensor],
    pairs: Tensor,
    form: str,
    constants: List[float],
) -> Tensor:
    """E_i = Σ_{e: centre i} c_e f(r_e) s(r_e): a function of the distance times a coefficient of two atoms.

    c_e = Σ_m left[i, m] right[j, kind_i, m], or 1 where there are no columns m; r = |v| / unit; s is the
    quintic switch between `onset` · cutoff and the cutoff. With p the parameters of the two kinds, f(r) is

    - `becke-johnson`: s6 / (r⁶ + p0) + p2 / (r⁸ + p1), constants s6;
    - `zero`: s6 / r⁶ / (1 + 6 (rs6 p0/r)^α) + p1 / r⁸ / (1 + 6 (rs8 p0/r)^(α + 2)), constants s6, rs6,
      rs8, α;
    - `count`: 1 / (1 + exp(−k (p0/r − 1))), constants k.

    Args:
        vectors: v (E, 3), Å.
        factors: left (n_centers, M) and right (N, P, M).
        kind: (N,) int64 of P.
        edges: centers (E,) int64, ascending, and neighbors (E,) int64.
        pairs: (P, P, 3, 2 or 1) parameters.
        form: of f.
        constants: unit and cutoff (Å), onset, and those of the form.

    Returns:
        (n_centers,).
    """
    left, right = factors[0], factors[1]
    unit, cutoff, onset = constants[0], constants[1], constants[2]
    length = torch.linalg.vector_norm(vectors, dim=1)
    near = torch.nonzero(length < cutoff).squeeze(1)
    i, j = edges[0].index_select(0, near), edges[1].index_select(0, near)
    r, of_i = length.index_select(0, near) / unit, kind.index_select(0, i)
    p = pairs.flatten(0, 1).index_select(0, of_i * pairs.shape[0] + kind.index_select(0, j))
    r2 = r * r
    r6 = r2 * r2 * r2
    if form == "becke-johnson":
        f = constants[3] / (r6 + p[:, 0]) + p[:, 2] / (r6 * r2 + p[:, 1])
    elif form == "zero":
        x = p[:, 0] / r
        six = constants[3] / (1.0 + 6.0 * (constants[4] * x) ** constants[6])
        eight = p[:, 1] / (1.0 + 6.0 * (constants[5] * x) ** (constants[6] + 2.0))
        f = (six + eight / r2) / r6
    else:
        f = torch.sigmoid(constants[3] * (p[:, 0] / r - 1.0))
    t = ((r * (unit / cutoff) - onset) / (1.0 - onset)).clamp(0.0, 1.0)
    f = f * (1.0 - t**3 * (10.0 - t * (15.0 - 6.0 * t)))
    if left.shape[1] > 0:
        row = right.flatten(0, 1).index_select(0, j * pairs.shape[0] + of_i)
        # columns first, edges last: faster
        f = f * (left.t().contiguous().index_select(1, i) * row.t()).sum(dim=0)
    return torch.zeros(left.shape[0], dtype=r.dtype, device=r.device).index_add(0, i, f)


STRIP = 32
"""Columns of a packed matrix that stand together."""


def linear_sums(
    x: List[Tensor], species: Tensor, weights: List[Tensor], plan: List[int], back: List[int]
) -> List[Tensor]:
    """Sums of equivariant linear maps of x with constant weights, one or several results.

    Args:
        x: inputs (N, D_k) in ir_mul order.
        species: (N,) int64, of maps that depend on it.
        weights: the matrices of the sums (see below), and those of the gradient, the transposed ones.
        plan: the number of results and their widths; then of each of their blocks, which cover them: result,
            offset, components 2l + 1, channels, the number of sources, and of each source: input, offset,
            channels, the place of its matrix in weights[0], and how much further that of the next species
            stands (0: it is the same). A matrix (channels, columns) is packed as
            (⌈columns / STRIP⌉, channels, STRIP), its last columns filled up with zeros.
        back: the same of the gradient with respect to x.

    Returns:
        Results (N, width).
    """
    n_results, at = plan[0], 1 + plan[0]
    parts: List[List[Tensor]] = [[] for _ in range(n_results)]
    n = x[0].shape[0]
    while at < len(plan):
        result, _, components, columns, n_sources = plan[at : at + 5]
        at += 5
        y = x[0].new_zeros(n, components * columns)
        for _ in range(n_sources):
            source, offset, channels, place, stride = plan[at : at + 5]
            at += 5
            block = x[source][:, offset : offset + components * channels]
            x_s = block.reshape(n, components, channels)
            strips = -(-columns // STRIP)
            size = strips * channels * STRIP
            if stride > 0:  # the matrix of every row
                panels = weights[0][place:].unfold(0, size, stride).index_select(0, species)
            else:
                panels = weights[0][place : place + size].unsqueeze(0)
            w = panels.reshape(-1, strips, channels, STRIP).transpose(1, 2)
            w = w.reshape(-1, channels, strips * STRIP)[:, :, :columns]
            y = y + torch.matmul(x_s, w).reshape(n, components * columns)
        parts[result].append(y)
    return [torch.cat(blocks, dim=1) if blocks else x[0].new_zeros(n, 0) for blocks in parts]


def gate(x: Tensor, sizes: List[int], factors: List[float]) -> Tensor:
    """(a silu(s), b tanh(p), c f(g) ⊙ v) of rows s ⊕ p ⊕ g ⊕ v; one gate g for each channel of a block of v.

    Args:
        x: (N, D).
        sizes: numbers of s and of p; 1 if f is the logistic function, 0: silu; then components and channels
            of each block of v.
        factors: a, b, c.
    """
    even, odd, logistic = sizes[:3]
    blocks = [(sizes[k], sizes[k + 1]) for k in range(3, len(sizes), 2)]
    n_gates = sum(channels for _, channels in blocks)
    s, p, g, v = x.split([even, odd, n_gates, x.shape[1] - even - odd - n_gates], dim=1)
    g = (torch.sigmoid(g) if logistic else torch.nn.functional.silu(g)) * factors[2]
    out = [torch.nn.functional.silu(s) * factors[0], torch.tanh(p) * factors[1]]
    first, column = 0, 0
    for components, channels in blocks:
        part = v[:, first : first + components * channels].reshape(x.shape[0], components, channels)
        scaled = part * g[:, column : column + channels].unsqueeze(1)
        out.append(scaled.reshape(x.shape[0], components * channels))
        first, column = first + components * channels, column + channels
    return torch.cat(out, dim=1)


def harmonics(vectors: Tensor, l_max: int, solid: bool) -> Tuple[Tensor, Tensor]:
    """Lengths (E,) of vectors (E, 3), and real spherical harmonics (E, (l_max + 1)²) of their directions or,
    solid, of themselves, up to degree 3: e3nn's components, Σ_m Y_lm² = 2l + 1 (times r^(2l), solid)."""
    r = torch.linalg.vector_norm(vectors, dim=1)
    v = vectors if solid else vectors / r.unsqueeze(1)
    x, y, z = v.unbind(dim=1)
    xz, a, b = x * x + z * z, x * z, 0.5 * (z * z - x * x)
    s3, s5, s7, s15 = 3.0**0.5, 5.0**0.5, 7.0**0.5, 15.0**0.5
    found = [torch.ones_like(x), s3 * x, s3 * y, s3 * z]
    if l_max > 1:
        found += [s15 * a, s15 * x * y, s5 * (y * y - 0.5 * xz), s15 * y * z, s15 * b]
    if l_max > 2:
        c, d, f = 17.5**0.5, 2.625**0.5, 4.0 * y * y - xz
        found += [c * (a * z + b * x), s15 * s7 * a * y, d * f * x, 0.5 * s7 * y * (2.0 * y * y - 3.0 * xz)]
        found += [d * f * z, s15 * s7 * b * y, c * (b * z - a * x)]
    return r, torch.stack(found, dim=1)


def near_pairs(
    positions: Tensor, expected: Tensor, cell: Tensor, samples: Tensor, cutoff: float
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The candidates of a neighbour list that are closer than `cutoff`, in their order; for inference.

    Args:
        positions: r (N, 3), Å.
        expected: r₀ (N, 3), where the atoms are expected, Å.
        cell: (3, 3), rows are the cell vectors, Å.
        samples: (P, 5) int32: centre i, neighbour j and cell shift S of each candidate.
        cutoff: Å.

    Returns:
        The rows of `samples` (E,), their i (E,) and j (E,), all int64, r_j − r_i + S · cell (E, 3), and the
        largest |r − r₀| of an atom ().
    """
    i, j = samples[:, 0].to(torch.long), samples[:, 1].to(torch.long)
    positions, expected, cell = positions.detach(), expected.detach(), cell.detach()
    shifts = samples[:, 2:].to(positions.dtype)
    vectors = positions.index_select(0, j) - positions.index_select(0, i) + shifts @ cell
    rows = (vectors.square().sum(1) < cutoff * cutoff).nonzero().flatten()
    moves = torch.nn.functional.pad((positions - expected).square().sum(1), [0, 1])  # none: 0
    near = i.index_select(0, rows), j.index_select(0, rows), vectors.index_select(0, rows)
    return rows, near[0], near[1], near[2], moves.max().sqrt()


def forces_and_virials(
    gradient: Tensor,
    vectors: Tensor,
    centers: Tensor,
    neighbors: Tensor,
    system: Tensor,
    n_systems: int,
    per_atom: bool,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Forces and virials from the derivatives g_e = ∂E/∂v_e by the vectors of the edges:

    F_i = Σ_{e: centre i} g_e − Σ_{e: neighbour i} g_e  and  W = −½ Σ_e (v_e ⊗ g_e + g_e ⊗ v_e), of an atom
    with half of each of its edges, at either end.

    Args:
        gradient: g (E, 3), eV/Å.
        vectors: v (E, 3), Å; the results have their precision. The native op sums in float64.
        centers: (E,) int64, edge e points from centre i …
        neighbors: (E,) int64, … to neighbour j.
        system: (N,) int64, which structure an atom belongs to.
        n_systems: number of structures.
        per_atom: whether the virials of the atoms are wanted.

    Returns:
        F (N, 3) in eV/Å; W of each structure (n_systems, 3, 3) and of each atom, (N, 3, 3) or (0, 3, 3), eV.
    """
    n = system.shape[0]
    g = gradient.to(vectors.dtype)
    outer = vectors.unsqueeze(2) * g.unsqueeze(1)
    w = -0.5 * (outer + outer.transpose(1, 2))
    forces = torch.zeros(n, 3, dtype=g.dtype, device=g.device)
    forces = forces.index_add(0, centers, g).index_add(0, neighbors, -g)
    virial = torch.zeros(n_systems, 3, 3, dtype=g.dtype, device=g.device)
    virial = virial.index_add(0, system.index_select(0, centers), w)
    virials = torch.zeros(n if per_atom else 0, 3, 3, dtype=g.dtype, device=g.device)
    if per_atom:
        virials = virials.index_add(0, centers, 0.5 * w).index_add(0, neighbors, 0.5 * w)
    return forces, virial, virials


POINTS = 8
"""Training points that `pack_points` puts together."""


def pack_points(points: Tensor, slopes: Tensor) -> Tensor:
    """Training points (M, P) and, unless it has no rows, b (M, P) in the order of `kernel_sum`, padded by
    zeros: (B, P, 1 or 2, 8)."""
    parts = [points, slopes] if len(slopes) else [points]
    missing = -points.shape[0] % POINTS
    padded = torch.nn.functional.pad(torch.stack(parts), (0, 0, 0, missing))  # (1 or 2, 8 B, P)
    blocks = padded.reshape(len(parts), -1, POINTS, points.shape[1])
    return blocks.permute(1, 3, 0, 2).contiguous()


def kernel_sum(q: Tensor, packed: Tensor, values: Tensor, kernel: str, sigma: float) -> Tuple[Tensor, Tensor]:
    """f(q) = Σ_i [a_i (k_i − 1) + 2 k'_i t_i], t_i = b_i · (x_i − q), and its gradient, for inference:

    ∇f = Σ_i [(4 k''_i t_i + 2 k'_i a_i) (q − x_i) − 2 k'_i b_i], k a function of |q − x_i|².

    Args:
        q: (Q, P) float64.
        packed: (B, P, 2, 8) training points x and their b, see `pack_points`; or (B, P, 1, 8) without b.
        values: (8 B,) a, or (0,).
        kernel: `gaussian` or `matern52`.
        sigma: its length scale.

    Returns:
        f (Q,) and ∇f (Q, P).
    """
    rows = packed.permute(2, 0, 3, 1).reshape(packed.shape[2], -1, q.shape[1])
    points, slopes = rows[0], rows[1:]
    squares = points.square().sum(1)
    energies: List[Tensor] = []
    gradients: List[Tensor] = []
    # kernel values of this number stay in a core's cache
    for part in q.split(max(1, 40_000 // max(1, points.shape[0]))):
        s = part.square().sum(1, keepdim=True) + squares - 2.0 * torch.mm(part, points.t())
        k, slope, curvature = kernel_derivatives(kernel, sigma, s.clamp_min_(0.0))
        energy = torch.zeros_like(part[:, 0])
        pull = torch.zeros_like(part)
        along = torch.zeros_like(s)
        if slopes.shape[0] > 0:
            t = (points * slopes[0]).sum(1) - torch.mm(part, slopes[0].t())
            energy = energy + (slope * t).sum(1)
            along = curvature * t
            pull = torch.mm(slope, slopes[0])
        if values.shape[0] > 0:
            energy = energy + torch.mv(k, values)
            along = along + slope * values
        energies.append(energy)
        gradients.append(part * along.sum(1, keepdim=True) - torch.mm(along, points) - pull)
    return torch.cat(energies), torch.cat(gradients)


def molecular_kernel(
    positions: Tensor, tables: List[Tensor], kernel: str, sigma: float
) -> Tuple[Tensor, Tensor, Tensor]:
    """`kernel_sum` of molecules, summed over permutations of their pairs of atoms, from their positions.

    Args:
        positions: (S, n, 3) float64, Å.
        tables: scale c (P,), shift (P,), permutations (K, P) int64, then packed and values of `kernel_sum`:
            the descriptor is c/r − shift over the P pairs i < j in row-major order.
        kernel: `gaussian` or `matern52`.
        sigma: its length scale.

    Returns:
        f (S,), ∂f/∂r (S, n, 3), and the largest distance of two atoms (1,).
    """
    scale, shift, pairs = tables[0], tables[1], tables[2]
    i, j = torch.triu_indices(positions.shape[1], positions.shape[1], 1, device=positions.device).unbind(0)
    vectors = positions.index_select(1, j) - positions.index_select(1, i)  # (S, P, 3)
    r = torch.linalg.vector_norm(vectors, dim=2)
    x = scale / r
    order = pairs.reshape(-1)
    n_systems, copies = x.shape[0], pairs.shape[0]
    q = (x - shift).index_select(1, order).reshape(n_systems * copies, x.shape[1])
    energy, slopes = kernel_sum(q, tables[3], tables[4], kernel, sigma)
    back = torch.zeros_like(x).index_add_(1, order, slopes.reshape(n_systems, order.shape[0]))
    pull = (back * x / r.square()).unsqueeze(2) * vectors
    gradient = torch.zeros_like(positions).index_add_(1, i, pull).index_add_(1, j, -pull)
    farthest = torch.cat([r.reshape(-1), torch.zeros(1, dtype=r.dtype, device=r.device)]).max()
    return energy.reshape(n_systems, copies).sum(1), gradient, farthest.reshape(1)


def kernel_derivatives(kernel: str, sigma: float, s: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """k − 1, 2 dk/ds and 4 d²k/ds² at squared distances s."""
    if kernel == "gaussian":
        k = torch.expm1(s * (-0.5 / sigma**2))
        slope = (k + 1.0) * (-1.0 / sigma**2)
        return k, slope, slope * (-1.0 / sigma**2)
    u = torch.sqrt(s * (5.0 / sigma**2))
    decay, rise = torch.exp(-u), u + u * u / 3.0
    slope = (u + 1.0) * decay * (-5.0 / (3.0 * sigma**2))
    return rise + (1.0 + rise) * torch.expm1(-u), slope, decay * (25.0 / (3.0 * sigma**4))
