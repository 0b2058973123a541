//! What aarch64 CPUs differ in: of three ways to multiply bytes a CPU uses the best that it has.

use super::*;

#[test]
fn all_ways_to_multiply_bytes_agree() {
    let mut ways = vec![Kernels(&NEON)];
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        ways.push(Kernels(&NEON_DOTPROD));
    }
    if std::arch::is_aarch64_feature_detected!("i8mm") {
        ways.push(Kernels(&NEON_I8MM));
    }
    for (inputs, outputs) in [(3, 2), (16, 16), (50, 35), (384, 33)] {
        for rows in 1..=13 {
            let (weight, mut input) = (values(1, inputs * outputs), values(3, rows * inputs));
            // Two far beyond the others, one of each sign: more than one byte each.
            input[inputs / 2] = 70.0;
            *input.last_mut().unwrap() = -90.0;
            let found = ways.iter().map(|&kernels| {
                let layer = pack(kernels, &weight, &values(2, outputs), Dtype::Int8);
                run(&layer, &input, inputs, Epilogue::default())
            });
            let found: Vec<_> = found.collect();
            for (way, other) in ways.iter().zip(&found) {
                let expected: Vec<f64> = found[0].iter().map(|&x| f64::from(x)).collect();
                let int8 = way.0.int8;
                let what = format!("{} together, {rows}x{inputs}x{outputs}", int8.together);
                assert_close(other, &expected, &what);
            }
        }
    }
}

#[test]
fn neon_is_the_best_of_all_that_are_there() {
    let names: Vec<_> = Kernels::available().iter().map(|k| k.name()).collect();
    assert_eq!(names, ["neon", "portable"]);
    assert_eq!(Kernels::detect().name(), "neon");
}
