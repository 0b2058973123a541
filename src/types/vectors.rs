//! How a model that makes vectors is used: what its files say of texts, vectors and their similarity.

/// How a model's scores come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// It reads query and document together.
    CrossEncoder,
    /// It makes a vector of each token of either; they meet in the score alone (ColBERT).
    LateInteraction,
    /// It makes one vector of either.
    BiEncoder,
    /// It reads the query with all documents, or blocks of them, so that a score depends on the others.
    Listwise,
}

impl ModelKind {
    /// Its name in answers and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CrossEncoder => "cross-encoder",
            Self::LateInteraction => "late interaction",
            Self::BiEncoder => "bi-encoder",
            Self::Listwise => "listwise",
        }
    }
}

/// How a model makes vectors of texts, and scores of vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorRules {
    /// Whether each token has a vector.
    pub late_interaction: bool,
    /// How queries are read.
    pub query: TextRules,
    /// How documents are read.
    pub document: TextRules,
    /// What prompts begin with that is one token if the vocabulary has it, such as `[Q] `.
    pub markers: Vec<String>,
    /// What queries are filled up with.
    pub expansion: Option<Expansion>,
    /// Tokens whose vectors don't count.
    pub skipped_words: Vec<String>,
    /// How alike two texts' vectors are.
    pub similarity: Similarity,
}

/// How one side's texts are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextRules {
    /// What stands before each.
    pub prompt: String,
    /// Most tokens, special tokens included; the model's if there is no limit.
    pub max_tokens: Option<usize>,
    /// Whether the skipped words are skipped in them.
    pub skips_words: bool,
}

/// A query's further tokens, which have vectors too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The token; the mask token, or else the one at a text's end, if it is not named.
    pub token: Option<String>,
    /// A query has at least so many tokens, special tokens included.
    pub length: usize,
    /// Whether it has no more either.
    pub is_fixed: bool,
    /// Whether a query's own tokens see them, and they each other.
    pub is_seen: bool,
}

/// How alike two texts' vectors are: the sum, over the query's, of the greatest product with one of the document's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Similarity {
    /// Whether vectors get length 1 as the model makes them.
    pub normalises: bool,
    /// How many values of each count (Matryoshka); all if it is not said.
    pub dimensions: Option<usize>,
    /// Whether they get length 1 then: cosine.
    pub is_cosine: bool,
    /// Whether it is the mean, not the sum, over the query's vectors.
    pub is_mean: bool,
}

/// What documents' vectors are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorDtype {
    /// Exact.
    F32,
    /// Half the memory.
    F16,
    /// A quarter of the memory: integers, with a factor for each vector.
    Int8,
}
