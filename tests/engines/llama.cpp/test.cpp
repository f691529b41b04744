// Loads models with llama.cpp's own loader and through libpml, and compares what comes out, bit for bit.
//
// Arguments: a folder with models, and a folder with q8_0.gguf, which is llama-dense.gguf converted to Q8_0, and
// large.gguf, a larger model; further files are made there.
#include <fcntl.h>
#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ggml-backend-impl.h"
#include "pml_ggml.h"

namespace {

int passed, failed;
std::string log_text;

void keep_log(ggml_log_level level, const char *text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) log_text += text;
}

void report(const std::string &what, bool is_so, const std::string &detail = "") {
    (is_so ? passed : failed)++;
    std::printf("%s %s%s%s\n", is_so ? "ok    " : "FAILED", what.c_str(), detail.empty() ? "" : ": ", detail.c_str());
    std::fflush(stdout);
}

struct ModelFree {
    void operator()(llama_model *model) const { llama_model_free(model); }
    void operator()(llama_context *context) const { llama_free(context); }
    void operator()(gguf_context *metadata) const { gguf_free(metadata); }
    void operator()(ggml_context *context) const { ggml_free(context); }
    void operator()(pml_ggml_t *weights) const { pml_ggml_free(weights); }
};
template <class T>
using Own = std::unique_ptr<T, ModelFree>;

llama_model_params model_params() {
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    // The hook never repacks weights, and repacked ones give other last bits.
    params.use_extra_bufts = false;
    return params;
}

Own<llama_model> load_theirs(const std::string &path, llama_load_mode mode = LLAMA_LOAD_MODE_AUTO) {
    llama_model_params params = model_params();
    params.load_mode = mode;
    return Own<llama_model>(llama_model_load_from_file(path.c_str(), params));
}

struct Loaded {
    Own<llama_model> model;
    pml_status_t status = PML_STATUS_OK;
    std::string message;
    size_t neutral_count = 0, unused_count = 0;
    std::string unused;
    pml_stats_t stats = PML_STATS_INIT;
};

struct How {
    const pml_options_t *options = nullptr;
    const llama_model_tensor_buft_override *overrides = nullptr;
    // Pieces of so many bytes; 0 where pml_ggml_set_piece is not called.
    size_t piece = 0;
    bool is_described = true;
    // Whether the file does without something that llama.cpp's hook asks for.
    bool lacks_optional = false;
    // What the metadata are of, where they are another model's.
    std::string metadata_path;
    // Called when headers are read and no tensor is.
    std::function<void()> before;
};

Loaded load_ours(const std::string &path, const How &how = How()) {
    Loaded loaded;
    pml_ggml_t *handle = nullptr;
    loaded.status = pml_ggml_open(path.c_str(), how.options, &handle);
    Own<pml_ggml_t> weights(handle);
    if (loaded.status != PML_STATUS_OK) {
        loaded.message = pml_last_error();
        return loaded;
    }
    const std::string &described = how.metadata_path.empty() ? path : how.metadata_path;
    Own<gguf_context> metadata(gguf_init_from_file(described.c_str(), {true, nullptr}));
    if (how.is_described) pml_ggml_describe(handle, metadata.get());
    if (how.piece != 0) pml_ggml_set_piece(handle, how.piece);
    if (how.before) how.before();
    llama_model_params params = model_params();
    params.tensor_buft_overrides = how.overrides;
    loaded.model.reset(llama_model_init_from_user(metadata.get(), pml_ggml_set_tensor, handle, params));
    loaded.status = pml_ggml_status(handle);
    loaded.message = pml_ggml_message(handle);
    loaded.neutral_count = pml_ggml_neutral_count(handle);
    loaded.unused_count = pml_ggml_unused_count(handle);
    if (loaded.unused_count > 0) loaded.unused = pml_ggml_unused(handle, 0);
    pml_loader_stats(pml_ggml_loader(handle), &loaded.stats);
    return loaded;
}

// Token ids, the same in every run.
std::vector<llama_token> tokens_of(int count, uint32_t seed, int vocabulary) {
    std::vector<llama_token> tokens;
    for (int i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        tokens.push_back(static_cast<llama_token>((seed >> 8) % static_cast<uint32_t>(vocabulary)));
    }
    return tokens;
}

void run_tokens(llama_context *context, const std::vector<llama_token> &tokens, int start, bool is_encoder) {
    llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
    for (size_t i = 0; i < tokens.size(); i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = start + static_cast<llama_pos>(i);
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = static_cast<int32_t>(tokens.size());
    int32_t result = is_encoder ? llama_encode(context, batch) : llama_decode(context, batch);
    llama_batch_free(batch);
    if (result != 0) {
        std::fprintf(stderr, "llama.cpp could not compute: %s\n", log_text.c_str());
        std::exit(1);
    }
}

void append(std::vector<float> &out, const float *values, int count) {
    if (values == nullptr) {
        std::fprintf(stderr, "llama.cpp gave no output\n");
        std::exit(1);
    }
    out.insert(out.end(), values, values + count);
}

Own<llama_context> new_context(llama_model *model, bool is_encoder, enum llama_pooling_type pooling) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 256;
    params.n_threads = params.n_threads_batch = 2;
    params.embeddings = is_encoder;
    params.pooling_type = pooling;
    Own<llama_context> context(llama_init_from_model(model, params));
    if (!context) {
        std::fprintf(stderr, "no context: %s\n", log_text.c_str());
        std::exit(1);
    }
    return context;
}

// All that the model says to three sequences: of a decoder the logits of every token, with two more after them; of an
// encoder the embedding of the sequence and those of every token.
std::vector<float> outputs(llama_model *model, bool is_encoder) {
    std::vector<float> out;
    int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    int width = llama_model_n_embd(model);
    for (int length : {2, 11, 64}) {
        std::vector<llama_token> tokens = tokens_of(length, static_cast<uint32_t>(length), vocabulary);
        if (is_encoder) {
            Own<llama_context> pooled = new_context(model, true, LLAMA_POOLING_TYPE_MEAN);
            run_tokens(pooled.get(), tokens, 0, true);
            append(out, llama_get_embeddings_seq(pooled.get(), 0), width);
            Own<llama_context> each = new_context(model, true, LLAMA_POOLING_TYPE_NONE);
            run_tokens(each.get(), tokens, 0, true);
            for (int i = 0; i < length; i++) append(out, llama_get_embeddings_ith(each.get(), i), width);
        } else {
            Own<llama_context> context = new_context(model, false, LLAMA_POOLING_TYPE_UNSPECIFIED);
            run_tokens(context.get(), tokens, 0, false);
            for (int i = 0; i < length; i++) append(out, llama_get_logits_ith(context.get(), i), vocabulary);
            run_tokens(context.get(), tokens_of(2, 7, vocabulary), length, false);
            for (int i = 0; i < 2; i++) append(out, llama_get_logits_ith(context.get(), i), vocabulary);
        }
    }
    return out;
}

// Whether two outputs are the same, bit for bit, and worth comparing: finite, and not all alike.
bool same(const std::vector<float> &theirs, const std::vector<float> &ours, std::string &detail) {
    bool is_finite = std::all_of(theirs.begin(), theirs.end(), [](float value) { return std::isfinite(value); });
    bool is_alike = std::all_of(theirs.begin(), theirs.end(), [&](float value) { return value == theirs[0]; });
    size_t different = 0;
    for (size_t i = 0; i < std::min(theirs.size(), ours.size()); i++)
        different += std::memcmp(&theirs[i], &ours[i], sizeof(float)) != 0;
    detail = std::to_string(theirs.size()) + " numbers, " + std::to_string(different) + " different";
    if (!is_finite || is_alike) detail += ", which say nothing: not finite, or all alike";
    return theirs.size() == ours.size() && !theirs.empty() && different == 0 && is_finite && !is_alike;
}

void compare(const std::string &what, const std::string &their_path, const std::string &our_path, bool is_encoder,
             const How &how = How()) {
    log_text.clear();
    Own<llama_model> theirs = load_theirs(their_path);
    Loaded ours = load_ours(our_path, how);
    if (!theirs || !ours.model || ours.status != PML_STATUS_OK) {
        report(what, false, ours.message + " " + log_text);
        return;
    }
    std::string detail;
    bool is_same = same(outputs(theirs.get(), is_encoder), outputs(ours.model.get(), is_encoder), detail);
    detail += "; " + std::to_string(ours.neutral_count) + " tensors that the file does without";
    if (ours.unused_count > 0) detail += "; not asked for: " + ours.unused;
    report(what, is_same && ours.unused_count == 0 && (!how.lacks_optional || ours.neutral_count > 0), detail);
}

void refuses(const std::string &what, const Loaded &loaded, pml_status_t status, const std::string &part) {
    bool is_so = loaded.status == status && loaded.message.find(part) != std::string::npos;
    report(what, is_so, std::string(pml_status_name(loaded.status)) + ", " + loaded.message);
}

// Memory that is not the host's, until somebody says that it is: what is brought there went through set_tensor.
namespace far {

bool is_host;
size_t calls, parts, most_bytes, bytes;

const char *name(ggml_backend_buffer_type_t) { return "FAR"; }
size_t alignment(ggml_backend_buffer_type_t) { return 64; }
bool says_host(ggml_backend_buffer_type_t) { return is_host; }
void release(ggml_backend_buffer_t buffer) { std::free(buffer->context); }
void *base(ggml_backend_buffer_t buffer) { return buffer->context; }
void clear(ggml_backend_buffer_t buffer, uint8_t value) { std::memset(buffer->context, value, buffer->size); }
void set(ggml_backend_buffer_t, ggml_tensor *tensor, const void *data, size_t offset, size_t size) {
    std::memcpy(static_cast<char *>(tensor->data) + offset, data, size);
    calls++;
    parts += offset != 0 || size != ggml_nbytes(tensor);
    bytes += size;
    most_bytes = std::max(most_bytes, size);
}
void get(ggml_backend_buffer_t, const ggml_tensor *tensor, void *data, size_t offset, size_t size) {
    std::memcpy(data, static_cast<const char *>(tensor->data) + offset, size);
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_i calls_of = {};
    calls_of.free_buffer = release;
    calls_of.get_base = base;
    calls_of.set_tensor = set;
    calls_of.get_tensor = get;
    calls_of.clear = clear;
    void *memory = std::aligned_alloc(64, (size + 127) / 64 * 64);
    // What is not set shows.
    std::memset(memory, 0xff, size);
    return ggml_backend_buffer_init(type, calls_of, memory, size);
}

ggml_backend_buffer_type_t type() {
    static ggml_backend_buffer_type type = {};
    type.iface.get_name = name;
    type.iface.alloc_buffer = allocate;
    type.iface.get_alignment = alignment;
    type.iface.is_host = says_host;
    type.device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    return &type;
}

}  // namespace far

void compare_far(const std::string &model, const std::string &path, bool is_encoder, size_t piece) {
    log_text.clear();
    llama_model_tensor_buft_override overrides[] = {{".*", far::type()}, {nullptr, nullptr}};
    How how;
    how.overrides = overrides;
    how.piece = piece;
    far::is_host = false;
    far::calls = far::parts = far::most_bytes = far::bytes = 0;
    Loaded ours = load_ours(path, how);
    far::is_host = true;
    Own<llama_model> theirs = load_theirs(path);
    std::string what = model + " in memory that is not the host's, " +
                       (piece == 0 ? "whole tensors" : std::to_string(piece / 1024) + " KiB at a time");
    if (!theirs || !ours.model || ours.status != PML_STATUS_OK || far::calls == 0) {
        report(what, false, ours.message + " " + log_text);
        return;
    }
    std::string detail;
    bool is_same = same(outputs(theirs.get(), is_encoder), outputs(ours.model.get(), is_encoder), detail);
    // Those that are read ahead are set whole.
    bool is_bounded = piece == 0 ? far::parts == 0 : far::parts > 0 && far::most_bytes <= std::max(piece, PML_GGML_SMALL_BYTES);
    detail += "; " + std::to_string(far::calls) + " calls, " + std::to_string(far::bytes) + " bytes, the longest of " +
              std::to_string(far::most_bytes);
    report(what, is_same && is_bounded, detail);
}

// Writes a model without the tensors that are chosen.
void write_without(const std::string &from, const std::string &to,
                   const std::function<bool(const std::string &)> &is_left_out) {
    ggml_context *context = nullptr;
    Own<gguf_context> all(gguf_init_from_file(from.c_str(), {false, &context}));
    Own<ggml_context> tensors(context);
    Own<gguf_context> some(gguf_init_empty());
    gguf_set_kv(some.get(), all.get());
    for (int64_t i = 0; i < gguf_get_n_tensors(all.get()); i++) {
        const char *name = gguf_get_tensor_name(all.get(), i);
        if (!is_left_out(name)) gguf_add_tensor(some.get(), ggml_get_tensor(context, name));
    }
    if (!gguf_write_to_file(some.get(), to.c_str(), false)) std::exit(1);
}

// Writes a model as two files, as llama.cpp splits them.
std::string write_split(const std::string &from, const std::string &to) {
    ggml_context *context = nullptr;
    Own<gguf_context> all(gguf_init_from_file(from.c_str(), {false, &context}));
    Own<ggml_context> tensors(context);
    int64_t count = gguf_get_n_tensors(all.get());
    Own<gguf_context> parts[2] = {Own<gguf_context>(gguf_init_empty()), Own<gguf_context>(gguf_init_empty())};
    gguf_set_kv(parts[0].get(), all.get());
    for (int64_t i = 0; i < count; i++)
        gguf_add_tensor(parts[i * 2 / count].get(), ggml_get_tensor(context, gguf_get_tensor_name(all.get(), i)));
    for (int part = 0; part < 2; part++) {
        gguf_set_val_u16(parts[part].get(), "split.no", static_cast<uint16_t>(part));
        gguf_set_val_u16(parts[part].get(), "split.count", 2);
        gguf_set_val_i32(parts[part].get(), "split.tensors.count", static_cast<int32_t>(count));
        std::string path = to + "-0000" + std::to_string(part + 1) + "-of-00002.gguf";
        if (!gguf_write_to_file(parts[part].get(), path.c_str(), false)) std::exit(1);
    }
    return to + "-00001-of-00002.gguf";
}

bool ends_with(const std::string &text, const std::string &end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

void copy_file(const std::string &from, const std::string &to) {
    if (std::system(("cp '" + from + "' '" + to + "' && chmod u+w '" + to + "'").c_str()) != 0) std::exit(1);
}

// A model whose matrices are converted to F16 while it loads; its vectors stay what they are.
void compare_converted(const std::string &path) {
    pml_rules_t *rules = nullptr;
    if (pml_rules_new(&rules) != PML_STATUS_OK) std::exit(1);
    for (const char *pattern : {"*norm*", "*.bias", "*scale*", "rope_*"})
        if (pml_rules_dtype(rules, pattern, PML_DTYPE_KEEP) != PML_STATUS_OK) std::exit(1);
    pml_options_t half = PML_OPTIONS_INIT;
    half.dtype = PML_DTYPE_F16;
    half.rules = rules;
    How how;
    how.options = &half;
    Loaded ours = load_ours(path, how);
    pml_rules_free(rules);
    Own<llama_model> theirs = load_theirs(path);
    if (!theirs || !ours.model || ours.status != PML_STATUS_OK) {
        report("matrices converted to F16", false, ours.message + " " + log_text);
        return;
    }
    std::vector<float> right = outputs(theirs.get(), false), found = outputs(ours.model.get(), false);
    double product = 0, right_square = 0, found_square = 0;
    for (size_t i = 0; i < right.size(); i++) {
        product += double(right[i]) * found[i];
        right_square += double(right[i]) * right[i];
        found_square += double(found[i]) * found[i];
    }
    double cosine = product / std::sqrt(right_square * found_square);
    report("matrices converted to F16 while they load, rules keeping the vectors", cosine > 0.999 && cosine < 1,
           "cosine " + std::to_string(cosine));
}

void compare_variants(const std::string &models, const std::string &made) {
    std::string dense = models + "/llama-dense.gguf", moe = models + "/qwen3moe-moe.gguf";
    std::string bert = models + "/all-MiniLM-L6-v2-f16.gguf";

    write_without(dense, made + "/plain.gguf", [](const std::string &name) {
        return ends_with(name, ".bias") || ends_with(name, "scale") || name == "rope_freqs.weight";
    });
    How lacking;
    lacking.lacks_optional = true;
    compare("llama-dense without what is optional", made + "/plain.gguf", made + "/plain.gguf", false, lacking);
    write_without(dense, made + "/tied.gguf", [](const std::string &name) { return name == "output.weight"; });
    compare("llama-dense whose embeddings are its output", made + "/tied.gguf", made + "/tied.gguf", false);
    write_without(bert, made + "/bare.gguf", [](const std::string &name) { return ends_with(name, "attn_k.bias"); });
    compare("all-MiniLM-L6-v2-f16 without a bias", made + "/bare.gguf", made + "/bare.gguf", true, lacking);

    std::string split = write_split(moe, made + "/split");
    compare("qwen3moe-moe in two files", split, split, false);

    pml_options_t quantised = PML_OPTIONS_INIT;
    quantised.dtype = PML_DTYPE_Q8_0;
    How how;
    how.options = &quantised;
    compare("llama-dense converted to Q8_0 while it loads, with what pml convert writes", made + "/q8_0.gguf", dense, false,
            how);
    compare_converted(dense);
    pml_options_t direct = PML_OPTIONS_INIT;
    direct.io = PML_IO_DIRECT;
    how.options = &direct;
    compare("all-MiniLM-L6-v2-f16 past the page cache", bert, bert, true, how);
}

void refuse_variants(const std::string &models, const std::string &made) {
    std::string dense = models + "/llama-dense.gguf", bert = models + "/all-MiniLM-L6-v2-f16.gguf";

    std::string norm = "blk.1.ffn_norm.weight";
    write_without(dense, made + "/lacking.gguf", [&](const std::string &name) { return name == norm; });
    refuses("a model that lacks what it needs", load_ours(made + "/lacking.gguf"), PML_STATUS_NOT_FOUND, norm);
    std::string bias = "blk.1.attn_k.bias";
    write_without(bert, made + "/lost.gguf", [&](const std::string &name) { return name == bias; });
    refuses("a model one of whose blocks lacks its bias", load_ours(made + "/lost.gguf"), PML_STATUS_NOT_FOUND, bias);

    copy_file(bert, made + "/cut.gguf");
    How how;
    how.before = [&] {
        if (truncate((made + "/cut.gguf").c_str(), 30 << 20) != 0) std::exit(1);
    };
    Loaded cut = load_ours(made + "/cut.gguf", how);
    refuses("a model that is cut after its headers were read", cut, PML_STATUS_TRUNCATED, "cut.gguf");
    bool was_made = cut.model != nullptr;
    cut.model.reset();
    report("  and the model can be freed", was_made);
    refuses("a model that was cut before", load_ours(made + "/cut.gguf"), PML_STATUS_TRUNCATED, "cut.gguf");

    copy_file(dense, made + "/damaged.gguf");
    int file = open((made + "/damaged.gguf").c_str(), O_WRONLY);
    if (file < 0 || pwrite(file, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8, 8) != 8 || close(file) != 0) std::exit(1);
    refuses("a model with a damaged header", load_ours(made + "/damaged.gguf"), PML_STATUS_MALFORMED, "damaged.gguf");

    How another;
    another.metadata_path = dense;
    another.is_described = false;
    refuses("another model's metadata", load_ours(bert, another), PML_STATUS_WRONG_TYPE,
            "'token_embd.weight': found F16 of shape [30522, 384], expected F32 of shape [128, 256]");
    pml_options_t quantised = PML_OPTIONS_INIT;
    quantised.dtype = PML_DTYPE_Q8_0;
    How undescribed;
    undescribed.options = &quantised;
    undescribed.is_described = false;
    Loaded wrong = load_ours(dense, undescribed);
    refuses("metadata that do not say what is delivered", wrong, PML_STATUS_WRONG_TYPE, "'token_embd.weight': found Q8_0");
    // The first tensor is the wrong one: no norm, which would agree, is read behind it.
    uint64_t read = wrong.stats.buffered_bytes + wrong.stats.direct_bytes;
    report("  and only headers were read", read > 0 && read < 256 << 10, std::to_string(read) + " bytes");
    pml_options_t elsewhere = PML_OPTIONS_INIT;
    elsewhere.device = "cuda:0";
    int destroyed = 0;
    elsewhere.user_data = &destroyed;
    elsewhere.destroy = [](void *count) { ++*static_cast<int *>(count); };
    pml_ggml_t *weights = nullptr;
    report("a GPU as the loader's device is refused",
           pml_ggml_open(dense.c_str(), &elsewhere, &weights) == PML_STATUS_INVALID_ARGUMENT && weights == nullptr);
    report("  and its options are destroyed, once", destroyed == 1);
}

// An engine that makes its tensors itself: each is asked for in an order of its own, some twice.
void fill_own_tensors(const std::string &path, const std::string &order,
                      const std::function<void(std::vector<ggml_tensor *> &)> &arrange, double most_reads) {
    ggml_context *right_context = nullptr, *context = nullptr;
    Own<gguf_context> right_metadata(gguf_init_from_file(path.c_str(), {false, &right_context}));
    Own<gguf_context> metadata(gguf_init_from_file(path.c_str(), {true, &context}));
    Own<ggml_context> rights(right_context), tensors(context);
    pml_ggml_t *handle = nullptr;
    pml_ggml_open(path.c_str(), nullptr, &handle);
    Own<pml_ggml_t> weights(handle);
    bool is_none_used = pml_ggml_unused_count(handle) == static_cast<size_t>(gguf_get_n_tensors(metadata.get())) &&
                        gguf_find_tensor(metadata.get(), pml_ggml_unused(handle, 0)) >= 0;
    std::vector<ggml_tensor *> wanted;
    for (ggml_tensor *tensor = ggml_get_first_tensor(context); tensor; tensor = ggml_get_next_tensor(context, tensor))
        wanted.push_back(tensor);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(context, ggml_backend_cpu_buffer_type());
    arrange(wanted);
    size_t wrong = 0, model_bytes = 0;
    for (ggml_tensor *tensor = ggml_get_first_tensor(context); tensor; tensor = ggml_get_next_tensor(context, tensor))
        model_bytes += ggml_nbytes(tensor);
    for (ggml_tensor *tensor : wanted) {
        std::memset(tensor->data, 0xff, ggml_nbytes(tensor));
        pml_ggml_set_tensor(tensor, handle);
        const ggml_tensor *right = ggml_get_tensor(right_context, ggml_get_name(tensor));
        wrong += std::memcmp(tensor->data, right->data, ggml_nbytes(tensor)) != 0;
    }
    pml_stats_t stats = PML_STATS_INIT;
    pml_loader_stats(pml_ggml_loader(handle), &stats);
    double reads = static_cast<double>(stats.buffered_bytes + stats.direct_bytes) / static_cast<double>(model_bytes);
    char detail[100];
    std::snprintf(detail, sizeof detail, "%zu tensors, %zu wrong, %.2f times their bytes read", wanted.size(), wrong, reads);
    bool is_right = pml_ggml_status(handle) == PML_STATUS_OK && wrong == 0 && reads <= most_reads;
    report("an engine's own tensors, " + order, is_right, detail);
    bool are_all_used = pml_ggml_unused_count(handle) == 0 && pml_ggml_unused(handle, 0) == nullptr;
    report("  first none was asked for, then all", is_none_used && are_all_used);
    ggml_backend_buffer_free(buffer);

    // Without a buffer its memory is gone.
    wanted[0]->buffer = nullptr;
    wanted[0]->data = nullptr;
    pml_ggml_set_tensor(wanted[0], handle);
    bool is_refused = pml_ggml_status(handle) == PML_STATUS_INVALID_ARGUMENT;
    report("  and one without memory is refused", is_refused, pml_ggml_message(handle));
}

// What a tensor of eight numbers holds that is asked for by this name, all of them alike; NAN where they are not. Which error
// there was is told in `status`.
float filled(const std::string &path, const char *name, bool is_described, bool is_contiguous, pml_status_t &status) {
    pml_ggml_t *handle = nullptr;
    if (pml_ggml_open(path.c_str(), nullptr, &handle) != PML_STATUS_OK) std::exit(1);
    Own<pml_ggml_t> weights(handle);
    Own<gguf_context> metadata(gguf_init_from_file(path.c_str(), {true, nullptr}));
    if (is_described) pml_ggml_describe(handle, metadata.get());
    Own<ggml_context> context(ggml_init({1 << 16, nullptr, false}));
    ggml_tensor *whole = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, 2, 4);
    ggml_tensor *tensor = is_contiguous ? whole : ggml_transpose(context.get(), whole);
    float *values = static_cast<float *>(whole->data);
    std::fill(values, values + 8, 7.0f);
    ggml_set_name(tensor, name);
    pml_ggml_set_tensor(tensor, handle);
    status = pml_ggml_status(handle);
    bool is_alike = std::all_of(values, values + 8, [&](float value) { return value == values[0]; });
    return is_alike ? values[0] : NAN;
}

void fill_absent(const std::string &models) {
    std::string bert = models + "/all-MiniLM-L6-v2-f16.gguf", dense = models + "/llama-dense.gguf";
    struct {
        const char *what, *name;
        const std::string &path;
        bool is_described, is_contiguous;
        float value;
        pml_status_t status;
    } cases[] = {
        {"a scale is ones", "blk.0.none.scale", bert, true, true, 1, PML_STATUS_OK},
        {"a bias is zeros", "blk.0.none.bias", bert, true, true, 0, PML_STATUS_OK},
        {"a classifier of bert is zeros", "cls.weight", bert, true, true, 0, PML_STATUS_OK},
        {"a classifier of another architecture is refused", "cls.output.weight", dense, true, true, 0, PML_STATUS_NOT_FOUND},
        {"its bias too", "cls.output.bias", dense, true, true, 0, PML_STATUS_NOT_FOUND},
        {"so is one of an unknown architecture", "cls.weight", bert, false, true, 0, PML_STATUS_NOT_FOUND},
        {"a bias that has a substitute is refused", "blk.0.exp_probs_b_vl.bias", dense, true, true, 0, PML_STATUS_NOT_FOUND},
        {"a bias that other blocks have is refused", "blk.99.attn_k.bias", bert, true, true, 0, PML_STATUS_NOT_FOUND},
        {"where rows lie apart nothing is written", "blk.0.none.bias", bert, true, false, 7, PML_STATUS_UNSUPPORTED},
    };
    for (const auto &one : cases) {
        pml_status_t status = PML_STATUS_OK;
        float value = filled(one.path, one.name, one.is_described, one.is_contiguous, status);
        report(std::string("an absent tensor: ") + one.what, value == one.value && status == one.status,
               std::string(pml_status_name(status)) + ", " + std::to_string(value));
    }
}

void fill_own(const std::string &models) {
    std::string bert = models + "/all-MiniLM-L6-v2-f16.gguf";
    auto as_it_is = [](std::vector<ggml_tensor *> &) {};
    auto backwards = [](std::vector<ggml_tensor *> &wanted) { std::reverse(wanted.begin(), wanted.end()); };
    auto shuffled_twice = [](std::vector<ggml_tensor *> &wanted) {
        wanted.insert(wanted.end(), wanted.begin(), wanted.end());
        uint32_t random = 1;
        for (size_t i = wanted.size() - 1; i > 0; i--) {
            random = random * 1664525u + 1013904223u;
            std::swap(wanted[i], wanted[(random >> 8) % (i + 1)]);
        }
    };
    // Headers are read too.
    fill_own_tensors(bert, "in the file's order", as_it_is, 1.05);
    fill_own_tensors(bert, "backwards", backwards, 1.05);
    fill_own_tensors(bert, "each twice and shuffled", shuffled_twice, 3.05);
}

double milliseconds(const std::function<bool()> &load) {
    auto start = std::chrono::steady_clock::now();
    if (!load()) std::exit(1);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// Takes a file out of the page cache, as far as the system does that.
void make_cold(const std::string &path) {
    int file = open(path.c_str(), O_RDONLY);
    bool is_done = file >= 0 && fsync(file) == 0 && posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0;
    if (!is_done || close(file) != 0) std::exit(1);
}

// The medians of loads in turn, freeing not counted.
void time_loads(const std::string &model, const std::string &path, size_t rounds, bool is_cold) {
    const char *names[] = {"libpml", "llama.cpp, mapped", "llama.cpp, read"};
    std::function<bool(Own<llama_model> &)> loads[] = {
        [&](Own<llama_model> &kept) {
            Loaded loaded = load_ours(path);
            kept = std::move(loaded.model);
            return loaded.status == PML_STATUS_OK;
        },
        [&](Own<llama_model> &kept) { return (kept = load_theirs(path, LLAMA_LOAD_MODE_MMAP)) != nullptr; },
        [&](Own<llama_model> &kept) { return (kept = load_theirs(path, LLAMA_LOAD_MODE_NONE)) != nullptr; }};
    std::vector<double> times[3];
    for (size_t round = 0; round < rounds; round++) {
        for (int i = 0; i < 3; i++) {
            Own<llama_model> kept;
            if (is_cold) make_cold(path);
            times[i].push_back(milliseconds([&] { return loads[i](kept); }));
        }
    }
    std::printf("time   %s, %s:", model.c_str(), is_cold ? "cold" : "warm");
    for (int i = 0; i < 3; i++) {
        std::sort(times[i].begin(), times[i].end());
        std::printf("%s %s %.2f ms (%.2f to %.2f)", i == 0 ? "" : ";", names[i], times[i][rounds / 2], times[i].front(),
                    times[i].back());
    }
    std::printf("\n");
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) return std::fprintf(stderr, "usage: %s MODELS FOLDER\n", argv[0]), 2;
    llama_log_set(keep_log, nullptr);
    llama_backend_init();
    std::string models = argv[1], made = argv[2], large = made + "/large.gguf";
    struct { const char *name; bool is_encoder; } cases[] = {
        {"all-MiniLM-L6-v2-f16", true}, {"all-MiniLM-L6-v2-Q4_K_M", true}, {"llama-dense", false}, {"qwen3moe-moe", false}};
    for (const auto &model : cases) {
        std::string path = models + "/" + model.name + ".gguf";
        compare(model.name, path, path, model.is_encoder);
        compare_far(model.name, path, model.is_encoder, 64 << 10);
        compare_far(model.name, path, model.is_encoder, 0);
    }
    compare_variants(models, made);
    refuse_variants(models, made);
    fill_own(models);
    fill_absent(models);
    compare("a larger model", large, large, false);
    for (bool is_cold : {false, true}) {
        for (const auto &model : cases) time_loads(model.name, models + "/" + model.name + ".gguf", 21, is_cold);
        time_loads("a larger model", large, 7, is_cold);
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    llama_backend_free();
    return failed == 0 ? 0 : 1;
}
