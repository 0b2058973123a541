//! How weights are quantised.

use super::*;

#[test]
fn no_sum_of_sixteen_bits_can_overflow() {
    let rows: [Vec<f32>; 4] = [
        vec![1.0; 40],
        vec![-0.3; 16],
        (0..100).map(|i| ((i * 37) % 41) as f32 - 20.0).collect(),
        vec![0.0; 8],
    ];
    for row in rows {
        let (scale, quantised) = quantise_weights(&row, Some(NARROW_QUADS));
        assert!(greatest_sum(&quantised, NARROW_QUADS) <= SIXTEEN_BIT_SUM);
        for (w, q) in row.iter().zip(&quantised) {
            assert!((w - scale * f32::from(*q)).abs() <= 0.5001 * scale);
        }
    }
}

#[test]
fn integers_are_taken_as_they_are_where_the_kernel_can() {
    let table = |sums_in_sixteen_bits| Int8Table {
        sums_in_sixteen_bits,
        ..crate::portable::INT8
    };
    let inputs = 20;
    let unlike: Vec<i8> = (0..20i32).map(|i| (i * 12 - 120) as i8).collect();
    for (values, sixteen_bits, as_they_are) in [
        (unlike.clone(), false, true),
        // Finer than what is made of them: their greatest is not 127.
        (vec![3; inputs], false, true),
        (vec![3; inputs], true, true),
        (unlike, true, false),
        (vec![i8::MIN; inputs], false, false),
    ] {
        let table = table(sixteen_bits);
        let mut packed = Int8::zeroed(inputs, 1, false, table);
        let stored = Stored::Integers {
            values: &values,
            scale: 0.5,
        };
        packed.pack(stored, 0.25, &mut vec![0.0; inputs], 0, table);
        let scale = packed.scale.as_mut_slice()[0];
        assert_eq!(scale == 0.125, as_they_are, "{values:?}");
        let mut sum = 0.0;
        for (i, &value) in values.iter().enumerate() {
            let at = i / QUAD * table.panel_width * QUAD + i % QUAD;
            let q = packed.panels.as_mut_slice()[at];
            sum += scale * f32::from(q);
            let off = (scale * f32::from(q) - 0.125 * f32::from(value)).abs();
            assert!(off <= if as_they_are { 0.0 } else { 0.51 * scale });
        }
        assert!((packed.sum.as_mut_slice()[0] - sum).abs() < 1e-3);
    }
}

#[test]
fn without_that_limit_the_greatest_weight_is_127() {
    let (scale, quantised) = quantise_weights(&[0.5, -2.0, 1.0], None);
    assert_eq!(quantised, [32, -127, 64]);
    assert!((scale - 2.0 / 127.0).abs() < 1e-7);
}
