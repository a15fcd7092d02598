// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set; MLPLUGINS_ISA names the tables at the end of the file.

#include "convolution_kernel.h"
#include "perceptron.h"
#include "vectors.h"

namespace mlplugins {
namespace {

/// Edges whose operands stay in the first-level cache while all paths pass over them.
constexpr int GROUP = 8;

/// M for all paths of one edge.
template <typename T> inline void couple(const Convolution<T> &c, const T *y, T *m)
{
  for (int64_t p = 0; p < c.n_couplings; p++) {
    const Coupling<T> &q = c.couplings[p];
    for (int64_t k = 0; k < q.size; k += Lanes<T>::count) {
      Vector<T> sum = {};
      for (int64_t j = 0; j < q.n_harmonics; j++) sum += y[q.harmonic + j] * load(q.values + j * q.size + k);
      store(m + q.target + k, sum);
    }
  }
}

/// Up to GROUP edges of one centre.
template <typename T> struct Group {
  int size;
  const T *x[GROUP], *w[GROUP], *m[GROUP];    // sender row, weights, coupling
};

/// V vectors of lanes from u on: out_k[u] += Σ_e w_e[u] Σ_i M_e,ki x_e,i[u]; the last one has n lanes.
template <typename T, int D1, int D3, int V>
inline void forward_lanes(const Group<T> &group, const Path &p, T *out, int u, int n)
{
  constexpr int L = Lanes<T>::count;
  const int channels = p.channels;
  Vector<T> sum[V][D3];
  for (int v = 0; v < V; v++)
    for (int k = 0; k < D3; k++) sum[v][k] = load(out + k * channels + u + v * L, n);
  for (int e = 0; e < group.size; e++) {
    const T *x = group.x[e] + p.input + u, *m = group.m[e] + p.coupling, *w_e = group.w[e] + p.weight + u;
    Vector<T> w[V];
    for (int v = 0; v < V; v++) w[v] = load(w_e + v * L, n);
    for (int i = 0; i < D1; i++) {
      Vector<T> wx[V];
      for (int v = 0; v < V; v++) wx[v] = load(x + i * channels + v * L, n) * w[v];
      for (int k = 0; k < D3; k++)
        for (int v = 0; v < V; v++) sum[v][k] += m[k * D1 + i] * wx[v];
    }
  }
  for (int v = 0; v < V; v++)
    for (int k = 0; k < D3; k++) store(out + k * channels + u + v * L, sum[v][k], n);
}

template <typename T, int D1, int D3> void forward_path(const Group<T> &group, const Path &p, T *out)
{
  constexpr int L = Lanes<T>::count;
  int u = 0;
  for (; u + 2 * L <= p.channels; u += 2 * L) forward_lanes<T, D1, D3, 2>(group, p, out, u, L);
  for (; u < p.channels; u += L) forward_lanes<T, D1, D3, 1>(group, p, out, u, p.channels - u < L ? p.channels - u : L);
}

/// Operands and results of the backward pass of one edge.
template <typename T> struct Pull {
  const T *m, *x, *w, *g;
  const T *slope;                 // of the weights; or null
  Vector<T> *gm, *along_slope;    // of the coupling, of the distance: per lane
  T *gx, *gw;                     // accumulated; or null
};

/// The operands of one path; copies, which no store can alias, stay in registers.
template <typename T> inline Pull<T> of_path(const Pull<T> &edge, const Path &p)
{
  Pull<T> at = edge;
  at.m += p.coupling, at.x += p.input, at.g += p.output, at.w += p.weight;
  if (at.slope) at.slope += p.weight;
  if (at.gx) at.gx += p.input;
  if (at.gw) at.gw += p.weight;
  return at;
}

/// All gradients for one vector of channels, but that of the coupling if GM is false.
template <typename T, int D1, int D3, bool WHOLE, bool GM>
inline void backward_lanes(const Pull<T> &at, int channels, Vector<T> *gm, Vector<T> &gr, int u, int rest)
{
  const int n = WHOLE ? Lanes<T>::count : rest;
  const Vector<T> w = load(at.w + u, n);
  Vector<T> xi[D1], wx[D1], pulled[D1] = {};
  for (int i = 0; i < D1; i++) {
    xi[i] = load(at.x + i * channels + u, n);
    wx[i] = w * xi[i];
  }
  for (int k = 0; k < D3; k++) {
    const Vector<T> gk = load(at.g + k * channels + u, n);
    const Vector<T> wg = w * gk;
    for (int i = 0; i < D1; i++) {
      pulled[i] += at.m[k * D1 + i] * gk;
      if (GM) gm[k * D1 + i] += D1 < D3 ? wx[i] * gk : wg * xi[i];    // the shorter of two ways
    }
  }
  Vector<T> along = {};
  for (int i = 0; i < D1; i++) along += pulled[i] * xi[i];
  if (at.slope) gr += along * load(at.slope + u, n);
  if (at.gw) store(at.gw + u, Vector<T>(load(at.gw + u, n) + along), n);
  if (at.gx)
    for (int i = 0; i < D1; i++) {
      T *target = at.gx + i * channels + u;
      store(target, Vector<T>(load(target, n) + w * pulled[i]), n);
    }
}

template <typename T, int D1, int D3, bool GM>
inline void backward_channels(const Pull<T> &at, int channels, Vector<T> *gm)
{
  int u = 0;
  Vector<T> gr = {};
  for (; u + Lanes<T>::count <= channels; u += Lanes<T>::count)
    backward_lanes<T, D1, D3, true, GM>(at, channels, gm, gr, u, 0);
  if (u < channels) backward_lanes<T, D1, D3, false, GM>(at, channels, gm, gr, u, channels - u);
  *at.along_slope += gr;
}

/// Zeros; unrolled, or the compiler fills memory with them and reads it.
template <int N, typename V> inline void clear(V *to)
{
#pragma GCC unroll 32
  for (int k = 0; k < N; k++) to[k] = V{};
}

template <int N, typename V> inline void add_or_store(const V *from, bool first, V *to)
{
  if (first) {
#pragma GCC unroll 32
    for (int k = 0; k < N; k++) to[k] = from[k];
  } else {
#pragma GCC unroll 32
    for (int k = 0; k < N; k++) to[k] += from[k];
  }
}

/// The gradient of rows [k0, k0 + ROWS) of the coupling: gm_ki += Σ_u w[u] g_k[u] x_i[u].
template <typename T, int D1, int ROWS>
inline void pull_coupling(const Pull<T> &at, int channels, bool first, int k0, Vector<T> *to)
{
  Vector<T> gm[ROWS * D1];
  clear<ROWS * D1>(gm);
  for (int u = 0; u < channels; u += Lanes<T>::count) {
    const int n = channels - u < Lanes<T>::count ? channels - u : Lanes<T>::count;
    const Vector<T> w = load(at.w + u, n);
    for (int k = 0; k < ROWS; k++) {
      const Vector<T> wg = w * load(at.g + (k0 + k) * channels + u, n);
      for (int i = 0; i < D1; i++) gm[k * D1 + i] += wg * load(at.x + i * channels + u, n);
    }
  }
  add_or_store<ROWS * D1>(gm, first, to);
}

/// Vectors of a coupling's gradient that are kept in registers (a few of (5, 5) are spilled, which is still less than a
/// second sweep).
constexpr int KEPT = MLPLUGINS_VECTOR_BYTES == 64 ? 25 : 12;

template <typename T, int D1, int D3> void backward_path(const Pull<T> &edge, const Path &p)
{
  constexpr int size = D3 * D1;
  const int channels = p.channels;
  const Pull<T> at = of_path(edge, p);
  Vector<T> *to = edge.gm + p.coupling;
  if constexpr (size <= KEPT) {
    Vector<T> gm[size];
    clear<size>(gm);
    backward_channels<T, D1, D3, true>(at, channels, gm);
    add_or_store<size>(gm, p.first, to);
  } else {    // stores to memory would take twice the time of the arithmetic: as many rows at a time as fit
    backward_channels<T, D1, D3, false>(at, channels, nullptr);
    constexpr int ROWS = KEPT / D1 < D3 ? KEPT / D1 : D3, REST = D3 % ROWS;
    int k = 0;
    for (; k + ROWS <= D3; k += ROWS) pull_coupling<T, D1, ROWS>(at, channels, p.first, k, to + k * D1);
    if constexpr (REST > 0) pull_coupling<T, D1, REST>(at, channels, p.first, k, to + k * D1);
  }
}

template <typename T> using ForwardPath = void (*)(const Group<T> &, const Path &, T *);
template <typename T> using BackwardPath = void (*)(const Pull<T> &, const Path &);

#define TABLE(f)                                                                                               \
  {{f<T, 1, 1>, f<T, 1, 3>, f<T, 1, 5>, f<T, 1, 7>},                                                           \
   {f<T, 3, 1>, f<T, 3, 3>, f<T, 3, 5>, f<T, 3, 7>},                                                           \
   {f<T, 5, 1>, f<T, 5, 3>, f<T, 5, 5>, f<T, 5, 7>},                                                           \
   {f<T, 7, 1>, f<T, 7, 3>, f<T, 7, 5>, f<T, 7, 7>}}

/// Weights of the edges, a block at a time.
template <typename T> class RadialBlock {
 public:
  RadialBlock(const Convolution<T> &c, bool slopes) : c(c), stride(c.w_width)
  {
    if (c.radial.rows) return;
    // the weights of a block stay in the second-level cache
    size = (int64_t) (1 << 17) / (int64_t) (sizeof(T) * c.w_width) / ROWS * ROWS;
    size = size < ROWS ? ROWS : size > 10 * ROWS ? 10 * ROWS : size;
    if (c.radial.perceptron) {
      perceptron = new BlockPerceptron<T>(*c.radial.perceptron, size, slopes);
      stride = perceptron->stride();
      w = perceptron->outputs();
      if (slopes) slope = perceptron->output_slopes();
    } else {
      size = GROUP;
      stride = (stride + 15) / 16 * 16;    // rows start with a line of the cache
      memory = storage.reserve((slopes ? 2 : 1) * size * stride);
      w = memory;
      if (slopes) slope = memory + size * stride;
    }
  }
  ~RadialBlock() { delete perceptron; }
  RadialBlock(const RadialBlock &) = delete;
  RadialBlock &operator=(const RadialBlock &) = delete;

  const T *weights(int64_t k) const { return w + k * stride; }
  const T *slopes(int64_t k) const { return slope ? slope + k * stride : nullptr; }

  /// Weights, and their slopes, of rows row(0), …, row(n − 1).
  template <typename Row> void fill(const Row &row, int64_t n)
  {
    if (perceptron) return perceptron->forward(c.radial.x, c.radial.slopes, row, n);
    for (int64_t k = 0; k < n; k++)    // a table is larger than the cache: the next row's knots are fetched ahead
      interpolate(row(k), row(k + 1 < n ? k + 1 : k), memory + k * stride,
                  slope ? memory + (size + k) * stride : nullptr);
  }

  int64_t size = 64;    // rows of a block

 private:
  const Convolution<T> &c;
  int64_t stride;
  const T *w = nullptr, *slope = nullptr;
  BlockPerceptron<T> *perceptron = nullptr;
  Aligned<T> storage;
  T *memory = nullptr;

  /// x among the knots: k + t between the knots k and k + 1.
  T place(T x) const
  {
    const T last = T(c.radial.table->n_knots - 1);
    return x > T(0) ? (x < T(1) ? x * last : last) : T(0);
  }

  /// The first knot of the table of a row.
  const T *knots(int64_t row) const
  {
    const Table<T> &table = *c.radial.table;
    return table.knots + (c.radial.which ? c.radial.which[row] * table.n_knots * table.n_rows * c.w_width : 0);
  }

  /// w(x) of a row and, if `slope` is not null, dw/dx; both zero beyond the last knot.
  void interpolate(int64_t row, int64_t next_row, T *w, T *slope) const
  {
    const int64_t last = c.radial.table->n_knots - 1, rows = c.radial.table->n_rows, width = c.w_width;
    const T place = this->place(c.radial.x[row]), next_place = this->place(c.radial.x[next_row]);
    const T *next = knots(next_row);
    if (next_place < T(last)) next += (int64_t) next_place * rows * width;
    if (!(place < T(last))) {
      for (int64_t k = 0; k < width; k++) w[k] = T(0);
      for (int64_t k = 0; slope && k < width; k++) slope[k] = T(0);
      return;
    }
    const int64_t knot = (int64_t) place;
    const T t = place - T(knot), u = T(1) - t;
    const T *v0 = knots(row) + knot * rows * width;
    const T rise = t * t * (T(3) - T(2) * t), p = t * u * u, q = -t * t * u;
    const T steep = T(last) * T(6) * t * u, dp = T(last) * u * (T(1) - T(3) * t), dq = T(last) * t * (T(3) * t - T(2));
    for (int64_t k = 0; k < width; k += Lanes<T>::count) {
      const int n = width - k < Lanes<T>::count ? (int) (width - k) : Lanes<T>::count;
      for (int ahead = 0; ahead < 5; ahead++) __builtin_prefetch(next + ahead * width + k);
      const Vector<T> a = load(v0 + k, n), s0 = load(v0 + width + k, n), s1 = load(v0 + (rows + 1) * width + k, n);
      Vector<T> step = load(v0 + 2 * width + k, n);    // the rise, or the next value where a table has no rises
      if (rows == 2) step -= a;
      store(w + k, Vector<T>(a + rise * step + p * s0 + q * s1), n);
      if (slope) store(slope + k, Vector<T>(steep * step + dp * s0 + dq * s1), n);
    }
  }
};

template <typename T> void forward(const Convolution<T> &c, int64_t first, int64_t last, T *out)
{
  static const ForwardPath<T> table[4][4] = TABLE(forward_path);
  RadialBlock<T> radial(c, false);
  T *coupling = new T[c.coupling_size * GROUP];
  for (int64_t k = first * c.out_width; k < last * c.out_width; k++) out[k] = T(0);
  const int64_t end = c.rows[last];
  int64_t center = first;
  for (int64_t start = c.rows[first]; start < end; start += radial.size) {
    const int64_t stop = start + radial.size < end ? start + radial.size : end;
    const T *given = c.radial.rows;
    if (!given) radial.fill([&](int64_t k) { return c.radial.row[start + k]; }, stop - start);
    for (int64_t e = start; e < stop;) {
      while (c.rows[center + 1] <= e) center++;
      const int64_t limit = c.rows[center + 1] < stop ? c.rows[center + 1] : stop;
      Group<T> group;
      group.size = (int) (limit - e < GROUP ? limit - e : GROUP);
      for (int k = 0; k < group.size; k++) {
        group.x[k] = c.h + c.neighbors[e + k] * c.h_width;
        group.w[k] = given ? given + c.radial.row[e + k] * c.w_width : radial.weights(e + k - start);
        group.m[k] = coupling + k * c.coupling_size;
        couple(c, c.y + (e + k) * c.y_width, coupling + k * c.coupling_size);
      }
      for (int64_t k = 0; k < c.n_paths; k++) {
        const Path &p = c.paths[k];
        table[p.d1 / 2][p.d3 / 2](group, p, out + center * c.out_width + p.output);
      }
      e += group.size;
    }
  }
  delete[] coupling;
}

/// The gradient of an edge's harmonics from that of its coupling: gy_j = Σ_k C_kj Σ_lanes gm_k over the non-zero C_kj.
template <typename T> class HarmonicsPull {
 public:
  explicit HarmonicsPull(const Convolution<T> &c) : width(c.y_width)
  {
    int64_t n = 0;
    for (int64_t p = 0; p < c.n_couplings; p++) n += c.couplings[p].n_harmonics * c.couplings[p].size;
    target.reserve(n), value.reserve(n), begin.reserve(width + 1);
    n = 0;
    for (int64_t j = 0; j < width; j++) {
      begin[j] = n;
      for (int64_t p = 0; p < c.n_couplings; p++) {
        const Coupling<T> &q = c.couplings[p];
        if (j < q.harmonic || j >= q.harmonic + q.n_harmonics) continue;
        const T *row = q.values + (j - q.harmonic) * q.size;
        for (int64_t k = 0; k < q.size; k++)
          if (row[k] != T(0)) target[n] = q.target + k, value[n++] = row[k];
      }
    }
    begin[width] = n;
  }

  void operator()(const Vector<T> *gm, T *to) const
  {
    constexpr int V = Lanes<T>::count;
    for (int64_t first = 0; first < width; first += V) {
      Vector<T> along[V];    // one per harmonic; summed over their lanes at the very end
      const int64_t last = first + V < width ? first + V : width;
      for (int64_t j = first; j < last; j++) {
        Vector<T> sum = {};
        for (int64_t k = begin[j]; k < begin[j + 1]; k++) sum += value[k] * gm[target[k]];
        along[j - first] = sum;
      }
      for (int64_t j = last; j < first + V; j++) along[j - first] = Vector<T>{};
      store(to + first, sum_lanes<T, V / 2>(along), (int) (last - first));
    }
  }

 private:
  const int64_t width;
  Aligned<int64_t> target, begin;
  Aligned<T> value;
};

template <typename T> inline T sum_of_lanes(const Vector<T> &v)
{
  T sum = T(0);
  for (int lane = 0; lane < Lanes<T>::count; lane++) sum += v[lane];
  return sum;
}

/// The couplings of the edges of rows [start, stop), in one loop without anything between them.
template <typename T> void couple_rows(const Convolution<T> &c, int64_t start, int64_t stop, Aligned<T> &to)
{
  int64_t n = 0;
  for (int64_t row = start; row < stop; row++)
    for (int64_t e = c.radial.first[row]; e >= 0; e = c.radial.next[e]) n++;
  T *m = to.reserve(n * c.coupling_size);
  for (int64_t row = start; row < stop; row++)
    for (int64_t e = c.radial.first[row]; e >= 0; e = c.radial.next[e], m += c.coupling_size)
      couple(c, c.y + e * c.y_width, m);
}

/// What flowed back along an edge, to the gradient of its sender's row and its moments.
template <typename T> void add_moments(const T *along, int64_t width, const T *x, T *h, T *moments, int64_t plane)
{
  for (int64_t u = 0; u < width; u += Lanes<T>::count) {
    const int n = width - u < Lanes<T>::count ? (int) (width - u) : Lanes<T>::count;
    const Vector<T> a = load(along + u, n);
    store(h + u, Vector<T>(load(h + u, n) + a), n);
    for (int k = 0; k < 3; k++) {
      T *to = moments + k * plane + u;
      store(to, Vector<T>(load(to, n) - x[k] * a), n);
    }
  }
}

template <typename T>
void backward(const Convolution<T> &c, int64_t first, int64_t last, const T *g, const Gradients<T> &to)
{
  static const BackwardPath<T> table[4][4] = TABLE(backward_path);
  const Radial<T> &rows = c.radial;
  RadialBlock<T> radial(c, to.w != nullptr);
  const HarmonicsPull<T> pull_harmonics(c);
  Aligned<T> couplings;
  Aligned<Vector<T>> gm;
  gm.reserve(c.coupling_size);
  Aligned<T> flowed;
  T *along = to.moments ? flowed.reserve(c.h_width) : nullptr;
  for (int64_t k = 0; k < c.coupling_size; k++) gm[k] = Vector<T>{};
  for (int64_t start = first; start < last; start += radial.size) {
    const int64_t stop = start + radial.size < last ? start + radial.size : last;
    if (!rows.rows) radial.fill([&](int64_t k) { return start + k; }, stop - start);
    couple_rows(c, start, stop, couplings);
    const T *m = couplings;
    for (int64_t row = start; row < stop; row++) {
      const T *w = rows.rows ? rows.rows + row * c.w_width : radial.weights(row - start);
      const T *slope = rows.rows ? nullptr : radial.slopes(row - start);
      for (int64_t e = rows.first[row]; e >= 0; e = rows.next[e], m += c.coupling_size) {
        const int64_t sender = c.neighbors[e] * c.h_width;
        Vector<T> along_slope = {};
        for (int64_t u = 0; along && u < c.h_width; u++) along[u] = T(0);
        const Pull<T> edge{m, c.h + sender, w, g + c.centers[e] * c.out_width, slope, gm, &along_slope,
                           along ? along : to.h ? to.h + sender : nullptr, rows.rows && to.w ? to.w + row * c.w_width : nullptr};
        for (int64_t k = 0; k < c.n_paths; k++) table[c.paths[k].d1 / 2][c.paths[k].d3 / 2](edge, c.paths[k]);
        if (along) add_moments(along, c.h_width, to.vectors + 3 * e, to.h + sender, to.moments + sender, to.plane);
        if (to.y) pull_harmonics(gm, to.y + e * c.y_width);
        if (slope) to.w[e] = sum_of_lanes<T>(along_slope);
      }
    }
  }
}

}    // namespace

extern const Kernels<float> MLPLUGINS_CONCAT(float_kernels_, MLPLUGINS_ISA) = {forward<float>, backward<float>, linear<float>, pack<float>,
                                                                     PANEL<float>};
extern const Kernels<double> MLPLUGINS_CONCAT(double_kernels_, MLPLUGINS_ISA) = {forward<double>, backward<double>, linear<double>, pack<double>,
                                                                       PANEL<double>};

}    // namespace mlplugins
