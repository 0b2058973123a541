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
use rerankd::engine::KernelBench;
use rerankd::types::Dtype;

/// Rows of a block in the engine, and a MiniLM's and a BERT-base's layers.
const LINEAR: [(usize, usize, usize); 4] = [
    (96, 384, 384),
    (96, 384, 1536),
    (96, 1536, 384),
    (96, 768, 3072),
];

fn linear(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    for (rows, inputs, outputs) in LINEAR {
        let shape = format!("{rows}x{inputs}x{outputs}");
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        for kernels in KernelBench::all() {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
                let name = format!("{} {}", kernels.name(), dtype.name());
                let mut run = kernels.linear(dtype, rows, inputs, outputs);
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
        for kernels in KernelBench::all() {
            let mut run = kernels.attention(length, heads, size);
            let id = BenchmarkId::new(kernels.name(), length);
            group.bench_function(id, |b| b.iter(&mut run));
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
        for kernels in KernelBench::all() {
            let mut run = kernels.layer_norm(96, width);
            let id = BenchmarkId::new(kernels.name(), width);
            group.bench_function(id, |b| b.iter(&mut run));
        }
    }
    group.finish();
}

criterion_group!(benches, linear, attention, layer_norm);
criterion_main!(benches);
