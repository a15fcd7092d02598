// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_VECTORS_H
#define MLPLUGINS_VECTORS_H

// Vectors of MLPLUGINS_VECTOR_BYTES for the loops that are compiled once per instruction set. Everything is in an
// anonymous namespace: the linker must not pick one file's copy, compiled for AVX-512, for everybody.

#define MLPLUGINS_CONCAT_(a, b) a##b
#define MLPLUGINS_CONCAT(a, b) MLPLUGINS_CONCAT_(a, b)

namespace mlplugins {
namespace {

template <typename T> struct Lanes {
  static constexpr int count = MLPLUGINS_VECTOR_BYTES / sizeof(T);
  typedef T type __attribute__((vector_size(MLPLUGINS_VECTOR_BYTES)));
};
template <typename T> using Vector = typename Lanes<T>::type;

/// The first n numbers, zeros behind them; by memcpy, as rows are not aligned.
template <typename T> inline Vector<T> load(const T *from, int n)
{
  Vector<T> v;
  if (n == Lanes<T>::count) {
    __builtin_memcpy(&v, from, sizeof(v));
  } else {
    v = Vector<T>{};
    for (int k = 0; k < n; k++) v[k] = from[k];
  }
  return v;
}

template <typename T> inline void store(T *to, const Vector<T> &v, int n)
{
  if (n == Lanes<T>::count) {
    __builtin_memcpy(to, &v, sizeof(v));
  } else {
    for (int k = 0; k < n; k++) to[k] = v[k];
  }
}

}    // namespace
}    // namespace mlplugins

#endif
