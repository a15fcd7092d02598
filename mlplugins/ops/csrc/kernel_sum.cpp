// SPDX-License-Identifier: BSD-3-Clause
// Ops mlplugins::kernel_sum, a kernel regression over training points, and mlplugins::molecular_kernel, the same from
// the positions of molecules; with their gradients, in float64, for inference.

#include "kernel_sum.h"

#include "kernel_sum_kernel.h"
#include "ops.h"
#include "processor.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

namespace mlplugins {

extern const KernelSumPass kernel_sum_generic, kernel_sum_avx2, kernel_sum_avx512;

void check_kernel_sum(const Tensor &q, const Tensor &packed, const Tensor &values, const std::string &kernel, double sigma)
{
  TORCH_CHECK(q.dim() == 2 && packed.dim() == 4 && values.dim() == 1,
              "kernel_sum: expected q (Q, P), packed (B, P, 1 or 2, ", POINTS, ") and values (B * ", POINTS,
              ") or (0,), got ", q.sizes(), ", ", packed.sizes(), " and ", values.sizes());
  TORCH_CHECK(q.size(1) > 0 && packed.size(1) == q.size(1) && packed.size(3) == POINTS && (packed.size(2) == 1 || packed.size(2) == 2),
              "kernel_sum: expected packed (B, ", q.size(1), ", 1 or 2, ", POINTS, "), got ", packed.sizes());
  TORCH_CHECK(values.size(0) == packed.size(0) * POINTS || (values.size(0) == 0 && packed.size(2) == 2),
              "kernel_sum: expected one value per packed point, got ", values.size(0), " and ", packed.sizes());
  for (const Tensor &t : {q, packed, values})
    TORCH_CHECK(t.scalar_type() == at::kDouble && t.device() == q.device(),
                "kernel_sum: all tensors must be float64 on one device");
  TORCH_CHECK(kernel == "gaussian" || kernel == "matern52", "kernel_sum: unknown kernel '", kernel, "'");
  TORCH_CHECK(sigma > 0.0, "kernel_sum: sigma must be positive, got ", sigma);
}

void check_molecules(const Tensor &positions, at::TensorList tables)
{
  TORCH_CHECK(tables.size() == 5, "molecular_kernel: expected scale, shift, pairs, packed and values");
  const Tensor &scale = tables[0], &shift = tables[1], &pairs = tables[2];
  TORCH_CHECK(positions.dim() == 3 && positions.size(2) == 3, "molecular_kernel: expected positions (S, n, 3), got ",
              positions.sizes());
  const int64_t n = positions.size(1), width = n * (n - 1) / 2;
  TORCH_CHECK(pairs.dim() == 2 && pairs.size(1) == width && pairs.scalar_type() == at::kLong &&
                  pairs.device() == positions.device(),
              "molecular_kernel: expected pairs (K, ", width, ") int64, got ", pairs.sizes());
  for (const Tensor &t : {scale, shift})
    TORCH_CHECK(t.dim() == 1 && t.size(0) == width, "molecular_kernel: expected scale and shift (", width, "), got ",
                t.sizes());
  for (const Tensor &t : {positions, scale, shift})
    TORCH_CHECK(t.scalar_type() == at::kDouble && t.device() == positions.device(),
                "molecular_kernel: all tensors must be float64 on one device");
}

namespace {

/// Descriptors x = c/r − shift of the pairs of one molecule; returns the largest r².
double describe(const double *r, int64_t n, const double *scale, const double *shift, double *x)
{
  double farthest = 0.0;
  for (int64_t i = 0, p = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++, p++) {
      double square = 0.0;
      for (int k = 0; k < 3; k++) square += (r[3 * j + k] - r[3 * i + k]) * (r[3 * j + k] - r[3 * i + k]);
      farthest = square > farthest ? square : farthest;
      x[p] = scale[p] / std::sqrt(square) - shift[p];
    }
  return farthest;
}

/// The gradient with respect to the positions from that with respect to the descriptors: ∂x/∂r = −c/r³ r.
void pull_back(const double *r, int64_t n, const double *scale, const double *slope, double *gradient)
{
  for (int64_t k = 0; k < 3 * n; k++) gradient[k] = 0.0;
  for (int64_t i = 0, p = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++, p++) {
      const double v[3] = {r[3 * j] - r[3 * i], r[3 * j + 1] - r[3 * i + 1], r[3 * j + 2] - r[3 * i + 2]};
      const double square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
      const double pull = slope[p] * scale[p] / (square * std::sqrt(square));
      for (int k = 0; k < 3; k++) gradient[3 * i + k] += pull * v[k], gradient[3 * j + k] -= pull * v[k];
    }
}

}    // namespace

Two cpu::kernel_sum(const Tensor &q, const Tensor &packed, const Tensor &values, std::string kernel, double sigma)
{
  check_kernel_sum(q, packed, values, kernel, sigma);
  const Tensor rows = q.detach().contiguous(), points = packed.detach().contiguous(), a = values.detach().contiguous();
  const int64_t n = rows.size(0), width = rows.size(1);
  const Tensor energy = at::empty({n}, rows.options()), gradient = at::empty({n, width}, rows.options());
  const KernelSum sum{points.const_data_ptr<double>(),
                      a.size(0) ? a.const_data_ptr<double>() : nullptr,
                      points.size(0),
                      width,
                      points.size(2) == 2,
                      kernel == "gaussian",
                      sigma};
  static const KernelSumPass pass = MLPLUGINS_BEST(kernel_sum);
  const double *const from = rows.const_data_ptr<double>();
  double *const e = energy.data_ptr<double>(), *const g = gradient.data_ptr<double>();
  at::parallel_for(0, n, 4, [&](int64_t begin, int64_t end) {
    pass(sum, from + begin * width, end - begin, e + begin, g + begin * width);
  });
  return {energy, gradient};
}

Three cpu::molecular_kernel(const Tensor &positions, at::TensorList tables, std::string kernel, double sigma)
{
  check_molecules(positions, tables);
  const Tensor r = positions.detach().contiguous(), scale = tables[0].contiguous(), shift = tables[1].contiguous(),
               pairs = tables[2].contiguous();
  const int64_t n_systems = r.size(0), n = r.size(1), width = n * (n - 1) / 2;
  const int64_t copies = pairs.size(0), *const order = pairs.const_data_ptr<int64_t>();
  for (int64_t k = 0; k < copies * width; k++)
    TORCH_CHECK(order[k] >= 0 && order[k] < width, "molecular_kernel: there is no pair ", order[k]);
  const Tensor q = at::empty({n_systems * copies, width}, r.options());
  const double *const from = r.const_data_ptr<double>(), *const c = scale.const_data_ptr<double>();
  double *const rows = q.data_ptr<double>();
  double farthest = 0.0;
  std::vector<double> x(width);
  for (int64_t s = 0; s < n_systems; s++) {
    farthest = std::fmax(farthest, describe(from + s * 3 * n, n, c, shift.const_data_ptr<double>(), x.data()));
    for (int64_t k = 0; k < copies * width; k++) rows[s * copies * width + k] = x[order[k]];
  }
  const auto [each, slopes] = cpu::kernel_sum(q, tables[3], tables[4], kernel, sigma);
  const Tensor energy = at::zeros({n_systems}, r.options()), gradient = at::empty_like(r);
  for (int64_t s = 0; s < n_systems; s++) {
    const double *const slope = slopes.const_data_ptr<double>() + s * copies * width;
    std::fill(x.begin(), x.end(), 0.0);
    for (int64_t k = 0; k < copies * width; k++) x[order[k]] += slope[k];
    pull_back(from + s * 3 * n, n, c, x.data(), gradient.data_ptr<double>() + s * 3 * n);
    for (int64_t k = 0; k < copies; k++)
      energy.data_ptr<double>()[s] += each.const_data_ptr<double>()[s * copies + k];
  }
  return {energy, gradient, at::full({1}, std::sqrt(farthest), r.options())};
}

// for inference: the gradients are results, and have none themselves
Two autograd::kernel_sum(const Tensor &q, const Tensor &packed, const Tensor &values, std::string kernel, double sigma)
{
  static const auto op = dispatched<decltype(cpu::kernel_sum)>("kernel_sum");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(q, packed, values, kernel, sigma);
}

Three autograd::molecular_kernel(const Tensor &positions, at::TensorList tables, std::string kernel, double sigma)
{
  static const auto op = dispatched<decltype(cpu::molecular_kernel)>("molecular_kernel");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(positions, tables, kernel, sigma);
}

}    // namespace mlplugins
