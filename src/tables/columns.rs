//! Which columns hold the texts, and which get the scores.

/// What a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A query and a document.
    Pair,
    /// A query and a list of documents.
    List,
}

/// The columns that the user names.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The query's.
    pub query: String,
    /// The document's or the documents'; `document`, else `documents` if `None`.
    pub document: Option<String>,
    /// The text's in a document that is an object.
    pub text: String,
    /// The scores'; `score` or `scores` if `None`.
    pub score: Option<String>,
    /// The order's, if it is wanted.
    pub order: Option<String>,
}

/// The columns of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// What a row holds.
    pub layout: Layout,
    /// The query's.
    pub query: String,
    /// The document's or the documents'.
    pub document: String,
    /// The text's in a document that is an object.
    pub text: String,
    /// The scores'.
    pub score: String,
    /// The order's, if it is wanted.
    pub order: Option<String>,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holds {
    Texts,
    Lists,
    /// Objects, alone or in lists, that have these fields, none of which is the text.
    #[cfg(feature = "columnar")]
    Objects(Vec<String>),
    Other(String),
}

fn listed(names: &[String]) -> String {
    let listed: Vec<String> = names.iter().take(20).map(|n| format!("\"{n}\"")).collect();
    match listed.is_empty() {
        true => "none".to_owned(),
        false => listed.join(", "),
    }
}

impl Wanted {
    /// The columns where no row tells which there are.
    pub(super) fn of_no_rows(&self) -> Columns {
        let is_list = self.order.is_some() || self.document.as_deref() == Some("documents");
        let (layout, document, score) = match is_list {
            true => (Layout::List, "documents", "scores"),
            false => (Layout::Pair, "document", "score"),
        };
        Columns {
            layout,
            query: self.query.clone(),
            document: self.document.clone().unwrap_or_else(|| document.into()),
            text: self.text.clone(),
            score: self.score.clone().unwrap_or_else(|| score.into()),
            order: self.order.clone(),
        }
    }

    /// The columns in a file that has `names`, of which `holds` tells more.
    pub(super) fn among(
        &self,
        names: &[String],
        holds: impl Fn(&str) -> Holds,
    ) -> Result<Columns, String> {
        let has = |name: &str| names.iter().any(|n| n == name);
        let missing = |name: &str, flag: &str| {
            let listed = listed(names);
            format!("there is no column \"{name}\" (there is {listed}); {flag} names another")
        };
        let document = match &self.document {
            Some(name) => name.as_str(),
            None if !has("document") && has("documents") => "documents",
            None => "document",
        };
        for (name, flag) in [
            (self.query.as_str(), "--query-column"),
            (document, "--document-column"),
        ] {
            if !has(name) {
                return Err(missing(name, flag));
            }
        }
        let found = match holds(&self.query) {
            Holds::Other(found) => Some(found),
            #[cfg(feature = "columnar")]
            Holds::Objects(_) => Some("objects".into()),
            Holds::Texts | Holds::Lists => None,
        };
        if let Some(found) = found {
            return Err(format!(
                "the column \"{}\" must hold texts, but it holds {found}",
                self.query
            ));
        }
        let layout = match holds(document) {
            Holds::Texts => Layout::Pair,
            Holds::Lists => Layout::List,
            #[cfg(feature = "columnar")]
            Holds::Objects(fields) => {
                return Err(format!(
                    "the column \"{document}\" holds objects without a text \"{}\" (there is {}); --text-field names \
                     the field with the text",
                    self.text,
                    listed(&fields)
                ));
            }
            Holds::Other(found) => {
                return Err(format!(
                    "the column \"{document}\" must hold texts, objects with a text, or lists of either, but it holds \
                     {found}"
                ));
            }
        };
        let score = match layout {
            Layout::Pair => "score",
            Layout::List => "scores",
        };
        let score = self.score.as_deref().unwrap_or(score);
        if layout == Layout::Pair && self.order.is_some() {
            return Err(format!(
                "--rank needs a list of documents in each row, but \"{document}\" is one document"
            ));
        }
        for (name, flag) in [
            (Some(score), "--score-column"),
            (self.order.as_deref(), "--order-column"),
        ] {
            if let Some(name) = name.filter(|name| has(name)) {
                return Err(format!(
                    "there is a column \"{name}\" already; {flag} names another"
                ));
            }
        }
        if self.order.as_deref() == Some(score) {
            return Err(format!(
                "scores and order can't both be written to \"{score}\"; --order-column names another"
            ));
        }
        Ok(Columns {
            layout,
            query: self.query.clone(),
            document: document.to_owned(),
            text: self.text.clone(),
            score: score.to_owned(),
            order: self.order.clone(),
        })
    }
}
