// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::edge_rows: edges of the same length, i → j and j → i, share one row of radial weights.
// While the moments of messages are asked for, none do.

#include "message_moments.h"
#include "ops.h"

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>
#include <vector>

namespace mlplugins {
namespace {

/// Largest sum of a vector and its reverse, Å: the rounding of coordinates.
template <typename T> constexpr T ROUNDING = sizeof(T) == 8 ? T(1e-11) : T(2e-6);

template <typename T> bool opposite(const T *a, const T *b)
{
  return std::abs(a[0] + b[0]) <= ROUNDING<T> && std::abs(a[1] + b[1]) <= ROUNDING<T> &&
         std::abs(a[2] + b[2]) <= ROUNDING<T>;
}

/// Numbers the edges, giving the reverse of an edge the edge's own number.
template <typename T>
std::vector<int64_t> number(const int64_t *centers, const int64_t *neighbors, const T *vectors, int64_t n_edges, int64_t *row)
{
  const int64_t n_centers = n_edges ? centers[n_edges - 1] + 1 : 0;
  std::vector<int64_t> begin(n_centers + 1, 0), first;
  for (int64_t e = 0; e < n_edges; e++) begin[centers[e] + 1]++;
  for (int64_t i = 0; i < n_centers; i++) begin[i + 1] += begin[i];
  std::fill_n(row, n_edges, -1);
  for (int64_t e = 0; e < n_edges; e++) {
    if (row[e] >= 0) continue;
    row[e] = (int64_t) first.size();
    first.push_back(e);
    const int64_t j = neighbors[e];
    if (j < centers[e] || j >= n_centers) continue;    // the reverse came before, or belongs to a ghost
    for (int64_t back = begin[j]; back < begin[j + 1]; back++)
      if (neighbors[back] == centers[e] && row[back] < 0 && opposite(vectors + 3 * e, vectors + 3 * back)) {
        row[back] = row[e];
        break;
      }
  }
  return first;
}

void check(const Tensor &centers, const Tensor &neighbors, const Tensor &vectors)
{
  TORCH_CHECK(centers.dim() == 1 && neighbors.sizes() == centers.sizes() && vectors.dim() == 2 &&
                  vectors.size(0) == centers.size(0) && vectors.size(1) == 3,
              "edge_rows: expected centers (E,), neighbors (E,) and vectors (E, 3), got ", centers.sizes(), ", ",
              neighbors.sizes(), " and ", vectors.sizes());
  TORCH_CHECK(centers.scalar_type() == at::kLong && neighbors.scalar_type() == at::kLong,
              "edge_rows: centers and neighbors must be int64");
  TORCH_CHECK(neighbors.device() == centers.device() && vectors.device() == centers.device(),
              "edge_rows: all tensors must be on one device");
}

}    // namespace

/// The first edge of every row (U,) and the row of every edge (E,).
Two cpu::edge_rows(const Tensor &centers, const Tensor &neighbors, const Tensor &vectors)
{
  check(centers, neighbors, vectors);
  if (moments_wanted()) return reference::edge_rows(centers, neighbors, vectors);    // edges have gradients of their own
  const int64_t n_edges = centers.size(0);
  const Tensor i = centers.contiguous(), j = neighbors.contiguous(), v = vectors.detach().contiguous();
  const int64_t *from = i.data_ptr<int64_t>();
  for (int64_t e = 0; e < n_edges; e++)
    TORCH_CHECK(from[e] >= (e ? from[e - 1] : 0), "edge_rows: edges must be sorted by centre (edge ", e, ")");
  TORCH_CHECK(n_edges == 0 || from[n_edges - 1] < INT32_MAX, "edge_rows: centre ", from[n_edges - 1], " is not an atom");
  const Tensor row = at::empty_like(i);
  std::vector<int64_t> first;
  AT_DISPATCH_FLOATING_TYPES(v.scalar_type(), "edge_rows", [&] {
    first = number(from, j.data_ptr<int64_t>(), v.data_ptr<scalar_t>(), n_edges, row.data_ptr<int64_t>());
  });
  return {at::tensor(first, i.options()), row};
}

/// Every edge has its own row.
Two reference::edge_rows(const Tensor &centers, const Tensor &neighbors, const Tensor &vectors)
{
  check(centers, neighbors, vectors);
  const Tensor own = at::arange(centers.size(0), centers.options());
  return {own, own.clone()};
}

Two autograd::edge_rows(const Tensor &centers, const Tensor &neighbors, const Tensor &vectors)
{
  static const auto op = dispatched<decltype(cpu::edge_rows)>("edge_rows");
  at::AutoDispatchBelowADInplaceOrView guard;    // integers have no derivatives
  return op.call(centers, neighbors, vectors);
}

}    // namespace mlplugins
