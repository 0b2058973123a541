//! Attention against a naive version.

use super::*;

/// What distances add in a case.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    None,
    ByDistance,
    /// With position keys, with position queries; the greatest distance that has a row of its own.
    Disentangled(bool, bool, usize),
}

#[derive(Debug, Clone, Copy)]
struct Case {
    length: usize,
    size: usize,
    reach: Option<usize>,
    causal: bool,
    kind: Kind,
    cap: Option<f32>,
    /// Tokens whose keys and values lie apart.
    prefix: usize,
    /// Last tokens that none sees.
    unseen: usize,
    dtype: Dtype,
}

impl Case {
    fn new(length: usize, size: usize, reach: Option<usize>, kind: Kind) -> Self {
        Self {
            length,
            size,
            reach,
            causal: false,
            kind,
            cap: None,
            prefix: 0,
            unseen: 0,
            dtype: Dtype::F32,
        }
    }
}

/// Rows of log-like buckets: near distances have a row each, far ones share some.
fn rows(max: usize) -> Vec<u16> {
    let max = max as i64;
    let near = (max + 1) / 2;
    let row = |d: i64| {
        let far = d.abs().max(near) - near;
        d.signum() * (d.abs().min(near) + (far + 1) / 2) + max
    };
    (1 - max..max).map(|d| row(d) as u16).collect()
}

/// Checks a case for the queries in `chunks`, which follow each other from 0 on.
fn check(kernels: Kernels, case: Case, chunks: &[usize]) {
    const HEADS: usize = 2;
    let Case {
        length,
        size,
        reach,
        causal,
        kind,
        cap,
        prefix,
        unseen,
        dtype,
    } = case;
    let keys = length - unseen;
    let stride = 3 * size + 5;
    // Products of some ten at most, whose rounding leaves five digits of the weights.
    let scale = (12.0 / (size as f32).sqrt()).sqrt();
    let data = values(5, length * stride);
    let mut data: Vec<f32> = data.iter().map(|x| scale * x).collect();
    if dtype == Dtype::Bf16 {
        // So that rounding changes nothing but the weights.
        data.iter_mut()
            .for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
    }
    // Whose prefix is of no use.
    let mut apart = data.clone();
    apart[..prefix * stride].fill(f32::NAN);
    let biases = values(6, 2 * length + 3);
    let max = match kind {
        Kind::Disentangled(_, _, max) => max,
        _ => 1,
    };
    let (rows, width) = (rows(max), HEADS * size);
    let tables = [7, 8].map(|seed| values(seed, (2 * max + 1) * width));
    let positions = match kind {
        Kind::Disentangled(keys, queries, _) => RelativePositions::new(
            width,
            HEADS,
            keys.then_some(&tables[0][..]),
            queries.then_some(&tables[1][..]),
            &rows,
        ),
        _ => RelativePositions::new(width, HEADS, None, None, &rows),
    };
    let bias = match kind {
        Kind::None => Bias::None,
        Kind::ByDistance => Bias::ByDistance {
            values: &biases,
            center: length,
        },
        Kind::Disentangled(..) => Bias::Disentangled(positions.head(1)),
    };

    let mut output = vec![f32::NAN; length * size];
    let at = |column: usize| Rows::new(&data, stride).columns(column..column + size);
    let mut scratch = Scratch::default();
    let mut first = 0;
    for mut output in RowsMut::new(&mut output, size).cut_rows(chunks.iter().copied()) {
        let queries = at(0).rows(first..first + output.len());
        let places = Places {
            first,
            reach,
            causal,
            bias,
            cap,
        };
        let of = |data| KeyValues {
            keys: Rows::new(data, stride).columns(size..2 * size),
            values: Rows::new(data, stride).columns(2 * size..3 * size),
        };
        kernels.attention(
            dtype,
            queries,
            [of(&data).rows(0..prefix), of(&apart).rows(prefix..keys)],
            places,
            &mut output,
            &mut scratch,
        );
        first += output.len();
    }

    let vector = |i: usize, part: usize| &data[i * stride + part * size..][..size];
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    let mut expected = Vec::new();
    for i in 0..first {
        let score = |j: usize| {
            if reach.is_some_and(|reach| i.abs_diff(j) > reach) || causal && j > i {
                return f64::NEG_INFINITY;
            }
            let (q, k) = (vector(i, 0), vector(j, 1));
            let added = match kind {
                Kind::None => 0.0,
                Kind::ByDistance => f64::from(biases[length + j - i]),
                Kind::Disentangled(keys, queries, max) => {
                    let far = max as i64 - 1;
                    let distance = (i as i64 - j as i64).clamp(-far, far);
                    let row = usize::from(rows[(distance + far) as usize]);
                    let [pk, pq] = [0, 1].map(|t| &tables[t][row * width + size..][..size]);
                    let c2p = if keys { product(q, pk) } else { 0.0 };
                    let p2c = if queries { product(k, pq) } else { 0.0 };
                    c2p + p2c
                }
            };
            let score = product(q, k) + added;
            cap.map_or(score, |cap| {
                let cap = f64::from(cap);
                cap * (score / cap).tanh()
            })
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let greatest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let weights: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for c in 0..size {
            let value = |j: usize| f64::from(vector(j, 2)[c]);
            let sum: f64 = (0..keys).map(|j| weights[j] * value(j)).sum();
            // Whoever sees nothing gets nothing.
            let nothing = greatest == f64::NEG_INFINITY;
            expected.push(if nothing { 0.0 } else { sum / total });
        }
    }
    let what = format!("{kernels:?} {case:?} {chunks:?}");
    match dtype {
        Dtype::Bf16 => {
            let greatest = data.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            let rounding = f64::from(greatest) * 2.0f64.powi(-9);
            for (i, (f, e)) in output.iter().zip(&expected).enumerate() {
                let off = (f64::from(*f) - e).abs();
                assert!(off < 1.1 * rounding, "{what}, value {i}: {f} is not {e}");
            }
        }
        _ => assert_close(&output[..first * size], &expected, &what),
    }
}

/// All queries at once, some first, and the first alone.
fn check_chunks(kernels: Kernels, case: Case) {
    let length = case.length;
    check(kernels, case, &[length]);
    check(kernels, case, &[length / 3, length - length / 3]);
    check(kernels, case, &[1]);
}

#[test]
fn attention_is_the_naive_one() {
    let shapes = [
        (1, 8),
        (2, 16),
        (7, 32),
        (33, 24),
        (64, 32),
        (129, 64),
        (300, 40),
        (70, 128),
        (41, 13),
    ];
    for kernels in Kernels::available() {
        for (length, size) in shapes {
            for reach in [None, Some(0), Some(5), Some(64), Some(1000)] {
                let kinds = [
                    Kind::None,
                    Kind::ByDistance,
                    Kind::Disentangled(true, true, 20),
                    Kind::Disentangled(true, false, 400),
                    Kind::Disentangled(false, true, 1),
                ];
                for kind in kinds {
                    let case = Case::new(length, size, reach, kind);
                    check_chunks(kernels, case);
                    let causal = Case {
                        causal: true,
                        ..case
                    };
                    check_chunks(kernels, causal);
                }
            }
        }
    }
}

/// Longer than the keys that are held at a time, and than the table of distances.
#[test]
fn attention_of_a_long_sequence_is_the_naive_one() {
    let kinds = [
        Kind::None,
        Kind::ByDistance,
        Kind::Disentangled(true, true, 300),
    ];
    for kernels in Kernels::available() {
        for reach in [None, Some(64), Some(400), Some(1024)] {
            for kind in kinds {
                for causal in [false, true] {
                    let case = Case {
                        causal,
                        ..Case::new(1100, 16, reach, kind)
                    };
                    check(kernels, case, &[1, 250, 849]);
                }
            }
        }
    }
}

/// What decoders add: keys of a prefix that lie apart, and limited scores.
#[test]
fn attention_with_a_prefix_and_a_cap_is_the_naive_one() {
    for kernels in Kernels::available() {
        for (length, prefix) in [(2, 1), (70, 9), (70, 69), (300, 128), (1100, 600)] {
            for reach in [None, Some(5), Some(64)] {
                for (causal, cap) in [(true, None), (true, Some(4.0)), (false, Some(20.0))] {
                    let case = Case {
                        causal,
                        cap,
                        prefix,
                        ..Case::new(length, 32, reach, Kind::None)
                    };
                    check(kernels, case, &[length]);
                    check(kernels, case, &[prefix, length - prefix]);
                }
            }
        }
    }
}

/// As those that fill a query up in late interaction.
#[test]
fn tokens_that_are_not_seen_see_the_others() {
    for kernels in Kernels::available() {
        for (length, unseen) in [(2, 1), (32, 20), (70, 9), (300, 100)] {
            for reach in [None, Some(128), Some(4)] {
                for kind in [Kind::None, Kind::ByDistance] {
                    let case = Case {
                        unseen,
                        ..Case::new(length, 32, reach, kind)
                    };
                    check_chunks(kernels, case);
                    check(kernels, case, &[length - unseen, unseen]);
                }
            }
        }
    }
}

/// In each way that the CPU multiplies bfloat16, and as one would; no further off than the rounding of weights.
#[test]
fn attention_in_bf16_is_the_naive_one() {
    let ways = [
        (false, Kind::None, None),
        (true, Kind::None, Some(4.0)),
        (false, Kind::ByDistance, None),
        (true, Kind::ByDistance, None),
    ];
    let reaches = [None, Some(0), Some(5), Some(64)];
    for kernels in crate::bf16::tests::units() {
        let check = |[length, size, prefix, unseen]: [usize; 4], reach, way, chunks: &[usize]| {
            let (causal, kind, cap) = way;
            let case = Case {
                causal,
                cap,
                prefix,
                unseen,
                dtype: Dtype::Bf16,
                ..Case::new(length, size, reach, kind)
            };
            check(kernels, case, chunks);
        };
        for (reach, way) in reaches.iter().flat_map(|&r| ways.map(|way| (r, way))) {
            check([1, 8, 0, 0], reach, way, &[1]);
            check([2, 16, 1, 0], reach, way, &[1, 1]);
            check([7, 33, 0, 2], reach, way, &[1, 6]);
            check([33, 24, 32, 0], reach, way, &[33]);
            check([64, 32, 0, 0], reach, way, &[17, 47]);
            check([101, 64, 40, 1], reach, way, &[101]);
        }
        // More keys than are held at a time.
        check([540, 16, 70, 3], None, ways[0], &[1, 36, 503]);
        check([540, 16, 0, 0], Some(300), ways[3], &[540]);
    }
}
