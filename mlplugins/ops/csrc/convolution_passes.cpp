// SPDX-License-Identifier: BSD-3-Clause
// The convolutions on the CPU: checks, tables and threads around the kernels.

#include "convolution.h"
#include "convolution_kernel.h"
#include "ops.h"
#include "processor.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace mlplugins {

extern const Kernels<float> float_kernels_generic, float_kernels_avx2, float_kernels_avx512;
extern const Kernels<double> double_kernels_generic, double_kernels_avx2, double_kernels_avx512;

template <> const Kernels<float> &kernels<float>()
{
  return MLPLUGINS_BEST(float_kernels);
}

template <> const Kernels<double> &kernels<double>()
{
  return MLPLUGINS_BEST(double_kernels);
}

Graph Graph::of(at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  TORCH_CHECK(edges.size() >= 2 && edges.size() <= 4, "convolution: edges are (centers, neighbors) and maybe the row and "
              "the table of each, got ", edges.size(), " tensors");
  TORCH_CHECK(tables.size() == 3, "convolution: tables are (paths, entries, values), got ", tables.size(), " tensors");
  return {edges[0], edges[1], n_centers, tables[0], tables[1], tables[2], edges.size() > 2 ? edges[2] : Tensor(),
          edges.size() > 3 ? edges[3] : Tensor()};
}

RadialInput perceptron_input(at::TensorList radial, at::TensorList weights)
{
  TORCH_CHECK(radial.size() == 3, "convolution: expected the distances, the basis and its slopes, got ", radial.size(),
              " tensors");
  return {RadialInput::perceptron, radial[1], weights.vec(), radial[2]};
}

RadialInput table_input(const Tensor &x, const Tensor &knots, const Graph &graph)
{
  return {RadialInput::table, x, {knots}, Tensor(), graph.which};
}

namespace {

void check_weights(const RadialInput &radial)
{
  if (radial.kind == RadialInput::rows) return;
  if (radial.kind == RadialInput::table) {
    const Tensor &knots = radial.weights[0];
    TORCH_CHECK(radial.weights.size() == 1 && knots.dim() == (radial.which.defined() ? 4 : 3) && knots.size(-3) >= 2 &&
                    (knots.size(-2) == 3 || knots.size(-2) == 2),
                "convolution: expected a table (knots, 3, weights), or 2 without rises, of two knots or more; several, ",
                "(tables, knots, 3, weights), if edges say which");
    TORCH_CHECK(!radial.which.defined() || (radial.which.layout() == at::kStrided &&
                                            radial.which.sizes() == radial.x.sizes() &&
                                            radial.which.scalar_type() == at::kLong &&
                                            radial.which.device() == radial.x.device()),
                "convolution: the tables of the edges must be int64, one per edge");
    return;
  }
  TORCH_CHECK(!radial.slopes.defined() || (radial.slopes.sizes() == radial.x.sizes() &&
                                           radial.slopes.scalar_type() == radial.x.scalar_type() &&
                                           radial.slopes.device() == radial.x.device()),
              "convolution: expected the slopes of the basis in its own shape, dtype and device");
  const int64_t n = (int64_t) radial.weights.size();
  TORCH_CHECK(n >= 1 && n <= MAX_LAYERS, "convolution: the perceptron has ", n, " matrices, expected 1 to ", MAX_LAYERS);
  int64_t width = radial.x.size(1);
  for (const Tensor &matrix : radial.weights) {
    TORCH_CHECK(matrix.dim() == 2 && matrix.size(0) == width && matrix.size(1) > 0,
                "convolution: a matrix of the perceptron has ", matrix.sizes(), " entries, expected ", width, " rows");
    width = matrix.size(1);
  }
}

void check_rows(const Graph &graph, const RadialInput &radial)
{
  const int64_t n_edges = graph.centers.size(0);
  const bool own = radial.kind == RadialInput::table || !graph.row.defined();
  TORCH_CHECK(!own || radial.x.size(0) == n_edges, "convolution: expected one row of w per edge (", n_edges, "), got ",
              radial.x.size(0));
  const Tensor &row = graph.row;
  if (!row.defined()) return;
  TORCH_CHECK(row.layout() == at::kStrided && row.dim() == 1 && row.size(0) == n_edges &&
                  row.scalar_type() == at::kLong && row.device() == radial.x.device(),
              "convolution: the rows of the edges must be int64, one per edge (", n_edges, ")");
}

int64_t weights_per_edge(const RadialInput &radial)
{
  if (radial.kind == RadialInput::rows) return radial.x.size(1);
  return radial.weights.back().size(-1);
}

}    // namespace

void check(const Graph &graph, const Tensor &h, const Tensor &y, const RadialInput &radial)
{
  const Tensor &x = radial.x;
  for (const Tensor &t : {h, y, x, graph.centers, graph.neighbors, graph.paths, graph.entries, graph.values})
    TORCH_CHECK(t.layout() == at::kStrided, "convolution: expected dense tensors, got ", t.layout());
  TORCH_CHECK(graph.centers.dim() == 1 && graph.neighbors.dim() == 1 && graph.values.dim() == 1,
              "convolution: centers, neighbors and coefficients must have one dimension");
  TORCH_CHECK(graph.n_centers >= 0, "convolution: n_centers is ", graph.n_centers);
  const int64_t n_edges = graph.centers.size(0);
  TORCH_CHECK(h.dim() == 2 && y.dim() == 2 && x.dim() == (radial.kind == RadialInput::table ? 1 : 2),
              "convolution: h, y and the radial input must have two dimensions (one for a table)");
  TORCH_CHECK(graph.neighbors.size(0) == n_edges && y.size(0) == n_edges,
              "convolution: expected one neighbour and one row of y per edge (", n_edges, "), got ",
              graph.neighbors.size(0), " and ", y.size(0));
  check_rows(graph, radial);
  TORCH_CHECK(h.scalar_type() == y.scalar_type() && h.scalar_type() == x.scalar_type() &&
                  h.scalar_type() == graph.values.scalar_type(),
              "convolution: h, y, w and the coefficients must have one dtype");
  TORCH_CHECK(h.scalar_type() == at::kFloat || h.scalar_type() == at::kDouble,
              "convolution: expected float32 or float64, got ", h.scalar_type());
  TORCH_CHECK(graph.centers.scalar_type() == at::kLong && graph.neighbors.scalar_type() == at::kLong,
              "convolution: edges must be int64");
  for (const Tensor &t : {y, x, graph.centers, graph.neighbors, graph.paths, graph.entries, graph.values})
    TORCH_CHECK(t.device() == h.device(), "convolution: all tensors must be on one device, got ", h.device(), " and ",
                t.device());
  for (const Tensor &t : radial.weights)
    TORCH_CHECK(t.layout() == at::kStrided && t.device() == h.device() && t.scalar_type() == h.scalar_type(),
                "convolution: the radial weights must have the dtype and the device of h");
  TORCH_CHECK(graph.paths.dim() == 2 && graph.paths.size(1) == 7 && graph.paths.size(0) > 0 &&
                  graph.entries.dim() == 2 && graph.entries.size(1) == 2 &&
                  graph.values.size(0) == graph.entries.size(0),
              "convolution: malformed tables");
  check_weights(radial);
}

void check_perceptron(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &r, const RadialInput &radial)
{
  TORCH_CHECK(graph.row.defined(), "convolution: expected (centers, neighbors, row of the basis)");
  TORCH_CHECK(r.layout() == at::kStrided && r.sizes() == graph.row.sizes() && r.scalar_type() == h.scalar_type() &&
                  r.device() == h.device(),
              "convolution: expected one distance per edge, of the dtype and device of h");
  check(graph, h, y, radial);
}

namespace {

/// The radial weights in the form of the kernels; owns what they point to.
template <typename T> class PreparedRadial {
 public:
  PreparedRadial(const RadialInput &input, const Graph &graph)
  {
    set_rows(input, graph);
    x = input.x.contiguous();
    if (input.kind == RadialInput::table) {
      const Tensor firsts = at::from_blob(first.data(), {(int64_t) first.size()}, at::kLong);
      if (graph.row.defined()) x = x.index_select(0, firsts);
      knots = input.weights[0].contiguous();
      table = {knots.template data_ptr<T>(), knots.size(-3), knots.size(-2)};
      if (input.which.defined()) {
        which = input.which.index_select(0, firsts);
        const bool known = which.numel() == 0 || (which.min().item<int64_t>() >= 0 &&
                                                  which.max().item<int64_t>() < knots.size(0));
        TORCH_CHECK(known, "convolution: an edge has none of the ", knots.size(0), " tables");
      }
    } else if (input.kind == RadialInput::perceptron) {
      pack(input.weights);
      if (input.slopes.defined()) slopes = input.slopes.contiguous();
    }
    const T *data = x.template data_ptr<T>();
    const bool is_rows = input.kind == RadialInput::rows, is_table = input.kind == RadialInput::table;
    radial = {is_rows ? data : nullptr,
              is_rows || is_table ? nullptr : &perceptron,
              is_table ? &table : nullptr,
              data,
              slopes.defined() ? slopes.template data_ptr<T>() : nullptr,
              which.defined() ? which.template data_ptr<int64_t>() : nullptr,
              row.data(),
              first.data(),
              next.data(),
              (int64_t) first.size()};
  }
  PreparedRadial(const PreparedRadial &) = delete;
  PreparedRadial &operator=(const PreparedRadial &) = delete;

  Radial<T> radial;

 private:
  Tensor x, slopes, knots, which;
  std::vector<int64_t> row, first, next;
  std::vector<Tensor> packed;
  Perceptron<T> perceptron;
  Table<T> table;

  void set_rows(const RadialInput &input, const Graph &graph)
  {
    const int64_t n_edges = graph.centers.size(0);
    row.resize(n_edges);
    next.assign(n_edges, -1);
    if (!graph.row.defined()) {
      for (int64_t e = 0; e < n_edges; e++) row[e] = e;
      first = row;
      return;
    }
    const Tensor given = graph.row.contiguous();
    std::copy_n(given.data_ptr<int64_t>(), n_edges, row.begin());
    int64_t n_rows = input.x.size(0);
    if (input.kind == RadialInput::table) {    // as many as are used
      n_rows = 0;
      for (const int64_t k : row) n_rows = std::min(std::max(n_rows, k + 1), n_edges);
    }
    first.assign(n_rows, -1);
    for (int64_t e = n_edges - 1; e >= 0; e--) {
      TORCH_CHECK(row[e] >= 0 && row[e] < n_rows, "convolution: row ", row[e], " of edge ", e, " is not one of ", n_rows);
      next[e] = first[row[e]];
      first[row[e]] = e;
    }
    for (const int64_t e : first) TORCH_CHECK(e >= 0, "convolution: a row of weights belongs to no edge");
  }

  void pack(const std::vector<Tensor> &matrices)
  {
    const Kernels<T> &k = kernels<T>();
    perceptron.n_layers = (int) matrices.size();
    perceptron.widths[0] = matrices[0].size(0);
    for (int l = 0; l < perceptron.n_layers; l++) {
      const Tensor matrix = matrices[l].contiguous();
      const int64_t a = matrix.size(0), b = matrix.size(1);
      perceptron.widths[l + 1] = b;
      packed.push_back(at::empty({a * ((b + k.panel - 1) / k.panel * k.panel)}, matrix.options()));
      k.pack({matrix.template data_ptr<T>(), a, b, b, 1}, packed.back().template data_ptr<T>());
      perceptron.matrices[l] = packed.back().template data_ptr<T>();
    }
  }
};

/// The op's arguments in the form of the kernels; owns what they point to.
template <typename T> class Prepared {
 public:
  std::vector<int64_t> rows;
  Tensor h, y, centers, neighbors;
  int64_t out_width = 0;
  Convolution<T> convolution;

  Prepared(const Graph &graph, const Tensor &h_, const Tensor &y_, const RadialInput &input)
      : h(h_.contiguous()), y(y_.contiguous()), centers(graph.centers.contiguous()),
        neighbors(graph.neighbors.contiguous()), radial(input, graph), w_width(weights_per_edge(input))
  {
    set_rows(graph);
    set_tables(graph);
    convolution = {paths.data(), (int64_t) paths.size(), couplings.data(), (int64_t) couplings.size(), coupling_size,
                   graph.n_centers, h.size(1), y.size(1), w_width, out_width, rows.data(),
                   centers.template data_ptr<int64_t>(), neighbors.template data_ptr<int64_t>(), h.template data_ptr<T>(), y.template data_ptr<T>(), radial.radial};
  }

 private:
  std::vector<Path> paths;
  std::vector<Coupling<T>> couplings;
  std::vector<std::vector<T>> matrices;
  PreparedRadial<T> radial;
  int64_t w_width, coupling_size = 0;

  void set_rows(const Graph &graph)
  {
    const int64_t *center = centers.data_ptr<int64_t>(), *neighbor = neighbors.data_ptr<int64_t>();
    const int64_t n_edges = centers.size(0), n_nodes = h.size(0);
    rows.assign(graph.n_centers + 1, 0);
    int64_t previous = 0;
    for (int64_t e = 0; e < n_edges; e++) {
      TORCH_CHECK(center[e] >= previous, "convolution: edges must be sorted by centre (edge ", e, ")");
      TORCH_CHECK(center[e] < graph.n_centers, "convolution: centre ", center[e], " of edge ", e, " is not below ",
                  graph.n_centers);
      TORCH_CHECK(neighbor[e] >= 0 && neighbor[e] < n_nodes, "convolution: neighbour ", neighbor[e], " of edge ", e,
                  " is not a node (", n_nodes, ")");
      previous = center[e];
      rows[previous + 1]++;
    }
    for (int64_t i = 0; i < graph.n_centers; i++) rows[i + 1] += rows[i];
  }

  void set_tables(const Graph &graph)
  {
    const Tensor table = graph.paths.contiguous();
    const int64_t *p = table.data_ptr<int64_t>();
    std::map<int64_t, int64_t> sizes;    // entries of the coupling by the offset of their matrix
    for (int64_t k = 0; k < table.size(0); k++, p += 7) {
      for (int field = 0; field < 7; field++)
        TORCH_CHECK(p[field] >= 0 && p[field] < (int64_t(1) << 31), "convolution: malformed path ", k);
      const Path path{p[0], p[1], p[2], p[3], (int32_t) p[4], (int32_t) p[5], (int32_t) p[6], true};
      TORCH_CHECK(path.d1 > 0 && path.d1 <= 7 && path.d1 % 2 && path.d3 > 0 && path.d3 <= 7 && path.d3 % 2,
                  "convolution: degrees above 3 are not supported");
      TORCH_CHECK(path.input >= 0 && path.output >= 0 && path.weight >= 0 && path.coupling >= 0 && path.channels > 0,
                  "convolution: malformed path ", k);
      TORCH_CHECK(path.input + path.d1 * path.channels <= h.size(1) && path.weight + path.channels <= w_width,
                  "convolution: the rows of h or w are shorter than path ", k, " needs");
      const int64_t size = sizes.emplace(path.coupling, path.d1 * path.d3).first->second;
      TORCH_CHECK(size == path.d1 * path.d3, "convolution: malformed path ", k);
      out_width = std::max(out_width, path.output + path.d3 * path.channels);
      paths.push_back(path);
    }
    set_couplings(graph, sizes);
  }

  /// Matrices that depend on the same harmonics stand side by side and are made together.
  void set_couplings(const Graph &graph, const std::map<int64_t, int64_t> &sizes)
  {
    const Tensor index = graph.entries.contiguous(), value = graph.values.contiguous();
    const int64_t *i = index.data_ptr<int64_t>(), lanes = kernels<T>().panel / 2;
    const T *v = value.template data_ptr<T>();
    std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> groups;    // by their harmonics [low, high)
    for (const auto &[offset, size] : sizes) {
      int64_t low = y.size(1), high = 0;
      for (int64_t k = 0; k < index.size(0); k++) {
        TORCH_CHECK(i[2 * k] >= 0 && i[2 * k + 1] >= 0 && i[2 * k + 1] < y.size(1),
                    "convolution: y has too few harmonics");
        if (i[2 * k] < offset || i[2 * k] >= offset + size) continue;
        low = std::min(low, i[2 * k + 1]), high = std::max(high, i[2 * k + 1] + 1);
      }
      groups[{low < high ? low : 0, low < high ? high : 0}].push_back(offset);
    }
    std::map<int64_t, int64_t> moved;
    for (const auto &[harmonics, offsets] : groups) {
      const int64_t n = harmonics.second - harmonics.first;
      TORCH_CHECK(n <= MAX_HARMONICS, "convolution: degrees above 3 are not supported");
      int64_t used = 0;
      for (const int64_t offset : offsets) moved[offset] = coupling_size + used, used += sizes.at(offset);
      const int64_t width = (used + lanes - 1) / lanes * lanes;
      matrices.emplace_back(n * width, T(0));
      for (const int64_t offset : offsets)
        for (int64_t k = 0; k < index.size(0); k++)
          if (i[2 * k] >= offset && i[2 * k] < offset + sizes.at(offset))
            matrices.back()[(i[2 * k + 1] - harmonics.first) * width + moved[offset] - coupling_size + i[2 * k] -
                            offset] += v[k];
      couplings.push_back({coupling_size, harmonics.first, n, width, nullptr});
      coupling_size += width;
    }
    for (size_t k = 0; k < couplings.size(); k++) couplings[k].values = matrices[k].data();
    std::set<int64_t> seen;
    for (Path &path : paths) {
      path.coupling = moved[path.coupling];
      path.first = seen.insert(path.coupling).second;
    }
  }
};

/// Threads worth their start for so many edges.
int64_t threads_for(int64_t n_edges) { return n_edges < 512 || at::in_parallel_region() ? 1 : at::get_num_threads(); }

/// pass(thread, bound(thread), bound(thread + 1)) in all threads.
template <typename Bound, typename Pass> void in_threads(int64_t threads, const Bound &bound, const Pass &pass)
{
  if (threads == 1) return pass(0, bound(0), bound(1));
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) pass(t, bound(t), bound(t + 1));
  });
}

template <typename T>
Tensor forward_pass(const Graph &graph, const Tensor &h, const Tensor &y, const RadialInput &radial)
{
  const Prepared<T> p(graph, h, y, radial);
  Tensor out = at::empty({graph.n_centers, p.out_width}, h.options());
  const int64_t threads = threads_for(p.rows.back());
  const auto share = [&](int64_t k) {    // centres with an equal share of the edges
    if (k == 0 || k == threads) return k == 0 ? int64_t(0) : graph.n_centers;
    return (int64_t) (std::lower_bound(p.rows.begin(), p.rows.end() - 1, p.rows.back() * k / threads) - p.rows.begin());
  };
  in_threads(threads, share, [&](int64_t, int64_t first, int64_t last) {
    kernels<T>().forward(p.convolution, first, last, out.data_ptr<T>());
  });
  return out;
}

template <typename T>
std::vector<Tensor> backward_pass(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                  const RadialInput &radial, std::array<bool, 3> wanted, const Tensor &vectors)
{
  const Prepared<T> p(graph, h, y, radial);
  const Tensor g_rows = g.contiguous();
  TORCH_CHECK(g_rows.size(0) == graph.n_centers && g_rows.size(1) == p.out_width, "convolution: wrong gradient shape");
  const int64_t threads = threads_for(p.rows.back()), n_rows = p.convolution.radial.n_rows;
  // one copy per thread: no atomics, and the same bits for a given number of threads
  Tensor gh = wanted[0] ? at::zeros({threads, h.size(0), h.size(1)}, h.options()) : Tensor();
  Tensor gy = wanted[1] ? at::empty_like(p.y) : Tensor();
  const bool moved = wanted[0] && vectors.defined();
  Tensor moments = moved ? at::zeros({threads, 3, h.size(0), h.size(1)}, h.options()) : Tensor(), gw;
  if (wanted[2]) {
    const bool given = radial.kind == RadialInput::rows;
    TORCH_CHECK(radial.kind != RadialInput::perceptron || radial.slopes.defined(),
                "convolution: the gradient of the distances needs the slopes of the basis");
    gw = given ? at::zeros_like(radial.x, at::MemoryFormat::Contiguous) : at::empty({p.rows.back()}, h.options());
  }
  in_threads(threads, [&](int64_t k) { return n_rows * k / threads; }, [&](int64_t thread, int64_t first, int64_t last) {
    const Gradients<T> to{wanted[0] ? gh.data_ptr<T>() + thread * h.numel() : nullptr,
                          wanted[1] ? gy.data_ptr<T>() : nullptr, wanted[2] ? gw.data_ptr<T>() : nullptr,
                          moved ? vectors.data_ptr<T>() : nullptr,
                          moved ? moments.data_ptr<T>() + 3 * thread * h.numel() : nullptr, h.numel()};
    kernels<T>().backward(p.convolution, first, last, g_rows.data_ptr<T>(), to);
  });
  if (wanted[0]) gh = threads == 1 ? gh.select(0, 0) : gh.sum(0);
  if (moved) moments = threads == 1 ? moments.select(0, 0) : moments.sum(0);
  return {gh, gy, gw, moments};
}

Tensor convolve(const Graph &graph, const Tensor &h, const Tensor &y, const RadialInput &radial)
{
  at::AutoDispatchBelowADInplaceOrView guard;
  return h.scalar_type() == at::kFloat ? forward_pass<float>(graph, h, y, radial)
                                       : forward_pass<double>(graph, h, y, radial);
}

std::vector<Tensor> gradients_of(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                 const RadialInput &radial, Wanted wanted, const Tensor &vectors)
{
  TORCH_CHECK(g.dim() == 2 && g.scalar_type() == h.scalar_type() && g.device() == h.device(),
              "convolution: wrong gradient");
  at::AutoDispatchBelowADInplaceOrView guard;
  return h.scalar_type() == at::kFloat ? backward_pass<float>(graph, g, h, y, radial, wanted, vectors)
                                       : backward_pass<double>(graph, g, h, y, radial, wanted, vectors);
}

Three convolve_backward(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                        const RadialInput &radial, Wanted wanted)
{
  const auto d = gradients_of(graph, g, h, y, radial, wanted, Tensor());
  return {given(d[0], h), given(d[1], h), given(d[2], h)};
}

}    // namespace

std::vector<Tensor> backward_with_moments(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                          const RadialInput &radial, Wanted wanted, const Tensor &vectors)
{
  auto d = gradients_of(graph, g, h, y, radial, wanted, vectors);
  for (int k = 0; k < 3; k++) d[k] = given(d[k], h);
  return d;
}

Tensor cpu::convolution(const Tensor &h, const Tensor &y, const Tensor &w, at::TensorList edges, int64_t n_centers,
                        at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput rows{RadialInput::rows, w, {}, Tensor()};
  check(graph, h, y, rows);
  return convolve(graph, h, y, rows);
}

Three cpu::convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w,
                                at::TensorList edges, int64_t n_centers, at::TensorList tables, Wanted wanted)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput rows{RadialInput::rows, w, {}, Tensor()};
  check(graph, h, y, rows);
  return convolve_backward(graph, g, h, y, rows, wanted);
}

Tensor cpu::radial_convolution(const Tensor &h, const Tensor &y, at::TensorList radial, at::TensorList weights,
                               at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput input = perceptron_input(radial, weights);
  check_perceptron(graph, h, y, radial[0], input);
  return convolve(graph, h, y, input);
}

Three cpu::radial_convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, at::TensorList radial,
                                       at::TensorList weights, at::TensorList edges, int64_t n_centers,
                                       at::TensorList tables, Wanted wanted)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput input = perceptron_input(radial, weights);
  check_perceptron(graph, h, y, radial[0], input);
  return convolve_backward(graph, g, h, y, input, wanted);
}

Tensor cpu::table_convolution(const Tensor &h, const Tensor &y, const Tensor &x, const Tensor &knots,
                              at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput table = table_input(x, knots, graph);
  check(graph, h, y, table);
  return convolve(graph, h, y, table);
}

Three cpu::table_convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &x,
                                      const Tensor &knots, at::TensorList edges, int64_t n_centers,
                                      at::TensorList tables, Wanted wanted)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput table = table_input(x, knots, graph);
  check(graph, h, y, table);
  return convolve_backward(graph, g, h, y, table, wanted);
}

}    // namespace mlplugins
