/* One speaker out of a recording: example model.ss enrolment.wav call.wav out.raw (16-bit mono files at the model's rate, headers of
 * 44 bytes; the result has none). */
#include <stdio.h>
#include <stdlib.h>

#include "ss.h"

static size_t read_samples(FILE *file, int16_t *samples, size_t n) { return fread(samples, sizeof *samples, n, file); }

int main(int argc, char **argv) {
    static int16_t recording[30 * 48000], block[160], out[160 + 8192];
    ss_model *model = argc == 5 ? ss_load(argv[1]) : NULL;
    if (!model) return fprintf(stderr, "example model.ss enrolment.wav call.wav out.raw: %s\n", ss_error()), 1;
    FILE *enrolment = fopen(argv[2], "rb"), *call = fopen(argv[3], "rb"), *result = fopen(argv[4], "wb");
    if (!enrolment || !call || !result) return fprintf(stderr, "a file cannot be opened\n"), 1;

    fseek(enrolment, 44, SEEK_SET);
    size_t n = read_samples(enrolment, recording, sizeof recording / sizeof *recording);
    float *voice = malloc(ss_n_conditions(model) * sizeof *voice);
    if (!voice || ss_enroll_int16(model, recording, n, voice)) return fprintf(stderr, "%s: %s\n", argv[2], ss_error()), 1;
    ss_stream *stream = ss_stream_new(model, voice);
    if (!stream) return fprintf(stderr, "%s\n", ss_error()), 1;

    fseek(call, 44, SEEK_SET);
    while ((n = read_samples(call, block, 160))) fwrite(out, sizeof *out, ss_stream_process_int16(stream, block, n, out), result);
    fwrite(out, sizeof *out, ss_stream_flush_int16(stream, out), result);
    ss_stream_free(stream);
    free(voice);
    ss_model_free(model);
    return fclose(result) != 0;
}
