/* Runs the library as hostile callers do: check SEED FILE ... For each file: load it, and if it is a model, enrol and stream noise,
 * silence and numbers that are none, in chunks of random lengths, as float32 and as int16, with flushes and resets between, in two
 * streams at once. Buffers are exactly as large as the library says that it needs, so that a sanitizer or valgrind finds every byte
 * beyond. A file NAME.voice is loaded for the model before it. Counts allocations: a step must make none. Prints what became of each file; fails where a promise of ss.h is not kept. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ss.h"

static uint32_t seed;

static uint32_t draw(uint32_t n) { /* below n */
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)seed * n >> 32);
}

static float sample(int kind) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -1e30f, 1e-40f, 9, -9, 1, 0};
    if (kind == 0) return 0;
    if (kind == 1 && !draw(50)) return odd[draw(sizeof odd / sizeof *odd)];
    return ((float)draw(65536) - 32768) / 65536;
}

static void fail(const char *what) {
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

#if defined(COUNT_ALLOCATIONS) /* linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
static size_t allocations;
void *__real_malloc(size_t), *__real_calloc(size_t, size_t), *__real_realloc(void *, size_t);
void *__wrap_malloc(size_t n) { return allocations++, __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return allocations++, __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return allocations++, __real_realloc(p, n); }
#else
static const size_t allocations = 0;
#endif

/* One call with buffers that fit exactly; returns what came out. */
static size_t call(ss_stream *stream, size_t n, int kind, int as_int16, size_t *expected) {
    size_t ready = ss_stream_ready(stream, n), done;
    float *in = malloc(n * sizeof *in + !n), *out = malloc(ready * sizeof *out + !ready);
    int16_t *in16 = malloc(n * sizeof *in16 + !n), *out16 = malloc(ready * sizeof *out16 + !ready);
    if (!in || !out || !in16 || !out16) fail("no memory");
    for (size_t i = 0; i < n; i++) in[i] = sample(kind), in16[i] = (int16_t)draw(65536);
    size_t before = allocations;
    done = as_int16 ? ss_stream_process_int16(stream, in16, n, out16) : ss_stream_process(stream, in, n, out);
    if (allocations != before) fail("a step allocated memory");
    if (done != ready) fail("ss_stream_ready was wrong");
    *expected += n;
    free(in), free(out), free(in16), free(out16);
    return done;
}

static void run(const ss_model *model) {
    size_t shortest = ss_shortest_enrolment(model), n = shortest + draw(3 * ss_hop(model) + 1), most = ss_delay(model) + ss_hop(model);
    float *recording = malloc(n * sizeof *recording), *voice = malloc(ss_n_conditions(model) * sizeof *voice + 1);
    float *rest = malloc(most * sizeof *rest);
    int16_t *rest16 = malloc(most * sizeof *rest16);
    if (!recording || !voice || !rest || !rest16) fail("no memory");
    for (size_t i = 0; i < n; i++) recording[i] = sample(2);
    if (ss_enroll(model, recording, shortest - 1, voice) != -1) fail("an enrolment that is too short was taken");
    if (ss_enroll(model, recording, n, voice)) fail(ss_error());
    ss_stream *streams[2] = {ss_stream_new(model, voice), ss_stream_new(model, voice)};
    size_t taken[2] = {0}, given[2] = {0};
    for (int turn = 0; turn < 60 && streams[0] && streams[1]; turn++) {
        int which = draw(2), as_int16 = draw(2);
        ss_stream *stream = streams[which];
        size_t longest = draw(4) ? 2 * (size_t)ss_hop(model) : 20 * (size_t)ss_hop(model);
        given[which] += call(stream, draw((uint32_t)longest + 1), draw(3), as_int16, &taken[which]);
        if (given[which] > taken[which]) fail("more came out than went in");
        if (!draw(10)) {
            size_t before = allocations;
            given[which] += as_int16 ? ss_stream_flush_int16(stream, rest16) : ss_stream_flush(stream, rest);
            if (allocations != before) fail("a flush allocated memory");
            if (given[which] != taken[which]) fail("not as much came out as went in");
            given[which] = taken[which] = 0;
        } else if (!draw(10)) {
            ss_stream_reset(stream);
            given[which] = taken[which] = 0;
        }
    }
    for (int i = 0; i < 2; i++) {
        size_t hops = draw(12), n_step = hops * ss_hop(model);
        float *block = malloc(n_step * sizeof *block + 1);
        if (!block) fail("no memory");
        for (size_t j = 0; j < n_step; j++) block[j] = sample(1);
        if (streams[i]) ss_stream_reset(streams[i]), ss_stream_step(streams[i], block, hops, block);
        free(block);
        ss_stream_free(streams[i]);
    }
    free(recording), free(voice), free(rest), free(rest16);
}

int main(int argc, char **argv) {
    ss_model *model = NULL;
    for (int i = 2; i < argc; i++) {
        seed = (uint32_t)atoi(argv[1]) * 2654435761u + (uint32_t)i;
        const char *suffix = strrchr(argv[i], '.');
        if (model && suffix && !strcmp(suffix, ".voice")) {
            float *voice = malloc(ss_n_conditions(model) * sizeof *voice + 1);
            if (!voice) fail("no memory");
            printf("%s: %s\n", argv[i], ss_voice_load(model, argv[i], voice) ? ss_error() : "a voice");
            free(voice);
            continue;
        }
        ss_model_free(model);
        model = ss_load(argv[i]);
        if (model) run(model);
        printf("%s: %s\n", argv[i], model ? "ran" : ss_error());
    }
    ss_model_free(model);
    return 0;
}
