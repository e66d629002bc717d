/* libss: one speaker's voice out of a live mixture, in C without dependencies.
 *
 *     ss_model *model = ss_load("model.ss");
 *     float *voice = malloc(ss_n_conditions(model) * sizeof *voice);
 *     ss_enroll(model, recording, n_recording, voice);
 *     ss_stream *stream = ss_stream_new(model, voice);
 *     for (;;) n_out = ss_stream_process(stream, in, n, out);
 *     n_out = ss_stream_flush(stream, out);
 *
 * Audio is mono, at the rate of the model (ss_sample_rate), float32 in -1..1 or int16. A model never changes once it is loaded: any
 * number of threads may use one. A stream is for one thread at a time. Only ss_load, ss_load_memory, ss_enroll, ss_voice_load
 * and ss_stream_new allocate memory; no call takes a lock.
 */
#ifndef SS_H
#define SS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(SS_BUILD_DLL)
#define SS_API __declspec(dllexport)
#elif defined(__GNUC__)
#define SS_API __attribute__((visibility("default")))
#else
#define SS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ss_model ss_model;
typedef struct ss_stream ss_stream;

/* Version of this interface and of the model files that the library reads. */
#define SS_VERSION 2
SS_API int ss_version(void);

/* Why the last call of this thread failed, in words. A call that succeeds leaves the text as it was. Never NULL. */
SS_API const char *ss_error(void);

/* A model from a file, or from memory, which may be freed afterwards. NULL on an error: a file that cannot be read or is no model.
 * Magic, version, sizes and checksum are compared, and all options checked, before anything is used. */
SS_API ss_model *ss_load(const char *path);
SS_API ss_model *ss_load_memory(const void *data, size_t size);

/* Frees a model, which no stream may use any more. NULL is allowed. */
SS_API void ss_model_free(ss_model *model);

/* Facts of a model. Hop, delay, latency and enrolment are in samples at the sample rate in Hz. A stream works in steps of a hop. An
 * output sample depends on input samples that are at most ss_latency - 1 later. A stream holds back ss_delay samples, and those that
 * fill no hop yet, until ss_stream_flush. */
SS_API int ss_sample_rate(const ss_model *model);
SS_API int ss_hop(const ss_model *model);
SS_API int ss_delay(const ss_model *model);
SS_API int ss_latency(const ss_model *model);
SS_API int ss_shortest_enrolment(const ss_model *model);
SS_API int ss_n_conditions(const ss_model *model);

/* Text in JSON that the export wrote, and the instructions that compute the model: "avx512vnni", "avx2", "simd128", ... */
SS_API const char *ss_metadata(const ss_model *model);
SS_API const char *ss_kernel(const ss_model *model);

/* A recording [n] of the speaker alone -> conditions [ss_n_conditions], plain numbers, which may be stored. Where there are several
 * recordings, take the mean of their conditions. 0, or -1 on an error: too short, silent, not finite, or no memory. */
SS_API int ss_enroll(const ss_model *model, const float *samples, size_t n, float *conditions);
SS_API int ss_enroll_int16(const ss_model *model, const int16_t *samples, size_t n, float *conditions);

/* A file that Python's `Conditions.save` or `ss-mic enrol` wrote -> conditions [ss_n_conditions]. 0, or -1 on an error: a file that cannot
 * be read, is damaged, or holds a voice for other weights. */
SS_API int ss_voice_load(const ss_model *model, const char *path, float *conditions);

/* A new stream of a speaker; the conditions are copied. NULL on an error: no memory, or conditions that are not finite. */
SS_API ss_stream *ss_stream_new(const ss_model *model, const float *conditions);

/* How many samples ss_stream_process would give for n more: never more than n + ss_hop - 1. */
SS_API size_t ss_stream_ready(const ss_stream *stream, size_t n);

/* Takes n samples, any number, and writes those of the estimate that are finished to `out`, which must not overlap `in`. Returns how
 * many. All outputs one after the other, with those of the flush, are aligned with the input. Samples that are NaN or infinite are
 * taken for 0 and counted; those beyond 8 times full scale are clipped. */
SS_API size_t ss_stream_process(ss_stream *stream, const float *in, size_t n, float *out);
SS_API size_t ss_stream_process_int16(ss_stream *stream, const int16_t *in, size_t n, int16_t *out);

/* Ends a stream: writes the rest, at most ss_delay + ss_hop samples, so that as many came out as went in, and resets it. */
SS_API size_t ss_stream_flush(ss_stream *stream, float *out);
SS_API size_t ss_stream_flush_int16(ss_stream *stream, int16_t *out);

/* For callbacks that give and take blocks of whole hops: n_hops * ss_hop samples in, as many out at once, those of ss_delay samples
 * earlier. `out` may be `in`. Do not mix it with ss_stream_process on one stream without a reset. */
SS_API void ss_stream_step(ss_stream *stream, const float *in, size_t n_hops, float *out);

/* Begins anew, with the same speaker. */
SS_API void ss_stream_reset(ss_stream *stream);

/* Samples since the beginning that were NaN or infinite. */
SS_API size_t ss_stream_repaired(const ss_stream *stream);

/* Bytes of memory that a stream holds. */
SS_API size_t ss_stream_bytes(const ss_stream *stream);

/* NULL is allowed. */
SS_API void ss_stream_free(ss_stream *stream);

#ifdef __cplusplus
}
#endif
#endif
