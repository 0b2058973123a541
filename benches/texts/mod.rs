//! Made-up texts for benchmarks, the same at each run: from a seeded generator.

use fastrand::Rng;

const WORDS: &str = "the of and patients study treatment effect result group control after during clinical trial \
    dose response weeks significant measured increase blood pressure high low risk disease therapy outcome cells \
    protein gene expression analysis method data model system time rate flow surface temperature boundary layer";

/// A text of `words` words.
pub(crate) fn text(rng: &mut Rng, words: usize) -> String {
    let vocabulary: Vec<&str> = WORDS.split_whitespace().collect();
    let text: Vec<&str> = (0..words)
        .map(|_| vocabulary[rng.usize(..vocabulary.len())])
        .collect();
    text.join(" ")
}

/// A document of 20 to 200 words.
pub(crate) fn document(rng: &mut Rng) -> String {
    let words = rng.usize(20..=200);
    text(rng, words)
}
