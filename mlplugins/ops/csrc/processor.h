// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_PROCESSOR_H
#define MLPLUGINS_PROCESSOR_H

// Kernels are compiled once per instruction set; MLPLUGINS_BEST(name) is the one for the processor at hand.

#ifdef MLPLUGINS_X86
#define MLPLUGINS_BEST(name) mlplugins::best(name##_generic, name##_avx2, name##_avx512)

namespace mlplugins {

template <typename Kernel> const Kernel &best(const Kernel &generic, const Kernel &avx2, const Kernel &avx512)
{
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return avx512;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2 : generic;
}

}    // namespace mlplugins
#else
#define MLPLUGINS_BEST(name) name##_generic
#endif

#endif
