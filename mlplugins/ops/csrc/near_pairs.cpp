// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::near_pairs: the candidates of a neighbour list that are closer than the cutoff, with their vectors.

#include "ops.h"

#include <ATen/ATen.h>

#include <tuple>

namespace mlplugins {
namespace {

void check_candidates(const Tensor &positions, const Tensor &cell, const Tensor &samples)
{
  TORCH_CHECK(positions.dim() == 2 && positions.size(1) == 3 && cell.dim() == 2 && cell.size(0) == 3 &&
                  cell.size(1) == 3 && samples.dim() == 2 && samples.size(1) == 5,
              "near_pairs: expected positions (N, 3), a cell (3, 3) and samples (P, 5), got ", positions.sizes(), ", ",
              cell.sizes(), " and ", samples.sizes());
  for (const Tensor &t : {positions, cell, samples})
    TORCH_CHECK(t.layout() == at::kStrided && t.device() == positions.device(),
                "near_pairs: all tensors must be dense and on one device");
  TORCH_CHECK((positions.scalar_type() == at::kFloat || positions.scalar_type() == at::kDouble) &&
                  cell.scalar_type() == positions.scalar_type(),
              "near_pairs: positions and cell must both be float32 or float64");
  TORCH_CHECK(samples.scalar_type() == at::kInt, "near_pairs: samples must be int32");
}

/// Writes what is near to the front of the results and returns how much that is.
template <typename T>
int64_t select_near(const Tensor &positions, const Tensor &cell, const Tensor &samples, double cutoff, const Four &found)
{
  const T *const r = positions.const_data_ptr<T>(), *const h = cell.const_data_ptr<T>();
  const int32_t *s = samples.const_data_ptr<int32_t>();
  const T square = T(cutoff) * T(cutoff);
  const int64_t n_atoms = positions.size(0), n_samples = samples.size(0);
  int64_t *const row = std::get<0>(found).data_ptr<int64_t>(), *const center = std::get<1>(found).data_ptr<int64_t>(),
                 *const neighbor = std::get<2>(found).data_ptr<int64_t>();
  T *const vector = std::get<3>(found).data_ptr<T>();
  int64_t n = 0;
  for (int64_t p = 0; p < n_samples; p++, s += 5) {
    TORCH_CHECK(s[0] >= 0 && s[0] < n_atoms && s[1] >= 0 && s[1] < n_atoms, "near_pairs: sample ", p, " has no such atom");
    const T *const from = r + 3 * int64_t(s[0]), *const to = r + 3 * int64_t(s[1]);
    T *const v = vector + 3 * n;
    for (int k = 0; k < 3; k++)
      v[k] = (to[k] - from[k]) + (T(s[2]) * h[k] + T(s[3]) * h[3 + k] + T(s[4]) * h[6 + k]);
    row[n] = p, center[n] = s[0], neighbor[n] = s[1];    // the next pair overwrites one that is too far
    n += v[0] * v[0] + v[1] * v[1] + v[2] * v[2] < square;
  }
  return n;
}

}    // namespace

Four cpu::near_pairs(const Tensor &positions, const Tensor &cell, const Tensor &samples, double cutoff)
{
  check_candidates(positions, cell, samples);
  const Tensor r = positions.contiguous(), h = cell.contiguous(), s = samples.contiguous();
  const int64_t most = s.size(0);
  const auto index = r.options().dtype(at::kLong);
  const Four found{at::empty({most}, index), at::empty({most}, index), at::empty({most}, index),
                   at::empty({most, 3}, r.options())};
  const int64_t n = r.scalar_type() == at::kFloat ? select_near<float>(r, h, s, cutoff, found)
                                                  : select_near<double>(r, h, s, cutoff, found);
  const auto first = [n](const Tensor &t) { return t.narrow(0, 0, n); };
  return {first(std::get<0>(found)), first(std::get<1>(found)), first(std::get<2>(found)), first(std::get<3>(found))};
}

Four reference::near_pairs(const Tensor &positions, const Tensor &cell, const Tensor &samples, double cutoff)
{
  check_candidates(positions, cell, samples);
  const Tensor i = samples.select(1, 0).to(at::kLong), j = samples.select(1, 1).to(at::kLong);
  const Tensor shifts = samples.narrow(1, 2, 3).to(positions.scalar_type());
  const Tensor vectors = positions.index_select(0, j) - positions.index_select(0, i) + shifts.matmul(cell);
  const Tensor rows = (vectors.square().sum(1) < cutoff * cutoff).nonzero().flatten();
  return {rows, i.index_select(0, rows), j.index_select(0, rows), vectors.index_select(0, rows)};
}

Four autograd::near_pairs(const Tensor &positions, const Tensor &cell, const Tensor &samples, double cutoff)
{
  static const auto op = dispatched<decltype(cpu::near_pairs)>("near_pairs");
  const auto found = without_derivatives({positions, cell}, "near_pairs: derivatives", [&] {
    const auto [rows, i, j, vectors] = op.call(positions, cell, samples, cutoff);
    return std::vector<Tensor>{rows, i, j, vectors};
  });
  return {found[0], found[1], found[2], found[3]};
}

}    // namespace mlplugins
