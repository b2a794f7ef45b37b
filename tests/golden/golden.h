/*
 * What the golden tests share: a checkpoint opened on a device, slices by name, logits at every
 * position, and comparison with stored values (relative = the largest difference over the largest
 * magnitude). Failures end the test (cmocka). Every result that is compared is also hashed, so that
 * two runs, say with one thread and with two, can be held against each other bit for bit.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include "core/forward.h"
#include "core/model.h"
#include "core/prefill.h"
#include "core/reading.h"
#include "kernels/cpu.h"

#define GOLDEN_SLICES 8
#define GOLDEN_CONTEXT 256

#define GOLDEN_TOKENS (4 * PREFILL_CHUNK) // of all lanes of a pass

struct golden {
	struct model *model;
	struct device *device;
	struct workspace *workspace; // GOLDEN_TOKENS, all logits
	enum dtype kv_dtype;
	struct slice slices[GOLDEN_SLICES];
	char names[GOLDEN_SLICES][80];
	int n_slices;
	double worst;  // the largest relative error so far
	uint64_t hash; // of all that was compared
};

enum { GOLDEN_LANES = 4 }; // of its workspace

/* How a test runs, set by golden_main before each. */
struct golden_run {
	const char *rung; // ELASTISCOPE_RUNG
	int threads;
};
extern struct golden_run golden_run;

/* The CPU's table, or with TEST_CUDA (when golden.c is compiled) the CUDA one: once, not by rungs
 * and threads. */
extern const struct backend *const golden_backend;

/* folder: "nest-tiny", below tests/golden, or "demo", the bundled one. budgets: a file there, or
 * NULL. */
void golden_open(struct golden *g, const char *folder, const char *budgets, enum math math);
void golden_open_kv(struct golden *g, const char *folder, const char *budgets, enum math math,
					enum dtype kv_dtype);
void golden_close(struct golden *g);
char *golden_path(const char *file); // below tests/golden; free()

/* Built when first asked for: a budget's name, or widths. */
const struct slice *golden_slice(struct golden *g, const char *budget);
void golden_sequence(struct golden *g, struct sequence *sequence,
					 const char *budget); // NULL = none

/* Reads ids in chunks; logits of every position into out (n, vocab), which may be NULL. */
void golden_read(struct golden *g, struct sequence *sequence, const int32_t *ids, int n, int chunk,
				 float *out);

/* An F32 or I32 tensor that must be there with that many elements. */
const float *golden_floats(const struct checkpoint *values, const char *name, size_t n);
const int32_t *golden_ids(const struct checkpoint *values, const char *name, size_t n);

/* At most `limit` relative; what names the values in messages. Hashes found. */
void golden_close_to(struct golden *g, const char *what, const float *found, const float *expected,
					 size_t n, double limit);
/* Two ways to the same values (other chunks, a snapshot): the same bits; on a card nearly, because
 * many tokens take other kernels there than a few do. */
void golden_same(const char *what, const float *found, const float *expected, size_t n);
void golden_same_picked(const char *what, const struct picked *found,
						const struct picked *expected);
double golden_error(const float *found, const float *expected, size_t n);

_Noreturn void golden_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void golden_must(int result, const struct error *err); // fails with the sentence unless 0
void golden_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs every test on every rung with one and two threads; the hash that a test leaves
 * (golden_leave) must not depend on threads. ELASTISCOPE_GOLDEN names the one test to run: over
 * the shim each is a test of its own. */
struct golden_test {
	const char *name;
	void (*run)(void);
};
int golden_main(const struct golden_test *tests, int n);
void golden_leave(const struct golden *g, const char *what); // a message, and the hash

#endif
