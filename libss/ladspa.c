/* A LADSPA plugin: in comes a microphone, out goes the voice of one speaker. For PipeWire, PulseAudio and other hosts.
 *
 * The model and the speaker's voice are files, named by the environment (SS_MODEL, SS_VOICE) or else by lines `model=PATH` and
 * `voice=PATH` of $XDG_CONFIG_HOME/ss/mic.conf. Where one is missing or damaged, a line on stderr says so and silence comes out: the
 * microphone must not give away what it was told to remove, and silence is noticed. Figures for `ss-mic status` are in the file
 * $XDG_RUNTIME_DIR/ss-mic/PID.N of each instance.
 */
#include "ss.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What hosts know of a plugin: the binary interface of LADSPA 1.1 (ladspa.org). */
struct range {
    int hint;
    float lower, upper;
};
struct descriptor {
    unsigned long id;
    const char *label;
    int properties;
    const char *name, *maker, *copyright;
    unsigned long n_ports;
    const int *ports;
    const char *const *port_names;
    const struct range *ranges;
    void *data;
    void *(*instantiate)(const struct descriptor *, unsigned long rate);
    void (*connect_port)(void *, unsigned long port, float *);
    void (*activate)(void *);
    void (*run)(void *, unsigned long n);
    void (*run_adding)(void *, unsigned long n);
    void (*set_run_adding_gain)(void *, float);
    void (*deactivate)(void *);
    void (*cleanup)(void *);
};
enum { PORT_INPUT = 1, PORT_OUTPUT = 2, PORT_CONTROL = 4, PORT_AUDIO = 8 };
enum { BOUNDED = 3, TOGGLED = 4, DEFAULT_0 = 0x200, DEFAULT_1 = 0x240, HARD_REALTIME = 4 };
enum { INPUT, OUTPUT, ON, REST, LATENCY, N_PORTS };

enum { PIECE = 256, REACH = 20, MOST_REACH = 4000, MOST_PHASES = 1024, LANES = 8, MOST_LATENCY = 1 << 22 };
static const double CUTOFF = 0.92, BETA = 9; /* as ss/runtime/resample.py */
static const float LOUDEST = 8, QUIETEST = 1e-20f, FADE_SECONDS = 0.02f;

/* ---------------------------------------------------------------- other rates ------------------------------------------------ */

/* A stream from one rate to another as ss.runtime.resample has it: output i is the input at i * down / up. Where there are too many
 * phases to store all filters, those of two neighbouring phases are interpolated. */
struct resampler {
    int up, down, n_phases, reach, n_taps; /* reach: samples of the input to either side; 0: the rates are equal */
    float *filters, *heard;                /* [n_phases + 1][n_taps], [n_taps + PIECE or what the model gives] */
    size_t n_heard, place;                 /* of `heard`; where the next window begins */
    int phase;
};

static double bessel(double x) {
    double sum = 1, term = 1;
    for (int k = 1; term > 1e-17 * sum; k++) sum += term *= x * x / 4 / k / k;
    return sum;
}

static void begin_resampler(struct resampler *r) {
    r->n_heard = r->reach ? r->reach - 1 : 0, r->place = 0, r->phase = 0;
    memset(r->heard, 0, r->n_heard * sizeof *r->heard);
}

/* `most` samples may come at once. 0, or -1 where memory or the filters' length do not suffice. */
static int make_resampler(struct resampler *r, int before, int after, size_t most) {
    int common = before, rest = after;
    while (rest) {
        int left = common % rest;
        common = rest, rest = left;
    }
    double band = after < before ? (double)after / before : 1;
    r->up = after / common, r->down = before / common;
    r->n_phases = r->up < MOST_PHASES ? r->up : MOST_PHASES;
    r->reach = before == after ? 0 : (int)ceil(REACH / band);
    r->n_taps = (2 * r->reach + LANES - 1) / LANES * LANES;
    if (r->reach > MOST_REACH || !(r->heard = calloc(r->n_taps + most + LANES, sizeof *r->heard))) return -1;
    if (r->reach && !(r->filters = calloc((size_t)(r->n_phases + 1) * r->n_taps, sizeof *r->filters))) return -1;
    for (int phase = 0; r->reach && phase <= r->n_phases; phase++) {
        float *filter = r->filters + (size_t)phase * r->n_taps;
        double sum = 0, taps[2 * MOST_REACH];
        for (int i = 0; i < 2 * r->reach; i++) {
            double offset = 1 - r->reach + i - (double)phase / r->n_phases, x = M_PI * CUTOFF * band * offset;
            double inside = 1 - offset / r->reach * (offset / r->reach);
            sum += taps[i] = (x ? sin(x) / x : 1) * bessel(BETA * sqrt(inside > 0 ? inside : 0));
        }
        for (int i = 0; i < 2 * r->reach; i++) filter[i] = (float)(taps[i] / sum);
    }
    begin_resampler(r);
    return 0;
}

static float filter_samples(const float *samples, const float *filter, int n_taps) {
    float sums[LANES] = {0}, sum = 0;
    for (int i = 0; i < n_taps; i += LANES)
        for (int j = 0; j < LANES; j++) sums[j] += samples[i + j] * filter[i + j];
    for (int j = 0; j < LANES; j++) sum += sums[j];
    return sum;
}

/* Takes n samples, and gives as many as are ready. */
static size_t resample(struct resampler *r, const float *in, size_t n, float *out) {
    size_t given = 0;
    if (!r->reach) {
        memcpy(out, in, n * sizeof *out);
        return n;
    }
    memcpy(r->heard + r->n_heard, in, n * sizeof *in);
    r->n_heard += n;
    for (; r->place + 2 * r->reach <= r->n_heard; given++) {
        uint64_t between = (uint64_t)r->phase * r->n_phases;
        const float *samples = r->heard + r->place, *filter = r->filters + between / r->up * r->n_taps;
        float part = (float)(between % r->up) / r->up;
        out[given] = filter_samples(samples, filter, r->n_taps);
        if (part) out[given] += part * (filter_samples(samples, filter + r->n_taps, r->n_taps) - out[given]);
        r->phase += r->down;
        r->place += r->phase / r->up, r->phase %= r->up;
    }
    size_t done = r->place < r->n_heard ? r->place : r->n_heard;
    r->n_heard -= done, r->place -= done;
    memmove(r->heard, r->heard + done, r->n_heard * sizeof *r->heard);
    return given;
}

static void free_resampler(struct resampler *r) {
    free(r->filters);
    free(r->heard);
}

/* ---------------------------------------------------------------- an instance ------------------------------------------------ */

/* Of `ss-mic status`, which knows this layout. Levels are peaks that fall to nothing within a second. */
struct status {
    uint64_t blocks, samples, busy_ns, late, repaired; /* late: blocks that took longer than they last */
    uint32_t rate, latency, works;                     /* latency in samples at this rate */
    float level_in, level_out, highest_load;
};

struct microphone {
    float *ports[N_PORTS];
    ss_model *model;
    ss_stream *stream;                               /* NULL: there is none, and the estimate is silence */
    struct resampler coming, going;                  /* to the model's rate, and back */
    float *dry, *estimate;                           /* rings [mask + 1] of the input and the estimate at the host's rate */
    float *heard, *model_in, *model_out, *resampled; /* of a piece */
    size_t mask, latency, taken, made;               /* ring - 1; samples; so far: samples of the input and the estimate */
    float rest, fade;                                /* part of the input that stays, now; its change per sample */
    struct status *status, unseen;
    char status_path[4096];
};

/* A path that the environment or mic.conf names; "" where there is none. */
static void find_path(const char *variable, const char *key, char *path, size_t size) {
    const char *named = getenv(variable), *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char line[4200];
    snprintf(path, size, "%s", named ? named : "");
    if (*path) return;
    if (config && *config)
        snprintf(line, sizeof line, "%s/ss/mic.conf", config);
    else
        snprintf(line, sizeof line, "%s/.config/ss/mic.conf", home ? home : "");
    FILE *file = fopen(line, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == '=') snprintf(path, size, "%s", line + strlen(key) + 1);
    }
    if (file) fclose(file);
}

/* The model, the voice and all memory. NULL, or why there is no estimate. */
static const char *load(struct microphone *m, int rate, const char *model_path, const char *voice_path) {
    if (!*model_path) return "no model is named";
    if (!*voice_path) return "no voice is named";
    if (!(m->model = ss_load(model_path))) return ss_error();
    int model_rate = ss_sample_rate(m->model), hop = ss_hop(m->model);
    size_t most = (size_t)PIECE * model_rate / rate + 2, most_made = most + hop;
    float *conditions = calloc(ss_n_conditions(m->model), sizeof *conditions);
    int found = conditions && !ss_voice_load(m->model, voice_path, conditions);
    m->stream = found ? ss_stream_new(m->model, conditions) : NULL;
    free(conditions);
    if (!m->stream) return conditions ? ss_error() : "no memory";
    /* So much is missing at most, however the samples come: what either filter has yet to hear, and an unfinished hop. */
    int resamples = !make_resampler(&m->coming, rate, model_rate, PIECE) && !make_resampler(&m->going, model_rate, rate, most_made);
    uint64_t held = hop - 1 + ss_delay(m->model) + m->going.reach, latency = m->coming.reach + held * rate / model_rate;
    if (!resamples || latency > MOST_LATENCY) return "no memory, or no way to this sample rate";
    m->latency = latency;
    m->model_in = calloc(most, sizeof(float));
    m->model_out = calloc(most_made, sizeof(float));
    m->resampled = calloc(most_made * rate / model_rate + 2, sizeof(float));
    if (!m->model_in || !m->model_out || !m->resampled) return "no memory";
    return NULL;
}

static void open_status(struct microphone *m) {
    static int n_instances;
    const char *folder = getenv("XDG_RUNTIME_DIR");
    m->status = &m->unseen;
    if (!folder || !*folder) return;
    snprintf(m->status_path, sizeof m->status_path, "%s/ss-mic", folder);
    mkdir(m->status_path, 0700);
    int number = __atomic_fetch_add(&n_instances, 1, __ATOMIC_RELAXED);
    snprintf(m->status_path, sizeof m->status_path, "%s/ss-mic/%ld.%d", folder, (long)getpid(), number);
    int file = open(m->status_path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    void *shared = MAP_FAILED;
    if (file >= 0 && !posix_fallocate(file, 0, sizeof *m->status)) /* so that a full disk is no SIGBUS */
        shared = mmap(NULL, sizeof *m->status, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (shared != MAP_FAILED)
        m->status = shared;
    else
        *m->status_path = 0;
}

static void activate(void *instance) {
    struct microphone *m = instance;
    if (m->stream) {
        ss_stream_reset(m->stream);
        begin_resampler(&m->coming);
        begin_resampler(&m->going);
    }
    memset(m->dry, 0, (m->mask + 1) * sizeof *m->dry);
    memset(m->estimate, 0, (m->mask + 1) * sizeof *m->estimate);
    m->taken = m->made = 0;
    m->rest = -1; /* begins with what the controls say */
}

static void clean_up(void *instance) {
    struct microphone *m = instance;
    if (m->status && m->status != &m->unseen) {
        munmap(m->status, sizeof *m->status);
        unlink(m->status_path);
    }
    ss_stream_free(m->stream);
    ss_model_free(m->model);
    free_resampler(&m->coming);
    free_resampler(&m->going);
    float *all[] = {m->dry, m->estimate, m->heard, m->model_in, m->model_out, m->resampled};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(m);
}

static void *instantiate(const struct descriptor *descriptor, unsigned long rate) {
    (void)descriptor;
    struct microphone *m = calloc(1, sizeof *m);
    char model[4096], voice[4096];
    if (!m) return NULL;
    find_path("SS_MODEL", "model", model, sizeof model);
    find_path("SS_VOICE", "voice", voice, sizeof voice);
    const char *problem = rate < 4000 || rate > 768000 ? "expected a sample rate of 4000 to 768000 Hz" : load(m, (int)rate, model, voice);
    if (problem) {
        fprintf(stderr, "ss: the virtual microphone is silent: %s (model %s, voice %s)\n", problem, model, voice);
        ss_stream_free(m->stream);
        m->stream = NULL, m->latency = 0;
    }
    while (m->mask < m->latency + PIECE) m->mask = 2 * m->mask + 1;
    m->dry = calloc(m->mask + 1, sizeof(float));
    m->estimate = calloc(m->mask + 1, sizeof(float));
    m->heard = calloc(PIECE, sizeof(float));
    if (!m->dry || !m->estimate || !m->heard) {
        clean_up(m);
        return NULL;
    }
    open_status(m);
    m->fade = 1 / (FADE_SECONDS * (rate ? rate : 1));
    m->status->rate = (uint32_t)rate, m->status->latency = (uint32_t)m->latency, m->status->works = m->stream != NULL;
    activate(m);
    return m;
}

static void connect_port(void *instance, unsigned long port, float *data) {
    if (port < N_PORTS) ((struct microphone *)instance)->ports[port] = data;
}

/* n <= PIECE samples; in and out may be the same. rest: the part of the input that is to stay. */
static void process(struct microphone *m, const float *in, float *out, size_t n, float rest) {
    struct status *status = m->status;
    for (size_t i = 0; i < n; i++) {
        float x = in[i], level = fabsf(x);
        if (!(x - x == 0)) status->repaired++, x = level = 0; /* NaN or infinite */
        x = level < QUIETEST ? 0 : level > LOUDEST ? copysignf(LOUDEST, x) : x;
        status->level_in = level > status->level_in ? level : status->level_in;
        m->heard[i] = m->dry[(m->taken + i) & m->mask] = x;
    }
    if (m->stream) {
        size_t ready = resample(&m->coming, m->heard, n, m->model_in);
        ready = resample(&m->going, m->model_out, ss_stream_process(m->stream, m->model_in, ready, m->model_out), m->resampled);
        for (size_t i = 0; i < ready; i++) { /* a damaged model may give what is not finite */
            float x = m->resampled[i];
            m->estimate[m->made++ & m->mask] = x - x == 0 ? x : 0;
        }
    }
    for (size_t i = 0; i < n; i++) {
        size_t place = (m->taken + i - m->latency) & m->mask;
        float left = rest - m->rest;
        m->rest += left > m->fade ? m->fade : left < -m->fade ? -m->fade : left;
        out[i] = m->rest * m->dry[place] + (1 - m->rest) * m->estimate[place];
        float level = fabsf(out[i]);
        status->level_out = level > status->level_out ? level : status->level_out;
    }
    m->taken += n;
}

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void run(void *instance, unsigned long n) {
    struct microphone *m = instance;
    struct status *status = m->status;
    float **ports = m->ports, seconds = (float)n / (status->rate ? status->rate : 1), fall = seconds < 1 ? 1 - seconds : 0;
    if (ports[LATENCY]) *ports[LATENCY] = (float)m->latency;
    if (!n || !ports[INPUT] || !ports[OUTPUT]) return;
    uint64_t begun = nanoseconds();
    float rest = ports[REST] && *ports[REST] > 0 ? *ports[REST] : 0; /* NaN: none */
    if (rest > 1 || (ports[ON] && *ports[ON] <= 0)) rest = 1;
    if (m->rest < 0) m->rest = rest;
    status->level_in *= fall, status->level_out *= fall;
    for (unsigned long done = 0; done < n; done += PIECE)
        process(m, ports[INPUT] + done, ports[OUTPUT] + done, n - done < PIECE ? n - done : PIECE, rest);
    uint64_t took = nanoseconds() - begun;
    float load = (float)(took / (1e9 * seconds));
    status->blocks++, status->samples += n, status->busy_ns += took, status->late += load > 1;
    status->highest_load = load > status->highest_load ? load : status->highest_load;
}

static const int PORTS[N_PORTS] = {PORT_INPUT | PORT_AUDIO, PORT_OUTPUT | PORT_AUDIO, PORT_INPUT | PORT_CONTROL,
                                   PORT_INPUT | PORT_CONTROL, PORT_OUTPUT | PORT_CONTROL};
static const char *const PORT_NAMES[N_PORTS] = {"Input", "Output", "On", "Rest", "latency"}; /* hosts look for "latency" */
static const struct range RANGES[N_PORTS] = {[ON] = {TOGGLED | DEFAULT_1, 0, 1}, [REST] = {BOUNDED | DEFAULT_0, 0, 1}};
static const struct descriptor DESCRIPTOR = {
    .id = 21331,
    .label = "ss",
    .properties = HARD_REALTIME,
    .name = "Voice of one speaker",
    .maker = "ss",
    .copyright = "MIT",
    .n_ports = N_PORTS,
    .ports = PORTS,
    .port_names = PORT_NAMES,
    .ranges = RANGES,
    .instantiate = instantiate,
    .connect_port = connect_port,
    .activate = activate,
    .run = run,
    .cleanup = clean_up,
};

SS_API const struct descriptor *ladspa_descriptor(unsigned long index);
const struct descriptor *ladspa_descriptor(unsigned long index) { return index ? NULL : &DESCRIPTOR; }
