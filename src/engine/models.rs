//! One file per model family.

pub(super) mod bert;
pub(super) mod xlm_roberta;
