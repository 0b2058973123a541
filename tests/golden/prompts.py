"""The prompts of the decoders: their texts are part of each format, so that any other text gives other scores."""

QWEN3_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
QWEN3_PREFIX = f"<|im_start|>system\n{QWEN3_SYSTEM}<|im_end|>\n<|im_start|>user\n"
QWEN3_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
MXBAI_PREFIX = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each "
    "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
    "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
MXBAI_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
CTXL_TASK = "Check whether a given document contains information helpful to answer the query."
GEMMA_TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing "
    "a prediction of either 'Yes' or 'No'."
)
GEMMA2_TASK = "Predict whether passage B contains an answer to query A."
JINA_SYSTEM = (
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are "
    "to the query. If the query is a question, how relevant a passage is depends on how well it answers the "
    "question. If not, try to analyze the intent of the query and assess how well each passage satisfies the "
    "intent. If an instruction is provided, you should follow the instruction when determining the ranking."
)
JINA_PASSAGES = (
    "I will provide you with {count} passages, each indicated by a numerical identifier. Rank the passages based "
    "on their relevance to query: {query}\n"
)
ALL = [
    QWEN3_SYSTEM, QWEN3_INSTRUCTION, "system\n", "user\n", "assistant\n", "<Instruct>: ", "<Query>: ", "<Document>: ",
    MXBAI_PREFIX.split("\n")[1], MXBAI_TASK, "instruction: ", "query: ", "document: ", CTXL_TASK, "<Document> ",
    "<Query> ", " ??", GEMMA_TASK, GEMMA2_TASK, "A: ", "B: ", JINA_SYSTEM, JINA_PASSAGES, '<passage id="0">\n',
    "</passage>\n", "question: \n \n passage: ", "Query: ", "Document: ", " Relevant:",
]
