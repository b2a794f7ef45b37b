#include "export/explain_value.h"

#include "base/hash.h"
#include "base/memory.h"
#include "export/fingerprint.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct asking {
	struct explanation *out;
	struct suspects *suspects;
	const struct cut *cut;
	const struct tensor *child;
	struct error *err;
};

static int answer(struct asking *a, enum cause cause)
{
	a->out->cause = cause;
	return 1;
}

#define SAY(a, ...) snprintf((a)->out->sentence, sizeof(a)->out->sentence, __VA_ARGS__)

/* ---- other cuts ---- */

int suspects_open(struct suspects *suspects, const struct verify *verify, struct error *err)
{
	const struct model *parent = verify->parent;
	struct budget other = {0};
	*suspects = (struct suspects){.verify = verify};
	int result = budget_copy(&other, &verify->budget, err);
	if (result == 0) {
		other.heads = verify->budget.heads == HEADS_GLOBAL ? HEADS_GROUPED : HEADS_GLOBAL;
		(void)cuts_plan(&suspects->global, parent, &other, NULL); // may cut blocks: no suspect then
		other.heads = verify->budget.heads;
	}
	if (result == 0) {
		budget_set_width(&other, AXIS_EXPERTS, axis_parent_width(AXIS_EXPERTS, &parent->config));
		result = cuts_plan(&suspects->wide, parent, &other, err);
	}
	if (result == 0) {
		suspects->hashes = mem_new(suspects->wide.n, sizeof *suspects->hashes, err);
		result = suspects->hashes ? 0 : -1;
	}
	budget_free(&other);
	if (result != 0)
		suspects_close(suspects);
	return result;
}

void suspects_close(struct suspects *suspects)
{
	cuts_free(&suspects->global);
	cuts_free(&suspects->wide);
	free(suspects->hashes);
	*suspects = (struct suspects){0};
}

static bool equals(const struct cut *cut, const struct tensor *child)
{
	const char *at = child->data;
	if (cut->to.tensor.bytes != child->bytes)
		return false;
	for (int64_t row = 0; (uint64_t)(row * cut->kept_bytes) < child->bytes; row++) {
		const char *stored =
			(const char *)cut->from->tensor.data + cut_row(cut, row) * cut->row_bytes;
		if (cut_difference(cut, stored, at) >= 0)
			return false;
		at += cut->kept_bytes;
	}
	return true;
}

static int ask_global_heads(struct asking *a)
{
	const struct cuts *global = &a->suspects->global;
	for (size_t i = 0; i < global->n; i++)
		if (global->list[i].from == a->cut->from && equals(&global->list[i], a->child)) {
			bool grouped = a->suspects->verify->budget.heads == HEADS_GROUPED;
			SAY(a, grouped ? "holds the first heads of all, not the first heads of every group"
						   : "holds the first heads of every group, not the first heads of all");
			return answer(a, CAUSE_GLOBAL_HEADS);
		}
	return 0;
}

static uint64_t hash_cut(const struct cut *cut, struct error *err)
{
	struct cut_reader reader = {.cut = cut};
	size_t size = (size_t)cut->to.tensor.bytes;
	char *bytes = mem_new(size, 1, err);
	uint64_t hash = 0;
	if (bytes)
		hash = hash_bytes(bytes, cut_read(&reader, bytes, size)) | 1;
	free(bytes);
	return hash;
}

static int ask_expert(struct asking *a)
{
	const struct cuts *wide = &a->suspects->wide;
	const char *name = a->cut->from->name, *ending = strstr(name, ".experts.");
	if (a->cut->expert < 0 || !ending)
		return 0;
	ending += strlen(".experts.");
	ending += strspn(ending, "0123456789");
	uint64_t hash = hash_bytes(a->child->data, (size_t)a->child->bytes) | 1;
	for (size_t i = 0; i < wide->n; i++) {
		const struct cut *cut = &wide->list[i];
		const char *end = strstr(cut->from->name, ending);
		if (cut->layer != a->cut->layer || cut->expert < 0 || !end || strcmp(end, ending) != 0)
			continue;
		if (!a->suspects->hashes[i])
			a->suspects->hashes[i] = hash_cut(cut, a->err);
		if (a->suspects->hashes[i] == hash) {
			SAY(a, "expert %d holds the parent's expert %d", a->cut->expert, cut->expert);
			return answer(a, CAUSE_EXPERT);
		}
	}
	return 0;
}

/* ---- rows and columns ---- */

struct views {
	struct span rows, columns;         // all of the child's
	struct span all_rows, all_columns; // all of the parent's
	struct sight child, kept, every_row, every_column;
};

static void look(const struct asking *a, struct views *v)
{
	const struct cut *cut = a->cut;
	int unit = cut_has_codes(cut) ? NVFP4_BLOCK / 2 : (int)dtype_bytes(cut->from->tensor.dtype);
	int64_t rows = cut->kept_bytes ? (int64_t)a->child->bytes / cut->kept_bytes : 0;
	v->rows = (struct span){0, (int)rows};
	v->columns = (struct span){0, (int)cut->kept_bytes};
	v->all_rows = (struct span){0, (int)cut->n_rows};
	v->all_columns = (struct span){0, (int)cut->row_bytes};
	v->child = (struct sight){a->child->data, cut->kept_bytes, &v->rows, &v->columns, 1, 1, unit};
	v->kept = (struct sight){cut->from->tensor.data, cut->row_bytes,      cut->rows, cut->columns,
							 cut->n_row_spans,       cut->n_column_spans, unit};
	v->every_row = v->kept;
	v->every_row.rows = &v->all_rows;
	v->every_row.n_row_spans = 1;
	v->every_column = v->kept;
	v->every_column.columns = &v->all_columns;
	v->every_column.n_column_spans = 1;
}

/* What a map from the child's rows (columns) to the parent's says. expected[i] is where i ought to
 * come from, found[i] where it does; n of them, of m in the parent. */
static int describe(struct asking *a, const char *what, const int64_t *expected,
					const int64_t *found, int64_t n, int64_t m)
{
	int64_t moved = 0, first = -1, second = -1;
	bool shifted = true;
	for (int64_t i = 0; i < n; i++) {
		if (found[i] != expected[i]) {
			if (moved++ == 0)
				first = i;
			else if (second < 0)
				second = i;
		}
		shifted = shifted && found[i] - expected[i] == found[0] - expected[0];
	}
	if (moved == 0)
		return 0;
	int64_t by = found[0] - expected[0];
	if (shifted && expected[n - 1] == n - 1 && found[n - 1] == m - 1) {
		SAY(a, "%ss are the parent's last %lld of %lld, not its first", what, (long long)n,
			(long long)m);
		return answer(a, CAUSE_OTHER_END);
	}
	if (shifted) {
		SAY(a, "%ss are shifted by %lld: the first is the parent's %lld, expected %lld", what,
			(long long)by, (long long)found[0], (long long)expected[0]);
		return answer(a, CAUSE_SHIFTED);
	}
	bool round = true, reversed = true;
	int64_t turn = 0;
	while (turn < n && expected[turn] != found[0])
		turn++;
	for (int64_t i = 0; i < n; i++) {
		round = round && turn < n && found[i] == expected[(i + turn) % n];
		reversed = reversed && found[i] == expected[n - 1 - i];
	}
	if (reversed && n > 2)
		SAY(a, "%ss stand in reverse order", what);
	else if (round && n > 2)
		SAY(a, "%ss are moved round by %lld: the first is the parent's %lld", what,
			(long long)(turn > n / 2 ? turn - n : turn), (long long)found[0]);
	else if (moved == 2 && found[first] == expected[second] && found[second] == expected[first])
		SAY(a, "%ss %lld and %lld are exchanged", what, (long long)first, (long long)second);
	else
		SAY(a,
			"%ss are permuted: %lld of %lld stand elsewhere, the first is %lld, which is the "
			"parent's %lld, expected %lld",
			what, (long long)moved, (long long)n, (long long)first, (long long)found[first],
			(long long)expected[first]);
	return answer(a, CAUSE_PERMUTED);
}

/* Where units of the child come from in the parent. 1 = answered. */
static int ask_map(struct asking *a, const char *what, const uint64_t *child, int64_t n,
				   const uint64_t *parent, int64_t m, int64_t *expected)
{
	int64_t *found = mem_new((size_t)n, sizeof *found, a->err);
	if (!found)
		return -1;
	// an exact shift first: equal rows would hide it from a match one by one
	int result = 0;
	for (int64_t from = 0; from < m && result == 0; from++) {
		int64_t by = from - expected[0];
		if (by == 0 || parent[from] != child[0])
			continue;
		bool all = true;
		for (int64_t i = 0; i < n && all; i++) {
			int64_t at = expected[i] + by;
			all = at >= 0 && at < m && parent[at] == child[i];
			found[i] = at;
		}
		if (all)
			result = describe(a, what, expected, found, n, m);
	}
	if (result == 0) {
		int64_t missing = match_hashes(child, n, parent, m, expected, found, a->err);
		result = missing < 0 ? -1 : missing > 0 ? 0 : describe(a, what, expected, found, n, m);
	}
	free(found);
	return result;
}

static int ask_rows(struct asking *a, const struct views *v)
{
	int64_t n = sight_rows(&v->child);
	uint64_t *child = sight_row_hashes(&v->child, true, a->err);
	uint64_t *parent = sight_row_hashes(&v->every_row, true, a->err);
	int64_t *expected = mem_new((size_t)n, sizeof *expected, a->err);
	int result = -1;
	if (child && parent && expected) {
		for (int64_t i = 0; i < n; i++)
			expected[i] = cut_row(a->cut, i);
		result = ask_map(a, a->child->n_dims < 2 ? "element" : "row", child, n, parent,
						 a->cut->n_rows, expected);
	}
	free(child);
	free(parent);
	free(expected);
	return result;
}

static int ask_columns(struct asking *a, const struct views *v)
{
	int64_t n = sight_units(&v->child);
	if (n < 2)
		return 0;
	uint64_t *child = sight_column_hashes(&v->child, a->err);
	uint64_t *parent = sight_column_hashes(&v->every_column, a->err);
	int64_t *expected = mem_new((size_t)n, sizeof *expected, a->err);
	int result = -1;
	if (child && parent && expected) {
		for (int64_t i = 0; i < n; i++)
			expected[i] = cut_byte(a->cut, i * v->child.unit) / v->child.unit;
		result = ask_map(a, cut_has_codes(a->cut) ? "block of 16 column" : "column", child, n,
						 parent, sight_units(&v->every_column), expected);
	}
	free(child);
	free(parent);
	free(expected);
	return result;
}

/* Cut at the other end of both axes: no row and no column is one of the parent's. */
static int ask_corner(struct asking *a, const struct views *v)
{
	const struct cut *cut = a->cut;
	int64_t n = sight_rows(&v->child), below = cut->n_rows - n;
	int64_t beside = cut->row_bytes - cut->kept_bytes;
	if (a->child->n_dims < 2 || below <= 0 || beside <= 0)
		return 0;
	for (int64_t row = 0; row < n; row++) {
		const char *stored = (const char *)cut->from->tensor.data;
		const char *child = (const char *)a->child->data + row * cut->kept_bytes;
		if (memcmp(stored + (below + row) * cut->row_bytes + beside, child,
				   (size_t)cut->kept_bytes) != 0)
			return 0;
	}
	SAY(a, "holds the parent's last rows and columns, not its first");
	return answer(a, CAUSE_OTHER_END);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* Rows whose numbers are the same in any order. */
static int ask_mixed(struct asking *a, const struct views *v)
{
	size_t n = (size_t)sight_rows(&v->child);
	uint64_t *child = sight_row_hashes(&v->child, false, a->err);
	uint64_t *kept = sight_row_hashes(&v->kept, false, a->err);
	int result = -1;
	if (child && kept) {
		qsort(child, n, sizeof *child, by_value);
		qsort(kept, n, sizeof *kept, by_value);
		result = memcmp(child, kept, n * sizeof *child) == 0;
	}
	free(child);
	free(kept);
	if (result > 0) {
		SAY(a, "holds the right numbers, rows and columns in another order");
		return answer(a, CAUSE_MIXED);
	}
	return result;
}

/* ---- numbers ---- */

struct ratio {
	double c;   // of the largest number of the parent's
	bool exact; // all numbers are c times the parent's, within BF16's rounding
	bool equal;
	double worst; // largest difference
};

static struct ratio row_ratio(const struct asking *a, int64_t row, double given)
{
	const struct cut *cut = a->cut;
	bool codes = cut_has_codes(cut);
	enum dtype dtype = a->child->dtype;
	int64_t width = (int64_t)dtype_bytes(dtype);
	const char *stored = (const char *)cut->from->tensor.data + cut_row(cut, row) * cut->row_bytes;
	const char *child = (const char *)a->child->data + row * cut->kept_bytes;
	struct ratio r = {.c = given, .exact = true};
	double largest = 0;
	r.equal = cut_difference(cut, stored, child) < 0;
	int64_t n = codes ? cut->kept_bytes * 2 : cut->kept_bytes / width;
	for (int pass = given != 0; pass < 2; pass++)
		for (int64_t i = 0; i < n; i++) {
			int64_t byte = cut_byte(cut, codes ? i / 2 : i * width);
			int64_t at = codes ? byte * 2 + i % 2 : byte / width;
			double p = stored_number(dtype, codes, stored, at);
			double q = stored_number(dtype, codes, child, i);
			if (pass == 0 && fabs(p) > largest) {
				largest = fabs(p);
				r.c = q / p;
			} else if (pass == 1) {
				double off = isfinite(q - p) ? fabs(q - p) : INFINITY;
				r.exact = r.exact && fabs(q - r.c * p) <= fabs(r.c * p) / 64 + 1e-30;
				r.worst = off > r.worst ? off : r.worst;
			}
		}
	return r;
}

/* The mean of child times parent over parent squared: the factor, if there is one. */
static double whole_ratio(const struct asking *a, int64_t rows)
{
	const struct cut *cut = a->cut;
	bool codes = cut_has_codes(cut);
	int64_t width = (int64_t)dtype_bytes(a->child->dtype);
	int64_t n = codes ? cut->kept_bytes * 2 : cut->kept_bytes / width;
	double above = 0, below = 0;
	for (int64_t row = 0; row < rows; row++) {
		const char *stored =
			(const char *)cut->from->tensor.data + cut_row(cut, row) * cut->row_bytes;
		const char *child = (const char *)a->child->data + row * cut->kept_bytes;
		for (int64_t i = 0; i < n; i++) {
			int64_t byte = cut_byte(cut, codes ? i / 2 : i * width);
			double p = stored_number(a->child->dtype, codes, stored,
									 codes ? byte * 2 + i % 2 : byte / width);
			above += p * stored_number(a->child->dtype, codes, child, i);
			below += p * p;
		}
	}
	return below > 0 ? above / below : 0;
}

static int ask_numbers(struct asking *a)
{
	int64_t rows = a->cut->kept_bytes ? (int64_t)a->child->bytes / a->cut->kept_bytes : 0;
	int64_t differing = 0, scaled = 0, zeros = 0, first = -1;
	double c = whole_ratio(a, rows), worst = 0, first_c = 0;
	bool whole = c != 0 && fabs(c - 1) > 1e-3;
	for (int64_t row = 0; row < rows; row++) {
		struct ratio r = row_ratio(a, row, 0);
		if (whole)
			whole = row_ratio(a, row, c).exact;
		worst = r.worst > worst ? r.worst : worst;
		if (r.equal)
			continue;
		differing++;
		if (r.exact && fabs(r.c - 1) > 1e-3) {
			zeros += r.c == 0;
			if (scaled++ == 0) {
				first = row;
				first_c = r.c;
			}
		}
	}
	const char *what = a->child->n_dims < 2 ? "element" : "row";
	if (whole) {
		SAY(a, "is the parent's times %.4g", c);
		return answer(a, CAUSE_SCALED);
	}
	if (differing > 0 && zeros == differing) {
		SAY(a, "%lld of %lld %ss are 0, the first is %s %lld", (long long)zeros, (long long)rows,
			what, what, (long long)first);
		return answer(a, CAUSE_NUMBERS);
	}
	if (scaled == differing && a->child->n_dims >= 2) {
		SAY(a, "%lld of %lld rows are scaled, row %lld by %.4g", (long long)scaled, (long long)rows,
			(long long)first, first_c);
		return answer(a, CAUSE_ROWS_SCALED);
	}
	if (isinf(worst))
		SAY(a, "%lld of %lld %ss hold other numbers, NaN or infinity among them",
			(long long)differing, (long long)rows, what);
	else
		SAY(a, "%lld of %lld %ss hold other numbers, off by up to %.4g", (long long)differing,
			(long long)rows, what, worst);
	return answer(a, CAUSE_NUMBERS);
}

int explain_value(struct explanation *out, struct suspects *suspects, const struct difference *d,
				  struct error *err)
{
	struct asking a = {.out = out,
					   .suspects = suspects,
					   .cut = d->cut,
					   .child = checkpoint_find(&suspects->verify->child, d->name),
					   .err = err};
	struct views v;
	look(&a, &v);
	int said = ask_expert(&a);
	said = said ? said : ask_global_heads(&a);
	said = said ? said : ask_rows(&a, &v);
	said = said ? said : ask_columns(&a, &v);
	said = said ? said : ask_corner(&a, &v);
	said = said ? said : ask_mixed(&a, &v);
	said = said ? said : ask_numbers(&a);
	return said < 0 ? -1 : 0;
}
