//! What one thread of this machine could do at best: multiplications and additions in registers alone, and reading
//! memory. `cargo bench -p rerankd-kernels --bench limits`

#![allow(unsafe_code, reason = "functions of instruction sets")]

use std::hint::black_box;
use std::time::Instant;

/// The best of some tries, in seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let tries = (0..20).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    tries.fold(f64::MAX, f64::min)
}

/// Sums of their own, enough to keep all units at work.
#[cfg(target_arch = "x86_64")]
mod multiply_add {
    use std::arch::x86_64::*;

    pub(super) const SUMS: usize = 12;

    macro_rules! multiply_add {
        ($name:ident, $features:literal, $set:ident, $fma:ident, $add:ident, $first:ident) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(turns: usize) -> f32 {
                let (x, w) = ($set(1.0001), $set(1e-9));
                let mut sums = [x; SUMS];
                for _ in 0..turns {
                    for sum in &mut sums {
                        *sum = $fma(*sum, x, w);
                    }
                }
                $first(sums.into_iter().fold(w, |a, b| $add(a, b)))
            }
        };
    }
    multiply_add!(
        avx2,
        "avx2,fma",
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_cvtss_f32
    );
    multiply_add!(
        avx512,
        "avx512f",
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_cvtss_f32
    );

    /// Pairs of bfloat16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16(turns: usize) -> f32 {
        let x = _mm512_set1_ps(1.0);
        let pairs = _mm512_cvtne2ps_pbh(x, x);
        let mut sums = [x; SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        _mm512_cvtss_f32(sums.into_iter().fold(x, |a, b| _mm512_add_ps(a, b)))
    }

    /// Quads of bytes.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8(turns: usize) -> i32 {
        let quads = _mm512_set1_epi8(1);
        let mut sums = [quads; SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, quads, quads);
            }
        }
        let sum = sums.into_iter().fold(quads, |a, b| _mm512_add_epi32(a, b));
        _mm512_cvtsi512_si32(sum)
    }
}

#[cfg(target_arch = "x86_64")]
fn multiply_and_add() {
    const TURNS: usize = 1_000_000;
    /// Prints the rate of a function that multiplies `lanes` pairs of numbers at a time.
    macro_rules! rate {
        ($name:literal, $lanes:literal, $function:ident) => {
            let seconds = best(|| {
                // SAFETY: the caller has looked whether the CPU has it.
                black_box(unsafe { multiply_add::$function(black_box(TURNS)) });
            });
            let operations = TURNS * multiply_add::SUMS * $lanes * 2;
            println!(
                "{:16}{:8.1} GFLOP/s",
                $name,
                operations as f64 / seconds / 1e9
            );
        };
    }
    if is_x86_feature_detected!("avx512f") {
        rate!("f32, AVX-512:", 16, avx512);
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        rate!("f32, AVX2:", 8, avx2);
    }
    if is_x86_feature_detected!("avx512bf16") {
        rate!("bf16, AVX-512:", 32, bf16);
    }
    if is_x86_feature_detected!("avx512vnni") {
        rate!("int8, AVX-512:", 64, int8);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply_and_add() {}

fn main() {
    multiply_and_add();
    // More than the caches hold; what a MiniLM's layers take in f32; what they take in int8.
    for megabytes in [512, 42, 11] {
        let numbers = vec![1u64; megabytes << 17];
        let seconds = best(|| {
            let sums = numbers.chunks_exact(8).fold([0u64; 8], |sums, numbers| {
                std::array::from_fn(|i| sums[i].wrapping_add(numbers[i]))
            });
            black_box(sums);
        });
        let rate = (megabytes << 20) as f64 / seconds / 1e9;
        println!("reading {megabytes:3} MB: {rate:7.1} GB/s");
    }
}
