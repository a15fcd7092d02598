// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::near_pairs: the candidates of a neighbour list that are closer than the cutoff, with their vectors; and
// how far atoms are from where they are expected, on which depends whether the list still holds.

#include "ops.h"

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>

namespace mlplugins {
namespace {

void check_candidates(const Tensor &positions, const Tensor &expected, const Tensor &cell, const Tensor &samples)
{
  TORCH_CHECK(positions.dim() == 2 && positions.size(1) == 3 && expected.sizes() == positions.sizes() &&
                  cell.dim() == 2 && cell.size(0) == 3 && cell.size(1) == 3 && samples.dim() == 2 &&
                  samples.size(1) == 5,
              "near_pairs: expected positions (N, 3) twice, a cell (3, 3) and samples (P, 5), got ",
              positions.sizes(), ", ", expected.sizes(), ", ", cell.sizes(), " and ", samples.sizes());
  for (const Tensor &t : {positions, expected, cell, samples})
    TORCH_CHECK(t.layout() == at::kStrided && t.device() == positions.device(),
                "near_pairs: all tensors must be dense and on one device");
  TORCH_CHECK((positions.scalar_type() == at::kFloat || positions.scalar_type() == at::kDouble) &&
                  cell.scalar_type() == positions.scalar_type() &&
                  expected.scalar_type() == positions.scalar_type(),
              "near_pairs: positions and cell must all be float32 or float64");
  TORCH_CHECK(samples.scalar_type() == at::kInt, "near_pairs: samples must be int32");
}

/// Writes what is near to the front of the results and returns how much that is.
template <typename T>
int64_t select_near(const Tensor &positions, const Tensor &cell, const Tensor &samples, double cutoff, const Five &found)
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

template <typename T> void find_farthest(const Tensor &positions, const Tensor &expected, const Tensor &farthest)
{
  const T *a = positions.const_data_ptr<T>(), *b = expected.const_data_ptr<T>();
  T square = 0;
  for (int64_t i = 0; i < positions.size(0); i++, a += 3, b += 3) {
    const T x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
    const T now = x * x + y * y + z * z;
    if (now > square || std::isnan(now)) square = now;    // not a number stays
  }
  *farthest.data_ptr<T>() = std::sqrt(square);
}

template <typename T>
int64_t fill(const Tensor &positions, const Tensor &expected, const Tensor &cell, const Tensor &samples, double cutoff,
             const Five &found)
{
  find_farthest<T>(positions, expected, std::get<4>(found));
  return select_near<T>(positions, cell, samples, cutoff, found);
}

}    // namespace

Five cpu::near_pairs(const Tensor &positions, const Tensor &expected, const Tensor &cell, const Tensor &samples,
                     double cutoff)
{
  check_candidates(positions, expected, cell, samples);
  const Tensor r = positions.contiguous(), r0 = expected.contiguous(), h = cell.contiguous(), s = samples.contiguous();
  const int64_t most = s.size(0);
  const auto index = r.options().dtype(at::kLong);
  const Five found{at::empty({most}, index), at::empty({most}, index), at::empty({most}, index),
                   at::empty({most, 3}, r.options()), at::empty({}, r.options())};
  const int64_t n = (r.scalar_type() == at::kFloat ? fill<float> : fill<double>) (r, r0, h, s, cutoff, found);
  const auto first = [n](const Tensor &t) { return t.narrow(0, 0, n); };
  return {first(std::get<0>(found)), first(std::get<1>(found)), first(std::get<2>(found)), first(std::get<3>(found)),
          std::get<4>(found)};
}

Five reference::near_pairs(const Tensor &positions, const Tensor &expected, const Tensor &cell, const Tensor &samples,
                           double cutoff)
{
  check_candidates(positions, expected, cell, samples);
  const Tensor i = samples.select(1, 0).to(at::kLong), j = samples.select(1, 1).to(at::kLong);
  const Tensor shifts = samples.narrow(1, 2, 3).to(positions.scalar_type());
  const Tensor vectors = positions.index_select(0, j) - positions.index_select(0, i) + shifts.matmul(cell);
  const Tensor rows = (vectors.square().sum(1) < cutoff * cutoff).nonzero().flatten();
  const Tensor moves = at::constant_pad_nd((positions - expected).square().sum(1), {0, 1});    // none: 0
  return {rows, i.index_select(0, rows), j.index_select(0, rows), vectors.index_select(0, rows), moves.max().sqrt()};
}

Five autograd::near_pairs(const Tensor &positions, const Tensor &expected, const Tensor &cell, const Tensor &samples,
                          double cutoff)
{
  static const auto op = dispatched<decltype(cpu::near_pairs)>("near_pairs");
  const auto found = without_derivatives({positions, expected, cell}, "near_pairs: derivatives", [&] {
    const auto [rows, i, j, vectors, farthest] = op.call(positions, expected, cell, samples, cutoff);
    return std::vector<Tensor>{rows, i, j, vectors, farthest};
  });
  return {found[0], found[1], found[2], found[3], found[4]};
}

}    // namespace mlplugins
