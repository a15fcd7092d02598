// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set; MLPLUGINS_ISA names the kernels. Nothing but plain loops may live here.

#include "pair_sum_kernel.h"
#include "vectors.h"

namespace mlplugins {
namespace {

constexpr int CHUNK = 128;    ///< edges at a time: what is known of them stays in the first-level cache

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

/// Edges of a centre that are within the cutoff, and what belongs to each.
template <typename T> struct Chunk {
  int n, edge[CHUNK];
  int64_t right[CHUNK];
  alignas(64) T r[CHUNK], p0[CHUNK], p1[CHUNK], p2[CHUNK], c[CHUNK], f[CHUNK], slope[CHUNK];
};

template <typename T> void coefficients(const PairSum<T> &sum, int64_t i, Chunk<T> &chunk)
{
  const T *const left = sum.left + i * sum.columns;
  for (int k = 0; k < chunk.n; k++) {
    const T *const right = sum.right + chunk.right[k];
    T c = left[0] * right[0];
    for (int64_t m = 1; m < sum.columns; m++) c += left[m] * right[m];
    chunk.c[k] = c;
  }
}

/// Keeps those of the edges [e, e + count) that are within the cutoff.
template <typename T> void gather(const PairSum<T> &sum, int64_t i, int64_t e, int count, Chunk<T> &chunk)
{
  const T *const v = sum.vectors + 3 * e, square = sum.cutoff * sum.cutoff;
  T r2[CHUNK];
  for (int k = 0; k < count; k++) r2[k] = v[3 * k] * v[3 * k] + v[3 * k + 1] * v[3 * k + 1] + v[3 * k + 2] * v[3 * k + 2];
  int n = 0;
  for (int k = 0; k < count; k++) {    // the next edge overwrites one that is too far
    chunk.edge[n] = k, chunk.r[n] = r2[k];
    n += r2[k] < square;
  }
  chunk.n = n;
  const T *const of_center = sum.pairs + sum.kind[i] * sum.kinds * sum.parameters;
  for (int k = 0; k < n; k++) {
    const int64_t j = sum.neighbors[e + chunk.edge[k]];
    const T *const p = of_center + sum.kind[j] * sum.parameters;
    chunk.right[k] = (j * sum.kinds + sum.kind[i]) * sum.columns;
    chunk.p0[k] = p[0];
    chunk.p1[k] = sum.parameters > 1 ? p[1] : T(0);
    chunk.p2[k] = sum.parameters > 2 ? p[2] : T(0);
    chunk.c[k] = T(1);
  }
  if (sum.columns > 0) coefficients(sum, i, chunk);
  for (int k = n; k < CHUNK; k++) chunk.r[k] = square, chunk.p0[k] = T(1);
  for (int k = 0; k < CHUNK; k++) chunk.r[k] = root(chunk.r[k]) / sum.unit;
}

template <typename T> void becke_johnson(const PairSum<T> &sum, Chunk<T> &chunk, int n)
{
  const T s6 = sum.constants[0];
  for (int k = 0; k < n; k++) {
    const T r = chunk.r[k], r2 = r * r, r6 = r2 * r2 * r2;
    const T six = T(1) / (r6 + chunk.p0[k]), eight = T(1) / (r6 * r2 + chunk.p1[k]);
    const T a = s6 * six, b = chunk.p2[k] * eight;
    chunk.f[k] = a + b;
    chunk.slope[k] = -(T(6) * a * six + T(8) * b * eight * r2) * (r6 / r);
  }
}

/// x^n, of whole numbers by products. `pow` would need glibc 2.29, newer than the wheels promise; `powl` is older.
template <typename T> inline T power(T x, T n)
{
  const int whole = int(n);
  if (T(whole) != n || whole < 0 || whole > 64) return T(__builtin_powl(x, n));
  T product = T(1);
  for (int k = whole; k > 0; k >>= 1, x *= x)
    if (k & 1) product *= x;
  return product;
}

template <typename T> void zero(const PairSum<T> &sum, Chunk<T> &chunk, int n)
{
  const T s6 = sum.constants[0], rs6 = sum.constants[1], rs8 = sum.constants[2], alpha = sum.constants[3];
  for (int k = 0; k < n; k++) {
    const T r = chunk.r[k], r2 = r * r, r6 = r2 * r2 * r2, x = chunk.p0[k] / r;
    const T six = T(1) / (T(1) + T(6) * power(rs6 * x, alpha));
    const T eight = T(1) / (T(1) + T(6) * power(rs8 * x, alpha + T(2)));
    const T a = s6 * six / r6, b = chunk.p1[k] * eight / (r6 * r2);
    chunk.f[k] = a + b;
    chunk.slope[k] = (a * (alpha * (T(1) - six) - T(6)) + b * ((alpha + T(2)) * (T(1) - eight) - T(8))) / r;
  }
}

template <typename T> void count(const PairSum<T> &sum, Chunk<T> &chunk, int n)
{
  constexpr int L = Lanes<T>::count;
  const T steepness = sum.constants[0];
  for (int k = 0; k < n; k += L) {
    const Vector<T> r = load(chunk.r + k), x = load(chunk.p0 + k) / r;
    const Vector<T> f = T(1) / (T(1) + exponential<T>(steepness - steepness * x));
    store(chunk.f + k, f);
    store(chunk.slope + k, -steepness * x / r * f * (T(1) - f));
  }
}

/// f and its slope with the switch, which falls from 1 to 0 between the onset and the cutoff.
template <typename T> void evaluate(const PairSum<T> &sum, Chunk<T> &chunk)
{
  const int n = chunk.n;
  if (sum.form == PairForm::becke_johnson) becke_johnson(sum, chunk, n);
  else if (sum.form == PairForm::zero) zero(sum, chunk, n);
  else count(sum, chunk, n);
  const T width = T(1) - sum.onset, scale = sum.unit / sum.cutoff;
  for (int k = 0; k < n; k++) {
    T t = (chunk.r[k] * scale - sum.onset) / width;
    t = t < T(0) ? T(0) : t;
    t = t > T(1) ? T(1) : t;
    const T s = T(1) - t * t * t * (T(10) - t * (T(15) - T(6) * t));
    const T fall = T(-30) * t * t * (T(1) - t) * (T(1) - t) * (scale / width);
    chunk.slope[k] = chunk.slope[k] * s + chunk.f[k] * fall;
    chunk.f[k] *= s;
  }
}

inline int smaller(int64_t left) { return left < CHUNK ? int(left) : CHUNK; }

template <typename T> T energy(const PairSum<T> &sum, int64_t i, int64_t e, int64_t end)
{
  Chunk<T> chunk;
  T total = T(0);
  for (; e < end; e += CHUNK) {
    gather(sum, i, e, smaller(end - e), chunk);
    evaluate(sum, chunk);
    T part = T(0);
    for (int k = 0; k < chunk.n; k++) part += chunk.c[k] * chunk.f[k];
    total += part;
  }
  return total;
}

template <typename T>
void slopes(const PairSum<T> &sum, T g, int64_t i, int64_t e, int64_t end, const PairSlopes<T> &to)
{
  Chunk<T> chunk;
  const T *const left = sum.left + i * sum.columns;
  T *const of_left = to.left + i * sum.columns;
  for (; e < end; e += CHUNK) {
    const int count = smaller(end - e);
    gather(sum, i, e, count, chunk);
    evaluate(sum, chunk);
    const int n = chunk.n;
    const T scale = g / (sum.unit * sum.unit);
    T pull[CHUNK];    // of every edge: zero beyond the cutoff
    for (int k = 0; k < count; k++) pull[k] = T(0);
    for (int k = 0; k < n; k++) chunk.slope[k] *= scale * chunk.c[k] / chunk.r[k];
    for (int k = 0; k < n; k++) pull[chunk.edge[k]] = chunk.slope[k];
    const T *const v = sum.vectors + 3 * e;
    T *const gradient = to.vectors + 3 * e;
    for (int k = 0; k < count; k++)
      for (int x = 0; x < 3; x++) gradient[3 * k + x] = pull[k] * v[3 * k + x];
    for (int k = 0; k < n && sum.columns > 0; k++) {
      const T f = g * chunk.f[k];
      const T *const right = sum.right + chunk.right[k];
      T *const of_right = to.right + chunk.right[k];
      for (int64_t m = 0; m < sum.columns; m++) {
        of_left[m] += f * right[m];
        of_right[m] += f * left[m];
      }
    }
  }
}

}    // namespace

extern const PairSumKernels<float> MLPLUGINS_CONCAT(float_pair_sum_, MLPLUGINS_ISA) = {energy<float>, slopes<float>};
extern const PairSumKernels<double> MLPLUGINS_CONCAT(double_pair_sum_, MLPLUGINS_ISA) = {energy<double>,
                                                                                         slopes<double>};

}    // namespace mlplugins
