"""llama.cpp as a reranker, through the C interface that llama-cpp-python wraps."""

import ctypes
import math


def llama_cpp(file, threads, longest, pooled):
    """A function from query, documents and batch size to logits, for what to_gguf.py wrote.

    Pooled, it ranks as llama.cpp's server does: the graph computes the whole vocabulary at every token, besides the
    classifier. Else only the last token's logits are asked for.
    """
    import llama_cpp as lib

    say_errors = lib.llama_log_callback(quiet)
    lib.llama_log_set(say_errors, ctypes.c_void_p(0))
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(str(file).encode(), lib.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp can't load {file}")
    vocabulary = lib.llama_model_get_vocab(model)
    template = lib.llama_model_chat_template(model, b"rerank").decode()
    # Of f32 weights, f32 keys and values, so that the scores can be held to the others'.
    exact = "f32" in file.name
    contexts = {}

    def tokenise(text):
        encoded = text.encode()
        room = (lib.llama_token * (len(encoded) + 1))()
        count = lib.llama_tokenize(vocabulary, encoded, len(encoded), room, len(room), False, True)
        return room[:count]

    yes, no = tokenise("yes")[0], tokenise("no")[0]

    def context(sequences):
        if sequences not in contexts:
            parameters = lib.llama_context_default_params()
            parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = sequences * longest
            parameters.n_seq_max = sequences
            parameters.n_threads = parameters.n_threads_batch = threads
            parameters.embeddings = pooled
            parameters.pooling_type = lib.LLAMA_POOLING_TYPE_RANK if pooled else lib.LLAMA_POOLING_TYPE_NONE
            # Sequences that share nothing: each attends to its own part of the cache only.
            parameters.kv_unified = False
            if not pooled:
                parameters.n_outputs_max = sequences
            if exact:
                parameters.type_k = parameters.type_v = lib.GGML_TYPE_F32
                # Its flash attention is off by 1e-3.
                parameters.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
            contexts[sequences] = lib.llama_init_from_model(model, parameters)
        return contexts[sequences]

    def decode(prompts, sequences):
        running = context(sequences)
        lib.llama_memory_clear(lib.llama_get_memory(running), False)
        batch = lib.llama_batch_init(sum(map(len, prompts)), 0, 1)
        lasts = []
        for sequence, prompt in enumerate(prompts):
            for position, token in enumerate(prompt):
                place = batch.n_tokens
                batch.token[place], batch.pos[place] = token, position
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
                batch.logits[place] = pooled or position == len(prompt) - 1
                batch.n_tokens += 1
            lasts.append(batch.n_tokens - 1)
        status = lib.llama_decode(running, batch)
        lib.llama_batch_free(batch)
        if status != 0:
            raise SystemExit(f"llama_decode gave {status}")
        if pooled:
            # The probabilities of yes and no.
            found = [lib.llama_get_embeddings_seq(running, sequence) for sequence in range(len(prompts))]
            return [math.log(pair[0] / pair[1]) for pair in found]
        rows = [lib.llama_get_logits_ith(running, last) for last in lasts]
        return [row[yes] - row[no] for row in rows]

    def score(query, documents, batch):
        before, after = template.replace("{query}", query).split("{document}")
        prompts = [tokenise(before + document + after) for document in documents]
        assert max(map(len, prompts)) <= longest, "a pair is too long"
        logits = []
        for start in range(0, len(prompts), batch):
            logits += decode(prompts[start : start + batch], batch)
        return logits

    # llama.cpp calls it as long as it runs, which Python does not see.
    score.say_errors = say_errors
    return score


def quiet(level, text, _):
    # From 4 on they are errors; 5 continues a line.
    if level == 4:
        print(text.decode(), end="", flush=True)
