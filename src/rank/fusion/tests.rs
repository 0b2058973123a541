use proptest::prelude::*;

use super::*;

fn raw(values: &[f32]) -> Vec<RawScore> {
    let raw = values.iter().map(|&v| RawScore::new(v).unwrap());
    raw.collect()
}

fn scores(values: &[Option<f32>]) -> FirstStage {
    let raw = values.iter().map(|v| v.map(|v| RawScore::new(v).unwrap()));
    FirstStage::Scores(raw.collect())
}

fn places(ranks: &[Option<usize>]) -> FirstStage {
    let ranks = ranks.iter().map(|rank| rank.and_then(NonZeroUsize::new));
    FirstStage::Ranks(ranks.collect())
}

fn weighted(weight: f32) -> Fusion {
    Fusion::new(FusionMethod::Weighted, Some(weight), None).unwrap()
}

fn rrf(weight: f32, k: f32) -> Fusion {
    Fusion::new(FusionMethod::Rrf, Some(weight), Some(k)).unwrap()
}

fn values(fused: &[RawScore]) -> Vec<f32> {
    fused.iter().map(|score| score.get()).collect()
}

#[test]
fn a_weighted_sum_is_of_scores_between_0_and_1() {
    let model = raw(&[-4.0, 4.0, 0.0, 2.0]);
    let first = scores(&[Some(30.0), Some(10.0), Some(20.0), None]);
    let fused = fuse(&model, &first, weighted(0.25));
    assert_eq!(values(&fused), [0.25, 0.75, 0.5, 0.5625]);
    // Documents that the evidence is too short for count as not given.
    let short = scores(&[Some(30.0), Some(10.0), Some(20.0)]);
    assert_eq!(fuse(&model, &short, weighted(0.25)), fused);
}

#[test]
fn a_stage_whose_scores_are_all_equal_leaves_the_order_to_the_other() {
    let (equal, other) = ([7.0; 3], [1.0, 3.0, 2.0]);
    for fusion in [weighted(0.5), rrf(0.5, 60.0)] {
        let by_model = fuse(&raw(&other), &scores(&equal.map(Some)), fusion);
        let by_first = fuse(&raw(&equal), &scores(&other.map(Some)), fusion);
        assert_eq!(by_model, by_first);
        assert!(by_model[1] > by_model[2] && by_model[2] > by_model[0]);
        // What the first stage gave is above what it did not.
        let one = fuse(&raw(&equal), &scores(&[None, Some(7.0), None]), fusion);
        assert!(one[1] > one[0] && one[0] == one[2]);
    }
}

#[test]
fn reciprocal_ranks_are_summed_by_share_and_equal_scores_rank_alike() {
    let model = raw(&[5.0, 9.0, 5.0, 1.0]);
    let first = scores(&[None, Some(1.0), Some(2.0), Some(2.0)]);
    let share = |model: f64, first: f64| (0.6 / (60.0 + model) + 0.4 / (60.0 + first)) as f32;
    let fused = fuse(&model, &first, rrf(0.4, 60.0));
    let expected = [
        (0.6 / 62.0) as f32,
        share(1.0, 3.0),
        share(2.0, 1.0),
        share(4.0, 1.0),
    ];
    for (fused, expected) in values(&fused).iter().zip(expected) {
        assert!((fused - expected).abs() < 1e-9, "{fused} {expected}");
    }
    let given = places(&[None, Some(3), Some(1), Some(1)]);
    assert_eq!(fuse(&model, &given, rrf(0.4, 60.0)), fused);
}

#[test]
fn several_lists_are_combined_with_equal_weights() {
    let lists = [raw(&[3.0, 1.0, 2.0]), raw(&[1.0, 2.0, 2.0])];
    let k = RrfK::new(1.0).unwrap();
    let expected = [
        1.0 / 2.0 + 1.0 / 4.0,
        1.0 / 4.0 + 1.0 / 2.0,
        1.0 / 3.0 + 1.0 / 2.0,
    ];
    assert_eq!(
        values(&combine_ranks(&lists, k)),
        expected.map(|v: f64| v as f32)
    );
    assert!(combine_ranks(&[], k).is_empty());
}

#[test]
fn a_fusion_is_read_with_its_defaults_and_checked() {
    let read = |text: &str| serde_json::from_str::<Fusion>(text).map_err(|e| e.to_string());
    let fusion = |method, weight, k| Fusion::new(method, Some(weight), Some(k)).unwrap();
    use FusionMethod::{Rrf, Weighted};
    for (text, expected) in [
        (r#"{"method": "rrf"}"#, fusion(Rrf, 0.5, 60.0)),
        (
            r#"{"method": "weighted", "k": null}"#,
            fusion(Weighted, 0.2, 60.0),
        ),
        (
            r#"{"method": "rrf", "weight": 1, "k": 20}"#,
            fusion(Rrf, 1.0, 20.0),
        ),
    ] {
        assert_eq!(read(text), Ok(expected));
    }
    for (text, words) in [
        ("{}", "missing field `method`"),
        (r#"{"method": "sum"}"#, "expected `rrf` or `weighted`"),
        (
            r#"{"method": "rrf", "weight": 1.5}"#,
            "weight, the first stage's share, must be from 0 to 1, but is 1.5",
        ),
        (r#"{"method": "weighted", "weight": -0.1}"#, "but is -0.1"),
        (r#"{"method": "weighted", "weight": 1e99}"#, "but is inf"),
        (
            r#"{"method": "rrf", "k": 0}"#,
            "k must be more than 0 and at most 1000000, but is 0",
        ),
        (r#"{"method": "rrf", "k": -1}"#, "but is -1"),
        (r#"{"method": "rrf", "k": 1e9}"#, "but is 1000000000"),
    ] {
        let told = read(text).unwrap_err();
        assert!(told.contains(words), "{told}");
    }
    assert!(Fusion::new(Rrf, Some(f32::NAN), None).is_err());
    assert!(Fusion::new(Rrf, None, Some(f32::NAN)).is_err());
}

/// Scores with steps that 32 bits hold exactly, so that a shifted or scaled list is the same list.
fn step() -> impl Strategy<Value = f32> {
    (-1000i16..1000).prop_map(|v| f32::from(v) / 8.0)
}

/// As many scores of a model as of a first stage.
fn stages() -> impl Strategy<Value = (Vec<f32>, Vec<Option<f32>>)> {
    let pair = (step(), prop::option::weighted(0.8, step()));
    prop::collection::vec(pair, 1..60).prop_map(|pairs| pairs.into_iter().unzip())
}

fn method() -> impl Strategy<Value = FusionMethod> {
    prop_oneof![Just(FusionMethod::Rrf), Just(FusionMethod::Weighted)]
}

fn fusion() -> impl Strategy<Value = Fusion> {
    let k = prop_oneof![Just(60.0f32), f32::MIN_POSITIVE..MAX_RRF_K];
    (method(), 0.0f32..=1.0, k)
        .prop_map(|(method, weight, k)| Fusion::new(method, Some(weight), Some(k)).unwrap())
}

proptest! {
    #[test]
    fn shifts_and_positive_factors_change_nothing(
        (model, first) in stages(), fusion in fusion(), shift in -100i8..100, power in -6i32..6,
    ) {
        let moved = |v: f32| (v + f32::from(shift)) * 2f32.powi(power);
        let plain = fuse(&raw(&model), &scores(&first), fusion);
        let moved_model: Vec<f32> = model.iter().map(|&v| moved(v)).collect();
        let moved_first: Vec<Option<f32>> = first.iter().map(|v| v.map(moved)).collect();
        prop_assert_eq!(fuse(&raw(&moved_model), &scores(&first), fusion), plain.clone());
        prop_assert_eq!(fuse(&raw(&model), &scores(&moved_first), fusion), plain);
    }

    #[test]
    fn a_stage_with_the_whole_weight_gives_the_order((model, first) in stages(), method in method()) {
        let fused = |weight| {
            let fusion = Fusion::new(method, Some(weight), None).unwrap();
            fuse(&raw(&model), &scores(&first), fusion)
        };
        let (by_model, by_first) = (fused(0.0), fused(1.0));
        for a in 0..model.len() {
            for b in 0..model.len() {
                prop_assert_eq!(Some(by_model[a].cmp(&by_model[b])), model[a].partial_cmp(&model[b]));
                match (first[a], first[b]) {
                    (Some(x), Some(y)) => {
                        prop_assert_eq!(Some(by_first[a].cmp(&by_first[b])), x.partial_cmp(&y));
                    }
                    (Some(_), None) => prop_assert!(by_first[a] >= by_first[b]),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn ranks_alone_give_their_order(
        ranks in prop::collection::vec(prop::option::weighted(0.8, 1usize..2000), 1..60),
        method in method(),
    ) {
        let fusion = Fusion::new(method, Some(1.0), None).unwrap();
        let fused = fuse(&raw(&vec![0.0; ranks.len()]), &places(&ranks), fusion);
        for (a, x) in ranks.iter().enumerate() {
            for (b, y) in ranks.iter().enumerate() {
                match (x, y) {
                    (Some(x), Some(y)) => prop_assert_eq!(fused[a].cmp(&fused[b]), y.cmp(x)),
                    (Some(_), None) => prop_assert!(fused[a] >= fused[b]),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_documents_order_makes_no_difference(
        (documents, shuffled) in stages().prop_flat_map(|(model, first)| {
            let documents: Vec<(f32, Option<f32>)> = model.into_iter().zip(first).collect();
            let numbered: Vec<usize> = (0..documents.len()).collect();
            (Just(documents), Just(numbered).prop_shuffle())
        }),
        fusion in fusion(),
    ) {
        let of = |documents: &[(f32, Option<f32>)]| {
            let (model, first): (Vec<f32>, Vec<Option<f32>>) = documents.iter().copied().unzip();
            let lists = [raw(&model), fuse(&raw(&model), &scores(&first), fusion)];
            (lists[1].clone(), combine_ranks(&lists, fusion.k()))
        };
        let (fused, combined) = of(&documents);
        let moved: Vec<(f32, Option<f32>)> = shuffled.iter().map(|&i| documents[i]).collect();
        let (moved_fused, moved_combined) = of(&moved);
        for (place, &i) in shuffled.iter().enumerate() {
            prop_assert_eq!(moved_fused[place], fused[i]);
            prop_assert_eq!(moved_combined[place], combined[i]);
        }
    }

    #[test]
    fn fused_scores_are_finite_and_as_many_as_the_documents(
        model in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL, 0..40),
        first in prop::collection::vec(prop::option::of(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL), 0..40),
        ranks in prop::collection::vec(prop::option::of(1usize..), 0..40),
        fusion in fusion(),
    ) {
        for first in [scores(&first), places(&ranks)] {
            let fused = fuse(&raw(&model), &first, fusion);
            prop_assert_eq!(fused.len(), model.len());
            // `fuse` would fall back on the model's own scores, which are seldom from 0 to 1.
            let highest = match fusion.method() {
                FusionMethod::Weighted => 1.0,
                FusionMethod::Rrf => 1.0 / (1.0 + fusion.k().get()),
            };
            for score in values(&fused) {
                prop_assert!((0.0..=highest * 1.0001).contains(&score), "{}", score);
            }
        }
    }
}
