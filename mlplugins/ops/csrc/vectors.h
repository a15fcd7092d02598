// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_VECTORS_H
#define MLPLUGINS_VECTORS_H

// Vectors of MLPLUGINS_VECTOR_BYTES, for files that are compiled once per instruction set.
// Nothing but plain loops may live in such files: an inline function of a library, compiled for AVX-512, could be
// picked by the linker for everybody. All is in an unnamed namespace for the same reason.

#include <cstdint>

#define MLPLUGINS_CONCAT_(a, b) a##b
#define MLPLUGINS_CONCAT(a, b) MLPLUGINS_CONCAT_(a, b)

namespace mlplugins {
namespace {

template <typename T> struct Lanes;

template <> struct Lanes<float> {
  static constexpr int count = MLPLUGINS_VECTOR_BYTES / sizeof(float);
  typedef float type __attribute__((vector_size(MLPLUGINS_VECTOR_BYTES)));
  typedef int32_t bits __attribute__((vector_size(MLPLUGINS_VECTOR_BYTES)));
  static constexpr int mantissa = 23, degree = 7;
  static constexpr float rounding = 12582912.0F;    // 1.5 · 2^23
  static constexpr float largest = 87.0F, ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
};

template <> struct Lanes<double> {
  static constexpr int count = MLPLUGINS_VECTOR_BYTES / sizeof(double);
  typedef double type __attribute__((vector_size(MLPLUGINS_VECTOR_BYTES)));
  typedef int64_t bits __attribute__((vector_size(MLPLUGINS_VECTOR_BYTES)));
  static constexpr int mantissa = 52, degree = 13;
  static constexpr double rounding = 6755399441055744.0;    // 1.5 · 2^52
  static constexpr double largest = 708.0, ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
};

template <typename T> using Vector = typename Lanes<T>::type;

template <typename T> inline Vector<T> load(const T *from)
{
  Vector<T> v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename T> inline void store(T *to, const Vector<T> &v) { __builtin_memcpy(to, &v, sizeof(v)); }

/// The first n lanes; the others are zero.
template <typename T> inline Vector<T> load(const T *from, int n)
{
  if (n >= Lanes<T>::count) return load(from);
  Vector<T> v = {};
  for (int k = 0; k < n; k++) v[k] = from[k];
  return v;
}

template <typename T> inline void store(T *to, const Vector<T> &v, int n)
{
  if (n >= Lanes<T>::count) return store(to, v);
  for (int k = 0; k < n; k++) to[k] = v[k];
}

template <int... I> struct Sequence {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> {
  using type = Sequence<I...>;
};

/// r[i] = a[i] + a[i^D] where bit D of i is 0, else b[i] + b[i^D].
template <int D, typename V, int... I> inline V fold(const V &a, const V &b, Sequence<I...>)
{
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(a, b, ((I & D) ? n + I : I)...) +
         __builtin_shufflevector(a, b, ((I & D) ? n + (I ^ D) : (I ^ D))...);
}

/// Sums of the lanes of as many vectors as there are lanes: result[i] belongs to rows[i].
template <typename T, int D> inline Vector<T> sum_lanes(const Vector<T> *rows)
{
  using Lane = typename Count<Lanes<T>::count>::type;
  if constexpr (D == 0) {
    return rows[0];
  } else {    // rows whose index differs in bit D are folded last
    return fold<D>(sum_lanes<T, D / 2>(rows), sum_lanes<T, D / 2>(rows + D), Lane{});
  }
}

/// e^x to the last bit or two: x = n ln 2 + r, 2^n from the exponent field, e^r from its Taylor series.
template <typename T> inline Vector<T> exponential(Vector<T> x)
{
  using L = Lanes<T>;
  x = x > L::largest ? Vector<T>{} + L::largest : x;
  x = x < -L::largest ? Vector<T>{} - L::largest : x;
  const Vector<T> shifted = x * T(1.44269504088896340736) + L::rounding;    // n sits in the lowest bits
  const Vector<T> n = shifted - L::rounding;
  const Vector<T> r = (x - n * L::ln2_high) - n * L::ln2_low;
  constexpr double inverse_factorial[] = {1., 1., 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320,
                                          1. / 362880, 1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800};
  Vector<T> series = Vector<T>{} + T(inverse_factorial[L::degree]);
  for (int k = L::degree - 1; k >= 0; k--) series = series * r + T(inverse_factorial[k]);
  typename L::bits power;
  __builtin_memcpy(&power, &shifted, sizeof(power));
  power <<= L::mantissa;    // the bits of `rounding` itself fall off the left end
  typename L::bits bits;
  __builtin_memcpy(&bits, &series, sizeof(bits));
  bits += power;
  __builtin_memcpy(&series, &bits, sizeof(bits));
  return series;
}

}    // namespace
}    // namespace mlplugins

#endif
