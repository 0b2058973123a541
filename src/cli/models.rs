//! `rerankd models`: which models it runs.

use clap::Args;
use serde_json::json;

use crate::engine::{self, FamilyInfo};

use super::output;

/// What is true of all families.
const INTRODUCTION: &str = "\
Families of models that rerankd runs. config.json's model_type says which one a model is of, and where
families share a type, the code that it names (auto_map). The head is the family's own classifier, or modules of
sentence-transformers (Pooling, Dense, LayerNorm). \"verified\" is what outputs are compared with, by the tests, on
tiny models of the family.";

/// How tokenizers are read.
const TOKENIZERS: [&str; 6] = [
    "tokenizer.json, of any kind; those of the families are built as transformers builds them",
    "vocab.txt (WordPiece)",
    "vocab.json with merges.txt (byte pairs)",
    "sentencepiece.bpe.model (XLM-RoBERTa, CamemBERT)",
    "spm.model (DeBERTa-v2)",
    "spiece.model (ALBERT, T5)",
];

#[derive(Debug, Args)]
#[command(
    after_help = "A model is served with `rerankd --model ID`, where ID is one of the examples, another model \
    of the family on the hub, or a folder with its files; `rerankd --model ID --check-config` says whether it would \
    run. A classifier with several labels needs --score-label too. docs/models.md says more of each family.\n\n\
    Examples:\n  rerankd models\n  rerankd models --json | jq -r '.families[].examples[]'"
)]
pub(super) struct ModelsArgs {
    /// Print the same as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ModelsArgs) -> anyhow::Result<()> {
    let text = match args.json {
        true => as_json()?,
        false => as_text(),
    };
    Ok(output::print(&text)?)
}

/// A heading for each family, and its facts below.
fn as_text() -> String {
    let mut lines = vec![INTRODUCTION.to_owned()];
    for family in engine::families() {
        lines.push(format!("\n{}", family.name));
        lines.push(row("model_type", &family.model_types.join(", ")));
        if !family.code.is_empty() {
            lines.push(row("code", &family.code.join(", ")));
        }
        for (i, example) in family.examples.iter().enumerate() {
            lines.push(row(if i == 0 { "examples" } else { "" }, example));
        }
        lines.push(row("verified", family.verified));
    }
    lines.push("\nTokenizers".to_owned());
    lines.extend(TOKENIZERS.map(|tokenizer| format!("  {tokenizer}")));
    lines.join("\n") + "\n"
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<10}  {value}")
}

fn as_json() -> serde_json::Result<String> {
    let family = |family: FamilyInfo| {
        json!({
            "name": family.name,
            "model_types": family.model_types,
            "code": family.code,
            "examples": family.examples,
            "verified": family.verified,
        })
    };
    let families: Vec<_> = engine::families().map(family).collect();
    let all = json!({"families": families, "tokenizers": TOKENIZERS});
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
