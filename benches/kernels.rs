//! The kernels one by one, each on one thread, against what else candle offers for the same work:
//!
//! `RAYON_NUM_THREADS=1 cargo bench --bench kernels`
//!
//! Elements are floating-point operations (multiplications and additions of the products), so that
//! Gelem/s are GFLOP/s. `gemm` is candle's matrix product without bias and activation; `cpu_flash` is
//! candle-nn's packed attention.

use candle_core::{Device, Tensor};
use candle_nn::attention::flash_attn_varlen_cpu;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rerankd_kernels::{
    Activation, Dtype, Epilogue, Kernels, KeyValues, LayerNorm, Packer, Places, Rows, RowsMut,
    Scratch, Stored,
};

/// Rows of a block in the engine, and a MiniLM's and a BERT-base's layers.
const LINEAR: [(usize, usize, usize); 4] = [
    (96, 384, 384),
    (96, 384, 1536),
    (96, 1536, 384),
    (96, 768, 3072),
];

/// A linear layer `[rows, inputs]` to `[rows, outputs]` with GELU.
fn linear_gelu(
    kernels: Kernels,
    dtype: Dtype,
    rows: usize,
    inputs: usize,
    outputs: usize,
) -> impl FnMut() {
    let mut scratch = Scratch::default();
    let mut packer = Packer::new(kernels, dtype, inputs, outputs);
    for row in values(inputs * outputs).chunks(inputs) {
        packer.push(Stored::Floats(row), 1.0);
    }
    let layer = packer.finish(&values(outputs));
    let (input, mut output) = (values(rows * inputs), vec![0.0; rows * outputs]);
    move || {
        let (input, gelu) = (
            Rows::new(&input, inputs),
            Epilogue::activate(Activation::Gelu),
        );
        let mut output = RowsMut::new(&mut output, outputs);
        layer.run(input, gelu, &mut output, &mut scratch);
    }
}

/// Attention of one sequence of `length` tokens: queries, keys and values `[length, heads * size]`.
fn attend(
    kernels: Kernels,
    dtype: Dtype,
    length: usize,
    heads: usize,
    size: usize,
) -> impl FnMut() {
    let (mut scratch, width) = (Scratch::default(), heads * size);
    let (projected, mut output) = (values(3 * length * width), vec![0.0; length * width]);
    move || {
        let projected = Rows::new(&projected, 3 * width);
        let outputs = RowsMut::new(&mut output, width).cut_columns(size);
        for (head, mut output) in outputs.enumerate() {
            let [q, k, v] = [0, 1, 2].map(|which| {
                let start = which * width + head * size;
                projected.columns(start..start + size)
            });
            let own = KeyValues { keys: k, values: v };
            let parts = [own.rows(0..0), own];
            kernels.attention(
                dtype,
                q,
                parts,
                Places::default(),
                &mut output,
                &mut scratch,
            );
        }
    }
}

/// Layer normalisation of `[rows, width]`.
fn normalise(kernels: Kernels, rows: usize, width: usize) -> impl FnMut() {
    let norm = LayerNorm::new(values(width), values(width), 1e-12);
    let (from, mut to) = (values(rows * width), vec![0.0; rows * width]);
    move || {
        let mut to = RowsMut::new(&mut to, width);
        kernels.layer_norm(&norm, Rows::new(&from, width), &mut to);
    }
}

/// Values about [-1, 1].
fn values(count: usize) -> Vec<f32> {
    let value = |i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0;
    (0..count).map(value).collect()
}

fn linear(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    for (rows, inputs, outputs) in LINEAR {
        let shape = format!("{rows}x{inputs}x{outputs}");
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        for kernels in Kernels::available() {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
                let name = format!("{} {}", kernels.name(), dtype.name());
                let mut run = linear_gelu(kernels, dtype, rows, inputs, outputs);
                group.bench_function(BenchmarkId::new(name, &shape), |b| b.iter(&mut run));
            }
        }
        let random = |shape| Tensor::rand(-1f32, 1f32, shape, &Device::Cpu);
        let (Ok(a), Ok(b)) = (random((rows, inputs)), random((inputs, outputs))) else {
            continue;
        };
        group.bench_function(BenchmarkId::new("gemm", &shape), |bencher| {
            bencher.iter(|| a.matmul(&b));
        });
    }
    group.finish();
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    let (heads, size) = (12, 32);
    for length in [128, 512] {
        let operations = 4 * length * length * heads * size;
        group.throughput(Throughput::Elements(operations as u64));
        for kernels in Kernels::available() {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let same = kernels.arithmetic(dtype) == "f32";
                if same && dtype != Dtype::F32 {
                    continue;
                }
                let name = format!("{} {}", kernels.name(), dtype.name());
                let mut run = attend(kernels, dtype, length, heads, size);
                group.bench_function(BenchmarkId::new(name, length), |b| b.iter(&mut run));
            }
        }
        let random = || Tensor::rand(-1f32, 1f32, (length, heads, size), &Device::Cpu);
        let lengths = Tensor::new(&[length as u32], &Device::Cpu);
        let (Ok(q), Ok(k), Ok(v), Ok(lengths)) = (random(), random(), random(), lengths) else {
            continue;
        };
        group.bench_function(BenchmarkId::new("cpu_flash", length), |b| {
            b.iter(|| {
                flash_attn_varlen_cpu(
                    &q, &k, &v, None, &lengths, &lengths, length, length, 1.0, false, None, None,
                )
            });
        });
    }
    group.finish();
}

fn layer_norm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer_norm");
    for width in [384, 768] {
        group.throughput(Throughput::Elements(96 * width as u64));
        for kernels in Kernels::available() {
            let mut run = normalise(kernels, 96, width);
            let id = BenchmarkId::new(kernels.name(), width);
            group.bench_function(id, |b| b.iter(&mut run));
        }
    }
    group.finish();
}

criterion_group!(benches, linear, attention, layer_norm);
criterion_main!(benches);
