// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::kernel_sum: a kernel regression over training points, with its gradient; float64, for inference.

#include "kernel_sum_kernel.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <tuple>

namespace mlplugins {

extern const KernelSumPass kernel_sum_generic, kernel_sum_avx2, kernel_sum_avx512;

namespace {

using at::Tensor;

KernelSumPass best_pass()
{
#ifdef MLPLUGINS_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return kernel_sum_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernel_sum_avx2;
#endif
  return kernel_sum_generic;
}

void check(const Tensor &q, const Tensor &packed, const Tensor &values, const std::string &kernel, double sigma)
{
  TORCH_CHECK(q.dim() == 2 && packed.dim() == 4 && values.dim() == 1,
              "kernel_sum: expected q (Q, P), packed (B, P, 1 or 2, ", POINTS, ") and values (B * ", POINTS,
              ") or (0,), got ", q.sizes(), ", ", packed.sizes(), " and ", values.sizes());
  TORCH_CHECK(q.size(1) > 0 && packed.size(1) == q.size(1) && packed.size(3) == POINTS && (packed.size(2) == 1 || packed.size(2) == 2),
              "kernel_sum: expected packed (B, ", q.size(1), ", 1 or 2, ", POINTS, "), got ", packed.sizes());
  TORCH_CHECK(values.size(0) == packed.size(0) * POINTS || (values.size(0) == 0 && packed.size(2) == 2),
              "kernel_sum: expected one value per packed point, got ", values.size(0), " and ", packed.sizes());
  for (const Tensor &t : {q, packed, values})
    TORCH_CHECK(t.scalar_type() == at::kDouble && t.is_cpu(), "kernel_sum: all tensors must be float64 on the CPU");
  TORCH_CHECK(kernel == "gaussian" || kernel == "matern52", "kernel_sum: unknown kernel '", kernel, "'");
  TORCH_CHECK(sigma > 0.0, "kernel_sum: sigma must be positive, got ", sigma);
}

std::tuple<Tensor, Tensor> kernel_sum(const Tensor &q, const Tensor &packed, const Tensor &values, std::string kernel,
                                      double sigma)
{
  check(q, packed, values, kernel, sigma);
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
  static const KernelSumPass pass = best_pass();
  const double *const from = rows.const_data_ptr<double>();
  double *const e = energy.data_ptr<double>(), *const g = gradient.data_ptr<double>();
  at::parallel_for(0, n, 4, [&](int64_t begin, int64_t end) {
    pass(sum, from + begin * width, end - begin, e + begin, g + begin * width);
  });
  return {energy, gradient};
}

/// Define the op unless this process has it already: a second definition would end the process.
bool define()
{
  if (c10::Dispatcher::singleton().findSchema({"mlplugins::kernel_sum", ""})) return false;
  static torch::Library library(torch::Library::FRAGMENT, "mlplugins", std::nullopt, __FILE__, __LINE__);
  library.def("kernel_sum(Tensor q, Tensor packed, Tensor values, str kernel, float sigma) "
              "-> (Tensor energy, Tensor gradient)");
  library.impl("kernel_sum", torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(kernel_sum)));
  return true;
}

[[maybe_unused]] const bool defined = define();

}    // namespace
}    // namespace mlplugins
