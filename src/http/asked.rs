//! What can be asked of the reranker, and what of its answers the headers tell.

use futures_util::future::try_join_all;

use crate::rerank::{Answer, Ask, Cost, PairsAnswer, PairsAsk, RerankError, Reranker};
use crate::types::Terms;

/// What a request becomes.
pub(super) trait Asked: Send + Sync {
    /// What the reranker answers.
    type Answer: Answered + Send;

    /// Asks the reranker.
    fn run(
        &self,
        reranker: &Reranker,
        terms: &Terms,
    ) -> impl Future<Output = Result<Self::Answer, RerankError>> + Send;
}

/// What all answers tell.
pub(super) trait Answered {
    /// What it cost; `None` if nothing was scored.
    fn cost(&self) -> Option<Cost>;

    /// The device of the model that scored.
    fn device(&self) -> &str;

    /// Whether there was an instruction that the model does not take.
    fn instruction_ignored(&self) -> bool {
        false
    }

    /// Whether a first stage's scores were joined with no model's.
    fn first_stage_ignored(&self) -> bool {
        false
    }
}

impl Asked for Ask {
    type Answer = Answer;

    async fn run(&self, reranker: &Reranker, terms: &Terms) -> Result<Answer, RerankError> {
        reranker.rerank(self, terms).await
    }
}

impl Answered for Answer {
    fn cost(&self) -> Option<Cost> {
        Some(self.cost.clone())
    }

    fn device(&self) -> &str {
        &self.model.device
    }

    fn instruction_ignored(&self) -> bool {
        self.instruction_ignored
    }

    fn first_stage_ignored(&self) -> bool {
        self.first_stage_ignored
    }
}

impl Asked for PairsAsk {
    type Answer = PairsAnswer;

    async fn run(&self, reranker: &Reranker, terms: &Terms) -> Result<PairsAnswer, RerankError> {
        reranker.score(self, terms).await
    }
}

impl Answered for PairsAnswer {
    fn cost(&self) -> Option<Cost> {
        Some(self.cost.clone())
    }

    fn device(&self) -> &str {
        &self.model.device
    }
}

/// Several at once, which count as one request: the limit on documents is on their sum.
impl Asked for Vec<PairsAsk> {
    type Answer = Vec<PairsAnswer>;

    async fn run(
        &self,
        reranker: &Reranker,
        terms: &Terms,
    ) -> Result<Vec<PairsAnswer>, RerankError> {
        let documents = self.iter().map(|ask| ask.documents.len()).sum();
        let max = reranker.limits().max_documents;
        if documents > max {
            return Err(RerankError::TooManyDocuments { documents, max });
        }
        try_join_all(self.iter().map(|ask| reranker.score(ask, terms))).await
    }
}

impl Answered for Vec<PairsAnswer> {
    fn cost(&self) -> Option<Cost> {
        self.iter()
            .map(|answer| answer.cost.clone())
            .reduce(Cost::beside)
    }

    fn device(&self) -> &str {
        self.first().map_or("", |answer| answer.device())
    }
}

/// What a dialect knows of a request besides its body.
#[derive(Debug)]
pub(super) struct Context {
    /// The request's id.
    pub(super) id: String,
    /// The model that the path names.
    pub(super) model: Option<String>,
    /// When it came, in seconds since 1970.
    pub(super) time: u64,
}
