/* The inner loops of ss.c, for one set of vector instructions. ss.c includes this file once for each set that it is built with:
 * NAME(x) gives a function its own name, TARGET tells the compiler which instructions it may use, W is the number of floats in a
 * vector (a power of two; 1 for a compiler without vector types). INT8_DOT names how four products of bytes are summed.
 *
 * Rows are frames. Rows of results are written in whole vectors, so that they must be padded to a multiple of PAD floats.
 */

#define INLINE static inline __attribute__((always_inline)) TARGET
#define V NAME(floats)
#define VI NAME(ints)

#if W == 1
typedef float V;
typedef int32_t VI;
#define MASK(condition) (-(VI)(condition))
#else
typedef float V __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int8_t NAME(few_bytes) __attribute__((vector_size(W), aligned(1), may_alias));
#define MASK(condition) ((VI)(condition))
#endif

INLINE V NAME(load)(const float *p) { return *(const V *)p; }
INLINE void NAME(store)(float *p, V x) { *(V *)p = x; }
INLINE V NAME(all)(float x) { return x - (V){0}; }
INLINE VI NAME(bits)(V x) {
    VI y;
    memcpy(&y, &x, sizeof y);
    return y;
}
INLINE V NAME(from_bits)(VI x) {
    V y;
    memcpy(&y, &x, sizeof y);
    return y;
}
INLINE V NAME(choose)(VI mask, V a, V b) { return NAME(from_bits)((NAME(bits)(a) & mask) | (NAME(bits)(b) & ~mask)); }
INLINE V NAME(clamp)(V x, float least, float most) { /* NaN becomes `least` */
    V low = NAME(all)(least), high = NAME(all)(most);
    x = NAME(choose)(MASK(x > low), x, low);
    return NAME(choose)(MASK(x < high), x, high);
}

/* e^x, within 2 units of the last place; x beyond +-87 counts as that. */
INLINE V NAME(exp)(V x) {
    const float magic = 12582912.0f; /* adding it rounds to whole numbers, which then are the lowest bits */
    x = NAME(clamp)(x, -87.0f, 87.0f);
    V shifted = x * 1.44269504088896341f + magic, n = shifted - magic;
    V r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    VI power = (NAME(bits)(shifted) - NAME(bits)(NAME(all)(magic)) + 127) << 23;
    return p * NAME(from_bits)(power);
}

/* Natural logarithm of a normal number above 0. */
INLINE V NAME(log)(V x) {
    VI exponent = (NAME(bits)(x) - 0x3f3504f3) >> 23;
    V m = NAME(from_bits)(NAME(bits)(x) - exponent * (1 << 23)) - 1.0f;
    V e = NAME(from_bits)(exponent + 0x4b400000) - 12582912.0f;
    V square = m * m;
    V p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * square - e * 2.12194440e-4f - square * 0.5f;
    return m + p + e * 0.693359375f;
}

INLINE V NAME(sigmoid)(V x) { return 1.0f / (1.0f + NAME(exp)(-x)); }
INLINE V NAME(tanh)(V x) { return 2.0f / (1.0f + NAME(exp)(-2.0f * x)) - 1.0f; }

/* `rows` rows x [n_in] times a panel [n_in][vectors*W], onto `begin`; rows and vectors are constants where this is inlined. */
INLINE void NAME(float_panel)(const int rows, const int vectors, int n_in, const float *w, const float *x, size_t x_step,
                              const float *begin, size_t begin_step, float *y, size_t y_step, int relu) {
    V sum[4][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = NAME(load)(begin + r * begin_step + v * W);
    for (int i = 0; i < n_in; i++, w += vectors * W) {
        UNROLL for (int v = 0; v < vectors; v++) {
            V weight = NAME(load)(w + v * W);
            UNROLL for (int r = 0; r < rows; r++) sum[r][v] += weight * x[r * x_step + i];
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) {
            V s = sum[r][v];
            if (relu) s = NAME(choose)(MASK(s > NAME(all)(0)), s, NAME(all)(0));
            NAME(store)(y + r * y_step + v * W, s);
        }
}

/* The sum of w [W][4] * x [4] onto W sums; x is the same for all. */
INLINE VI NAME(dot)(VI sum, const int8_t *w, const int8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
#if INT8_DOT == DOT_VNNI /* wants x without a sign; what 128 too many gives was subtracted before */
    return (VI)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four ^ (int)0x80808080), _mm512_loadu_si512((const void *)w));
#elif INT8_DOT == DOT_AVX2 /* |x| * (w with the sign of x): at most 127 * 127 twice, which fits 16 bits */
    __m256i other = _mm256_set1_epi32(four), weight = _mm256_loadu_si256((const __m256i *)w);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(other), _mm256_sign_epi8(weight, other));
    return sum + (VI)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif INT8_DOT == DOT_WASM
    v128_t wide = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_splat(x)), both = wasm_v128_load(w);
    v128_t low = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(both), wide);
    v128_t high = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(both), wide);
    return sum + (VI)wasm_i32x4_add(wasm_i32x4_shuffle(low, high, 0, 2, 4, 6), wasm_i32x4_shuffle(low, high, 1, 3, 5, 7));
#elif INT8_DOT == DOT_SSE2
    __m128i both = _mm_loadu_si128((const __m128i *)w), wide = _mm_set1_epi32(four);
    wide = _mm_srai_epi16(_mm_unpacklo_epi8(wide, wide), 8);
    __m128i low = _mm_madd_epi16(_mm_srai_epi16(_mm_unpacklo_epi8(both, both), 8), wide);
    __m128i high = _mm_madd_epi16(_mm_srai_epi16(_mm_unpackhi_epi8(both, both), 8), wide);
    __m128 even = _mm_shuffle_ps(_mm_castsi128_ps(low), _mm_castsi128_ps(high), _MM_SHUFFLE(2, 0, 2, 0));
    __m128 odd = _mm_shuffle_ps(_mm_castsi128_ps(low), _mm_castsi128_ps(high), _MM_SHUFFLE(3, 1, 3, 1));
    return sum + (VI)_mm_add_epi32(_mm_castps_si128(even), _mm_castps_si128(odd));
#elif INT8_DOT == DOT_NEON
    int8x16_t both = vld1q_s8(w), other = vreinterpretq_s8_s32(vdupq_n_s32(four));
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(both), vget_low_s8(other)));
    int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(both), vget_high_s8(other)));
    return sum + (VI)vpaddq_s32(low, high);
#elif INT8_DOT == DOT_NEON_SDOT
    return (VI)vdotq_s32((int32x4_t)sum, vld1q_s8(w), vreinterpretq_s8_s32(vdupq_n_s32(four)));
#else
    int32_t part[W];
    for (int lane = 0; lane < W; lane++) {
        part[lane] = w[4 * lane] * x[0] + w[4 * lane + 1] * x[1] + w[4 * lane + 2] * x[2] + w[4 * lane + 3] * x[3];
    }
    VI parts;
    memcpy(&parts, part, sizeof parts);
    return sum + parts;
#endif
}

/* The same with bytes: x [n_in], whose unit is x_scale, n_in a multiple of 4; a panel [n_in/4][vectors*W][4]; units of the columns. */
INLINE void NAME(byte_panel)(const int rows, const int vectors, int n_in, const int8_t *w, const float *w_scale,
                             const int32_t *correction, const int8_t *x, size_t x_step, const float *x_scale, const float *begin,
                             size_t begin_step, float *y, size_t y_step, int relu) {
    VI sum[4][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) {
            sum[r][v] = (VI){0};
            if (INT8_DOT == DOT_VNNI) memcpy(&sum[r][v], correction + v * W, sizeof(VI));
        }
    for (int i = 0; i < n_in; i += 4, w += 4 * vectors * W) {
        UNROLL for (int v = 0; v < vectors; v++)
            UNROLL for (int r = 0; r < rows; r++) sum[r][v] = NAME(dot)(sum[r][v], w + 4 * v * W, x + r * x_step + i);
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) {
            V s;
#if W == 1
            s = (V)sum[r][v];
#else
            s = __builtin_convertvector(sum[r][v], V);
#endif
            s = NAME(load)(begin + r * begin_step + v * W) + s * (NAME(load)(w_scale + v * W) * x_scale[r]);
            if (relu) s = NAME(choose)(MASK(s > NAME(all)(0)), s, NAME(all)(0));
            NAME(store)(y + r * y_step + v * W, s);
        }
}

/* Full panels take several rows at once, which share the weights that are read; the last panel, if it is narrower, takes one. */
#if W == 16 /* 32 registers: enough for four rows of floats */
#define MOST_ROWS 4
#define FOUR_ROWS(CALL) if (rows == 4) CALL(0, 4, 4) else
#else
#define MOST_ROWS 2
#define FOUR_ROWS(CALL)
#endif
#define EACH_PANEL(CALL)                                                                                                           \
    if (vectors == 4) {                                                                                                            \
        FOUR_ROWS(CALL)                                                                                                            \
        if (rows == 2) CALL(0, 2, 4)                                                                                               \
        else CALL(0, 1, 4)                                                                                                         \
    } else {                                                                                                                       \
        for (int r = 0; r < rows; r++) {                                                                                           \
            if (vectors == 3) CALL(r, 1, 3)                                                                                        \
            else if (vectors == 2) CALL(r, 1, 2)                                                                                   \
            else CALL(r, 1, 1)                                                                                                     \
        }                                                                                                                          \
    }

/* Rounds x [n] to whole numbers of a unit that is given back, into `bytes` [n rounded up to 4]. */
INLINE float NAME(round_row)(const float *x, int n, int8_t *bytes) {
    const float magic = 12582912.0f; /* see NAME(exp) */
    V highest = NAME(all)(0);
    float most = 1e-20f, lanes[W];
    int i = 0, whole = n / W * W;
    for (; i < whole; i += W) {
        V level = NAME(from_bits)(NAME(bits)(NAME(load)(x + i)) & 0x7fffffff);
        highest = NAME(choose)(MASK(level > highest), level, highest);
    }
    NAME(store)(lanes, highest);
    for (int lane = 0; lane < W; lane++) most = lanes[lane] > most ? lanes[lane] : most;
    for (; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    most = most < 1e30f ? most : 1e30f;
    memset(bytes + (n - 1) / 4 * 4, 0, 4);
    for (i = 0; i < whole; i += W) {
        VI rounded = NAME(bits)(NAME(clamp)(NAME(load)(x + i) * (127.0f / most), -127.0f, 127.0f) + magic);
#if W == 1
        bytes[i] = (int8_t)(rounded - NAME(bits)(magic));
#else
        NAME(few_bytes) few = __builtin_convertvector(rounded, NAME(few_bytes));
        memcpy(bytes + i, &few, W);
#endif
    }
    for (; i < n; i++) {
        float value = x[i] * (127.0f / most); /* compared so that NaN becomes a number */
        value = value > -127.0f ? value : -127.0f;
        bytes[i] = (int8_t)lrintf(value < 127.0f ? value : 127.0f);
    }
    return most / 127.0f;
}

/* y [n][m.n_out] = begin + x [n][m.n_in] @ m. begin may be y; begin_step 0: the same row for all. */
TARGET static void NAME(multiply)(const struct matrix *m, const float *x, size_t x_step, int n, const float *begin,
                                  size_t begin_step, float *y, size_t y_step, int relu) {
    for (int row = 0; row < n;) {
        int rows = n - row >= 4 && MOST_ROWS == 4 ? 4 : n - row >= 2 ? 2 : 1;
        const float *w = m->floats;
        for (int column = 0; column < m->n_out; column += 4 * W) {
            int vectors = (m->n_out - column + W - 1) / W;
            if (vectors > 4) vectors = 4;
#define CALL(R, ROWS, VECTORS)                                                                                                     \
    {                                                                                                                              \
        NAME(float_panel)(ROWS, VECTORS, m->n_in, w, x + (row + R) * x_step, x_step, begin + (row + R) * begin_step + column,      \
                          begin_step, y + (row + R) * y_step + column, y_step, relu);                                              \
    }
            EACH_PANEL(CALL)
#undef CALL
            w += (size_t)m->n_in * vectors * W;
        }
        row += rows;
    }
}

/* The same with a matrix of bytes. Each row of x is rounded in its own unit, into `bytes` [n][m.n_in rounded up to 4]. */
TARGET static void NAME(multiply_bytes)(const struct matrix *m, const float *x, size_t x_step, int n, const float *begin,
                                        size_t begin_step, float *y, size_t y_step, int relu, int8_t *bytes) {
    int n_in = (m->n_in + 3) / 4 * 4;
    float scale[MOST_FRAMES];
#undef FOUR_ROWS
#define FOUR_ROWS(CALL)
    for (int row = 0; row < n; row++) scale[row] = NAME(round_row)(x + row * x_step, m->n_in, bytes + (size_t)row * n_in);
    for (int row = 0; row < n;) {
        int rows = n - row >= 2 ? 2 : 1;
        const int8_t *w = m->bytes;
        for (int column = 0; column < m->n_out; column += 4 * W) {
            int vectors = (m->n_out - column + W - 1) / W;
            if (vectors > 4) vectors = 4;
#define CALL(R, ROWS, VECTORS)                                                                                                     \
    {                                                                                                                              \
        NAME(byte_panel)(ROWS, VECTORS, n_in, w, m->scale + column, m->correction + column, bytes + (size_t)(row + R) * n_in,      \
                         (size_t)n_in, scale + row + R, begin + (row + R) * begin_step + column, begin_step,                       \
                         y + (row + R) * y_step + column, y_step, relu);                                                           \
    }
            EACH_PANEL(CALL)
#undef CALL
            w += (size_t)n_in * vectors * W;
        }
        row += rows;
    }
}
#undef MOST_ROWS
#undef FOUR_ROWS
#undef EACH_PANEL

/* Features [n] of spectra: log power. Buffers are padded to whole vectors, here and below. */
TARGET static void NAME(log_power)(float *y, const float *real, const float *imag, int n) {
    for (int i = 0; i < n; i += W) {
        V a = NAME(load)(real + i), b = NAME(load)(imag + i);
        NAME(store)(y + i, NAME(log)(a * a + b * b + QUIETEST_POWER));
    }
}

/* gates [4][n] before their activations, in torch's order (in, forget, new, out) -> hidden and cell [n], n a multiple of PAD */
TARGET static void NAME(lstm)(const float *gates, float *hidden, float *cell, int n) {
    for (int i = 0; i < n; i += W) {
        V in = NAME(sigmoid)(NAME(load)(gates + i)), forget = NAME(sigmoid)(NAME(load)(gates + n + i));
        V new = NAME(tanh)(NAME(load)(gates + 2 * n + i)), out = NAME(sigmoid)(NAME(load)(gates + 3 * n + i));
        V c = forget * NAME(load)(cell + i) + in * new;
        NAME(store)(cell + i, c);
        NAME(store)(hidden + i, out * NAME(tanh)(c));
    }
}

/* Gates [3][n] of the input and of the hidden vector, in torch's order (reset, update, new) -> hidden [n] */
TARGET static void NAME(gru)(const float *input, const float *recurrent, float *hidden, int n) {
    for (int i = 0; i < n; i += W) {
        V reset = NAME(sigmoid)(NAME(load)(input + i) + NAME(load)(recurrent + i));
        V update = NAME(sigmoid)(NAME(load)(input + n + i) + NAME(load)(recurrent + n + i));
        V new = NAME(tanh)(NAME(load)(input + 2 * n + i) + reset * NAME(load)(recurrent + 2 * n + i));
        NAME(store)(hidden + i, new + update * (NAME(load)(hidden + i) - new));
    }
}

/* inputs [2][n]: a gate before its sigmoid, and a value -> hidden [n] */
TARGET static void NAME(linear)(const float *inputs, float *hidden, int n) {
    for (int i = 0; i < n; i += W) {
        V keep = NAME(sigmoid)(NAME(load)(inputs + i)), value = NAME(load)(inputs + n + i);
        NAME(store)(hidden + i, value + keep * (NAME(load)(hidden + i) - value));
    }
}

/* A mask [n] before its sigmoid, and turns [2n] or NULL, applied to a spectrum: real and imaginary parts [n]. */
TARGET static void NAME(apply_mask)(float *restrict mask, const float *restrict turn, float *restrict real, float *restrict imag,
                                    int n) {
    for (int i = 0; i < n; i += W) NAME(store)(mask + i, NAME(sigmoid)(NAME(load)(mask + i)));
    for (int i = 0; i < n; i++) {
        float a = turn ? turn[i] : 1, b = turn ? turn[n + i] : 0;
        float gain = turn ? mask[i] / sqrtf(a * a + b * b + QUIETEST_POWER) : mask[i];
        float re = real[i], im = imag[i];
        real[i] = gain * (re * a - im * b);
        imag[i] = gain * (re * b + im * a);
    }
}

/* One pass of a Fourier transform (Stockham): n numbers that are `stride` apart, in `radix` interleaved parts. */
INLINE void NAME(radix_pass)(const int radix, int n, int stride, const float *restrict twiddle, const float *restrict root,
                             const float *restrict x, const float *restrict xi, float *restrict y, float *restrict yi) {
    int part = n / radix;
    for (int p = 0; p < part; p++, twiddle += 2 * radix) {
        for (int q = 0; q < stride; q++) {
            float a[5], b[5];
            UNROLL for (int k = 0; k < radix; k++) {
                a[k] = x[q + stride * (p + part * k)];
                b[k] = xi[q + stride * (p + part * k)];
            }
            UNROLL for (int j = 0; j < radix; j++) {
                float re, im;
                if (radix == 4) { /* the roots of one are 1, -i, -1, i */
                    float s = j & 1 ? -1.0f : 1.0f, t = j & 2 ? -1.0f : 1.0f;
                    float even = a[0] + s * a[2], even_i = b[0] + s * b[2];
                    re = even + (j & 1 ? t * (b[1] - b[3]) : t * (a[1] + a[3]));
                    im = even_i + (j & 1 ? t * (a[3] - a[1]) : t * (b[1] + b[3]));
                } else {
                    re = a[0], im = b[0];
                    UNROLL for (int k = 1; k < radix; k++) {
                        float c = root[2 * (j * k % radix)], s = root[2 * (j * k % radix) + 1];
                        re += a[k] * c - b[k] * s;
                        im += a[k] * s + b[k] * c;
                    }
                }
                float c = twiddle[2 * j], s = twiddle[2 * j + 1];
                y[q + stride * (radix * p + j)] = re * c - im * s;
                yi[q + stride * (radix * p + j)] = re * s + im * c;
            }
        }
    }
}

/* The Fourier transform of samples [2*n] times a window -> real and imaginary parts [n+1]. work: [4*n]. */
TARGET static void NAME(transform)(const struct transform *t, const float *samples, float *real, float *imag, float *work) {
    int n = t->n, stride = 1, left = n;
    float *x = work, *xi = work + n, *y = work + 2 * n, *yi = work + 3 * n;
    for (int i = 0; i < n; i++) { /* two real samples are one complex one */
        x[i] = samples[2 * i] * t->window[2 * i];
        xi[i] = samples[2 * i + 1] * t->window[2 * i + 1];
    }
    const float *twiddle = t->twiddles, *root = t->roots;
    for (int pass = 0; pass < t->n_passes; pass++) {
        int radix = t->radices[pass];
        switch (radix) {
            case 3: NAME(radix_pass)(3, left, stride, twiddle, root, x, xi, y, yi); break;
            case 4: NAME(radix_pass)(4, left, stride, twiddle, root, x, xi, y, yi); break;
            case 5: NAME(radix_pass)(5, left, stride, twiddle, root, x, xi, y, yi); break;
            default: any_radix_pass(radix, left, stride, twiddle, root, x, xi, y, yi);
        }
        twiddle += 2 * left;
        root += 2 * radix;
        left /= radix;
        stride *= radix;
        float *swap = x;
        x = y, y = swap, swap = xi, xi = yi, yi = swap;
    }
    real[0] = x[0] + xi[0], imag[0] = 0;
    real[n] = x[0] - xi[0], imag[n] = 0;
    for (int k = 1; k < n; k++) { /* the even samples' transform and the odd ones', told apart by their symmetry */
        float a = 0.5f * (x[k] + x[n - k]), b = 0.5f * (xi[k] - xi[n - k]);
        float c = 0.5f * (xi[k] + xi[n - k]), d = 0.5f * (x[n - k] - x[k]);
        float cosine = t->turns[2 * k], sine = t->turns[2 * k + 1];
        real[k] = a + c * cosine - d * sine;
        imag[k] = b + c * sine + d * cosine;
    }
}

static const struct kernels NAME(kernels) = {
    KERNEL_NAME, W,         INT8_DOT == DOT_VNNI, NAME(multiply), NAME(multiply_bytes), NAME(log_power),
    NAME(lstm),  NAME(gru), NAME(linear),         NAME(apply_mask), NAME(transform),
};

#undef INLINE
#undef V
#undef VI
#undef MASK
#undef NAME
#undef TARGET
#undef W
#undef INT8_DOT
#undef KERNEL_NAME
