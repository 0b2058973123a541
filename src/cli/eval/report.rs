//! What an evaluation found: printed, and written.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::files::Files;
use super::fusion::Fused;
use super::{BEST, CANDIDATES, EvalArgs, Ranked, output};
use crate::eval::{
    self, Collection, Curve, MEASURES, Measures, Run, best_reachable, interval, measure, ndcg,
    randomisation_test, ranking,
};

/// A system's name and its measures of each query, in the collection's order.
type Row = (String, Vec<Measures>);

fn column(measures: &[Measures], i: usize) -> Vec<f64> {
    measures.iter().map(|m| m[i]).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

pub(super) fn report(
    args: &EvalArgs,
    collection: &Collection,
    ranked: &[Ranked],
    fused: &[Fused],
    files: &Files,
) -> Result<()> {
    let rows = rows(collection, ranked, fused);
    let mut text = format!(
        "{}: {} queries of {}, up to {} candidates each, from {}\n\n",
        collection.name,
        collection.queries.len(),
        collection.qrels.display(),
        args.depth,
        collection.candidates_from,
    );
    let head = MEASURES.map(|name| format!("  {name:<22}")).concat();
    let longest = rows.iter().map(|(name, _)| name.chars().count()).max();
    let width = longest.unwrap_or(0).max(24);
    writeln!(text, "{:<width$}{head}", "")?;
    let mut table = Vec::new();
    for (name, measures) in &rows {
        write!(text, "{name:<width$}")?;
        let mut written = serde_json::Map::new();
        for (i, measure) in MEASURES.into_iter().enumerate() {
            let values = column(measures, i);
            let (mean, (low, high)) = (mean(&values), interval(&values));
            write!(text, "  {mean:.4} [{low:.4}, {high:.4}]")?;
            written.insert(
                measure.into(),
                json!({"mean": mean, "interval": [low, high]}),
            );
        }
        text.push('\n');
        let model = ranked
            .iter()
            .find(|r| r.name == *name)
            .and_then(|r| r.model.as_ref());
        let fusion = fused.iter().find(|f| f.name == *name);
        let fusion = fusion.map(|f| json!({"of": ranked[f.of].name, "how": f.how}));
        table.push(json!({"name": name, "measures": written, "model": model, "fusion": fusion}));
    }
    text.push('\n');
    for r in ranked {
        if let Some(model) = &r.model {
            text.push_str(&how(&r.name, model));
        }
    }
    let comparisons = compare(&rows, ranked.len(), fused, &mut text)?;
    write_per_query(collection, &rows, files)?;
    let curves: Vec<Curve> = ranked
        .iter()
        .map(|r| curve(collection, r, args.depth))
        .collect();
    eval::depth_plot(&files.plot(), &collection.name, &curves)?;
    let curves = curves
        .iter()
        .map(|c| json!({"name": c.name, "points": c.points}));
    let written = json!({
        "rerankd": env!("CARGO_PKG_VERSION"),
        "date": OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?,
        "machine": {
            "cpu": cpu(),
            "architecture": std::env::consts::ARCH,
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
        },
        "collection": {
            "name": collection.name,
            "folder": args.data,
            "qrels": collection.qrels,
            "candidates": collection.candidates_from,
            "documents": collection.corpus_size,
            "judged_queries": collection.judgements.len(),
            "judgements": collection.judgements.values().map(|judged| judged.len()).sum::<usize>(),
        },
        "queries": collection.queries.len(),
        "depth": args.depth,
        "warnings": collection.warnings,
        "rows": table,
        "comparisons": comparisons,
        "depth_curves": curves.collect::<Vec<_>>(),
    });
    let path = files.measures();
    std::fs::write(&path, serde_json::to_string_pretty(&written)? + "\n")
        .with_context(|| format!("can't write {}", path.display()))?;
    writeln!(text, "\nwritten to {}", files.folder().display())?;
    // Last, so that the files are there whoever reads this.
    Ok(output::print(&text)?)
}

/// The candidates' own order, what is evaluated, what it is joined to, and the best order there can be.
fn rows(collection: &Collection, ranked: &[Ranked], fused: &[Fused]) -> Vec<Row> {
    let judged = |query: &eval::Query| &collection.judgements[&query.id];
    let queries = || collection.queries.iter();
    let own = queries().map(|q| measure(&ranking(&q.candidates), judged(q)));
    let best = queries().map(|q| {
        let candidates: Vec<&str> = q.candidates.iter().map(|(id, _)| id.as_str()).collect();
        best_reachable(&candidates, judged(q))
    });
    let of_run = |run: &Run| {
        let measures = queries().map(|q| {
            let scored = run.get(&q.id).map_or(&[][..], Vec::as_slice);
            measure(&ranking(scored), judged(q))
        });
        measures.collect()
    };
    let mut rows = vec![(CANDIDATES.to_owned(), own.collect())];
    rows.extend(ranked.iter().map(|r| (r.name.clone(), of_run(&r.run))));
    rows.extend(fused.iter().map(|f| (f.name.clone(), of_run(&f.run))));
    rows.push((BEST.to_owned(), best.collect()));
    rows
}

/// How a model ran, in a line.
fn how(name: &str, model: &Value) -> String {
    let word = |key: &str| match &model[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let seconds = model["seconds_per_query"].as_f64().unwrap_or_default();
    format!(
        "{name}: {}, {} threads, up to {} windows of {} tokens, {} of {} documents cut, {seconds:.3} \
         seconds per query\n",
        word("dtype"),
        word("threads"),
        word("max_chunks_per_doc"),
        word("max_input_tokens"),
        word("truncated_documents"),
        word("pairs"),
    )
}

/// Each system against the candidates' own order, the second against the first, and each fused ranking
/// against the system alone.
fn compare(rows: &[Row], systems: usize, fused: &[Fused], text: &mut String) -> Result<Vec<Value>> {
    let mut pairs: Vec<(usize, usize)> = (1..=systems).map(|i| (i, 0)).collect();
    if systems == 2 {
        pairs.push((2, 1));
    }
    let fused = fused.iter().enumerate();
    pairs.extend(fused.map(|(i, f)| (1 + systems + i, 1 + f.of)));
    let mut comparisons = Vec::new();
    for (a, b) in pairs {
        let values = column(&rows[a].1, 0).into_iter().zip(column(&rows[b].1, 0));
        let differences: Vec<f64> = values.map(|(a, b)| a - b).collect();
        let (difference, p) = (mean(&differences), randomisation_test(&differences));
        let (a, b) = (&rows[a].0, &rows[b].0);
        writeln!(
            text,
            "{a} against {b}: nDCG@10 {difference:+.4}, p = {p:.4}"
        )?;
        comparisons.push(
            json!({"a": a, "b": b, "measure": MEASURES[0], "difference": difference, "p": p}),
        );
    }
    Ok(comparisons)
}

fn write_per_query(collection: &Collection, rows: &[Row], files: &Files) -> Result<()> {
    let mut text = format!("query\tsystem\t{}\n", MEASURES.join("\t"));
    for (i, query) in collection.queries.iter().enumerate() {
        for (name, measures) in rows {
            let values = measures[i].map(|value| value.to_string()).join("\t");
            writeln!(text, "{}\t{name}\t{values}", query.id)?;
        }
    }
    let path = files.per_query();
    std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
}

/// The processor's name, where the system tells it.
fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Mean nDCG@10 where only the first candidates are reranked, by how many; the rest stay below them
/// in their own order.
fn curve(collection: &Collection, ranked: &Ranked, deepest: usize) -> Curve {
    let steps = [
        0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000,
    ];
    let mut depths: Vec<usize> = steps.into_iter().filter(|&d| d < deepest).collect();
    depths.push(deepest);
    let points = depths.into_iter().map(|depth| {
        let values = collection.queries.iter().map(|query| {
            let scored = ranked.run.get(&query.id).map_or(&[][..], Vec::as_slice);
            let by_run = ranking(scored);
            let own = ranking(&query.candidates);
            let (top, rest) = own.split_at(depth.min(own.len()));
            let mut order: Vec<&str> = by_run.into_iter().filter(|id| top.contains(id)).collect();
            order.extend(rest);
            ndcg(&order, &collection.judgements[&query.id])
        });
        (depth, mean(&values.collect::<Vec<f64>>()))
    });
    Curve {
        name: ranked.name.clone(),
        points: points.collect(),
    }
}
