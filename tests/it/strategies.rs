//! What a request may say of how it is ranked, whatever dialect it came in.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use rerankd::app::{self, Loaded};
use rerankd::config::Settings;
use rerankd::rank::fusion::{FirstStage, Fusion, FusionMethod};
use rerankd::rerank::{Answer, Ask, Combine, Joined, PairsAsk, Queries, Reranker, Stage};
use rerankd::schedule::Compute;
use rerankd::types::{Caller, RawScore, ScoreKind};

use crate::support::app::settings;
use crate::support::models;

const DOCUMENTS: [&str; 6] = [
    "the river runs to the sea",
    "bread is baked of flour",
    "a cat sleeps by the river",
    "the sea is deep",
    "flour and water make bread",
    "the cat likes the sea and the river",
];

/// Two models in one process, `tiny-bert` first.
struct Two {
    reranker: Reranker,
    _compute: Compute,
}

impl Two {
    fn start(change: impl Fn(&mut Settings)) -> Self {
        let compute = Compute::start().unwrap();
        let mut first = settings(&models::folder("tiny-bert"));
        change(&mut first);
        let reranker = app::reranker(&first);
        for name in ["tiny-bert", "tiny-xlmr"] {
            let mut settings = settings(&models::folder(name));
            change(&mut settings);
            let loaded = Loaded::load(&settings).unwrap();
            let served = loaded.start_on(&compute, &settings);
            reranker.models().add(Arc::new(served));
        }
        Self {
            reranker,
            _compute: compute,
        }
    }

    async fn ask(&self, ask: &Ask) -> Answer {
        self.reranker.rerank(ask, &Caller::local()).await.unwrap()
    }
}

fn documents(texts: &[&str]) -> Arc<[String]> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn ask(query: &str) -> Ask {
    Ask {
        queries: Queries::One(query.into()),
        documents: documents(&DOCUMENTS),
        ..Ask::default()
    }
}

fn stage(model: &str, depth: Option<usize>) -> Stage {
    Stage {
        model: model.into(),
        depth,
    }
}

fn indices(answer: &Answer) -> Vec<usize> {
    answer.ranked.iter().map(|r| r.index).collect()
}

/// Each document's raw score, in the documents' order.
fn raw(answer: &Answer) -> Vec<f32> {
    let mut raw = vec![f32::NAN; answer.ranked.len()];
    for ranked in &answer.ranked {
        raw[ranked.index] = ranked.raw.get();
    }
    raw
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_stands_twice_is_scored_once_and_ranked_twice() {
    let two = Two::start(|_| ());
    let once = two.ask(&ask("the river")).await;
    let twice = Ask {
        documents: documents(&[DOCUMENTS, DOCUMENTS].concat()),
        ..ask("the river")
    };
    let twice = two.ask(&twice).await;
    assert_eq!(twice.cost.tokens, once.cost.tokens);
    assert_eq!(twice.cost.documents, 12);
    let scores = raw(&twice);
    assert_close(&scores[..6], &raw(&once));
    assert_eq!(scores[..6], scores[6..]);
    // With a query for each document, the pair must be the same.
    let pairs = PairsAsk {
        queries: ["river", "sea", "river"].map(Arc::from).into(),
        documents: documents(&["the cat"; 3]),
        ..PairsAsk::default()
    };
    let scored = two.reranker.score(&pairs, &Caller::local()).await.unwrap();
    assert_eq!(scored.raw[0], scored.raw[2]);
    assert_ne!(scored.raw[0], scored.raw[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_answers_what_was_asked_before_and_nothing_else() {
    let two = Two::start(|s| s.cache.scores_mb = 1);
    let first = two.ask(&ask("the river")).await;
    assert!(first.cost.tokens > 0);
    let again = two.ask(&ask("the river")).await;
    assert_eq!(again.cost.tokens, 0);
    assert_eq!(raw(&again), raw(&first));
    let mut longer = ask("the river");
    longer.documents = documents(&[&DOCUMENTS[..], &["a new one"]].concat());
    let longer = two.ask(&longer).await;
    assert!(
        (1..20).contains(&longer.cost.tokens),
        "{}",
        longer.cost.tokens
    );
    assert_eq!(raw(&longer)[..6], raw(&first));
    // Another query, model or fit is another score.
    let mut other = ask("the river");
    other.model = Some("tiny-xlmr".into());
    assert!(two.ask(&other).await.cost.tokens > 0);
    assert!(two.ask(&ask("the sea")).await.cost.tokens > 0);
    let mut cut = ask("the river");
    cut.fit.max_document_tokens = Some(2);
    let cut = two.ask(&cut).await;
    assert!(cut.cost.tokens > 0 && cut.cost.truncated == 6);
    let mut cut = ask("the river");
    cut.fit.max_document_tokens = Some(2);
    let cut = two.ask(&cut).await;
    assert_eq!((cut.cost.tokens, cut.cost.truncated), (0, 6), "told again");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_queries_are_combined_as_asked() {
    let two = Two::start(|_| ());
    let queries = ["the river", "bread", "a cat"];
    let mut each = Vec::new();
    for query in queries {
        each.push(raw(&two.ask(&ask(query)).await));
    }
    let several = |combine| Ask {
        queries: Queries::Several {
            queries: queries.map(str::to_owned).into(),
            combine,
        },
        ..ask("")
    };
    let of = |f: &dyn Fn(Vec<f32>) -> f32| -> Vec<f32> {
        (0..6)
            .map(|d| f(each.iter().map(|e| e[d]).collect()))
            .collect()
    };
    let max = two.ask(&several(Combine::Max)).await;
    assert_close(&raw(&max), &of(&|s| s.into_iter().fold(f32::MIN, f32::max)));
    assert_eq!(max.score_kind, ScoreKind::Probability);
    let mean = two.ask(&several(Combine::Mean)).await;
    assert_close(&raw(&mean), &of(&|s| s.iter().sum::<f32>() / 3.0));
    let rrf = two.ask(&several(Combine::Rrf)).await;
    assert_eq!(rrf.score_kind, ScoreKind::Fused);
    let rank =
        |query: usize, d: usize| 1 + each[query].iter().filter(|&&s| s > each[query][d]).count();
    let expected: Vec<f32> = (0..6)
        .map(|d| (0..3).map(|q| 1.0 / (60.0 + rank(q, d) as f32)).sum())
        .collect();
    let order = |scores: &[f32]| {
        let mut order: Vec<usize> = (0..6).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order
    };
    assert_eq!(indices(&rrf), order(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_ranks_the_best_of_a_stage_by_the_next() {
    let two = Two::start(|_| ());
    let first = two.ask(&ask("the river")).await;
    let mut second = ask("the river");
    second.model = Some("tiny-xlmr".into());
    let second = two.ask(&second).await;
    let cascade = Ask {
        cascade: vec![stage("tiny-bert", Some(2)), stage("tiny-xlmr", None)],
        ..ask("the river")
    };
    let found = two.ask(&cascade).await;
    let best = &indices(&first)[..2];
    let mut expected: Vec<usize> = indices(&second);
    expected.retain(|index| best.contains(index));
    expected.extend(&indices(&first)[2..]);
    assert_eq!(indices(&found), expected);
    let stages: Vec<usize> = found.ranked.iter().map(|r| r.stage).collect();
    assert_eq!(stages, [1, 1, 0, 0, 0, 0]);
    let counts: Vec<_> = found
        .stages
        .iter()
        .map(|s| (s.model.name.as_str(), s.documents))
        .collect();
    assert_eq!(counts, [("tiny-bert", 6), ("tiny-xlmr", 2)]);
    // No time is left for the second.
    let hurried = Ask {
        max_latency: Some(Duration::ZERO),
        ..cascade.clone()
    };
    let hurried = two.ask(&hurried).await;
    assert_eq!(indices(&hurried), indices(&first));
    assert_eq!(hurried.stages[1].documents, 0);
    let patient = Ask {
        max_latency: Some(Duration::from_secs(20)),
        ..cascade
    };
    assert_eq!(indices(&two.ask(&patient).await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_stages_scores_are_joined_only_where_it_is_asked() {
    let two = Two::start(|_| ());
    let alone = two.ask(&ask("the river")).await;
    let ranks = (1..=6).map(NonZeroUsize::new).collect();
    let mut fused = Ask {
        first_stage: Some(FirstStage::Ranks(ranks)),
        ..ask("the river")
    };
    assert_eq!(raw(&two.ask(&fused).await), raw(&alone));
    let weighted = Fusion::new(FusionMethod::Weighted, Some(1.0), None);
    fused.fusion = Joined::By(weighted.unwrap());
    let found = two.ask(&fused).await;
    assert_eq!(indices(&found), [0, 1, 2, 3, 4, 5]);
    assert_eq!(found.score_kind, ScoreKind::Fused);
    let shown: Vec<f32> = found.ranked.iter().map(|r| r.score.get()).collect();
    assert_close(&shown, &[1.0, 0.8, 0.6, 0.4, 0.2, 0.0]);
    // Within a cascade, each stage's documents keep their own.
    fused.cascade = vec![stage("tiny-xlmr", Some(3)), stage("tiny-bert", None)];
    let scores = [5.0, 1.0, 4.0, 2.0, 3.0, 0.0].map(RawScore::new);
    fused.first_stage = Some(FirstStage::Scores(scores.into()));
    assert_eq!(indices(&two.ask(&fused).await), [0, 2, 4, 3, 1, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scores_too_little_is_left_out() {
    let two = Two::start(|_| ());
    let all = two.ask(&ask("the river")).await;
    let mut few = ask("the river");
    few.min_score = Some(all.ranked[2].score.get());
    let found = two.ask(&few).await;
    assert_eq!(indices(&found), indices(&all)[..3]);
    few.top_n = Some(1);
    assert_eq!(two.ask(&few).await.ranked.len(), 1);
    few.min_score = Some(2.0);
    assert!(two.ask(&few).await.ranked.is_empty());
    few.min_score = Some(f32::MIN);
    few.raw_scores = true;
    few.top_n = None;
    let raw = two.ask(&few).await;
    assert_eq!((raw.ranked.len(), raw.score_kind), (6, ScoreKind::Logit));
}
