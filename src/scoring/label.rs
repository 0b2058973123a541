//! Which of a classifier's labels documents are ranked by, and its score.

use crate::types::{Output, RawScore};

/// Why it is not known which label to rank by.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// There are several, and none is asked for.
    #[error(
        "the classifier has {} labels ({}); say which one's score to rank by with --score-label {} (model.score_label)",
        labels.len(), listed(labels), likely(labels)
    )]
    NotSaid {
        /// All labels, in their order.
        labels: Vec<String>,
    },
    /// None has that name or number.
    #[error(
        "model.score_label is \"{asked}\", but the classifier's {} {}; name it, or give its number (counted from 0)",
        if labels.len() == 1 { "one label is" } else { "labels are" }, listed(labels)
    )]
    Unknown {
        /// What was asked for.
        asked: String,
        /// All labels, in their order.
        labels: Vec<String>,
    },
    /// Several have that name.
    #[error(
        "model.score_label is \"{asked}\", which is the name of labels {} of the classifier; give one's number instead",
        numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" and ")
    )]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Those that have it.
        numbers: Vec<usize>,
    },
}

/// Labels that a message names; a classifier of topics may have hundreds.
const MOST_LISTED: usize = 12;

fn listed(labels: &[String]) -> String {
    let named = labels[..labels.len().min(MOST_LISTED)].join(", ");
    match labels.len().saturating_sub(MOST_LISTED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// A label to show in an example: one whose name says that the document fits, else the last one, which is
/// "relevant" or "yes" where there are two without names.
fn likely(labels: &[String]) -> &str {
    let fits = |label: &&String| {
        ["entailment", "relevant", "yes", "true", "positive"].contains(&&*label.to_lowercase())
    };
    let label = labels.iter().find(fits).or(labels.last());
    label.map_or("0", String::as_str)
}

/// The number of the label that `asked` names: by its name, in another case if that names only one, or by its
/// number. Nothing asked is the only label.
///
/// # Errors
/// See [`LabelError`].
pub fn find_label(labels: &[String], asked: &str) -> Result<usize, LabelError> {
    if asked.is_empty() {
        return match labels {
            [_] => Ok(0),
            _ => Err(LabelError::NotSaid {
                labels: labels.to_vec(),
            }),
        };
    }
    let named = |is: &dyn Fn(&str) -> bool| {
        let named = labels.iter().enumerate().filter(|(_, label)| is(label));
        named.map(|(number, _)| number).collect::<Vec<usize>>()
    };
    let mut found = named(&|label| label == asked);
    if found.is_empty() {
        found = named(&|label| label.to_lowercase() == asked.to_lowercase());
    }
    match (&found[..], asked.parse::<usize>()) {
        (&[number], _) => Ok(number),
        (&[], Ok(number)) if number < labels.len() => Ok(number),
        (&[], _) => Err(LabelError::Unknown {
            asked: asked.to_owned(),
            labels: labels.to_vec(),
        }),
        _ => Err(LabelError::Ambiguous {
            asked: asked.to_owned(),
            numbers: found,
        }),
    }
}

/// A label's score, from the logits of all, `[labels]`: of the only label its logit, of several the log-odds
/// `logit - ln(sum of exp(the others))`, the sigmoid of which is the label's softmax. `None` if it is not finite.
pub(super) fn score(output: &Output, label: usize) -> Option<RawScore> {
    let logits = output.values();
    let own = *logits.get(label)?;
    if logits.len() == 1 {
        return RawScore::new(own);
    }
    let others = logits.iter().enumerate().filter(|(i, _)| *i != label);
    let others = others.map(|(_, &logit)| f64::from(logit));
    let most = others.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = others.map(|logit| (logit - most).exp()).sum();
    RawScore::new((f64::from(own) - most - sum.ln()) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Activation;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_label_has_a_name_and_a_number() {
        let nli = labels(&["contradiction", "entailment", "neutral"]);
        for (asked, number) in [("entailment", 1), ("Neutral", 2), ("0", 0), ("2", 2)] {
            assert_eq!(find_label(&nli, asked).ok(), Some(number), "{asked}");
        }
        // A name that is a number is a name first.
        assert_eq!(find_label(&labels(&["1", "0"]), "0").ok(), Some(1));
        assert_eq!(find_label(&labels(&["A", "a"]), "a").ok(), Some(1));
        assert_eq!(find_label(&labels(&["x"]), "").ok(), Some(0));
        assert_eq!(find_label(&labels(&["x"]), "X").ok(), Some(0));
    }

    #[test]
    fn errors_name_the_labels_and_the_setting() {
        let error = |names: &[&str], asked: &str| find_label(&labels(names), asked).unwrap_err();
        let nli = ["contradiction", "entailment", "neutral"];
        assert_eq!(
            error(&nli, "").to_string(),
            "the classifier has 3 labels (contradiction, entailment, neutral); say which one's score to rank by \
             with --score-label entailment (model.score_label)"
        );
        let topics: Vec<String> = (0..300).map(|i| format!("topic {i}")).collect();
        let many = find_label(&topics, "").unwrap_err().to_string();
        assert!(many.contains("topic 11 and 288 more)"), "{many}");
        let two = error(&["LABEL_0", "LABEL_1"], "").to_string();
        assert!(two.contains("--score-label LABEL_1"), "{two}");
        for asked in ["entails", "3", "-1"] {
            let error = error(&nli, asked).to_string();
            let says = format!(
                "model.score_label is \"{asked}\", but the classifier's labels are contradiction, entailment, neutral"
            );
            assert!(error.starts_with(&says), "{error}");
        }
        let one = error(&["LABEL_0"], "relevant").to_string();
        assert!(
            one.contains("the classifier's one label is LABEL_0"),
            "{one}"
        );
        let same = error(&["Yes", "no", "YES"], "yes").to_string();
        assert!(same.contains("labels 0 and 2"), "{same}");
        assert!(matches!(
            error(&["a", "a"], "a"),
            LabelError::Ambiguous { .. }
        ));
    }

    #[test]
    fn the_sigmoid_of_a_score_is_the_softmax() {
        for logits in [
            &[0.5_f32, -1.25, 3.0][..],
            &[-2.0, 7.0],
            &[90.0, -30.0, 88.0],
        ] {
            let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            for (i, &logit) in logits.iter().enumerate() {
                let raw = score(&Output::logits(logits), i).unwrap();
                let found = f64::from(Activation::Sigmoid.apply(raw).get());
                let expected = f64::from(logit).exp() / sum;
                assert!((found - expected).abs() < 1e-6, "{logits:?} {i}");
            }
        }
        let one = score(&Output::logits(&[-4.5]), 0).unwrap();
        assert_eq!(one.get(), -4.5);
        let large = score(&Output::logits(&[f32::MAX, f32::MAX / 2.0]), 0).unwrap();
        assert_eq!(large.get(), f32::MAX / 2.0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for logits in [[bad, 0.0, 1.0], [0.0, bad, bad], [bad, bad, bad]] {
                // One of several others that is certainly wrong makes no difference.
                let Some(raw) = score(&Output::logits(&logits), 1) else {
                    continue;
                };
                assert!(bad == f32::NEG_INFINITY && logits[1] == 0.0, "{raw:?}");
            }
        }
    }
}
