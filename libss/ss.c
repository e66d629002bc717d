/* libss: see ss.h. One file to compile: `cc -O3 -c ss.c`; kernels.h is included once for each set of vector instructions.
 *
 * The layers are those of ss/model/online.py, in the order in which ss/export/native.py writes them (docs/c_library.md has the format).
 * Letters: C channels, F features of all scales, M bins of the scale that is masked, S samples of a synthesis window.
 */
#include "ss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifndef SS_NO_FILES
#include <stdio.h>
#endif

#define PAD 16         /* floats to which rows are padded: the longest vector */
#define MOST_FRAMES 8  /* in one pass through the layers */
#define MOST_SCALES 8
#define MOST_STACKS 16
#define MOST_BLOCKS 16 /* of a stack */
#define MOST_RESNETS 7 /* blocks of the speaker encoder, each of which takes the maximum of three frames */
#define MOST_RADIX 61  /* of a Fourier transform: the largest prime factor of half a window */
#define MOST_PASSES 32
#define MOST_STREAM (1u << 28)  /* bytes */
#define QUIETEST_POWER 1e-6f    /* as in ss/model/online.py */
#define NORM_EPSILON 1e-5f      /* of the layer norms */
#define LOUDEST 8.0f            /* as in ss/runtime/stream.py */
#define QUIETEST 1e-20f

#if defined(__SANITIZE_ADDRESS__) /* arrays lie in one piece of memory: what is between them is for nobody */
#include <sanitizer/asan_interface.h>
#define GUARD_BYTES 64
#define GUARD(p) __asan_poison_memory_region(p, GUARD_BYTES)
#else
#define GUARD_BYTES 0
#define GUARD(p) ((void)(p))
#endif

enum memory { MEMORY_NONE, MEMORY_LSTM, MEMORY_GRU, MEMORY_LINEAR };
enum storage { FLOATS, HALVES, BYTES };

/* A product x [n_in] -> [n_out], and its bias. Bytes where there are any, floats otherwise; both in panels (kernels.h). */
struct matrix {
    int n_in, n_out;
    float *floats, *scale, *bias;
    int8_t *bytes;
    int32_t *correction;
};

/* A windowed Fourier transform of 2*n real samples, as one of n complex ones. */
struct transform {
    int n, n_passes, radices[MOST_PASSES];
    float *window, *twiddles, *roots, *turns;
};

struct kernels {
    const char *name;
    int width, unsigned_input; /* floats in a vector; whether bytes of x are given 128 too high */
    void (*multiply)(const struct matrix *, const float *, size_t, int, const float *, size_t, float *, size_t, int);
    void (*multiply_bytes)(const struct matrix *, const float *, size_t, int, const float *, size_t, float *, size_t, int, int8_t *);
    void (*log_power)(float *, const float *, const float *, int);
    void (*lstm)(const float *, float *, float *, int);
    void (*gru)(const float *, const float *, float *, int);
    void (*linear)(const float *, float *, int);
    void (*apply_mask)(float *restrict, const float *restrict, float *restrict, float *restrict, int);
    void (*transform)(const struct transform *, const float *, float *, float *, float *);
};

/* One pass of a Fourier transform whose radix has no loop of its own in kernels.h. */
static void any_radix_pass(int radix, int n, int stride, const float *twiddle, const float *root, const float *x, const float *xi,
                           float *y, float *yi) {
    int part = n / radix;
    for (int p = 0; p < part; p++)
        for (int j = 0; j < radix; j++, twiddle += 2)
            for (int q = 0; q < stride; q++) {
                float re = 0, im = 0;
                for (int k = 0; k < radix; k++) {
                    float a = x[q + stride * (p + part * k)], b = xi[q + stride * (p + part * k)];
                    float c = root[2 * (j * k % radix)], s = root[2 * (j * k % radix) + 1];
                    re += a * c - b * s;
                    im += a * s + b * c;
                }
                y[q + stride * (radix * p + j)] = re * twiddle[0] - im * twiddle[1];
                yi[q + stride * (radix * p + j)] = re * twiddle[1] + im * twiddle[0];
            }
}

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define UNROLL
#define __attribute__(x)
#define restrict
#endif
#define DOT_C 0
#define DOT_VNNI 1
#define DOT_AVX2 2
#define DOT_NEON 3
#define DOT_WASM 4
#define DOT_SSE2 5
#define DOT_NEON_SDOT 6

#if defined(__GNUC__) && defined(__x86_64__) && !defined(SS_PLAIN)
#define X86 1
#include <cpuid.h>
#include <immintrin.h>
#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")))
#define W 16
#define INT8_DOT DOT_VNNI
#define KERNEL_NAME "avx512vnni"
#include "kernels.h"
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define W 8
#define INT8_DOT DOT_AVX2
#define KERNEL_NAME "avx2"
#include "kernels.h"
#endif

/* What any processor of this kind can do. */
#define NAME(x) x##_base
#define TARGET
#if !defined(__GNUC__) || defined(SS_PLAIN)
#define W 1
#define INT8_DOT DOT_C
#define KERNEL_NAME "plain"
#else
#define W 4
#if defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define INT8_DOT DOT_WASM
#define KERNEL_NAME "simd128"
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__ARM_FEATURE_DOTPROD)
#define INT8_DOT DOT_NEON_SDOT
#define KERNEL_NAME "neon sdot"
#else
#define INT8_DOT DOT_NEON
#define KERNEL_NAME "neon"
#endif
#elif defined(X86)
#define INT8_DOT DOT_SSE2
#define KERNEL_NAME "sse2"
#else
#define INT8_DOT DOT_C
#define KERNEL_NAME "vectors of 4"
#endif
#endif
#include "kernels.h"

#ifdef X86
/* How many of the kernels this processor and its system can run: 1 sse2, 2 also avx2, 3 also avx512vnni. */
static int usable_kernels(void) {
    const unsigned fma_and_saved = 1u << 12 | 1u << 27, avx2 = 1u << 5;
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, vnni = 1u << 11; /* f, dq, bw, vl */
    unsigned a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & fma_and_saved) != fma_and_saved) return 1;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0)); /* registers that the system keeps */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2) || (saved & 0x6) != 0x6) return 1;
    return (b & avx512) == avx512 && (c & vnni) && (saved & 0xe6) == 0xe6 ? 3 : 2;
}
#endif

static const struct kernels *choose_kernels(void) {
#ifdef X86
    static const struct kernels *all[] = {&kernels_base, &kernels_avx2, &kernels_avx512};
    int usable = usable_kernels();
#ifndef SS_NO_FILES
    const char *wanted = getenv("SS_KERNEL"); /* to compare them */
    for (int i = 0; wanted && i < usable; i++)
        if (!strcmp(wanted, all[i]->name)) return all[i];
#endif
    return all[usable - 1];
#else
    return &kernels_base;
#endif
}

struct block {
    int dilation, reach; /* frames */
    struct matrix conv, output;
};

struct stack {
    struct matrix input, recurrent, output;
    float *recurrent_bias;
    int n_blocks;
    struct block blocks[MOST_BLOCKS];
};

struct resnet {
    struct matrix conv1, conv2, residual;
    float *slopes1, *slopes2;
};

struct options { /* in the order of the file */
    uint32_t sample_rate, hop, synthesis, lookahead, channels, embedding, n_stacks, n_blocks, taps, memory, complex_mask, n_resnets,
        n_scales, storage, metadata;
};

struct ss_model {
    struct options is;
    const struct kernels *kernels;
    int kernel, n_features, masked, stride, hidden[MOST_STACKS * MOST_BLOCKS], kernels_of_scales[MOST_SCALES];
    int widest; /* floats of the widest row, padded */
    int n_conditions;
    struct transform scales[MOST_SCALES];
    struct stack stacks[MOST_STACKS];
    struct matrix conv1, mask, phase, decoder;
    struct matrix speaker_input, speaker_output, conditions;
    struct resnet resnets[MOST_RESNETS];
    char *metadata;
    void *memory;
};

#ifdef _MSC_VER
static __declspec(thread) const char *last_error = "";
#else
static __thread const char *last_error = "";
#endif

int ss_version(void) { return SS_VERSION; }
const char *ss_error(void) { return last_error; }

static void *fail(const char *why) {
    last_error = why;
    return NULL;
}

static int padded(int n) { return (n + PAD - 1) / PAD * PAD; }

/* ---------------------------------------------------------------- loading ---------------------------------------------------- */

/* Walks through a file twice: first it only counts what is in the file and what memory it takes, then it fills that memory. */
struct reader {
    const uint8_t *data; /* NULL while counting */
    uint8_t *memory;
    uint64_t read, used; /* bytes */
    const struct kernels *kernels;
    int bad; /* found a number that is not finite */
};

static void *take(struct reader *r, uint64_t bytes) { /* memory, zeroed already */
    uint64_t begin = r->used;
    r->used += (bytes + 63) / 64 * 64 + GUARD_BYTES;
    if (r->data) GUARD(r->memory + r->used - GUARD_BYTES);
    return r->data ? r->memory + begin : NULL;
}

static const uint8_t *read_bytes(struct reader *r, uint64_t bytes) {
    uint64_t begin = r->read;
    r->read += (bytes + 3) / 4 * 4;
    return r->data ? r->data + begin : NULL;
}

static uint32_t u32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

static float number(struct reader *r, const uint8_t *data, uint64_t i, int half) {
    uint32_t bits;
    if (half) {
        uint32_t h = data[2 * i] | (uint32_t)data[2 * i + 1] << 8, exponent = h >> 10 & 31, mantissa = h & 1023;
        if (!exponent) {
            float small = (float)mantissa * (1.0f / 16777216.0f);
            return h & 0x8000 ? -small : small;
        }
        bits = (h & 0x8000) << 16 | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13;
    } else {
        bits = u32(data + 4 * i);
    }
    r->bad |= (bits >> 23 & 255) == 255;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float *read_floats(struct reader *r, int n) {
    float *to = take(r, 4 * (uint64_t)padded(n));
    const uint8_t *from = read_bytes(r, 4 * (uint64_t)n);
    if (r->data)
        for (int i = 0; i < n; i++) to[i] = number(r, from, i, 0);
    return to;
}

static void read_matrix(struct reader *r, struct matrix *m, int n_in, int n_out, enum storage storage, int bias) {
    static const int size_of[] = {4, 2, 1};
    int width = r->kernels->width, unit = storage == BYTES ? 4 : 1;
    uint64_t columns = (n_out + width - 1) / width * (uint64_t)width, rows = (n_in + unit - 1) / unit * (uint64_t)unit;
    const uint8_t *from = read_bytes(r, (uint64_t)n_in * n_out * size_of[storage]);
    void *to = take(r, rows * columns * (storage == BYTES ? 1 : 4));
    m->n_in = n_in, m->n_out = n_out;
    if (storage == BYTES) {
        m->bytes = to;
        m->scale = read_floats(r, n_out);
        m->correction = take(r, 4 * (uint64_t)padded(n_out));
    } else {
        m->floats = to;
    }
    m->bias = bias ? read_floats(r, n_out) : take(r, 4 * (uint64_t)padded(n_out));
    if (!r->data) return;
    for (int begin = 0; begin < n_out; begin += 4 * width) { /* a panel: four vectors, or what is left */
        int left = (int)columns - begin, panel = left < 4 * width ? left : 4 * width, end = begin + panel;
        if (end > n_out) end = n_out;
        uint64_t base = (uint64_t)begin * rows;
        for (int i = 0; i < n_in; i++)
            for (int o = begin; o < end; o++) {
                uint64_t source = (uint64_t)i * n_out + o;
                if (storage == BYTES) {
                    int8_t weight = (int8_t)from[source];
                    m->bytes[base + ((uint64_t)(i / 4) * panel + (o - begin)) * 4 + i % 4] = weight == -128 ? -127 : weight;
                    if (r->kernels->unsigned_input) m->correction[o] -= 128 * (weight == -128 ? -127 : weight);
                } else {
                    m->floats[base + (uint64_t)i * panel + (o - begin)] = number(r, from, source, storage == HALVES);
                }
            }
    }
}

/* Prime factors of half a window, fours first: how many, or 0 where one is too large. */
static int find_radices(int n, int *radices) {
    int found = 0;
    for (; n % 4 == 0; n /= 4) radices[found++] = 4;
    for (int p = 2; p <= MOST_RADIX; p++)
        for (; n % p == 0; n /= p) radices[found++] = p;
    return n == 1 ? found : -1;
}

static void read_transform(struct reader *r, struct transform *t, int kernel) {
    const double turn = 6.283185307179586476925286766559;
    int n = kernel / 2, left = n;
    t->n = n;
    t->n_passes = find_radices(n, t->radices);
    t->window = read_floats(r, kernel);
    uint64_t n_twiddles = 0, n_roots = 0;
    for (int pass = 0; pass < t->n_passes; left /= t->radices[pass++]) n_twiddles += 2 * left, n_roots += 2 * t->radices[pass];
    t->twiddles = take(r, 4 * n_twiddles);
    t->roots = take(r, 4 * n_roots);
    t->turns = take(r, 8 * (uint64_t)n);
    if (!r->data) return;
    float *twiddle = t->twiddles, *root = t->roots;
    left = n;
    for (int pass = 0; pass < t->n_passes; left /= t->radices[pass++]) {
        int radix = t->radices[pass];
        for (int p = 0; p < left / radix; p++)
            for (int j = 0; j < radix; j++, twiddle += 2) {
                twiddle[0] = (float)cos(turn * p * j / left);
                twiddle[1] = (float)-sin(turn * p * j / left);
            }
        for (int j = 0; j < radix; j++, root += 2) root[0] = (float)cos(turn * j / radix), root[1] = (float)-sin(turn * j / radix);
    }
    for (int k = 0; k < n; k++) {
        t->turns[2 * k] = (float)cos(turn * k / kernel);
        t->turns[2 * k + 1] = (float)-sin(turn * k / kernel);
    }
}

/* Everything behind the options, in the order of the file. */
static void read_tensors(struct reader *r, ss_model *m) {
    const struct options *is = &m->is;
    int c = is->channels, e = is->embedding, n_stacks = is->n_stacks, n_resnets = is->n_resnets;
    enum storage step = is->storage == BYTES ? BYTES : FLOATS, enrol = is->storage == BYTES ? HALVES : FLOATS;
    const uint8_t *text = read_bytes(r, is->metadata);
    m->metadata = take(r, (uint64_t)is->metadata + 1);
    if (r->data) memcpy(m->metadata, text, is->metadata);
    for (int i = 0; i < (int)is->n_scales; i++) read_transform(r, &m->scales[i], m->kernels_of_scales[i]);
    read_matrix(r, &m->conv1, m->n_features, c, FLOATS, 1);
    for (int s = 0; s < n_stacks; s++) {
        struct stack *stack = &m->stacks[s];
        if (is->memory == MEMORY_LINEAR) {
            read_matrix(r, &stack->input, c, 2 * c, step, 1);
        } else if (is->memory != MEMORY_NONE) {
            int gates = is->memory == MEMORY_LSTM ? 4 : 3;
            read_matrix(r, &stack->input, c, gates * c, step, 1);
            read_matrix(r, &stack->recurrent, c, gates * c, step, is->memory == MEMORY_GRU);
        }
        if (is->memory == MEMORY_LSTM || is->memory == MEMORY_LINEAR) read_matrix(r, &stack->output, c, c, step, 1);
        stack->n_blocks = 0;
        for (int b = 0; b < (int)is->n_blocks; b++) {
            int hidden = m->hidden[s * is->n_blocks + b];
            if (!hidden) continue;
            struct block *block = &stack->blocks[stack->n_blocks++];
            block->dilation = 1 << b;
            block->reach = (is->taps - 1) * block->dilation;
            read_matrix(r, &block->conv, is->taps * c, hidden, step, 1);
            read_matrix(r, &block->output, hidden, c, step, 1);
        }
    }
    read_matrix(r, &m->mask, c, m->masked, step, 1);
    if (is->complex_mask) read_matrix(r, &m->phase, c, 2 * m->masked, step, 1);
    read_matrix(r, &m->decoder, 2 * m->masked, is->synthesis, FLOATS, 0);

    int width = c;
    read_matrix(r, &m->speaker_input, m->n_features, c, enrol, 1);
    for (int i = 0; i < n_resnets; i++) {
        struct resnet *net = &m->resnets[i];
        int out = i >= n_resnets - 2 ? e : c;
        read_matrix(r, &net->conv1, width, out, enrol, 1);
        net->slopes1 = read_floats(r, 1);
        read_matrix(r, &net->conv2, out, out, enrol, 1);
        if (width != out) read_matrix(r, &net->residual, width, out, enrol, 0);
        net->slopes2 = read_floats(r, 1);
        width = out;
    }
    read_matrix(r, &m->speaker_output, width, e, enrol, 1);
    read_matrix(r, &m->conditions, e, 2 * c * n_stacks, enrol, 1);
}

static uint32_t checksum(const uint8_t *data, size_t n) { /* CRC-32, as in zip files */
    uint32_t table[256], sum = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t entry = i;
        for (int bit = 0; bit < 8; bit++) entry = entry >> 1 ^ (entry & 1 ? 0xedb88320u : 0);
        table[i] = entry;
    }
    for (size_t i = 0; i < n; i++) sum = table[(sum ^ data[i]) & 255] ^ sum >> 8;
    return ~sum;
}

static int maximum(int a, int b) { return a > b ? a : b; }

/* Reads and checks the options; 0 where they are none of a model that this library can run. */
static int read_options(ss_model *m, const uint8_t *data, size_t size, uint64_t *begin) {
    struct options *is = &m->is;
    uint32_t *fields[] = {&is->sample_rate, &is->hop, &is->synthesis, &is->lookahead, &is->channels, &is->embedding, &is->n_stacks,
                          &is->n_blocks, &is->taps, &is->memory, &is->complex_mask, &is->n_resnets, &is->n_scales,
                          &is->storage, &is->metadata};
    static const uint32_t least[] = {1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0};
    static const uint32_t most[] = {1000000, 8192, 16384, 1024, 4096, 4096, MOST_STACKS, MOST_BLOCKS, 16, 3, 1, MOST_RESNETS,
                                    MOST_SCALES, BYTES, 1 << 20};
    const int n_fields = sizeof fields / sizeof *fields;
    *begin = 24;
    if (size < 24 + 4 * (size_t)n_fields) return 0;
    for (int i = 0; i < n_fields; i++, *begin += 4) {
        *fields[i] = u32(data + *begin);
        if (*fields[i] < least[i] || *fields[i] > most[i]) return 0;
    }
    int n_hidden = is->n_stacks * is->n_blocks, c = is->channels;
    if (is->storage == HALVES || is->synthesis < is->hop || is->synthesis > 2 * is->hop) return 0;
    if (size < *begin + 4 * ((size_t)is->n_scales + n_hidden)) return 0;
    m->widest = maximum(maximum(4 * c, is->taps * c), maximum(is->embedding, is->synthesis));
    m->widest = maximum(m->widest, 2 * c * (int)is->n_stacks);
    for (int i = 0; i < (int)is->n_scales; i++, *begin += 4) {
        uint32_t kernel = u32(data + *begin);
        int radices[MOST_PASSES];
        if (kernel < is->synthesis || kernel > 32768 || kernel % 2 || (int)kernel < m->kernel) return 0;
        if (find_radices(kernel / 2, radices) < 0) return 0;
        m->kernels_of_scales[i] = m->kernel = kernel;
        m->n_features += kernel / 2 + 1;
    }
    m->masked = m->kernel / 2 + 1;
    for (int i = 0; i < n_hidden; i++, *begin += 4) {
        uint32_t hidden = u32(data + *begin);
        if (hidden > 16384) return 0;
        m->hidden[i] = hidden;
        m->widest = maximum(m->widest, hidden);
    }
    m->widest = padded(maximum(m->widest, maximum(m->n_features, 2 * m->masked)));
    m->stride = 1;
    for (int i = 0; i < (int)is->n_resnets; i++) m->stride *= 3;
    m->n_conditions = 2 * c * is->n_stacks;
    return 1;
}

static size_t stream_bytes(const ss_model *model);

ss_model *ss_load_memory(const void *file, size_t size) {
    const uint8_t *data = file;
    if (!data || size < 24 || memcmp(data, "ss-model", 8)) return fail("expected a model file, found other data");
    if (u32(data + 8) != SS_VERSION) return fail("expected a model file of version 2: this one needs another version of the library");
    if (((uint64_t)u32(data + 20) << 32 | u32(data + 16)) != size) return fail("expected a whole model file: its size is not what it says");
    if (u32(data + 12) != checksum(data + 16, size - 16)) return fail("expected a model file with the right checksum: it is damaged");
    ss_model *m = calloc(1, sizeof *m);
    if (!m) return fail("no memory for the model");
    struct reader r = {NULL, NULL, 0, 0, choose_kernels(), 0};
    m->kernels = r.kernels;
    if (!read_options(m, data, size, &r.read)) {
        free(m);
        return fail("expected options of a model that this library can run, found others");
    }
    uint64_t begin = r.read;
    read_tensors(&r, m);
    if (r.read != size || r.used > SIZE_MAX - 64) {
        free(m);
        return fail("expected as many weights as the model file's options say, found another size");
    }
    if (stream_bytes(m) > MOST_STREAM) {
        free(m);
        return fail("expected a model whose streams take at most 256 MB");
    }
    m->memory = calloc(1, (size_t)r.used + 64);
    if (!m->memory) {
        free(m);
        return fail("no memory for the model");
    }
    r = (struct reader){data, (uint8_t *)(((uintptr_t)m->memory + 63) & ~(uintptr_t)63), begin, 0, m->kernels, 0};
    read_tensors(&r, m);
    if (r.bad) {
        ss_model_free(m);
        return fail("expected finite weights, found some that are not");
    }
    return m;
}

#ifndef SS_NO_FILES
static uint8_t *read_file(const char *path, size_t *size) { /* NULL: it cannot be read */
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    uint8_t *data = NULL;
    size_t room = 0;
    *size = 0;
    for (;;) {
        if (*size == room) {
            room = room ? 2 * room : (size_t)1 << 20;
            uint8_t *more = room <= (size_t)1 << 30 ? realloc(data, room) : NULL;
            if (!more) break;
            data = more;
        }
        size_t n = fread(data + *size, 1, room - *size, file);
        if (!n) break;
        *size += n;
    }
    int bad = ferror(file) || *size == room;
    fclose(file);
    if (!bad) return data;
    free(data);
    return NULL;
}

ss_model *ss_load(const char *path) {
    size_t size;
    uint8_t *data = read_file(path, &size);
    ss_model *model = data ? ss_load_memory(data, size) : fail("the model file cannot be read");
    free(data);
    return model;
}

#define VOICE_VERSION 1
#define VOICE_HEADER 16 /* before what the checksum counts */
#define VOICE_DIGITS 32 /* that name the model's weights */

int ss_voice_load(const ss_model *model, const char *path, float *conditions) {
    size_t size, values = model->n_conditions * sizeof *conditions;
    uint8_t *data = read_file(path, &size);
    const char *why = NULL;
    char weights[VOICE_DIGITS + 1] = "";
    if (!data)
        why = "the voice file cannot be read";
    else if (size < VOICE_HEADER + VOICE_DIGITS || memcmp(data, "ss-voice", 8))
        why = "expected a stored voice, found other data";
    else if (u32(data + 8) != VOICE_VERSION)
        why = "expected a voice of version 1: this one needs another version of the library";
    else if (u32(data + 12) != checksum(data + VOICE_HEADER, size - VOICE_HEADER))
        why = "expected a voice with the right checksum: it is damaged";
    else {
        memcpy(weights, data + VOICE_HEADER, VOICE_DIGITS);
        if (strlen(weights) < VOICE_DIGITS || !strstr(model->metadata, weights) || size != VOICE_HEADER + VOICE_DIGITS + values)
            why = "expected a voice of this model, found one of another: enrol the speaker again";
        else
            for (int i = 0; i < model->n_conditions; i++) {
                uint32_t bits = u32(data + VOICE_HEADER + VOICE_DIGITS + 4 * (size_t)i);
                memcpy(&conditions[i], &bits, sizeof bits);
            }
    }
    free(data);
    return why ? (fail(why), -1) : 0;
}
#endif

void ss_model_free(ss_model *model) {
    if (model) free(model->memory);
    free(model);
}

int ss_sample_rate(const ss_model *m) { return m->is.sample_rate; }
int ss_hop(const ss_model *m) { return m->is.hop; }
int ss_delay(const ss_model *m) { return m->is.synthesis - m->is.hop + m->is.lookahead * m->is.hop; }
int ss_latency(const ss_model *m) { return m->is.synthesis + m->is.lookahead * m->is.hop; }
int ss_shortest_enrolment(const ss_model *m) { return (m->stride - 1) * 2 * (int)m->is.hop + m->kernel; }
int ss_n_conditions(const ss_model *m) { return m->n_conditions; }
const char *ss_metadata(const ss_model *m) { return m->metadata; }
const char *ss_kernel(const ss_model *m) { return m->kernels->name; }

/* ---------------------------------------------------------------- layers ----------------------------------------------------- */

/* y [n][m.n_out] = x [n][m.n_in] @ m, onto `begin`, rows like y's, or onto its bias where that is NULL. */
static void multiply_onto(const struct kernels *k, const struct matrix *m, const float *x, size_t x_step, int n, const float *begin,
                          float *y, size_t y_step, int relu, int8_t *bytes) {
    size_t begin_step = begin ? y_step : 0;
    if (!begin) begin = m->bias;
    if (m->bytes)
        k->multiply_bytes(m, x, x_step, n, begin, begin_step, y, y_step, relu, bytes);
    else
        k->multiply(m, x, x_step, n, begin, begin_step, y, y_step, relu);
}

/* Spectra and features of one frame [kernel]. spectrum: [2*masked], real parts, then imaginary ones, of the last scale. */
static void analyse(const ss_model *m, const float *frame, float *features, float *spectrum, float *scratch, float *work) {
    for (int i = 0; i < (int)m->is.n_scales; i++) {
        const struct transform *t = &m->scales[i];
        int bins = t->n + 1, last = i + 1 == (int)m->is.n_scales;
        float *real = last ? spectrum : scratch, *imag = real + (last ? bins : padded(bins));
        m->kernels->transform(t, frame + m->kernel - 2 * t->n, real, imag, work);
        m->kernels->log_power(features, real, imag, bins);
        features += bins;
    }
}

/* ---------------------------------------------------------------- streams ---------------------------------------------------- */

struct ss_stream {
    const ss_model *model;
    size_t bytes;
    uint64_t taken, given; /* samples */
    size_t repaired;
    int waiting, ended; /* samples that fill no hop yet; after a flush */
    int64_t early;      /* samples still to be dropped at the beginning */
    uint32_t frame;     /* how many so far, modulo 2^32 */
    float *conditions, *heard, *tails, *hidden, *cells, *ahead, *overlap;              /* carried from step to step */
    float *features, *spectra, *x, *wide, *wider, *work, *pieces, *estimate, *rounded; /* for the time of a step */
};

struct part {
    float **to;
    uint64_t floats;
    int carried; /* from step to step; zeros at first */
};

#define N_PARTS 16
static void list_parts(ss_stream *s, const ss_model *m, struct part *parts) {
    const struct options *is = &m->is;
    uint64_t c = padded(is->channels), rows = 0, widest = m->widest;
    for (int i = 0; i < (int)is->n_stacks; i++)
        for (int b = 0; b < (int)is->n_blocks; b++)
            if (m->hidden[i * is->n_blocks + b]) rows += (uint64_t)(is->taps - 1) << b;
    const struct part all[N_PARTS] = {
        {&s->conditions, m->n_conditions, 0},
        {&s->heard, m->kernel + (uint64_t)MOST_FRAMES * is->hop, 1},
        {&s->tails, rows * is->channels, 1},
        {&s->hidden, is->n_stacks * c, 1},
        {&s->cells, is->n_stacks * c, 1},
        {&s->ahead, (uint64_t)is->lookahead * 2 * m->masked, 1},
        {&s->overlap, is->synthesis, 1},
        {&s->features, (uint64_t)MOST_FRAMES * padded(m->n_features), 0},
        {&s->spectra, (uint64_t)MOST_FRAMES * padded(2 * m->masked), 0},
        {&s->x, MOST_FRAMES * c, 0},
        {&s->wide, MOST_FRAMES * widest, 0},
        {&s->wider, MOST_FRAMES * widest, 0},
        {&s->work, 2 * (uint64_t)m->kernel, 0},
        {&s->pieces, 2 * (uint64_t)padded(m->masked), 0},
        {&s->estimate, (uint64_t)MOST_FRAMES * is->hop, 0},
        {&s->rounded, MOST_FRAMES * widest / 4, 0},
    };
    memcpy(parts, all, sizeof all);
}

/* Places a stream's arrays in memory (NULL: only counts); returns the bytes. Whole vectors may be read and written at their ends. */
static size_t lay_out(ss_stream *s, const ss_model *m, uint8_t *memory) {
    struct part parts[N_PARTS];
    uint64_t used = 0;
    list_parts(s, m, parts);
    for (int i = 0; i < N_PARTS; i++) {
        uint64_t bytes = (parts[i].floats + 2 * PAD - 1) / PAD * PAD * sizeof(float);
        if (memory) {
            *parts[i].to = (float *)(void *)(memory + used);
            GUARD(memory + used + bytes);
        }
        used += bytes + GUARD_BYTES;
    }
    return used > MOST_STREAM ? (size_t)MOST_STREAM + 1 : (size_t)used;
}

static size_t stream_bytes(const ss_model *model) {
    ss_stream nowhere;
    return lay_out(&nowhere, model, NULL);
}

ss_stream *ss_stream_new(const ss_model *model, const float *conditions) {
    for (int i = 0; i < model->n_conditions; i++)
        if (!(fabsf(conditions[i]) < 1e30f)) return fail("expected conditions that ss_enroll gave, found numbers that are not finite");
    size_t bytes = stream_bytes(model);
    ss_stream *s = calloc(1, sizeof *s + bytes + 64);
    if (!s) return fail("no memory for the stream");
    s->model = model;
    s->bytes = sizeof *s + bytes + 64;
    lay_out(s, model, (uint8_t *)(((uintptr_t)(s + 1) + 63) & ~(uintptr_t)63));
    memcpy(s->conditions, conditions, model->n_conditions * sizeof *conditions);
    ss_stream_reset(s);
    return s;
}

void ss_stream_reset(ss_stream *s) {
    struct part parts[N_PARTS];
    list_parts(s, s->model, parts);
    for (int i = 0; i < N_PARTS; i++)
        if (parts[i].carried) memset(*parts[i].to, 0, (size_t)parts[i].floats * sizeof(float));
    s->taken = s->given = s->repaired = 0;
    s->waiting = s->ended = 0;
    s->frame = 0;
    s->early = ss_delay(s->model);
}

size_t ss_stream_repaired(const ss_stream *s) { return s->repaired; }
size_t ss_stream_bytes(const ss_stream *s) { return s->bytes; }
void ss_stream_free(ss_stream *s) { free(s); }

/* x [n][C] through the memory of a stack, whose output is added to it. */
static void remember(ss_stream *s, const struct stack *stack, float *hidden, float *cell, int n) {
    const ss_model *m = s->model;
    const struct kernels *k = m->kernels;
    int c = m->is.channels, step = padded(c), gates = m->is.memory == MEMORY_LSTM ? 4 : m->is.memory == MEMORY_GRU ? 3 : 2;
    size_t wide = padded(gates * c);
    multiply_onto(k, &stack->input, s->x, step, n, NULL, s->wide, wide, 0, (int8_t *)s->rounded);
    for (int t = 0; t < n; t++) {
        float *row = s->wide + t * wide;
        if (m->is.memory == MEMORY_LSTM) {
            multiply_onto(k, &stack->recurrent, hidden, step, 1, row, row, wide, 0, (int8_t *)s->rounded);
            k->lstm(row, hidden, cell, c);
        } else if (m->is.memory == MEMORY_GRU) {
            multiply_onto(k, &stack->recurrent, hidden, step, 1, NULL, s->wider + MOST_FRAMES * step, wide, 0, (int8_t *)s->rounded);
            k->gru(row, s->wider + MOST_FRAMES * step, hidden, c);
            for (int i = 0; i < c; i++) s->x[t * step + i] += hidden[i];
        } else {
            k->linear(row, hidden, c);
        }
        memcpy(s->wider + t * step, hidden, c * sizeof(float));
    }
    if (m->is.memory != MEMORY_GRU) {
        for (int t = 0; t < n; t++)
            for (int i = 0; i < c; i++) s->x[t * step + i] += stack->output.bias[i];
        multiply_onto(k, &stack->output, s->wider, step, n, s->x, s->x, step, 0, (int8_t *)s->rounded);
    }
}

/* x [n][C] through a block. tail: ring of `reach` rows [C]. */
static void convolve(ss_stream *s, const struct block *block, float *tail, int n) {
    const ss_model *m = s->model;
    const struct kernels *k = m->kernels;
    int c = m->is.channels, step = padded(c), taps = m->is.taps, reach = block->reach;
    size_t wide = padded(taps * c), hidden = padded(block->conv.n_out), row_bytes = c * sizeof(float);
    for (int t = 0; t < n; t++) {
        float *seen = s->wide + t * wide, *x = s->x + t * step;
        for (int tap = 0; tap < taps - 1; tap++) {
            int place = (int)((s->frame + (uint32_t)t + (uint32_t)(tap * block->dilation)) % (uint32_t)reach);
            memcpy(seen + tap * c, tail + (size_t)place * c, row_bytes);
        }
        memcpy(seen + (taps - 1) * c, x, row_bytes);
        if (reach) memcpy(tail + (size_t)((s->frame + (uint32_t)t) % (uint32_t)reach) * c, x, row_bytes);
        for (int i = 0; i < c; i++) x[i] += block->output.bias[i];
    }
    multiply_onto(k, &block->conv, s->wide, wide, n, NULL, s->wider, hidden, 1, (int8_t *)s->rounded);
    multiply_onto(k, &block->output, s->wider, hidden, n, s->x, s->x, step, 0, (int8_t *)s->rounded);
}

/* The next n <= MOST_FRAMES hops, which lie in `heard` behind its history -> n hops of `out`, delayed. */
static void advance(ss_stream *s, int n, float *out) {
    const ss_model *m = s->model;
    const struct kernels *k = m->kernels;
    const struct options *is = &m->is;
    int c = is->channels, step = padded(c), hop = is->hop, masked = m->masked, overlap = is->synthesis - hop;
    size_t features = padded(m->n_features), bins = padded(2 * masked), wave_step = padded(is->synthesis);
    for (int t = 0; t < n; t++)
        analyse(m, s->heard + t * hop, s->features + t * features, s->spectra + t * bins, s->pieces, s->work);
    memmove(s->heard, s->heard + n * hop, (m->kernel - hop) * sizeof(float));
    multiply_onto(k, &m->conv1, s->features, features, n, NULL, s->x, step, 0, (int8_t *)s->rounded);

    float *tail = s->tails;
    for (int i = 0; i < (int)is->n_stacks; i++) {
        const struct stack *stack = &m->stacks[i];
        const float *gain = s->conditions + 2 * i * c, *offset = gain + c;
        for (int t = 0; t < n; t++)
            for (int j = 0; j < c; j++) s->x[t * step + j] = offset[j] + s->x[t * step + j] * gain[j];
        if (is->memory != MEMORY_NONE) remember(s, stack, s->hidden + i * step, s->cells + i * step, n);
        for (int b = 0; b < stack->n_blocks; b++) {
            convolve(s, &stack->blocks[b], tail, n);
            tail += (size_t)stack->blocks[b].reach * c;
        }
    }

    for (uint32_t t = 0; is->lookahead && t < (uint32_t)n; t++) { /* the spectra wait for the masks */
        float *waiting = s->ahead + (size_t)((s->frame + t) % is->lookahead) * 2 * masked, *row = s->spectra + t * bins;
        for (int j = 0; j < 2 * masked; j++) {
            float newest = row[j];
            row[j] = waiting[j];
            waiting[j] = newest;
        }
    }
    size_t mask_step = padded(masked);
    multiply_onto(k, &m->mask, s->x, step, n, NULL, s->wide, mask_step, 0, (int8_t *)s->rounded);
    if (is->complex_mask) multiply_onto(k, &m->phase, s->x, step, n, NULL, s->wider, bins, 0, (int8_t *)s->rounded);
    for (int t = 0; t < n; t++) {
        float *row = s->spectra + t * bins;
        k->apply_mask(s->wide + t * mask_step, is->complex_mask ? s->wider + t * bins : NULL, row, row + masked, masked);
    }
    multiply_onto(k, &m->decoder, s->spectra, bins, n, NULL, s->wide, wave_step, 0, (int8_t *)s->rounded);
    for (int t = 0; t < n; t++, out += hop) {
        const float *wave = s->wide + t * wave_step;
        for (int j = 0; j < overlap; j++) out[j] = wave[j] + s->overlap[j];
        memcpy(out + overlap, wave + overlap, (hop - overlap) * sizeof(float));
        memcpy(s->overlap, wave + hop, overlap * sizeof(float));
    }
    s->frame += n;
}

/* A sample that can be computed with. */
static float repair(float x, size_t *repaired) {
    if (x >= -LOUDEST && x <= LOUDEST) return x > -QUIETEST && x < QUIETEST ? 0 : x;
    if (!(x - x == 0)) { /* NaN or infinite */
        ++*repaired;
        return 0;
    }
    return x > 0 ? LOUDEST : -LOUDEST;
}

static int16_t to_int16(float x) {
    x *= 32768.0f;
    x = x > -32768.0f ? x : -32768.0f; /* NaN too */
    return (int16_t)lrintf(x < 32767.0f ? x : 32767.0f);
}

size_t ss_stream_ready(const ss_stream *s, size_t n) {
    uint64_t hop = s->model->is.hop, delay = ss_delay(s->model);
    uint64_t taken = (s->ended ? 0 : s->taken) + n, given = s->ended ? 0 : s->given, done = taken / hop * hop;
    return done > delay ? (size_t)(done - delay - given) : 0;
}

/* Takes n samples of either type (both NULL: zeros) and writes at most `most` of what is finished, as the same type. */
static size_t process(ss_stream *s, const float *in, const int16_t *in16, size_t n, float *out, int16_t *out16, size_t most) {
    const ss_model *m = s->model;
    int hop = m->is.hop, history = m->kernel - hop;
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        float *to = s->heard + history;
        for (; i < n && s->waiting < MOST_FRAMES * hop; i++, s->waiting++)
            to[s->waiting] = in ? repair(in[i], &s->repaired) : in16 ? in16[i] / 32768.0f : 0;
        int frames = s->waiting / hop, rest = s->waiting - frames * hop;
        if (!frames) break;
        advance(s, frames, s->estimate);
        memmove(to, to + frames * hop, rest * sizeof(float));
        s->waiting = rest;
        int dropped = s->early < frames * hop ? (int)s->early : frames * hop;
        s->early -= dropped;
        for (int j = dropped; j < frames * hop && done < most; j++, done++) {
            if (out16)
                out16[done] = to_int16(s->estimate[j]);
            else
                out[done] = s->estimate[j];
        }
    }
    s->given += done;
    return done;
}

static size_t take_samples(ss_stream *s, const float *in, const int16_t *in16, size_t n, float *out, int16_t *out16) {
    if (s->ended) ss_stream_reset(s);
    s->taken += n;
    return process(s, in, in16, n, out, out16, SIZE_MAX);
}

size_t ss_stream_process(ss_stream *s, const float *in, size_t n, float *out) { return take_samples(s, in, NULL, n, out, NULL); }

size_t ss_stream_process_int16(ss_stream *s, const int16_t *in, size_t n, int16_t *out) {
    return take_samples(s, NULL, in, n, NULL, out);
}

static size_t end(ss_stream *s, float *out, int16_t *out16) {
    if (s->ended) return 0;
    size_t hop = s->model->is.hop, missing = (size_t)(s->taken - s->given), delay = ss_delay(s->model);
    size_t filling = delay + (hop - (size_t)((s->taken + delay) % hop)) % hop;
    s->ended = 1;
    return process(s, NULL, NULL, filling, out, out16, missing);
}

size_t ss_stream_flush(ss_stream *s, float *out) { return end(s, out, NULL); }
size_t ss_stream_flush_int16(ss_stream *s, int16_t *out) { return end(s, NULL, out); }

void ss_stream_step(ss_stream *s, const float *in, size_t n_hops, float *out) {
    int hop = s->model->is.hop, history = s->model->kernel - hop;
    if (s->ended) ss_stream_reset(s);
    while (n_hops) {
        int frames = n_hops < MOST_FRAMES ? (int)n_hops : MOST_FRAMES;
        for (int i = 0; i < frames * hop; i++) s->heard[history + i] = repair(in[i], &s->repaired);
        advance(s, frames, out);
        in += frames * hop, out += frames * hop, n_hops -= frames;
    }
}

/* ---------------------------------------------------------------- enrolment -------------------------------------------------- */

/* Each row x [n][width] minus its mean and over its standard deviation; gain and offset are in the product behind. */
static void normalize(const float *x, float *y, int n, int width, size_t step) {
    for (int t = 0; t < n; t++, x += step, y += step) {
        double sum = 0, squares = 0;
        for (int i = 0; i < width; i++) sum += x[i];
        double mean = sum / width;
        for (int i = 0; i < width; i++) squares += (x[i] - mean) * (x[i] - mean);
        float scale = (float)(1 / sqrt(squares / width + NORM_EPSILON));
        for (int i = 0; i < width; i++) y[i] = (x[i] - (float)mean) * scale;
    }
}

static void prelu(float *x, int n, int width, size_t step, float slope) {
    for (int t = 0; t < n; t++)
        for (int i = 0; i < width; i++) x[t * step + i] *= x[t * step + i] > 0 ? 1 : slope;
}

/* x [3n][in] -> [n][out], in place. */
static void run_resnet(const struct kernels *k, const struct resnet *net, float *x, float *y, float *z, int n, size_t step) {
    int out = net->conv2.n_out;
    multiply_onto(k, &net->conv1, x, step, 3 * n, NULL, y, step, 0, NULL);
    prelu(y, 3 * n, out, step, *net->slopes1);
    multiply_onto(k, &net->conv2, y, step, 3 * n, NULL, z, step, 0, NULL);
    if (net->residual.floats)
        multiply_onto(k, &net->residual, x, step, 3 * n, z, z, step, 0, NULL);
    else
        for (size_t i = 0; i < 3 * n * step; i++) z[i] += x[i];
    prelu(z, 3 * n, out, step, *net->slopes2);
    for (int t = 0; t < n; t++)
        for (int i = 0; i < out; i++) {
            float a = z[3 * t * step + i], b = z[(3 * t + 1) * step + i], c = z[(3 * t + 2) * step + i];
            float most = a > b ? a : b;
            x[t * step + i] = most > c ? most : c;
        }
}

static int enroll(const ss_model *m, const float *samples, const int16_t *samples16, size_t n, float *conditions) {
    const struct kernels *k = m->kernels;
    int e = m->is.embedding, any = 0;
    size_t hop = 2 * (size_t)m->is.hop, kernel = m->kernel;
    if (n < (size_t)ss_shortest_enrolment(m)) {
        last_error = "the enrolment is too short";
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (samples && !(samples[i] - samples[i] == 0)) {
            last_error = "expected finite samples as enrolment, found some that are NaN or infinite";
            return -1;
        }
        any |= samples ? samples[i] != 0 : samples16[i] != 0;
    }
    if (!any) {
        last_error = "expected speech as enrolment, found silence";
        return -1;
    }
    /* The speaker encoder works through `stride` frames by themselves, so the recording comes in blocks of as many. */
    int block = m->stride * (m->stride < 16 ? 16 / m->stride + 1 : 1);
    size_t step = m->widest, rows = block * step;
    size_t floats = 4 * rows + 2 * kernel + 4 * (size_t)padded(m->masked) + padded(2 * m->masked) + kernel +
                    padded(e) + m->n_conditions + 16 * PAD;
    float *memory = calloc(floats, sizeof *memory);
    double *sum = calloc(e, sizeof *sum);
    if (!memory || !sum) {
        free(memory);
        free(sum);
        last_error = "no memory for the enrolment";
        return -1;
    }
    float *features = memory, *x = features + rows, *y = x + rows, *z = y + rows, *frame = z + rows + PAD, *work = frame + kernel + PAD;
    float *pieces = work + 2 * kernel + PAD, *spectrum = pieces + 4 * (size_t)padded(m->masked) + PAD;
    float *speaker = spectrum + padded(2 * m->masked) + PAD, *product = speaker + padded(e) + PAD;

    size_t n_frames = (n - kernel) / hop + 1, n_embeddings = n_frames / m->stride;
    for (size_t begin = 0; begin < n_frames; begin += block) {
        int count = n_frames - begin < (size_t)block ? (int)(n_frames - begin) : block;
        for (int t = 0; t < count; t++) {
            for (size_t i = 0; i < kernel; i++) {
                size_t place = (begin + t) * hop + i;
                frame[i] = samples ? samples[place] : samples16[place] / 32768.0f;
            }
            analyse(m, frame, y + t * step, spectrum, pieces, work);
        }
        normalize(y, features, count, m->n_features, step);
        int left = count / m->stride * m->stride;
        multiply_onto(k, &m->speaker_input, features, step, left, NULL, x, step, 0, NULL);
        for (int i = 0; i < (int)m->is.n_resnets; i++) {
            left /= 3;
            run_resnet(k, &m->resnets[i], x, y, z, left, step);
        }
        multiply_onto(k, &m->speaker_output, x, step, left, NULL, y, step, 0, NULL);
        for (int t = 0; t < left; t++)
            for (int i = 0; i < e; i++) sum[i] += y[t * step + i];
    }
    for (int i = 0; i < e; i++) speaker[i] = (float)(sum[i] / (double)n_embeddings);
    multiply_onto(k, &m->conditions, speaker, padded(e), 1, NULL, product, 0, 0, NULL);
    memcpy(conditions, product, m->n_conditions * sizeof(float));
    free(memory);
    free(sum);
    return 0;
}

int ss_enroll(const ss_model *m, const float *samples, size_t n, float *conditions) { return enroll(m, samples, NULL, n, conditions); }

int ss_enroll_int16(const ss_model *m, const int16_t *samples, size_t n, float *conditions) {
    return enroll(m, NULL, samples, n, conditions);
}
