#include "export/fingerprint.h"

#include "base/hash.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

static int64_t total(const struct span *spans, int n)
{
	int64_t sum = 0;
	for (int i = 0; i < n; i++)
		sum += spans[i].length;
	return sum;
}

int64_t sight_rows(const struct sight *sight)
{
	return total(sight->rows, sight->n_row_spans);
}

int64_t sight_units(const struct sight *sight)
{
	return total(sight->columns, sight->n_column_spans) / sight->unit;
}

/* Adds every unit of a row to into[0], in any order, or each to its own of into[0 ..]. */
static void add_row(const struct sight *s, const char *row, bool apart, uint64_t *into)
{
	int64_t at = 0;
	for (int c = 0; c < s->n_column_spans; c++) {
		const char *from = row + s->columns[c].start;
		for (int i = 0; i + s->unit <= s->columns[c].length; i += s->unit, at++) {
			uint64_t hash = hash_bytes(from + i, (size_t)s->unit);
			if (apart)
				into[at] = hash_mix(into[at] ^ hash);
			else
				*into += hash_mix(hash);
		}
	}
}

uint64_t *sight_row_hashes(const struct sight *sight, bool ordered, struct error *err)
{
	uint64_t *hashes = mem_new((size_t)sight_rows(sight), sizeof *hashes, err);
	/* Ordered hashes run over the row's bytes whatever spans they come from, so that a child's one
	 * run and the parent's several agree: bytes are gathered first. */
	char *row = mem_new((size_t)(sight_units(sight) * sight->unit), 1, err);
	uint64_t *to = hashes;
	for (int s = 0; hashes && row && s < sight->n_row_spans; s++)
		for (int i = 0; i < sight->rows[s].length; i++, to++) {
			const char *from = sight->data + (sight->rows[s].start + i) * sight->row_bytes;
			size_t n = 0;
			if (!ordered) {
				add_row(sight, from, false, to);
				continue;
			}
			for (int c = 0; c < sight->n_column_spans; c++) {
				memcpy(row + n, from + sight->columns[c].start, (size_t)sight->columns[c].length);
				n += (size_t)sight->columns[c].length;
			}
			*to = hash_bytes(row, n);
		}
	free(row);
	if (row)
		return hashes;
	free(hashes);
	return NULL;
}

uint64_t *sight_column_hashes(const struct sight *sight, struct error *err)
{
	uint64_t *hashes = mem_new((size_t)sight_units(sight), sizeof *hashes, err);
	for (int s = 0; hashes && s < sight->n_row_spans; s++)
		for (int i = 0; i < sight->rows[s].length; i++)
			add_row(sight, sight->data + (sight->rows[s].start + i) * sight->row_bytes, true,
					hashes);
	return hashes;
}

/* ---- matching ---- */

struct entry {
	uint64_t hash;
	int64_t index;
	int64_t skip; // of the first of equal hashes: how many of them are taken for sure
};

static int by_hash(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* The first entry of that hash which nobody has taken. */
static int64_t take(struct entry *entries, int64_t m, uint64_t hash, uint8_t *taken)
{
	int64_t low = 0, high = m;
	while (low < high) {
		int64_t middle = (low + high) / 2;
		if (entries[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	int64_t *skip = low < m ? &entries[low].skip : NULL;
	for (low += skip ? *skip : 0; low < m && entries[low].hash == hash; low++, ++*skip)
		if (!taken[entries[low].index]) {
			taken[entries[low].index] = 1;
			return entries[low].index;
		}
	return -1;
}

int64_t match_hashes(const uint64_t *hashes, int64_t n, const uint64_t *others, int64_t m,
					 const int64_t *expected, int64_t *out, struct error *err)
{
	struct entry *entries = mem_new((size_t)m, sizeof *entries, err);
	uint8_t *taken = mem_new((size_t)m, 1, err);
	int64_t missing = 0;
	if (!entries || !taken) {
		free(entries);
		free(taken);
		return -1;
	}
	for (int64_t i = 0; i < m; i++)
		entries[i] = (struct entry){others[i], i, 0};
	qsort(entries, (size_t)m, sizeof *entries, by_hash);
	for (int64_t i = 0; i < n; i++) {
		out[i] = -1;
		if (expected[i] >= 0 && expected[i] < m && others[expected[i]] == hashes[i]) {
			out[i] = expected[i];
			taken[out[i]] = 1;
		}
	}
	for (int64_t i = 0; i < n; i++) {
		if (out[i] < 0)
			out[i] = take(entries, m, hashes[i], taken);
		missing += out[i] < 0;
	}
	free(entries);
	free(taken);
	return missing;
}
