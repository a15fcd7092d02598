// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_VECTORS_H
#define MLPLUGINS_VECTORS_H

// Vectors of MLPLUGINS_VECTOR_BYTES, for files that are compiled once per instruction set.
// Nothing but plain loops may live in such files: an inline function of a library, compiled for AVX-512, could be
// picked by the linker for everybody. All is in an unnamed namespace for the same reason.

#include <cstdint>
#include <new>

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

/// Numbers whose vectors do not straddle two lines of the cache.
template <typename T> class Aligned {
 public:
  ~Aligned() { ::operator delete[](data, LINE); }
  Aligned() = default;
  Aligned(const Aligned &) = delete;
  Aligned &operator=(const Aligned &) = delete;

  /// Room for n numbers, not initialised.
  T *reserve(int64_t n)
  {
    if (n <= size) return data;
    ::operator delete[](data, LINE);
    data = static_cast<T *>(::operator new[](n * sizeof(T), LINE));
    size = n;
    return data;
  }
  operator T *() const { return data; }

 private:
  static constexpr std::align_val_t LINE{64};
  T *data = nullptr;
  int64_t size = 0;
};

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

/// x = n ln 2 + r with |r| ≤ ln 2 / 2; gives Σ_{k ≥ first} r^k / k! from its Taylor series, and n in the lowest bits of
/// `shifted`.
template <typename T, int FIRST> inline Vector<T> reduced_series(Vector<T> x, Vector<T> &shifted)
{
  using L = Lanes<T>;
  x = x > L::largest ? Vector<T>{} + L::largest : x;
  x = x < -L::largest ? Vector<T>{} - L::largest : x;
  shifted = x * T(1.44269504088896340736) + L::rounding;
  const Vector<T> n = shifted - L::rounding;
  const Vector<T> r = (x - n * L::ln2_high) - n * L::ln2_low;
  constexpr double inverse_factorial[] = {1., 1., 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320,
                                          1. / 362880, 1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800};
  Vector<T> series = Vector<T>{} + T(inverse_factorial[L::degree]);
  for (int k = L::degree - 1; k >= FIRST; k--) series = series * r + T(inverse_factorial[k]);
  if constexpr (FIRST == 1) series *= r;
  return series;
}

/// 2^n a, with n from the lowest bits of `shifted`.
template <typename T> inline Vector<T> scaled(const Vector<T> &a, const Vector<T> &shifted)
{
  using L = Lanes<T>;
  typename L::bits power, bits;
  __builtin_memcpy(&power, &shifted, sizeof(power));
  power <<= L::mantissa;    // the bits of `rounding` itself fall off the left end
  __builtin_memcpy(&bits, &a, sizeof(bits));
  bits += power;
  Vector<T> result;
  __builtin_memcpy(&result, &bits, sizeof(result));
  return result;
}

/// e^x to the last bit or two.
template <typename T> inline Vector<T> exponential(const Vector<T> &x)
{
  Vector<T> shifted;
  const Vector<T> series = reduced_series<T, 0>(x, shifted);
  return scaled<T>(series, shifted);
}

/// e^x − 1 to the last bits, also near zero.
template <typename T> inline Vector<T> exponential_less_one(const Vector<T> &x)
{
  Vector<T> shifted;
  const Vector<T> series = reduced_series<T, 1>(x, shifted), power = scaled<T>(Vector<T>{} + T(1), shifted);
  return series * power + (power - T(1));
}

}    // namespace
}    // namespace mlplugins

#endif
