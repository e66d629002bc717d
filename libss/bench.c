/* What a stream costs: bench model.ss [milliseconds of a chunk ...]. One thread; chunk sizes in turn, so that all meet the same
 * machine; a speaker and a mixture of noise. Prints CPU time per second of audio, and per hop. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ss.h"

#define ROUNDS 20
#define MOST_CHUNKS 16

static float noise(void) {
    static uint32_t seed = 1;
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed / 2147483648.0f * 0.2f;
}

int main(int argc, char **argv) {
    ss_model *model = argc > 1 ? ss_load(argv[1]) : NULL;
    if (!model) return fprintf(stderr, "bench model.ss [ms ...]: %s\n", ss_error()), 1;
    int rate = ss_sample_rate(model), n_chunks = argc > 2 ? argc - 2 : 3;
    double chunks_ms[MOST_CHUNKS] = {7.5, 10, 20}, seconds[MOST_CHUNKS] = {0}, best[MOST_CHUNKS];
    if (n_chunks > MOST_CHUNKS) return fprintf(stderr, "expected at most %d chunk sizes, got %d\n", MOST_CHUNKS, n_chunks), 1;
    for (int i = 2; i < argc; i++) {
        double ms = chunks_ms[i - 2] = atof(argv[i]);
        if (!(ms * rate >= 500 && ms <= 1000))
            return fprintf(stderr, "expected a chunk from a sample to 1000 ms, got %s ms\n", argv[i]), 1;
    }

    size_t n = (size_t)rate * 2 + ss_shortest_enrolment(model);
    float *audio = malloc(n * sizeof *audio), *out = malloc((n + ss_hop(model)) * sizeof *out);
    float *voice = malloc(ss_n_conditions(model) * sizeof *voice);
    if (!audio || !out || !voice) return 1;
    for (size_t i = 0; i < n; i++) audio[i] = noise();
    if (ss_enroll(model, audio, n, voice)) return fprintf(stderr, "%s\n", ss_error()), 1;
    ss_stream *stream = ss_stream_new(model, voice);
    if (!stream) return fprintf(stderr, "%s\n", ss_error()), 1;

    for (int i = 0; i < n_chunks; i++) best[i] = 1e9;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < n_chunks; i++) {
            size_t chunk = (size_t)(chunks_ms[i] * rate / 1000 + 0.5);
            clock_t begun = clock();
            for (size_t at = 0; at + chunk <= (size_t)rate; at += chunk) ss_stream_process(stream, audio + at, chunk, out);
            double spent = (double)(clock() - begun) / CLOCKS_PER_SEC * rate / (rate / chunk * chunk);
            seconds[i] += spent / ROUNDS;
            if (spent < best[i]) best[i] = spent;
        }
    printf("%s, a stream of %zu bytes\n", ss_kernel(model), ss_stream_bytes(stream));
    for (int i = 0; i < n_chunks; i++)
        printf("chunks of %g ms: %.5f CPU seconds per second of audio, %.1f us a hop (best of %d: %.1f us)\n", chunks_ms[i], seconds[i],
               1e6 * seconds[i] * ss_hop(model) / rate, ROUNDS, 1e6 * best[i] * ss_hop(model) / rate);
    ss_stream_free(stream);
    ss_model_free(model);
    free(audio), free(out), free(voice);
    return 0;
}
