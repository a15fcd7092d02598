// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_HARMONICS_H
#define MLPLUGINS_HARMONICS_H

// Spherical harmonics: their factors, and the arguments of the op.

#include <ATen/ATen.h>

#include <tuple>

namespace mlplugins {

namespace harmonic_factors {
constexpr double S3 = 1.7320508075688772935, S5 = 2.2360679774997896964, S7 = 2.6457513110645905905;
constexpr double S15 = 3.8729833462074168852;     // √15
constexpr double S105 = 10.246950765959598383;    // √105
constexpr double C33 = 4.1833001326703777398;     // √(35/2)
constexpr double C31 = 1.6201851746019650979;     // √(21/8)
}    // namespace harmonic_factors

/// Refuse what could not be computed.
void check_harmonics(const at::Tensor &vectors, int64_t l_max);

/// Lengths (E,) and harmonics (E, (l_max + 1)²) in ATen's own operations.
std::tuple<at::Tensor, at::Tensor> harmonics_of(const at::Tensor &vectors, int64_t l_max, bool solid);

}    // namespace mlplugins

#endif
